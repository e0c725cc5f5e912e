/* SPDX-License-Identifier: MIT
 *
 * Two segments of a journal: four bytes that say where the first ends, then both. As they are, and
 * with checksums, salts and numbers that fit, recovered into a partition. */
#include <stdlib.h>

#include "fuzz_wal.h"

#define FIRST "journal/0000000000000000.seg"
#define NEXT  "journal/0000000000000001.seg"

/* Number of the frame that comes after the segment. */
static uint64_t seal(uint8_t *p, size_t len, uint64_t seq, uint64_t number)
{
    uint64_t salt;
    size_t at = SEGMENT_HEADER_SIZE;

    if (len < SEGMENT_HEADER_SIZE) {
        return number;
    }
    kvs_put_u32(p, SEGMENT_MAGIC);
    kvs_put_u32(p + 8, SEGMENT_FORMAT);
    kvs_put_u64(p + 16, seq);
    kvs_put_u64(p + 32, number);
    kvs_put_u32(p + 4, kvs_crc32c(0, p + 8, SEGMENT_HEADER_SIZE - 8));
    salt = kvs_get_u64(p + 24);
    while (at < len && len - at > FRAME_HEADER_SIZE) {
        uint8_t *h = p + at;
        size_t room = len - at - FRAME_HEADER_SIZE;
        struct frame f = {.size = kvs_get_u32(h + 8),
                          .salt = salt,
                          .number = number++,
                          .durable = kvs_get_u64(h + 32)};
        uint8_t head[FRAME_HEADER_SIZE];

        f.size = f.size == 0 || f.size > room ? (uint32_t)room : f.size;
        fuzz_seal_batches(h + FRAME_HEADER_SIZE, f.size);
        frame_encode(head, &f, 0);
        frame_encode(h, &f, kvs_crc32c(frame_crc(head), h + FRAME_HEADER_SIZE, f.size));
        at += frame_total(f.size);
    }
    return number;
}

static void recover(const uint8_t *bytes, size_t first, size_t len)
{
    struct fuzz_file files[2] = {{FIRST, bytes, first}, {NEXT, bytes + first, len - first}};
    struct kvs_recover_report report;

    (void)fuzz_recover(files, len == first ? 1 : 2, &report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t first, len = size < 4 ? 0 : size - 4;
    uint8_t *sealed;
    uint64_t number;

    if (size < 4) {
        return 0;
    }
    first = kvs_get_u32(data);
    first = first < len ? first : len;
    sealed = malloc(len + 1);
    FUZZ_CHECK(sealed != NULL, "out of memory");
    memcpy(sealed, data + 4, len);
    recover(sealed, first, len);
    number = seal(sealed, first, 0, 0);
    (void)seal(sealed + first, len - first, 1, number);
    recover(sealed, first, len);
    free(sealed);
    return 0;
}
