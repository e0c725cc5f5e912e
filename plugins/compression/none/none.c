/* SPDX-License-Identifier: MIT
 *
 * compression-none: the identity, for tables whose values are compressed already, and for tests. */
#include "kvs/compression.h"

#define CODEC_ID 3u /* 0 is "no codec at all"; this one passes through the codec's path */

static int self_anchor;

static size_t none_bound(void *self, size_t len)
{
    (void)self;
    return len;
}

static int none_compress(void *self, struct kvs_slice src, void *dst, size_t dst_size,
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

static int none_decompress(void *self, struct kvs_slice src, void *dst, size_t dst_len)
{
    (void)self;
    if (src.len != dst_len) {
        return KVS_ECORRUPT;
    }
    if (dst_len > 0) {
        memcpy(dst, src.ptr, dst_len);
    }
    return 0;
}

static int none_init(const struct kvs_host *host, const void *conf, void **ret_self,
                     struct kvs_error *err)
{
    (void)host;
    (void)conf;
    (void)err;
    *ret_self = &self_anchor;
    return 0;
}

static void none_fini(void *self)
{
    (void)self;
}

static const struct kvs_compression_ops ops = {
    .size = sizeof ops,
    .id = CODEC_ID,
    .bound = none_bound,
    .compress = none_compress,
    .decompress = none_decompress,
};

KVS_PLUGIN(.kind = KVS_KIND_COMPRESSION, .name = "none", .version = "1.0.0",
           .summary = "no compression", .ops = &ops, .init = none_init, .fini = none_fini);
