/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `index`: random operations against a sorted array; see kvs/index.h. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/index.h"

#define KEY_COUNT 3000u

static const char *const MODE_NAMES[] = {"GE", "GT", "LE", "LT"};

struct entry {
    uint32_t len;
    uint32_t tag;
    char key[]; /* len bytes */
};

static const struct kvs_index_ops *ops;
static const struct kvs_mem_tag tag = {"check.index"};

struct model {
    struct world host;
    struct kvs_index_map *map;
    struct entry *all[KEY_COUNT];     /* every key there is, sorted */
    struct entry *present[KEY_COUNT]; /* by the same index: the entry in the map, or NULL */
    uint32_t count;
    uint64_t seed;
};

static uint64_t next_random(struct model *w)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return w->seed;
}

static struct kvs_slice key_of(void *arg, const void *entry)
{
    const struct entry *e = entry;

    (void)arg;
    return kvs_slice(e->key, e->len);
}

static struct entry *entry_new(const char *key, uint32_t len)
{
    struct entry *e = check_alloc(sizeof *e + len);

    e->len = len;
    e->tag = 0;
    memcpy(e->key, key, len);
    return e;
}

static int by_key(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;

    return kvs_slice_cmp(key_of(NULL, x), key_of(NULL, y));
}

/* Shapes of keys: 0 random bytes of 1..12, 1 sequential numbers, 2 long shared prefixes, 3 with
 * NULs, 4 the longest. */
static struct entry *make_key(struct model *w, uint32_t shape, uint32_t i)
{
    static char buf[KVS_INDEX_MAP_KEY_MAX];
    uint32_t len;

    switch (shape) {
    case 0:
        len = 1 + (uint32_t)(next_random(w) % 12);
        for (uint32_t k = 0; k < len; k++) {
            buf[k] = (char)next_random(w);
        }
        break;
    case 1:
        len = (uint32_t)snprintf(buf, sizeof buf, "user:%08u", i);
        break;
    case 2:
        len = (uint32_t)snprintf(buf, sizeof buf, "%0*d%u", (int)(next_random(w) % 60), 7, i);
        break;
    case 3:
        len = (uint32_t)(next_random(w) % 9) + 1;
        for (uint32_t k = 0; k < len; k++) {
            buf[k] = (char)(next_random(w) % 3);
        }
        break;
    default:
        len = KVS_INDEX_MAP_KEY_MAX - (uint32_t)(next_random(w) % 3);
        memset(buf, 'x', len);
        memcpy(buf + len - 8, &i, sizeof i);
    }
    return entry_new(buf, len);
}

static void model_open(struct model *w, uint64_t seed, uint32_t shape)
{
    struct kvs_index_conf conf = {.key_of = key_of, .tag = &tag};
    uint32_t n = shape == 4 ? 300 : KEY_COUNT, unique = 0;

    memset(w, 0, sizeof *w);
    w->seed = seed * 0x9e3779b97f4a7c15u + 1;
    ops = check.plugin->ops;
    world_open(&w->host, seed, 1, 0);
    world_init(&w->host, check_conf(check.plugin, check.sets, check.set_count));
    world_start(&w->host);
    CHECK_CODE(ops->map_new(w->host.self, &conf, &w->map), 0, "map_new");
    for (uint32_t i = 0; i < n; i++) {
        w->all[i] = make_key(w, shape, i);
    }
    qsort(w->all, n, sizeof w->all[0], by_key);
    for (uint32_t i = 0; i < n; i++) {
        if (unique > 0 && by_key(&w->all[unique - 1], &w->all[i]) == 0) {
            free(w->all[i]);
        } else {
            w->all[unique++] = w->all[i];
        }
    }
    w->count = unique;
}

static void model_close(struct model *w)
{
    ops->map_free(w->map);
    ops->map_free(NULL);
    for (uint32_t i = 0; i < w->count; i++) {
        free(w->all[i]);
    }
    world_close(&w->host); /* fails if memory is still held */
}

static uint64_t present_count(const struct model *w)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < w->count; i++) {
        n += w->present[i] != NULL;
    }
    return n;
}

static int count_visit(void *arg, void *entry)
{
    uint64_t *n = arg;

    CHECK(entry != NULL, "each gives an entry that is NULL");
    (*n)++;
    return 0;
}

static int stop_visit(void *arg, void *entry)
{
    (void)entry;
    return ++*(int *)arg == 3 ? 42 : 0;
}

/* Where a seek must arrive: an index into all, or -1. */
static int64_t expected(const struct model *w, uint32_t i, uint32_t mode)
{
    int64_t at = i;

    if (mode == KVS_INDEX_GE || mode == KVS_INDEX_GT) {
        at += mode == KVS_INDEX_GT;
        while (at < w->count && w->present[at] == NULL) {
            at++;
        }
        return at < w->count ? at : -1;
    }
    at -= mode == KVS_INDEX_LT;
    while (at >= 0 && w->present[at] == NULL) {
        at--;
    }
    return at;
}

static void check_walk(struct model *w)
{
    static const struct kvs_slice nothing = {NULL, 0};
    struct kvs_index_cursor c;
    int64_t at;

    if (ops->seek == NULL) {
        return;
    }
    ops->seek(w->map, nothing, KVS_INDEX_GE, &c);
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->present[i] != NULL) {
            CHECK(c.entry == w->present[i], "next gives another entry than the next in order");
            ops->next(&c);
        }
    }
    CHECK(c.entry == NULL, "next goes on past the last entry");
    ops->seek(w->map, nothing, KVS_INDEX_LT, &c);
    for (at = (int64_t)w->count - 1; at >= 0; at--) {
        if (w->present[at] != NULL) {
            CHECK(c.entry == w->present[at], "prev gives another entry than the one before");
            ops->prev(&c);
        }
    }
    CHECK(c.entry == NULL, "prev goes on past the first entry");
    for (uint32_t n = 0; n < 200; n++) {
        uint32_t i = (uint32_t)(next_random(w) % w->count);

        for (uint32_t mode = 0; mode < 4; mode++) {
            at = expected(w, i, mode);
            ops->seek(w->map, key_of(NULL, w->all[i]), mode, &c);
            CHECK(c.entry == (at < 0 ? NULL : w->present[at]), "seek %s arrives at another entry",
                  MODE_NAMES[mode]);
        }
    }
}

static void check_all(struct model *w)
{
    uint64_t n = 0;

    CHECK(ops->count(w->map) == present_count(w), "count is %llu, there are %llu entries",
          (unsigned long long)ops->count(w->map), (unsigned long long)present_count(w));
    CHECK_CODE(ops->each(w->map, count_visit, &n), 0, "each");
    CHECK(n == present_count(w), "each visits %llu of %llu entries", (unsigned long long)n,
          (unsigned long long)present_count(w));
    for (uint32_t i = 0; i < w->count; i++) {
        const void *got = ops->get(w->map, key_of(NULL, w->all[i]));

        CHECK(got == w->present[i], "get %s",
              got == NULL             ? "does not find an entry that was put"
              : w->present[i] == NULL ? "finds an entry that is not there"
                                      : "gives another entry than the one put");
    }
    check_walk(w);
}

static void put(struct model *w, uint32_t i)
{
    struct entry *e = w->all[i];
    void *old;

    if (w->present[i] != NULL && next_random(w) % 2 == 0) {
        return; /* replacing needs an entry of its own: see the test of replacing */
    }
    CHECK_CODE(ops->put(w->map, e, &old), 0, "put");
    CHECK(old == w->present[i], "put does not hand out the entry it replaced");
    w->present[i] = e;
}

static void del(struct model *w, uint32_t i)
{
    CHECK(ops->del(w->map, key_of(NULL, w->all[i])) == w->present[i],
          "del does not hand out the entry it removed");
    w->present[i] = NULL;
}

/* Growing, mixed, shrinking, empty again, for every shape of keys: the map equals the model. */
static void random_operations(void)
{
    for (uint32_t shape = 0; shape < 5; shape++) {
        struct model w;

        model_open(&w, 11 + shape, shape);
        for (uint32_t phase = 0; phase < 6; phase++) {
            static const uint32_t PUTS_OF_10[] = {10, 7, 5, 2, 9, 0};
            uint32_t steps = w.count * (phase == 5 ? 8 : 2);

            for (uint32_t n = 0; n < steps; n++) {
                uint32_t i = (uint32_t)(next_random(&w) % w.count);

                if (next_random(&w) % 10 < PUTS_OF_10[phase]) {
                    put(&w, i);
                } else {
                    del(&w, i);
                }
            }
            check_all(&w);
        }
        for (uint32_t i = 0; i < w.count; i++) {
            del(&w, i);
        }
        check_all(&w);
        put(&w, 0);
        check_all(&w);
        model_close(&w);
    }
}

/* Keys in order, upwards and downwards, then deleted from either end: the map equals the model. */
static void keys_in_order(void)
{
    for (uint32_t way = 0; way < 4; way++) {
        struct model w;

        model_open(&w, 5, 1);
        for (uint32_t i = 0; i < w.count; i++) {
            put(&w, way & 1 ? w.count - 1 - i : i);
        }
        check_all(&w);
        for (uint32_t i = 0; i < w.count; i++) {
            del(&w, way & 2 ? w.count - 1 - i : i);
            if (i % 500 == 0) {
                check_all(&w);
            }
        }
        check_all(&w);
        model_close(&w);
    }
}

/* A second entry with the same key takes the place of the first, which may then be freed. */
static void same_key(void)
{
    struct model w;
    void *old;

    model_open(&w, 3, 1);
    for (uint32_t i = 0; i < w.count; i++) {
        put(&w, i);
    }
    for (uint32_t i = 0; i < w.count; i++) {
        struct entry *fresh = entry_new(w.all[i]->key, w.all[i]->len);

        CHECK_CODE(ops->put(w.map, fresh, &old), 0, "put of the same key");
        CHECK(old == w.all[i], "put does not hand out the entry it replaced");
        free(w.all[i]); /* a map that still looks at it is caught by the sanitizer */
        w.all[i] = w.present[i] = fresh;
    }
    check_all(&w);
    for (uint32_t i = 0; i < w.count; i += 2) {
        del(&w, i);
    }
    check_all(&w);
    model_close(&w);
}

/* A deleted entry is not looked at again: it may be freed at once. */
static void deleted_freed(void)
{
    struct model w;

    model_open(&w, 4, 0);
    for (uint32_t i = 0; i < w.count; i++) {
        put(&w, i);
    }
    for (uint32_t i = 0; i < w.count; i++) {
        if (i % 3 != 0) {
            struct entry *copy = entry_new(w.all[i]->key, w.all[i]->len);

            del(&w, i);
            free(w.all[i]);
            w.all[i] = copy;
        }
    }
    check_all(&w);
    for (uint32_t i = 0; i < w.count; i++) {
        put(&w, i);
    }
    check_all(&w);
    model_close(&w);
}

/* each stops when told to and hands the code on. */
static void each_stopped(void)
{
    struct model w;
    int visits = 0;

    model_open(&w, 9, 1);
    CHECK_CODE(ops->each(w.map, stop_visit, &visits), 0, "each of nothing");
    for (uint32_t i = 0; i < 10; i++) {
        put(&w, i);
    }
    CHECK(ops->each(w.map, stop_visit, &visits) == 42, "each loses the code of its visitor");
    CHECK(visits == 3, "each goes on after its visitor said stop");
    model_close(&w);
}

/* When memory runs out put says so and the map is as it was. */
static void out_of_memory(void)
{
    for (uint64_t nth = 1; nth < 200; nth++) {
        struct model w;
        int fired = 0;

        model_open(&w, 21, 0);
        kvs_mock_fail_alloc(w.host.mock, nth, 1);
        for (uint32_t i = 0; i < w.count; i++) {
            uint32_t k = (i * 7919) % w.count;
            void *old;
            int rc = ops->put(w.map, w.all[k], &old);

            if (rc == 0) {
                w.present[k] = w.all[k];
            } else {
                CHECK_CODE(rc, KVS_ENOMEM, "put without memory");
                fired = 1;
            }
        }
        kvs_mock_fail_alloc(w.host.mock, 0, 0);
        check_all(&w);
        model_close(&w);
        if (!fired && nth > 60) {
            return;
        }
    }
}

/* The capability and the functions tell the same. */
static void capabilities(void)
{
    const struct kvs_index_ops *o = check.plugin->ops;
    int ordered = (check.plugin->caps & KVS_INDEX_CAP_ORDERED) != 0;

    CHECK((o->seek != NULL) == ordered && (o->next != NULL) == ordered &&
              (o->prev != NULL) == ordered,
          "seek, next and prev exist if and only if caps say KVS_INDEX_CAP_ORDERED");
}

const struct check_case check_index_cases[] = {
    {"seek, next and prev go with KVS_INDEX_CAP_ORDERED", capabilities},
    {"random operations equal a sorted array", random_operations},
    {"keys in order, up and down, equal a sorted array", keys_in_order},
    {"the same key replaces, and the old entry may be freed", same_key},
    {"a deleted entry may be freed", deleted_freed},
    {"each stops when told to", each_stopped},
    {"put without memory changes nothing", out_of_memory},
    {NULL, NULL},
};
