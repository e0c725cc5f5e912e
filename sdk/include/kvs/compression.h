/* SPDX-License-Identifier: MIT
 *
 * Kind `compression`: a block codec.
 *
 * Stateless and thread-safe: every op may be called on any thread at the same time. Blocks are at
 * most KVS_COMPRESSION_BLOCK_MAX bytes uncompressed. The `id` is written in journal batches and
 * snapshot blocks and therefore never changes its meaning; third parties take 128..255. */
#ifndef KVS_COMPRESSION_H
#define KVS_COMPRESSION_H

#include "kvs/plugin.h"

#define KVS_COMPRESSION_BLOCK_MAX (64u << 20)

#define KVS_CODEC_NONE            0u
#define KVS_CODEC_LZ4             1u
#define KVS_CODEC_ZLIB            2u
#define KVS_CODEC_THIRD_PARTY_MIN 128u

struct kvs_compression_ops {
    uint32_t size;
    uint32_t id; /* 1..255, see above */
    /* Bytes that compress() may need at most for `len` bytes of input (len <= BLOCK_MAX). */
    size_t (*bound)(void *self, size_t len);
    /* Returns 0 and *ret_len, KVS_ETOOBIG if dst is too small or src longer than BLOCK_MAX,
     * KVS_ENOMEM. Never reads beyond src, never writes beyond dst. src may be empty. */
    int (*compress)(void *self, struct kvs_slice src, void *dst, size_t dst_size, size_t *ret_len);
    /* Restores exactly dst_len bytes. KVS_ECORRUPT if src is not a whole block that yields exactly
     * dst_len bytes; what dst holds then is undefined, but nothing outside was touched. */
    int (*decompress)(void *self, struct kvs_slice src, void *dst, size_t dst_len);
    /* --- end of 1.0 --- */
};

#endif
