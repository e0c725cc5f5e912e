/* SPDX-License-Identifier: MIT
 *
 * Growing bytes; see kvs/support.h. Doubles, so n appends cost O(n) copies in all. */
#include <stdarg.h>
#include <stdio.h>

#include "kvs/support.h"

#define BUF_CAP_MIN 256u

void kvs_buf_init(struct kvs_buf *b, const struct kvs_host *host, const struct kvs_mem_tag *tag)
{
    memset(b, 0, sizeof *b);
    b->host = host;
    b->tag = tag;
}

void kvs_buf_fini(struct kvs_buf *b)
{
    kvs_free(b->host, b->tag, b->ptr, b->cap);
    kvs_buf_init(b, b->host, b->tag);
}

void kvs_buf_clear(struct kvs_buf *b)
{
    b->len = 0;
    b->failed = 0;
}

static int buf_grow(struct kvs_buf *b, size_t need)
{
    size_t cap = b->cap < BUF_CAP_MIN ? BUF_CAP_MIN : b->cap;
    char *grown;

    while (cap < need) {
        if (cap > SIZE_MAX / 2) {
            return KVS_ENOMEM;
        }
        cap *= 2;
    }
    if (b->ptr == NULL) {
        grown = (char *)kvs_alloc(b->host, b->tag, cap);
    } else {
        grown = (char *)b->host->realloc(b->host->ctx, b->tag, b->ptr, b->cap, cap);
    }
    if (grown == NULL) {
        return KVS_ENOMEM;
    }
    b->ptr = grown;
    b->cap = cap;
    return 0;
}

char *kvs_buf_reserve(struct kvs_buf *b, size_t n)
{
    if (KVS_UNLIKELY(b->failed)) {
        return NULL;
    }
    if (KVS_UNLIKELY(n > b->cap - b->len)) {
        if (n > SIZE_MAX - b->len || buf_grow(b, b->len + n) != 0) {
            b->failed = 1;
            return NULL;
        }
    }
    return b->ptr + b->len;
}

void kvs_buf_append(struct kvs_buf *b, const void *data, size_t len)
{
    char *at;

    if (len == 0) {
        return;
    }
    at = kvs_buf_reserve(b, len);
    if (at != NULL) {
        memcpy(at, data, len);
        b->len += len;
    }
}

void kvs_buf_append_str(struct kvs_buf *b, const char *text)
{
    kvs_buf_append(b, text, strlen(text));
}

void kvs_buf_printf(struct kvs_buf *b, const char *fmt, ...)
{
    va_list args;
    char *at;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->failed = 1;
        return;
    }
    at = kvs_buf_reserve(b, (size_t)n + 1);
    if (at == NULL) {
        return;
    }
    va_start(args, fmt);
    (void)vsnprintf(at, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
}
