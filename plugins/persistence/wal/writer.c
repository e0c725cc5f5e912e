/* SPDX-License-Identifier: MIT
 *
 * Group commit on the journal thread; see wal_private.h.
 *
 * Whatever waits becomes one frame: one write of the batches where they lie, one fdatasync. While
 * that goes on, the next group gathers by itself: under load groups grow until the disk keeps up.
 */
#include <stdlib.h>

#include "wal_private.h"

void frame_encode(uint8_t out[FRAME_HEADER_SIZE], const struct frame *f, uint32_t crc)
{
    memset(out, 0, FRAME_HEADER_SIZE);
    kvs_put_u32(out, FRAME_MAGIC);
    kvs_put_u32(out + 4, crc);
    kvs_put_u32(out + 8, f->size);
    kvs_put_u64(out + 16, f->salt);
    kvs_put_u64(out + 24, f->number);
    kvs_put_u64(out + 32, f->durable);
}

int frame_decode(const uint8_t *head, uint64_t salt, struct frame *ret_f, uint32_t *ret_crc)
{
    if (kvs_get_u32(head) != FRAME_MAGIC || kvs_get_u64(head + 16) != salt) {
        return 0;
    }
    *ret_crc = kvs_get_u32(head + 4);
    ret_f->size = kvs_get_u32(head + 8);
    ret_f->salt = salt;
    ret_f->number = kvs_get_u64(head + 24);
    ret_f->durable = kvs_get_u64(head + 32);
    return kvs_get_u32(head + 12) == 0;
}

uint32_t frame_crc(const uint8_t *head)
{
    return kvs_crc32c(0, head + 8, FRAME_HEADER_SIZE - 8);
}

/* ---- failing -----------------------------------------------------------------------------------
 */

static void fail_for_good(struct wal *w, const struct kvs_error *err)
{
    atomic_store(&w->failed, err->code == 0 ? KVS_EIO : err->code);
    KVS_LOG(w->host, KVS_LOG_ERROR, "journal_failed",
            "error='%s' effect='no write is accepted until a restart; reads go on'", err->msg);
    w->host->ready_set(w->host->ctx, "journal", 0, "a write or fsync of the journal failed");
}

int writer_sync(struct wal *w, struct kvs_error *err)
{
    const struct kvs_host *host = w->host;
    uint64_t begin = kvs_mono_ns(host);
    int rc;

    if (w->file == NULL || !w->dirty) {
        return 0;
    }
    rc = host->fault(host->ctx, "wal.sync");
    rc = rc != 0 ? kvs_err(err, rc, "injected") : host->fs->sync(host->fs->ctx, w->file, err);
    if (rc != 0) {
        (void)kvs_err_wrap(err, "sync the journal");
        fail_for_good(w, err);
        return KVS_EFAILED;
    }
    w->dirty = 0;
    w->durable_number = w->next_number;
    (void)atomic_fetch_add_explicit(&w->sync_count, 1, memory_order_relaxed);
    host->metric_observe(host->ctx, w->sync_seconds, kvs_mono_ns(host) - begin);
    return 0;
}

void writer_sync_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, sync_work);
    struct kvs_error err = {0};

    __atomic_store_n(&w->sync_busy, 0, __ATOMIC_RELEASE);
    if (atomic_load(&w->failed) == 0) {
        (void)writer_sync(w, &err); /* a failure is logged and final inside */
    }
}

/* ---- one group ---------------------------------------------------------------------------------
 */

struct group {
    struct kvs_append *first, **tail;
    uint32_t count;
    uint64_t size; /* of the payload */
};

static uint64_t align_up(uint64_t n)
{
    return (n + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

/* Cut as much from *list as one frame may hold. */
static void group_cut(struct kvs_append **list, struct group *g)
{
    g->first = *list;
    g->count = 0;
    g->size = 0;
    g->tail = list;
    while (*g->tail != NULL && g->count < GROUP_COUNT_MAX &&
           (g->count == 0 || g->size + (*g->tail)->batch.len <= GROUP_SIZE_MAX)) {
        g->size += (*g->tail)->batch.len;
        g->count++;
        g->tail = (struct kvs_append **)(void *)&(*g->tail)->task.next;
    }
    *list = *g->tail;
    *g->tail = NULL;
}

static int group_write(struct wal *w, struct group *g, struct kvs_error *err)
{
    static const char zeros[FRAME_ALIGN];
    const struct kvs_host *host = w->host;
    struct frame f = {
        .size = (uint32_t)g->size, .number = w->next_number, .durable = w->durable_number};
    uint64_t total = FRAME_HEADER_SIZE + align_up(g->size);
    uint8_t head[FRAME_HEADER_SIZE];
    uint32_t n = 1, crc;
    int rc = host->fault(host->ctx, "wal.write");

    if (rc == 0 && (w->current == NULL || w->current->end + total > w->current->size)) {
        rc = segment_roll(w, total, err);
    }
    if (rc != 0) {
        return rc;
    }
    f.salt = w->current->salt;
    frame_encode(head, &f, 0);
    crc = frame_crc(head);
    for (struct kvs_append *a = g->first; a != NULL;
         a = (struct kvs_append *)(void *)a->task.next) {
        crc = kvs_crc32c(crc, a->batch.ptr, a->batch.len);
        w->slices[n++] = a->batch;
    }
    kvs_put_u32(head + 4, crc);
    w->slices[0] = kvs_slice(head, sizeof head);
    w->slices[n++] = kvs_slice(zeros, align_up(g->size) - g->size);
    rc = host->fs->write(host->fs->ctx, w->file, w->current->end, w->slices, n, err);
    if (rc != 0) {
        return rc; /* what reached the disk is overwritten by the next frame */
    }
    w->dirty = 1;
    w->current->end += total;
    w->next_number++;
    host->metric_add(host->ctx, w->write_bytes, (int64_t)total);
    (void)atomic_fetch_add_explicit(&w->appended_bytes, total, memory_order_relaxed);
    return 0;
}

static int group_commit(struct wal *w, struct group *g)
{
    struct kvs_error err = {0};
    int rc = group_write(w, g, &err);

    if (rc != 0 && rc != KVS_ENOSPC && rc != KVS_ENOMEM) {
        fail_for_good(w, &err);
        return KVS_EFAILED;
    }
    if (rc != 0) {
        if (atomic_exchange(&w->last_append, KVS_ENOSPC) == 0) {
            KVS_LOG(w->host, KVS_LOG_ERROR, "journal_full",
                    "error='%s' effect='writes are refused until there is room'", err.msg);
        }
        return KVS_ENOSPC;
    }
    if (w->conf->sync == WAL_SYNC_ALWAYS) {
        rc = writer_sync(w, &err);
    }
    if (rc == 0) {
        for (struct kvs_append *a = g->first; a != NULL;
             a = (struct kvs_append *)(void *)a->task.next) {
            segment_note(w, w->current, a->stream, a->base_offset + a->count);
        }
        if (atomic_exchange(&w->last_append, 0) != 0) {
            KVS_LOG(w->host, KVS_LOG_INFO, "journal_has_room",
                    "effect='writes are accepted again'");
        }
        (void)atomic_fetch_add_explicit(&w->synced_batches, g->count, memory_order_relaxed);
        w->host->metric_observe(w->host->ctx, w->group_size, g->count);
    }
    return rc;
}

/* Give a finished group back to its loops. */
static void group_return(struct wal *w, struct group *g, int rc)
{
    const struct kvs_host *host = w->host;
    uint64_t to_post = 0;
    struct kvs_append *a, *next;

    (void)pthread_mutex_lock(&w->lock);
    for (a = g->first; a != NULL; a = next) {
        struct loop_state *l = &w->loops[a->loop];

        next = (struct kvs_append *)(void *)a->task.next;
        a->task.next = NULL;
        a->rc = rc;
        *l->outbox_tail = a;
        l->outbox_tail = (struct kvs_append **)(void *)&a->task.next;
        if (rc == KVS_ENOSPC) {
            l->failing = 1;
        }
        if (!l->posted) {
            l->posted = 1;
            to_post |= 1ULL << a->loop;
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < host->loop_count; i++) {
        if ((to_post & 1ULL << i) != 0) {
            host->post(host->ctx, i, &w->loops[i].completed);
        }
    }
}

/* Appends of loops that have not heard of a failure yet fail too: take them out of the list. */
static void take_failing_locked(struct wal *w, struct kvs_append **list)
{
    struct kvs_append **at = list;

    while (*at != NULL) {
        struct kvs_append *a = *at;
        struct loop_state *l = &w->loops[a->loop];

        if (!l->failing) {
            at = (struct kvs_append **)(void *)&a->task.next;
            continue;
        }
        *at = (struct kvs_append *)(void *)a->task.next;
        a->task.next = NULL;
        a->rc = KVS_ENOSPC;
        *l->outbox_tail = a; /* its completion is posted: failing is cleared there */
        l->outbox_tail = (struct kvs_append **)(void *)&a->task.next;
    }
}

void writer_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, work);

    for (;;) {
        struct kvs_append *list;

        (void)pthread_mutex_lock(&w->lock);
        list = w->inbox;
        w->inbox = NULL;
        w->inbox_tail = &w->inbox;
        take_failing_locked(w, &list);
        if (list == NULL) {
            w->writing = 0;
            (void)pthread_mutex_unlock(&w->lock);
            return;
        }
        (void)pthread_mutex_unlock(&w->lock);
        while (list != NULL) {
            struct group g;
            int rc;

            group_cut(&list, &g);
            rc = atomic_load(&w->failed) != 0 ? KVS_EFAILED : group_commit(w, &g);
            group_return(w, &g, rc);
            if (rc == KVS_ENOSPC && list != NULL) {
                (void)pthread_mutex_lock(&w->lock);
                take_failing_locked(w, &list);
                (void)pthread_mutex_unlock(&w->lock);
            }
        }
    }
}
