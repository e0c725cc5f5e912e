/* SPDX-License-Identifier: MIT
 *
 * What the files of persistence-wal share. Read in this order:
 *
 *   README.md         formats, meaning of `sync`, failure modes
 *   wal.c             options, lifecycle, append and completion on the loops
 *   writer.c          group commit on the journal thread
 *   segment.c         segment files: made, rolled, recycled, forgotten
 *   recover.c         reading the journal back
 *   snapshot.c        writing snapshots on their own thread; snapshot_read.c reading them
 *   drop.c            forgetting a stream
 *   blob.c            small named files
 *
 * Threads. Loops hand appends to the writer through `inbox` and get them back through `outbox`,
 * both under `lock`, once per round. Segments belong to the journal thread; the table of streams,
 * which the snapshot thread also looks at, is under `streams_lock`. Lock order: none is taken
 * inside another. */
#ifndef WAL_PRIVATE_H
#define WAL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kvs/compression.h"
#include "kvs/persistence.h"
#include "kvs/support.h"

enum wal_sync { WAL_SYNC_ALWAYS = 0, WAL_SYNC_INTERVAL = 1, WAL_SYNC_OS = 2 };

struct wal_conf {
    uint32_t sync;
    uint64_t sync_interval_ms;
    uint64_t segment_size;
    uint64_t snapshot_interval_ms;
};

/* ---- formats (all little-endian) ---------------------------------------------------------------
 */

#define SEGMENT_MAGIC  0x4753564bu /* "KVSG" */
#define SEGMENT_FORMAT 1u
#define SEGMENT_HEADER_SIZE                                                                        \
    512u /* and frames each fill whole sectors: a power cut while one is                           \
          */
#define FRAME_MAGIC       0x4d46564bu /* "KVFM" */
#define FRAME_HEADER_SIZE 40u
#define FRAME_ALIGN       512u       /* written garbles no other */
#define GROUP_SIZE_MAX    (8u << 20) /* bytes of one frame, unless one batch is larger */
#define GROUP_COUNT_MAX   1024u      /* batches of one frame */

struct frame {
    uint32_t size;    /* of the payload, 1.. */
    uint64_t salt;    /* of the segment's life */
    uint64_t number;  /* running through all segments */
    uint64_t durable; /* all frames below were durable when this one was written */
};

/* Bytes on disk of a frame with so much payload. */
static inline uint64_t frame_total(uint64_t size)
{
    return (FRAME_HEADER_SIZE + size + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

void frame_encode(uint8_t out[FRAME_HEADER_SIZE], const struct frame *f, uint32_t crc);
/* 1 if `head` can be the header of a frame of this segment; the checksum is not looked at. */
int frame_decode(const uint8_t *head, uint64_t salt, struct frame *ret_f, uint32_t *ret_crc);
/* Checksum of the header fields; the payload is added by the caller. */
uint32_t frame_crc(const uint8_t *head);

/* ---- lists of appends --------------------------------------------------------------------------
 */

/* Linked by the tasks inside the appends. */
struct append_list {
    struct kvs_task *head, **tail;
};

static inline void append_list_clear(struct append_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static inline void append_list_push(struct append_list *l, struct kvs_task *task)
{
    task->next = NULL;
    *l->tail = task;
    l->tail = &task->next;
}

/* Move all of `from` behind `l`. */
static inline void append_list_join(struct append_list *l, struct append_list *from)
{
    if (from->head != NULL) {
        *l->tail = from->head;
        l->tail = from->tail;
        append_list_clear(from);
    }
}

static inline struct kvs_task *append_list_pop(struct append_list *l)
{
    struct kvs_task *task = l->head;

    l->head = task->next;
    if (l->head == NULL) {
        l->tail = &l->head;
    }
    return task;
}

static inline struct kvs_append *append_of(struct kvs_task *task)
{
    return KVS_CONTAINER_OF(task, struct kvs_append, task);
}

/* ---- streams -----------------------------------------------------------------------------------
 */

/* Open-addressed map from stream to offset. Value 0 means absent. */
struct stream_map {
    uint64_t (*slots)[2]; /* stream + 1, value */
    uint64_t cap, count;
};

struct wal;

/* A stream that was dropped: no segment beyond `seq` holds a batch of it. */
struct dropped {
    uint64_t stream, seq;
    uint32_t snapshot_gone; /* durably */
};

/* Its snapshot offset: beyond every batch. */
#define STREAM_DROPPED UINT64_MAX

/* Set, or only ever raise, the value of a stream. KVS_ENOMEM. */
int stream_map_set(struct wal *w, struct stream_map *m, uint64_t stream, uint64_t value);
int stream_map_raise(struct wal *w, struct stream_map *m, uint64_t stream, uint64_t value);
uint64_t stream_map_get(const struct stream_map *m, uint64_t stream);
void stream_map_free(struct wal *w, struct stream_map *m);

/* ---- segments ----------------------------------------------------------------------------------
 */

struct segment {
    struct segment *next; /* newer */
    uint64_t seq, salt, first_number, size;
    uint64_t end;              /* where the next frame goes, or where frames end */
    uint64_t made_size;        /* recovery: what the header says */
    struct stream_map streams; /* end offset of each stream within */
    uint32_t keep;             /* the map is incomplete (memory ran out): never forget it */
};

struct loop_state {
    struct wal *wal;
    struct kvs_task flush;     /* deferred: hands `mine` over */
    struct kvs_task completed; /* posted: runs callbacks */
    struct append_list mine;   /* this round's; the loop's own */
    struct append_list outbox; /* guarded by: lock */
    uint32_t posted;           /* guarded by: lock */
    uint32_t failing;          /* guarded by: lock; fail what comes until seen */
    uint32_t flush_armed;
};

#define WAL_LOOP_MAX 64u

struct wal {
    const struct kvs_host *host;
    const struct wal_conf *conf;
    struct kvs_queue *journal, *pool;
    _Atomic int32_t failed; /* 0 or the code that ended writing */
    _Atomic int32_t last_append;
    _Atomic uint32_t open; /* recovered and not stopping */

    pthread_mutex_t lock;
    struct append_list inbox; /* guarded by: lock */
    uint32_t writing;         /* guarded by: lock; the work is submitted */
    struct loop_state loops[WAL_LOOP_MAX];
    struct kvs_work work;      /* the writer */
    struct kvs_work sync_work; /* sync: interval */
    struct kvs_work trim_work; /* after a snapshot: forget segments */
    struct kvs_work mark_work; /* drops: which segments may hold the stream */
    struct kvs_work drop_work; /* drops: the rest */
    _Atomic uint32_t sync_busy, trim_busy;
    struct kvs_timer *sync_timer;

    /* The journal thread's (recovery and stop run when it has nothing to do). */
    struct segment *segments, *current; /* oldest .. newest */
    struct kvs_file *file;              /* of `current` */
    uint64_t next_number, durable_number, next_seq;
    uint32_t dirty;           /* written, not synced */
    uint32_t cut;             /* the newest segment was recovered: its file may be shortened */
    uint32_t erase;           /* a frame that failed lies at the end of `current` */
    uint32_t recyclable;      /* free files journal/free-<n> */
    struct kvs_slice *slices; /* [GROUP_COUNT_MAX + 2] */

    pthread_mutex_t streams_lock;
    struct stream_map snapshots;   /* guarded by: streams_lock; offset covered, or STREAM_DROPPED */
    struct stream_map sizes;       /* guarded by: streams_lock; bytes of the snapshot */
    struct kvs_snapshot *active;   /* guarded by: streams_lock */
    struct drop *asked, *marked;   /* guarded by: streams_lock; drops by how far they are */
    uint32_t mark_busy, drop_busy; /* guarded by: streams_lock; the works are submitted */
    uint32_t stopping;             /* guarded by: streams_lock; no more work for the journal */
    /* The snapshot thread's, and recovery's. */
    struct dropped *dropped; /* [dropped_cap] */
    size_t dropped_count, dropped_cap;

    _Atomic uint64_t first_seq; /* of the segments there may be after a power cut */
    _Atomic uint64_t journal_bytes, journal_segments, snapshot_bytes, snapshot_count;
    _Atomic uint64_t appended_bytes, synced_batches, sync_count;
    struct kvs_metric_ref *sync_seconds, *write_bytes, *group_size, *segment_gauge;
};

extern const struct kvs_mem_tag wal_memory;

/* wal.c. 16 lower-case hex digits at `text`: 1 and their value. */
int hex16(const char *text, uint64_t *ret_v);
/* On a loop: hand what it appended to the journal thread. */
void loop_flush(struct loop_state *l);

/* writer.c: on the journal thread */
void writer_run(struct kvs_work *work);
void writer_sync_run(struct kvs_work *work);
/* Make what was written durable. A failure is final. */
int writer_sync(struct wal *w, struct kvs_error *err);
/* Write what the loops have handed over until now. */
void writer_flush(struct wal *w);
/* Take back a frame whose write failed, if there is one. */
int writer_erase(struct wal *w, struct kvs_error *err);

/* segment.c */
void segment_path(char out[64], uint64_t seq);
/* Begin a new current segment with room for a frame of frame_size bytes. KVS_ENOSPC, KVS_EIO. */
int segment_roll(struct wal *w, uint64_t frame_size, struct kvs_error *err);
/* Note that a batch of this stream, ending at offset `end`, is in the segment. */
void segment_note(struct wal *w, struct segment *s, uint64_t stream, uint64_t end);
/* Forget the oldest segments as far as no stream needs them. */
void segments_trim(struct wal *w);
void segments_free(struct wal *w);
/* Append to the list of segments. */
void segment_add(struct wal *w, struct segment *take_s);

/* recover.c */
struct recovery {
    struct wal *w;
    const struct kvs_recover_ops *ops;
    void *arg;
    struct kvs_recover_report *report;
    uint64_t total_bytes;
};

/* n bytes more were read. */
void recovery_progress(struct recovery *v, uint64_t n);
int wal_recover(void *self, const struct kvs_recover_ops *ops, void *arg,
                struct kvs_recover_report *ret_report, struct kvs_error *err);
/* The clean-shutdown marker: written at stop, consumed at start. */
int clean_write(struct wal *w, struct kvs_error *err);

/* snapshot.c */
int wal_snapshot_begin(void *self, const struct kvs_snapshot_info *info, const char *codec,
                       struct kvs_snapshot **ret_snapshot, struct kvs_error *err);
void wal_snapshot_block(void *self, struct kvs_snapshot *snapshot, struct kvs_snapshot_step *step);
void wal_snapshot_commit(void *self, struct kvs_snapshot *snapshot, struct kvs_snapshot_step *step);
void wal_snapshot_abort(void *self, struct kvs_snapshot *snapshot);

#define SNAPSHOT_MAGIC        0x5353564bu /* "KVSS" */
#define SNAPSHOT_FORMAT       1u
#define SNAPSHOT_HEADER_SIZE  56u
#define SNAPSHOT_BLOCK_HEADER 16u

void snapshot_path(char out[80], uint64_t stream, uint64_t offset, int tmp);
/* Close and free what was neither committed nor aborted. The threads have ended. */
void snapshots_free(struct wal *w);
/* The figures: the stream's snapshot has that size now, 0: it has none. */
void snapshot_count(struct wal *w, uint64_t stream, uint64_t size);
/* Ask the journal thread to look which segments are not needed any more. */
void trim_ask(struct wal *w);
struct snapshot_file; /* one that was found */

/* Find the newest snapshot of every stream that was not dropped; adds to total_bytes. */
int snapshots_find(struct recovery *v, struct snapshot_file **ret_list, struct kvs_error *err);
/* Deliver them. */
int snapshots_read(struct recovery *v, const struct snapshot_file *list, struct kvs_error *err);
void snapshots_forget(struct recovery *v, struct snapshot_file *take_list);
/* Remove, durably, files that a newer one or a drop made useless; `temporary`: and those that were
 * never finished. */
int snapshots_tidy(struct wal *w, int temporary, struct kvs_error *err);

/* drop.c */
int wal_stream_drop(void *self, uint64_t stream, struct kvs_snapshot_step *step);
/* Streams that were dropped and may still be in the journal. */
int dropped_read(struct wal *w, struct kvs_error *err);
/* The snapshots of all of them are gone. */
void dropped_tidied(struct wal *w);
void dropped_free(struct wal *w);

/* blob.c */
int wal_blob_put(void *self, const char *name, struct kvs_slice bytes, struct kvs_error *err);
int wal_blob_get(void *self, const char *name, void *buf, size_t buf_size, size_t *ret_len,
                 struct kvs_error *err);
/* The same at any path. ret_bytes: initialised; stays empty if there is no such file. */
int file_put(struct wal *w, const char *dir, const char *name, struct kvs_slice bytes,
             struct kvs_error *err);
int file_get(struct wal *w, const char *dir, const char *name, size_t size_max,
             struct kvs_buf *ret_bytes, struct kvs_error *err);

#endif
