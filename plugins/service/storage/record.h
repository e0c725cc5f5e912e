/* SPDX-License-Identifier: MIT
 *
 * Log records: what the payload of a batch consists of.
 *
 *   varint  length of what follows
 *   u8      kind
 *   u8      flags
 *   PUT     varint, key; [varint, partition key]; [varint, content type]; [u64 expiry];
 *           [varint, explicit secondary keys]; varint, value
 *   DELETE  varint, key
 *   TOUCH   varint, key; u64 expiry (0: never)
 *   ANSWER  varint, idempotency key; u64 hash of the request; u64 time; then per operation:
 *           u8 result, varint epoch, varint offset
 *
 * Integers are little-endian, varints LEB128. A record's offset is its position in the batch. */
#ifndef STORAGE_RECORD_H
#define STORAGE_RECORD_H

#include "kvs/support.h"
#include "partition.h"

#define RECORD_PUT    1u
#define RECORD_DELETE 2u
#define RECORD_TOUCH  3u
#define RECORD_ANSWER 4u

struct record {
    uint32_t kind;
    struct kvs_slice key, partition_key, content_type, indexes, value;
    uint64_t expires_at_ms;
    uint64_t hash, time_ms;   /* ANSWER; its key is the idempotency key */
    struct kvs_slice answers; /* ANSWER */
};

/* Append to b (b->failed if memory is out). */
void record_put(struct kvs_buf *b, const struct record *r);
/* Take the first record off *bytes. Trusts nothing: KVS_ECORRUPT. */
int record_take(struct kvs_slice *bytes, struct record *ret_r);

/* Explicit secondary keys of a record or item: take the first (id, encoded) off. */
int index_key_take(struct kvs_slice *bytes, uint32_t *ret_id, struct kvs_slice *ret_encoded);

#endif
