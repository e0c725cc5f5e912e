/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: the data directory.
 *
 *   consensus/identity    text: format and the id of the node that owns the log
 *   consensus/log/        the library's segments, snapshots and term files
 *
 * The library insists on files of its own, so everything here goes by path below host->data_dir.
 *
 * The identity is written after the first start was made durable, so that an interrupted first
 * start is repeated and a directory copied to another node is refused: two members with one log and
 * two ids would both vote. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raft_private.h"

#define DIR_PATH      "consensus"
#define LOG_PATH      "consensus/log"
#define IDENTITY_PATH "consensus/identity"
#define IDENTITY_NEW  "consensus/identity.new"
#define IDENTITY_HEAD "kvs-consensus 1\nid "
#define IDENTITY_MAX  256u
#define PATH_SIZE     640u

static int io_error(struct kvs_error *err, const char *what, const char *path)
{
    int code = errno == ENOENT                      ? KVS_ENOTFOUND
               : errno == ENOSPC || errno == EDQUOT ? KVS_ENOSPC
               : errno == EACCES || errno == EPERM  ? KVS_EACCES
                                                    : KVS_EIO;

    return kvs_err(err, code, "%s '%s': %s", what, path, strerror(errno));
}

static const char *path_of(const struct raft_plugin *self, const char *name, char path[PATH_SIZE])
{
    (void)snprintf(path, PATH_SIZE, "%s/%s", self->host->data_dir, name);
    return path;
}

static int identity_read(struct raft_plugin *self, char text[IDENTITY_MAX], struct kvs_error *err)
{
    char path[PATH_SIZE];
    int fd = open(path_of(self, IDENTITY_PATH, path), O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return io_error(err, "open", path);
    }
    n = read(fd, text, IDENTITY_MAX - 1);
    (void)close(fd);
    if (n < 0) {
        return io_error(err, "read", path);
    }
    text[n] = '\0';
    return 0;
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

static int make_dir(struct raft_plugin *self, const char *name, struct kvs_error *err)
{
    char path[PATH_SIZE];

    return mkdir(path_of(self, name, path), 0750) == 0 || errno == EEXIST
               ? 0
               : io_error(err, "make directory", path);
}

int raft_data_open(struct raft_plugin *self, int *ret_first_start, struct kvs_error *err)
{
    char text[IDENTITY_MAX];
    int rc = make_dir(self, DIR_PATH, err);
    int n = snprintf(self->dir, sizeof self->dir, "%s/" LOG_PATH, self->host->data_dir);

    if (n < 0 || (size_t)n >= sizeof self->dir) {
        return kvs_err(err, KVS_ETOOBIG, "the path of the data directory is too long");
    }
    rc = rc != 0 ? rc : make_dir(self, LOG_PATH, err);
    if (rc != 0) {
        return rc;
    }
    rc = identity_read(self, text, err);
    *ret_first_start = rc == KVS_ENOTFOUND;
    return rc == KVS_ENOTFOUND ? 0 : rc != 0 ? rc : identity_check(self, text, err);
}

static int sync_dir(struct raft_plugin *self, const char *name, struct kvs_error *err)
{
    char path[PATH_SIZE];
    int fd = open(path_of(self, name, path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ok = fd >= 0 && fsync(fd) == 0;
    int rc = ok ? 0 : io_error(err, "make durable", path);

    if (fd >= 0) {
        (void)close(fd);
    }
    return rc;
}

int raft_data_claim(struct raft_plugin *self, struct kvs_error *err)
{
    char path[PATH_SIZE], final[PATH_SIZE], text[IDENTITY_MAX];
    int len = identity_text(self, text);
    int fd =
        open(path_of(self, IDENTITY_NEW, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    int ok, rc;

    if (fd < 0) {
        return io_error(err, "create", path);
    }
    ok = write(fd, text, (size_t)len) == len && fsync(fd) == 0;
    rc = ok ? 0 : io_error(err, "write", path);
    (void)close(fd);
    if (rc == 0 && rename(path, path_of(self, IDENTITY_PATH, final)) != 0) {
        rc = io_error(err, "rename", path);
    }
    rc = rc != 0 ? rc : sync_dir(self, DIR_PATH, err);
    return rc != 0 ? rc : sync_dir(self, ".", err);
}
