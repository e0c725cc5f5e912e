/* SPDX-License-Identifier: MIT
 *
 * Encoding of log records; see record.h. */
#include "record.h"

#define HAS_PARTITION_KEY 1u
#define HAS_TYPE          2u
#define HAS_EXPIRY        4u
#define HAS_INDEXES       8u
#define FLAGS_ALL         15u

#define RECORD_OVERHEAD_MAX 96u

static char *put_varint(char *p, uint64_t v)
{
    return p + kvs_varint_put(p, v);
}

static char *put_bytes(char *p, struct kvs_slice s)
{
    p = put_varint(p, s.len);
    if (s.len > 0) {
        memcpy(p, s.ptr, s.len);
    }
    return p + s.len;
}

static char *put_u64(char *p, uint64_t v)
{
    kvs_put_u64(p, v);
    return p + 8;
}

static uint32_t flags_of(const struct record *r)
{
    return (r->partition_key.len > 0 ? HAS_PARTITION_KEY : 0) |
           (r->content_type.len > 0 ? HAS_TYPE : 0) | (r->expires_at_ms != 0 ? HAS_EXPIRY : 0) |
           (r->indexes.len > 0 ? HAS_INDEXES : 0);
}

/* Behind the length: returns the end. */
static char *put_body(char *p, const struct record *r)
{
    uint32_t flags = r->kind == RECORD_PUT ? flags_of(r) : 0;

    *p++ = (char)r->kind;
    *p++ = (char)flags;
    p = put_bytes(p, r->key);
    if ((flags & HAS_PARTITION_KEY) != 0) {
        p = put_bytes(p, r->partition_key);
    }
    if ((flags & HAS_TYPE) != 0) {
        p = put_bytes(p, r->content_type);
    }
    if ((flags & HAS_EXPIRY) != 0 || r->kind == RECORD_TOUCH) {
        p = put_u64(p, r->expires_at_ms);
    }
    if ((flags & HAS_INDEXES) != 0) {
        p = put_bytes(p, r->indexes);
    }
    if (r->kind == RECORD_PUT) {
        p = put_bytes(p, r->value);
    }
    if (r->kind == RECORD_ANSWER) {
        p = put_u64(p, r->hash);
        p = put_u64(p, r->time_ms);
        if (r->answers.len > 0) {
            memcpy(p, r->answers.ptr, r->answers.len);
        }
        p += r->answers.len;
    }
    return p;
}

void record_put(struct kvs_buf *b, const struct record *r)
{
    size_t most = RECORD_OVERHEAD_MAX + r->key.len + r->partition_key.len + r->content_type.len +
                  r->indexes.len + r->value.len + r->answers.len;
    char *room = kvs_buf_reserve(b, most), *body, *end;
    size_t len, head;

    if (room == NULL) {
        return;
    }
    /* The length comes first and is known last: leave room for its longest form, then close the
     * gap. */
    body = room + 10;
    end = put_body(body, r);
    len = (size_t)(end - body);
    head = kvs_varint_put(room, len);
    memmove(room + head, body, len);
    b->len += head + len;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int take_varint(struct kvs_slice *s, uint64_t *ret)
{
    size_t n = kvs_varint_get(*s, ret);

    s->ptr += n;
    s->len -= n;
    return n == 0 ? KVS_ECORRUPT : 0;
}

static int take_bytes(struct kvs_slice *s, uint64_t min, uint64_t max, struct kvs_slice *ret)
{
    uint64_t n;

    if (take_varint(s, &n) != 0 || n > s->len || n < min || n > max) {
        return KVS_ECORRUPT;
    }
    *ret = kvs_slice(s->ptr, (size_t)n);
    s->ptr += n;
    s->len -= (size_t)n;
    return 0;
}

static int take_u64(struct kvs_slice *s, uint64_t *ret)
{
    if (s->len < 8) {
        return KVS_ECORRUPT;
    }
    *ret = kvs_get_u64(s->ptr);
    s->ptr += 8;
    s->len -= 8;
    return 0;
}

static int take_put(struct kvs_slice *s, uint32_t flags, struct record *r)
{
    int rc = 0;

    if ((flags & HAS_PARTITION_KEY) != 0) {
        rc = take_bytes(s, 1, KVS_KEY_SIZE_MAX, &r->partition_key);
    }
    if (rc == 0 && (flags & HAS_TYPE) != 0) {
        rc = take_bytes(s, 1, KVS_CONTENT_TYPE_SIZE_MAX, &r->content_type);
    }
    if (rc == 0 && (flags & HAS_EXPIRY) != 0) {
        rc = take_u64(s, &r->expires_at_ms);
    }
    if (rc == 0 && (flags & HAS_INDEXES) != 0) {
        struct kvs_slice keys, encoded;
        uint32_t id;

        rc = take_bytes(s, 1, UINT16_MAX, &r->indexes);
        for (keys = r->indexes; rc == 0 && keys.len > 0;) {
            rc = index_key_take(&keys, &id, &encoded);
        }
    }
    return rc != 0 ? rc : take_bytes(s, 0, KVS_VALUE_SIZE_MAX, &r->value);
}

int record_take(struct kvs_slice *bytes, struct record *ret_r)
{
    struct kvs_slice s;
    uint32_t flags;
    int rc = take_bytes(bytes, 3, KVS_BATCH_SIZE_MAX, &s);

    if (rc != 0) {
        return rc;
    }
    memset(ret_r, 0, sizeof *ret_r);
    ret_r->kind = (uint8_t)s.ptr[0];
    flags = (uint8_t)s.ptr[1];
    s.ptr += 2;
    s.len -= 2;
    if (ret_r->kind < RECORD_PUT || ret_r->kind > RECORD_ANSWER || flags > FLAGS_ALL ||
        (flags != 0 && ret_r->kind != RECORD_PUT)) {
        return KVS_ECORRUPT;
    }
    rc = take_bytes(&s, 1, KVS_KEY_SIZE_MAX, &ret_r->key);
    if (rc == 0 && ret_r->kind == RECORD_PUT) {
        rc = take_put(&s, flags, ret_r);
    } else if (rc == 0 && ret_r->kind == RECORD_TOUCH) {
        rc = take_u64(&s, &ret_r->expires_at_ms);
    } else if (rc == 0 && ret_r->kind == RECORD_ANSWER) {
        rc = take_u64(&s, &ret_r->hash);
        rc = rc != 0 ? rc : take_u64(&s, &ret_r->time_ms);
        ret_r->answers = s;
        s.len = 0;
    }
    return rc != 0 ? rc : s.len != 0 ? KVS_ECORRUPT : 0;
}

int index_key_take(struct kvs_slice *bytes, uint32_t *ret_id, struct kvs_slice *ret_encoded)
{
    uint64_t id;
    int rc = take_varint(bytes, &id);

    if (rc != 0 || id > UINT32_MAX) {
        return KVS_ECORRUPT;
    }
    *ret_id = (uint32_t)id;
    return take_bytes(bytes, 0, KVS_INDEX_KEY_SIZE_MAX, ret_encoded);
}
