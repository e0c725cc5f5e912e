/* SPDX-License-Identifier: MIT
 *
 * The consistent hashing library (libkvshash): from partition key to partition number.
 *
 * Clients and servers call the same code; a table's metadata names algorithm ("jump-xxh3-64"),
 * version and seed. Numbered buckets: jump consistent hash (Lamping and Veach, 2014) over XXH3-64
 * of the key with the table's seed. Pure functions, any thread. */
#ifndef KVS_HASHING_H
#define KVS_HASHING_H

#include "kvs/base.h"

#define KVS_HASH_ALGORITHM "jump-xxh3-64"
#define KVS_HASH_VERSION   1u

/* XXH3-64 of the bytes with the seed. */
uint64_t kvs_hash64(struct kvs_slice key, uint64_t seed);

/* The bucket 0 .. count-1 of a hash; count 1..2^31-1. Growing count by one moves 1/count of the
 * keys. */
uint32_t kvs_hash_jump(uint64_t hash, uint32_t count);

/* Both: the partition of a key in a table of `count` partitions. */
uint32_t kvs_hash_bucket(struct kvs_slice key, uint64_t seed, uint32_t count);

#endif
