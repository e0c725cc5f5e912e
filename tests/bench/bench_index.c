/* SPDX-License-Identifier: MIT
 *
 * Speed and size of an index plugin: ns per operation and bytes per entry, as figures.
 *
 *   bench_index PLUGIN.so [COUNT ...]        counts: 1000000 10000000 unless given
 *
 * Keys are 16 bytes: "in order" a big-endian counter behind eight constant bytes, "random" 16
 * random bytes. Entries lie in one array, so that the figures are those of the index and not of an
 * allocator; the host is a thin layer over malloc that counts what is held. Every operation visits
 * the entries in a random order, that is, with cold caches at these sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kvs/index.h"
#include "plugin_file.h"

#define KEY_SIZE 16u

struct entry {
    uint32_t len, reserved;
    char key[KEY_SIZE];
};

struct bench {
    const struct kvs_index_ops *ops;
    void *self;
    struct kvs_index_map *map;
    struct entry *entries; /* [count] */
    uint32_t *order;       /* [count] a permutation */
    uint32_t count;
    uint64_t began_ns;
};

static const struct kvs_mem_tag tag = {"bench.index"};
static uint64_t held_bytes, held_bytes_max, random_state = 0x9e3779b97f4a7c15u;

/* ---- a thin host -------------------------------------------------------------------------------
 */

static void *host_alloc(void *ctx, const struct kvs_mem_tag *account, size_t size)
{
    void *p = malloc(size);

    (void)ctx;
    (void)account;
    if (p != NULL) {
        held_bytes += size;
        held_bytes_max = held_bytes > held_bytes_max ? held_bytes : held_bytes_max;
    }
    return p;
}

static void host_free(void *ctx, const struct kvs_mem_tag *account, void *ptr, size_t size)
{
    (void)ctx;
    (void)account;
    held_bytes -= size;
    free(ptr);
}

static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void host_random(void *ctx, void *buf, size_t len)
{
    uint64_t r = next_random();

    (void)ctx;
    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)buf)[i] = (uint8_t)(r >> (8 * (i % 8)));
    }
}

static const struct kvs_host host = {
    .size = sizeof host, .alloc = host_alloc, .free = host_free, .random = host_random};

/* ---- measuring ---------------------------------------------------------------------------------
 */

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void begin(struct bench *b)
{
    b->began_ns = now_ns();
}

static void end(const struct bench *b, const char *what, uint64_t operations)
{
    uint64_t ns = now_ns() - b->began_ns;

    (void)printf("  %-28s %8.1f ns/op\n", what, (double)ns / (double)operations);
}

static void say_size(const struct bench *b, const char *what)
{
    uint64_t n = b->ops->count(b->map);

    (void)printf("  %-28s %8.2f bytes/entry\n", what,
                 (double)b->ops->memory(b->map) / (double)(n == 0 ? 1 : n));
}

static void fail(const char *why)
{
    (void)fprintf(stderr, "bench_index: %s\n", why);
    exit(1);
}

static struct kvs_slice key_of(void *arg, const void *entry)
{
    const struct entry *e = entry;

    (void)arg;
    return kvs_slice(e->key, e->len);
}

static void keys_fill(struct bench *b, int in_order)
{
    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t a = in_order ? 0x6b65793a6b65793au : next_random(), c = in_order ? i : a * 31 + 7;

        b->entries[i].len = KEY_SIZE;
        for (uint32_t k = 0; k < 8; k++) {
            b->entries[i].key[k] = (char)(a >> (56 - 8 * k));
            b->entries[i].key[8 + k] = (char)(c >> (56 - 8 * k));
        }
    }
}

static void map_open(struct bench *b)
{
    struct kvs_index_conf conf = {.key_of = key_of, .tag = &tag};

    if (b->ops->map_new(b->self, &conf, &b->map) != 0) {
        fail("out of memory");
    }
    held_bytes_max = held_bytes;
}

static void put(struct bench *b, uint32_t i)
{
    void *old;

    if (b->ops->put(b->map, &b->entries[i], &old) != 0) {
        fail("out of memory");
    }
}

static int sum_visit(void *arg, void *entry)
{
    *(uint64_t *)arg += (uint64_t)(uintptr_t)entry;
    return 0;
}

static void walk(struct bench *b)
{
    static const struct kvs_slice nothing = {NULL, 0};
    struct kvs_index_cursor c;
    uint64_t sum = 0;

    begin(b);
    (void)b->ops->each(b->map, sum_visit, &sum);
    end(b, "each", b->count);
    if (b->ops->seek == NULL) {
        return;
    }
    begin(b);
    for (b->ops->seek(b->map, nothing, KVS_INDEX_GE, &c); c.entry != NULL; b->ops->next(&c)) {
        sum -= (uint64_t)(uintptr_t)c.entry;
    }
    end(b, "next", b->count);
    if (sum != 0) {
        fail("each and next do not see the same");
    }
    begin(b);
    for (uint32_t n = 0; n < b->count; n++) {
        b->ops->seek(b->map, key_of(NULL, &b->entries[b->order[n]]), KVS_INDEX_GE, &c);
        if (c.entry != &b->entries[b->order[n]]) {
            fail("seek does not find a key");
        }
    }
    end(b, "seek", b->count);
}

static void lookups(struct bench *b)
{
    begin(b);
    for (uint32_t n = 0; n < b->count; n++) {
        struct entry *e = &b->entries[b->order[n]];

        if (b->ops->get(b->map, key_of(NULL, e)) != e) {
            fail("get does not find a key");
        }
    }
    end(b, "get, found", b->count);
    begin(b);
    for (uint32_t n = 0; n < b->count; n++) {
        struct entry probe = b->entries[b->order[n]];

        probe.key[KEY_SIZE - 1] = (char)(probe.key[KEY_SIZE - 1] ^ 1);
        probe.key[5] = (char)(probe.key[5] ^ 1);
        if (b->ops->get(b->map, key_of(NULL, &probe)) != NULL) {
            fail("get finds what is not there");
        }
    }
    end(b, "get, not found", b->count);
}

/* One clock reading per insert: the slowest tell whether growing pauses. */
static void pauses(struct bench *b)
{
    uint64_t last = now_ns(), slowest = 0, over_10us = 0, over_100us = 0;

    map_open(b);
    for (uint32_t n = 0; n < b->count; n++) {
        uint64_t now;

        put(b, b->order[n]);
        now = now_ns();
        slowest = now - last > slowest ? now - last : slowest;
        over_10us += now - last > 10000;
        over_100us += now - last > 100000;
        last = now;
    }
    (void)printf("  %-28s %8.1f us (%llu over 10 us, %llu over 100 us)\n", "slowest insert",
                 (double)slowest / 1000, (unsigned long long)over_10us,
                 (unsigned long long)over_100us);
    b->ops->map_free(b->map);
}

static void removals(struct bench *b)
{
    uint32_t most = b->count - b->count / 10;

    begin(b);
    for (uint32_t n = 0; n < most; n++) {
        (void)b->ops->del(b->map, key_of(NULL, &b->entries[b->order[n]]));
    }
    end(b, "del, nine of ten", most);
    say_size(b, "size when a tenth is left");
}

static void run(struct bench *b)
{
    (void)printf(" %u entries, keys in order\n", b->count);
    keys_fill(b, 1);
    map_open(b);
    begin(b);
    for (uint32_t i = 0; i < b->count; i++) {
        put(b, i);
    }
    end(b, "insert", b->count);
    say_size(b, "size");
    lookups(b);
    b->ops->map_free(b->map);

    (void)printf(" %u entries, random keys\n", b->count);
    keys_fill(b, 0);
    map_open(b);
    begin(b);
    for (uint32_t n = 0; n < b->count; n++) {
        put(b, b->order[n]);
    }
    end(b, "insert", b->count);
    say_size(b, "size");
    (void)printf("  %-28s %8.2f bytes/entry\n", "largest size on the way",
                 (double)held_bytes_max / b->count);
    lookups(b);
    walk(b);
    removals(b);
    b->ops->map_free(b->map);
    pauses(b);
}

static void run_count(struct bench *b, uint32_t count)
{
    b->count = count;
    b->entries = calloc(count, sizeof *b->entries);
    b->order = calloc(count, sizeof *b->order);
    if (b->entries == NULL || b->order == NULL) {
        fail("out of memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = (uint32_t)(next_random() % (i + 1));

        b->order[i] = b->order[k];
        b->order[k] = i;
    }
    run(b);
    free(b->entries);
    free(b->order);
}

int main(int argc, char **argv)
{
    const struct kvs_plugin *plugin = plugin_file_open(argc < 2 ? argc : 2, argv, KVS_KIND_INDEX);
    struct bench b = {.ops = plugin->ops};
    struct kvs_error err;

    if (plugin->init(&host, NULL, &b.self, &err) != 0) {
        fail(err.msg);
    }
    for (int i = 2; i < argc; i++) {
        unsigned long count = strtoul(argv[i], NULL, 10);

        if (count < 10 || count > UINT32_MAX / 2) {
            fail("a count is 10 to 2147483647");
        }
        run_count(&b, (uint32_t)count);
    }
    if (argc == 2) {
        run_count(&b, 1000000);
        run_count(&b, 10000000);
    }
    plugin->fini(b.self);
    return 0;
}
