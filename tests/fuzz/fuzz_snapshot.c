/* SPDX-License-Identifier: MIT
 *
 * A snapshot file, as it is and with name, checksums and numbering that fit, recovered into a
 * partition. */
#include <stdlib.h>

#include "fuzz_wal.h"

#define OFFSET 6u
#define PATH   "snapshots/0000000100000002-0000000000000006.snap"

static void seal(uint8_t *p, size_t len)
{
    uint32_t meta_len, index = 0;
    size_t at;

    if (len < SNAPSHOT_HEADER_SIZE) {
        return;
    }
    meta_len = kvs_get_u32(p + 44);
    meta_len = meta_len <= len - SNAPSHOT_HEADER_SIZE ? meta_len : 0;
    kvs_put_u32(p, SNAPSHOT_MAGIC);
    kvs_put_u32(p + 8, SNAPSHOT_FORMAT);
    kvs_put_u64(p + 16, FUZZ_STREAM);
    kvs_put_u64(p + 24, OFFSET);
    kvs_put_u32(p + 44, meta_len);
    at = SNAPSHOT_HEADER_SIZE + meta_len;
    kvs_put_u32(p + 4, kvs_crc32c(0, p + 8, at - 8));
    while (len - at >= SNAPSHOT_BLOCK_HEADER) {
        uint8_t *b = p + at;
        size_t room = len - at - SNAPSHOT_BLOCK_HEADER;
        uint32_t stored = kvs_get_u32(b + 4);

        stored = stored <= room ? stored : (uint32_t)room;
        kvs_put_u32(b + 4, stored);
        kvs_put_u32(b + 12, index++);
        kvs_put_u32(b, kvs_crc32c(0, b + 4, SNAPSHOT_BLOCK_HEADER - 4 + stored));
        at += SNAPSHOT_BLOCK_HEADER + stored;
    }
}

static void recover(const uint8_t *bytes, size_t len)
{
    struct fuzz_file file = {PATH, bytes, len};
    struct kvs_recover_report report;

    (void)fuzz_recover(&file, 1, &report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *sealed = calloc(1, size + 1);

    FUZZ_CHECK(sealed != NULL, "out of memory");
    if (size > 0) {
        memcpy(sealed, data, size);
    }
    recover(sealed, size);
    seal(sealed, size);
    recover(sealed, size);
    free(sealed);
    return 0;
}
