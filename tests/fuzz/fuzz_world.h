/* SPDX-License-Identifier: MIT
 *
 * What fuzz targets stand on: a fake host with the real ordered index and the real codec, linked in
 * so that they are instrumented, a persistence plugin that says yes at once, and a partition. */
#ifndef KVS_TESTS_FUZZ_WORLD_H
#define KVS_TESTS_FUZZ_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "kvs/mock.h"
#include "partition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* End the program with a sentence if a promise does not hold. */
#define FUZZ_CHECK(cond, what) ((cond) ? (void)0 : fuzz_fail(what))
void fuzz_fail(const char *what) KVS_NORETURN;

struct fuzz_world {
    struct kvs_mock *mock;
    struct kvs_host table; /* the mock's, with memory straight from malloc, which is faster */
    const struct kvs_host *host;
    const struct kvs_plugin *btree, *lz4;
    void *btree_self, *lz4_self;
    const struct kvs_persistence_ops *persistence; /* of new partitions */
    void *persistence_self;
};

void fuzz_world_open(struct fuzz_world *w);
void fuzz_world_close(struct fuzz_world *w); /* nothing may be left */

extern const struct kvs_persistence_ops fuzz_persistence_ops; /* self: const struct kvs_host */

/* Four secondary indexes: 1 "tag" explicit string, 2 "size" explicit number, 3 "color" string at
 * /color, 4 "n" number at /stats/n. */
#define FUZZ_SECONDARY_COUNT 4u
extern const struct secondary_def FUZZ_SECONDARIES[FUZZ_SECONDARY_COUNT];

struct partition *fuzz_partition_new(struct fuzz_world *w, uint64_t stream);
/* Its indexes must agree with its items, unless its recovery failed. */
void fuzz_partition_free(struct fuzz_world *w, struct partition *p, int failed);

/* Make the checksums of the batches in `bytes` right, as far as their sizes make sense. */
void fuzz_seal_batches(uint8_t *bytes, size_t len);

#endif
