/* SPDX-License-Identifier: MIT
 *
 * Reading snapshots at recovery.
 *
 *   offset size  field                 little-endian
 *        0    4  magic                 "KVSS"
 *        4    4  crc32c                over bytes 8 .. 55 and meta
 *        8    4  format                1
 *       12    4  codec                 KVS_CODEC_*
 *       16    8  stream
 *       24    8  offset                everything below is in it
 *       32    8  item_count
 *       40    4  leader_epoch
 *       44    4  meta_len
 *       48    8  reserved              0
 *       56       meta, then blocks:
 *        0    4  crc32c                over bytes 4 .. 15 and the stored bytes
 *        4    4  stored_len            equal to raw_len: not compressed
 *        8    4  raw_len               0: the end
 *       12    4  index                 0, 1, 2, ..
 *       16       stored bytes
 *
 * A file under its final name is whole, because it was synced before it was renamed: if it is not,
 * it is damaged. Of two files of one stream the newer counts, the older was about to be removed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "wal_private.h"

#define DROPPED_PATH "journal/dropped"
#define DROPPED_MAX  65536u

struct found {
    struct found *next;
    uint64_t stream, offset;
};

struct listing {
    struct wal *w;
    struct found *first; /* newest of each stream */
    int rc;
};

struct file {
    struct wal *w;
    struct kvs_file *file;
    char path[80];
    uint64_t at, size;
    uint8_t *stored, *raw;
};

static int broken(const struct file *f, uint64_t offset, const char *what, struct kvs_error *err)
{
    return kvs_err(err, KVS_ECORRUPT,
                   "'%s' is damaged at offset %" PRIu64
                   ": %s. Restore the file, or this node's data "
                   "from a backup or a replica",
                   f->path, offset, what);
}

static int read_exact(struct file *f, void *buf, size_t n, struct kvs_error *err)
{
    const struct kvs_fs *fs = f->w->host->fs;
    size_t got = 0;
    int rc = fs->read(fs->ctx, f->file, f->at, buf, n, &got, err);

    if (rc == 0 && got < n) {
        return broken(f, f->at, "the file ends too early", err);
    }
    f->at += n;
    return rc;
}

static const struct kvs_compression_ops *codec_by_id(struct wal *w, uint32_t id, void **ret_self)
{
    const void *ops;

    for (uint32_t i = 0;
         w->host->each(w->host->ctx, KVS_KIND_COMPRESSION, i, NULL, &ops, ret_self) == 0; i++) {
        if (((const struct kvs_compression_ops *)ops)->id == id) {
            return ops;
        }
    }
    return NULL;
}

static int read_head(struct file *f, struct kvs_snapshot_info *info, uint32_t *ret_codec,
                     struct kvs_error *err)
{
    uint8_t h[SNAPSHOT_HEADER_SIZE];
    uint32_t meta_len;
    int rc = read_exact(f, h, sizeof h, err);

    if (rc != 0) {
        return rc;
    }
    meta_len = kvs_get_u32(h + 44);
    if (kvs_get_u32(h) != SNAPSHOT_MAGIC || meta_len > KVS_SNAPSHOT_META_MAX) {
        return broken(f, 0, "not a snapshot", err);
    }
    rc = read_exact(f, f->raw, meta_len, err);
    if (rc != 0) {
        return rc;
    }
    if (kvs_crc32c(kvs_crc32c(0, h + 8, sizeof h - 8), f->raw, meta_len) != kvs_get_u32(h + 4)) {
        return broken(f, 0, "wrong checksum of the header", err);
    }
    if (kvs_get_u32(h + 8) > SNAPSHOT_FORMAT) {
        return kvs_err(err, KVS_EFORMAT,
                       "'%s' has snapshot format %" PRIu32 ", this version reads %u", f->path,
                       kvs_get_u32(h + 8), SNAPSHOT_FORMAT);
    }
    if (kvs_get_u64(h + 16) != info->stream || kvs_get_u64(h + 24) != info->offset) {
        return broken(f, 16, "stream or offset differ from the file's name", err);
    }
    *ret_codec = kvs_get_u32(h + 12);
    info->item_count = kvs_get_u64(h + 32);
    info->leader_epoch = kvs_get_u32(h + 40);
    info->meta = kvs_slice(f->raw, meta_len);
    return 0;
}

static int read_block(struct file *f, uint32_t index, const struct kvs_compression_ops *codec,
                      void *codec_self, struct kvs_slice *ret_raw, struct kvs_error *err)
{
    uint64_t at = f->at;
    uint8_t h[SNAPSHOT_BLOCK_HEADER];
    uint32_t stored_len, raw_len;
    int rc = read_exact(f, h, sizeof h, err);

    if (rc != 0) {
        return rc;
    }
    stored_len = kvs_get_u32(h + 4);
    raw_len = kvs_get_u32(h + 8);
    if (stored_len > raw_len || raw_len > KVS_SNAPSHOT_BLOCK_MAX || kvs_get_u32(h + 12) != index) {
        return broken(f, at, "not a block", err);
    }
    rc = read_exact(f, f->stored, stored_len, err);
    if (rc != 0) {
        return rc;
    }
    if (kvs_crc32c(kvs_crc32c(0, h + 4, sizeof h - 4), f->stored, stored_len) != kvs_get_u32(h)) {
        return broken(f, at, "wrong checksum of a block", err);
    }
    *ret_raw = kvs_slice(f->stored, stored_len);
    if (stored_len == raw_len) {
        return 0;
    }
    if (codec == NULL) {
        return kvs_err(err, KVS_ENOTFOUND,
                       "'%s' was compressed with a plugin that is not loaded: add it under "
                       "plugins.compression",
                       f->path);
    }
    if (codec->decompress(codec_self, *ret_raw, f->raw, raw_len) != 0) {
        return broken(f, at, "a block does not decompress", err);
    }
    *ret_raw = kvs_slice(f->raw, raw_len);
    return 0;
}

static int read_file(struct file *f, const struct kvs_recover_ops *ops, void *arg,
                     struct kvs_snapshot_info *info, struct kvs_error *err)
{
    const struct kvs_compression_ops *codec;
    void *codec_self = NULL;
    uint32_t codec_id = 0;
    int rc = read_head(f, info, &codec_id, err);

    rc = rc != 0 ? rc : ops->snapshot_begin(arg, info, err);
    codec = codec_by_id(f->w, codec_id, &codec_self);
    for (uint32_t index = 0; rc == 0; index++) {
        uint64_t at = f->at;
        struct kvs_slice raw;

        rc = read_block(f, index, codec, codec_self, &raw, err);
        if (rc == 0 && raw.len == 0) {
            break;
        }
        rc = rc != 0 ? rc : ops->snapshot_block(arg, info->stream, raw, err);
        if (rc == KVS_ECORRUPT && err != NULL && strstr(err->msg, f->path) == NULL) {
            (void)kvs_err_wrap(err, "'%s' is damaged at offset %" PRIu64, f->path, at);
        }
    }
    if (rc == 0 && f->at != f->size) {
        rc = broken(f, f->at, "bytes behind the end", err);
    }
    return rc != 0 ? rc : ops->snapshot_end(arg, info->stream, err);
}

static int read_one(struct wal *w, const struct found *found, const struct kvs_recover_ops *ops,
                    void *arg, struct kvs_recover_report *report, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_snapshot_info info = {.stream = found->stream, .offset = found->offset};
    struct file f = {.w = w};
    int rc;

    snapshot_path(f.path, found->stream, found->offset, 0);
    f.stored = kvs_alloc(w->host, &wal_memory, KVS_SNAPSHOT_BLOCK_MAX);
    f.raw = kvs_alloc(w->host, &wal_memory, KVS_SNAPSHOT_BLOCK_MAX);
    rc = f.stored == NULL || f.raw == NULL ? kvs_err(err, KVS_ENOMEM, "out of memory")
                                           : fs->open(fs->ctx, f.path, KVS_FS_READ, &f.file, err);
    if (rc == 0) {
        rc = fs->file_size(fs->ctx, f.file, &f.size, err);
        rc = rc != 0 ? rc : read_file(&f, ops, arg, &info, err);
        fs->close(fs->ctx, f.file);
    }
    kvs_free(w->host, &wal_memory, f.stored, KVS_SNAPSHOT_BLOCK_MAX);
    kvs_free(w->host, &wal_memory, f.raw, KVS_SNAPSHOT_BLOCK_MAX);
    if (rc == 0) {
        report->snapshot_count++;
        report->byte_count += f.size;
        (void)atomic_fetch_add_explicit(&w->snapshot_bytes, f.size, memory_order_relaxed);
        (void)atomic_fetch_add_explicit(&w->snapshot_count, 1, memory_order_relaxed);
        rc = stream_map_raise(w, &w->snapshots, found->stream, found->offset);
    }
    return rc;
}

/* ---- the directory -----------------------------------------------------------------------------
 */

static void remove_file(struct wal *w, const char *name)
{
    struct kvs_error err;
    char path[128];

    (void)snprintf(path, sizeof path, "snapshots/%.100s", name);
    (void)w->host->fs->remove(w->host->fs->ctx, path, &err); /* a leftover; harmless if it stays */
}

static int dir_visit(void *arg, const char *name)
{
    struct listing *l = arg;
    char *end;
    uint64_t stream = strtoull(name, &end, 16), offset;
    struct found *f;
    char older[80];

    if (end != name + 16 || *end != '-') {
        return 0;
    }
    offset = strtoull(name + 17, &end, 16);
    if (strcmp(end, ".snap.tmp") == 0 || stream_map_get(&l->w->snapshots, stream) == UINT64_MAX) {
        remove_file(l->w, name);
        return 0;
    }
    if (strcmp(end, ".snap") != 0) {
        return 0;
    }
    f = l->first;
    if (f != NULL && f->stream == stream) { /* names come in order: this one is newer */
        snapshot_path(older, f->stream, f->offset, 0);
        remove_file(l->w, strchr(older, '/') + 1);
        f->offset = offset;
        return 0;
    }
    f = kvs_calloc(l->w->host, &wal_memory, sizeof *f);
    if (f == NULL) {
        return KVS_ENOMEM;
    }
    f->stream = stream;
    f->offset = offset;
    f->next = l->first;
    l->first = f;
    return 0;
}

int snapshots_read(struct wal *w, const struct kvs_recover_ops *ops, void *arg,
                   struct kvs_recover_report *report, struct kvs_error *err)
{
    struct listing l = {.w = w};
    int rc = w->host->fs->list(w->host->fs->ctx, "snapshots", dir_visit, &l, err);

    while (l.first != NULL) {
        struct found *next = l.first->next;

        rc = rc != 0 ? rc : read_one(w, l.first, ops, arg, report, err);
        kvs_free(w->host, &wal_memory, l.first, sizeof *l.first);
        l.first = next;
    }
    return rc;
}

/* ---- dropped streams ---------------------------------------------------------------------------
 */

int dropped_read(struct wal *w, struct kvs_error *err)
{
    size_t size = DROPPED_MAX * 8u, len = 0;
    uint8_t *bytes = kvs_alloc(w->host, &wal_memory, size);
    int rc = bytes == NULL ? kvs_err(err, KVS_ENOMEM, "out of memory")
                           : file_get(w, DROPPED_PATH, bytes, size, &len, err);

    for (size_t i = 0; i + 8 <= len && rc == 0; i += 8) {
        rc = stream_map_raise(w, &w->snapshots, kvs_get_u64(bytes + i), UINT64_MAX);
    }
    kvs_free(w->host, &wal_memory, bytes, size);
    return rc;
}

int dropped_write(struct wal *w, struct kvs_error *err)
{
    size_t size = DROPPED_MAX * 8u, len = 0;
    uint8_t *bytes = kvs_alloc(w->host, &wal_memory, size);
    uint64_t dropped = 0;
    int rc;

    if (bytes == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    (void)pthread_mutex_lock(&w->streams_lock);
    for (uint64_t i = 0; i < w->snapshots.cap; i++) {
        if (w->snapshots.slots[i][0] != 0 && w->snapshots.slots[i][1] == UINT64_MAX &&
            dropped++ < DROPPED_MAX) {
            kvs_put_u64(bytes + len, w->snapshots.slots[i][0] - 1);
            len += 8;
        }
    }
    (void)pthread_mutex_unlock(&w->streams_lock);
    rc = dropped > DROPPED_MAX
             ? kvs_err(err, KVS_ETOOMANY, "more than %u dropped partitions", DROPPED_MAX)
             : file_put(w, "journal", DROPPED_PATH, kvs_slice(bytes, len), err);
    kvs_free(w->host, &wal_memory, bytes, size);
    return rc;
}
