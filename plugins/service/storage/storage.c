/* SPDX-License-Identifier: MIT
 *
 * service-storage: lifecycle, recovery, upkeep; see storage.h.
 *
 * Start: the node registers with the metadata service and fetches the map; partitions are made and
 * filled from snapshots and journal on a thread of its own; then every loop gets the map and
 * requests are served. Upkeep on each loop: expired items are deleted, indexes built, snapshots
 * begun, memory counted. */
#include <inttypes.h>
#include <stdio.h>

#include <sodium.h>

#include "storage.h"

#define UPKEEP_MS      100u
#define EXPIRE_MAX     2000u /* deletions of one partition per upkeep */
#define BUILD_MAX      2000u /* items indexed per upkeep */
#define SNAPSHOT_SLICE 256u  /* items walked between requests */
#define SNAPSHOTS_MAX  1u    /* under way on one loop */
#define SNAPSHOT_OLD   60u   /* intervals after which a small change is written too */

const struct kvs_mem_tag storage_service = {"storage.service"};

#define AT(field) offsetof(struct storage_conf, field)

static const struct kvs_opt options[] = {
    {"metadata", KVS_OPT_LIST, 0, NULL, 0, 0, AT(metadata), NULL,
     "Addresses of the metadata servers; empty: the metadata service of this process."},
    {"replication.transport", KVS_OPT_STR, 0, NULL, 0, 32, AT(replication_transport), NULL,
     "Transport plugin that carries replication between storage servers."},
    {"memory_limit", KVS_OPT_BYTES, 0, "0", 0, INT64_MAX, AT(memory_limit), NULL,
     "Writes are refused (507) while items and indexes take more than this; 0: no limit."},
    {"idempotency.window", KVS_OPT_DURATION, 0, "10m", 1000, 86400000, AT(idempotency_window_ms),
     NULL, "How long an answer is remembered under its Idempotency-Key."},
    {"idempotency.keys_max", KVS_OPT_INT, 0, "100000", 100, 10000000, AT(idempotency_keys_max),
     NULL, "Answers remembered per partition, at most; the oldest go first."},
    KVS_OPTS_END,
};

/* ---- partitions --------------------------------------------------------------------------------
 */

static const struct kvs_compression_ops *codec_by_id(const struct kvs_host *host, uint32_t id,
                                                     void **ret_self)
{
    const void *ops;

    for (uint32_t i = 0; host->each(host->ctx, KVS_KIND_COMPRESSION, i, NULL, &ops, ret_self) == 0;
         i++) {
        if (((const struct kvs_compression_ops *)ops)->id == id) {
            return ops;
        }
    }
    return NULL;
}

/* The first index plugin that keeps order: for secondary indexes and expiry. */
static void find_ordered(const struct kvs_host *host, struct partition_conf *conf)
{
    const void *ops;

    for (uint32_t i = 0; conf->ordered == NULL && host->each(host->ctx, KVS_KIND_INDEX, i, NULL,
                                                             &ops, &conf->ordered_self) == 0;
         i++) {
        if (((const struct kvs_index_ops *)ops)->seek != NULL) {
            conf->ordered = ops;
        }
    }
}

static int conf_fill(struct storage *s, const struct table *t, struct partition_conf *conf,
                     struct kvs_error *err)
{
    const struct kvs_host *host = s->host;
    const void *ops = NULL;
    int rc;

    memset(conf, 0, sizeof *conf);
    conf->host = host;
    conf->persistence = s->persistence;
    conf->persistence_self = s->persistence_self;
    conf->codec_name = "none";
    conf->codec_by_id = codec_by_id;
    conf->limits = t->limits;
    conf->idempotency_window_ms = s->conf->idempotency_window_ms;
    conf->idempotency_count_max = (uint64_t)s->conf->idempotency_keys_max;
    conf->secondaries = t->secondaries;
    conf->secondary_count = t->secondary_count;
    rc = host->find(host->ctx, KVS_KIND_INDEX, t->index, &ops, &conf->index_self, err);
    conf->index = ops;
    find_ordered(host, conf);
    if (rc == 0 && strcmp(t->compression, "none") != 0 && t->compression[0] != '\0') {
        rc = host->find(host->ctx, KVS_KIND_COMPRESSION, t->compression, &ops, &conf->codec_self,
                        err);
        conf->codec = ops;
        conf->codec_name = t->compression;
    }
    return rc;
}

void table_parts_free(struct storage *s, struct table *t)
{
    for (uint32_t i = 0; t->parts != NULL && i < t->partition_count; i++) {
        if (t->parts[i] != NULL) {
            partition_free(t->parts[i]->partition);
            kvs_free(s->host, &storage_service, t->parts[i], sizeof *t->parts[i]);
        }
    }
    kvs_free(s->host, &storage_service, t->parts, t->partition_count * sizeof(struct part *));
    t->parts = NULL;
}

int table_parts_new(struct storage *s, struct table *t, struct kvs_error *err)
{
    struct partition_conf conf;
    int rc = conf_fill(s, t, &conf, err);

    t->parts =
        rc != 0 ? NULL
                : kvs_calloc(s->host, &storage_service, t->partition_count * sizeof(struct part *));
    if (t->parts == NULL) {
        return rc != 0 ? rc : kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < t->partition_count && rc == 0; i++) {
        struct part *part = kvs_calloc(s->host, &storage_service, sizeof *part);

        if (part == NULL) {
            rc = kvs_err(err, KVS_ENOMEM, "out of memory");
            break;
        }
        t->parts[i] = part;
        part->svc = s;
        part->number = i;
        part->loop = loop_of(s, t->id, i);
        part->stream = kvs_stream(t->id, i);
        part->snapshot_ms = kvs_now_ms(s->host);
        conf.stream = part->stream;
        conf.leader_epoch = t->leader_epochs[i];
        rc = partition_new(&conf, &part->partition, err);
    }
    if (rc != 0) {
        table_parts_free(s, t);
    }
    return rc;
}

/* ---- closing -----------------------------------------------------------------------------------
 */

static void drain_one(struct storage *s)
{
    if (atomic_fetch_sub_explicit(&s->drain_left, 1, memory_order_acq_rel) == 1) {
        s->drain_done(s->drain_arg);
    }
}

static void on_dropped(struct kvs_snapshot_step *step, int rc)
{
    struct part *part = KVS_CONTAINER_OF(step, struct part, drop);

    if (rc != 0) {
        KVS_LOG(part->svc->host, KVS_LOG_WARN, "stream_not_dropped",
                "stream=%016" PRIx64 " error='%s' effect='tried again at the next start'",
                part->stream, kvs_code_text(rc));
    }
    kvs_free(part->svc->host, &storage_service, part, sizeof *part);
}

/* A dropped table's partition has come to rest. */
static void on_closed_drop(void *arg)
{
    struct part *part = arg;
    struct storage *s = part->svc;

    partition_free(part->partition);
    part->partition = NULL;
    part->drop.cb = on_dropped;
    if (s->persistence->stream_drop(s->persistence_self, part->stream, &part->drop) != 0) {
        kvs_free(s->host, &storage_service, part, sizeof *part); /* stopping: at the next start */
    }
}

static void on_closed_drain(void *arg)
{
    struct part *part = arg;

    drain_one(part->svc);
}

void part_close(struct part *part, int drop)
{
    part->closed = 1;
    partition_close(part->partition, drop ? on_closed_drop : on_closed_drain, part);
}

/* ---- recovery ----------------------------------------------------------------------------------
 */

struct recovery {
    struct kvs_work work;
    struct storage *svc;
    struct map *map;
    void (*done)(struct storage *s, struct map *m);
    struct kvs_error err;
    struct kvs_recover_report report;
    uint64_t begin_ns, told_ns;
    int rc;
};

static struct partition *stream_partition(struct recovery *v, uint64_t stream)
{
    const struct table *t = map_table_by_id(v->map, (uint32_t)(stream >> 32));
    uint32_t number = (uint32_t)stream;

    return t == NULL || number >= t->partition_count ? NULL : t->parts[number]->partition;
}

static int on_snapshot_begin(void *arg, const struct kvs_snapshot_info *info, struct kvs_error *err)
{
    struct partition *p = stream_partition(arg, info->stream);

    return p == NULL ? 0 : partition_recover_begin(p, info, err);
}

static int on_snapshot_block(void *arg, uint64_t stream, struct kvs_slice raw,
                             struct kvs_error *err)
{
    struct partition *p = stream_partition(arg, stream);

    return p == NULL ? 0 : partition_recover_block(p, raw, err);
}

static int on_snapshot_end(void *arg, uint64_t stream, struct kvs_error *err)
{
    struct partition *p = stream_partition(arg, stream);

    return p == NULL ? 0 : partition_recover_end(p, err);
}

static int on_batch(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                    struct kvs_error *err)
{
    struct partition *p = stream_partition(arg, h->stream);

    return p == NULL ? 0 : partition_recover_batch(p, h, payload, err);
}

static void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    struct recovery *v = arg;
    uint64_t now = kvs_mono_ns(v->svc->host);
    char text[96];

    if (now - v->told_ns < 1000000000u) {
        return;
    }
    v->told_ns = now;
    (void)snprintf(text, sizeof text, "reading the journal: %" PRIu64 " of %" PRIu64 " MiB",
                   done_bytes >> 20, total_bytes >> 20);
    v->svc->host->ready_set(v->svc->host->ctx, "data", 0, text);
    KVS_LOG(v->svc->host, KVS_LOG_INFO, "recovering", "done_mib=%" PRIu64 " total_mib=%" PRIu64,
            done_bytes >> 20, total_bytes >> 20);
}

static void recover_run(struct kvs_work *work)
{
    static const struct kvs_recover_ops ops = {on_snapshot_begin, on_snapshot_block,
                                               on_snapshot_end, on_batch, on_progress};
    struct recovery *v = KVS_CONTAINER_OF(work, struct recovery, work);

    v->rc = v->svc->persistence->recover(v->svc->persistence_self, &ops, v, &v->report, &v->err);
    for (uint32_t i = 0; i < v->map->table_count; i++) {
        const struct table *t = v->map->tables[i];

        for (uint32_t k = 0; k < t->partition_count && v->rc == 0; k++) {
            v->rc = partition_recover_finish(t->parts[k]->partition, &v->err);
        }
    }
}

static void recover_done(struct kvs_work *work)
{
    struct recovery *v = KVS_CONTAINER_OF(work, struct recovery, work);
    struct storage *s = v->svc;
    const struct kvs_recover_report *r = &v->report;

    s->recovery = NULL;
    if (v->rc != 0) {
        KVS_LOG(s->host, KVS_LOG_ERROR, "recovery_failed",
                "error='%s' effect='this server serves no data'", v->err.msg);
        s->host->ready_set(s->host->ctx, "data", 0, v->err.msg);
        for (uint32_t i = 0; i < v->map->table_count; i++) {
            table_parts_free(s, v->map->tables[i]);
        }
        map_free(s, v->map);
    } else {
        KVS_LOG(s->host, KVS_LOG_INFO, "recovered",
                "snapshots=%" PRIu64 " batches=%" PRIu64 " records=%" PRIu64 " mib=%" PRIu64
                " torn_bytes=%" PRIu64 " clean=%s ms=%" PRIu64,
                r->snapshot_count, r->batch_count, r->record_count, r->byte_count >> 20,
                r->torn_bytes, r->clean_shutdown ? "true" : "false",
                (kvs_mono_ns(s->host) - v->begin_ns) / 1000000u);
        v->done(s, v->map);
    }
    kvs_free(s->host, &storage_service, v, sizeof *v);
}

void recover_begin(struct storage *s, struct map *m, void (*done)(struct storage *s, struct map *m))
{
    struct recovery *v = kvs_calloc(s->host, &storage_service, sizeof *v);

    KVS_ASSERT(s->host, v != NULL); /* the first hundred bytes of a server's life */
    v->svc = s;
    v->map = m;
    v->done = done;
    v->begin_ns = v->told_ns = kvs_mono_ns(s->host);
    v->work.run = recover_run;
    v->work.done = recover_done;
    v->work.reply_loop = 0;
    s->recovery = v;
    s->host->ready_set(s->host->ctx, "data", 0, "reading snapshots and journal");
    s->host->queue_submit(s->host->ctx, s->queue, &v->work);
}

/* ---- upkeep ------------------------------------------------------------------------------------
 */

static void on_snapshot(void *arg, int rc)
{
    struct part *part = arg;
    struct storage *s = part->svc;

    part->snapshot_busy = 0;
    s->loops[part->loop].snapshots--;
    if (rc != 0 && rc != KVS_ECANCELED) {
        KVS_LOG(s->host, KVS_LOG_WARN, "snapshot_failed",
                "stream=%016" PRIx64 " error='%s' effect='tried again later'", part->stream,
                kvs_code_text(rc));
    }
}

/* Time for one? A small change waits: writing a large partition again for it would cost more than
 * replaying it. */
static int snapshot_due(const struct part *part, const struct partition_stats *st, uint64_t now_ms,
                        uint64_t interval_ms)
{
    uint64_t age = now_ms - part->snapshot_ms;

    if (st->journaled_bytes == 0 || interval_ms == 0 || age < interval_ms) {
        return 0;
    }
    return st->journaled_bytes * 4 >= st->key_bytes + st->value_bytes ||
           age >= interval_ms * SNAPSHOT_OLD;
}

static void upkeep_part(struct loop *l, struct part *part, uint64_t now_ms, uint64_t *ret_memory)
{
    struct storage *s = l->svc;
    struct partition_stats st;

    if (part == NULL || part->loop != l->index || part->closed) { /* closed is its loop's */
        return;
    }
    (void)partition_expire(part->partition, now_ms, EXPIRE_MAX);
    (void)partition_build_step(part->partition, BUILD_MAX);
    partition_stats(part->partition, &st);
    *ret_memory += st.memory_bytes;
    if (l->snapshots < SNAPSHOTS_MAX && !part->snapshot_busy &&
        snapshot_due(part, &st, now_ms, s->snapshot_interval_ms) &&
        partition_snapshot_begin(part->partition, SNAPSHOT_SLICE, on_snapshot, part) == 0) {
        part->snapshot_busy = 1;
        part->snapshot_ms = now_ms;
        l->snapshots++;
    }
}

static void upkeep(void *arg)
{
    struct loop *l = arg;
    struct storage *s = l->svc;
    uint64_t memory = 0, total = 0, now_ms = kvs_now_ms(s->host);

    for (uint32_t i = 0; l->map != NULL && i < l->map->table_count; i++) {
        for (uint32_t k = 0; k < l->map->tables[i]->partition_count; k++) {
            upkeep_part(l, l->map->tables[i]->parts[k], now_ms, &memory);
        }
    }
    atomic_store_explicit(&s->memory[l->index], memory, memory_order_relaxed);
    for (uint32_t i = 0; i < s->host->loop_count; i++) {
        total += atomic_load_explicit(&s->memory[i], memory_order_relaxed);
    }
    atomic_store_explicit(&s->over_memory,
                          s->conf->memory_limit != 0 && total > s->conf->memory_limit,
                          memory_order_relaxed);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static int storage_init(const struct kvs_host *host, const void *conf, void **ret_self,
                        struct kvs_error *err)
{
    struct storage *s = kvs_calloc(host, &storage_service, sizeof *s);
    struct kvs_persistence_status status;
    const void *ops = NULL;
    int rc;

    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->host = host;
    s->conf = conf;
    host->random(host->ctx, &s->incarnation, sizeof s->incarnation);
    rc = sodium_init() < 0 ? kvs_err(err, KVS_EIO, "libsodium does not start") : 0;
    rc = rc != 0
             ? rc
             : host->find(host->ctx, KVS_KIND_PERSISTENCE, NULL, &ops, &s->persistence_self, err);
    rc = rc != 0 ? rc : host->queue_new(host->ctx, "recovery", 0, &s->queue, err);
    if (rc != 0) {
        kvs_free(host, &storage_service, s, sizeof *s);
        return rc;
    }
    s->persistence = ops;
    s->persistence->status(s->persistence_self, &status);
    s->snapshot_interval_ms = status.snapshot_interval_ms;
    for (uint32_t i = 0; i < STORAGE_LOOP_MAX; i++) {
        s->loops[i].svc = s;
        s->loops[i].index = i;
    }
    host->ready_set(host->ctx, "data", 0, "waiting for the metadata service");
    *ret_self = s;
    return 0;
}

static void start_on_loop(void *arg)
{
    struct loop *l = arg;

    l->upkeep = l->svc->host->timer_start(l->svc->host->ctx, UPKEEP_MS, UPKEEP_MS, upkeep, l);
    if (l->index == 0) {
        map_begin(l->svc);
    }
}

static int storage_start(void *self, struct kvs_error *err)
{
    struct storage *s = self;

    for (uint32_t i = s->host->loop_count; i > 0; i--) {
        s->host->run_on(s->host->ctx, i - 1, start_on_loop, &s->loops[i - 1]);
        if (s->loops[i - 1].upkeep == NULL) {
            return kvs_err(err, KVS_ENOMEM, "out of memory");
        }
    }
    return 0;
}

static void drain_loop(struct kvs_task *task)
{
    struct loop *l = KVS_CONTAINER_OF(task, struct loop, drain);
    struct storage *s = l->svc;

    if (l->index == 0) {
        s->stopped = 1;
        if (s->heartbeat != NULL) {
            s->host->timer_stop(s->host->ctx, s->heartbeat);
            s->heartbeat = NULL;
        }
        parked_resume(s);
    }
    if (l->upkeep != NULL) {
        s->host->timer_stop(s->host->ctx, l->upkeep);
        l->upkeep = NULL;
    }
    for (uint32_t i = 0; l->map != NULL && i < l->map->table_count; i++) {
        struct table *t = l->map->tables[i];

        for (uint32_t k = 0; k < t->partition_count; k++) {
            if (t->parts[k] != NULL && loop_of(s, t->id, k) == l->index && !t->parts[k]->closed) {
                (void)atomic_fetch_add_explicit(&s->drain_left, 1, memory_order_relaxed);
                part_close(t->parts[k], 0);
            }
        }
    }
    drain_one(s);
}

static void storage_drain(void *self, void (*done)(void *arg), void *arg)
{
    struct storage *s = self;

    s->drain_done = done;
    s->drain_arg = arg;
    atomic_store_explicit(&s->drain_left, s->host->loop_count, memory_order_relaxed);
    for (uint32_t i = 0; i < s->host->loop_count; i++) {
        s->loops[i].drain.run = drain_loop;
        kvs_post(s->host, i, &s->loops[i].drain);
    }
}

static void stop_on_loop(void *arg)
{
    struct loop *l = arg;
    struct storage *s = l->svc;

    if (l->index == 0) {
        s->stopped = 1;
        if (s->heartbeat != NULL) {
            s->host->timer_stop(s->host->ctx, s->heartbeat);
            s->heartbeat = NULL;
        }
    }
    if (l->upkeep != NULL) {
        s->host->timer_stop(s->host->ctx, l->upkeep);
        l->upkeep = NULL;
    }
}

static void storage_stop(void *self)
{
    struct storage *s = self;

    for (uint32_t i = 0; i < s->host->loop_count; i++) {
        s->host->run_on(s->host->ctx, i, stop_on_loop, &s->loops[i]);
    }
    s->host->queue_free(s->host->ctx, s->queue); /* a recovery under way ends first */
    s->queue = NULL;
}

static void storage_fini(void *self)
{
    struct storage *s = self;

    for (uint32_t i = 0; s->newest != NULL && i < s->newest->table_count; i++) {
        table_parts_free(s, s->newest->tables[i]);
    }
    for (uint32_t i = 0; i < s->host->loop_count; i++) {
        map_release(s, s->loops[i].map);
    }
    map_release(s, s->newest);
    s->host->queue_free(s->host->ctx, s->queue); /* if it was never started */
    kvs_free(s->host, &storage_service, s, sizeof *s);
}

static const uint32_t needs[] = {KVS_KIND_PERSISTENCE, KVS_KIND_INDEX, 0};

static const struct kvs_service_ops ops = {
    .size = sizeof ops,
    .method_count = STORAGE_METHOD_COUNT,
    .methods = STORAGE_METHODS,
    .schemas = STORAGE_SCHEMAS,
    .drain = storage_drain,
};

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "storage", .version = "1.0.0",
           .summary = "tables in memory: items, lists, indexes, batches", .opts = options,
           .conf_size = sizeof(struct storage_conf), .needs = needs, .ops = &ops,
           .init = storage_init, .start = storage_start, .stop = storage_stop,
           .fini = storage_fini);
