/* SPDX-License-Identifier: MIT
 *
 * Small files that are replaced whole: written beside, synced, renamed.
 *
 *   offset size  field                little-endian
 *        0    4  magic                "KVBL"
 *        4    4  crc32c               over bytes 8 .. end
 *        8    4  format               1
 *       12    4  length
 *       16       bytes
 *
 * The file beside ends in '~', which no name of a blob may hold. */
#include <inttypes.h>
#include <stdio.h>

#include "wal_private.h"

#define BLOB_MAGIC    0x4c42564bu /* "KVBL" */
#define BLOB_FORMAT   1u
#define BLOB_HEADER   16u
#define BLOB_SIZE_MAX (64u << 10)
#define PATH_SIZE     96u

static void path_of(char out[PATH_SIZE], const char *dir, const char *name, const char *suffix)
{
    (void)snprintf(out, PATH_SIZE, "%s/%s%s", dir, name, suffix);
}

int file_put(struct wal *w, const char *dir, const char *name, struct kvs_slice bytes,
             struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_slice slices[2];
    struct kvs_file *file = NULL;
    uint8_t h[BLOB_HEADER];
    char path[PATH_SIZE], beside[PATH_SIZE];
    int rc;

    path_of(path, dir, name, "");
    path_of(beside, dir, name, "~");
    kvs_put_u32(h, BLOB_MAGIC);
    kvs_put_u32(h + 8, BLOB_FORMAT);
    kvs_put_u32(h + 12, (uint32_t)bytes.len);
    kvs_put_u32(h + 4, kvs_crc32c(kvs_crc32c(0, h + 8, sizeof h - 8), bytes.ptr, bytes.len));
    slices[0] = kvs_slice(h, sizeof h);
    slices[1] = bytes;
    rc = fs->open(fs->ctx, beside, KVS_FS_WRITE | KVS_FS_CREATE, &file, err);
    if (rc != 0) {
        return rc;
    }
    rc = fs->truncate(fs->ctx, file, 0, err);
    rc = rc != 0 ? rc : fs->write(fs->ctx, file, 0, slices, 2, err);
    rc = rc != 0 ? rc : fs->sync(fs->ctx, file, err);
    fs->close(fs->ctx, file);
    rc = rc != 0 ? rc : fs->rename(fs->ctx, beside, path, err);
    rc = rc != 0 ? rc : fs->sync_dir(fs->ctx, dir, err);
    if (rc != 0) {
        struct kvs_error ignored;

        (void)kvs_err_wrap(err, "write '%s'", path);
        (void)fs->remove(fs->ctx, beside, &ignored); /* gives its room back; or is overwritten */
    }
    return rc;
}

static int content_check(const char *path, const uint8_t *p, size_t len, struct kvs_error *err)
{
    if (len < BLOB_HEADER || kvs_get_u32(p) != BLOB_MAGIC ||
        kvs_get_u32(p + 12) != len - BLOB_HEADER) {
        return kvs_err(err, KVS_ECORRUPT, "'%s' is damaged at offset 0: not a whole blob", path);
    }
    if (kvs_crc32c(0, p + 8, len - 8) != kvs_get_u32(p + 4)) {
        return kvs_err(err, KVS_ECORRUPT, "'%s' is damaged at offset 4: wrong checksum", path);
    }
    if (kvs_get_u32(p + 8) != BLOB_FORMAT) {
        return kvs_err(err, KVS_EFORMAT, "'%s' has blob format %" PRIu32 ", this version reads %u",
                       path, kvs_get_u32(p + 8), BLOB_FORMAT);
    }
    return 0;
}

static int content_read(struct wal *w, struct kvs_file *file, const char *path, size_t size_max,
                        struct kvs_buf *ret_bytes, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    uint64_t size = 0;
    size_t len = 0;
    char *room;
    int rc = fs->file_size(fs->ctx, file, &size, err);

    if (rc != 0) {
        return rc;
    }
    if (size > size_max + BLOB_HEADER) {
        return kvs_err(err, KVS_ECORRUPT,
                       "'%s' is damaged at offset %" PRIu64 ": bytes behind the end", path,
                       (uint64_t)(size_max + BLOB_HEADER));
    }
    room = kvs_buf_reserve(ret_bytes, size == 0 ? 1 : size);
    if (room == NULL) {
        return kvs_err(err, KVS_ENOMEM, "read '%s': out of memory", path);
    }
    rc = fs->read(fs->ctx, file, 0, room, size, &len, err);
    rc = rc != 0 ? rc : content_check(path, (const uint8_t *)room, len, err);
    if (rc == 0) {
        ret_bytes->len = len - BLOB_HEADER;
        memmove(room, room + BLOB_HEADER, ret_bytes->len);
    }
    return rc;
}

int file_get(struct wal *w, const char *dir, const char *name, size_t size_max,
             struct kvs_buf *ret_bytes, struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_file *file = NULL;
    char path[PATH_SIZE];
    int rc;

    path_of(path, dir, name, "");
    rc = fs->open(fs->ctx, path, KVS_FS_READ, &file, err);
    if (rc == KVS_ENOTFOUND) {
        return 0;
    }
    if (rc == 0) {
        rc = content_read(w, file, path, size_max, ret_bytes, err);
        fs->close(fs->ctx, file);
    }
    return rc;
}

/* ".." is not for the host's paths. */
static int name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= 64 && strcmp(name, ".") != 0 && strstr(name, "..") == NULL &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == n;
}

int wal_blob_put(void *self, const char *name, struct kvs_slice bytes, struct kvs_error *err)
{
    if (!name_ok(name)) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name", name);
    }
    if (bytes.len > BLOB_SIZE_MAX) {
        return kvs_err(err, KVS_ETOOBIG, "blob '%s': larger than 64 KiB", name);
    }
    return file_put(self, "blobs", name, bytes, err);
}

int wal_blob_get(void *self, const char *name, void *buf, size_t buf_size, size_t *ret_len,
                 struct kvs_error *err)
{
    struct wal *w = self;
    struct kvs_buf bytes;
    int rc;

    if (!name_ok(name)) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name", name);
    }
    kvs_buf_init(&bytes, w->host, &wal_memory);
    rc = file_get(w, "blobs", name, BLOB_SIZE_MAX, &bytes, err);
    if (rc == 0 && bytes.len > buf_size) {
        rc = kvs_err(err, KVS_ETOOBIG, "blob '%s' is larger than the buffer", name);
    }
    if (rc == 0) {
        if (bytes.len > 0) {
            memcpy(buf, bytes.ptr, bytes.len);
        }
        *ret_len = bytes.len;
    }
    kvs_buf_fini(&bytes);
    return rc;
}
