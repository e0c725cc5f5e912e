/* SPDX-License-Identifier: MIT
 *
 * A power cut on the memory disk.
 *
 * Of the name changes that no sync_dir followed a random prefix survives: file systems order them,
 * across directories too. Names in a directory that did not survive are gone with it. Of a file's
 * unsynced bytes every 512-byte sector is by itself new, old or garbled, and the length is the old
 * one, the new one or one between. What was synced is untouched. */
#include "disk.h"

#define SECTOR 512u

/* One sector [at, at + n), of which the running program saw the bytes below `seen_size`. */
static void crash_sector(struct kvs_mock *m, struct inode *i, size_t at, size_t n, size_t seen_size)
{
    size_t old = i->durable_size > at ? i->durable_size - at : 0;
    uint8_t before[SECTOR] = {0};
    uint64_t fate = mock_random(m) % 4;

    old = old < n ? old : n;
    if (old > 0) {
        memcpy(before, i->durable + at, old);
    }
    if (at + n > seen_size) {
        fate = 0; /* the cut was lost: these bytes exist only in their old form */
    } else if (memcmp(before, i->data + at, n) == 0) {
        return;
    }
    if (fate == 0) {
        memcpy(i->data + at, before, n);
    } else if (fate == 1) {
        i->data[at + mock_random(m) % n] ^= (uint8_t)(1u + mock_random(m) % 255);
    }
}

static size_t crash_size(struct kvs_mock *m, const struct inode *i)
{
    size_t low = i->size < i->durable_size ? i->size : i->durable_size;
    size_t high = i->size < i->durable_size ? i->durable_size : i->size, size;

    switch (mock_random(m) % 3) {
    case 0:
        return i->size;
    case 1:
        return i->durable_size;
    default:
        size = (low + mock_random(m) % (high - low + 1)) / SECTOR * SECTOR;
        return size < low ? low : size;
    }
}

static void crash_file(struct kvs_mock *m, struct inode *i)
{
    size_t seen_size = i->size, from = i->dirty_from / SECTOR * SECTOR, to = i->dirty_to, size;

    if (i->dirty_from < i->dirty_to) {
        size = crash_size(m, i);
        if (size > i->size) {
            mock_inode_resize(i, size);
        }
        to = to < size ? to : size;
        for (size_t at = from; at < to; at += SECTOR) {
            crash_sector(m, i, at, size - at < SECTOR ? size - at : SECTOR, seen_size);
        }
        mock_inode_resize(i, size);
    }
    /* Everything, not the range: a test may have damaged bytes behind our back. */
    mock_inode_make_durable(i, 0, i->size);
}

/* Names whose directory is gone cannot be reached. */
static void drop_orphans(struct kvs_mock *m)
{
    struct name *n = m->durable_names;

    while (n != NULL) {
        if (mock_parent_exists(m->durable_names, n->path)) {
            n = n->next;
        } else {
            mock_name_set(m, &m->durable_names, n->path, NULL);
            n = m->durable_names; /* it may have been a directory: look again */
        }
    }
}

void mock_disk_crash(struct kvs_mock *m)
{
    int keep = 1;

    mock_disk_close_all(m);
    while (m->name_ops != NULL) {
        struct name_op *op = m->name_ops;

        keep = keep && mock_random(m) % 3 != 0;
        if (keep) {
            mock_name_op_apply(m, &m->durable_names, op);
        }
        m->name_ops = op->next;
        mock_name_op_free(m, op);
    }
    drop_orphans(m);
    while (m->names != NULL) {
        mock_name_set(m, &m->names, m->names->path, NULL);
    }
    /* What is left in the list of inodes has a durable name. */
    for (struct inode *i = m->inodes; i != NULL; i = i->next) {
        crash_file(m, i);
    }
    for (struct name *n = m->durable_names; n != NULL; n = n->next) {
        mock_name_set(m, &m->names, n->path, n->inode);
    }
}
