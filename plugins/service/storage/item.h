/* SPDX-License-Identifier: MIT
 *
 * One version of one item: one allocation.
 *
 *   header (24 bytes)
 *   [expiry]     8 bytes big-endian, if ITEM_EXPIRES: so that expiry and key together are a key of
 * the expiry index, without memory of its own key          1..1024 bytes [part. key]  if it differs
 * from the key [indexes]    u16 length and explicit secondary keys: (varint id, varint length,
 * encoded).. [type]       u8 length and content type, if it is not interned value
 *
 * A version never changes, save its flags. */
#ifndef STORAGE_ITEM_H
#define STORAGE_ITEM_H

#include "partition.h"

#define ITEM_EXPIRES     1u
#define ITEM_TOMBSTONE   2u
#define ITEM_INDEXES     4u
#define ITEM_TYPE_INLINE 8u
#define ITEM_SUPERSEDED  16u /* a newer version of the key is in the index */

struct item {
    uint64_t offset;
    uint32_t epoch;
    uint32_t value_len;
    uint16_t key_len;
    uint16_t partition_key_len; /* 0: the key */
    uint16_t type;              /* interned content type */
    uint8_t flags;
    uint8_t reserved;
    char data[];
};

KVS_STATIC_ASSERT(sizeof(struct item) == 24, "the cost of an item");

/* What an item is made of; slices are borrowed. */
struct item_parts {
    struct kvs_slice key, partition_key, value, indexes, content_type;
    uint64_t expires_at_ms; /* 0: never */
    uint64_t offset;
    uint32_t epoch;
    uint32_t tombstone;
};

static inline size_t item_key_at(const struct item *it)
{
    return (it->flags & ITEM_EXPIRES) != 0 ? 8 : 0;
}

static inline struct kvs_slice item_key(const struct item *it)
{
    return kvs_slice(it->data + item_key_at(it), it->key_len);
}

/* Expiry and key: the key in the expiry index. Only with ITEM_EXPIRES. */
static inline struct kvs_slice item_expiry_key(const struct item *it)
{
    return kvs_slice(it->data, 8u + it->key_len);
}

uint64_t item_expires_at(const struct item *it); /* 0: never */
size_t item_size(const struct item *it);         /* of the allocation */
/* partition_key.ptr == NULL: equal to the key. content_type: only if inline. */
void item_parts(const struct item *it, struct item_parts *ret);
/* Bytes an item of these parts takes. */
size_t item_size_of(const struct item_parts *parts, int type_inline);
/* Fill an allocation of item_size_of bytes. type: interned number, or -1: inline. */
void item_fill(struct item *it, const struct item_parts *parts, int type);

#endif
