/* SPDX-License-Identifier: MIT
 *
 * The partition engine: one partition of one table in memory, in front of the journal.
 *
 * A partition belongs to one loop; every function is called there (recovery excepted: it runs on
 * one pool thread before the partition is handed to its loop). It knows no request, no JSON, no
 * transport.
 *
 * Life of a write
 *   1. partition_write checks limits, conditions and the idempotency key against the newest version
 * of each item (uncommitted ones count: they come first in the log), assigns offsets, encodes
 * records (record.h) into the open batch, and puts the new version into the index as *uncommitted*.
 *   2. At the end of the loop's round (host->defer) the open batch is sealed and appended to the
 * journal: all writes of one round to one partition are one batch.
 *   3. The append's callback advances LEO's durable mark; the high watermark follows (here: as soon
 * as it is durable; with followers: R1). Versions below it become committed, superseded ones are
 * freed, callbacks of the writes fire. On KVS_ENOSPC the uncommitted tail is rolled back: versions
 * leave the index, offsets are reused.
 *
 * Versions. The index points at the newest version of a key. A version that is not committed yet
 * keeps its predecessor (also "there was none") in the pending ring, which is indexed by offset: so
 * committed reads, uncommitted reads and rolling back are one structure, and a committed item
 * carries no pointer for it. A delete is a tombstone version until committed.
 *
 * Memory. An item is one allocation: a header of about 20 bytes, key, optional partition key,
 * content type (interned per partition), expiry and value. Goal: at most 60 bytes per item beyond
 * key and value with the ordered index.
 *
 * Expiry (R16). expires_at_ms is absolute and in the record. Reads filter by it; partition_expire
 * writes delete records for what is past; so followers, indexes and snapshots agree. */
#ifndef KVS_STORAGE_PARTITION_H
#define KVS_STORAGE_PARTITION_H

#include "kvs/batch.h"
#include "kvs/compression.h"
#include "kvs/index.h"
#include "kvs/persistence.h"
#include "kvs/support.h"

struct partition;

/* Version of an item, its ETag: "<epoch>-<offset>". */
struct version {
    uint32_t epoch;
    uint64_t offset;
};

enum secondary_type { SECONDARY_STRING = 1, SECONDARY_NUMBER = 2 };

/* One secondary index of a table. Values come with the item (path empty) or out of its JSON value.
 */
struct secondary_def {
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    uint32_t type;  /* enum secondary_type */
    uint32_t id;    /* unique in the table, never reused */
    char path[256]; /* JSON Pointer (RFC 6901), "" for explicit keys */
};

struct table_limits {
    uint64_t max_value_bytes;
    uint64_t max_items; /* of one partition; 0: none */
    uint64_t max_bytes; /* keys and values of one partition; 0: none */
};

/* What a partition needs to live. Copied by partition_new, pointers are borrowed for its life. */
struct partition_conf {
    const struct kvs_host *host;
    uint64_t stream;
    uint32_t leader_epoch;
    const struct kvs_persistence_ops *persistence;
    void *persistence_self;
    const struct kvs_index_ops *index; /* primary */
    void *index_self;
    const struct kvs_index_ops *ordered; /* for secondaries and expiry; NULL: none can be defined */
    void *ordered_self;
    const struct kvs_compression_ops *codec; /* of batches and snapshots; NULL: none */
    void *codec_self;
    const char *codec_name; /* "lz4" or "none" */
    /* Any loaded codec, for batches written under another setting; NULL: none. */
    const struct kvs_compression_ops *(*codec_by_id)(const struct kvs_host *host, uint32_t id,
                                                     void **ret_self);
    struct table_limits limits;
    uint64_t idempotency_window_ms;          /* 600000 */
    uint64_t idempotency_count_max;          /* 100000 */
    const struct secondary_def *secondaries; /* [secondary_count] */
    uint32_t secondary_count;
};

int partition_new(const struct partition_conf *conf, struct partition **ret_p,
                  struct kvs_error *err);
/* Frees everything; no append may be under way (see partition_close). Accepts NULL. */
void partition_free(struct partition *p);

/* ---- writes
 * -------------------------------------------------------------------------------------- */

enum write_kind { WRITE_PUT = 1, WRITE_DELETE = 2, WRITE_TOUCH = 3, WRITE_GET = 4 };

/* What became of one operation; the service turns it into a status. */
enum write_result {
    WRITE_NONE = 0,
    WRITE_CREATED,
    WRITE_REPLACED,
    WRITE_DELETED,
    WRITE_TOUCHED,
    WRITE_GOT, /* GET inside a batch: `got` is filled */
    WRITE_NOT_FOUND,
    WRITE_PRECONDITION, /* If-Match or create-only did not hold; `version` is the present one */
    WRITE_TOO_LARGE,    /* value over the table's limit */
    WRITE_LIMIT,        /* the partition is at max_items or max_bytes */
    WRITE_BAD_INDEX,    /* unknown index, wrong type, too many or too long keys: see `detail` */
    WRITE_NO_MEMORY,
    WRITE_CONFLICT, /* another operation of an atomic batch failed */
};

struct index_value { /* explicit secondary key */
    struct kvs_slice name;
    struct kvs_slice value; /* text; for number indexes a decimal number */
};

struct item_view { /* borrowed; valid until control returns to the loop */
    struct kvs_slice key;
    struct kvs_slice partition_key; /* equals key unless one was given */
    struct kvs_slice value;
    struct kvs_slice content_type; /* empty if none */
    struct version version;
    uint64_t expires_at_ms; /* 0: never */
    const void *item;
};

struct write_op {
    uint32_t kind; /* enum write_kind */
    uint32_t if_absent;
    uint32_t if_match; /* compare with if_version */
    uint32_t result;   /* enum write_result, out */
    struct version if_version;
    struct version version; /* out: of the record, or the present one on WRITE_PRECONDITION */
    struct kvs_slice key, partition_key; /* partition_key.ptr NULL: the key */
    struct kvs_slice value;
    struct kvs_slice content_type;
    uint64_t expires_at_ms;            /* PUT, TOUCH */
    const struct index_value *indexes; /* [index_count] */
    uint32_t index_count;
    uint32_t if_present;  /* any version */
    struct item_view got; /* WRITE_GET; copied into `arena` of the batch, so valid at cb */
    const char *detail;   /* static or in the arena: what is wrong, for WRITE_BAD_INDEX */
};

struct kvs_arena;

/* A write of one or more operations; the caller owns it and all it points to until cb. */
struct write_batch {
    struct write_op *ops; /* [count] */
    uint32_t count;
    uint32_t atomic;   /* all or nothing */
    uint32_t acks;     /* 0 none: cb at once; 1 leader, 2 all: cb when durable / committed */
    uint32_t replayed; /* out: 1 if the idempotency key was known and the stored answer is given */
    struct kvs_slice idempotency_key; /* ptr NULL: none */
    uint64_t
        idempotency_hash; /* of the whole request; another hash under the same key: KVS_EREUSED */
    struct kvs_arena *arena;  /* for `got` and `detail` */
    struct write_batch *next; /* the partition's */
    uint64_t last_offset;     /* the partition's */
    void (*cb)(struct write_batch *wb, int rc);
};

/* Returns 0: cb fires once, on this loop, maybe inside this call when nothing had to be journaled.
 * Results of the ops are final when cb fires with rc 0. rc / immediate codes: KVS_EREUSED;
 * KVS_ENOSPC and KVS_EFAILED (not applied); KVS_ENOMEM; KVS_ECANCELED (closing; outcome unknown).
 */
int partition_write(struct partition *p, struct write_batch *wb);

/* ---- reads
 * --------------------------------------------------------------------------------------- */

#define READ_COMMITTED   0u
#define READ_UNCOMMITTED 1u

/* 1 and *ret_item, or 0: not found. now_ms filters what has expired. */
int partition_get(struct partition *p, struct kvs_slice key, uint32_t read, uint64_t now_ms,
                  struct item_view *ret_item);

/* Walks visible items in key order (or in the order of a secondary index). Valid until control
 * returns to the loop. */
struct partition_cursor {
    struct partition *p;
    struct kvs_index_cursor at;
    uint32_t read, secondary, descending, valid;
    uint64_t now_ms;
    struct item_view item;          /* at the position, when valid */
    struct kvs_slice secondary_key; /* the value's part of the composite key, when secondary */
};

/* Primary. after: 0 seek >= key, 1 seek > key. The primary index must be ordered. */
void partition_seek(struct partition *p, struct kvs_slice key, uint32_t after, uint32_t read,
                    uint64_t now_ms, struct partition_cursor *ret_c);
/* Secondary by position: the value's part of a composite key (partition_position), with the primary
 * key behind it or without; which need not exist. after 1: strictly behind it in the direction of
 * the walk. An empty position starts at the end the direction begins with. */
void partition_seek_secondary(struct partition *p, uint32_t secondary_id, struct kvs_slice position,
                              uint32_t after, uint32_t descending, uint32_t read, uint64_t now_ms,
                              struct partition_cursor *ret_c);
/* Append the value's part of a composite key: what `secondary_key` of a cursor holds. */
void partition_position(struct kvs_buf *b, uint32_t type, struct kvs_slice encoded);
void partition_next(struct partition_cursor *c);

/* Order-preserving bytes of an index value: a string as it is, a number so that memcmp orders
 * numbers. buf of KVS_INDEX_KEY_SIZE_MAX. KVS_EINVAL: not a number, too long. */
int secondary_encode(uint32_t type, struct kvs_slice text, char *buf, size_t *ret_len);

/* The secondary keys of an item, for the list's `indexes` member: calls fn(arg, name, type,
 * encoded). */
void partition_item_indexes(struct partition *p, const struct item_view *item,
                            void (*fn)(void *arg, const struct secondary_def *def,
                                       struct kvs_slice encoded),
                            void *arg);
/* Text of an encoded value: the string, or the shortest decimal of the number. buf of 512. */
struct kvs_slice secondary_decode(uint32_t type, struct kvs_slice encoded, char *buf);

/* ---- upkeep
 * -------------------------------------------------------------------------------------- */

/* Write delete records for at most `max` items past now_ms; returns how many. */
uint32_t partition_expire(struct partition *p, uint64_t now_ms, uint32_t max);
/* Earliest deadline, 0 if none. */
uint64_t partition_next_expiry(struct partition *p);

/* Secondary indexes of a table changed. New ones are built online: partition_build_step indexes up
 * to `max` items per call and returns 1 while there is more. Until built a query answers
 * KVS_ESTATE. */
int partition_secondaries_set(struct partition *p, const struct secondary_def *defs, uint32_t count,
                              struct kvs_error *err);
int partition_build_step(struct partition *p, uint32_t max);
/* 0 unknown, 1 building, 2 ready. */
uint32_t partition_secondary_state(struct partition *p, uint32_t secondary_id);
/* A new leader epoch: what is written from now on carries it. */
void partition_epoch_set(struct partition *p, uint32_t leader_epoch);
void partition_limits_set(struct partition *p, const struct table_limits *limits);

/* Snapshot, fuzzy, sliced: begin, then step until it returns 0 (done) or a negative code. Each step
 * walks about `slice_items` items and hands blocks to the persistence plugin; call the next step
 * from a later round. done(arg, rc) fires when the snapshot is committed or has failed. */
int partition_snapshot_begin(struct partition *p, uint32_t slice_items,
                             void (*done)(void *arg, int rc), void *arg);
uint64_t partition_snapshot_offset(const struct partition *p); /* of the newest whole one */

/* Refuse writes from now on; done(arg) when no append and no snapshot is under way. */
void partition_close(struct partition *p, void (*done)(void *arg), void *arg);

struct partition_stats {
    uint64_t item_count, key_bytes, value_bytes, memory_bytes;
    uint64_t leo, hw, log_start;
    uint64_t tombstones, expiring, idempotency_keys;
    uint64_t journaled_bytes; /* since the newest snapshot */
    int32_t failed;
    uint32_t leader_epoch;
};
void partition_stats(const struct partition *p, struct partition_stats *ret);
/* Order-independent digest of all visible items with versions (XXH3-64): replicas and recoveries
 * agree. */
uint64_t partition_digest(struct partition *p);
/* Recompute every secondary index from the items; 0 if they agree, else the number of differences.
 * Tests and `check` use it (invariant 7). */
uint64_t partition_verify(struct partition *p);

/* ---- recovery (one pool thread, before any loop sees the partition)
 * ------------------------------- */

int partition_recover_begin(struct partition *p, const struct kvs_snapshot_info *info,
                            struct kvs_error *err);
int partition_recover_block(struct partition *p, struct kvs_slice raw, struct kvs_error *err);
int partition_recover_end(struct partition *p, struct kvs_error *err);
int partition_recover_batch(struct partition *p, const struct kvs_batch_header *h,
                            struct kvs_slice payload, struct kvs_error *err);
/* All has been given. A snapshot is fuzzy: what it holds beyond its offset must have come again.
 * KVS_ECORRUPT if it has not; then, as after any failed step, the partition can only be freed. */
int partition_recover_finish(struct partition *p, struct kvs_error *err);

#endif
