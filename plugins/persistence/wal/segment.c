/* SPDX-License-Identifier: MIT
 *
 * Segment files of the journal; see wal_private.h.
 *
 *   offset size  field                little-endian
 *        0    4  magic                "KVSG"
 *        4    4  crc32c               over bytes 8 .. 63
 *        8    4  format               1
 *       12    4  reserved             0
 *       16    8  seq                  as in the file's name
 *       24    8  salt                 random, new for each life of the file
 *       32    8  first_number         number of its first frame
 *       40    8  size                 bytes reserved
 *       48   16  reserved             0
 *       64       frames, each at a multiple of 8
 *
 * A file that is no longer needed is kept (up to RECYCLE_MAX) under another name and used again:
 * its blocks exist, so writing into it changes no metadata and a sync is one disk write. Its old
 * frames are told from new ones by the salt. */
#include <inttypes.h>
#include <stdio.h>

#include "wal_private.h"

#define RECYCLE_MAX 4u

/* ---- stream maps -------------------------------------------------------------------------------
 */

static uint64_t slot_of(const struct stream_map *m, uint64_t stream)
{
    uint64_t at = (stream * 0x9e3779b97f4a7c15u >> 32) & (m->cap - 1);

    while (m->slots[at][0] != 0 && m->slots[at][0] != stream + 1) {
        at = (at + 1) & (m->cap - 1);
    }
    return at;
}

static int stream_map_grow(struct wal *w, struct stream_map *m)
{
    struct stream_map bigger = {NULL, m->cap == 0 ? 16 : m->cap * 2, m->count};
    size_t bytes = bigger.cap * sizeof *bigger.slots;

    bigger.slots = kvs_calloc(w->host, &wal_memory, bytes);
    if (bigger.slots == NULL) {
        return KVS_ENOMEM;
    }
    for (uint64_t i = 0; i < m->cap; i++) {
        if (m->slots[i][0] != 0) {
            uint64_t at = slot_of(&bigger, m->slots[i][0] - 1);

            bigger.slots[at][0] = m->slots[i][0];
            bigger.slots[at][1] = m->slots[i][1];
        }
    }
    stream_map_free(w, m);
    *m = bigger;
    return 0;
}

int stream_map_raise(struct wal *w, struct stream_map *m, uint64_t stream, uint64_t value)
{
    uint64_t at;

    if ((m->count + 1) * 2 > m->cap) {
        int rc = stream_map_grow(w, m);

        if (rc != 0 && m->count + 1 >= m->cap) {
            return rc;
        }
    }
    at = slot_of(m, stream);
    m->count += m->slots[at][0] == 0;
    m->slots[at][0] = stream + 1;
    if (m->slots[at][1] < value) {
        m->slots[at][1] = value;
    }
    return 0;
}

uint64_t stream_map_get(const struct stream_map *m, uint64_t stream)
{
    return m->cap == 0 ? 0 : m->slots[slot_of(m, stream)][1];
}

void stream_map_free(struct wal *w, struct stream_map *m)
{
    kvs_free(w->host, &wal_memory, m->slots, m->cap * sizeof *m->slots);
    memset(m, 0, sizeof *m);
}

/* ---- files -------------------------------------------------------------------------------------
 */

void segment_path(char out[64], uint64_t seq)
{
    (void)snprintf(out, 64, "journal/%016" PRIx64 ".seg", seq);
}

static void free_path(char out[64], uint32_t n)
{
    (void)snprintf(out, 64, "journal/free-%" PRIu32, n);
}

struct segment *segment_add(struct wal *w, uint64_t seq, uint64_t salt, uint64_t first_number,
                            uint64_t size)
{
    struct segment *s = kvs_calloc(w->host, &wal_memory, sizeof *s), **tail = &w->segments;

    if (s == NULL) {
        return NULL;
    }
    s->seq = seq;
    s->salt = salt;
    s->first_number = first_number;
    s->size = size;
    s->end = SEGMENT_HEADER_SIZE;
    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    *tail = s;
    (void)atomic_fetch_add_explicit(&w->journal_segments, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&w->journal_bytes, size, memory_order_relaxed);
    w->host->metric_add(w->host->ctx, w->segment_gauge, 1);
    return s;
}

static void segment_drop(struct wal *w, struct segment *s)
{
    (void)atomic_fetch_sub_explicit(&w->journal_segments, 1, memory_order_relaxed);
    (void)atomic_fetch_sub_explicit(&w->journal_bytes, s->size, memory_order_relaxed);
    w->host->metric_add(w->host->ctx, w->segment_gauge, -1);
    stream_map_free(w, &s->streams);
    kvs_free(w->host, &wal_memory, s, sizeof *s);
}

void segments_free(struct wal *w)
{
    while (w->segments != NULL) {
        struct segment *next = w->segments->next;

        segment_drop(w, w->segments);
        w->segments = next;
    }
    w->current = NULL;
}

void segment_note(struct wal *w, struct segment *s, uint64_t stream, uint64_t end)
{
    if (stream_map_raise(w, &s->streams, stream, end) != 0) {
        s->keep = 1; /* it cannot be told when it is not needed any more */
    }
}

static int header_write(struct wal *w, struct kvs_file *file, const struct segment *s,
                        struct kvs_error *err)
{
    uint8_t h[SEGMENT_HEADER_SIZE] = {0};
    struct kvs_slice bytes = {(const char *)h, sizeof h};

    kvs_put_u32(h, SEGMENT_MAGIC);
    kvs_put_u32(h + 8, SEGMENT_FORMAT);
    kvs_put_u64(h + 16, s->seq);
    kvs_put_u64(h + 24, s->salt);
    kvs_put_u64(h + 32, s->first_number);
    kvs_put_u64(h + 40, s->size);
    kvs_put_u32(h + 4, kvs_crc32c(0, h + 8, sizeof h - 8));
    return w->host->fs->write(w->host->fs->ctx, file, 0, &bytes, 1, err);
}

/* A file of `size` bytes under the new segment's name, recycled if there is one of that size. */
static int file_make(struct wal *w, const char *path, uint64_t size, struct kvs_file **ret_file,
                     struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    uint32_t n = atomic_load(&w->recyclable);
    char from[64];
    int rc;

    if (n > 0 && size == w->conf->segment_size) {
        free_path(from, n - 1);
        if (fs->rename(fs->ctx, from, path, err) == 0) {
            (void)atomic_fetch_sub(&w->recyclable, 1);
        } else {
            atomic_store(&w->recyclable, 0); /* someone tidied up: go on without */
        }
    }
    rc = fs->open(fs->ctx, path, KVS_FS_WRITE | KVS_FS_CREATE, ret_file, err);
    if (rc != 0) {
        return rc;
    }
    rc = fs->allocate(fs->ctx, *ret_file, size, err);
    if (rc != 0) {
        struct kvs_error ignored;

        fs->close(fs->ctx, *ret_file);
        (void)fs->remove(fs->ctx, path, &ignored); /* it holds nothing */
    }
    return rc;
}

int segment_roll(struct wal *w, uint64_t frame_size, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct segment fresh = {.seq = w->next_seq, .first_number = w->next_number};
    struct kvs_file *file = NULL;
    struct segment *s;
    char path[64];
    int rc;

    /* The old segment is durable before a frame of the next exists: recovery relies on it. */
    rc = w->conf->sync == WAL_SYNC_ALWAYS ? 0 : writer_sync(w, err);
    if (rc != 0) {
        return rc;
    }
    fresh.size = SEGMENT_HEADER_SIZE + frame_size;
    fresh.size = fresh.size < w->conf->segment_size ? w->conf->segment_size : fresh.size;
    w->host->random(w->host->ctx, &fresh.salt, sizeof fresh.salt);
    segment_path(path, fresh.seq);
    rc = file_make(w, path, fresh.size, &file, err);
    if (rc != 0) {
        return rc;
    }
    rc = header_write(w, file, &fresh, err);
    rc = rc != 0 ? rc : fs->sync(fs->ctx, file, err);
    rc = rc != 0 ? rc : fs->sync_dir(fs->ctx, "journal", err);
    s = rc != 0 ? NULL : segment_add(w, fresh.seq, fresh.salt, fresh.first_number, fresh.size);
    if (s == NULL) {
        fs->close(fs->ctx, file);
        return rc != 0 ? rc : kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    if (w->file != NULL) {
        fs->close(fs->ctx, w->file);
    }
    w->file = file;
    w->current = s;
    w->next_seq++;
    KVS_LOG(w->host, KVS_LOG_DEBUG, "segment_begun", "seq=%" PRIu64 " first_frame=%" PRIu64, s->seq,
            s->first_number);
    segments_trim(w);
    return 0;
}

/* ---- forgetting --------------------------------------------------------------------------------
 */

/* True if every stream in it has a snapshot beyond, or was dropped. */
static int not_needed(struct wal *w, const struct segment *s)
{
    int needed = (int)s->keep;

    (void)pthread_mutex_lock(&w->streams_lock);
    for (uint64_t i = 0; i < s->streams.cap && !needed; i++) {
        uint64_t stream = s->streams.slots[i][0];

        needed = stream != 0 && stream_map_get(&w->snapshots, stream - 1) < s->streams.slots[i][1];
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
    return !needed;
}

void segments_trim(struct wal *w)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_error err = {0};

    /* From the oldest on only: frame numbers must have no gap. */
    while (w->segments != NULL && w->segments != w->current && not_needed(w, w->segments)) {
        struct segment *s = w->segments;
        uint32_t n = atomic_load(&w->recyclable);
        char path[64], to[64];
        int rc;

        segment_path(path, s->seq);
        free_path(to, n);
        if (n < RECYCLE_MAX && s->size == w->conf->segment_size) {
            rc = fs->rename(fs->ctx, path, to, &err);
            if (rc == 0) {
                (void)atomic_fetch_add(&w->recyclable, 1);
            }
        } else {
            rc = fs->remove(fs->ctx, path, &err);
        }
        if (rc != 0) {
            KVS_LOG(w->host, KVS_LOG_WARN, "segment_not_removed", "error='%s' effect='tried again'",
                    err.msg);
            return;
        }
        w->segments = s->next;
        segment_drop(w, s);
    }
}
