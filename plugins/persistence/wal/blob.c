/* SPDX-License-Identifier: MIT
 *
 * Small files that are replaced whole: written beside, synced, renamed. Layout: "KVBL", crc32c of
 * the rest, length (4 bytes each), bytes. */
#include <stdio.h>

#include "wal_private.h"

#define BLOB_MAGIC    0x4c42564bu /* "KVBL" */
#define BLOB_HEADER   12u
#define BLOB_SIZE_MAX (64u << 10)

int file_put(struct wal *w, const char *dir, const char *path, struct kvs_slice bytes,
             struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_slice slices[2];
    struct kvs_file *file;
    uint8_t h[BLOB_HEADER];
    char tmp[128];
    int rc;

    kvs_put_u32(h, BLOB_MAGIC);
    kvs_put_u32(h + 8, (uint32_t)bytes.len);
    kvs_put_u32(h + 4, kvs_crc32c(kvs_crc32c(0, h + 8, 4), bytes.ptr, bytes.len));
    slices[0] = kvs_slice(h, sizeof h);
    slices[1] = bytes;
    (void)snprintf(tmp, sizeof tmp, "%s.tmp", path);
    rc = fs->open(fs->ctx, tmp, KVS_FS_WRITE | KVS_FS_CREATE, &file, err);
    if (rc != 0) {
        return rc;
    }
    rc = fs->truncate(fs->ctx, file, 0, err);
    rc = rc != 0 ? rc : fs->write(fs->ctx, file, 0, slices, 2, err);
    rc = rc != 0 ? rc : fs->sync(fs->ctx, file, err);
    fs->close(fs->ctx, file);
    rc = rc != 0 ? rc : fs->rename(fs->ctx, tmp, path, err);
    rc = rc != 0 ? rc : fs->sync_dir(fs->ctx, dir, err);
    return rc;
}

int file_get(struct wal *w, const char *path, void *buf, size_t buf_size, size_t *ret_len,
             struct kvs_error *err)
{
    const struct kvs_fs *fs = w->host->fs;
    struct kvs_file *file;
    uint8_t h[BLOB_HEADER];
    uint64_t size = 0;
    size_t n = 0, len = 0;
    int rc = fs->open(fs->ctx, path, KVS_FS_READ, &file, err);

    *ret_len = 0;
    if (rc == KVS_ENOTFOUND) {
        return 0;
    }
    if (rc != 0) {
        return rc;
    }
    rc = fs->file_size(fs->ctx, file, &size, err);
    rc = rc != 0 ? rc : fs->read(fs->ctx, file, 0, h, sizeof h, &n, err);
    if (rc == 0 && (n != sizeof h || kvs_get_u32(h) != BLOB_MAGIC ||
                    kvs_get_u32(h + 8) != size - BLOB_HEADER)) {
        rc = kvs_err(err, KVS_ECORRUPT, "'%s' is damaged at offset 0: not a whole blob", path);
    }
    if (rc == 0 && size - BLOB_HEADER > buf_size) {
        rc = kvs_err(err, KVS_ETOOBIG, "'%s' is larger than the buffer", path);
    }
    rc = rc != 0 ? rc : fs->read(fs->ctx, file, BLOB_HEADER, buf, size - BLOB_HEADER, &len, err);
    fs->close(fs->ctx, file);
    if (rc == 0 && kvs_crc32c(kvs_crc32c(0, h + 8, 4), buf, len) != kvs_get_u32(h + 4)) {
        rc = kvs_err(err, KVS_ECORRUPT, "'%s' is damaged: wrong checksum", path);
    }
    if (rc == 0) {
        *ret_len = len;
    }
    return rc;
}

static int name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= 64 && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == n;
}

int wal_blob_put(void *self, const char *name, struct kvs_slice bytes, struct kvs_error *err)
{
    char path[96];

    if (!name_ok(name) || bytes.len > BLOB_SIZE_MAX) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name, or larger than 64 KiB", name);
    }
    (void)snprintf(path, sizeof path, "blobs/%s", name);
    return file_put(self, "blobs", path, bytes, err);
}

int wal_blob_get(void *self, const char *name, void *buf, size_t buf_size, size_t *ret_len,
                 struct kvs_error *err)
{
    char path[96];

    if (!name_ok(name)) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name", name);
    }
    (void)snprintf(path, sizeof path, "blobs/%s", name);
    return file_get(self, path, buf, buf_size, ret_len, err);
}
