/* SPDX-License-Identifier: MIT
 *
 * Writing snapshots on a thread of their own, so that the journal never waits behind one; see
 * snapshot_read.c for the format. A snapshot is written beside, synced and renamed; then the former
 * one is removed and the journal shortened. */
#include <inttypes.h>
#include <stdio.h>

#include "wal_private.h"

enum step_kind { STEP_BLOCK = 1, STEP_COMMIT, STEP_ABORT };

struct step_work {
    struct kvs_work work;
    struct kvs_snapshot *snapshot;
    struct kvs_snapshot_step *step;
    enum step_kind kind;
    uint32_t busy;
};

struct kvs_snapshot {
    struct kvs_snapshot *next; /* wal->active */
    struct wal *wal;
    struct kvs_snapshot_info info;
    uint8_t *meta;
    const struct kvs_compression_ops *codec;
    void *codec_self;
    struct kvs_file *file;
    uint64_t end, raw_bytes;
    uint32_t block_count;
    int32_t failed;
    uint8_t *stored; /* compressed block */
    size_t stored_cap;
    struct step_work slots[3];
};

void snapshot_path(char out[80], uint64_t stream, uint64_t offset, int tmp)
{
    (void)snprintf(out, 80, "snapshots/%016" PRIx64 "-%016" PRIx64 ".snap%s", stream, offset,
                   tmp ? ".tmp" : "");
}

static void snapshot_unlist(struct kvs_snapshot *s)
{
    struct wal *w = s->wal;

    (void)pthread_mutex_lock(&w->streams_lock);
    for (struct kvs_snapshot **at = &w->active; *at != NULL; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
}

static void snapshot_free(struct kvs_snapshot *s)
{
    struct wal *w = s->wal;

    snapshot_unlist(s);
    if (s->file != NULL) {
        w->host->fs->close(w->host->fs->ctx, s->file);
    }
    kvs_free(w->host, &wal_memory, s->meta, s->info.meta.len);
    kvs_free(w->host, &wal_memory, s->stored, s->stored_cap);
    kvs_free(w->host, &wal_memory, s, sizeof *s);
}

void snapshots_free(struct wal *w)
{
    while (w->active != NULL) {
        snapshot_free(w->active); /* the next start removes the file */
    }
}

/* ---- on the snapshot thread --------------------------------------------------------------------
 */

static int write_at_end(struct kvs_snapshot *s, const struct kvs_slice *slices, uint32_t count,
                        struct kvs_error *err)
{
    const struct kvs_fs *fs = s->wal->host->fs;
    int rc = fs->write(fs->ctx, s->file, s->end, slices, count, err);

    for (uint32_t i = 0; i < count && rc == 0; i++) {
        s->end += slices[i].len;
    }
    return rc;
}

static int header_put(struct kvs_snapshot *s, struct kvs_error *err)
{
    const struct kvs_fs *fs = s->wal->host->fs;
    uint8_t h[SNAPSHOT_HEADER_SIZE] = {0};
    struct kvs_slice slices[2] = {{(const char *)h, sizeof h}, s->info.meta};
    char path[80];
    int rc;

    snapshot_path(path, s->info.stream, s->info.offset, 1);
    rc = fs->open(fs->ctx, path, KVS_FS_WRITE | KVS_FS_CREATE, &s->file, err);
    rc = rc != 0 ? rc : fs->truncate(fs->ctx, s->file, 0, err);
    if (rc != 0) {
        return rc;
    }
    kvs_put_u32(h, SNAPSHOT_MAGIC);
    kvs_put_u32(h + 8, SNAPSHOT_FORMAT);
    kvs_put_u32(h + 12, s->codec == NULL ? KVS_CODEC_NONE : s->codec->id);
    kvs_put_u64(h + 16, s->info.stream);
    kvs_put_u64(h + 24, s->info.offset);
    kvs_put_u64(h + 32, s->info.item_count);
    kvs_put_u32(h + 40, s->info.leader_epoch);
    kvs_put_u32(h + 44, (uint32_t)s->info.meta.len);
    kvs_put_u32(h + 4,
                kvs_crc32c(kvs_crc32c(0, h + 8, sizeof h - 8), s->info.meta.ptr, s->info.meta.len));
    return write_at_end(s, slices, 2, err);
}

/* Compress into s->stored; the block as it is if that is not smaller. */
static struct kvs_slice compress(struct kvs_snapshot *s, struct kvs_slice raw)
{
    size_t bound, len = 0;

    if (s->codec == NULL) {
        return raw;
    }
    bound = s->codec->bound(s->codec_self, raw.len);
    if (bound > s->stored_cap) {
        kvs_free(s->wal->host, &wal_memory, s->stored, s->stored_cap);
        s->stored_cap = 0;
        s->stored = kvs_alloc(s->wal->host, &wal_memory, bound);
        if (s->stored == NULL) {
            return raw;
        }
        s->stored_cap = bound;
    }
    if (s->codec->compress(s->codec_self, raw, s->stored, s->stored_cap, &len) != 0 ||
        len >= raw.len) {
        return raw;
    }
    return kvs_slice(s->stored, len);
}

static int block_put(struct kvs_snapshot *s, struct kvs_slice raw, struct kvs_error *err)
{
    struct kvs_slice stored = compress(s, raw), slices[2];
    uint8_t h[SNAPSHOT_BLOCK_HEADER];
    int rc = s->file == NULL ? header_put(s, err) : 0;

    if (rc != 0) {
        return rc;
    }
    kvs_put_u32(h + 4, (uint32_t)stored.len);
    kvs_put_u32(h + 8, (uint32_t)raw.len);
    kvs_put_u32(h + 12, s->block_count);
    kvs_put_u32(h, kvs_crc32c(kvs_crc32c(0, h + 4, sizeof h - 4), stored.ptr, stored.len));
    slices[0] = kvs_slice(h, sizeof h);
    slices[1] = stored;
    s->block_count++;
    s->raw_bytes += raw.len;
    return write_at_end(s, slices, 2, err);
}

void snapshot_count(struct wal *w, uint64_t stream, uint64_t size)
{
    uint64_t before;
    int rc;

    (void)pthread_mutex_lock(&w->streams_lock);
    before = stream_map_get(&w->sizes, stream);
    rc = stream_map_set(w, &w->sizes, stream, size);
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (rc == 0) { /* else out of memory: it is not counted */
        (void)atomic_fetch_add_explicit(&w->snapshot_bytes, size - before, memory_order_relaxed);
        (void)atomic_fetch_add_explicit(&w->snapshot_count,
                                        (uint64_t)(size != 0) - (uint64_t)(before != 0),
                                        memory_order_relaxed);
    }
}

/* The journal thread owns the segments: ask it to look which are not needed any more. */
static void trim_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, trim_work);

    atomic_store(&w->trim_busy, 0);
    segments_trim(w);
}

void trim_ask(struct wal *w)
{
    (void)pthread_mutex_lock(&w->streams_lock);
    if (!w->stopping && atomic_exchange(&w->trim_busy, 1) == 0) {
        w->trim_work.run = trim_run;
        w->trim_work.reply_loop = KVS_LOOP_NONE;
        w->host->queue_submit(w->host->ctx, w->journal, &w->trim_work);
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
}

/* May it become the newest? *ret_former: offset of the newest so far, 0: none. Nothing changes that
 * meanwhile: drops run on this thread, and a stream has one snapshot at a time. */
static int commit_check(struct kvs_snapshot *s, uint64_t *ret_former, struct kvs_error *err)
{
    struct wal *w = s->wal;

    (void)pthread_mutex_lock(&w->streams_lock);
    *ret_former = stream_map_get(&w->snapshots, s->info.stream);
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (*ret_former == STREAM_DROPPED) {
        return kvs_err(err, KVS_ECANCELED, "the stream was dropped");
    }
    if (s->info.offset < *ret_former) {
        return kvs_err(err, KVS_ECONFLICT,
                       "a snapshot that covers more is there already: offset %" PRIu64,
                       *ret_former);
    }
    return 0;
}

/* Write the end and make the bytes durable under the temporary name. */
static int commit_file(struct kvs_snapshot *s, struct kvs_error *err)
{
    const struct kvs_fs *fs = s->wal->host->fs;
    int rc = block_put(s, kvs_slice("", 0), err); /* an empty block ends the file */

    rc = rc != 0 ? rc : fs->sync(fs->ctx, s->file, err);
    if (s->file != NULL) {
        fs->close(fs->ctx, s->file);
        s->file = NULL;
    }
    return rc;
}

/* Its former and the journal below it may go. */
static void commit_tidy(struct kvs_snapshot *s, uint64_t former)
{
    struct wal *w = s->wal;
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_error err = {0};
    char path[80];
    int rc;

    snapshot_count(w, s->info.stream, s->end);
    (void)pthread_mutex_lock(&w->streams_lock);
    rc = stream_map_raise(w, &w->snapshots, s->info.stream, s->info.offset);
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (rc != 0) {
        return; /* out of memory: the next one does it */
    }
    snapshot_path(path, s->info.stream, former, 0);
    if (former != 0 && former != s->info.offset) {
        rc = fs->remove(fs->ctx, path, &err);
    }
    if (rc != 0 && rc != KVS_ENOTFOUND) {
        KVS_LOG(w->host, KVS_LOG_WARN, "snapshot_not_removed",
                "error='%s' effect='the next start removes it'", err.msg);
    }
    trim_ask(w);
}

static int commit_put(struct kvs_snapshot *s, struct kvs_error *err)
{
    const struct kvs_fs *fs = s->wal->host->fs;
    char from[80], to[80];
    uint64_t former = 0;
    int rc = commit_check(s, &former, err);

    snapshot_path(from, s->info.stream, s->info.offset, 1);
    snapshot_path(to, s->info.stream, s->info.offset, 0);
    rc = rc != 0 ? rc : commit_file(s, err);
    rc = rc != 0 ? rc : fs->rename(fs->ctx, from, to, err);
    rc = rc != 0 ? rc : fs->sync_dir(fs->ctx, "snapshots", err);
    if (rc == 0) {
        commit_tidy(s, former);
    }
    return rc;
}

static void abort_put(struct kvs_snapshot *s)
{
    const struct kvs_fs *fs = s->wal->host->fs;
    struct kvs_error err;
    char path[80];

    if (s->file != NULL) {
        fs->close(fs->ctx, s->file);
        s->file = NULL;
    }
    snapshot_path(path, s->info.stream, s->info.offset, 1);
    (void)fs->remove(fs->ctx, path, &err); /* the next start removes what is left */
}

static void step_run(struct kvs_work *work)
{
    struct step_work *sw = KVS_CONTAINER_OF(work, struct step_work, work);
    struct kvs_snapshot *s = sw->snapshot;
    struct kvs_error err = {0};

    if (sw->kind == STEP_ABORT) {
        abort_put(s);
        snapshot_free(s);
        return;
    }
    if (s->failed == 0) {
        s->failed =
            sw->kind == STEP_BLOCK ? block_put(s, sw->step->block, &err) : commit_put(s, &err);
        if (s->failed != 0) {
            KVS_LOG(s->wal->host, KVS_LOG_WARN, "snapshot_failed",
                    "stream=%016" PRIx64 " error='%s' effect='the journal stays longer'",
                    s->info.stream, err.msg);
        }
    }
    sw->step->rc = s->failed;
}

/* ---- on the loops ------------------------------------------------------------------------------
 */

static void step_done(struct kvs_work *work)
{
    struct step_work *sw = KVS_CONTAINER_OF(work, struct step_work, work);
    struct kvs_snapshot_step *step = sw->step;
    struct kvs_snapshot *finished = sw->kind == STEP_COMMIT && step->rc == 0 ? sw->snapshot : NULL;

    sw->busy = 0;
    if (finished != NULL) {
        snapshot_free(finished);
    }
    step->cb(step, step->rc);
}

static void step_cancel(struct kvs_task *task)
{
    struct kvs_snapshot_step *step = KVS_CONTAINER_OF(task, struct kvs_snapshot_step, task);

    step->cb(step, KVS_ECANCELED);
}

static void submit(struct kvs_snapshot *s, struct kvs_snapshot_step *step, enum step_kind kind)
{
    const struct kvs_host *host = s->wal->host;
    struct step_work *sw = NULL;

    if (atomic_load(&s->wal->open) == 0) { /* stopping: the file goes at the next start */
        if (step != NULL) {
            step->task.run = step_cancel;
            kvs_post(host, host->loop_current(host->ctx), &step->task);
        }
        return;
    }

    for (size_t i = 0; i < KVS_ARRAY_COUNT(s->slots) && sw == NULL; i++) {
        sw = s->slots[i].busy ? NULL : &s->slots[i];
    }
    KVS_ASSERT(host, sw != NULL);
    memset(sw, 0, sizeof *sw);
    sw->busy = 1;
    sw->snapshot = s;
    sw->step = step;
    sw->kind = kind;
    sw->work.run = step_run;
    sw->work.done = kind == STEP_ABORT ? NULL : step_done;
    sw->work.reply_loop = kind == STEP_ABORT ? KVS_LOOP_NONE : host->loop_current(host->ctx);
    host->queue_submit(host->ctx, s->wal->pool, &sw->work);
}

static int claim_stream(struct kvs_snapshot *s, struct kvs_error *err)
{
    struct wal *w = s->wal;
    int taken = 0;

    (void)pthread_mutex_lock(&w->streams_lock);
    for (const struct kvs_snapshot *o = w->active; o != NULL; o = o->next) {
        taken |= o->info.stream == s->info.stream;
    }
    if (!taken) {
        s->next = w->active;
        w->active = s;
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
    return taken ? kvs_err(err, KVS_EBUSY, "a snapshot of this stream is being written") : 0;
}

int wal_snapshot_begin(void *self, const struct kvs_snapshot_info *info, const char *codec,
                       struct kvs_snapshot **ret_snapshot, struct kvs_error *err)
{
    struct wal *w = self;
    struct kvs_snapshot *s;
    const void *ops = NULL;
    int rc = 0;

    if (info->meta.len > KVS_SNAPSHOT_META_MAX) {
        return kvs_err(err, KVS_ETOOBIG, "snapshot meta is larger than 64 KiB");
    }
    if (atomic_load_explicit(&w->open, memory_order_acquire) == 0) {
        return kvs_err(err, KVS_ESTATE, "the journal is not open");
    }
    s = kvs_calloc(w->host, &wal_memory, sizeof *s);
    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->wal = w;
    s->info = *info;
    s->info.meta.len = 0;
    if (info->meta.len > 0) {
        s->meta = kvs_alloc(w->host, &wal_memory, info->meta.len);
        if (s->meta != NULL) {
            memcpy(s->meta, info->meta.ptr, info->meta.len);
            s->info.meta = kvs_slice(s->meta, info->meta.len);
        }
        rc = s->meta == NULL ? kvs_err(err, KVS_ENOMEM, "out of memory") : 0;
    }
    if (rc == 0 && strcmp(codec, "none") != 0) {
        rc = w->host->find(w->host->ctx, KVS_KIND_COMPRESSION, codec, &ops, &s->codec_self, err);
        s->codec = ops;
    }
    rc = rc != 0 ? rc : claim_stream(s, err);
    if (rc != 0) {
        snapshot_free(s);
        return rc;
    }
    *ret_snapshot = s;
    return 0;
}

void wal_snapshot_block(void *self, struct kvs_snapshot *snapshot, struct kvs_snapshot_step *step)
{
    struct wal *w = self;

    /* An empty block would end the file. */
    KVS_ASSERT(w->host, step->block.len > 0 && step->block.len <= KVS_SNAPSHOT_BLOCK_MAX);
    submit(snapshot, step, STEP_BLOCK);
}

void wal_snapshot_commit(void *self, struct kvs_snapshot *snapshot, struct kvs_snapshot_step *step)
{
    (void)self;
    submit(snapshot, step, STEP_COMMIT);
}

void wal_snapshot_abort(void *self, struct kvs_snapshot *snapshot)
{
    (void)self;
    submit(snapshot, NULL, STEP_ABORT);
}
