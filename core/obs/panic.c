/* SPDX-License-Identifier: MIT
 *
 * Last words; see panic.h. Only async-signal-safe calls once something is wrong: write, backtrace
 * (warmed up at install, so that it loads its library before) and backtrace_symbols_fd. */
#define _GNU_SOURCE
#include <elf.h>
#include <execinfo.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "obs/panic.h"

#define FRAMES         64
#define ALT_STACK_SIZE (64u << 10)

static char build_id[65];
static char alt_stack[ALT_STACK_SIZE];

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        return;
    }
}

static void say_number(unsigned long v)
{
    char digits[24];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    say(digits + at);
}

static void report(const char *what, const char *file, int line)
{
    void *frames[FRAMES];
    char thread[17] = "";

    (void)prctl(PR_GET_NAME, thread, 0, 0, 0);
    say("\nkvsd panic: ");
    say(what);
    if (file != NULL) {
        say("\n  at ");
        say(file);
        say(":");
        say_number((unsigned long)line);
    }
    say("\n  thread ");
    say(thread);
    say(", build ");
    say(build_id);
    say("\n");
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
}

void kvs__panic(const char *file, int line, const char *what)
{
    report(what, file, line);
    (void)signal(SIGABRT, SIG_DFL);
    abort();
}

static void on_signal(int number)
{
    report(number == SIGSEGV  ? "SIGSEGV: invalid memory access"
           : number == SIGBUS ? "SIGBUS: memory behind a mapping is gone"
           : number == SIGFPE ? "SIGFPE: arithmetic error"
                              : "SIGILL: illegal instruction",
           NULL, 0);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static int note_visit(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        const char *p, *end;

        if (ph->p_type != PT_NOTE) {
            continue;
        }
        p = (const char *)(info->dlpi_addr + ph->p_vaddr); /* NOLINT: an address from the loader */
        end = p + ph->p_memsz;
        while (p + sizeof(ElfW(Nhdr)) <= end) {
            ElfW(Nhdr) note;
            const unsigned char *desc;

            memcpy(&note, p, sizeof note);
            desc = (const unsigned char *)p + sizeof note + ((note.n_namesz + 3u) & ~3u);
            if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz <= 32) {
                for (unsigned k = 0; k < note.n_descsz; k++) {
                    build_id[2 * k] = "0123456789abcdef"[desc[k] >> 4];
                    build_id[2 * k + 1] = "0123456789abcdef"[desc[k] & 15];
                }
                return 1;
            }
            p = (const char *)desc + ((note.n_descsz + 3u) & ~3u);
        }
    }
    return 1; /* the first object is the executable */
}

const char *kvs__build_id(void)
{
    if (build_id[0] == '\0') {
        (void)dl_iterate_phdr(note_visit, NULL);
    }
    return build_id;
}

void kvs__panic_install(void)
{
    static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    stack_t stack = {.ss_sp = alt_stack, .ss_size = sizeof alt_stack};
    struct sigaction action;
    void *warm_up[2];

    (void)kvs__build_id();
    (void)backtrace(warm_up, 2);
#if !defined(KVS_ASAN) && !defined(KVS_TSAN) /* sanitizers report these signals better */
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    (void)sigaltstack(&stack, NULL);
    for (size_t i = 0; i < KVS_ARRAY_COUNT(SIGNALS); i++) {
        (void)sigaction(SIGNALS[i], &action, NULL);
    }
#else
    (void)stack;
    (void)action;
    (void)SIGNALS;
    (void)on_signal;
#endif
}
