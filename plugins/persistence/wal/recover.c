/* SPDX-License-Identifier: MIT
 *
 * Reading the journal back; see wal_private.h.
 *
 * Frames are numbered through all segments, and each segment says the number of its first. So what
 * is missing is known, and the question is only whether it may be missing:
 *
 *   - a frame of a segment that has a successor must be there, up to the successor's first number;
 *   - in the last segment the first frame that is not whole is the torn tail, unless a whole frame
 *     further on says that it was durable (its `durable` is beyond): then it is damage;
 *   - after an orderly stop the marker journal/clean says how many frames there are, exactly.
 *
 * Damage stops the recovery and names file and offset. A torn tail is left behind: a new segment is
 * begun whose first number is that of the frame that was cut. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "wal_private.h"

#define READ_SIZE   (1u << 20)
#define SEQ_MAX     65536u /* segments */
#define CLEAN_PATH  "journal/clean"
#define CLEAN_BYTES 8u

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

struct recovery {
    struct wal *w;
    const struct kvs_recover_ops *ops;
    void *arg;
    struct kvs_recover_report *report;
    uint64_t *seqs; /* [seq_count] ascending */
    uint32_t seq_count;
    uint64_t done_bytes, total_bytes;
};

/* ---- reading -----------------------------------------------------------------------------------
 */

static int reader_open(struct wal *w, uint64_t seq, struct reader *r, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    int rc;

    memset(r, 0, sizeof *r);
    r->w = w;
    segment_path(r->path, seq);
    rc = fs->open(fs->ctx, r->path, KVS_FS_WRITE, &r->file, err); /* the tail may be cut */
    return rc != 0 ? rc : fs->file_size(fs->ctx, r->file, &r->size, err);
}

static void reader_close(struct reader *r)
{
    if (r->file != NULL) {
        r->w->host->fs->close(r->w->host->fs->ctx, r->file);
    }
    kvs_free(r->w->host, &wal_memory, r->buf, r->cap);
    r->buf = NULL;
}

/* n bytes at `offset`; *ret_p NULL if the file ends before. */
static int reader_at(struct reader *r, uint64_t offset, size_t n, const uint8_t **ret_p,
                     struct kvs_error *err)
{
    const struct kvs_fs *fs = r->w->host->fs;
    size_t want = n < READ_SIZE ? READ_SIZE : n;

    *ret_p = NULL;
    if (offset > r->size || n > r->size - offset) {
        return 0;
    }
    if (offset < r->start || offset + n > r->start + r->len) {
        if (want > r->cap) {
            kvs_free(r->w->host, &wal_memory, r->buf, r->cap);
            r->cap = 0;
            r->buf = kvs_alloc(r->w->host, &wal_memory, want);
            if (r->buf == NULL) {
                return kvs_err(err, KVS_ENOMEM, "read '%s': out of memory", r->path);
            }
            r->cap = want;
        }
        r->start = offset;
        r->len = 0;
        int rc = fs->read(fs->ctx, r->file, offset, r->buf, want, &r->len, err);

        if (rc != 0) {
            return kvs_err_wrap(err, "'%s' at offset %" PRIu64, r->path, offset);
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
        return 0; /* the snapshot holds it, or the table was dropped */
    }
    v->report->batch_count++;
    v->report->record_count += h->count;
    return v->ops->batch(v->arg, h, payload, err);
}

static int take_frame(struct recovery *v, struct reader *r, struct segment *s, uint64_t offset,
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
                               offset + FRAME_HEADER_SIZE + (size - rest.len));
            return rc;
        }
        rest.ptr += h.total_size;
        rest.len -= h.total_size;
    }
    return 0;
}

/* ---- the end of the last segment ---------------------------------------------------------------
 */

/* A whole frame behind `offset` that proves that frame `missing` was durable? */
static int proof_of_damage(struct reader *r, uint64_t salt, uint64_t offset, uint64_t missing,
                           int *ret_damage, struct kvs_error *err)
{
    *ret_damage = 0;
    for (uint64_t at = offset + FRAME_ALIGN; at + FRAME_HEADER_SIZE <= r->size; at += FRAME_ALIGN) {
        const uint8_t *p, *payload;
        struct frame f;
        uint32_t crc;
        int ok, rc = reader_at(r, at, FRAME_HEADER_SIZE, &p, err);

        if (rc != 0) {
            return rc;
        }
        if (p == NULL || !frame_decode(p, salt, &f, &crc) || f.durable <= missing) {
            continue;
        }
        rc = frame_at(r, salt, at, &ok, &f, &payload, err);
        if (rc != 0 || ok) {
            *ret_damage = ok;
            return rc;
        }
    }
    return 0;
}

/* How much of an unfinished frame lies at offset. In a recycled file old bytes follow the last
 * frame: what carries neither our salt nor the awaited number is not a frame of this life. */
static int torn_bytes(struct reader *r, uint64_t salt, uint64_t offset, uint64_t number,
                      uint64_t *ret_n, struct kvs_error *err)
{
    const uint8_t *p;
    uint64_t size;
    int rc = reader_at(r, offset, FRAME_HEADER_SIZE, &p, err);

    *ret_n = 0;
    if (rc != 0 || p == NULL) {
        return rc;
    }
    if (kvs_get_u64(p + 16) == salt ||
        (kvs_get_u32(p) == FRAME_MAGIC && kvs_get_u64(p + 24) == number)) {
        size = FRAME_HEADER_SIZE + (uint64_t)kvs_get_u32(p + 8);
        *ret_n = size < r->size - offset ? size : r->size - offset;
    }
    return 0;
}

static int damaged(const struct reader *r, uint64_t offset, const char *what, struct kvs_error *err)
{
    return kvs_err(err, KVS_ECORRUPT,
                   "'%s' is damaged at offset %" PRIu64
                   ": %s. Nothing behind it is served; restore "
                   "the file, or this node's data from a backup or a replica",
                   r->path, offset, what);
}

static int tail(struct recovery *v, struct reader *r, struct segment *s, struct kvs_error *err)
{
    uint64_t torn = 0;
    int damage = 0;
    int rc = proof_of_damage(r, s->salt, s->end, v->w->next_number, &damage, err);

    if (rc == 0 && damage) {
        return damaged(r, s->end, "a frame is broken that was durable, as later frames tell", err);
    }
    rc = rc != 0 ? rc : torn_bytes(r, s->salt, s->end, v->w->next_number, &torn, err);
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

struct segment_head {
    int valid;
    uint64_t salt, first_number, size;
};

static int head_read(struct reader *r, uint64_t seq, struct segment_head *ret,
                     struct kvs_error *err)
{
    const uint8_t *p;
    int rc = reader_at(r, 0, SEGMENT_HEADER_SIZE, &p, err);

    memset(ret, 0, sizeof *ret);
    if (rc != 0 || p == NULL || kvs_get_u32(p) != SEGMENT_MAGIC ||
        kvs_get_u32(p + 4) != kvs_crc32c(0, p + 8, SEGMENT_HEADER_SIZE - 8) ||
        kvs_get_u64(p + 16) != seq) {
        return rc;
    }
    if (kvs_get_u32(p + 8) > SEGMENT_FORMAT) {
        return kvs_err(err, KVS_EFORMAT,
                       "'%s' has journal format %" PRIu32 ", this version reads %u", r->path,
                       kvs_get_u32(p + 8), SEGMENT_FORMAT);
    }
    ret->valid = 1;
    ret->salt = kvs_get_u64(p + 24);
    ret->first_number = kvs_get_u64(p + 32);
    ret->size = kvs_get_u64(p + 40);
    return 0;
}

/* The last file has no valid header: it was being made when the server ended, unless there is a
 * frame in it that can only come after a header. */
static int not_begun(struct recovery *v, struct reader *r, uint64_t expected, struct kvs_error *err)
{
    const struct kvs_fs *fs = v->w->host->fs;
    const uint8_t *p;
    int rc = reader_at(r, SEGMENT_HEADER_SIZE, FRAME_HEADER_SIZE, &p, err);

    if (rc != 0) {
        return rc;
    }
    if (p != NULL && kvs_get_u32(p) == FRAME_MAGIC && kvs_get_u64(p + 24) >= expected) {
        return damaged(r, 0, "the segment's header is broken", err);
    }
    rc = fs->remove(fs->ctx, r->path, err);
    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "journal", err);
}

/* until: number of the next segment's first frame; UINT64_MAX for the last segment. */
static int segment_scan(struct recovery *v, struct reader *r, struct segment *s, uint64_t until,
                        struct kvs_error *err)
{
    while (v->w->next_number < until) {
        const uint8_t *payload;
        struct frame f;
        int ok, rc = frame_at(r, s->salt, s->end, &ok, &f, &payload, err);

        if (rc != 0) {
            return rc;
        }
        if (!ok || f.number != v->w->next_number) {
            return until == UINT64_MAX ? tail(v, r, s, err)
                                       : damaged(r, s->end, "a frame is broken or missing", err);
        }
        rc = take_frame(v, r, s, s->end, payload, f.size, err);
        if (rc != 0) {
            return rc;
        }
        s->end += FRAME_HEADER_SIZE + ((f.size + FRAME_ALIGN - 1) & ~(FRAME_ALIGN - 1));
        v->w->next_number++;
        if (v->ops->progress != NULL) {
            v->ops->progress(v->arg, v->done_bytes + s->end, v->total_bytes);
        }
    }
    return 0;
}

/* Give back what a last segment reserved and did not use. */
static void cut_file(struct recovery *v, struct reader *r, struct segment *s)
{
    const struct kvs_fs *fs = v->w->host->fs;
    struct kvs_error err = {0};

    if (r->size > s->end && fs->truncate(fs->ctx, r->file, s->end, &err) != 0) {
        KVS_LOG(v->w->host, KVS_LOG_WARN, "segment_not_cut",
                "error='%s' effect='it takes more room'", err.msg);
        return;
    }
    (void)atomic_fetch_sub_explicit(&v->w->journal_bytes, s->size - s->end, memory_order_relaxed);
    s->size = s->end;
}

/* Number of the first frame of the next segment that was begun; UINT64_MAX if there is none. */
static int next_first(struct recovery *v, uint32_t i, uint64_t *ret, struct kvs_error *err)
{
    struct segment_head head;
    struct reader r;
    int rc;

    *ret = UINT64_MAX;
    if (i + 1 == v->seq_count) {
        return 0;
    }
    rc = reader_open(v->w, v->seqs[i + 1], &r, err);
    rc = rc != 0 ? rc : head_read(&r, v->seqs[i + 1], &head, err);
    if (rc == 0 && head.valid) {
        *ret = head.first_number;
    } else if (rc == 0 && i + 2 < v->seq_count) {
        rc = damaged(&r, 0, "the segment's header is broken", err);
    }
    reader_close(&r);
    return rc;
}

static int segment_recover(struct recovery *v, uint32_t i, struct kvs_error *err)
{
    uint64_t until = UINT64_MAX;
    struct segment_head head;
    struct segment *s = NULL;
    struct reader r;
    int rc = next_first(v, i, &until, err), last = i + 1 == v->seq_count;

    if (rc != 0) {
        return rc;
    }
    rc = reader_open(v->w, v->seqs[i], &r, err);
    rc = rc != 0 ? rc : head_read(&r, v->seqs[i], &head, err);
    if (rc == 0 && !head.valid) {
        rc = last ? not_begun(v, &r, v->w->next_number, err)
                  : damaged(&r, 0, "the segment's header is broken", err);
        goto out;
    }
    if (rc != 0) {
        goto out;
    }
    if (i == 0) {
        v->w->next_number = head.first_number;
    } else if (head.first_number != v->w->next_number) {
        rc = damaged(&r, 0, "frames between this segment and the one before are missing", err);
        goto out;
    }
    s = segment_add(v->w, v->seqs[i], head.salt, head.first_number, head.size);
    if (s == NULL) {
        rc = kvs_err(err, KVS_ENOMEM, "out of memory");
        goto out;
    }
    rc = segment_scan(v, &r, s, until, err);
    if (rc == 0 && until == UINT64_MAX) {
        cut_file(v, &r, s);
    }
    v->done_bytes += r.size;
out:
    reader_close(&r);
    return rc;
}

/* ---- the directory -----------------------------------------------------------------------------
 */

static int dir_visit(void *arg, const char *name)
{
    struct recovery *v = arg;
    struct kvs_error err = {0};
    char path[96], *end;
    uint64_t seq = strtoull(name, &end, 16);

    if (end == name + 16 && strcmp(end, ".seg") == 0) {
        if (v->seq_count == SEQ_MAX) {
            return KVS_ETOOMANY;
        }
        v->seqs[v->seq_count++] = seq; /* names come in order */
    } else if (strncmp(name, "free-", 5) == 0) {
        (void)atomic_fetch_add(&v->w->recyclable, 1);
    } else if (strstr(name, ".tmp") != NULL) {
        (void)snprintf(path, sizeof path, "journal/%.60s", name);
        (void)v->w->host->fs->remove(v->w->host->fs->ctx, path, &err); /* was not finished */
    }
    return 0;
}

int clean_write(struct wal *w, struct kvs_error *err)
{
    uint8_t number[CLEAN_BYTES];

    kvs_put_u64(number, w->next_number);
    return file_put(w, "journal", CLEAN_PATH, kvs_slice(number, sizeof number), err);
}

/* Compare with the marker of the last orderly stop, then take it away: from here on there may be
 * more. */
static int clean_consume(struct recovery *v, struct kvs_error *err)
{
    const struct kvs_fs *fs = v->w->host->fs;
    uint8_t number[CLEAN_BYTES];
    size_t len = 0;
    int rc = file_get(v->w, CLEAN_PATH, number, sizeof number, &len, err);

    if (rc != 0 || len == 0) {
        return rc;
    }
    if (len != sizeof number || kvs_get_u64(number) != v->w->next_number) {
        const struct segment *s = v->w->segments;
        char path[64] = "journal";

        while (s != NULL && s->next != NULL) {
            s = s->next;
        }
        if (s != NULL) {
            segment_path(path, s->seq);
        }
        return kvs_err(err, KVS_ECORRUPT,
                       "'%s' is damaged at offset %" PRIu64 ": the server stopped in order after "
                       "frame %" PRIu64 ", but frames end before %" PRIu64
                       ". Restore the file, or this node's data from a backup or a replica",
                       path, s == NULL ? (uint64_t)0 : s->end, kvs_get_u64(number),
                       v->w->next_number);
    }
    v->report->clean_shutdown = 1;
    rc = fs->remove(fs->ctx, CLEAN_PATH, err);
    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "journal", err);
}

static int total_size(struct recovery *v, struct kvs_error *err)
{
    for (uint32_t i = 0; i < v->seq_count; i++) {
        struct reader r;
        int rc = reader_open(v->w, v->seqs[i], &r, err);

        v->total_bytes += r.size;
        reader_close(&r);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int wal_recover(void *self, const struct kvs_recover_ops *ops, void *arg,
                struct kvs_recover_report *ret_report, struct kvs_error *err)
{
    struct wal *w = self;
    struct recovery v = {.w = w, .ops = ops, .arg = arg, .report = ret_report};
    int rc;

    memset(ret_report, 0, sizeof *ret_report);
    v.seqs = kvs_alloc(w->host, &wal_memory, SEQ_MAX * sizeof *v.seqs);
    if (v.seqs == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    rc = w->host->fs->list(w->host->fs->ctx, "journal", dir_visit, &v, err);
    rc = rc != 0 ? rc : dropped_read(w, err);
    rc = rc != 0 ? rc : snapshots_read(w, ops, arg, ret_report, err);
    rc = rc != 0 ? rc : total_size(&v, err);
    for (uint32_t i = 0; i < v.seq_count && rc == 0; i++) {
        rc = segment_recover(&v, i, err);
        w->next_seq = v.seqs[i] + 1;
    }
    rc = rc != 0 ? rc : clean_consume(&v, err);
    kvs_free(w->host, &wal_memory, v.seqs, SEQ_MAX * sizeof *v.seqs);
    if (rc != 0) {
        return rc;
    }
    ret_report->byte_count += v.done_bytes;
    w->durable_number = w->next_number;
    segments_trim(w);
    atomic_store_explicit(&w->open, 1, memory_order_release);
    return 0;
}
