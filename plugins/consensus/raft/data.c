/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: the data directory.
 *
 *   consensus/identity    text: format and the id of the node that owns the log
 *   consensus/log/        the library's segments, snapshots and term files
 *
 * The identity is written after the first start was made durable, so that an interrupted first
 * start is repeated and a directory copied to another node is refused: two members with one log and
 * two ids would both vote. */
#include <stdio.h>

#include "raft_private.h"

#define DIR_PATH      "consensus"
#define LOG_PATH      "consensus/log"
#define IDENTITY_PATH "consensus/identity"
#define IDENTITY_NEW  "consensus/identity.new"
#define IDENTITY_HEAD "kvs-consensus 1\nid "
#define IDENTITY_MAX  256u

static int identity_read(struct raft_plugin *self, char text[IDENTITY_MAX], struct kvs_error *err)
{
    const struct kvs_fs *fs = self->host->fs;
    struct kvs_file *file;
    size_t len = 0;
    int rc = fs->open(fs->ctx, IDENTITY_PATH, KVS_FS_READ, &file, err);

    if (rc != 0) {
        return rc;
    }
    rc = fs->read(fs->ctx, file, 0, text, IDENTITY_MAX - 1, &len, err);
    fs->close(fs->ctx, file);
    text[len] = '\0';
    return rc;
}

static int identity_text(const struct raft_plugin *self, char text[IDENTITY_MAX])
{
    return snprintf(text, IDENTITY_MAX, IDENTITY_HEAD "%s\n", self->id);
}

static int identity_check(struct raft_plugin *self, const char *text, struct kvs_error *err)
{
    char own[IDENTITY_MAX];
    size_t head = sizeof IDENTITY_HEAD - 1;

    (void)identity_text(self, own);
    if (strcmp(text, own) == 0) {
        return 0;
    }
    if (strncmp(text, IDENTITY_HEAD, head) != 0) {
        return kvs_err(err, KVS_EFORMAT, "'%s/%s' is of a newer version or no identity file",
                       self->host->data_dir, IDENTITY_PATH);
    }
    return kvs_err(err, KVS_ESTATE,
                   "'%s/%s' belongs to node '%.*s', this is '%s'. Restore node.id, or use another "
                   "data directory",
                   self->host->data_dir, DIR_PATH, (int)strcspn(text + head, "\n"), text + head,
                   self->id);
}

int raft_data_open(struct raft_plugin *self, int *ret_first_start, struct kvs_error *err)
{
    const struct kvs_fs *fs = self->host->fs;
    char text[IDENTITY_MAX];
    int rc = fs->mkdir(fs->ctx, DIR_PATH, err);
    int n = snprintf(self->dir, sizeof self->dir, "%s/" LOG_PATH, self->host->data_dir);

    if (n < 0 || (size_t)n >= sizeof self->dir) {
        return kvs_err(err, KVS_ETOOBIG, "the path of the data directory is too long");
    }
    if (rc == 0) {
        rc = fs->mkdir(fs->ctx, LOG_PATH, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = identity_read(self, text, err);
    *ret_first_start = rc == KVS_ENOTFOUND;
    return rc == KVS_ENOTFOUND ? 0 : rc != 0 ? rc : identity_check(self, text, err);
}

int raft_data_claim(struct raft_plugin *self, struct kvs_error *err)
{
    const struct kvs_fs *fs = self->host->fs;
    struct kvs_file *file;
    char text[IDENTITY_MAX];
    struct kvs_slice slice = kvs_slice(text, (size_t)identity_text(self, text));
    int rc = fs->open(fs->ctx, IDENTITY_NEW, KVS_FS_WRITE | KVS_FS_CREATE, &file, err);

    if (rc != 0) {
        return rc;
    }
    rc = fs->truncate(fs->ctx, file, 0, err);
    rc = rc != 0 ? rc : fs->write(fs->ctx, file, 0, &slice, 1, err);
    rc = rc != 0 ? rc : fs->sync(fs->ctx, file, err);
    fs->close(fs->ctx, file);
    rc = rc != 0 ? rc : fs->rename(fs->ctx, IDENTITY_NEW, IDENTITY_PATH, err);
    rc = rc != 0 ? rc : fs->sync_dir(fs->ctx, DIR_PATH, err);
    return rc != 0 ? rc : fs->sync_dir(fs->ctx, "", err);
}
