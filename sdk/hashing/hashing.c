/* SPDX-License-Identifier: MIT
 *
 * Numbered buckets; see kvs/hashing.h.
 *
 * Jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm",
 * 2014): a walk over the buckets a key would have had as the table grew, in expected ln(count)
 * steps. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kvs/hashing.h"

uint64_t kvs_hash64(struct kvs_slice key, uint64_t seed)
{
    return XXH3_64bits_withSeed(key.len == 0 ? "" : key.ptr, key.len, seed);
}

uint32_t kvs_hash_jump(uint64_t hash, uint32_t count)
{
    int64_t bucket = -1, next = 0;

    while (next < (int64_t)count) {
        bucket = next;
        hash = hash * 2862933555777941757u + 1;
        /* The quotient is at most 2^31 * (bucket + 1), exact enough in a double by construction. */
        next = (int64_t)((double)(bucket + 1) * ((double)(1LL << 31) / (double)((hash >> 33) + 1)));
    }
    return bucket < 0 ? 0 : (uint32_t)bucket;
}

uint32_t kvs_hash_bucket(struct kvs_slice key, uint64_t seed, uint32_t count)
{
    return kvs_hash_jump(kvs_hash64(key, seed), count);
}
