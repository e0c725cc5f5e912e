/* SPDX-License-Identifier: MIT
 *
 * index-hash: an unordered map for tables that are only asked for single keys.
 *
 * Open addressing with linear probing: an array of one-byte tags (seven bits of the hash, or empty
 * or deleted) and an array of entry pointers. A probe reads tags; an entry is looked at when its
 * tag fits. XXH3-64 with a random seed per instance, so that clients cannot aim at one slot.
 *
 * Growing is incremental: a second table is made and each change moves a few slots, so no operation
 * takes long. While both exist a key is in exactly one of them. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kvs/index.h"

#define TAG_EMPTY   0x00u
#define TAG_DELETED 0x01u
#define TAG_USED    0x80u /* and seven bits of the hash */
#define CAP_MIN     16u
#define MOVES       16u /* slots moved by one change while growing */

struct table {
    uint8_t *tags;  /* [cap] */
    void **entries; /* [cap] */
    uint64_t cap;   /* power of two, 0: no table */
    uint64_t used;  /* entries */
    uint64_t taken; /* entries and deleted slots */
};

struct kvs_index_map {
    const struct kvs_host *host;
    struct kvs_index_conf conf;
    uint64_t seed;
    struct table now, old; /* old.cap != 0: slots below `moved` are in `now` already */
    uint64_t moved;
};

struct hash_self {
    const struct kvs_host *host;
    uint64_t seed;
};

static const struct kvs_mem_tag self_tag = {"index.hash"};

static uint64_t hash_of(const struct kvs_index_map *m, struct kvs_slice key)
{
    return XXH3_64bits_withSeed(key.len == 0 ? "" : key.ptr, key.len, m->seed);
}

static struct kvs_slice key_of(const struct kvs_index_map *m, const void *entry)
{
    return m->conf.key_of(m->conf.arg, entry);
}

/* ---- one table ---------------------------------------------------------------------------------
 */

static int table_make(struct kvs_index_map *m, struct table *t, uint64_t cap)
{
    memset(t, 0, sizeof *t);
    t->tags = kvs_alloc(m->host, m->conf.tag, cap);
    t->entries = kvs_alloc(m->host, m->conf.tag, cap * sizeof *t->entries);
    if (t->tags == NULL || t->entries == NULL) {
        kvs_free(m->host, m->conf.tag, t->tags, cap);
        kvs_free(m->host, m->conf.tag, t->entries, cap * sizeof *t->entries);
        memset(t, 0, sizeof *t);
        return KVS_ENOMEM;
    }
    memset(t->tags, TAG_EMPTY, cap);
    t->cap = cap;
    return 0;
}

static void table_drop(struct kvs_index_map *m, struct table *t)
{
    kvs_free(m->host, m->conf.tag, t->tags, t->cap);
    kvs_free(m->host, m->conf.tag, t->entries, t->cap * sizeof *t->entries);
    memset(t, 0, sizeof *t);
}

/* Slot of the key, or t->cap if it is not there. */
static uint64_t table_find(const struct kvs_index_map *m, const struct table *t,
                           struct kvs_slice key, uint64_t hash)
{
    uint8_t tag = (uint8_t)(TAG_USED | (hash >> 57));
    uint64_t at = hash & (t->cap - 1);

    if (t->cap == 0) {
        return 0;
    }
    while (t->tags[at] != TAG_EMPTY) {
        if (t->tags[at] == tag && kvs_slice_eq(key_of(m, t->entries[at]), key)) {
            return at;
        }
        at = (at + 1) & (t->cap - 1);
    }
    return t->cap;
}

/* Room is certain: the load stays below one. */
static void table_add(struct table *t, uint64_t hash, void *entry)
{
    uint64_t at = hash & (t->cap - 1);

    while ((t->tags[at] & TAG_USED) != 0) {
        at = (at + 1) & (t->cap - 1);
    }
    t->taken += t->tags[at] == TAG_EMPTY;
    t->used++;
    t->tags[at] = (uint8_t)(TAG_USED | (hash >> 57));
    t->entries[at] = entry;
}

static void *table_take(struct table *t, uint64_t at)
{
    int at_end = t->tags[(at + 1) & (t->cap - 1)] == TAG_EMPTY;

    /* Nothing probes past this slot: it can be empty again. */
    t->tags[at] = (uint8_t)(at_end ? TAG_EMPTY : TAG_DELETED);
    t->taken -= (uint64_t)at_end;
    t->used--;
    return t->entries[at];
}

/* ---- growing -----------------------------------------------------------------------------------
 */

static void move_some(struct kvs_index_map *m)
{
    struct table *old = &m->old;

    for (uint32_t i = 0; i < MOVES && old->cap != 0; i++) {
        uint64_t at = m->moved++;

        if ((old->tags[at] & TAG_USED) != 0) {
            void *entry = old->entries[at];

            table_add(&m->now, hash_of(m, key_of(m, entry)), entry);
            old->tags[at] = TAG_DELETED;
            old->used--;
        }
        if (m->moved == old->cap) {
            table_drop(m, old);
        }
    }
}

/* Make room for one more. KVS_ENOMEM: nothing changed. */
static int make_room(struct kvs_index_map *m)
{
    uint64_t cap = m->now.cap, count = m->now.used + m->old.used;
    struct table fresh;
    int rc;

    if (m->old.cap != 0 && (m->now.taken + 1) * 8 <= m->now.cap * 7) {
        return 0; /* moving goes on */
    }
    while (m->old.cap != 0) {
        move_some(m); /* many changes while moving, as after a great shrinking: finish it first */
    }
    count = m->now.used;
    if (cap != 0 && (m->now.taken + 1) * 8 <= cap * 7 && (cap <= CAP_MIN || count * 16 >= cap)) {
        return 0;
    }
    cap = CAP_MIN;
    while ((count + 1) * 2 > cap) {
        cap *= 2;
    }
    rc = table_make(m, &fresh, cap);
    if (rc != 0) {
        return (m->now.taken + 1) < m->now.cap ? 0 : rc; /* slower, but there is room */
    }
    m->old = m->now;
    m->now = fresh;
    m->moved = 0;
    if (m->old.cap == 0) {
        memset(&m->old, 0, sizeof m->old);
    }
    return 0;
}

/* ---- ops ---------------------------------------------------------------------------------------
 */

static int hash_map_new(void *self, const struct kvs_index_conf *conf,
                        struct kvs_index_map **ret_map)
{
    const struct hash_self *s = self;
    struct kvs_index_map *m = kvs_calloc(s->host, conf->tag, sizeof *m);

    if (m == NULL) {
        return KVS_ENOMEM;
    }
    m->host = s->host;
    m->conf = *conf;
    m->seed = s->seed;
    *ret_map = m;
    return 0;
}

static void hash_map_free(struct kvs_index_map *m)
{
    if (m != NULL) {
        table_drop(m, &m->now);
        table_drop(m, &m->old);
        kvs_free(m->host, m->conf.tag, m, sizeof *m);
    }
}

static void *hash_get(const struct kvs_index_map *m, struct kvs_slice key)
{
    uint64_t hash = hash_of(m, key), at = table_find(m, &m->now, key, hash);

    if (at < m->now.cap) {
        return m->now.entries[at];
    }
    at = table_find(m, &m->old, key, hash);
    return at < m->old.cap ? m->old.entries[at] : NULL;
}

static int hash_put(struct kvs_index_map *m, void *entry, void **ret_old)
{
    struct kvs_slice key = key_of(m, entry);
    uint64_t hash = hash_of(m, key), at;
    int rc;

    *ret_old = NULL;
    move_some(m);
    at = table_find(m, &m->now, key, hash);
    if (at < m->now.cap) {
        *ret_old = m->now.entries[at];
        m->now.entries[at] = entry;
        return 0;
    }
    at = table_find(m, &m->old, key, hash);
    if (at < m->old.cap) {
        *ret_old = m->old.entries[at];
        m->old.entries[at] = entry;
        return 0;
    }
    rc = make_room(m);
    if (rc == 0) {
        table_add(&m->now, hash, entry);
    }
    return rc;
}

static void *hash_del(struct kvs_index_map *m, struct kvs_slice key)
{
    uint64_t hash = hash_of(m, key), at;

    move_some(m);
    at = table_find(m, &m->now, key, hash);
    if (at < m->now.cap) {
        return table_take(&m->now, at);
    }
    at = table_find(m, &m->old, key, hash);
    if (at >= m->old.cap) {
        return NULL;
    }
    m->old.tags[at] = TAG_DELETED;
    m->old.used--;
    return m->old.entries[at];
}

static uint64_t hash_count(const struct kvs_index_map *m)
{
    return m->now.used + m->old.used;
}

static uint64_t hash_memory(const struct kvs_index_map *m)
{
    return sizeof *m + (m->now.cap + m->old.cap) * (1 + sizeof(void *));
}

static int table_each(const struct table *t, int (*fn)(void *arg, void *entry), void *arg)
{
    for (uint64_t i = 0; i < t->cap; i++) {
        int rc = (t->tags[i] & TAG_USED) != 0 ? fn(arg, t->entries[i]) : 0;

        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int hash_each(const struct kvs_index_map *m, int (*fn)(void *arg, void *entry), void *arg)
{
    int rc = table_each(&m->now, fn, arg);

    return rc != 0 ? rc : table_each(&m->old, fn, arg);
}

static int hash_init(const struct kvs_host *host, const void *conf, void **ret_self,
                     struct kvs_error *err)
{
    struct hash_self *s = kvs_alloc(host, &self_tag, sizeof *s);

    (void)conf;
    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->host = host;
    host->random(host->ctx, &s->seed, sizeof s->seed);
    *ret_self = s;
    return 0;
}

static void hash_fini(void *self)
{
    struct hash_self *s = self;

    kvs_free(s->host, &self_tag, s, sizeof *s);
}

static const struct kvs_index_ops ops = {
    .size = sizeof ops,
    .map_new = hash_map_new,
    .map_free = hash_map_free,
    .get = hash_get,
    .put = hash_put,
    .del = hash_del,
    .count = hash_count,
    .memory = hash_memory,
    .each = hash_each,
};

KVS_PLUGIN(.kind = KVS_KIND_INDEX, .name = "hash", .version = "1.0.0",
           .summary = "unordered: single keys only, a little smaller and faster than btree",
           .ops = &ops, .init = hash_init, .fini = hash_fini);
