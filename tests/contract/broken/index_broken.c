/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: put with a key that is there replaces the entry but does not hand it out. The
 * rest is a plain unordered array. */
#include "kvs/index.h"

#define ENTRY_MAX 4096u

static const struct kvs_mem_tag MEMORY = {"broken"};

struct kvs_index_map {
    const struct kvs_host *host;
    struct kvs_index_conf conf;
    uint64_t count;
    void *entries[ENTRY_MAX];
};

static int broken_new(void *self, const struct kvs_index_conf *conf, struct kvs_index_map **ret_map)
{
    const struct kvs_host *host = *(const struct kvs_host *const *)self;
    struct kvs_index_map *map = kvs_calloc(host, &MEMORY, sizeof *map);

    if (map == NULL) {
        return KVS_ENOMEM;
    }
    map->host = host;
    map->conf = *conf;
    *ret_map = map;
    return 0;
}

static void broken_free(struct kvs_index_map *map)
{
    if (map != NULL) {
        kvs_free(map->host, &MEMORY, map, sizeof *map);
    }
}

static uint64_t find(const struct kvs_index_map *map, struct kvs_slice key)
{
    uint64_t i = 0;

    while (i < map->count && !kvs_slice_eq(map->conf.key_of(map->conf.arg, map->entries[i]), key)) {
        i++;
    }
    return i;
}

static void *broken_get(const struct kvs_index_map *map, struct kvs_slice key)
{
    uint64_t i = find(map, key);

    return i == map->count ? NULL : map->entries[i];
}

static int broken_put(struct kvs_index_map *map, void *entry, void **ret_old)
{
    uint64_t i = find(map, map->conf.key_of(map->conf.arg, entry));

    if (i == ENTRY_MAX) {
        return KVS_ENOMEM;
    }
    *ret_old = NULL; /* the defect */
    map->entries[i] = entry;
    map->count += i == map->count;
    return 0;
}

static void *broken_del(struct kvs_index_map *map, struct kvs_slice key)
{
    uint64_t i = find(map, key);
    void *entry = i == map->count ? NULL : map->entries[i];

    if (entry != NULL) {
        map->entries[i] = map->entries[--map->count];
    }
    return entry;
}

static uint64_t broken_count(const struct kvs_index_map *map)
{
    return map->count;
}

static uint64_t broken_memory(const struct kvs_index_map *map)
{
    return sizeof *map;
}

static int broken_each(const struct kvs_index_map *map, int (*fn)(void *arg, void *entry),
                       void *arg)
{
    int rc = 0;

    for (uint64_t i = 0; i < map->count && rc == 0; i++) {
        rc = fn(arg, map->entries[i]);
    }
    return rc;
}

static int broken_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    const struct kvs_host **self = kvs_alloc(host, &MEMORY, sizeof(void *));

    (void)conf;
    if (self == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    *self = host;
    *ret_self = self;
    return 0;
}

static void broken_fini(void *self)
{
    const struct kvs_host *host = *(const struct kvs_host **)self;

    kvs_free(host, &MEMORY, self, sizeof(void *));
}

static const struct kvs_index_ops ops = {
    .size = sizeof ops,
    .map_new = broken_new,
    .map_free = broken_free,
    .get = broken_get,
    .put = broken_put,
    .del = broken_del,
    .count = broken_count,
    .memory = broken_memory,
    .each = broken_each,
};

KVS_PLUGIN(.kind = KVS_KIND_INDEX, .name = "broken", .version = "1",
           .summary = "forgets what it replaces", .ops = &ops, .init = broken_init,
           .fini = broken_fini);
