/* SPDX-License-Identifier: MIT
 *
 * Log batches: as they are, and with checksums and offsets that fit, so that what they hold is
 * replayed into a partition. What was replayed is consistent, whatever was damaged. */
#include <stdlib.h>

#include "fuzz_world.h"

static void replay(const uint8_t *bytes, size_t len)
{
    struct fuzz_world w;
    struct partition *p;
    struct kvs_slice rest = {(const char *)bytes, len};
    struct kvs_error err = {0};
    int rc = 0;

    fuzz_world_open(&w);
    p = fuzz_partition_new(&w, 1);
    while (rc == 0 && rest.len > 0) {
        struct kvs_batch_header h;
        struct kvs_slice payload;

        rc = kvs_batch_open(rest, &h, &payload, &err);
        if (rc == 0) {
            FUZZ_CHECK(h.total_size <= rest.len && h.count >= 1, "a batch out of bounds is opened");
            rc = partition_recover_batch(p, &h, payload, &err);
            rest.ptr += h.total_size;
            rest.len -= h.total_size;
        }
    }
    FUZZ_CHECK(rc == 0 || err.msg[0] != '\0', "an error has no message");
    fuzz_partition_free(&w, p, rc);
    fuzz_world_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *sealed = malloc(size + 1);

    FUZZ_CHECK(sealed != NULL, "out of memory");
    if (size > 0) {
        memcpy(sealed, data, size);
    }
    replay(sealed, size);
    fuzz_seal_batches(sealed, size);
    replay(sealed, size);
    free(sealed);
    return 0;
}
