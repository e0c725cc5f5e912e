/* SPDX-License-Identifier: MIT
 *
 * Batches on their way through the journal; committing and rolling back; see partition_private.h.
 */
#include "partition_private.h"

static void on_seal(struct kvs_task *task);
static void on_appended(struct kvs_append *append, int rc);

/* ---- buffers -----------------------------------------------------------------------------------
 */

static struct batch *batch_new(struct partition *p)
{
    struct batch *b = p->spare;

    if (b != NULL) {
        p->spare = NULL;
        kvs_buf_clear(&b->buf);
    } else {
        b = kvs_calloc(p->host, &storage_batches, sizeof *b);
        if (b == NULL) {
            return NULL;
        }
        b->p = p;
        kvs_buf_init(&b->buf, p->host, &storage_batches);
    }
    b->append = (struct kvs_append){.cb = on_appended, .stream = p->conf.stream};
    b->undone = 0;
    return b;
}

static void batch_free(struct batch *b)
{
    struct partition *p = b->p;

    if (p->spare == NULL && b->buf.cap <= SPARE_BATCH_SIZE) {
        p->spare = b;
        return;
    }
    kvs_buf_fini(&b->buf);
    kvs_free(p->host, &storage_batches, b, sizeof *b);
}

void batches_free(struct partition *p)
{
    struct batch *both[2] = {p->open, p->spare};

    p->open = p->spare = NULL;
    for (size_t i = 0; i < 2; i++) {
        if (both[i] != NULL) {
            kvs_buf_fini(&both[i]->buf);
            kvs_free(p->host, &storage_batches, both[i], sizeof *both[i]);
        }
    }
}

struct batch *batch_open(struct partition *p, uint64_t bytes)
{
    struct batch *b = p->open;

    if (b != NULL && (b->buf.len + bytes > OPEN_BATCH_SIZE ||
                      b->append.count > KVS_BATCH_RECORD_MAX - KVS_BATCH_OPERATION_COUNT_MAX - 1)) {
        batch_seal(p);
        b = p->open;
    }
    if (b == NULL) {
        b = batch_new(p);
        if (b == NULL) {
            return NULL;
        }
        b->append.base_offset = p->leo;
        p->open = b;
        if (!p->seal_armed) {
            p->seal_armed = 1;
            p->seal_task.run = on_seal;
            p->host->defer(p->host->ctx, &p->seal_task);
        }
    }
    if (b->buf.len == 0 && kvs_buf_reserve(&b->buf, KVS_BATCH_HEADER_SIZE) != NULL) {
        b->buf.len = KVS_BATCH_HEADER_SIZE;
    }
    /* What is written into it after this needs no memory. */
    if (kvs_buf_reserve(&b->buf, bytes) == NULL) {
        b->buf.failed = 0;
        return NULL;
    }
    return b;
}

/* ---- sealing -----------------------------------------------------------------------------------
 */

/* Compressed payload in place of the plain one, if that is smaller. */
static uint32_t maybe_compress(struct partition *p, struct batch *b)
{
    const struct kvs_compression_ops *codec = p->conf.codec;
    struct kvs_slice raw = {b->buf.ptr + KVS_BATCH_HEADER_SIZE, b->buf.len - KVS_BATCH_HEADER_SIZE};
    struct kvs_buf packed;
    size_t len = 0, bound;
    char *room;

    if (codec == NULL || raw.len < COMPRESS_SIZE_MIN || raw.len > KVS_COMPRESSION_BLOCK_MAX) {
        return KVS_CODEC_NONE;
    }
    bound = codec->bound(p->conf.codec_self, raw.len);
    kvs_buf_init(&packed, p->host, &storage_batches);
    room = kvs_buf_reserve(&packed, KVS_BATCH_HEADER_SIZE + bound);
    if (room == NULL ||
        codec->compress(p->conf.codec_self, raw, room + KVS_BATCH_HEADER_SIZE, bound, &len) != 0 ||
        len >= raw.len) {
        kvs_buf_fini(&packed);
        return KVS_CODEC_NONE;
    }
    packed.len = KVS_BATCH_HEADER_SIZE + len;
    kvs_buf_fini(&b->buf);
    b->buf = packed;
    return codec->id;
}

void batch_seal(struct partition *p)
{
    struct batch *b = p->open;
    struct kvs_batch_header h;
    int rc;

    p->open = NULL;
    if (b->append.count == 0) {
        batch_free(b);
        return;
    }
    memset(&h, 0, sizeof h);
    h.raw_size = (uint32_t)(b->buf.len - KVS_BATCH_HEADER_SIZE);
    h.codec = maybe_compress(p, b);
    h.total_size = (uint32_t)b->buf.len;
    h.leader_epoch = p->conf.leader_epoch;
    h.count = b->append.count;
    h.stream = p->conf.stream;
    h.base_offset = b->append.base_offset;
    h.append_time_ms = kvs_now_ms(p->host);
    kvs_batch_seal(b->buf.ptr, &h);
    b->append.batch = kvs_buf_slice(&b->buf);
    p->appends_under_way++;
    b->next = p->flight;
    p->flight = b;
    rc = p->conf.persistence->append(p->conf.persistence_self, &b->append);
    if (rc != 0) {
        on_appended(&b->append, rc);
    }
}

void partition_epoch_set(struct partition *p, uint32_t leader_epoch)
{
    if (p->conf.leader_epoch != leader_epoch) {
        if (p->open != NULL) {
            batch_seal(p); /* its records belong to the former epoch */
        }
        p->conf.leader_epoch = leader_epoch;
    }
}

static void on_seal(struct kvs_task *task)
{
    struct partition *p = KVS_CONTAINER_OF(task, struct partition, seal_task);

    p->seal_armed = 0;
    if (p->open != NULL) {
        batch_seal(p);
    }
    close_check(p);
}

/* ---- the journal answers -----------------------------------------------------------------------
 */

static void fail_waiters(struct partition *p, uint64_t offset, int rc)
{
    struct write_batch **at = &p->waiters, *failed = NULL, **tail = &failed;

    while (*at != NULL && (*at)->last_offset < offset) {
        at = &(*at)->next;
    }
    *tail = *at;
    *at = NULL;
    p->waiters_tail = at;
    while (failed != NULL) {
        struct write_batch *wb = failed;

        failed = wb->next;
        wb->cb(wb, rc);
    }
}

/* Nothing from this batch on is in the journal: forget it, the open batch too. */
static void undo_from(struct partition *p, uint64_t offset, int rc)
{
    if (p->open != NULL) {
        struct batch *b = p->open;

        p->open = NULL;
        batch_free(b);
    }
    for (struct batch *b = p->flight; b != NULL; b = b->next) {
        b->undone |= b->append.base_offset >= offset;
    }
    roll_back(p, offset);
    fail_waiters(p, offset, rc);
}

static void flight_remove(struct partition *p, struct batch *b)
{
    struct batch **at = &p->flight;

    while (*at != b) {
        at = &(*at)->next;
    }
    *at = b->next;
    p->appends_under_way--;
}

static void on_appended(struct kvs_append *append, int rc)
{
    struct batch *b = (struct batch *)append;
    struct partition *p = b->p;

    flight_remove(p, b);
    if (!b->undone) {
        if (rc == 0) {
            p->journaled_bytes += append->batch.len;
            commit_to(p, append->base_offset + append->count);
        } else {
            if (rc != KVS_ENOSPC && rc != KVS_ENOMEM) {
                p->failed = rc == KVS_ESTATE || rc == KVS_ECANCELED ? rc : KVS_EFAILED;
            }
            undo_from(p, append->base_offset, rc == KVS_ENOMEM ? KVS_ENOSPC : rc);
        }
    }
    batch_free(b);
    close_check(p);
}

void close_check(struct partition *p)
{
    void (*done)(void *arg) = p->close_done;

    if (done != NULL && p->appends_under_way == 0 && p->open == NULL && p->snapshot == NULL &&
        !p->seal_armed) {
        p->close_done = NULL;
        done(p->close_arg);
    }
}

void partition_close(struct partition *p, void (*done)(void *arg), void *arg)
{
    p->closing = 1;
    p->close_done = done;
    p->close_arg = arg;
    if (p->open != NULL) {
        batch_seal(p);
    }
    close_check(p);
}

/* ---- commit and roll back ----------------------------------------------------------------------
 */

/* A tombstone that is committed and still the newest: the key is gone for good. */
static void bury(struct partition *p, struct item *it)
{
    if ((it->flags & (ITEM_TOMBSTONE | ITEM_SUPERSEDED)) == ITEM_TOMBSTONE) {
        (void)p->conf.index->del(p->index, item_key(it));
        counters_add(p, it, -1);
        item_drop(p, it);
    }
}

void commit_to(struct partition *p, uint64_t hw)
{
    while (p->hw < hw) {
        struct pending e = *pending_at(p, p->hw);

        p->hw++;
        if (e.previous != NULL) {
            item_drop(p, e.previous);
        }
        if (e.item != NULL) {
            bury(p, e.item);
        }
    }
    while (p->waiters != NULL && p->waiters->last_offset < p->hw) {
        struct write_batch *wb = p->waiters;

        p->waiters = wb->next;
        if (p->waiters == NULL) {
            p->waiters_tail = &p->waiters;
        }
        wb->cb(wb, 0);
    }
}

static void expiry_forget(struct partition *p, struct item *it)
{
    if (p->expiry != NULL && (it->flags & (ITEM_EXPIRES | ITEM_TOMBSTONE)) == ITEM_EXPIRES &&
        p->conf.ordered->get(p->expiry, item_expiry_key(it)) == it) {
        (void)p->conf.ordered->del(p->expiry, item_expiry_key(it));
    }
}

static void roll_back_one(struct partition *p, struct pending *e)
{
    void *old;

    if (e->answer != NULL) {
        answer_remove(p, e->answer);
        return;
    }
    expiry_forget(p, e->item);
    counters_add(p, e->item, -1);
    if (e->previous == NULL) {
        (void)p->conf.index->del(p->index, item_key(e->item));
    } else if ((e->previous->flags & ITEM_TOMBSTONE) != 0 && e->previous->offset < p->hw) {
        /* A delete that was committed while this version hid it: nothing is left of the key. */
        (void)p->conf.index->del(p->index, item_key(e->item));
        item_drop(p, e->previous);
    } else {
        (void)p->conf.index->put(p->index, e->previous, &old); /* replacing never fails */
        e->previous->flags &= (uint8_t)~ITEM_SUPERSEDED;
        counters_add(p, e->previous, 1);
        if (p->expiry != NULL &&
            (e->previous->flags & (ITEM_EXPIRES | ITEM_TOMBSTONE)) == ITEM_EXPIRES &&
            p->conf.ordered->put(p->expiry, e->previous, &old) != 0) {
            p->expiry_dirty = 1;
        }
    }
    item_drop(p, e->item);
}

void roll_back(struct partition *p, uint64_t offset)
{
    while (p->leo > offset) {
        p->leo--;
        roll_back_one(p, pending_at(p, p->leo));
    }
}
