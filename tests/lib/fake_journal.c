/* SPDX-License-Identifier: MIT
 *
 * See fake_journal.h. Memory comes from malloc: faults of the fake host do not reach it. */
#include "fake_journal.h"

#include <stdio.h>
#include <stdlib.h>

static void broken(const char *what)
{
    (void)fprintf(stderr, "fake journal: %s\n", what);
    abort();
}

static struct journal_bytes bytes_copy(struct kvs_slice s)
{
    struct journal_bytes b = {malloc(s.len + 1), s.len};

    if (b.ptr == NULL) {
        broken("out of memory");
    }
    memcpy(b.ptr, s.ptr, s.len);
    return b;
}

static void bytes_push(struct journal_bytes **list, uint32_t *count, struct kvs_slice s)
{
    struct journal_bytes *grown = realloc(*list, (*count + 1) * sizeof *grown);

    if (grown == NULL) {
        broken("out of memory");
    }
    *list = grown;
    grown[(*count)++] = bytes_copy(s);
}

static void blocks_free(struct journal_blocks *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        free(b->blocks[i].ptr);
    }
    free(b->blocks);
    memset(b, 0, sizeof *b);
}

void journal_fini(struct journal *j)
{
    for (uint32_t i = 0; i < j->batch_count; i++) {
        free(j->batches[i].ptr);
    }
    free(j->batches);
    blocks_free(&j->writing);
    blocks_free(&j->kept);
    memset(j, 0, sizeof *j);
}

/* ---- appends -----------------------------------------------------------------------------------
 */

static int journal_append(void *self, struct kvs_append *append)
{
    struct journal *j = self;
    struct kvs_batch_header h;
    struct kvs_slice payload;

    if (j->refuse != 0) {
        return j->refuse;
    }
    if (kvs_batch_open(append->batch, &h, &payload, NULL) != 0 || h.stream != append->stream ||
        h.base_offset != append->base_offset || h.count != append->count ||
        h.total_size != append->batch.len) {
        broken("an append contradicts its batch");
    }
    if (j->flight_count == JOURNAL_FLIGHT_MAX) {
        broken("too many appends under way");
    }
    j->flight[j->flight_count++] = append;
    j->append_count++;
    return 0;
}

static struct kvs_append *flight_take(struct journal *j)
{
    struct kvs_append *append = j->flight[0];

    j->flight_count--;
    memmove(&j->flight[0], &j->flight[1], j->flight_count * sizeof(struct kvs_append *));
    return append;
}

int journal_complete(struct journal *j)
{
    struct kvs_append *append;

    if (j->flight_count == 0) {
        return 0;
    }
    append = flight_take(j);
    if (append->base_offset != j->next_offset) {
        broken("batches do not follow one another");
    }
    bytes_push(&j->batches, &j->batch_count, append->batch);
    j->next_offset += append->count;
    append->cb(append, 0);
    return 1;
}

void journal_fail(struct journal *j, int code)
{
    uint32_t n = j->flight_count; /* not those appended by the callbacks */

    while (n-- > 0) {
        struct kvs_append *append = flight_take(j);

        append->cb(append, code);
    }
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

static int journal_snapshot_begin(void *self, const struct kvs_snapshot_info *info,
                                  const char *codec, struct kvs_snapshot **ret_snapshot,
                                  struct kvs_error *err)
{
    struct journal *j = self;

    (void)codec;
    if (j->is_writing) {
        return kvs_err(err, KVS_EBUSY, "a snapshot is being written");
    }
    if (info->offset > j->next_offset) {
        broken("a snapshot of what is not durable");
    }
    j->is_writing = 1;
    j->writing.info = *info;
    *ret_snapshot = (struct kvs_snapshot *)(void *)j; /* opaque to the caller */
    return 0;
}

static void step_push(struct journal *j, struct kvs_snapshot_step *step, uint32_t commit)
{
    if (!j->is_writing || j->step_count == 2 || (commit && j->step_count != 0) || j->step_commit) {
        broken("a snapshot step out of order");
    }
    j->steps[j->step_count++] = step;
    j->step_commit = commit;
}

static void journal_snapshot_block(void *self, struct kvs_snapshot *snapshot,
                                   struct kvs_snapshot_step *step)
{
    (void)snapshot;
    if (step->block.len == 0 || step->block.len > KVS_SNAPSHOT_BLOCK_MAX) {
        broken("a snapshot block is empty or larger than KVS_SNAPSHOT_BLOCK_MAX");
    }
    step_push(self, step, 0);
}

static void journal_snapshot_commit(void *self, struct kvs_snapshot *snapshot,
                                    struct kvs_snapshot_step *step)
{
    (void)snapshot;
    step_push(self, step, 1);
}

static void journal_snapshot_abort(void *self, struct kvs_snapshot *snapshot)
{
    struct journal *j = self;

    (void)snapshot;
    if (!j->is_writing || j->step_count != 0) {
        broken("a snapshot abort out of order");
    }
    blocks_free(&j->writing);
    j->is_writing = 0;
}

int journal_step(struct journal *j)
{
    struct kvs_snapshot_step *step = j->steps[0];
    int rc = j->fail_snapshot;

    if (j->step_count == 0) {
        return 0;
    }
    j->steps[0] = j->steps[1];
    j->step_count--;
    if (rc == 0 && j->step_commit) {
        blocks_free(&j->kept);
        j->kept = j->writing;
        memset(&j->writing, 0, sizeof j->writing);
        j->has_kept = 1;
        j->is_writing = 0;
    } else if (rc == 0) {
        bytes_push(&j->writing.blocks, &j->writing.count, step->block);
    }
    j->step_commit = 0;
    step->cb(step, rc);
    return 1;
}

/* ---- recovery ----------------------------------------------------------------------------------
 */

static int replay_snapshot(const struct journal *j, const struct kvs_recover_ops *ops, void *arg,
                           struct kvs_error *err)
{
    const struct journal_blocks *k = &j->kept;
    int rc = ops->snapshot_begin(arg, &k->info, err);

    for (uint32_t i = 0; i < k->count && rc == 0; i++) {
        struct journal_bytes exact = bytes_copy(kvs_slice(k->blocks[i].ptr, k->blocks[i].len));

        rc = ops->snapshot_block(arg, k->info.stream, kvs_slice(exact.ptr, exact.len), err);
        free(exact.ptr); /* whoever keeps a pointer into it is found out */
    }
    return rc != 0 ? rc : ops->snapshot_end(arg, k->info.stream, err);
}

int journal_replay(const struct journal *j, const struct kvs_recover_ops *ops, void *arg,
                   struct kvs_error *err)
{
    uint64_t from = j->has_kept ? j->kept.info.offset : 0;
    int rc = j->has_kept ? replay_snapshot(j, ops, arg, err) : 0;

    for (uint32_t i = 0; i < j->batch_count && rc == 0; i++) {
        struct journal_bytes exact = bytes_copy(kvs_slice(j->batches[i].ptr, j->batches[i].len));
        struct kvs_batch_header h;
        struct kvs_slice payload;

        rc = kvs_batch_open(kvs_slice(exact.ptr, exact.len), &h, &payload, err);
        if (rc == 0 && h.base_offset + h.count > from) {
            rc = ops->batch(arg, &h, payload, err);
        }
        free(exact.ptr);
    }
    return rc;
}

const struct kvs_persistence_ops journal_ops = {
    .size = sizeof journal_ops,
    .append = journal_append,
    .snapshot_begin = journal_snapshot_begin,
    .snapshot_block = journal_snapshot_block,
    .snapshot_commit = journal_snapshot_commit,
    .snapshot_abort = journal_snapshot_abort,
};
