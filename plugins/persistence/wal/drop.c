/* SPDX-License-Identifier: MIT
 *
 * Forgetting streams; see wal_private.h.
 *
 * Which streams were dropped stands in the file journal/dropped (layout in blob.c), 16 bytes each:
 *
 *   offset size  field                little-endian
 *        0    8  stream
 *        8    8  seq                  no segment beyond holds a batch of it
 *
 * A drop goes over the journal thread first: what the loop appended before is written then, so that
 * the newest segment is the last that can hold the stream. The snapshot thread does the rest, for
 * all that wait at once: a dropped table is many streams. The entry goes when the snapshot and the
 * segments are gone, both durably: else they could come back after a power cut, without it. */
#include "wal_private.h"

#define DROPPED_MAX  65536u /* streams */
#define DROPPED_SIZE 16u

struct drop {
    struct drop *next;
    struct kvs_snapshot_step *step;
    uint64_t stream, seq;
};

/* ---- the list ----------------------------------------------------------------------------------
 */

static int dropped_add(struct wal *w, uint64_t stream, uint64_t seq)
{
    const struct kvs_host *host = w->host;

    if (stream_map_get(&w->snapshots, stream) == STREAM_DROPPED) { /* asked for again: rare */
        for (size_t i = 0; i < w->dropped_count; i++) {
            if (w->dropped[i].stream == stream) {
                w->dropped[i].seq = seq > w->dropped[i].seq ? seq : w->dropped[i].seq;
                return 0;
            }
        }
    }
    if (w->dropped_count == DROPPED_MAX) {
        return KVS_ETOOMANY;
    }
    if (w->dropped_count == w->dropped_cap) {
        size_t cap = w->dropped_cap == 0 ? 16 : w->dropped_cap * 2;
        struct dropped *grown = kvs_alloc(host, &wal_memory, cap * sizeof *grown);

        if (grown == NULL) {
            return KVS_ENOMEM;
        }
        if (w->dropped_count > 0) {
            memcpy(grown, w->dropped, w->dropped_count * sizeof *grown);
        }
        kvs_free(host, &wal_memory, w->dropped, w->dropped_cap * sizeof *grown);
        w->dropped = grown;
        w->dropped_cap = cap;
    }
    w->dropped[w->dropped_count++] = (struct dropped){stream, seq, 0};
    return 0;
}

/* Leave out what nothing on the disk is about any more. */
static void dropped_prune(struct wal *w)
{
    uint64_t first = atomic_load(&w->first_seq);
    size_t n = 0;

    for (size_t i = 0; i < w->dropped_count; i++) {
        if (!w->dropped[i].snapshot_gone || w->dropped[i].seq >= first) {
            w->dropped[n++] = w->dropped[i];
        }
    }
    w->dropped_count = n;
}

static int dropped_write(struct wal *w, struct kvs_error *err)
{
    size_t size = w->dropped_count * DROPPED_SIZE;
    uint8_t *bytes = kvs_alloc(w->host, &wal_memory, size);
    int rc;

    if (bytes == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < w->dropped_count; i++) {
        kvs_put_u64(bytes + i * DROPPED_SIZE, w->dropped[i].stream);
        kvs_put_u64(bytes + i * DROPPED_SIZE + 8, w->dropped[i].seq);
    }
    rc = file_put(w, "journal", "dropped", kvs_slice(bytes, size), err);
    kvs_free(w->host, &wal_memory, bytes, size);
    return rc;
}

int dropped_read(struct wal *w, struct kvs_error *err)
{
    struct kvs_buf bytes;
    int rc;

    kvs_buf_init(&bytes, w->host, &wal_memory);
    rc = file_get(w, "journal", "dropped", DROPPED_MAX * DROPPED_SIZE, &bytes, err);
    for (size_t at = 0; at + DROPPED_SIZE <= bytes.len && rc == 0; at += DROPPED_SIZE) {
        uint64_t stream = kvs_get_u64(bytes.ptr + at);

        rc = dropped_add(w, stream, kvs_get_u64(bytes.ptr + at + 8));
        rc = rc != 0 ? rc : stream_map_raise(w, &w->snapshots, stream, STREAM_DROPPED);
        rc = rc != 0 ? kvs_err(err, rc, "read 'journal/dropped': %s", kvs_code_text(rc)) : 0;
    }
    kvs_buf_fini(&bytes);
    return rc;
}

void dropped_tidied(struct wal *w)
{
    for (size_t i = 0; i < w->dropped_count; i++) {
        w->dropped[i].snapshot_gone = 1;
    }
}

void dropped_free(struct wal *w)
{
    kvs_free(w->host, &wal_memory, w->dropped, w->dropped_cap * sizeof *w->dropped);
    w->dropped = NULL;
    w->dropped_count = w->dropped_cap = 0;
}

/* ---- on the snapshot thread --------------------------------------------------------------------
 */

static void drop_reply(struct kvs_task *task)
{
    struct kvs_snapshot_step *step = KVS_CONTAINER_OF(task, struct kvs_snapshot_step, task);

    step->cb(step, step->rc);
}

/* From here on no snapshot of them is committed. */
static int streams_mark(struct wal *w, const struct drop *list)
{
    int rc = 0;

    (void)pthread_mutex_lock(&w->streams_lock);
    for (const struct drop *d = list; d != NULL && rc == 0; d = d->next) {
        rc = stream_map_raise(w, &w->snapshots, d->stream, STREAM_DROPPED);
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
    return rc;
}

/* All of `list`; the file is written once. */
static int drops_do(struct wal *w, const struct drop *list, struct kvs_error *err)
{
    struct kvs_error untidy = {0};
    size_t before;
    int rc = 0;

    dropped_prune(w);
    before = w->dropped_count;
    for (const struct drop *d = list; d != NULL && rc == 0; d = d->next) {
        rc = dropped_add(w, d->stream, d->seq);
    }
    rc = rc != 0 ? kvs_err(err, rc, "%s", kvs_code_text(rc)) : dropped_write(w, err);
    if (rc != 0) {
        w->dropped_count = before; /* the file may say so already, or not */
        return rc;
    }
    rc = streams_mark(w, list);
    if (rc != 0) {
        return kvs_err(err, rc, "%s", kvs_code_text(rc));
    }
    for (const struct drop *d = list; d != NULL; d = d->next) {
        snapshot_count(w, d->stream, 0);
    }
    if (snapshots_tidy(w, 0, &untidy) == 0) {
        dropped_tidied(w);
    } else {
        KVS_LOG(w->host, KVS_LOG_WARN, "snapshot_not_removed",
                "error='%s' effect='tried again at the next drop or start'", untidy.msg);
    }
    return 0;
}

static void drop_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, drop_work);
    struct kvs_error err = {0};
    struct drop *list;
    int rc;

    (void)pthread_mutex_lock(&w->streams_lock);
    w->drop_busy = 0;
    list = w->marked;
    w->marked = NULL;
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (list == NULL) {
        return; /* the run before took it along */
    }
    rc = drops_do(w, list, &err);
    if (rc != 0) {
        KVS_LOG(w->host, KVS_LOG_WARN, "streams_not_dropped", "error='%s'", err.msg);
    } else {
        trim_ask(w);
    }
    while (list != NULL) {
        struct drop *d = list;

        list = d->next;
        d->step->rc = rc;
        d->step->task.run = drop_reply;
        kvs_post(w->host, d->step->loop, &d->step->task);
        kvs_free(w->host, &wal_memory, d, sizeof *d);
    }
}

/* ---- on the journal thread ---------------------------------------------------------------------
 */

static void mark_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, mark_work);
    struct drop *list;
    int submit;

    (void)pthread_mutex_lock(&w->streams_lock);
    w->mark_busy = 0;
    list = w->asked;
    w->asked = NULL;
    (void)pthread_mutex_unlock(&w->streams_lock);
    writer_flush(w);
    (void)pthread_mutex_lock(&w->streams_lock);
    while (list != NULL) {
        struct drop *d = list;

        list = d->next;
        d->seq = w->next_seq == 0 ? 0 : w->next_seq - 1;
        d->next = w->marked;
        w->marked = d;
    }
    submit = w->marked != NULL && !w->drop_busy;
    w->drop_busy |= (uint32_t)submit;
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (submit) {
        w->drop_work.run = drop_run;
        w->drop_work.reply_loop = KVS_LOOP_NONE;
        w->host->queue_submit(w->host->ctx, w->pool, &w->drop_work);
    }
}

/* ---- on the loops ------------------------------------------------------------------------------
 */

int wal_stream_drop(void *self, uint64_t stream, struct kvs_snapshot_step *step)
{
    struct wal *w = self;
    const struct kvs_host *host = w->host;
    uint32_t loop = host->loop_current(host->ctx);
    struct drop *d;
    int submit;

    KVS_ASSERT(host, loop < host->loop_count);
    KVS_ASSERT(host, stream != UINT64_MAX);
    if (atomic_load_explicit(&w->open, memory_order_acquire) == 0) {
        return KVS_ESTATE;
    }
    d = kvs_calloc(host, &wal_memory, sizeof *d);
    if (d == NULL) {
        return KVS_ENOMEM;
    }
    step->loop = loop;
    d->step = step;
    d->stream = stream;
    loop_flush(&w->loops[loop]);
    (void)pthread_mutex_lock(&w->streams_lock);
    d->next = w->asked;
    w->asked = d;
    submit = !w->mark_busy;
    w->mark_busy = 1;
    (void)pthread_mutex_unlock(&w->streams_lock);
    if (submit) {
        w->mark_work.run = mark_run;
        w->mark_work.reply_loop = KVS_LOOP_NONE;
        host->queue_submit(host->ctx, w->journal, &w->mark_work);
    }
    return 0;
}
