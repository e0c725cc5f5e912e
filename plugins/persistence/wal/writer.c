/* SPDX-License-Identifier: MIT
 *
 * Group commit on the journal thread; see wal_private.h.
 *
 * Whatever waits becomes one frame: one write of the batches where they lie, one fdatasync. While
 * that goes on, the next group gathers by itself: under load groups grow until the disk keeps up.
 */
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
    return ret_f->size != 0 && kvs_get_u32(head + 12) == 0;
}

uint32_t frame_crc(const uint8_t *head)
{
    return kvs_crc32c(0, head + 8, FRAME_HEADER_SIZE - 8);
}

/* ---- failing -----------------------------------------------------------------------------------
 */

static void fail_for_good(struct wal *w, const struct kvs_error *err)
{
    if (atomic_exchange(&w->failed, err->code == 0 ? KVS_EIO : err->code) != 0) {
        return; /* said already */
    }
    atomic_store(&w->last_append, KVS_EFAILED);
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

    atomic_store(&w->sync_busy, 0);
    if (atomic_load(&w->failed) == 0) {
        (void)writer_sync(w, &err); /* a failure is logged and final inside */
    }
}

/* ---- one group ---------------------------------------------------------------------------------
 */

struct group {
    struct append_list list;
    uint32_t count;
    uint64_t size; /* of the payload */
};

/* Cut as much from the list as one frame may hold. */
static void group_cut(struct append_list *list, struct group *g)
{
    append_list_clear(&g->list);
    g->count = 0;
    g->size = 0;
    while (list->head != NULL && g->count < GROUP_COUNT_MAX) {
        uint64_t size = append_of(list->head)->batch.len;

        if (g->count > 0 && g->size + size > GROUP_SIZE_MAX) {
            break;
        }
        g->size += size;
        g->count++;
        append_list_push(&g->list, append_list_pop(list));
    }
}

int writer_erase(struct wal *w, struct kvs_error *err)
{
    static const char zeros[FRAME_HEADER_SIZE];
    const struct kvs_slice bytes = {zeros, sizeof zeros};
    int rc;

    if (!w->erase) {
        return 0;
    }
    rc = w->host->fs->write(w->host->fs->ctx, w->file, w->current->end, &bytes, 1, err);
    if (rc == 0) {
        w->erase = 0;
        w->dirty = 1;
        rc = writer_sync(w, err);
    }
    return rc;
}

static int frame_write(struct wal *w, struct group *g, uint64_t total, struct kvs_error *err)
{
    static const char zeros[FRAME_ALIGN];
    struct frame f = {.size = (uint32_t)g->size,
                      .salt = w->current->salt,
                      .number = w->next_number,
                      .durable = w->durable_number};
    uint8_t head[FRAME_HEADER_SIZE];
    uint32_t n = 1, crc;

    frame_encode(head, &f, 0);
    crc = frame_crc(head);
    for (struct kvs_task *t = g->list.head; t != NULL; t = t->next) {
        struct kvs_slice batch = append_of(t)->batch;

        crc = kvs_crc32c(crc, batch.ptr, batch.len);
        w->slices[n++] = batch;
    }
    kvs_put_u32(head + 4, crc);
    w->slices[0] = kvs_slice(head, sizeof head);
    w->slices[n++] = kvs_slice(zeros, total - FRAME_HEADER_SIZE - g->size);
    return w->host->fs->write(w->host->fs->ctx, w->file, w->current->end, w->slices, n, err);
}

static int group_write(struct wal *w, struct group *g, struct kvs_error *err)
{
    const struct kvs_host *host = w->host;
    uint64_t total = frame_total(g->size);
    int rc = host->fault(host->ctx, "wal.write");

    if (rc != 0) {
        return kvs_err(err, rc, "write the journal: injected");
    }
    rc = writer_erase(w, err);
    if (rc == 0 && (w->current == NULL || w->current->end + total > w->current->size)) {
        rc = segment_roll(w, total, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = frame_write(w, g, total, err);
    if (rc != 0) {
        struct kvs_error second = {0};
        int erased;

        (void)kvs_err_wrap(err, "write the journal");
        if (rc != KVS_ENOSPC) {
            return rc;
        }
        /* It may have left a whole frame, which must never be recovered: its appends failed and
         * their offsets are given to others. No room for that either: before the next group. */
        w->erase = 1;
        erased = writer_erase(w, &second);
        return erased == 0 || erased == KVS_ENOSPC ? rc : erased;
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
    for (struct kvs_task *t = g->list.head; t != NULL; t = t->next) {
        const struct kvs_append *a = append_of(t);

        segment_note(w, w->current, a->stream, a->base_offset + a->count);
    }
    if (w->conf->sync == WAL_SYNC_ALWAYS) {
        rc = writer_sync(w, &err);
    }
    if (rc == 0) {
        if (atomic_exchange(&w->last_append, 0) != 0) {
            KVS_LOG(w->host, KVS_LOG_INFO, "journal_has_room",
                    "effect='writes are accepted again'");
        }
        (void)atomic_fetch_add_explicit(&w->synced_batches, g->count, memory_order_relaxed);
        w->host->metric_observe(w->host->ctx, w->group_size, g->count);
    }
    return rc;
}

/* Appends of loops that have not heard of a failure yet fail too: take them out of the list. */
static void take_failing_locked(struct wal *w, struct append_list *list)
{
    struct append_list all = {NULL, &all.head};

    append_list_join(&all, list);
    while (all.head != NULL) {
        struct kvs_task *task = append_list_pop(&all);
        struct loop_state *l = &w->loops[append_of(task)->loop];

        if (l->failing) { /* its completion is posted: failing is cleared there */
            append_of(task)->rc = KVS_ENOSPC;
            append_list_push(&l->outbox, task);
        } else {
            append_list_push(list, task);
        }
    }
}

/* Give a finished group back to its loops. After KVS_ENOSPC what these loops have in `rest` goes
 * too, under the same lock: once a loop heard of the failure it counts anew. */
static void group_return(struct wal *w, struct group *g, int rc, struct append_list *rest)
{
    const struct kvs_host *host = w->host;
    uint64_t to_post = 0;

    (void)pthread_mutex_lock(&w->lock);
    while (g->list.head != NULL) {
        struct kvs_append *a = append_of(append_list_pop(&g->list));
        struct loop_state *l = &w->loops[a->loop];

        a->rc = rc;
        append_list_push(&l->outbox, &a->task);
        if (rc == KVS_ENOSPC) {
            l->failing = 1;
        }
        if (!l->posted) {
            l->posted = 1;
            to_post |= 1ULL << a->loop;
        }
    }
    if (rc == KVS_ENOSPC) {
        take_failing_locked(w, rest);
    }
    (void)pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < host->loop_count; i++) {
        if ((to_post & 1ULL << i) != 0) {
            kvs_post(host, i, &w->loops[i].completed);
        }
    }
}

void writer_flush(struct wal *w)
{
    struct append_list list = {NULL, &list.head};

    (void)pthread_mutex_lock(&w->lock);
    append_list_join(&list, &w->inbox);
    take_failing_locked(w, &list);
    (void)pthread_mutex_unlock(&w->lock);
    while (list.head != NULL) {
        struct group g;
        int rc;

        group_cut(&list, &g);
        rc = atomic_load(&w->failed) != 0 ? KVS_EFAILED : group_commit(w, &g);
        group_return(w, &g, rc, &list);
    }
}

void writer_run(struct kvs_work *work)
{
    struct wal *w = KVS_CONTAINER_OF(work, struct wal, work);
    int more;

    do {
        writer_flush(w);
        (void)pthread_mutex_lock(&w->lock);
        more = w->inbox.head != NULL;
        w->writing = (uint32_t)more;
        (void)pthread_mutex_unlock(&w->lock);
    } while (more);
}
