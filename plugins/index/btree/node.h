/* SPDX-License-Identifier: MIT
 *
 * Nodes of the tree and the search inside one.
 *
 * A node does not store keys. It holds, for each of its keys, the entry pointer and a head: four
 * bytes of the key, big-endian, taken behind the prefix that all keys of the node share. The prefix
 * itself (its first 24 bytes) stands in the node. So a search looks at the node's own cache lines
 * and then, as a rule, at one entry: the hit. */
#ifndef BTREE_NODE_H
#define BTREE_NODE_H

#include "kvs/index.h"

#define COMMON_MAX 24u /* bytes of a shared prefix that a node can skip */
#define LEAF_CAP   70u /* the structure fills an 896-byte size class */
#define INNER_CAP  60u /* separators; 1280-byte size class */

/* What leaf and inner node share: the search works on this. */
struct head {
    uint16_t count; /* leaf: entries; inner: separators, children are one more */
    uint8_t skip;   /* bytes of common[] in use */
    uint8_t is_leaf;
    uint32_t reserved;
    uint8_t common[COMMON_MAX];
};

struct leaf {
    struct head h;
    struct leaf *prev, *next;
    uint32_t heads[LEAF_CAP];
    void *entries[LEAF_CAP];
};

/* separators[i] is the first entry below children[i + 1], always. */
struct inner {
    struct head h;
    uint32_t heads[INNER_CAP];
    void *separators[INNER_CAP];
    struct head *children[INNER_CAP + 1];
};

KVS_STATIC_ASSERT(sizeof(struct leaf) <= 896, "leaf fits its size class");
KVS_STATIC_ASSERT(sizeof(struct inner) <= 1280, "inner node fits its size class");

/* Position of the first key >= key; *ret_exact tells whether it is equal. */
uint32_t node_search(const struct kvs_index_conf *conf, const struct head *h, const uint32_t *heads,
                     void *const *entries, struct kvs_slice key, int *ret_exact);
/* Prefix and heads from the entries: after splits, merges and keys that do not share the prefix. */
void node_rehead(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads,
                 void *const *entries);
/* Insert at a position with room; keeps prefix and heads right. */
void node_insert(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads, void **entries,
                 uint32_t at, void *entry);
void node_remove(struct head *h, uint32_t *heads, void **entries, uint32_t at);
/* Replace the entry at a position; its key may differ (separators move). */
void node_set(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads, void **entries,
              uint32_t at, void *entry);

#endif
