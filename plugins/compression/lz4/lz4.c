/* SPDX-License-Identifier: MIT
 *
 * compression-lz4: LZ4 blocks without a frame; sizes and checksums are in what surrounds the block.
 */
#include <lz4.h>

#include "kvs/compression.h"

KVS_STATIC_ASSERT(KVS_COMPRESSION_BLOCK_MAX < LZ4_MAX_INPUT_SIZE, "sizes fit LZ4's int");

static int self_anchor; /* the plugin has no state: `self` only has to differ from NULL */

static size_t lz4_bound(void *self, size_t len)
{
    (void)self;
    return (size_t)LZ4_compressBound((int)len);
}

static int lz4_compress(void *self, struct kvs_slice src, void *dst, size_t dst_size,
                        size_t *ret_len)
{
    int room = dst_size > (size_t)LZ4_MAX_INPUT_SIZE ? LZ4_MAX_INPUT_SIZE : (int)dst_size, n;

    (void)self;
    if (src.len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_ETOOBIG;
    }
    n = LZ4_compress_default(src.len == 0 ? "" : src.ptr, dst, (int)src.len, room);
    if (n <= 0) {
        return KVS_ETOOBIG;
    }
    *ret_len = (size_t)n;
    return 0;
}

static int lz4_decompress(void *self, struct kvs_slice src, void *dst, size_t dst_len)
{
    char nothing;

    (void)self;
    if (src.len == 0 || src.len > (size_t)LZ4_MAX_INPUT_SIZE ||
        dst_len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_ECORRUPT;
    }
    return LZ4_decompress_safe(src.ptr, dst_len == 0 ? &nothing : dst, (int)src.len,
                               (int)dst_len) == (int)dst_len
               ? 0
               : KVS_ECORRUPT;
}

static int lz4_init(const struct kvs_host *host, const void *conf, void **ret_self,
                    struct kvs_error *err)
{
    (void)host;
    (void)conf;
    (void)err;
    *ret_self = &self_anchor;
    return 0;
}

static void lz4_fini(void *self)
{
    (void)self;
}

static const struct kvs_compression_ops ops = {
    .size = sizeof ops,
    .id = KVS_CODEC_LZ4,
    .bound = lz4_bound,
    .compress = lz4_compress,
    .decompress = lz4_decompress,
};

KVS_PLUGIN(.kind = KVS_KIND_COMPRESSION, .name = "lz4", .version = "1.0.0",
           .summary = "LZ4 blocks: fast, about 2:1 on text", .ops = &ops, .init = lz4_init,
           .fini = lz4_fini);
