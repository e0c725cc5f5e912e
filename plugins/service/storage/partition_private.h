/* SPDX-License-Identifier: MIT
 *
 * What the files of the partition engine share; partition.h is the contract.
 *
 *   partition.c    life, reads, cursors, statistics
 *   write.c        operations: conditions, limits, apply, encode
 *   commit.c       batches on their way through the journal; commit and roll back
 *   secondary.c    secondary indexes
 *   idempotency.c  answers that are remembered
 *   snapshot.c     writing snapshots in slices;  replay.c  reading snapshots and batches back
 *
 * Offsets:  hw <= leo. Records below hw are committed, those from hw on are pending and have an
 * entry in the ring. An item is pending exactly if item->offset >= hw. */
#ifndef STORAGE_PARTITION_PRIVATE_H
#define STORAGE_PARTITION_PRIVATE_H

#include "item.h"
#include "record.h"

#define TYPE_MAX          64u         /* interned content types */
#define OPEN_BATCH_SIZE   (1u << 20)  /* bytes that close a batch before the round ends */
#define SPARE_BATCH_SIZE  (64u << 10) /* larger buffers are not kept */
#define COMPRESS_SIZE_MIN 1024u

extern const struct kvs_mem_tag storage_items, storage_index, storage_batches, storage_other;

/* One uncommitted record. */
struct pending {
    struct item *item;     /* the new version or tombstone; NULL: an answer */
    struct item *previous; /* what the index pointed at before, or NULL */
    struct answer *answer; /* remembered by this record, or NULL */
};

/* A batch being filled, or on its way through the journal. */
struct batch {
    struct kvs_append append; /* first */
    struct partition *p;
    struct batch *next; /* in partition.flight */
    struct kvs_buf buf; /* header room, then records */
    uint32_t undone;    /* its records were rolled back: what the journal says does not matter */
};

/* A remembered answer. */
struct answer {
    struct answer *newer, *older; /* by time */
    uint64_t hash, time_ms, offset;
    uint32_t key_len, results_len;
    char data[]; /* key, results */
};

/* An entry of a secondary index: one (value, primary key), counted once per version that has it. */
struct entry {
    uint32_t refs;
    uint16_t len;        /* of the composite key */
    uint16_t prefix_len; /* of the value's part */
    char key[];
};

enum build_state { BUILD_NONE = 0, BUILD_RUNNING = 1, BUILD_READY = 2 };

struct secondary {
    struct secondary_def def;
    struct kvs_index_map *map;
    enum build_state state;
    uint64_t build_start;     /* versions from this offset on were added when they were written */
    struct kvs_buf build_key; /* items up to this key were added by the build */
};

struct snapshot_run; /* snapshot.c */

struct partition {
    struct partition_conf conf;
    const struct kvs_host *host;
    struct kvs_index_map *index;
    struct kvs_index_map *expiry;  /* newest versions that expire, or NULL */
    struct kvs_index_map *answers; /* by idempotency key */
    struct answer *answer_oldest, *answer_newest;
    struct secondary *secondaries[KVS_INDEX_COUNT_MAX];
    uint32_t secondary_count, path_count; /* path_count: those that look into the value */

    uint64_t leo, hw;
    struct pending *ring; /* [ring_cap], at offset & (ring_cap - 1) */
    uint64_t ring_cap;

    struct batch *open, *spare, *flight; /* flight: given to the journal, newest first */
    struct kvs_task seal_task;
    uint32_t seal_armed, appends_under_way;
    struct write_batch *waiters, **waiters_tail; /* by last_offset */

    char *types[TYPE_MAX];
    uint32_t type_count;

    int32_t failed;
    uint32_t closing, expiry_dirty;
    void (*close_done)(void *arg);
    void *close_arg;
    struct snapshot_run *snapshot;
    uint64_t snapshot_offset, journaled_bytes;
    uint64_t recover_end; /* behind the newest record the snapshot holds */

    uint64_t item_count, key_bytes, value_bytes, tombstones, item_bytes;
    uint64_t answer_count;
    struct kvs_buf scratch; /* composite keys, explicit index keys */
};

/* ---- partition.c -------------------------------------------------------------------------------
 */

/* The version a reader of that level sees, or NULL; expired ones are filtered by the caller. */
struct item *version_visible(const struct partition *p, struct item *newest, uint32_t read);
void item_view_fill(const struct partition *p, const struct item *it, struct item_view *ret);
int item_expired(const struct item *it, uint64_t now_ms);
/* New version with interned type; NULL if memory is out. */
struct item *item_make(struct partition *p, const struct item_parts *parts);
/* Free a version that is in no index any more. */
void item_drop(struct partition *p, struct item *it);
void counters_add(struct partition *p, const struct item *it, int sign);
static inline struct pending *pending_at(const struct partition *p, uint64_t offset)
{
    return &p->ring[offset & (p->ring_cap - 1)];
}

/* ---- write.c -----------------------------------------------------------------------------------
 */

/* Put a version (or tombstone) into the index as the newest and note it in the ring at leo, which
 * advances. KVS_ENOMEM: nothing changed, the version still belongs to the caller. */
int version_apply(struct partition *p, struct item *fresh);
/* Room for n more pending records. */
int ring_reserve(struct partition *p, uint64_t n);

/* ---- commit.c ----------------------------------------------------------------------------------
 */

/* The batch that takes `bytes` more, opened if need be. NULL: out of memory. */
struct batch *batch_open(struct partition *p, uint64_t bytes);
/* Hand the open batch to the journal. */
void batch_seal(struct partition *p);
/* Forget records from `offset` on: versions leave the index. */
void roll_back(struct partition *p, uint64_t offset);
/* Commit up to `hw` and call the waiters below. */
void commit_to(struct partition *p, uint64_t hw);
void batches_free(struct partition *p);
void close_check(struct partition *p);

/* ---- secondary.c -------------------------------------------------------------------------------
 */

/* Add the entries of a version to every index; *ret_detail says what is wrong with its keys.
 * KVS_ENOMEM, KVS_EINVAL: nothing changed. */
int secondaries_add(struct partition *p, const struct item *it, const char **ret_detail);
void secondaries_remove(struct partition *p, const struct item *it);
/* Translate names and text to ids and encoded keys, appended to b. KVS_EINVAL with *ret_detail. */
int explicit_encode(struct partition *p, const struct index_value *values, uint32_t count,
                    struct kvs_buf *b, const char **ret_detail);
void secondaries_free(struct partition *p);
struct secondary *secondary_find(const struct partition *p, uint32_t id);
/* Calls fn for every secondary key of a version; stops at nonzero. */
int secondaries_each(struct partition *p, const struct item *it,
                     int (*fn)(void *arg, struct secondary *s, struct kvs_slice encoded),
                     void *arg);
/* Does this version have that key? */
int secondary_has(struct partition *p, const struct item *it, struct secondary *s,
                  struct kvs_slice prefix);

/* ---- idempotency.c -----------------------------------------------------------------------------
 */

int answers_init(struct partition *p);
struct answer *answer_find(struct partition *p, struct kvs_slice key);
/* Copy results into the batch's operations; 0, or KVS_EREUSED. */
int answer_give(const struct answer *a, struct write_batch *wb);
/* Remember; frees what is too old or too much. NULL: out of memory. */
struct answer *answer_add(struct partition *p, struct kvs_slice key, uint64_t hash,
                          uint64_t time_ms, uint64_t offset, struct kvs_slice results);
void answer_remove(struct partition *p, struct answer *a);
void answers_trim(struct partition *p, uint64_t now_ms);
void answers_free(struct partition *p);
void answer_results(struct kvs_buf *b, const struct write_batch *wb);

/* ---- snapshot.c --------------------------------------------------------------------------------
 */

/* A version is about to be freed: an unordered walk may still need it. 1: it was taken over. */
int snapshot_keeps(struct partition *p, struct item *it);

#endif
