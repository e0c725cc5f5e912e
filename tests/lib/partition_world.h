/* SPDX-License-Identifier: MIT
 *
 * A partition with everything around it, for tests: fake host, index and compression plugins (the
 * real ones), fake journal. Posted tasks wait in the world, so that a test decides when a slice of
 * a snapshot is walked. */
#ifndef KVS_TESTS_PARTITION_WORLD_H
#define KVS_TESTS_PARTITION_WORLD_H

#include "fake_journal.h"
#include "kvs/method.h"
#include "kvs/mock.h"
#include "partition.h"

#define WORLD_STREAM 0x100000002u

struct world {
    struct kvs_mock *mock;
    struct kvs_host host; /* the mock's, with `post` replaced */
    struct journal journal;
    struct partition_conf conf;
    struct secondary_def defs[8];
    struct partition *p;
    struct kvs_task *posted, **posted_tail;
    void *btree_self, *hash_self, *lz4_self;
    const struct kvs_plugin *btree, *hash, *lz4;
    int snapshot_done, snapshot_rc, closed;
};

enum world_flags { WORLD_HASH = 1, WORLD_LZ4 = 2 };

/* Indexes: 1 "tag" explicit string, 2 "size" explicit number, 3 "color" string at /color,
 * 4 "n" number at /stats/n. index_count: how many of them exist. */
void world_open(struct world *w, uint64_t seed, uint32_t flags, uint32_t index_count);
/* Completes what is under way, closes the partition and frees all; the mock looks for leaks. */
void world_close(struct world *w);
int world_start(struct world *w); /* partition_new; world_open has done it once */
/* Close and free the partition only. */
void world_stop(struct world *w);

uint64_t world_now(const struct world *w);
/* End of the loop's round: open batches are sealed. */
void world_round(struct world *w);
/* The round ends and all appends become durable. */
void world_settle(struct world *w);
/* Run the oldest posted task; 0: there is none. */
int world_post_one(struct world *w);
/* A whole snapshot, start to end; its rc. */
int world_snapshot(struct world *w);
/* Recover another partition of this journal. */
int world_recover(struct world *w, struct partition **ret_p, struct kvs_error *err);

/* Does such a recovery give the same as the partition's committed state? */
int world_recovers(struct world *w);
struct partition_stats world_stats(const struct partition *p);

/* One write of one or more operations; `fired` counts callbacks. */
struct request {
    struct write_batch wb;
    struct kvs_arena arena;
    int fired, rc;
};

/* Submit; the request and its operations must live until it fired. */
int world_submit(struct world *w, struct request *r, struct write_op *ops, uint32_t count,
                 uint32_t atomic, uint32_t acks);
void request_fini(struct request *r);

struct write_op op_put(const char *key, const char *value);
struct write_op op_of(uint32_t kind, const char *key);
/* One operation, durable when it returns; the operation as it came out. */
struct write_op world_do(struct world *w, struct write_op op);
/* Is the key there with this value? NULL: it must be absent. */
int world_has(struct world *w, const char *key, uint32_t read, const char *value);
/* Keys found by a walk of a secondary index, joined by spaces, into buf of 512. */
const char *world_keys(struct partition *p, uint32_t secondary, uint32_t descending, uint32_t read,
                       char buf[512]);

#endif
