/* SPDX-License-Identifier: MIT
 *
 * compression-zlib: zlib streams (RFC 1950), smaller and slower than LZ4. */
#include <zlib.h>

#include "kvs/compression.h"

struct zlib_conf {
    int64_t level;
};

static const struct kvs_opt options[] = {
    {"level", KVS_OPT_INT, 0, "6", 1, 9, offsetof(struct zlib_conf, level), NULL,
     "1 is fastest, 9 smallest."},
    KVS_OPTS_END,
};

/* self is the filled option structure: it lives as long as the instance. */
static int level_of(const void *self)
{
    const struct zlib_conf *conf = self;

    return (int)conf->level;
}

static size_t zlib_bound(void *self, size_t len)
{
    (void)self;
    return compressBound((uLong)len);
}

static int zlib_compress(void *self, struct kvs_slice src, void *dst, size_t dst_size,
                         size_t *ret_len)
{
    uLongf len = (uLongf)dst_size;
    int rc;

    if (src.len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_ETOOBIG;
    }
    rc = compress2(dst, &len, (const Bytef *)(src.len == 0 ? "" : src.ptr), (uLong)src.len,
                   level_of(self));
    if (rc != Z_OK) {
        return rc == Z_MEM_ERROR ? KVS_ENOMEM : KVS_ETOOBIG;
    }
    *ret_len = (size_t)len;
    return 0;
}

static int zlib_decompress(void *self, struct kvs_slice src, void *dst, size_t dst_len)
{
    Bytef nothing;
    /* For a length of 0 uncompress2 would take one byte and not tell: give it room to tell. */
    uLongf len = dst_len == 0 ? 1 : (uLongf)dst_len;
    uLong used = (uLong)src.len;

    (void)self;
    if (dst_len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_ECORRUPT;
    }
    if (uncompress2(dst_len == 0 ? &nothing : dst, &len, (const Bytef *)src.ptr, &used) != Z_OK ||
        len != dst_len || used != src.len) {
        return KVS_ECORRUPT;
    }
    return 0;
}

static int zlib_init(const struct kvs_host *host, const void *conf, void **ret_self,
                     struct kvs_error *err)
{
    uintptr_t self = (uintptr_t)conf; /* never written through */

    (void)host;
    (void)err;
    *ret_self = (void *)self; /* NOLINT(performance-no-int-to-ptr) */
    return 0;
}

static void zlib_fini(void *self)
{
    (void)self;
}

static const struct kvs_compression_ops ops = {
    .size = sizeof ops,
    .id = KVS_CODEC_ZLIB,
    .bound = zlib_bound,
    .compress = zlib_compress,
    .decompress = zlib_decompress,
};

KVS_PLUGIN(.kind = KVS_KIND_COMPRESSION, .name = "zlib", .version = "1.0.0",
           .summary = "zlib streams: smaller than lz4, slower", .opts = options,
           .conf_size = sizeof(struct zlib_conf), .ops = &ops, .init = zlib_init,
           .fini = zlib_fini);
