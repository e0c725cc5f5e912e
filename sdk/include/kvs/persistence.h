/* SPDX-License-Identifier: MIT
 *
 * Kind `persistence`: a durable journal shared by many streams, and their snapshots.
 *
 * Happy path
 *   1. The service calls recover() once, from a pool thread. For each stream it gets the newest
 * whole snapshot, then every batch after it, in the order of the journal.
 *   2. It appends batches (batch.h) from its loops. An append's callback means: durable, as `sync`
 * says.
 *   3. From time to time it writes a snapshot of a stream that covers everything below an offset;
 * the plugin then deletes journal segments that no stream needs any more.
 *
 * Order. Appends of one loop become durable in the order they were made, and their callbacks fire
 * in that order. Nothing is promised between loops.
 *
 * Failure modes
 *   KVS_ENOSPC  the disk is full. The append and all later ones of that loop, up to those made
 * before the failing callback ran, fail with it: the service rolls its tail back and goes on. Later
 * appends are tried anew, so writes resume when there is space again. KVS_EFAILED a write or fsync
 * failed. Final until restart: every append is refused; reads of memory go on. The plugin never
 * retries an fsync (fsyncgate). KVS_ECORRUPT at recovery: damage that is not a torn tail. err names
 * file and byte offset; nothing from there on is served.
 *
 * Instances of this kind keep everything below `host->fs`. */
#ifndef KVS_PERSISTENCE_H
#define KVS_PERSISTENCE_H

#include "kvs/batch.h"
#include "kvs/plugin.h"

#define KVS_PERSISTENCE_CAP_DURABLE 1u /* survives the process */

/* One append. The caller owns it and the batch bytes until cb. */
struct kvs_append {
    struct kvs_task task;   /* the plugin's until cb */
    struct kvs_slice batch; /* one sealed batch; borrowed until cb; not copied */
    uint64_t stream;        /* as in the batch header */
    uint64_t base_offset;   /* as in the batch header */
    uint32_t count;         /* as in the batch header */
    int32_t rc;             /* the plugin's scratch: result on its way to cb */
    uint32_t loop;          /* the plugin's: where cb runs */
    uint32_t reserved;
    void (*cb)(struct kvs_append *append,
               int rc); /* on the loop that appended, never inside append() */
};

/* What a snapshot is about. `offset`: it holds the effect of every record below; recovery replays
 * records from there on. `meta`: the service's own bytes (<= 64 KiB), given back at recovery. */
struct kvs_snapshot_info {
    uint64_t stream;
    uint64_t offset;
    uint64_t item_count;
    uint32_t leader_epoch;
    uint32_t reserved;
    struct kvs_slice meta;
};

/* One step of a snapshot being written; the caller owns it until cb. */
struct kvs_snapshot_step {
    struct kvs_task task;   /* the plugin's until cb */
    struct kvs_slice block; /* raw bytes, 1..KVS_SNAPSHOT_BLOCK_MAX; borrowed until cb */
    int32_t rc;
    uint32_t loop;
    void *plugin_data;
    void (*cb)(struct kvs_snapshot_step *step, int rc); /* on the calling loop */
};

#define KVS_SNAPSHOT_BLOCK_MAX (32u << 20) /* holds the largest item, with room to spare */
#define KVS_SNAPSHOT_META_MAX  (64u << 10)

struct kvs_snapshot; /* the plugin's: one snapshot being written */

/* Recovery callbacks, in this order per stream: snapshot_begin, snapshot_block.., snapshot_end,
 * batch.. (streams without a snapshot: only batch). All on the thread that called recover. A
 * nonzero return stops recovery with that code. */
struct kvs_recover_ops {
    int (*snapshot_begin)(void *arg, const struct kvs_snapshot_info *info, struct kvs_error *err);
    int (*snapshot_block)(void *arg, uint64_t stream, struct kvs_slice raw, struct kvs_error *err);
    int (*snapshot_end)(void *arg, uint64_t stream, struct kvs_error *err);
    /* A verified batch at or after the stream's snapshot offset; payload still compressed. */
    int (*batch)(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                 struct kvs_error *err);
    /* Bytes read of those to read; for progress in logs and /readyz. May be NULL. */
    void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
};

struct kvs_recover_report {
    uint64_t snapshot_count, batch_count, record_count, byte_count;
    uint64_t torn_bytes;     /* cut from the tail */
    uint32_t clean_shutdown; /* the marker of the last stop was there */
    uint32_t reserved;
};

struct kvs_persistence_status {
    uint64_t journal_bytes, journal_segments;
    uint64_t snapshot_bytes, snapshot_count;
    uint64_t appended_bytes, synced_batches, sync_count;
    int32_t failed;      /* 0, or the code that stopped the journal */
    int32_t last_append; /* rc of the newest finished append: KVS_ENOSPC while the disk is full */
    uint64_t snapshot_interval_ms; /* how often the operator wants snapshots; 0: no opinion */
};

struct kvs_persistence_ops {
    uint32_t size;
    uint32_t reserved;
    /* Blocking; once, on a pool thread, before anything else but blobs. KVS_ECORRUPT, KVS_EIO,
     * KVS_EFORMAT (a newer format: err says which), KVS_ENOMEM, and codes of the callbacks. */
    int (*recover)(void *self, const struct kvs_recover_ops *ops, void *arg,
                   struct kvs_recover_report *ret_report, struct kvs_error *err);
    /* On a loop. Returns 0 (cb will fire) or refuses at once: KVS_EFAILED, KVS_ESTATE (not
     * recovered or stopping), KVS_ETOOBIG. */
    int (*append)(void *self, struct kvs_append *append);
    /* Snapshots: begin, then blocks one after another (the next after the former's cb; at most two
     * under way), then commit or abort. codec: name of a compression plugin or "none". One snapshot
     * per stream at a time: KVS_EBUSY. After commit's cb with rc 0 it is the one recovery uses; the
     * former is deleted. A failed step (KVS_ENOSPC, KVS_EIO) leaves only abort. */
    int (*snapshot_begin)(void *self, const struct kvs_snapshot_info *info, const char *codec,
                          struct kvs_snapshot **ret_snapshot, struct kvs_error *err);
    void (*snapshot_block)(void *self, struct kvs_snapshot *snapshot,
                           struct kvs_snapshot_step *step);
    void (*snapshot_commit)(void *self, struct kvs_snapshot *snapshot,
                            struct kvs_snapshot_step *step);
    void (*snapshot_abort)(void *self, struct kvs_snapshot *snapshot);
    /* Forget a stream: its snapshot goes, its batches are skipped by every later recovery. The
     * table id is never used again. cb when that is durable. */
    int (*stream_drop)(void *self, uint64_t stream, struct kvs_snapshot_step *step);
    /* Small named blobs ([a-z0-9_.-]{1,64}, <= 64 KiB), replaced atomically and durably. Blocking:
     * main or pool thread. blob_get: *ret_len 0 and 0 if there is none; KVS_ETOOBIG if buf is too
     * small. */
    int (*blob_put)(void *self, const char *name, struct kvs_slice bytes, struct kvs_error *err);
    int (*blob_get)(void *self, const char *name, void *buf, size_t buf_size, size_t *ret_len,
                    struct kvs_error *err);
    void (*status)(void *self, struct kvs_persistence_status *ret_status); /* any thread */
    /* --- end of 1.0 --- */
};

#endif
