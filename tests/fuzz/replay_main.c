/* SPDX-License-Identifier: MIT
 *
 * Runs a fuzz target without a fuzzer: every file of its corpus, then mutations of them.
 *
 *   replay_<decoder> CORPUS-FOLDER [MUTATIONS [SEED]]     a run with one seed repeats itself
 *   replay_<decoder> FILE                                 one input, such as a finding
 *
 * A crash leaves the input it was about in ./crash-<decoder>. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_SIZE_MAX  65536u
#define INPUT_COUNT_MAX 256u
#define MUTATIONS       4000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    uint8_t *bytes;
    size_t len;
};

static struct input corpus[INPUT_COUNT_MAX];
static uint32_t corpus_count;
static int corpus_is_folder;
static uint8_t present[INPUT_SIZE_MAX]; /* the input that is looked at */
static size_t present_len;
static char crash_path[128];
static uint64_t rng;

static uint64_t dice(uint64_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return n == 0 ? 0 : rng % n;
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void on_crash(int sig)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd >= 0) {
        (void)!write(fd, present, present_len); /* nothing better can be done here */
        (void)close(fd);
    }
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

/* In memory of its exact size, so that a sanitizer sees a read behind the end. */
static void run(void)
{
    uint8_t *exact = malloc(present_len + (present_len == 0));

    if (exact == NULL) {
        abort();
    }
    memcpy(exact, present, present_len);
    (void)LLVMFuzzerTestOneInput(exact, present_len);
    free(exact);
}

static void take(const struct input *in)
{
    memcpy(present, in->bytes, in->len);
    present_len = in->len;
}

/* ---- mutations ---------------------------------------------------------------------------------
 */

static void insert(size_t at, const uint8_t *bytes, size_t n)
{
    n = n < INPUT_SIZE_MAX - present_len ? n : INPUT_SIZE_MAX - present_len;
    memmove(present + at + n, present + at, present_len - at);
    memcpy(present + at, bytes, n);
    present_len += n;
}

static void cut(size_t at, size_t n)
{
    n = n < present_len - at ? n : present_len - at;
    memmove(present + at, present + at + n, present_len - at - n);
    present_len -= n;
}

static void put_number(size_t at)
{
    static const uint64_t NUMBERS[] = {
        0,       1,          0x7f,       0x80,       0xff,       0x100,     0x7fff,   0xffff,
        0x10000, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, INT64_MAX, 1u << 20, 64u << 20};
    uint64_t v = NUMBERS[dice(sizeof NUMBERS / sizeof NUMBERS[0])] + dice(3) - 1;
    size_t width = (size_t)1 << dice(4);

    for (size_t i = 0; i < width && at + i < present_len; i++, v >>= 8) {
        present[at + i] = (uint8_t)v;
    }
}

static void mutate(void)
{
    const struct input *other = &corpus[dice(corpus_count)];
    uint8_t noise[8];
    size_t at = dice(present_len + 1), from = dice(other->len + 1);

    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (uint8_t)dice(256);
    }
    switch (dice(7)) {
    case 0:
        insert(at, noise, 1 + dice(sizeof noise));
        break;
    case 1:
        cut(at, 1 + dice(dice(8) == 0 ? 256 : 8));
        break;
    case 2:
        insert(at, other->bytes + from, dice(other->len - from + 1));
        break;
    case 3:
        put_number(at);
        break;
    case 4:
        present_len = dice(4) == 0 ? at : present_len;
        break;
    case 5:
        if (at < present_len) {
            present[at] = (uint8_t)dice(256);
        }
        break;
    default:
        if (at < present_len) {
            present[at] ^= (uint8_t)(1u << dice(8));
        }
    }
}

/* ---- the corpus --------------------------------------------------------------------------------
 */

static void read_file(const char *path)
{
    struct input *in = &corpus[corpus_count];
    FILE *f = fopen(path, "re");

    if (f == NULL || corpus_count == INPUT_COUNT_MAX) {
        (void)fprintf(stderr, "%s: cannot be read, or one of too many\n", path);
        exit(2);
    }
    in->bytes = malloc(INPUT_SIZE_MAX);
    if (in->bytes == NULL) {
        abort();
    }
    in->len = fread(in->bytes, 1, INPUT_SIZE_MAX, f);
    (void)fclose(f);
    corpus_count++;
}

static int is_visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static void read_corpus(const char *path)
{
    struct dirent **names;
    struct stat st;
    char file[4096];
    int n;

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        read_file(path);
        return;
    }
    corpus_is_folder = 1;
    n = scandir(path, &names, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        read_file(file);
        free(names[i]);
    }
    if (n <= 0) {
        (void)fprintf(stderr, "%s: no corpus\n", path);
        exit(2);
    }
    free(names);
}

int main(int argc, char **argv)
{
    const char *slash = argc < 2 ? NULL : strrchr(argv[1], '/');
    uint64_t mutations = argc > 2 ? strtoull(argv[2], NULL, 10) : MUTATIONS;

    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s CORPUS [MUTATIONS [SEED]]\n", argv[0]);
        return 2;
    }
    rng = (argc > 3 ? strtoull(argv[3], NULL, 10) : 1) * 0x9e3779b97f4a7c15u | 1;
    (void)snprintf(crash_path, sizeof crash_path, "crash-%.100s",
                   slash == NULL ? argv[1] : slash + 1);
    (void)signal(SIGSEGV, on_crash);
    (void)signal(SIGBUS, on_crash);
    (void)signal(SIGFPE, on_crash);
    (void)signal(SIGABRT, on_crash);
    read_corpus(argv[1]);
    for (uint32_t i = 0; i < corpus_count; i++) {
        take(&corpus[i]);
        run();
    }
    for (uint64_t i = 0; i < mutations && corpus_is_folder; i++) {
        take(&corpus[dice(corpus_count)]);
        for (uint64_t k = 1 + dice(4); k > 0; k--) {
            mutate();
        }
        run();
    }
    for (uint32_t i = 0; i < corpus_count; i++) {
        free(corpus[i].bytes);
    }
    return 0;
}
