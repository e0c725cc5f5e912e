/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: every append is acknowledged and none is kept. */
#include "kvs/persistence.h"

static const struct kvs_mem_tag MEMORY = {"broken"};

struct broken {
    const struct kvs_host *host;
    uint32_t recovered;
};

static int broken_recover(void *self, const struct kvs_recover_ops *ops, void *arg,
                          struct kvs_recover_report *ret_report, struct kvs_error *err)
{
    struct broken *b = self;

    (void)ops;
    (void)arg;
    (void)err;
    memset(ret_report, 0, sizeof *ret_report);
    ret_report->clean_shutdown = 1;
    b->recovered = 1;
    return 0;
}

static void on_turn(struct kvs_task *task)
{
    struct kvs_append *a = KVS_CONTAINER_OF(task, struct kvs_append, task);

    a->cb(a, 0); /* the defect: nothing was written */
}

static int broken_append(void *self, struct kvs_append *append)
{
    const struct broken *b = self;

    if (!b->recovered) {
        return KVS_ESTATE;
    }
    if (append->batch.len < KVS_BATCH_HEADER_SIZE) {
        return KVS_ETOOBIG;
    }
    append->task.run = on_turn;
    kvs_post(b->host, b->host->loop_current(b->host->ctx), &append->task);
    return 0;
}

static int broken_begin(void *self, const struct kvs_snapshot_info *info, const char *codec,
                        struct kvs_snapshot **ret_snapshot, struct kvs_error *err)
{
    (void)self;
    (void)info;
    (void)codec;
    (void)ret_snapshot;
    return kvs_err(err, KVS_ENOTSUP, "no snapshots");
}

static void broken_step(void *self, struct kvs_snapshot *snapshot, struct kvs_snapshot_step *step)
{
    (void)self;
    (void)snapshot;
    (void)step;
}

static void broken_abort(void *self, struct kvs_snapshot *snapshot)
{
    (void)self;
    (void)snapshot;
}

static int broken_drop(void *self, uint64_t stream, struct kvs_snapshot_step *step)
{
    (void)self;
    (void)stream;
    (void)step;
    return KVS_ENOTSUP;
}

static int broken_blob_put(void *self, const char *name, struct kvs_slice bytes,
                           struct kvs_error *err)
{
    (void)self;
    (void)name;
    (void)bytes;
    return kvs_err(err, KVS_ENOTSUP, "no blobs");
}

static int broken_blob_get(void *self, const char *name, void *buf, size_t buf_size,
                           size_t *ret_len, struct kvs_error *err)
{
    (void)self;
    (void)name;
    (void)buf;
    (void)buf_size;
    (void)err;
    *ret_len = 0;
    return 0;
}

static void broken_status(void *self, struct kvs_persistence_status *ret)
{
    (void)self;
    memset(ret, 0, sizeof *ret);
}

static int broken_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    struct broken *b = kvs_calloc(host, &MEMORY, sizeof *b);

    (void)conf;
    if (b == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    b->host = host;
    *ret_self = b;
    return 0;
}

static void broken_fini(void *self)
{
    struct broken *b = self;

    kvs_free(b->host, &MEMORY, b, sizeof *b);
}

static const struct kvs_persistence_ops ops = {
    .size = sizeof ops,
    .recover = broken_recover,
    .append = broken_append,
    .snapshot_begin = broken_begin,
    .snapshot_block = broken_step,
    .snapshot_commit = broken_step,
    .snapshot_abort = broken_abort,
    .stream_drop = broken_drop,
    .blob_put = broken_blob_put,
    .blob_get = broken_blob_get,
    .status = broken_status,
};

KVS_PLUGIN(.kind = KVS_KIND_PERSISTENCE, .caps = KVS_PERSISTENCE_CAP_DURABLE, .name = "broken",
           .version = "1", .summary = "keeps nothing", .ops = &ops, .init = broken_init,
           .fini = broken_fini);
