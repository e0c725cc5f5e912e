/* SPDX-License-Identifier: MIT
 *
 * Words every other header uses: attributes, byte slices, thread annotations.
 *
 * The ABI is LP64, little-endian or big-endian hosts alike (disk and wire formats are encoded field
 * by field). Structures that cross the ABI hold fixed-width integers, pointers and size_t, never an
 * enum or a bool: their sizes differ between compilers and flags. */
#ifndef KVS_BASE_H
#define KVS_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
#define KVS_STATIC_ASSERT(cond, text) static_assert(cond, text)
#else
#define KVS_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#endif

KVS_STATIC_ASSERT(sizeof(void *) == 8 && sizeof(size_t) == 8, "kvs plugins are LP64");

#define KVS_MUST_CHECK __attribute__((warn_unused_result))
/* args 0: the function takes a va_list. */
#define KVS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define KVS_NORETURN          __attribute__((noreturn))
#define KVS_EXPORT            __attribute__((visibility("default")))
#define KVS_UNUSED            __attribute__((unused))
#define KVS_LIKELY(x)         __builtin_expect(!!(x), 1)
#define KVS_UNLIKELY(x)       __builtin_expect(!!(x), 0)

/* Where a function may be called. Read by people; a checker can be pointed at them later. */
#define KVS_ON_LOOP    /* on the event loop that owns the object */
#define KVS_ON_POOL    /* on a thread of the I/O pool */
#define KVS_ON_MAIN    /* on the main thread, which runs no event loop */
#define KVS_ANY_THREAD /* anywhere */

/* True if the structure *p, whose first field is its own size, reaches far enough to hold `field`.
 * How a host reads an older plugin and a plugin an older host. */
#define KVS_HAS(p, field)                                                                          \
    ((size_t)(p)->size >= offsetof(__typeof__(*(p)), field) + sizeof((p)->field))

#define KVS_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define KVS_ARRAY_COUNT(a)                  (sizeof(a) / sizeof((a)[0]))

/* Borrowed bytes. Keys and values may hold any byte, NUL too: never treat one as a C string.
 * ptr may be NULL only if len is 0; where "absent" and "empty" differ, ptr == NULL means absent. */
struct kvs_slice {
    const char *ptr;
    size_t len;
};

static inline struct kvs_slice kvs_slice(const void *ptr, size_t len)
{
    struct kvs_slice s = {(const char *)ptr, len};
    return s;
}

static inline struct kvs_slice kvs_slice_str(const char *text)
{
    return kvs_slice(text, text == NULL ? 0 : strlen(text));
}

/* Bytewise order, the order of keys everywhere in kvs: memcmp, then the shorter first. */
static inline int kvs_slice_cmp(struct kvs_slice a, struct kvs_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);

    if (c != 0) {
        return c;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

static inline int kvs_slice_eq(struct kvs_slice a, struct kvs_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline int kvs_slice_eq_str(struct kvs_slice a, const char *text)
{
    return kvs_slice_eq(a, kvs_slice_str(text));
}

/* Limits of the data model, part of the contract with clients. */
#define KVS_KEY_SIZE_MAX              1024u       /* bytes of a key or a partition key, 1.. */
#define KVS_VALUE_SIZE_DEFAULT        (1u << 20)  /* a table's max_value_bytes unless it says */
#define KVS_VALUE_SIZE_MAX            (16u << 20) /* what a table may raise it to */
#define KVS_CONTENT_TYPE_SIZE_MAX     128u        /* bytes of a content type */
#define KVS_TABLE_NAME_SIZE_MAX       64u         /* [a-z][a-z0-9_-]{0,63} */
#define KVS_PARTITION_COUNT_MAX       4096u       /* of one table */
#define KVS_INDEX_COUNT_MAX           16u         /* secondary indexes of one table */
#define KVS_INDEX_KEYS_PER_ITEM_MAX   64u         /* values one item may give to one index */
#define KVS_INDEX_KEY_SIZE_MAX        512u        /* bytes of one string index key */
#define KVS_BATCH_OPERATION_COUNT_MAX 10000u      /* operations of one client batch */
#define KVS_BATCH_BODY_SIZE_MAX       (16u << 20) /* bytes of one client batch */
#define KVS_LIST_LIMIT_DEFAULT        100u        /* items of a page */
#define KVS_LIST_LIMIT_MAX            1000u       /* what a client may ask for */
#define KVS_LIST_BYTES_DEFAULT        (1u << 20)  /* bytes of a page */

#endif
