/* SPDX-License-Identifier: MIT
 *
 * Small tools for plugins, linked statically (libkvs-support.a): owned bytes, JSON text, text of
 * durations and sizes, percent-decoding, nearest-word hints. No state, no host symbol. */
#ifndef KVS_SUPPORT_H
#define KVS_SUPPORT_H

#include "kvs/base.h"
#include "kvs/error.h"
#include "kvs/host.h"

/* ---- growing bytes --------------------------------------------------------------------------- */

/* Owned, growing bytes. Errors stick: after a failed growth every append is ignored and `failed` is
 * set; look once at the end. */
struct kvs_buf {
    const struct kvs_host *host;
    const struct kvs_mem_tag *tag;
    char *ptr;
    size_t len, cap;
    uint32_t failed;
};

void kvs_buf_init(struct kvs_buf *b, const struct kvs_host *host, const struct kvs_mem_tag *tag);
void kvs_buf_fini(struct kvs_buf *b);
void kvs_buf_clear(struct kvs_buf *b); /* empty but usable, capacity kept */
/* Room for n more bytes: returns where they go (then add to len), NULL if memory is out. */
char *kvs_buf_reserve(struct kvs_buf *b, size_t n);
void kvs_buf_append(struct kvs_buf *b, const void *data, size_t len);
void kvs_buf_append_str(struct kvs_buf *b, const char *text);
void kvs_buf_printf(struct kvs_buf *b, const char *fmt, ...) KVS_PRINTF(2, 3);
static inline struct kvs_slice kvs_buf_slice(const struct kvs_buf *b)
{
    return kvs_slice(b->ptr, b->len);
}

/* ---- JSON text ------------------------------------------------------------------------------- */

/* Append a JSON string with quotes. Bytes must be UTF-8 (kvs_utf8_valid); control characters
 * escaped. */
void kvs_json_str(struct kvs_buf *b, struct kvs_slice text);
void kvs_json_u64(struct kvs_buf *b, uint64_t v);
/* Append "name":"..." or, where the bytes are not UTF-8, "name_base64":"...". No comma. */
void kvs_json_bytes_member(struct kvs_buf *b, const char *name, struct kvs_slice bytes);
int kvs_utf8_valid(struct kvs_slice text); /* RFC 3629; NUL is valid */
void kvs_base64(struct kvs_buf *b, struct kvs_slice bytes);
/* Standard alphabet, padding required. *ret_len <= dst_size or KVS_EINVAL. */
int kvs_base64_decode(struct kvs_slice text, void *dst, size_t dst_size, size_t *ret_len);

/* ---- reading JSON ---------------------------------------------------------------------------- */

/* A pull reader (RFC 8259): the caller asks for what it expects, in the order of the text. No tree
 * and no recursion; strings point into the text, or into the arena if they held escapes.
 *
 *   kvs_json_begin(&r, body, &arena);
 *   kvs_json_read(&r, &v);                            v.type is KVS_JSON_OBJECT
 *   while ((more = kvs_json_member(&r, &count, &name)) > 0) {
 *       kvs_json_read(&r, &v);                        or kvs_json_skip after it
 *   }
 *   kvs_json_end(&r);
 *
 * The first error sticks: r.wrong says what, kvs_json_place() where. Members may repeat. */
#define KVS_JSON_DEPTH_MAX 64u /* of values that are skipped */

enum kvs_json_type {
    KVS_JSON_NULL = 0,
    KVS_JSON_FALSE = 1,
    KVS_JSON_TRUE = 2,
    KVS_JSON_NUMBER = 3,
    KVS_JSON_STRING = 4,
    KVS_JSON_ARRAY = 5,
    KVS_JSON_OBJECT = 6,
};

struct kvs_json_value {
    uint32_t type; /* enum kvs_json_type */
    uint32_t reserved;
    struct kvs_slice text; /* string: decoded, UTF-8; number: as it is written */
};

struct kvs_arena;

struct kvs_json_reader {
    const char *begin, *at, *end;
    struct kvs_arena *arena;
    const char *wrong; /* static; NULL: nothing so far */
};

void kvs_json_begin(struct kvs_json_reader *r, struct kvs_slice text, struct kvs_arena *arena);
/* The next value; of an array or object only its opening bracket. 0 or -1. */
int kvs_json_read(struct kvs_json_reader *r, struct kvs_json_value *ret_v);
/* Inside an array or object; *count begins at 0. 1: an element or member follows, its value is to
 * be read; 0: the bracket was closed; -1. */
int kvs_json_element(struct kvs_json_reader *r, uint32_t *count);
int kvs_json_member(struct kvs_json_reader *r, uint32_t *count, struct kvs_slice *ret_name);
/* Pass over the rest of a value that was read. 0 or -1. */
int kvs_json_skip(struct kvs_json_reader *r, const struct kvs_json_value *v);
/* 0 if nothing but white space follows, else -1. */
int kvs_json_end(struct kvs_json_reader *r);
/* Line and column, from 1, of where the reader stands. */
void kvs_json_place(const struct kvs_json_reader *r, uint64_t *ret_line, uint64_t *ret_column);

/* ---- text of values -------------------------------------------------------------------------- */

/* "500ms" "30s" "5m" "24h" "7d" -> ms. KVS_EINVAL for anything else, also on overflow. */
int kvs_duration_parse(struct kvs_slice text, uint64_t *ret_ms);
/* "4096" "64KiB" "64MiB" "8GiB" "1TiB" -> bytes. */
int kvs_bytes_parse(struct kvs_slice text, uint64_t *ret_bytes);
int kvs_u64_parse(struct kvs_slice text, uint64_t *ret_v); /* decimal digits only */
/* Shortest exact text with a unit: 1500 -> "1500ms", 60000 -> "1m". buf of 32. */
const char *kvs_duration_text(uint64_t ms, char buf[32]);
const char *kvs_bytes_text(uint64_t bytes, char buf[32]);

/* Percent-decode into dst (dst_size >= text.len is always enough). `plus`: '+' is a space (query).
 * KVS_EINVAL on a broken escape. Any byte may result, NUL too. */
int kvs_percent_decode(struct kvs_slice text, int plus, char *dst, size_t dst_size,
                       size_t *ret_len);
/* Encode all but unreserved characters (RFC 3986). */
void kvs_percent_encode(struct kvs_buf *b, struct kvs_slice bytes);

/* The word of `words` (ends with NULL) nearest to `given` by edit distance, or NULL if none is
 * near. */
const char *kvs_nearest(struct kvs_slice given, const char *const *words);

/* ---- little-endian fields -------------------------------------------------------------------- */

static inline void kvs_put_u16(void *p, uint16_t v)
{
    uint8_t *b = (uint8_t *)p;

    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void kvs_put_u32(void *p, uint32_t v)
{
    kvs_put_u16(p, (uint16_t)v);
    kvs_put_u16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void kvs_put_u64(void *p, uint64_t v)
{
    kvs_put_u32(p, (uint32_t)v);
    kvs_put_u32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t kvs_get_u16(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return (uint16_t)(b[0] | (b[1] << 8));
}

static inline uint32_t kvs_get_u32(const void *p)
{
    return (uint32_t)kvs_get_u16(p) | ((uint32_t)kvs_get_u16((const uint8_t *)p + 2) << 16);
}

static inline uint64_t kvs_get_u64(const void *p)
{
    return (uint64_t)kvs_get_u32(p) | ((uint64_t)kvs_get_u32((const uint8_t *)p + 4) << 32);
}

/* LEB128. put: at most 10 bytes, returns how many. get: 0 bytes on a broken or cut number. */
size_t kvs_varint_put(void *p, uint64_t v);
size_t kvs_varint_get(struct kvs_slice bytes, uint64_t *ret_v);

#endif
