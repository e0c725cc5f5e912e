/* SPDX-License-Identifier: MIT
 *
 * The disk of the fake host: what a program sees, and what of it a power cut could not take.
 *
 * A file has its bytes, the bytes of its last sync, and the range that may differ between the two,
 * so that a sync costs what was written and not the file. Names have a journal of the changes made
 * since the last sync_dir of their directory; a rename is one change, so that it never halves.
 * Inodes count their holders: names, durable names, journal entries and open files. What a crash
 * keeps is decided in crash.c. */
#include <stdlib.h>

#include "disk.h"

/* ---- inodes ------------------------------------------------------------------------------------
 */

static struct inode *inode_new(struct kvs_mock *m, int is_dir)
{
    struct inode *i = calloc(1, sizeof *i);
    uint8_t *data = malloc(INODE_SIZE_MIN); /* so that an empty file has a place, too */

    if (i == NULL || data == NULL) {
        mock_stop_test("out of memory");
    }
    i->data = data;
    i->cap = INODE_SIZE_MIN;
    i->is_dir = is_dir;
    i->next = m->inodes;
    m->inodes = i;
    return i;
}

static void inode_unref(struct kvs_mock *m, struct inode *i)
{
    struct inode **at = &m->inodes;

    if (i == NULL || --i->refs > 0) {
        return;
    }
    while (*at != i) {
        at = &(*at)->next;
    }
    *at = i->next;
    free(i->data);
    free(i->durable);
    free(i);
}

static void inode_dirty(struct inode *i, size_t from, size_t to)
{
    if (from >= to) {
        return;
    }
    if (i->dirty_from == i->dirty_to) {
        i->dirty_from = from;
        i->dirty_to = to;
        return;
    }
    i->dirty_from = from < i->dirty_from ? from : i->dirty_from;
    i->dirty_to = to > i->dirty_to ? to : i->dirty_to;
}

void mock_inode_resize(struct inode *i, size_t size)
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
        inode_dirty(i, i->size, size);
    } else {
        inode_dirty(i, size, i->size); /* a crash may bring the cut bytes back */
    }
    i->size = size;
}

void mock_inode_make_durable(struct inode *i, size_t from, size_t to)
{
    to = to < i->size ? to : i->size;
    if (i->size > i->durable_cap) {
        uint8_t *grown = realloc(i->durable, i->cap);

        if (grown == NULL) {
            mock_stop_test("out of memory");
        }
        i->durable = grown;
        i->durable_cap = i->cap;
    }
    if (from < to) {
        memcpy(i->durable + from, i->data + from, to - from);
    }
    i->durable_size = i->size;
    i->dirty_from = i->dirty_to = 0;
}

/* ---- names -------------------------------------------------------------------------------------
 */

static struct name **name_find(struct name **list, const char *path)
{
    while (*list != NULL && strcmp((*list)->path, path) != 0) {
        list = &(*list)->next;
    }
    return list;
}

struct inode *mock_name_inode(struct name *list, const char *path)
{
    struct name *n = *name_find(&list, path);

    return n == NULL ? NULL : n->inode;
}

/* From now on path means inode (NULL: nothing) in that list. */
void mock_name_set(struct kvs_mock *m, struct name **list, const char *path, struct inode *inode)
{
    struct name **at = name_find(list, path), *n = *at;
    struct inode *before = n == NULL ? NULL : n->inode;

    if (inode != NULL) {
        if (n == NULL) {
            n = calloc(1, sizeof *n);
            if (n == NULL) {
                mock_stop_test("out of memory");
            }
            memcpy(n->path, path, strlen(path) + 1);
            *at = n;
        }
        n->inode = inode;
        inode->refs++;
    } else if (n != NULL) {
        *at = n->next;
        free(n);
    }
    inode_unref(m, before);
}

void mock_name_op_apply(struct kvs_mock *m, struct name **list, const struct name_op *op)
{
    mock_name_set(m, list, op->path, op->inode);
    if (op->from[0] != '\0') {
        mock_name_set(m, list, op->from, NULL);
    }
}

void mock_name_op_free(struct kvs_mock *m, struct name_op *op)
{
    inode_unref(m, op->inode);
    free(op);
}

static void name_change(struct kvs_mock *m, const char *path, struct inode *inode, const char *from)
{
    struct name_op **tail = &m->name_ops, *op = calloc(1, sizeof *op);

    if (op == NULL) {
        mock_stop_test("out of memory");
    }
    memcpy(op->path, path, strlen(path) + 1);
    memcpy(op->from, from, strlen(from) + 1);
    op->inode = inode;
    if (inode != NULL) {
        inode->refs++;
    }
    mock_name_op_apply(m, &m->names, op);
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

int mock_parent_exists(struct name *list, const char *path)
{
    const char *slash = strrchr(path, '/');
    char parent[MOCK_NAME_MAX];
    const struct inode *i;

    if (slash == NULL) {
        return 1;
    }
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    i = mock_name_inode(list, parent);
    return i != NULL && i->is_dir;
}

/* Paths come from our own code: a wrong one is a bug of the plugin. */
static void path_check(const char *path)
{
    size_t n = strlen(path);

    if (n == 0 || n >= MOCK_NAME_MAX || path[0] == '/' || path[n - 1] == '/' ||
        strstr(path, "..") != NULL || strstr(path, "//") != NULL) {
        mock_stop_test("a path is empty, too long, absolute, or holds '..' or '//'");
    }
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

/* The file is open, and for writing if `flags` says so. */
static void file_check(struct kvs_mock *m, const struct kvs_file *file, uint32_t flags)
{
    const struct kvs_file *f = m->files;

    while (f != NULL && f != file) {
        f = f->next;
    }
    if (f == NULL) {
        mock_stop_test("use of a file that is not open");
    }
    if ((f->flags & flags) != flags) {
        mock_stop_test("change of a file that was opened for reading");
    }
}

static int disk_open(void *ctx, const char *path, uint32_t flags, struct kvs_file **ret_file,
                     struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = mock_name_inode(m->names, path);
    struct kvs_file *f;
    int rc = io_fault(m, err, "open");

    path_check(path);
    if (rc != 0) {
        return rc;
    }
    if (i == NULL && ((flags & KVS_FS_CREATE) == 0 || !mock_parent_exists(m->names, path))) {
        return kvs_err(err, KVS_ENOTFOUND, "open '%s': no such file or directory", path);
    }
    if (i != NULL && (flags & KVS_FS_CREATE) != 0 && (flags & KVS_FS_EXCLUSIVE) != 0) {
        return kvs_err(err, KVS_EEXIST, "open '%s': exists", path);
    }
    if (i != NULL && i->is_dir) {
        return kvs_err(err, KVS_EIO, "open '%s': is a directory", path);
    }
    if (i == NULL) {
        i = inode_new(m, 0);
        name_change(m, path, i, "");
    }
    f = calloc(1, sizeof *f);
    if (f == NULL) {
        mock_stop_test("out of memory");
    }
    f->inode = i;
    f->flags = flags;
    f->next = m->files;
    m->files = f;
    i->refs++;
    i->open_count++;
    *ret_file = f;
    return 0;
}

static void disk_close(void *ctx, struct kvs_file *file)
{
    struct kvs_mock *m = ctx;

    for (struct kvs_file **at = &m->files; *at != NULL; at = &(*at)->next) {
        if (*at == file) {
            *at = file->next;
            file->inode->open_count--;
            inode_unref(m, file->inode);
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

    file_check(m, file, 0);
    if (rc != 0) {
        return rc;
    }
    *ret_len = offset >= i->size ? 0 : i->size - offset < len ? i->size - offset : len;
    if (*ret_len > 0) {
        memcpy(buf, i->data + offset, *ret_len);
    }
    return 0;
}

/* How large the file may become under the limit of the disk. Files without a name that nobody has
 * open hold no space. */
static uint64_t size_allowed(struct kvs_mock *m, const struct inode *file)
{
    uint64_t used = 0;

    if (m->disk_limit == 0) {
        return FILE_SIZE_MAX;
    }
    for (struct inode *i = m->inodes; i != NULL; i = i->next) {
        i->counted = i->open_count > 0;
    }
    for (struct name *n = m->names; n != NULL; n = n->next) {
        n->inode->counted = 1;
    }
    for (const struct inode *i = m->inodes; i != NULL; i = i->next) {
        used += i->counted && i != file ? i->size : 0;
    }
    return used >= m->disk_limit ? 0 : m->disk_limit - used;
}

static int room_for(struct kvs_mock *m, const struct inode *i, uint64_t size, struct kvs_error *err)
{
    if (size > i->size && (size > FILE_SIZE_MAX || size > size_allowed(m, i))) {
        return kvs_err(err, KVS_ENOSPC, "no space left on the fake disk");
    }
    return 0;
}

/* After a failure any part may be on disk: a random prefix is, as far as there is room. */
static uint64_t torn_length(struct kvs_mock *m, const struct inode *i, uint64_t offset,
                            uint64_t total)
{
    uint64_t end = size_allowed(m, i);

    end = end < i->size ? i->size : end;
    end = end < FILE_SIZE_MAX ? end : FILE_SIZE_MAX;
    if (offset >= end) {
        return 0;
    }
    total = end - offset < total ? end - offset : total;
    return mock_random(m) % (total + 1);
}

static int disk_write(void *ctx, struct kvs_file *file, uint64_t offset,
                      const struct kvs_slice *slices, uint32_t count, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = file->inode;
    uint64_t left = 0;
    int rc = io_fault(m, err, "write");

    file_check(m, file, KVS_FS_WRITE);
    for (uint32_t k = 0; k < count; k++) {
        left += slices[k].len;
    }
    if (rc == 0) {
        rc = room_for(m, i, offset > UINT64_MAX - left ? UINT64_MAX : offset + left, err);
    }
    if (rc != 0) {
        left = torn_length(m, i, offset, left);
    }
    for (uint32_t k = 0; k < count && left > 0; k++) {
        size_t n = slices[k].len < left ? slices[k].len : (size_t)left;

        if (n == 0) {
            continue;
        }
        if (offset + n > i->size) {
            mock_inode_resize(i, offset + n);
        }
        memcpy(i->data + offset, slices[k].ptr, n);
        inode_dirty(i, offset, offset + n);
        offset += n;
        left -= n;
    }
    return rc;
}

static int disk_sync(void *ctx, struct kvs_file *file, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = file->inode;
    int rc = io_fault(m, err, "fdatasync");

    file_check(m, file, 0);
    if (rc == 0 && mock_fault(m, &m->fail_sync)) {
        rc = kvs_err(err, KVS_EIO, "fdatasync: injected: input/output error");
    }
    if (rc == 0) {
        mock_inode_make_durable(i, i->dirty_from, i->dirty_to);
    }
    return rc;
}

static int disk_file_size(void *ctx, struct kvs_file *file, uint64_t *ret_size,
                          struct kvs_error *err)
{
    int rc = io_fault(ctx, err, "stat");

    file_check(ctx, file, 0);
    if (rc == 0) {
        *ret_size = file->inode->size;
    }
    return rc;
}

static int disk_allocate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "allocate");

    file_check(m, file, KVS_FS_WRITE);
    rc = rc != 0 ? rc : room_for(m, file->inode, size, err);
    if (rc == 0 && size > file->inode->size) {
        mock_inode_resize(file->inode, size);
    }
    return rc;
}

static int disk_truncate(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "truncate");

    file_check(m, file, KVS_FS_WRITE);
    rc = rc != 0 ? rc : room_for(m, file->inode, size, err);
    if (rc == 0) {
        mock_inode_resize(file->inode, size);
    }
    return rc;
}

/* ---- directories -------------------------------------------------------------------------------
 */

static int disk_rename(void *ctx, const char *from, const char *to, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    struct inode *i = mock_name_inode(m->names, from), *over = mock_name_inode(m->names, to);
    int rc = io_fault(m, err, "rename");

    path_check(from);
    path_check(to);
    if (rc != 0) {
        return rc;
    }
    if (i == NULL || !mock_parent_exists(m->names, to)) {
        return kvs_err(err, KVS_ENOTFOUND, "rename '%s' to '%s': no such file or directory", from,
                       to);
    }
    if (i->is_dir) {
        mock_stop_test("the fake disk renames no directories");
    }
    if (over != NULL && over->is_dir) {
        return kvs_err(err, KVS_EIO, "rename '%s' to '%s': is a directory", from, to);
    }
    if (over != i) { /* POSIX: onto itself is nothing */
        name_change(m, to, i, from);
    }
    return 0;
}

static int disk_remove(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    const struct inode *i = mock_name_inode(m->names, path);
    int rc = io_fault(m, err, "remove");

    path_check(path);
    if (rc != 0) {
        return rc;
    }
    if (i == NULL) {
        return kvs_err(err, KVS_ENOTFOUND, "remove '%s': no such file", path);
    }
    if (i->is_dir) {
        return kvs_err(err, KVS_EIO, "remove '%s': is a directory", path);
    }
    name_change(m, path, NULL, "");
    return 0;
}

static int disk_mkdir(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "mkdir");

    path_check(path);
    if (rc != 0 || mock_name_inode(m->names, path) != NULL) {
        return rc;
    }
    if (!mock_parent_exists(m->names, path)) {
        return kvs_err(err, KVS_ENOTFOUND, "create directory '%s': no such directory", path);
    }
    name_change(m, path, inode_new(m, 1), "");
    return 0;
}

static int dir_check(struct kvs_mock *m, const char *what, const char *path, struct kvs_error *err)
{
    const struct inode *i;

    if (path[0] == '\0') {
        return 0;
    }
    path_check(path);
    i = mock_name_inode(m->names, path);
    if (i == NULL || !i->is_dir) {
        return kvs_err(err, i == NULL ? KVS_ENOTFOUND : KVS_EIO, "%s '%s': no such directory", what,
                       path);
    }
    return 0;
}

static int disk_sync_dir(void *ctx, const char *path, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;
    int rc = io_fault(m, err, "fsync directory");

    rc = rc != 0 ? rc : dir_check(m, "fsync directory", path, err);
    for (struct name_op **at = &m->name_ops; rc == 0 && *at != NULL;) {
        struct name_op *op = *at;

        if (in_dir(op->path, path) || (op->from[0] != '\0' && in_dir(op->from, path))) {
            mock_name_op_apply(m, &m->durable_names, op);
            *at = op->next;
            mock_name_op_free(m, op);
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
    size_t skip = path[0] == '\0' ? 0 : strlen(path) + 1, n = 0, count = 0;
    char **found;
    int rc = io_fault(m, err, "list");

    rc = rc != 0 ? rc : dir_check(m, "list", path, err);
    if (rc != 0) {
        return rc;
    }
    for (struct name *at = m->names; at != NULL; at = at->next) {
        count++;
    }
    found = calloc(count + 1, sizeof *found);
    for (struct name *at = m->names; found != NULL && at != NULL; at = at->next) {
        if (in_dir(at->path, path)) {
            found[n] = strdup(at->path + skip); /* fn may rename and remove */
            if (found[n++] == NULL) {
                mock_stop_test("out of memory");
            }
        }
    }
    if (found == NULL) {
        mock_stop_test("out of memory");
    }
    qsort(found, n, sizeof found[0], by_text);
    for (size_t i = 0; i < n; i++) {
        rc = rc != 0 ? rc : fn(arg, found[i]);
        free(found[i]);
    }
    free(found);
    return rc;
}

/* ---- life --------------------------------------------------------------------------------------
 */

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

void mock_disk_close_all(struct kvs_mock *m)
{
    while (m->files != NULL) {
        disk_close(m, m->files);
    }
}

void mock_disk_free(struct kvs_mock *m)
{
    mock_disk_close_all(m);
    while (m->names != NULL) {
        mock_name_set(m, &m->names, m->names->path, NULL);
    }
    while (m->durable_names != NULL) {
        mock_name_set(m, &m->durable_names, m->durable_names->path, NULL);
    }
    while (m->name_ops != NULL) {
        struct name_op *op = m->name_ops;

        m->name_ops = op->next;
        mock_name_op_free(m, op);
    }
    free(m->listing);
    m->listing = NULL;
}

uint8_t *kvs_mock_file(struct kvs_mock *m, const char *path, size_t *ret_len)
{
    struct inode *i = mock_name_inode(m->names, path);

    *ret_len = i == NULL ? 0 : i->size;
    return i == NULL || i->is_dir ? NULL : i->data;
}

const char *const *kvs_mock_files(struct kvs_mock *m)
{
    size_t count = 0, n = 0;

    for (struct name *at = m->names; at != NULL; at = at->next) {
        count++;
    }
    free(m->listing);
    m->listing = calloc(count + 1, sizeof *m->listing);
    if (m->listing == NULL) {
        mock_stop_test("out of memory");
    }
    for (struct name *at = m->names; at != NULL; at = at->next) {
        if (!at->inode->is_dir) {
            m->listing[n++] = at->path;
        }
    }
    qsort(m->listing, n, sizeof m->listing[0], by_text);
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
