/* SPDX-License-Identifier: MIT
 *
 * The disk: struct kvs_fs below the data directory, and that directory's lock, format and identity.
 *
 *   <data_dir>/lock     held with flock while a kvsd runs
 *   <data_dir>/format   "kvs 1": the layout; a newer number is refused
 *   <data_dir>/node_id  whose data this is; another node.id is refused */
#define _GNU_SOURCE /* fallocate */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "host/host_private.h"

#define FORMAT      1
#define IOV_AT_ONCE 512u

struct kvs_file {
    int fd;
};

static int root_fd = -1, lock_fd = -1;
static char root_path[PATH_MAX];

static int fs_open(void *ctx, const char *path, uint32_t flags, struct kvs_file **ret_file,
                   struct kvs_error *err)
{
    int os = (flags & KVS_FS_WRITE) != 0 ? O_RDWR : O_RDONLY;
    struct kvs_file *file = malloc(sizeof *file);

    (void)ctx;
    if (file == NULL) {
        return kvs_err(err, KVS_ENOMEM, "open '%s': out of memory", path);
    }
    os |= (flags & KVS_FS_CREATE) != 0 ? O_CREAT : 0;
    os |= (flags & KVS_FS_EXCLUSIVE) != 0 ? O_EXCL : 0;
    file->fd = openat(root_fd, path, os | O_CLOEXEC, 0640);
    if (file->fd < 0) {
        int e = errno;

        free(file);
        return kvs_err_os(err, e, "open '%s/%s'", root_path, path);
    }
    *ret_file = file;
    return 0;
}

static void fs_close(void *ctx, struct kvs_file *file)
{
    (void)ctx;
    if (file != NULL) {
        (void)close(file->fd); /* what mattered was synced before */
        free(file);
    }
}

static int fs_read(void *ctx, struct kvs_file *file, uint64_t offset, void *buf, size_t len,
                   size_t *ret_len, struct kvs_error *err)
{
    size_t done = 0;

    (void)ctx;
    while (done < len) {
        ssize_t n = pread(file->fd, (char *)buf + done, len - done, (off_t)(offset + done));

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return kvs_err_os(err, errno, "read");
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    *ret_len = done;
    return 0;
}

/* Write all of iov, which is changed on the way. */
static int write_iov(int fd, uint64_t *offset, struct iovec *iov, int count, struct kvs_error *err)
{
    while (count > 0) {
        ssize_t n = pwritev(fd, iov, count, (off_t)*offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return kvs_err_os(err, errno, "write");
        }
        *offset += (uint64_t)n;
        while (count > 0 && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static int fs_write(void *ctx, struct kvs_file *file, uint64_t offset,
                    const struct kvs_slice *slices, uint32_t count, struct kvs_error *err)
{
    struct iovec iov[IOV_AT_ONCE];
    int rc = 0;

    (void)ctx;
    while (count > 0 && rc == 0) {
        uint32_t n = count < IOV_AT_ONCE ? count : IOV_AT_ONCE;
        int used = 0;

        for (uint32_t i = 0; i < n; i++) {
            if (slices[i].len > 0) {
                uintptr_t base = (uintptr_t)slices[i].ptr; /* writev does not write there */

                iov[used].iov_base = (void *)base; /* NOLINT(performance-no-int-to-ptr) */
                iov[used++].iov_len = slices[i].len;
            }
        }
        rc = write_iov(file->fd, &offset, iov, used, err);
        slices += n;
        count -= n;
    }
    return rc;
}

static int fs_sync(void *ctx, struct kvs_file *file, struct kvs_error *err)
{
    (void)ctx;
    return fdatasync(file->fd) == 0 ? 0 : kvs_err_os(err, errno, "fdatasync");
}

static int fs_file_size(void *ctx, struct kvs_file *file, uint64_t *ret_size, struct kvs_error *err)
{
    struct stat st;

    (void)ctx;
    if (fstat(file->fd, &st) != 0) {
        return kvs_err_os(err, errno, "stat");
    }
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int fs_allocate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    struct stat st;

    (void)ctx;
    if (fallocate(file->fd, 0, 0, (off_t)size) == 0) {
        return 0;
    }
    if (errno != EOPNOTSUPP && errno != ENOSYS) {
        return kvs_err_os(err, errno, "allocate %llu bytes", (unsigned long long)size);
    }
    /* This file system cannot reserve: the file only gets its length. */
    if (fstat(file->fd, &st) != 0) {
        return kvs_err_os(err, errno, "stat");
    }
    if ((uint64_t)st.st_size < size && ftruncate(file->fd, (off_t)size) != 0) {
        return kvs_err_os(err, errno, "extend");
    }
    return 0;
}

static int fs_truncate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    (void)ctx;
    return ftruncate(file->fd, (off_t)size) == 0 ? 0 : kvs_err_os(err, errno, "truncate");
}

static int fs_rename(void *ctx, const char *from, const char *to, struct kvs_error *err)
{
    (void)ctx;
    if (renameat(root_fd, from, root_fd, to) != 0) {
        return kvs_err_os(err, errno, "rename '%s' to '%s'", from, to);
    }
    return 0;
}

static int fs_remove(void *ctx, const char *path, struct kvs_error *err)
{
    (void)ctx;
    if (unlinkat(root_fd, path, 0) != 0) {
        return kvs_err_os(err, errno, "remove '%s'", path);
    }
    return 0;
}

static int fs_mkdir(void *ctx, const char *path, struct kvs_error *err)
{
    (void)ctx;
    if (mkdirat(root_fd, path, 0750) != 0 && errno != EEXIST) {
        return kvs_err_os(err, errno, "create directory '%s'", path);
    }
    return 0;
}

static int fs_sync_dir(void *ctx, const char *path, struct kvs_error *err)
{
    int fd = openat(root_fd, path[0] == '\0' ? "." : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    (void)ctx;
    if (fd < 0) {
        return kvs_err_os(err, errno, "open directory '%s'", path);
    }
    if (fsync(fd) != 0) {
        rc = kvs_err_os(err, errno, "fsync directory '%s'", path);
    }
    (void)close(fd);
    return rc;
}

static int fs_list(void *ctx, const char *path, int (*fn)(void *arg, const char *name), void *arg,
                   struct kvs_error *err)
{
    struct dirent **entries;
    int n = scandirat(root_fd, path[0] == '\0' ? "." : path, &entries, NULL, NULL), rc = 0;

    (void)ctx;
    if (n < 0) {
        return kvs_err_os(err, errno, "list directory '%s'", path);
    }
    for (int i = 1; i < n; i++) { /* insertion sort by bytes: few names, nearly in order */
        struct dirent *e = entries[i];
        int k = i;

        for (; k > 0 && strcmp(entries[k - 1]->d_name, e->d_name) > 0; k--) {
            entries[k] = entries[k - 1];
        }
        entries[k] = e;
    }
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;

        if (rc == 0 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            rc = fn(arg, name);
        }
        free(entries[i]);
    }
    free(entries);
    return rc;
}

const struct kvs_fs kvs__fs = {
    .size = sizeof(struct kvs_fs),
    .open = fs_open,
    .close = fs_close,
    .read = fs_read,
    .write = fs_write,
    .sync = fs_sync,
    .file_size = fs_file_size,
    .allocate = fs_allocate,
    .truncate = fs_truncate,
    .rename = fs_rename,
    .remove = fs_remove,
    .mkdir = fs_mkdir,
    .sync_dir = fs_sync_dir,
    .list = fs_list,
};

/* ---- the data directory ------------------------------------------------------------------------
 */

static int make_dirs(const char *path, struct kvs_error *err)
{
    char part[PATH_MAX];

    (void)snprintf(part, sizeof part, "%s", path);
    for (char *p = part + 1; *p != '\0'; p++) {
        if (*p == '/') {
            *p = '\0';
            if (mkdir(part, 0755) != 0 && errno != EEXIST) {
                return kvs_err_os(err, errno, "create data directory '%s'", part);
            }
            *p = '/';
        }
    }
    if (mkdir(part, 0750) != 0 && errno != EEXIST) {
        return kvs_err_os(err, errno, "create data directory '%s'", part);
    }
    return 0;
}

/* The first line of a small file in buf; 0 length if it is absent. */
static int small_read(const char *name, char *buf, size_t size, struct kvs_error *err)
{
    int fd = openat(root_fd, name, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    buf[0] = '\0';
    if (fd < 0) {
        return errno == ENOENT ? 0 : kvs_err_os(err, errno, "open '%s/%s'", root_path, name);
    }
    n = read(fd, buf, size - 1);
    (void)close(fd);
    if (n < 0) {
        return kvs_err_os(err, errno, "read '%s/%s'", root_path, name);
    }
    buf[n] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return 0;
}

int kvs__datadir_put(const char *name, struct kvs_slice text, struct kvs_error *err)
{
    struct kvs_file *file;
    char tmp[128];
    int rc;

    (void)snprintf(tmp, sizeof tmp, "%s.tmp", name);
    rc = fs_open(NULL, tmp, KVS_FS_WRITE | KVS_FS_CREATE, &file, err);
    if (rc != 0) {
        return rc;
    }
    rc = fs_truncate(NULL, file, 0, err);
    rc = rc != 0 ? rc : fs_write(NULL, file, 0, &text, 1, err);
    rc = rc != 0 ? rc : fs_sync(NULL, file, err);
    fs_close(NULL, file);
    rc = rc != 0 ? rc : fs_rename(NULL, tmp, name, err);
    rc = rc != 0 ? rc : fs_sync_dir(NULL, "", err);
    return rc;
}

static int lock_take(struct kvs_error *err)
{
    char text[32];
    ssize_t n;

    lock_fd = openat(root_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (lock_fd < 0) {
        return kvs_err_os(err, errno, "create '%s/lock'", root_path);
    }
    if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
        n = pread(lock_fd, text, sizeof text - 1, 0);
        text[n < 0 ? 0 : n] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return kvs_err(err, KVS_ELOCKED,
                       "data directory '%s' is in use by another kvsd%s%s. Stop it, or set "
                       "node.data_dir to another directory",
                       root_path, text[0] != '\0' ? ", process " : "", text);
    }
    n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(lock_fd, 0) != 0 || pwrite(lock_fd, text, (size_t)n, 0) != n) {
        return kvs_err_os(err, errno, "write '%s/lock'", root_path);
    }
    return 0;
}

static int identify(const char *node_id, struct kvs_error *err)
{
    char text[256];
    long format;
    char *end;
    int rc = small_read("format", text, sizeof text, err);

    if (rc != 0) {
        return rc;
    }
    if (text[0] == '\0') {
        (void)snprintf(text, sizeof text, "kvs %d\n", FORMAT);
        rc = kvs__datadir_put("format", kvs_slice_str(text), err);
    } else {
        format = strncmp(text, "kvs ", 4) == 0 ? strtol(text + 4, &end, 10) : -1;
        if (format <= 0 || *end != '\0') {
            return kvs_err(err, KVS_EFORMAT,
                           "'%s/format' says '%.60s': this is no kvs data directory", root_path,
                           text);
        }
        if (format > FORMAT) {
            return kvs_err(
                err, KVS_EFORMAT,
                "data directory '%s' has format %ld, this kvsd reads up to %d. Use a newer "
                "kvsd",
                root_path, format, FORMAT);
        }
    }
    rc = rc != 0 ? rc : small_read("node_id", text, sizeof text, err);
    if (rc != 0) {
        return rc;
    }
    if (text[0] != '\0' && strcmp(text, node_id) != 0) {
        return kvs_err(err, KVS_ECONFLICT,
                       "data directory '%s' belongs to node '%.64s', but node.id is '%.64s'",
                       root_path, text, node_id);
    }
    if (text[0] == '\0') {
        (void)snprintf(text, sizeof text, "%s\n", node_id);
        rc = kvs__datadir_put("node_id", kvs_slice_str(text), err);
    }
    return rc;
}

int kvs__datadir_open(const char *path, const char *node_id, const char **ret_path,
                      struct kvs_error *err)
{
    int rc = make_dirs(path, err);

    if (rc != 0) {
        return rc;
    }
    if (realpath(path, root_path) == NULL) {
        return kvs_err_os(err, errno, "data directory '%s'", path);
    }
    root_fd = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        return kvs_err_os(err, errno, "open data directory '%s'", root_path);
    }
    rc = lock_take(err);
    rc = rc != 0 ? rc : identify(node_id, err);
    *ret_path = root_path;
    return rc;
}

void kvs__datadir_close(void)
{
    if (lock_fd >= 0) {
        (void)close(lock_fd); /* releases the lock */
    }
    if (root_fd >= 0) {
        (void)close(root_fd);
    }
    lock_fd = root_fd = -1;
}
