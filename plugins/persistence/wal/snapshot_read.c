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

#include "wal_private.h"

struct snapshot_file {
    struct snapshot_file *next;
    uint64_t stream, offset, size;
};

struct file {
    struct wal *w;
    struct kvs_file *file;
    char path[80];
    uint64_t at, size;
    uint8_t *stored, *raw;
    size_t stored_cap, raw_cap;
};

static int broken(const struct file *f, uint64_t offset, const char *what, struct kvs_error *err)
{
    return kvs_err(err, KVS_ECORRUPT,
                   "'%s' is damaged at offset %" PRIu64
                   ": %s. Restore the file, or this node's data "
                   "from a backup or a replica",
                   f->path, offset, what);
}

static int room_for(struct file *f, uint8_t **at, size_t *cap, size_t n, struct kvs_error *err)
{
    if (n <= *cap) {
        return 0;
    }
    kvs_free(f->w->host, &wal_memory, *at, *cap);
    *cap = 0;
    *at = kvs_alloc(f->w->host, &wal_memory, n);
    if (*at == NULL) {
        return kvs_err(err, KVS_ENOMEM, "read '%s': out of memory", f->path);
    }
    *cap = n;
    return 0;
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
    rc = room_for(f, &f->raw, &f->raw_cap, meta_len, err);
    rc = rc != 0 ? rc : read_exact(f, f->raw, meta_len, err);
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
    if (stored_len > f->size - f->at) {
        return broken(f, at, "the file ends too early", err);
    }
    rc = room_for(f, &f->stored, &f->stored_cap, stored_len, err);
    rc = rc != 0 ? rc : read_exact(f, f->stored, stored_len, err);
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
    rc = room_for(f, &f->raw, &f->raw_cap, raw_len, err);
    if (rc != 0) {
        return rc;
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

static int read_one(struct recovery *v, const struct snapshot_file *found, struct file *f,
                    struct kvs_error *err)
{
    struct wal *w = v->w;
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_snapshot_info info = {.stream = found->stream, .offset = found->offset};
    int rc;

    f->at = 0;
    f->size = found->size;
    snapshot_path(f->path, found->stream, found->offset, 0);
    rc = fs->open(fs->ctx, f->path, KVS_FS_READ, &f->file, err);
    if (rc == 0) {
        rc = read_file(f, v->ops, v->arg, &info, err);
        fs->close(fs->ctx, f->file);
    }
    if (rc == 0) {
        rc = stream_map_raise(w, &w->snapshots, found->stream, found->offset);
        rc = rc != 0 ? kvs_err(err, rc, "read '%s': %s", f->path, kvs_code_text(rc)) : 0;
    }
    if (rc == 0) {
        snapshot_count(w, found->stream, found->size);
        v->report->snapshot_count++;
        recovery_progress(v, found->size);
    }
    return rc;
}

int snapshots_read(struct recovery *v, const struct snapshot_file *list, struct kvs_error *err)
{
    struct file f = {.w = v->w};
    int rc = 0;

    for (; list != NULL && rc == 0; list = list->next) {
        rc = read_one(v, list, &f, err);
    }
    kvs_free(v->w->host, &wal_memory, f.stored, f.stored_cap);
    kvs_free(v->w->host, &wal_memory, f.raw, f.raw_cap);
    return rc;
}

/* ---- the directory -----------------------------------------------------------------------------
 */

struct listing {
    struct wal *w;
    struct snapshot_file *first; /* newest of each stream */
    int temporary;
    struct kvs_error *err;
};

/* "<stream>-<offset>.snap" or the same with ".tmp": 1 and 2; 0 for all else. */
static int name_read(const char *name, uint64_t *ret_stream, uint64_t *ret_offset)
{
    if (strlen(name) < 38 || !hex16(name, ret_stream) || name[16] != '-' ||
        !hex16(name + 17, ret_offset)) {
        return 0;
    }
    return strcmp(name + 33, ".snap") == 0 ? 1 : strcmp(name + 33, ".snap.tmp") == 0 ? 2 : 0;
}

static int find_visit(void *arg, const char *name)
{
    struct listing *l = arg;
    uint64_t stream, offset;
    struct snapshot_file *f = l->first;

    if (name_read(name, &stream, &offset) != 1 ||
        stream_map_get(&l->w->snapshots, stream) == STREAM_DROPPED) {
        return 0;
    }
    if (f != NULL && f->stream == stream) { /* names come in order: this one is newer */
        f->offset = offset;
        return 0;
    }
    f = kvs_calloc(l->w->host, &wal_memory, sizeof *f);
    if (f == NULL) {
        return kvs_err(l->err, KVS_ENOMEM, "list 'snapshots': out of memory");
    }
    f->stream = stream;
    f->offset = offset;
    f->next = l->first;
    l->first = f;
    return 0;
}

static int size_find(struct wal *w, struct snapshot_file *f, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_file *file = NULL;
    char path[80];
    int rc;

    snapshot_path(path, f->stream, f->offset, 0);
    rc = fs->open(fs->ctx, path, KVS_FS_READ, &file, err);
    if (rc == 0) {
        rc = fs->file_size(fs->ctx, file, &f->size, err);
        fs->close(fs->ctx, file);
    }
    return rc;
}

int snapshots_find(struct recovery *v, struct snapshot_file **ret_list, struct kvs_error *err)
{
    const struct kvs_fs *fs = v->w->host->fs;
    struct listing l = {.w = v->w, .err = err};
    /* Names may be in memory only. */
    int rc = fs->sync_dir(fs->ctx, "snapshots", err);

    rc = rc != 0 ? rc : fs->list(fs->ctx, "snapshots", find_visit, &l, err);
    for (struct snapshot_file *f = l.first; f != NULL && rc == 0; f = f->next) {
        rc = size_find(v->w, f, err);
        v->total_bytes += f->size;
    }
    *ret_list = l.first;
    return rc;
}

void snapshots_forget(struct recovery *v, struct snapshot_file *take_list)
{
    while (take_list != NULL) {
        struct snapshot_file *next = take_list->next;

        kvs_free(v->w->host, &wal_memory, take_list, sizeof *take_list);
        take_list = next;
    }
}

static int tidy_visit(void *arg, const char *name)
{
    struct listing *l = arg;
    const struct kvs_fs *fs = l->w->host->fs;
    uint64_t stream, offset, newest;
    int kind = name_read(name, &stream, &offset);
    char path[96];

    if (kind == 0) {
        return 0;
    }
    (void)pthread_mutex_lock(&l->w->streams_lock);
    newest = stream_map_get(&l->w->snapshots, stream);
    (void)pthread_mutex_unlock(&l->w->streams_lock);
    if (kind == 2 ? !l->temporary : offset >= newest) {
        return 0;
    }
    (void)snprintf(path, sizeof path, "snapshots/%.48s", name);
    return fs->remove(fs->ctx, path, l->err);
}

int snapshots_tidy(struct wal *w, int temporary, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct listing l = {.w = w, .temporary = temporary, .err = err};
    int rc = fs->list(fs->ctx, "snapshots", tidy_visit, &l, err);

    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "snapshots", err);
}
