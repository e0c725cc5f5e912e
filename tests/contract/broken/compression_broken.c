/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: decompress takes what it gets for what was asked, whatever the length. */
#include "kvs/compression.h"

static size_t broken_bound(void *self, size_t len)
{
    (void)self;
    return len;
}

static int broken_compress(void *self, struct kvs_slice src, void *dst, size_t dst_size,
                           size_t *ret_len)
{
    (void)self;
    if (src.len > dst_size || src.len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_ETOOBIG;
    }
    if (src.len > 0) {
        memcpy(dst, src.ptr, src.len);
    }
    *ret_len = src.len;
    return 0;
}

static int broken_decompress(void *self, struct kvs_slice src, void *dst, size_t dst_len)
{
    size_t n = src.len < dst_len ? src.len : dst_len;

    (void)self;
    if (n > 0) {
        memcpy(dst, src.ptr, n);
    }
    return 0; /* the defect */
}

static int broken_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    static int anchor;

    (void)host;
    (void)conf;
    (void)err;
    *ret_self = &anchor;
    return 0;
}

static void broken_fini(void *self)
{
    (void)self;
}

static const struct kvs_compression_ops ops = {
    .size = sizeof ops,
    .id = 200,
    .bound = broken_bound,
    .compress = broken_compress,
    .decompress = broken_decompress,
};

KVS_PLUGIN(.kind = KVS_KIND_COMPRESSION, .name = "broken", .version = "1",
           .summary = "takes any length", .ops = &ops, .init = broken_init, .fini = broken_fini);
