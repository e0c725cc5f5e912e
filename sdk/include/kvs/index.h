/* SPDX-License-Identifier: MIT
 *
 * Kind `index`: an ordered or hashed map from keys to entries.
 *
 * An entry is an opaque pointer of the caller's, never NULL; the index does not store keys, it asks
 * key_of() for the key inside an entry (and may cache a few bytes of it). So an item costs the
 * index little more than a pointer. The same plugin serves primary and secondary indexes.
 *
 * Threads. One map belongs to one thread at a time; different maps are independent. No op blocks.
 * Order is kvs_slice_cmp. Keys are 1..KVS_INDEX_MAP_KEY_MAX bytes.
 *
 * Capabilities: KVS_INDEX_CAP_ORDERED: seek and the cursor calls exist. Without it they are NULL,
 * and `each` is the only way to walk (no order). */
#ifndef KVS_INDEX_H
#define KVS_INDEX_H

#include "kvs/plugin.h"

#define KVS_INDEX_CAP_ORDERED 1u

#define KVS_INDEX_MAP_KEY_MAX                                                                      \
    4096u /* a secondary key: index value and primary key with framing                             \
           */

struct kvs_index_map; /* the plugin's */

struct kvs_index_conf {
    /* The key inside an entry; stable while the entry is in the map. Pure, any thread. */
    struct kvs_slice (*key_of)(void *arg, const void *entry);
    void *arg;
    const struct kvs_mem_tag *tag; /* account for the map's own memory */
};

/* A position between calls that change nothing. Any put, del or clear invalidates it: seek again by
 * key. The caller's storage; needs no end call. */
struct kvs_index_cursor {
    void *entry; /* the entry at the position, NULL past either end */
    struct kvs_index_map *map;
    uint64_t opaque[6];
};

/* Seek modes. */
#define KVS_INDEX_GE 0u /* first entry with key >= the given; empty key: the first of all */
#define KVS_INDEX_GT 1u /* first entry with key >  the given */
#define KVS_INDEX_LE 2u /* last entry with key <= the given */
#define KVS_INDEX_LT 3u /* last entry with key <  the given; empty key: the last of all */

struct kvs_index_ops {
    uint32_t size;
    uint32_t reserved;
    /* KVS_ENOMEM. The map is empty. */
    int (*map_new)(void *self, const struct kvs_index_conf *conf, struct kvs_index_map **ret_map);
    /* Frees the map, not the entries. Accepts NULL. */
    void (*map_free)(struct kvs_index_map *map);
    /* The entry with this key, or NULL. */
    void *(*get)(const struct kvs_index_map *map, struct kvs_slice key);
    /* Insert or replace by the key of `entry`. *ret_old: the entry replaced or NULL. KVS_ENOMEM
     * (then nothing changed; replacing never fails). */
    int (*put)(struct kvs_index_map *map, void *entry, void **ret_old);
    /* Remove by key; returns the entry removed or NULL. Never fails. The entry must still be
     * readable. */
    void *(*del)(struct kvs_index_map *map, struct kvs_slice key);
    uint64_t (*count)(const struct kvs_index_map *map);
    uint64_t (*memory)(
        const struct kvs_index_map *map); /* bytes the map holds, entries not counted */
    /* Calls fn for every entry, in order if ordered; stops when fn returns nonzero and returns
     * that. fn must not change the map. */
    int (*each)(const struct kvs_index_map *map, int (*fn)(void *arg, void *entry), void *arg);
    /* ORDERED only. Position by key and mode; cursor->entry NULL if there is none. */
    void (*seek)(struct kvs_index_map *map, struct kvs_slice key, uint32_t mode,
                 struct kvs_index_cursor *ret_cursor);
    void (*next)(struct kvs_index_cursor *cursor);
    void (*prev)(struct kvs_index_cursor *cursor);
    /* --- end of 1.0 --- */
};

#endif
