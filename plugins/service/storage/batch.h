/* SPDX-License-Identifier: MIT
 *
 * What batch.c and batch_read.c share: one batch request. */
#ifndef STORAGE_BATCH_H
#define STORAGE_BATCH_H

#include "storage.h"

struct operation {
    struct write_op op;
    uint32_t partition, position; /* in its group */
    struct group *group;          /* NULL: malformed, no write */
    const char *wrong;            /* malformed: why; no write */
};

/* The operations of one partition. */
struct group {
    struct group *next; /* of the same loop */
    struct write_batch wb;
    struct batch_request *b;
    struct kvs_arena arena; /* of its loop */
    uint32_t partition;
    int rc;
};

struct batch_loop {
    struct kvs_task task;
    struct batch_request *b;
    struct group *groups;
};

struct batch_request {
    struct storage *svc;
    struct kvs_request *req;
    struct operation *ops;    /* [count]; names and values point into the body or the arena */
    struct write_op *sorted;  /* [count], by partition */
    struct group *groups;     /* [group_count] */
    struct batch_loop *loops; /* [loop_count] */
    uint32_t count, group_count, table_id, ndjson, atomic, acks;
    uint64_t max_value_bytes;
    _Atomic uint32_t left;
};

/* batch_read.c: fill ops and count from the body. 0; or KVS_EINVAL with what is wrong,
 * KVS_ETOOMANY, KVS_ENOMEM. An operation that is JSON but makes no sense is no error here: its
 * `wrong` is set. */
int batch_read(struct batch_request *b, const struct table *t, const char **ret_detail);

#endif
