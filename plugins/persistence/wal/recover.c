/* SPDX-License-Identifier: MIT
 *
 * Reading the journal back; see wal_private.h.
 *
 * Frames are numbered through all segments, and each segment says the number of its first. So what
 * is missing is known, and the question is only whether it may be missing:
 *
 *   - a file under a segment's name has a whole header and its full size; only with a successor it
 *     may be shorter;
 *   - a frame of a segment that has a successor must be there, up to the successor's first number;
 *   - in the last segment the first frame that is not whole is the torn tail, unless a whole frame
 *     further on says that it was durable (its `durable` is beyond): then it is damage;
 *   - after an orderly stop the marker journal/clean says how many frames there are, exactly.
 *
 * Damage stops the recovery and names file and offset. A torn tail is left behind: a new segment is
 * begun whose first number is that of the frame that was cut. What was read is made durable before
 * anyone acts on it: after a mere crash it may be in memory only. */
#include <inttypes.h>
#include <stdio.h>

#include "wal_private.h"

#define READ_SIZE    (1u << 20)
#define CLEAN_NAME   "clean"
#define CLEAN_BYTES  8u
#define SEQ_NAME_LEN 20u /* 0123456789abcdef.seg */

struct reader {
    struct wal *w;
    struct kvs_file *file;
    char path[64];
    uint64_t size;
    uint8_t *buf;
    size_t cap;
    uint64_t start; /* file offset of buf[0] */
    size_t len;
};

void recovery_progress(struct recovery *v, uint64_t n)
{
    v->report->byte_count += n;
    if (v->ops->progress != NULL) {
        v->ops->progress(v->arg, v->report->byte_count, v->total_bytes);
    }
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static int reader_open(struct wal *w, uint64_t seq, uint32_t flags, struct reader *r,
                       struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    int rc;

    memset(r, 0, sizeof *r);
    r->w = w;
    segment_path(r->path, seq);
    rc = fs->open(fs->ctx, r->path, flags, &r->file, err);
    return rc != 0 ? rc : fs->file_size(fs->ctx, r->file, &r->size, err);
}

static void reader_close(struct reader *r)
{
    if (r->file != NULL) {
        r->w->host->fs->close(r->w->host->fs->ctx, r->file);
    }
    kvs_free(r->w->host, &wal_memory, r->buf, r->cap);
    r->file = NULL;
    r->buf = NULL;
}

static int reader_grow(struct reader *r, size_t cap, struct kvs_error *err)
{
    if (cap <= r->cap) {
        return 0;
    }
    kvs_free(r->w->host, &wal_memory, r->buf, r->cap);
    r->cap = r->len = 0;
    r->buf = kvs_alloc(r->w->host, &wal_memory, cap);
    if (r->buf == NULL) {
        return kvs_err(err, KVS_ENOMEM, "read '%s': out of memory", r->path);
    }
    r->cap = cap;
    return 0;
}

/* n bytes at `offset`; *ret_p NULL if the file ends before. */
static int reader_at(struct reader *r, uint64_t offset, size_t n, const uint8_t **ret_p,
                     struct kvs_error *err)
{
    const struct kvs_fs *fs = r->w->host->fs;
    int rc;

    *ret_p = NULL;
    if (offset > r->size || n > r->size - offset) {
        return 0;
    }
    if (offset < r->start || offset + n > r->start + r->len) {
        size_t want = r->size < READ_SIZE ? (size_t)r->size : READ_SIZE;

        rc = reader_grow(r, n < want ? want : n, err);
        if (rc != 0) {
            return rc;
        }
        r->start = offset;
        r->len = 0;
        rc = fs->read(fs->ctx, r->file, offset, r->buf, r->cap, &r->len, err);
        if (rc != 0) {
            (void)kvs_err_wrap(err, "'%s' at offset %" PRIu64, r->path, offset);
            return rc;
        }
        if (r->len < n) {
            return 0;
        }
    }
    *ret_p = r->buf + (offset - r->start);
    return 0;
}

/* A whole frame at offset? *ret_ok; the payload stays valid until the next read. */
static int frame_at(struct reader *r, uint64_t salt, uint64_t offset, int *ret_ok,
                    struct frame *ret_f, const uint8_t **ret_payload, struct kvs_error *err)
{
    uint8_t head[FRAME_HEADER_SIZE];
    const uint8_t *p;
    uint32_t crc;
    int rc = reader_at(r, offset, FRAME_HEADER_SIZE, &p, err);

    *ret_ok = 0;
    if (rc != 0 || p == NULL) {
        return rc;
    }
    memcpy(head, p, sizeof head);
    if (!frame_decode(head, salt, ret_f, &crc)) {
        return 0;
    }
    rc = reader_at(r, offset + FRAME_HEADER_SIZE, ret_f->size, &p, err);
    if (rc != 0 || p == NULL) {
        return rc;
    }
    *ret_ok = kvs_crc32c(frame_crc(head), p, ret_f->size) == crc;
    *ret_payload = p;
    return 0;
}

/* ---- batches -----------------------------------------------------------------------------------
 */

static int deliver(struct recovery *v, struct segment *s, const struct kvs_batch_header *h,
                   struct kvs_slice payload, struct kvs_error *err)
{
    uint64_t end = h->base_offset + h->count;

    segment_note(v->w, s, h->stream, end);
    if (end <= stream_map_get(&v->w->snapshots, h->stream)) {
        return 0; /* the snapshot holds it, or the stream was dropped */
    }
    v->report->batch_count++;
    v->report->record_count += h->count;
    return v->ops->batch(v->arg, h, payload, err);
}

static int take_frame(struct recovery *v, struct reader *r, struct segment *s,
                      const uint8_t *payload, uint32_t size, struct kvs_error *err)
{
    struct kvs_slice rest = {(const char *)payload, size};

    while (rest.len > 0) {
        struct kvs_batch_header h;
        struct kvs_slice body;
        int rc = kvs_batch_open(rest, &h, &body, err);

        rc = rc != 0 ? rc : deliver(v, s, &h, body, err);
        if (rc != 0) {
            (void)kvs_err_wrap(err, "'%s' at offset %" PRIu64, r->path,
                               s->end + FRAME_HEADER_SIZE + (size - rest.len));
            return rc;
        }
        rest.ptr += h.total_size;
        rest.len -= h.total_size;
    }
    return 0;
}

/* ---- the end of the last segment ---------------------------------------------------------------
 */

static int damaged(const struct reader *r, uint64_t offset, const char *what, struct kvs_error *err)
{
    return kvs_err(err, KVS_ECORRUPT,
                   "'%s' is damaged at offset %" PRIu64 ": %s. Nothing behind it is served; "
                   "restore the file, or this node's data from a backup or a replica",
                   r->path, offset, what);
}

/* Look at what lies behind the last whole frame. *ret_durable: a whole frame there proves that the
 * missing one was durable. *ret_torn: bytes up to the end of the last frame there that can be told,
 * whole or not. In a recycled file old bytes follow: what carries neither our salt nor the awaited
 * number is not of this life. */
static int tail_scan(struct reader *r, const struct segment *s, uint64_t missing, int *ret_durable,
                     uint64_t *ret_torn, struct kvs_error *err)
{
    for (uint64_t at = s->end; at < r->size; at += FRAME_ALIGN) {
        const uint8_t *p, *payload;
        struct frame f;
        uint64_t end;
        int ok, rc = reader_at(r, at, FRAME_HEADER_SIZE, &p, err);

        if (rc != 0 || p == NULL) {
            return rc;
        }
        if (kvs_get_u64(p + 16) != s->salt &&
            (at > s->end || kvs_get_u32(p) != FRAME_MAGIC || kvs_get_u64(p + 24) != missing)) {
            continue;
        }
        end = at + frame_total(kvs_get_u32(p + 8));
        *ret_torn = (end < r->size ? end : r->size) - s->end;
        rc = frame_at(r, s->salt, at, &ok, &f, &payload, err);
        if (rc != 0) {
            return rc;
        }
        if (ok && f.durable > missing) {
            *ret_durable = 1;
            return 0;
        }
    }
    return 0;
}

static int tail(struct recovery *v, struct reader *r, const struct segment *s,
                struct kvs_error *err)
{
    uint64_t torn = 0;
    int durable = 0, rc;

    if (s->size < s->made_size) {
        return damaged(r, s->size < s->end ? s->size : s->end,
                       "the file is shorter than it was made", err);
    }
    rc = tail_scan(r, s, v->w->next_number, &durable, &torn, err);
    if (rc == 0 && durable) {
        return damaged(r, s->end, "a frame is broken that was durable, as later frames tell", err);
    }
    if (rc == 0 && torn > 0) {
        v->report->torn_bytes += torn;
        KVS_LOG(v->w->host, KVS_LOG_WARN, "torn_tail_cut",
                "file=%s offset=%" PRIu64 " bytes=%" PRIu64
                " reason='the last write was not finished when the server ended'",
                r->path, s->end, torn);
    }
    return rc;
}

/* ---- segments ----------------------------------------------------------------------------------
 */

/* Check the header and fill what it says into s. */
static int head_read(struct reader *r, struct segment *s, struct kvs_error *err)
{
    const uint8_t *p;
    int rc = reader_at(r, 0, SEGMENT_HEADER_SIZE, &p, err);

    if (rc != 0) {
        return rc;
    }
    if (p == NULL || kvs_get_u32(p) != SEGMENT_MAGIC ||
        kvs_get_u32(p + 4) != kvs_crc32c(0, p + 8, SEGMENT_HEADER_SIZE - 8)) {
        return damaged(r, 0, "the segment's header is broken", err);
    }
    if (kvs_get_u32(p + 8) != SEGMENT_FORMAT) {
        return kvs_err(err, KVS_EFORMAT,
                       "'%s' has journal format %" PRIu32 ", this version reads %u", r->path,
                       kvs_get_u32(p + 8), SEGMENT_FORMAT);
    }
    if (kvs_get_u64(p + 16) != s->seq) {
        return damaged(r, 16, "the header is that of another segment", err);
    }
    s->salt = kvs_get_u64(p + 24);
    s->first_number = kvs_get_u64(p + 32);
    s->made_size = kvs_get_u64(p + 40);
    s->size = r->size;
    s->end = SEGMENT_HEADER_SIZE;
    return 0;
}

/* Open the file of a segment and add it to the list. */
static int segment_meet(struct recovery *v, uint64_t seq, struct kvs_error *err)
{
    struct segment *s = kvs_calloc(v->w->host, &wal_memory, sizeof *s);
    struct reader r;
    int rc;

    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->seq = seq;
    rc = reader_open(v->w, seq, KVS_FS_READ, &r, err);
    rc = rc != 0 ? rc : head_read(&r, s, err);
    reader_close(&r);
    if (rc != 0) {
        kvs_free(v->w->host, &wal_memory, s, sizeof *s);
        return rc;
    }
    v->total_bytes += s->size;
    v->w->next_seq = seq + 1;
    segment_add(v->w, s);
    return 0;
}

static int frames_read(struct recovery *v, struct reader *r, struct segment *s,
                       struct kvs_error *err)
{
    uint64_t until = s->next == NULL ? UINT64_MAX : s->next->first_number;

    while (v->w->next_number < until) {
        const uint8_t *payload;
        struct frame f;
        int ok, rc = frame_at(r, s->salt, s->end, &ok, &f, &payload, err);

        if (rc != 0) {
            return rc;
        }
        if (!ok || f.number != v->w->next_number) {
            return s->next == NULL ? tail(v, r, s, err)
                                   : damaged(r, s->end, "a frame is broken or missing", err);
        }
        rc = take_frame(v, r, s, payload, f.size, err);
        if (rc != 0) {
            return rc;
        }
        s->end += frame_total(f.size);
        v->w->next_number++;
        recovery_progress(v, frame_total(f.size));
    }
    return 0;
}

static int segment_recover(struct recovery *v, struct segment *s, struct kvs_error *err)
{
    const struct kvs_fs *fs = v->w->host->fs;
    uint64_t before = v->report->byte_count;
    struct reader r;
    int rc = reader_open(v->w, s->seq, s->next == NULL ? KVS_FS_WRITE : KVS_FS_READ, &r, err);

    if (rc == 0 && s->first_number != v->w->next_number) {
        rc = damaged(&r, 32, "frames between this segment and the one before are missing", err);
    }
    if (rc == 0 && s->next == NULL) {
        rc = fs->sync(fs->ctx, r.file, err);
        rc = rc != 0 ? kvs_err_wrap(err, "sync '%s'", r.path) : 0;
    }
    rc = rc != 0 ? rc : frames_read(v, &r, s, err);
    reader_close(&r);
    before = v->report->byte_count - before;
    if (rc == 0 && before < s->size) {
        recovery_progress(v, s->size - before);
    }
    return rc;
}

/* ---- the directory -----------------------------------------------------------------------------
 */

struct listing {
    struct wal *w;
    struct kvs_buf seqs; /* of uint64_t, ascending */
};

static int dir_visit(void *arg, const char *name)
{
    struct listing *l = arg;
    struct kvs_error ignored;
    char path[96];
    uint64_t seq;

    if (strlen(name) == SEQ_NAME_LEN && hex16(name, &seq) && strcmp(name + 16, ".seg") == 0) {
        kvs_buf_append(&l->seqs, &seq, sizeof seq); /* names come in order */
        return l->seqs.failed ? KVS_ENOMEM : 0;
    }
    if (strncmp(name, "free-", 5) == 0) {
        l->w->recyclable++;
    } else if (strcmp(name, "new.tmp") == 0) {
        (void)snprintf(path, sizeof path, "journal/%s", name);
        (void)l->w->host->fs->remove(l->w->host->fs->ctx, path, &ignored); /* or overwritten */
    }
    return 0;
}

static int segments_meet(struct recovery *v, struct kvs_error *err)
{
    const struct kvs_fs *fs = v->w->host->fs;
    struct listing l = {.w = v->w};
    int rc;

    kvs_buf_init(&l.seqs, v->w->host, &wal_memory);
    /* Names, too, may be in memory only. */
    rc = fs->sync_dir(fs->ctx, "journal", err);
    rc = rc != 0 ? rc : fs->list(fs->ctx, "journal", dir_visit, &l, err);
    if (l.seqs.failed) {
        rc = kvs_err(err, KVS_ENOMEM, "list 'journal': out of memory");
    }
    for (size_t at = 0; at < l.seqs.len && rc == 0; at += sizeof(uint64_t)) {
        uint64_t seq;

        memcpy(&seq, l.seqs.ptr + at, sizeof seq);
        rc = segment_meet(v, seq, err);
    }
    kvs_buf_fini(&l.seqs);
    return rc;
}

/* ---- the marker --------------------------------------------------------------------------------
 */

int clean_write(struct wal *w, struct kvs_error *err)
{
    uint8_t number[CLEAN_BYTES];

    kvs_put_u64(number, w->next_number);
    return file_put(w, "journal", CLEAN_NAME, kvs_slice(number, sizeof number), err);
}

static int clean_differs(const struct wal *w, uint64_t stopped_after, struct kvs_error *err)
{
    const struct segment *s = w->segments;
    char path[64] = "journal";

    while (s != NULL && s->next != NULL) {
        s = s->next;
    }
    if (s != NULL) {
        segment_path(path, s->seq);
    }
    return kvs_err(err, KVS_ECORRUPT,
                   "'%s' is damaged at offset %" PRIu64 ": the server stopped in order before "
                   "frame %" PRIu64 ", but frames end before %" PRIu64
                   ". Restore the file, or this node's data from a backup or a replica",
                   path, s == NULL ? (uint64_t)0 : s->end, stopped_after, w->next_number);
}

/* Compare with the marker of the last orderly stop. *ret_found: it was there. */
static int clean_compare(struct recovery *v, int *ret_found, struct kvs_error *err)
{
    struct kvs_buf number;
    int rc;

    kvs_buf_init(&number, v->w->host, &wal_memory);
    rc = file_get(v->w, "journal", CLEAN_NAME, CLEAN_BYTES, &number, err);
    *ret_found = rc == 0 && number.len > 0;
    if (*ret_found && number.len != CLEAN_BYTES) {
        rc = kvs_err(err, KVS_ECORRUPT, "'journal/clean' is damaged at offset 16: wrong size");
    } else if (*ret_found && kvs_get_u64(number.ptr) != v->w->next_number) {
        rc = clean_differs(v->w, kvs_get_u64(number.ptr), err);
    }
    kvs_buf_fini(&number);
    return rc;
}

/* From here on there may be more frames than it says. */
static int clean_remove(struct wal *w, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    int rc = fs->remove(fs->ctx, "journal/" CLEAN_NAME, err);

    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "journal", err);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static void tidy(struct wal *w)
{
    struct kvs_error err = {0};

    if (snapshots_tidy(w, 1, &err) == 0) {
        dropped_tidied(w);
    } else {
        KVS_LOG(w->host, KVS_LOG_WARN, "snapshot_not_removed",
                "error='%s' effect='the next start removes it'", err.msg);
    }
}

static int read_all(struct recovery *v, struct kvs_error *err)
{
    struct wal *w = v->w;
    struct snapshot_file *snapshots = NULL;
    int clean = 0, rc = dropped_read(w, err);

    rc = rc != 0 ? rc : segments_meet(v, err);
    rc = rc != 0 ? rc : snapshots_find(v, &snapshots, err);
    rc = rc != 0 ? rc : snapshots_read(v, snapshots, err);
    snapshots_forget(v, snapshots);
    if (rc == 0 && w->segments != NULL) {
        w->next_number = w->segments->first_number;
    }
    for (struct segment *s = w->segments; s != NULL && rc == 0; s = s->next) {
        rc = segment_recover(v, s, err);
    }
    rc = rc != 0 ? rc : clean_compare(v, &clean, err);
    if (rc == 0) {
        tidy(w);
    }
    if (rc == 0 && clean) {
        v->report->clean_shutdown = 1;
        rc = clean_remove(w, err);
    }
    return rc;
}

int wal_recover(void *self, const struct kvs_recover_ops *ops, void *arg,
                struct kvs_recover_report *ret_report, struct kvs_error *err)
{
    struct wal *w = self;
    struct recovery v = {.w = w, .ops = ops, .arg = arg, .report = ret_report};
    int rc;

    memset(ret_report, 0, sizeof *ret_report);
    rc = read_all(&v, err);
    if (rc != 0) {
        return rc;
    }
    w->durable_number = w->next_number;
    w->cut = w->segments != NULL;
    segments_trim(w);
    (void)pthread_mutex_lock(&w->streams_lock);
    atomic_store_explicit(&w->open, !w->stopping, memory_order_release);
    (void)pthread_mutex_unlock(&w->streams_lock);
    return 0;
}
