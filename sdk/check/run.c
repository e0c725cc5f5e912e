/* SPDX-License-Identifier: MIT
 *
 * One check, one process: a plugin that crashes, aborts or hangs fails its check and no other.
 *
 * What the child writes is kept. The reason on the line is what the check ("check: ") or the fake
 * host ("mock: ") said; a sanitizer's report follows below, indented. */
#define _GNU_SOURCE /* nftw */
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define EXIT_SKIPPED 77
#define TIME_MAX_S   120u
#define OUTPUT_SIZE  8192u

struct outcome {
    int status; /* of waitpid */
    char output[OUTPUT_SIZE];
    char reason[1024];
};

void check_fail(const char *file, int line, const char *fmt, ...)
{
    const char *slash = strrchr(file, '/');
    va_list args;

    (void)fflush(stdout);
    (void)fprintf(stderr, "check: ");
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, " (%s:%d)\n", slash == NULL ? file : slash + 1, line);
    _exit(1); /* no leak report: the check ended in the middle */
}

void check_skip(const char *fmt, ...)
{
    va_list args;

    (void)fprintf(stderr, "check: ");
    va_start(args, fmt);
    (void)vfprintf(stderr, fmt, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    _exit(EXIT_SKIPPED);
}

const char *check_code(int rc)
{
    return rc == 0 ? "0" : kvs_code_name(rc);
}

uint64_t check_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void *check_alloc(size_t size)
{
    void *p = malloc(size == 0 ? 1 : size);

    CHECK(p != NULL, "out of memory: %zu bytes", size);
    return p;
}

/* ---- the child ---------------------------------------------------------------------------------
 */

static KVS_NORETURN void child_run(const struct check_case *c, int to)
{
    (void)dup2(to, STDERR_FILENO);
    (void)dup2(to, STDOUT_FILENO);
    (void)close(to);
    (void)alarm(TIME_MAX_S);
    c->run();
    exit(0); /* with a leak report where there is a leak checker */
}

/* Everything the child says; what exceeds the room is read and dropped. */
static void child_read(int from, struct outcome *o)
{
    size_t len = 0;
    char spill[512];

    for (;;) {
        int full = len == sizeof o->output - 1;
        ssize_t n = read(from, full ? spill : o->output + len,
                         full ? sizeof spill : sizeof o->output - 1 - len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        len += full ? 0 : (size_t)n;
    }
    o->output[len] = '\0';
}

/* The lines that say why, joined by "; ". */
static void reason_find(struct outcome *o)
{
    size_t len = 0;

    o->reason[0] = '\0';
    for (const char *line = o->output; *line != '\0'; line += strcspn(line, "\n")) {
        size_t n;

        line += strspn(line, "\n");
        n = strcspn(line, "\n");
        if ((strncmp(line, "check: ", 7) == 0 || strncmp(line, "mock: ", 6) == 0) &&
            len + n + 4 < sizeof o->reason) {
            int skip = line[0] == 'c' ? 7 : 6;

            len += (size_t)snprintf(o->reason + len, sizeof o->reason - len, "%s%.*s",
                                    len == 0 ? "" : "; ", (int)n - skip, line + skip);
        }
    }
    if (WIFSIGNALED(o->status)) {
        const char *what = WTERMSIG(o->status) == SIGALRM ? "it did not end in two minutes"
                                                          : strsignal(WTERMSIG(o->status));

        (void)snprintf(o->reason + len, sizeof o->reason - len, "%s%s", len == 0 ? "" : "; ", what);
    } else if (len == 0 && WEXITSTATUS(o->status) != 0) {
        (void)snprintf(o->reason, sizeof o->reason, "exit status %d", WEXITSTATUS(o->status));
    }
}

static void output_print(const struct outcome *o)
{
    for (const char *line = o->output; *line != '\0';) {
        size_t n = strcspn(line, "\n");

        if (strncmp(line, "check: ", 7) != 0 && strncmp(line, "mock: ", 6) != 0) {
            (void)printf("      %.*s\n", (int)n, line);
        }
        line += n + (line[n] == '\n');
    }
}

/* ---- the parent --------------------------------------------------------------------------------
 */

char check_dir[64];

static void dir_make(void)
{
    const char *tmp = getenv("TMPDIR");

    (void)snprintf(check_dir, sizeof check_dir, "%s/kvs-check-XXXXXX",
                   tmp == NULL || strlen(tmp) > 40 ? "/tmp" : tmp);
    if (mkdtemp(check_dir) == NULL) {
        perror(check_dir);
        exit(2);
    }
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

int check_run(const struct check_case *c, const char *group, struct check_counts *counts)
{
    static struct outcome o;
    int fds[2];
    pid_t pid;

    dir_make();
    (void)fflush(NULL);
    if (pipe(fds) != 0 || (pid = fork()) < 0) {
        perror("kvs-plugin-check");
        exit(2);
    }
    if (pid == 0) {
        (void)close(fds[0]);
        child_run(c, fds[1]);
    }
    (void)close(fds[1]);
    child_read(fds[0], &o);
    (void)close(fds[0]);
    while (waitpid(pid, &o.status, 0) < 0 && errno == EINTR) {
    }
    (void)nftw(check_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    reason_find(&o);
    if (WIFEXITED(o.status) && WEXITSTATUS(o.status) == 0) {
        (void)printf("ok    %s: %s\n", group, c->name);
        counts->passed++;
        return 1;
    }
    if (WIFEXITED(o.status) && WEXITSTATUS(o.status) == EXIT_SKIPPED) {
        (void)printf("skip  %s: %s: %s\n", group, c->name, o.reason);
        counts->skipped++;
        return 1;
    }
    (void)printf("FAIL  %s: %s: %s\n", group, c->name, o.reason);
    output_print(&o);
    counts->failed++;
    return 0;
}

void check_run_all(const struct check_case *cases, const char *group, const char *only,
                   struct check_counts *counts)
{
    for (; cases->name != NULL; cases++) {
        if (only == NULL || strstr(cases->name, only) != NULL) {
            (void)check_run(cases, group, counts);
        }
    }
}
