/* SPDX-License-Identifier: MIT
 *
 * Segment files of the journal; see wal_private.h.
 *
 *   offset size  field                little-endian
 *        0    4  magic                "KVSG"
 *        4    4  crc32c               over bytes 8 .. 511
 *        8    4  format               1
 *       12    4  reserved             0
 *       16    8  seq                  as in the file's name
 *       24    8  salt                 random, new for each life of the file
 *       32    8  first_number         number of its first frame
 *       40    8  size                 bytes reserved
 *       48  464  reserved             0
 *      512       frames, each at a multiple of 512: what a power cut garbles of one that is being
 *                written lies in no sector of another
 *
 * A file that is no longer needed is kept (up to RECYCLE_MAX) under another name and used again:
 * its blocks exist, so writing into it changes no metadata and a sync is one disk write. Its old
 * frames are told from new ones by the salt. A file gets its segment's name only when header and
 * size are durable, so a file with such a name and a broken header is damaged. */
#include <inttypes.h>
#include <stdio.h>

#include "wal_private.h"

#define RECYCLE_MAX 4u
#define NEW_PATH    "journal/new.tmp"

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

int stream_map_set(struct wal *w, struct stream_map *m, uint64_t stream, uint64_t value)
{
    uint64_t at;

    if (stream == UINT64_MAX) {
        return KVS_EINVAL; /* no stream has this number: it would be slot "empty" */
    }
    if ((m->count + 1) * 2 > m->cap) {
        int rc = stream_map_grow(w, m);

        if (rc != 0 && m->count + 1 >= m->cap) {
            return rc;
        }
    }
    at = slot_of(m, stream);
    m->count += m->slots[at][0] == 0;
    m->slots[at][0] = stream + 1;
    m->slots[at][1] = value;
    return 0;
}

int stream_map_raise(struct wal *w, struct stream_map *m, uint64_t stream, uint64_t value)
{
    uint64_t before = stream_map_get(m, stream);

    return stream_map_set(w, m, stream, before < value ? value : before);
}

uint64_t stream_map_get(const struct stream_map *m, uint64_t stream)
{
    return m->cap == 0 || stream == UINT64_MAX ? 0 : m->slots[slot_of(m, stream)][1];
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

void segment_add(struct wal *w, struct segment *take_s)
{
    struct segment **tail = &w->segments;

    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    *tail = take_s;
    if (w->segments == take_s) {
        atomic_store(&w->first_seq, take_s->seq);
    }
    (void)atomic_fetch_add_explicit(&w->journal_segments, 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&w->journal_bytes, take_s->size, memory_order_relaxed);
    w->host->metric_add(w->host->ctx, w->segment_gauge, 1);
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

/* A file of `size` bytes with header and without a valid frame, under NEW_PATH; recycled if there
 * is one. */
static int file_make(struct wal *w, const struct segment *s, struct kvs_file **ret_file,
                     struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    int rc, recycled = 0;

    if (w->recyclable > 0 && s->size == w->conf->segment_size) {
        struct kvs_error ignored;
        char from[64];

        free_path(from, w->recyclable - 1);
        recycled = fs->rename(fs->ctx, from, NEW_PATH, &ignored) == 0;
        w->recyclable = recycled ? w->recyclable - 1 : 0; /* someone tidied up: go on without */
    }
    rc = fs->open(fs->ctx, NEW_PATH, KVS_FS_WRITE | KVS_FS_CREATE, ret_file, err);
    if (rc != 0) {
        return rc;
    }
    rc = recycled ? 0 : fs->truncate(fs->ctx, *ret_file, 0, err);
    rc = rc != 0 ? rc : fs->allocate(fs->ctx, *ret_file, s->size, err);
    rc = rc != 0 ? rc : header_write(w, *ret_file, s, err);
    return rc != 0 ? rc : fs->sync(fs->ctx, *ret_file, err);
}

/* Make the file and give it its name: a file under a segment's name has a whole header and its full
 * size. *ret_named: an error came after that. */
static int file_begin(struct wal *w, const struct segment *s, struct kvs_file **ret_file,
                      int *ret_named, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_error ignored;
    char path[64];
    int rc = file_make(w, s, ret_file, err);

    segment_path(path, s->seq);
    rc = rc != 0 ? rc : fs->rename(fs->ctx, NEW_PATH, path, err);
    if (rc == 0) {
        *ret_named = 1;
        rc = fs->sync_dir(fs->ctx, "journal", err);
    } else {
        (void)fs->remove(fs->ctx, NEW_PATH, &ignored); /* gives its room back; or is overwritten */
    }
    if (rc != 0 && *ret_file != NULL) {
        fs->close(fs->ctx, *ret_file);
    }
    return rc;
}

/* Give back what the newest segment of the life before reserved and did not use. Not before it has
 * a successor: until then a file shorter than it was made is a sign of damage. */
static void segment_shorten(struct wal *w)
{
    const struct kvs_fs *fs = w->host->fs;
    struct segment *s = w->segments;
    struct kvs_file *file = NULL;
    struct kvs_error err = {0};
    char path[64];
    int rc;

    w->cut = 0;
    while (s != NULL && s->next != NULL) {
        s = s->next;
    }
    if (s == NULL || s->size <= s->end) {
        return;
    }
    segment_path(path, s->seq);
    rc = fs->open(fs->ctx, path, KVS_FS_WRITE, &file, &err);
    rc = rc != 0 ? rc : fs->truncate(fs->ctx, file, s->end, &err);
    if (file != NULL) {
        fs->close(fs->ctx, file);
    }
    if (rc != 0) {
        KVS_LOG(w->host, KVS_LOG_WARN, "segment_not_cut", "error='%s' effect='it takes more room'",
                err.msg);
        return;
    }
    (void)atomic_fetch_sub_explicit(&w->journal_bytes, s->size - s->end, memory_order_relaxed);
    s->size = s->end;
}

int segment_roll(struct wal *w, uint64_t frame_size, struct kvs_error *err)
{
    struct kvs_file *file = NULL;
    struct segment *s;
    int rc, named = 0;

    /* The old segment is durable before a frame of the next exists: recovery relies on it. */
    rc = writer_sync(w, err);
    if (rc != 0) {
        return rc;
    }
    s = kvs_calloc(w->host, &wal_memory, sizeof *s);
    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "begin a segment: out of memory");
    }
    s->seq = w->next_seq;
    s->first_number = w->next_number;
    s->end = SEGMENT_HEADER_SIZE;
    s->size = SEGMENT_HEADER_SIZE + frame_size;
    s->size = s->size < w->conf->segment_size ? w->conf->segment_size : s->size;
    w->host->random(w->host->ctx, &s->salt, sizeof s->salt);
    rc = file_begin(w, s, &file, &named, err);
    if (rc != 0) {
        kvs_free(w->host, &wal_memory, s, sizeof *s);
        (void)kvs_err_wrap(err, "begin segment %" PRIu64, w->next_seq);
        /* With a successor on disk no more frames may go into the present segment: recovery would
         * not look for them. So this is final even if the disk is only full. */
        return named ? KVS_EIO : rc;
    }
    if (w->file != NULL) {
        w->host->fs->close(w->host->fs->ctx, w->file);
    }
    w->file = file;
    w->current = s;
    w->next_seq++;
    if (w->cut) {
        segment_shorten(w);
    }
    segment_add(w, s);
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

/* Put the file away, to be used again or removed. */
static int file_retire(struct wal *w, const struct segment *s, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    char path[64], to[64];
    int rc;

    segment_path(path, s->seq);
    if (w->recyclable >= RECYCLE_MAX || s->size != w->conf->segment_size) {
        return fs->remove(fs->ctx, path, err);
    }
    free_path(to, w->recyclable);
    rc = fs->rename(fs->ctx, path, to, err);
    w->recyclable += rc == 0;
    return rc;
}

void segments_trim(struct wal *w)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_error err = {0};
    int rc = 0, retired = 0;

    /* From the oldest on only: frame numbers must have no gap. The newest stays: the next frame's
     * number is known from it. */
    while (rc == 0 && w->segments != NULL && w->segments->next != NULL &&
           not_needed(w, w->segments)) {
        struct segment *s = w->segments;

        rc = file_retire(w, s, &err);
        if (rc == 0) {
            w->segments = s->next;
            segment_drop(w, s);
            retired = 1;
        }
    }
    if (retired) {
        int dir_rc = fs->sync_dir(fs->ctx, "journal", &err);

        if (dir_rc == 0) {
            atomic_store(&w->first_seq, w->segments->seq);
        } else { /* overwriting a file that may get its old name back would lose it */
            w->recyclable = 0;
            rc = dir_rc;
        }
    }
    if (rc != 0) {
        KVS_LOG(w->host, KVS_LOG_WARN, "segment_not_removed", "error='%s' effect='tried again'",
                err.msg);
    }
}
