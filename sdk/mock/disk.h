/* SPDX-License-Identifier: MIT
 *
 * What disk.c and crash.c share of the memory disk. */
#ifndef KVS_MOCK_DISK_H
#define KVS_MOCK_DISK_H

#include "mock_private.h"

#define INODE_SIZE_MIN 64u
#define FILE_SIZE_MAX  (1ull << 32) /* beyond: KVS_ENOSPC */

/* Outside [dirty_from, dirty_to) data and durable are the same, so are size and durable_size if the
 * range is empty. */
struct inode {
    struct inode *next;
    uint8_t *data, *durable;
    size_t size, cap, durable_size, durable_cap;
    size_t dirty_from, dirty_to;
    uint32_t refs, open_count;
    int is_dir, counted;
};

struct name {
    struct name *next;
    struct inode *inode;
    char path[MOCK_NAME_MAX];
};

/* One change of names not yet durable: path now means inode (NULL: nothing), and `from`, unless
 * empty, means nothing any more. */
struct name_op {
    struct name_op *next;
    struct inode *inode;
    char path[MOCK_NAME_MAX], from[MOCK_NAME_MAX];
};

struct kvs_file {
    struct kvs_file *next;
    struct inode *inode;
    uint32_t flags;
};

void mock_inode_resize(struct inode *i, size_t size);
/* All of the file is durable; of its bytes those in [from, to) have to be copied for that. */
void mock_inode_make_durable(struct inode *i, size_t from, size_t to);

struct inode *mock_name_inode(struct name *list, const char *path);
void mock_name_set(struct kvs_mock *m, struct name **list, const char *path, struct inode *inode);
void mock_name_op_apply(struct kvs_mock *m, struct name **list, const struct name_op *op);
void mock_name_op_free(struct kvs_mock *m, struct name_op *op);
int mock_parent_exists(struct name *list, const char *path);
void mock_disk_close_all(struct kvs_mock *m);

#endif
