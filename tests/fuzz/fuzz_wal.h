/* SPDX-License-Identifier: MIT
 *
 * persistence-wal over given files: recovers them into one partition. */
#ifndef KVS_TESTS_FUZZ_WAL_H
#define KVS_TESTS_FUZZ_WAL_H

#include "fuzz_world.h"
#include "wal_private.h"

#define FUZZ_STREAM 0x100000002u

const struct kvs_plugin *kvs_plugin_entry(void);

struct fuzz_file {
    const char *path;
    const uint8_t *bytes;
    size_t len;
};

struct fuzz_recovery {
    struct partition *p;
    uint64_t records;
};

static inline int fuzz_snapshot_begin(void *arg, const struct kvs_snapshot_info *info,
                                      struct kvs_error *err)
{
    return partition_recover_begin(((struct fuzz_recovery *)arg)->p, info, err);
}

static inline int fuzz_snapshot_block(void *arg, uint64_t stream, struct kvs_slice raw,
                                      struct kvs_error *err)
{
    (void)stream;
    return partition_recover_block(((struct fuzz_recovery *)arg)->p, raw, err);
}

static inline int fuzz_snapshot_end(void *arg, uint64_t stream, struct kvs_error *err)
{
    (void)stream;
    return partition_recover_end(((struct fuzz_recovery *)arg)->p, err);
}

static inline int fuzz_batch(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                             struct kvs_error *err)
{
    struct fuzz_recovery *r = arg;

    r->records += h->count;
    return h->stream == FUZZ_STREAM ? partition_recover_batch(r->p, h, payload, err) : 0;
}

static inline void fuzz_file_put(const struct kvs_host *host, const struct fuzz_file *f)
{
    struct kvs_slice bytes = {(const char *)f->bytes, f->len};
    struct kvs_file *file;

    FUZZ_CHECK(host->fs->open(host->fs->ctx, f->path, KVS_FS_WRITE | KVS_FS_CREATE, &file, NULL) ==
                       0 &&
                   host->fs->write(host->fs->ctx, file, 0, &bytes, 1, NULL) == 0,
               "a file cannot be written");
    host->fs->close(host->fs->ctx, file);
}

/* Recover the files; the code of recover(). Recovered or not, the plugin stops in order. */
static inline int fuzz_recover(const struct fuzz_file *files, uint32_t count,
                               struct kvs_recover_report *report)
{
    static const struct wal_conf CONF = {
        .segment_size = 1 << 20, .sync_interval_ms = 100, .snapshot_interval_ms = 60000};
    static const struct kvs_recover_ops OPS = {.snapshot_begin = fuzz_snapshot_begin,
                                               .snapshot_block = fuzz_snapshot_block,
                                               .snapshot_end = fuzz_snapshot_end,
                                               .batch = fuzz_batch};
    const struct kvs_plugin *plugin = kvs_plugin_entry();
    const struct kvs_persistence_ops *ops = plugin->ops;
    struct fuzz_recovery r = {0};
    struct kvs_error err = {0};
    struct fuzz_world w;
    void *self;
    int rc;

    fuzz_world_open(&w);
    r.p = fuzz_partition_new(&w, FUZZ_STREAM);
    FUZZ_CHECK(plugin->init(w.host, &CONF, &self, NULL) == 0, "the journal does not start");
    for (uint32_t i = 0; i < count; i++) {
        fuzz_file_put(w.host, &files[i]);
    }
    FUZZ_CHECK(plugin->start(self, NULL) == 0, "the journal does not start");
    rc = ops->recover(self, &OPS, &r, report, &err);
    rc = rc != 0 ? rc : partition_recover_finish(r.p, &err);
    FUZZ_CHECK(rc == 0 || err.msg[0] != '\0', "an error has no message");
    FUZZ_CHECK(rc != 0 || r.records == report->record_count, "the report counts wrong");
    plugin->stop(self);
    plugin->fini(self);
    fuzz_partition_free(&w, r.p, rc);
    fuzz_world_close(&w);
    return rc;
}

#endif
