/* SPDX-License-Identifier: MIT
 *
 * persistence-wal: the node's shared journal; see wal_private.h and README.md.
 *
 * This file is what runs on the event loops: an append is linked into the list of its loop; at the
 * end of the round the list is handed to the journal thread, which writes what it finds, of all
 * loops, as one frame and makes it durable once; the list comes back and its callbacks run in
 * order. */
#include "wal_private.h"

const struct kvs_mem_tag wal_memory = {"persistence.wal"};

static const char *const SYNC_CHOICES[] = {"always", "interval", "os", NULL};

#define AT(field) offsetof(struct wal_conf, field)

static const struct kvs_opt options[] = {
    {"sync", KVS_OPT_ENUM, 0, "always", 0, 0, AT(sync), SYNC_CHOICES,
     "always: acknowledged means on disk. interval: a power cut may lose up to sync_interval of "
     "acknowledged writes. os: it may lose whatever the kernel had not written."},
    {"sync_interval", KVS_OPT_DURATION, 0, "100ms", 1, 60000, AT(sync_interval_ms), NULL,
     "How often the journal is made durable with sync: interval."},
    {"segment_size", KVS_OPT_BYTES, 0, "64MiB", 1 << 20, 1 << 30, AT(segment_size), NULL,
     "Size of a journal file; written files are used again."},
    {"snapshot_interval", KVS_OPT_DURATION, 0, "60s", 1000, 86400000, AT(snapshot_interval_ms),
     NULL,
     "How often a table that changed is written as a snapshot, so that the journal can be "
     "shortened."},
    KVS_OPTS_END,
};

int hex16(const char *text, uint64_t *ret_v)
{
    uint64_t v = 0;

    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = text[i] == '\0' ? NULL : strchr(digits, text[i]);

        if (at == NULL) {
            return 0;
        }
        v = v << 4 | (uint64_t)(at - digits);
    }
    *ret_v = v;
    return 1;
}

/* ---- completion --------------------------------------------------------------------------------
 */

/* Move this loop's appends from the inbox to its outbox: they build on one that failed. */
static void inbox_take_locked(struct wal *w, uint32_t loop)
{
    struct append_list all = {NULL, &all.head};

    append_list_join(&all, &w->inbox);
    while (all.head != NULL) {
        struct kvs_task *task = append_list_pop(&all);

        append_list_push(append_of(task)->loop == loop ? &w->loops[loop].outbox : &w->inbox, task);
    }
}

static void on_completed(struct kvs_task *task)
{
    struct loop_state *l = KVS_CONTAINER_OF(task, struct loop_state, completed);
    struct wal *w = l->wal;
    struct append_list list = {NULL, &list.head};
    int failing;

    (void)pthread_mutex_lock(&w->lock);
    l->posted = 0;
    failing = l->failing != 0;
    l->failing = 0;
    append_list_join(&list, &l->outbox);
    if (failing) {
        /* Everything this loop appended before it hears of the failure fails with it. */
        inbox_take_locked(w, (uint32_t)(l - w->loops));
        append_list_join(&l->outbox, &l->mine);
        for (struct kvs_task *t = l->outbox.head; t != NULL; t = t->next) {
            append_of(t)->rc = KVS_ENOSPC;
        }
        append_list_join(&list, &l->outbox);
    }
    (void)pthread_mutex_unlock(&w->lock);
    while (list.head != NULL) {
        struct kvs_append *a = append_of(append_list_pop(&list));

        a->cb(a, a->rc);
    }
}

/* ---- append ------------------------------------------------------------------------------------
 */

void loop_flush(struct loop_state *l)
{
    struct wal *w = l->wal;
    int submit;

    if (l->mine.head == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&w->lock);
    append_list_join(&w->inbox, &l->mine);
    submit = !w->writing;
    w->writing = 1;
    (void)pthread_mutex_unlock(&w->lock);
    if (submit) {
        w->host->queue_submit(w->host->ctx, w->journal, &w->work);
    }
}

static void on_flush(struct kvs_task *task)
{
    struct loop_state *l = KVS_CONTAINER_OF(task, struct loop_state, flush);

    l->flush_armed = 0;
    loop_flush(l);
}

static int wal_append(void *self, struct kvs_append *append)
{
    struct wal *w = self;
    const struct kvs_host *host = w->host;
    uint32_t loop = host->loop_current(host->ctx);
    struct loop_state *l;

    KVS_ASSERT(host, loop < host->loop_count);
    if (atomic_load_explicit(&w->failed, memory_order_relaxed) != 0) {
        return KVS_EFAILED;
    }
    if (atomic_load_explicit(&w->open, memory_order_acquire) == 0) {
        return KVS_ESTATE;
    }
    if (append->batch.len < KVS_BATCH_HEADER_SIZE || append->batch.len > KVS_BATCH_SIZE_MAX) {
        return KVS_ETOOBIG;
    }
    /* A batch of another size than it says would make all behind it unreadable. */
    KVS_ASSERT(host, kvs_get_u32(append->batch.ptr) == KVS_BATCH_MAGIC);
    KVS_ASSERT(host, kvs_get_u32(append->batch.ptr + 8) == append->batch.len);
    l = &w->loops[loop];
    append->loop = loop;
    append->rc = 0;
    append_list_push(&l->mine, &append->task);
    if (!l->flush_armed) {
        l->flush_armed = 1;
        l->flush.run = on_flush;
        host->defer(host->ctx, &l->flush);
    }
    return 0;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void metrics_make(struct wal *w)
{
    static const struct kvs_metric SYNC = {
        "kvs_wal_fsync_seconds",
        KVS_METRIC_HISTOGRAM,
        0,
        "seconds",
        "Time of one fdatasync.",
        "Every durable write waits for one: a slow disk shows here first."};
    static const struct kvs_metric BYTES = {"kvs_wal_write_bytes_total",
                                            KVS_METRIC_COUNTER,
                                            0,
                                            "bytes",
                                            "Bytes written to the journal.",
                                            ""};
    static const struct kvs_metric GROUP = {
        "kvs_wal_group_appends",
        KVS_METRIC_HISTOGRAM,
        0,
        "",
        "Appends written, and with sync: always made durable, at once.",
        "Near one under load means that writers wait for each other elsewhere."};
    static const struct kvs_metric SEGMENTS = {
        "kvs_wal_segments",
        KVS_METRIC_GAUGE,
        0,
        "",
        "Journal files in use.",
        "Growing without end: some table gets no snapshots."};

    w->sync_seconds = w->host->metric(w->host->ctx, &SYNC, "");
    w->write_bytes = w->host->metric(w->host->ctx, &BYTES, "");
    w->group_size = w->host->metric(w->host->ctx, &GROUP, "");
    w->segment_gauge = w->host->metric(w->host->ctx, &SEGMENTS, "");
}

static void wal_free(struct wal *w)
{
    segments_free(w);
    snapshots_free(w);
    dropped_free(w);
    stream_map_free(w, &w->snapshots);
    stream_map_free(w, &w->sizes);
    kvs_free(w->host, &wal_memory, w->slices, (GROUP_COUNT_MAX + 2) * sizeof *w->slices);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_mutex_destroy(&w->streams_lock);
    kvs_free(w->host, &wal_memory, w, sizeof *w);
}

static int make_dirs(struct wal *w, struct kvs_error *err)
{
    static const char *const DIRS[] = {"journal", "snapshots", "blobs"};
    const struct kvs_fs *fs = w->host->fs;
    int rc = 0;

    for (size_t i = 0; i < KVS_ARRAY_COUNT(DIRS) && rc == 0; i++) {
        rc = fs->mkdir(fs->ctx, DIRS[i], err);
    }
    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "", err);
}

static int wal_init(const struct kvs_host *host, const void *conf, void **ret_self,
                    struct kvs_error *err)
{
    struct wal *w;
    int rc;

    if (host->loop_count > WAL_LOOP_MAX) {
        return kvs_err(err, KVS_ETOOMANY, "persistence-wal serves at most %u event loops",
                       WAL_LOOP_MAX);
    }
    w = kvs_calloc(host, &wal_memory, sizeof *w);
    if (w == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    w->host = host;
    w->conf = conf;
    append_list_clear(&w->inbox);
    w->work.run = writer_run;
    w->work.reply_loop = KVS_LOOP_NONE;
    w->sync_work.run = writer_sync_run;
    w->sync_work.reply_loop = KVS_LOOP_NONE;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_mutex_init(&w->streams_lock, NULL);
    for (uint32_t i = 0; i < WAL_LOOP_MAX; i++) {
        w->loops[i].wal = w;
        append_list_clear(&w->loops[i].mine);
        append_list_clear(&w->loops[i].outbox);
        w->loops[i].completed.run = on_completed;
    }
    metrics_make(w);
    w->slices = kvs_alloc(host, &wal_memory, (GROUP_COUNT_MAX + 2) * sizeof *w->slices);
    rc = w->slices == NULL ? kvs_err(err, KVS_ENOMEM, "out of memory") : make_dirs(w, err);
    rc = rc != 0 ? rc : host->queue_new(host->ctx, "journal", 1, &w->journal, err);
    rc = rc != 0 ? rc : host->queue_new(host->ctx, "snapshot", 0, &w->pool, err);
    if (rc != 0) {
        host->queue_free(host->ctx, w->journal);
        wal_free(w);
        return rc;
    }
    *ret_self = w;
    return 0;
}

static void on_sync_timer(void *arg)
{
    struct wal *w = arg;

    if (atomic_exchange(&w->sync_busy, 1) == 0) {
        w->host->queue_submit(w->host->ctx, w->journal, &w->sync_work);
    }
}

static void start_timer(void *arg)
{
    struct wal *w = arg;

    w->sync_timer = w->host->timer_start(w->host->ctx, w->conf->sync_interval_ms,
                                         w->conf->sync_interval_ms, on_sync_timer, w);
}

/* On every loop, after `open` became 0: what it appended goes to the journal thread, and it has
 * seen that nothing more is taken. */
static void stop_on_loop(void *arg)
{
    struct loop_state *l = arg;
    struct wal *w = l->wal;

    loop_flush(l);
    if (l == &w->loops[0] && w->sync_timer != NULL) {
        w->host->timer_stop(w->host->ctx, w->sync_timer);
        w->sync_timer = NULL;
    }
}

static int wal_start(void *self, struct kvs_error *err)
{
    struct wal *w = self;

    if (w->conf->sync == WAL_SYNC_INTERVAL) {
        w->host->run_on(w->host->ctx, 0, start_timer, w);
        if (w->sync_timer == NULL) {
            return kvs_err(err, KVS_ENOMEM, "out of memory");
        }
    }
    return 0;
}

static void wal_stop(void *self)
{
    struct wal *w = self;
    const struct kvs_host *host = w->host;
    struct kvs_error err = {0};
    uint32_t was_open;
    int rc = 0;

    (void)pthread_mutex_lock(&w->streams_lock);
    was_open = atomic_exchange(&w->open, 0);
    w->stopping = 1;
    (void)pthread_mutex_unlock(&w->streams_lock);
    for (uint32_t i = 0; i < host->loop_count && w->journal != NULL; i++) {
        host->run_on(host->ctx, i, stop_on_loop, &w->loops[i]);
    }
    /* Each waits for what was submitted. The journal's gives the snapshots' work; the other way
     * only until `stopping`. */
    host->queue_free(host->ctx, w->journal);
    host->queue_free(host->ctx, w->pool);
    w->journal = w->pool = NULL;
    if (was_open && atomic_load(&w->failed) == 0) {
        rc = writer_erase(w, &err);
        rc = rc != 0 ? rc : writer_sync(w, &err);
        rc = rc != 0 ? rc : clean_write(w, &err);
        if (rc != 0) {
            KVS_LOG(host, KVS_LOG_ERROR, "clean_stop_failed",
                    "error='%s' effect='the next start takes it for a crash'", err.msg);
        }
    }
}

static void wal_fini(void *self)
{
    struct wal *w = self;

    w->host->queue_free(w->host->ctx, w->journal); /* if it was never started */
    w->host->queue_free(w->host->ctx, w->pool);
    if (w->file != NULL) {
        w->host->fs->close(w->host->fs->ctx, w->file);
    }
    wal_free(w);
}

static void wal_status(void *self, struct kvs_persistence_status *ret)
{
    struct wal *w = self;

    memset(ret, 0, sizeof *ret);
    ret->journal_bytes = atomic_load_explicit(&w->journal_bytes, memory_order_relaxed);
    ret->journal_segments = atomic_load_explicit(&w->journal_segments, memory_order_relaxed);
    ret->snapshot_bytes = atomic_load_explicit(&w->snapshot_bytes, memory_order_relaxed);
    ret->snapshot_count = atomic_load_explicit(&w->snapshot_count, memory_order_relaxed);
    ret->appended_bytes = atomic_load_explicit(&w->appended_bytes, memory_order_relaxed);
    ret->synced_batches = atomic_load_explicit(&w->synced_batches, memory_order_relaxed);
    ret->sync_count = atomic_load_explicit(&w->sync_count, memory_order_relaxed);
    ret->failed = atomic_load_explicit(&w->failed, memory_order_relaxed);
    ret->last_append = atomic_load_explicit(&w->last_append, memory_order_relaxed);
    ret->snapshot_interval_ms = w->conf->snapshot_interval_ms;
}

static const struct kvs_persistence_ops ops = {
    .size = sizeof ops,
    .recover = wal_recover,
    .append = wal_append,
    .snapshot_begin = wal_snapshot_begin,
    .snapshot_block = wal_snapshot_block,
    .snapshot_commit = wal_snapshot_commit,
    .snapshot_abort = wal_snapshot_abort,
    .stream_drop = wal_stream_drop,
    .blob_put = wal_blob_put,
    .blob_get = wal_blob_get,
    .status = wal_status,
};

KVS_PLUGIN(.kind = KVS_KIND_PERSISTENCE, .caps = KVS_PERSISTENCE_CAP_DURABLE, .name = "wal",
           .version = "1.0.0", .summary = "one write-ahead journal for all tables, and snapshots",
           .opts = options, .conf_size = sizeof(struct wal_conf), .ops = &ops, .init = wal_init,
           .start = wal_start, .stop = wal_stop, .fini = wal_fini);
