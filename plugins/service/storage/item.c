/* SPDX-License-Identifier: MIT
 *
 * Layout of an item; see item.h. */
#include "item.h"

#include "kvs/support.h"

uint64_t item_expires_at(const struct item *it)
{
    uint64_t v = 0;

    if ((it->flags & ITEM_EXPIRES) == 0) {
        return 0;
    }
    for (size_t i = 0; i < 8; i++) {
        v = v << 8 | (uint8_t)it->data[i];
    }
    return v;
}

void item_parts(const struct item *it, struct item_parts *ret)
{
    const char *p = it->data + item_key_at(it);

    memset(ret, 0, sizeof *ret);
    ret->key = kvs_slice(p, it->key_len);
    p += it->key_len;
    if (it->partition_key_len > 0) {
        ret->partition_key = kvs_slice(p, it->partition_key_len);
        p += it->partition_key_len;
    }
    if ((it->flags & ITEM_INDEXES) != 0) {
        ret->indexes = kvs_slice(p + 2, kvs_get_u16(p));
        p += 2 + ret->indexes.len;
    }
    if ((it->flags & ITEM_TYPE_INLINE) != 0) {
        ret->content_type = kvs_slice(p + 1, (uint8_t)*p);
        p += 1 + ret->content_type.len;
    }
    ret->value = kvs_slice(p, it->value_len);
    ret->expires_at_ms = item_expires_at(it);
    ret->offset = it->offset;
    ret->epoch = it->epoch;
    ret->tombstone = (it->flags & ITEM_TOMBSTONE) != 0;
}

size_t item_size(const struct item *it)
{
    struct item_parts parts;

    item_parts(it, &parts);
    return (size_t)(parts.value.ptr - (const char *)it) + parts.value.len;
}

size_t item_size_of(const struct item_parts *parts, int type_inline)
{
    return sizeof(struct item) + (parts->expires_at_ms != 0 ? 8 : 0) + parts->key.len +
           parts->partition_key.len + (parts->indexes.len > 0 ? 2 + parts->indexes.len : 0) +
           (type_inline ? 1 + parts->content_type.len : 0) + parts->value.len;
}

static char *put(char *p, struct kvs_slice s)
{
    if (s.len > 0) {
        memcpy(p, s.ptr, s.len);
    }
    return p + s.len;
}

void item_fill(struct item *it, const struct item_parts *parts, int type)
{
    char *p = it->data;

    it->offset = parts->offset;
    it->epoch = parts->epoch;
    it->value_len = (uint32_t)parts->value.len;
    it->key_len = (uint16_t)parts->key.len;
    it->partition_key_len = (uint16_t)parts->partition_key.len;
    it->type = type < 0 ? 0 : (uint16_t)type;
    it->flags = parts->tombstone ? ITEM_TOMBSTONE : 0;
    it->reserved = 0;
    if (parts->expires_at_ms != 0) {
        it->flags |= ITEM_EXPIRES;
        for (int shift = 56; shift >= 0; shift -= 8) {
            *p++ = (char)(parts->expires_at_ms >> shift);
        }
    }
    p = put(p, parts->key);
    p = put(p, parts->partition_key);
    if (parts->indexes.len > 0) {
        it->flags |= ITEM_INDEXES;
        kvs_put_u16(p, (uint16_t)parts->indexes.len);
        p = put(p + 2, parts->indexes);
    }
    if (type < 0) {
        it->flags |= ITEM_TYPE_INLINE;
        *p = (char)parts->content_type.len;
        p = put(p + 1, parts->content_type);
    }
    (void)put(p, parts->value);
}
