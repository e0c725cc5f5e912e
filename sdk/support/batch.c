/* SPDX-License-Identifier: MIT
 *
 * Sealing and opening batches (layout in kvs/batch.h), and LEB128 numbers. */
#include "kvs/batch.h"
#include "kvs/support.h"

enum {
    AT_MAGIC = 0,
    AT_CRC = 4,
    AT_TOTAL = 8,
    AT_CODEC = 12,
    AT_FLAGS = 13,
    AT_RESERVED_1 = 14,
    AT_STREAM = 16,
    AT_EPOCH = 24,
    AT_COUNT = 28,
    AT_BASE = 32,
    AT_TIME = 40,
    AT_RAW = 48,
    AT_RESERVED_2 = 52,
    AT_END = 56,
};

KVS_STATIC_ASSERT(AT_END == KVS_BATCH_HEADER_SIZE, "layout");

void kvs_batch_seal(void *buf, const struct kvs_batch_header *h)
{
    uint8_t *p = (uint8_t *)buf;

    kvs_put_u32(p + AT_MAGIC, KVS_BATCH_MAGIC);
    kvs_put_u32(p + AT_TOTAL, h->total_size);
    p[AT_CODEC] = (uint8_t)h->codec;
    p[AT_FLAGS] = (uint8_t)h->flags;
    kvs_put_u16(p + AT_RESERVED_1, 0);
    kvs_put_u64(p + AT_STREAM, h->stream);
    kvs_put_u32(p + AT_EPOCH, h->leader_epoch);
    kvs_put_u32(p + AT_COUNT, h->count);
    kvs_put_u64(p + AT_BASE, h->base_offset);
    kvs_put_u64(p + AT_TIME, h->append_time_ms);
    kvs_put_u32(p + AT_RAW, h->raw_size);
    kvs_put_u32(p + AT_RESERVED_2, 0);
    kvs_put_u32(p + AT_CRC, kvs_crc32c(0, p + AT_TOTAL, h->total_size - AT_TOTAL));
}

static int batch_bounds(const struct kvs_batch_header *h, struct kvs_error *err)
{
    if (h->count == 0 || h->count > KVS_BATCH_RECORD_MAX) {
        return kvs_err(err, KVS_ECORRUPT, "batch claims %u records", h->count);
    }
    if (h->base_offset > UINT64_MAX - h->count) {
        return kvs_err(err, KVS_ECORRUPT, "batch offsets overflow");
    }
    if (h->raw_size > KVS_BATCH_SIZE_MAX) {
        return kvs_err(err, KVS_ECORRUPT, "batch claims %u bytes uncompressed", h->raw_size);
    }
    if (h->codec == 0 && h->raw_size != h->total_size - KVS_BATCH_HEADER_SIZE) {
        return kvs_err(err, KVS_ECORRUPT, "batch sizes contradict each other");
    }
    return 0;
}

int kvs_batch_open(struct kvs_slice bytes, struct kvs_batch_header *ret_h,
                   struct kvs_slice *ret_payload, struct kvs_error *err)
{
    const uint8_t *p = (const uint8_t *)bytes.ptr;
    struct kvs_batch_header h;
    int rc;

    if (bytes.len < KVS_BATCH_HEADER_SIZE) {
        return kvs_err(err, KVS_ECORRUPT, "batch header cut after %zu bytes", bytes.len);
    }
    if (kvs_get_u32(p + AT_MAGIC) != KVS_BATCH_MAGIC) {
        return kvs_err(err, KVS_ECORRUPT, "no batch here: magic is 0x%08x",
                       kvs_get_u32(p + AT_MAGIC));
    }
    h.total_size = kvs_get_u32(p + AT_TOTAL);
    if (h.total_size < KVS_BATCH_HEADER_SIZE || h.total_size > KVS_BATCH_SIZE_MAX) {
        return kvs_err(err, KVS_ECORRUPT, "batch claims %u bytes", h.total_size);
    }
    if (h.total_size > bytes.len) {
        return kvs_err(err, KVS_ECORRUPT, "batch of %u bytes cut after %zu", h.total_size,
                       bytes.len);
    }
    if (kvs_crc32c(0, p + AT_TOTAL, h.total_size - AT_TOTAL) != kvs_get_u32(p + AT_CRC)) {
        return kvs_err(err, KVS_ECORRUPT, "batch checksum does not match");
    }
    h.codec = p[AT_CODEC];
    h.flags = p[AT_FLAGS];
    h.stream = kvs_get_u64(p + AT_STREAM);
    h.leader_epoch = kvs_get_u32(p + AT_EPOCH);
    h.count = kvs_get_u32(p + AT_COUNT);
    h.base_offset = kvs_get_u64(p + AT_BASE);
    h.append_time_ms = kvs_get_u64(p + AT_TIME);
    h.raw_size = kvs_get_u32(p + AT_RAW);
    rc = batch_bounds(&h, err);
    if (rc != 0) {
        return rc;
    }
    *ret_h = h;
    *ret_payload =
        kvs_slice(bytes.ptr + KVS_BATCH_HEADER_SIZE, h.total_size - KVS_BATCH_HEADER_SIZE);
    return 0;
}

size_t kvs_varint_put(void *p, uint64_t v)
{
    uint8_t *b = (uint8_t *)p;
    size_t n = 0;

    while (v >= 0x80) {
        b[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    b[n++] = (uint8_t)v;
    return n;
}

size_t kvs_varint_get(struct kvs_slice bytes, uint64_t *ret_v)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes.len && i < 10; i++) {
        uint64_t byte = (uint8_t)bytes.ptr[i];

        if (i == 9 && byte > 1) {
            return 0; /* beyond 64 bits */
        }
        v |= (byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret_v = v;
            return i + 1;
        }
    }
    return 0;
}
