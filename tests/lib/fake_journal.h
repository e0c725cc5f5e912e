/* SPDX-License-Identifier: MIT
 *
 * A persistence plugin made of arrays, for tests of what lies above: appends and snapshot steps
 * wait until the test lets them happen, fail on demand, and what became durable can be replayed.
 *
 * It holds the caller to the contract of kvs/persistence.h: batches must be sealed and follow one
 * another, two snapshot blocks are under way at most, no block is larger than allowed. */
#ifndef KVS_TESTS_FAKE_JOURNAL_H
#define KVS_TESTS_FAKE_JOURNAL_H

#include "kvs/persistence.h"

#define JOURNAL_FLIGHT_MAX 4096u

struct journal_bytes {
    char *ptr;
    size_t len;
};

struct journal_blocks {
    struct kvs_snapshot_info info;
    struct journal_bytes *blocks; /* [count] */
    uint32_t count;
};

struct journal {
    struct kvs_append *flight[JOURNAL_FLIGHT_MAX]; /* [flight_count], oldest first */
    uint32_t flight_count;
    struct journal_bytes *batches; /* [batch_count]: durable, in order */
    uint32_t batch_count, append_count;
    uint64_t next_offset; /* of the next durable record */
    int refuse;           /* code append() refuses with at once; 0: accepts */
    int fail_snapshot;    /* code the next snapshot steps end with */

    struct journal_blocks writing, kept; /* kept: what recovery finds */
    int is_writing, has_kept;
    struct kvs_snapshot_step *steps[2]; /* [step_count] under way */
    uint32_t step_count, step_commit;   /* step_commit: the step under way is the commit */
};

extern const struct kvs_persistence_ops journal_ops; /* self: struct journal */

void journal_fini(struct journal *j);
/* The oldest append becomes durable. 0: none is under way. */
int journal_complete(struct journal *j);
/* All appends under way fail; callbacks in order. */
void journal_fail(struct journal *j, int code);
/* The oldest snapshot step happens (or fails with fail_snapshot). 0: none is under way. */
int journal_step(struct journal *j);
/* Give the snapshot and the batches behind it to the callbacks, as recover() of a plugin does. */
int journal_replay(const struct journal *j, const struct kvs_recover_ops *ops, void *arg,
                   struct kvs_error *err);

#endif
