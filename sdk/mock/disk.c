/* SPDX-License-Identifier: MIT
 *
 * The disk of the fake host: what a program sees and what a power cut would leave.
 *
 * A file has its bytes and the bytes of its last sync; names have a journal of changes since the
 * last sync_dir of their directory. A crash keeps a random prefix of the name changes, and of every
 * file's unsynced 512-byte sectors each one new, old or garbled. */
#include <stdlib.h>

#include "mock_private.h"

#define SECTOR 512u

struct inode {
    struct inode *next;
    uint8_t *data, *durable;
    size_t size, cap, durable_size;
    int is_dir;
};

struct name {
    struct name *next;
    struct inode *inode;
    char path[MOCK_NAME_MAX];
};

/* One change of names not yet durable: path now means inode (NULL: nothing). */
struct name_op {
    struct name_op *next;
    struct inode *inode;
    char path[MOCK_NAME_MAX];
    uint32_t with_next; /* a rename is two changes that happen together */
};

struct kvs_file {
    struct kvs_file *next;
    struct inode *inode;
    uint32_t flags;
};

/* ---- names -------------------------------------------------------------------------------------
 */

static struct name **name_find(struct name **list, const char *path)
{
    while (*list != NULL && strcmp((*list)->path, path) != 0) {
        list = &(*list)->next;
    }
    return list;
}

static void name_set(struct name **list, const char *path, struct inode *inode)
{
    struct name **at = name_find(list, path);

    if (inode == NULL) {
        struct name *gone = *at;

        if (gone != NULL) {
            *at = gone->next;
            free(gone);
        }
        return;
    }
    if (*at == NULL) {
        struct name *n = calloc(1, sizeof *n);

        if (n == NULL || strlen(path) >= MOCK_NAME_MAX) {
            mock_stop_test("a path is too long");
        }
        memcpy(n->path, path, strlen(path) + 1);
        *at = n;
    }
    (*at)->inode = inode;
}

static void name_change(struct kvs_mock *m, const char *path, struct inode *inode,
                        uint32_t with_next)
{
    struct name_op **tail = &m->name_ops, *op = calloc(1, sizeof *op);

    if (op == NULL) {
        mock_stop_test("out of memory");
    }
    name_set(&m->names, path, inode);
    memcpy(op->path, path, strlen(path) + 1);
    op->inode = inode;
    op->with_next = with_next;
    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    *tail = op;
}

/* "a/b/c" lies in "a/b", "x" lies in "". */
static int in_dir(const char *path, const char *dir)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path);

    return strlen(dir) == n && memcmp(path, dir, n) == 0;
}

static struct inode *inode_new(struct kvs_mock *m, int is_dir)
{
    struct inode *i = calloc(1, sizeof *i);

    if (i == NULL) {
        mock_stop_test("out of memory");
    }
    i->is_dir = is_dir;
    i->next = m->inodes;
    m->inodes = i;
    return i;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static int io_fault(struct kvs_mock *m, struct kvs_error *err, const char *what)
{
    if (mock_fault(m, &m->fail_io)) {
        return kvs_err(err, m->fail_io.code, "%s: injected: %s", what,
                       kvs_code_text(m->fail_io.code));
    }
    return 0;
}

static int disk_open(void *ctx, const char *path, uint32_t flags, struct kvs_file **ret_file,
                     struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct name *n = *name_find(&m->names, path);
    struct kvs_file *f;
    int rc = io_fault(m, err, "open");

    if (rc != 0) {
        return rc;
    }
    if (n == NULL && (flags & KVS_FS_CREATE) == 0) {
        return kvs_err(err, KVS_ENOTFOUND, "open '%s': no such file", path);
    }
    if (n != NULL && (flags & KVS_FS_EXCLUSIVE) != 0) {
        return kvs_err(err, KVS_EEXIST, "open '%s': exists", path);
    }
    if (n == NULL) {
        name_change(m, path, inode_new(m, 0), 0);
        n = *name_find(&m->names, path);
    }
    f = calloc(1, sizeof *f);
    if (f == NULL) {
        mock_stop_test("out of memory");
    }
    f->inode = n->inode;
    f->flags = flags;
    f->next = m->files;
    m->files = f;
    *ret_file = f;
    return 0;
}

static void disk_close(void *ctx, struct kvs_file *file)
{
    struct kvs_mock *m = ctx;

    for (struct kvs_file **at = &m->files; *at != NULL; at = &(*at)->next) {
        if (*at == file) {
            *at = file->next;
            free(file);
            return;
        }
    }
    if (file != NULL) {
        mock_stop_test("close of a file that is not open");
    }
}

static int disk_read(void *ctx, struct kvs_file *file, uint64_t offset, void *buf, size_t len,
                     size_t *ret_len, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = file->inode;
    int rc = io_fault(m, err, "read");

    if (rc != 0) {
        return rc;
    }
    *ret_len = offset >= i->size ? 0 : i->size - offset < len ? i->size - offset : len;
    if (*ret_len > 0) {
        memcpy(buf, i->data + offset, *ret_len);
    }
    return 0;
}

static void inode_resize(struct kvs_mock *m, struct inode *i, size_t size)
{
    if (size > i->cap) {
        size_t cap = i->cap * 2 > size ? i->cap * 2 : size;
        uint8_t *grown = realloc(i->data, cap);

        if (grown == NULL) {
            mock_stop_test("out of memory");
        }
        i->data = grown;
        i->cap = cap;
    }
    if (size > i->size) {
        memset(i->data + i->size, 0, size - i->size);
    }
    m->disk_used = m->disk_used - i->size + size;
    i->size = size;
}

static int room_for(struct kvs_mock *m, const struct inode *i, size_t size, struct kvs_error *err)
{
    size_t more = size > i->size ? size - i->size : 0;

    if (m->disk_limit != 0 && m->disk_used + more > m->disk_limit) {
        return kvs_err(err, KVS_ENOSPC, "no space left on the fake disk");
    }
    return 0;
}

static int disk_write(void *ctx, struct kvs_file *file, uint64_t offset,
                      const struct kvs_slice *slices, uint32_t count, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "write"), torn = rc != 0;

    if ((file->flags & KVS_FS_WRITE) == 0) {
        mock_stop_test("write to a file opened for reading");
    }
    for (uint32_t k = 0; k < count; k++) {
        size_t n = slices[k].len;

        if (torn) {
            n = (size_t)(mock_random(m) % (n + 1)); /* any part may have reached the disk */
        } else {
            rc = room_for(m, file->inode, offset + n, err);
            if (rc != 0) {
                return rc;
            }
        }
        if (n > 0) {
            if (offset + n > file->inode->size) {
                inode_resize(m, file->inode, offset + n);
            }
            memcpy(file->inode->data + offset, slices[k].ptr, n);
        }
        if (torn) {
            return rc;
        }
        offset += n;
    }
    return rc;
}

static int disk_sync(void *ctx, struct kvs_file *file, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = file->inode;
    int rc = io_fault(m, err, "fdatasync");

    if (rc == 0 && mock_fault(m, &m->fail_sync)) {
        rc = kvs_err(err, KVS_EIO, "fdatasync: injected: input/output error");
    }
    if (rc != 0) {
        return rc;
    }
    free(i->durable);
    i->durable = malloc(i->size + 1);
    if (i->durable == NULL) {
        mock_stop_test("out of memory");
    }
    if (i->size > 0) {
        memcpy(i->durable, i->data, i->size);
    }
    i->durable_size = i->size;
    return 0;
}

static int disk_file_size(void *ctx, struct kvs_file *file, uint64_t *ret_size,
                          struct kvs_error *err)
{
    int rc = io_fault(ctx, err, "stat");

    *ret_size = file->inode->size;
    return rc;
}

static int disk_allocate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "allocate");

    rc = rc != 0 ? rc : room_for(m, file->inode, size, err);
    if (rc == 0 && size > file->inode->size) {
        inode_resize(m, file->inode, size);
    }
    return rc;
}

static int disk_truncate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    int rc = io_fault(ctx, err, "truncate");

    if (rc == 0) {
        inode_resize(ctx, file->inode, size);
    }
    return rc;
}

static int disk_rename(void *ctx, const char *from, const char *to, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct name *n = *name_find(&m->names, from);
    struct inode *i = n == NULL ? NULL : n->inode;
    int rc = io_fault(m, err, "rename");

    if (rc == 0 && i == NULL) {
        return kvs_err(err, KVS_ENOTFOUND, "rename '%s': no such file", from);
    }
    if (rc == 0) {
        name_change(m, to, i, 1);
        name_change(m, from, NULL, 0);
    }
    return rc;
}

static int disk_remove(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct name *n = *name_find(&m->names, path);
    int rc = io_fault(m, err, "remove");

    if (rc == 0 && n == NULL) {
        return kvs_err(err, KVS_ENOTFOUND, "remove '%s': no such file", path);
    }
    if (rc == 0) {
        m->disk_used -= n->inode->size;
        name_change(m, path, NULL, 0);
    }
    return rc;
}

static int disk_mkdir(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "mkdir");

    if (rc == 0 && *name_find(&m->names, path) == NULL) {
        name_change(m, path, inode_new(m, 1), 0);
    }
    return rc;
}

static int disk_sync_dir(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "fsync directory");

    for (struct name_op **at = &m->name_ops; rc == 0 && *at != NULL;) {
        struct name_op *op = *at;

        if (in_dir(op->path, path)) {
            name_set(&m->durable_names, op->path, op->inode);
            *at = op->next;
            free(op);
        } else {
            at = &op->next;
        }
    }
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int disk_list(void *ctx, const char *path, int (*fn)(void *arg, const char *name), void *arg,
                     struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    size_t skip = path[0] == '\0' ? 0 : strlen(path) + 1, n = 0;
    char *found[256];
    int rc = io_fault(m, err, "list");

    if (rc == 0 && path[0] != '\0' && *name_find(&m->names, path) == NULL) {
        return kvs_err(err, KVS_ENOTFOUND, "list '%s': no such directory", path);
    }
    for (struct name *at = m->names; rc == 0 && at != NULL; at = at->next) {
        if (in_dir(at->path, path) && n < KVS_ARRAY_COUNT(found)) {
            found[n] = strdup(at->path + skip); /* fn may rename and remove */
            n++;
        }
    }
    qsort(found, n, sizeof found[0], by_text);
    for (size_t i = 0; i < n; i++) {
        rc = rc != 0 ? rc : fn(arg, found[i]);
        free(found[i]);
    }
    return rc;
}

void mock_disk_fill(struct kvs_mock *m)
{
    m->fs = (struct kvs_fs){
        .size = sizeof m->fs,
        .ctx = m,
        .open = disk_open,
        .close = disk_close,
        .read = disk_read,
        .write = disk_write,
        .sync = disk_sync,
        .file_size = disk_file_size,
        .allocate = disk_allocate,
        .truncate = disk_truncate,
        .rename = disk_rename,
        .remove = disk_remove,
        .mkdir = disk_mkdir,
        .sync_dir = disk_sync_dir,
        .list = disk_list,
    };
}

/* ---- crash -------------------------------------------------------------------------------------
 */

static void crash_file(struct kvs_mock *m, struct inode *i)
{
    size_t size = mock_random(m) % 2 == 0 ? i->durable_size : i->size;

    for (size_t at = 0; at < size; at += SECTOR) {
        size_t n = size - at < SECTOR ? size - at : SECTOR;
        size_t old = i->durable_size > at ? i->durable_size - at : 0;
        uint8_t before[SECTOR] = {0};
        uint64_t fate;

        old = old < n ? old : n;
        if (old > 0) {
            memcpy(before, i->durable + at, old);
        }
        if (at + n <= i->size && memcmp(before, i->data + at, n) == 0) {
            continue;
        }
        fate = mock_random(m) % 4;
        if (at + n > i->size) {
            inode_resize(m, i, at + n);
            fate = 0;
        }
        if (fate == 0) {
            memcpy(i->data + at, before, n);
        } else if (fate == 1) {
            i->data[at + mock_random(m) % n] ^= (uint8_t)(1u + mock_random(m) % 255);
        }
    }
    inode_resize(m, i, size);
    free(i->durable);
    i->durable = malloc(size + 1);
    if (i->durable == NULL) {
        mock_stop_test("out of memory");
    }
    if (size > 0) {
        memcpy(i->durable, i->data, size);
    }
    i->durable_size = size;
}

static void names_free(struct name **list)
{
    while (*list != NULL) {
        struct name *next = (*list)->next;

        free(*list);
        *list = next;
    }
}

void mock_disk_crash(struct kvs_mock *m)
{
    int keep = 1, together = 0;

    while (m->files != NULL) {
        struct kvs_file *next = m->files->next;

        free(m->files);
        m->files = next;
    }
    while (m->name_ops != NULL) {
        struct name_op *op = m->name_ops;

        keep = keep && (together || mock_random(m) % 3 != 0); /* a prefix survives */
        if (keep) {
            name_set(&m->durable_names, op->path, op->inode);
        }
        together = keep && op->with_next;
        m->name_ops = op->next;
        free(op);
    }
    names_free(&m->names);
    m->disk_used = 0;
    for (struct inode *i = m->inodes; i != NULL; i = i->next) {
        crash_file(m, i);
    }
    m->disk_used = 0;
    for (struct name *n = m->durable_names; n != NULL; n = n->next) {
        name_set(&m->names, n->path, n->inode);
        m->disk_used += n->inode->size;
    }
}

void mock_disk_free(struct kvs_mock *m)
{
    names_free(&m->names);
    names_free(&m->durable_names);
    while (m->name_ops != NULL) {
        struct name_op *next = m->name_ops->next;

        free(m->name_ops);
        m->name_ops = next;
    }
    while (m->inodes != NULL) {
        struct inode *next = m->inodes->next;

        free(m->inodes->data);
        free(m->inodes->durable);
        free(m->inodes);
        m->inodes = next;
    }
    while (m->files != NULL) {
        struct kvs_file *next = m->files->next;

        free(m->files);
        m->files = next;
    }
}

uint8_t *kvs_mock_file(struct kvs_mock *m, const char *path, size_t *ret_len)
{
    struct name *n = *name_find(&m->names, path);

    *ret_len = n == NULL ? 0 : n->inode->size;
    return n == NULL ? NULL : n->inode->data;
}

const char *const *kvs_mock_files(struct kvs_mock *m)
{
    size_t n = 0;

    for (struct name *at = m->names; at != NULL; at = at->next) {
        if (!at->inode->is_dir && n + 1 < KVS_ARRAY_COUNT(m->listing)) {
            m->listing[n++] = at->path;
        }
    }
    qsort(m->listing, n, sizeof m->listing[0], by_text);
    m->listing[n] = NULL;
    return m->listing;
}

void kvs_mock_fail_io(struct kvs_mock *m, uint64_t nth, int once, int code)
{
    m->fail_io = (struct fault){nth, once, code};
    m->fired = 0;
}

void kvs_mock_fail_sync(struct kvs_mock *m, uint64_t nth, int once)
{
    m->fail_sync = (struct fault){nth, once, KVS_EIO};
    m->fired = 0;
}

void kvs_mock_disk_limit(struct kvs_mock *m, uint64_t bytes)
{
    m->disk_limit = bytes;
}
