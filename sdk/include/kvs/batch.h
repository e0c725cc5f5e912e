/* SPDX-License-Identifier: MIT
 *
 * The batch: the unit that is journaled, replicated and acknowledged, in the same bytes everywhere.
 *
 * A stream is one partition of one table: (table id << 32) | partition. Records of a stream carry
 * offsets 0, 1, 2, ..; a batch holds `count` records with offsets base_offset .. base_offset +
 * count - 1. What a record means is the service's business (plugins/service/storage/record.h).
 *
 *   offset size field               all little-endian
 *        0    4 magic               "KVB1"
 *        4    4 crc32c              over bytes 8 .. total_size - 1
 *        8    4 total_size          header and payload, bytes
 *       12    1 codec               of the payload, KVS_CODEC_*
 *       13    1 flags               KVS_BATCH_*
 *       14    2 reserved            0
 *       16    8 stream
 *       24    4 leader_epoch
 *       28    4 count               records, 1..KVS_BATCH_RECORD_MAX
 *       32    8 base_offset
 *       40    8 append_time_ms      Unix
 *       48    4 raw_size            payload bytes when decompressed
 *       52    4 reserved            0
 *       56      payload */
#ifndef KVS_BATCH_H
#define KVS_BATCH_H

#include "kvs/base.h"
#include "kvs/error.h"

#define KVS_BATCH_MAGIC       0x3142564bu /* "KVB1" */
#define KVS_BATCH_HEADER_SIZE 56u
#define KVS_BATCH_SIZE_MAX    (64u << 20) /* bytes of one batch, header included */
#define KVS_BATCH_RECORD_MAX  65536u      /* records of one batch */

#define KVS_BATCH_ATOMIC 1u /* all records take effect together or not at all */

struct kvs_batch_header {
    uint32_t total_size;
    uint32_t codec;
    uint32_t flags;
    uint32_t leader_epoch;
    uint32_t count;
    uint32_t raw_size;
    uint64_t stream;
    uint64_t base_offset;
    uint64_t append_time_ms;
};

static inline uint64_t kvs_stream(uint32_t table_id, uint32_t partition)
{
    return ((uint64_t)table_id << 32) | partition;
}

/* Write the header in front of a payload already at buf + KVS_BATCH_HEADER_SIZE, with its checksum.
 * h->total_size covers both. */
void kvs_batch_seal(void *buf, const struct kvs_batch_header *h);

/* Read and verify a batch at the start of `bytes`. Returns 0; KVS_ECORRUPT with a reason in err
 * (not a batch, sizes out of bounds, checksum). Trusts nothing. bytes may be longer than the batch.
 */
int kvs_batch_open(struct kvs_slice bytes, struct kvs_batch_header *ret_h,
                   struct kvs_slice *ret_payload, struct kvs_error *err);

/* CRC-32C (Castagnoli), SSE4.2 where the processor has it. seed 0 to begin; feed the result to go
 * on. */
uint32_t kvs_crc32c(uint32_t seed, const void *data, size_t len);

#endif
