/* SPDX-License-Identifier: MIT
 *
 * Operations: conditions, limits, new versions, log records; see partition_private.h. */
#include "kvs/method.h"
#include "partition_private.h"

#define RECORD_SIZE_EXTRA 128u /* of a record beyond its bytes */

int ring_reserve(struct partition *p, uint64_t n)
{
    uint64_t need = p->leo - p->hw + n, cap = p->ring_cap;
    struct pending *grown;

    if (need <= cap) {
        return 0;
    }
    while (cap < need) {
        cap *= 2;
    }
    grown = kvs_alloc(p->host, &storage_other, cap * sizeof *grown);
    if (grown == NULL) {
        return KVS_ENOMEM;
    }
    for (uint64_t o = p->hw; o < p->leo; o++) {
        grown[o & (cap - 1)] = *pending_at(p, o);
    }
    kvs_free(p->host, &storage_other, p->ring, p->ring_cap * sizeof *p->ring);
    p->ring = grown;
    p->ring_cap = cap;
    return 0;
}

static int in_expiry(const struct item *it)
{
    return (it->flags & (ITEM_EXPIRES | ITEM_TOMBSTONE)) == ITEM_EXPIRES;
}

int version_apply(struct partition *p, struct item *fresh)
{
    const struct kvs_index_ops *ops = p->conf.index;
    struct item *previous;
    struct pending *slot;
    void *old = NULL;

    if (ring_reserve(p, 1) != 0) {
        return KVS_ENOMEM;
    }
    previous = ops->get(p->index, item_key(fresh));
    /* What can fail comes first: the expiry entry, then a new key in the index. */
    if (p->expiry != NULL && in_expiry(fresh) &&
        p->conf.ordered->put(p->expiry, fresh, &old) != 0) {
        return KVS_ENOMEM;
    }
    if (ops->put(p->index, fresh, &old) != 0) {
        if (p->expiry != NULL && in_expiry(fresh)) {
            (void)p->conf.ordered->del(p->expiry, item_expiry_key(fresh));
        }
        return KVS_ENOMEM;
    }
    if (previous != NULL) {
        previous->flags |= ITEM_SUPERSEDED;
        if (p->expiry != NULL && in_expiry(previous) &&
            p->conf.ordered->get(p->expiry, item_expiry_key(previous)) == previous) {
            (void)p->conf.ordered->del(p->expiry, item_expiry_key(previous));
        }
        counters_add(p, previous, -1);
    }
    counters_add(p, fresh, 1);
    slot = pending_at(p, p->leo);
    *slot = (struct pending){fresh, previous, NULL};
    p->leo++;
    return 0;
}

/* ---- one operation -----------------------------------------------------------------------------
 */

/* The newest version an operation works on: not a tombstone, not expired. */
static struct item *present(struct partition *p, const struct write_op *op, uint64_t now_ms)
{
    struct item *it = version_visible(p, p->conf.index->get(p->index, op->key), READ_UNCOMMITTED);

    return it == NULL || item_expired(it, now_ms) ? NULL : it;
}

static int conditions_hold(struct write_op *op, const struct item *it)
{
    op->version = it == NULL ? (struct version){0} : (struct version){it->epoch, it->offset};
    if ((op->if_absent && it != NULL) || (op->if_present && it == NULL)) {
        return 0;
    }
    return !op->if_match ||
           (it != NULL && it->epoch == op->if_version.epoch && it->offset == op->if_version.offset);
}

static int over_limits(const struct partition *p, const struct write_op *op, const struct item *it)
{
    const struct table_limits *l = &p->conf.limits;
    uint64_t had = it == NULL ? 0 : (uint64_t)it->key_len + it->value_len;
    uint64_t bytes = p->key_bytes + p->value_bytes - had + op->key.len + op->value.len;

    return (l->max_items != 0 && it == NULL && p->item_count >= l->max_items) ||
           (l->max_bytes != 0 && bytes > l->max_bytes && op->key.len + op->value.len > had);
}

/* Apply a new version and write its record. */
static uint32_t commit_version(struct partition *p, struct batch *b, struct write_op *op,
                               const struct item_parts *parts, const struct record *r,
                               uint32_t success)
{
    struct item *fresh = item_make(p, parts);
    int rc;

    if (fresh == NULL) {
        return WRITE_NO_MEMORY;
    }
    rc = secondaries_add(p, fresh, &op->detail);
    if (rc == 0) {
        rc = version_apply(p, fresh);
        if (rc != 0) {
            secondaries_remove(p, fresh);
        }
    }
    if (rc != 0) {
        kvs_free(p->host, &storage_items, fresh, item_size(fresh));
        return rc == KVS_EINVAL ? WRITE_BAD_INDEX : WRITE_NO_MEMORY;
    }
    record_put(&b->buf, r); /* room was reserved: cannot fail */
    b->append.count++;
    op->version.epoch = fresh->epoch;
    op->version.offset = fresh->offset;
    return success;
}

static uint32_t op_put(struct partition *p, struct batch *b, struct write_op *op, struct item *it)
{
    struct item_parts parts = {.key = op->key,
                               .partition_key = op->partition_key,
                               .value = op->value,
                               .content_type = op->content_type,
                               .expires_at_ms = op->expires_at_ms,
                               .offset = p->leo,
                               .epoch = p->conf.leader_epoch};
    struct record r = {.kind = RECORD_PUT,
                       .key = op->key,
                       .content_type = op->content_type,
                       .value = op->value,
                       .expires_at_ms = op->expires_at_ms};
    struct kvs_buf keys;
    uint32_t result;
    int rc = 0;

    if (op->value.len > p->conf.limits.max_value_bytes) {
        return WRITE_TOO_LARGE;
    }
    if (over_limits(p, op, it)) {
        return WRITE_LIMIT;
    }
    if (op->partition_key.len > 0 && !kvs_slice_eq(op->partition_key, op->key)) {
        r.partition_key = op->partition_key;
    }
    kvs_buf_init(&keys, p->host, &storage_other);
    if (op->index_count > 0) {
        rc = explicit_encode(p, op->indexes, op->index_count, &keys, &op->detail);
    }
    if (rc == 0 && keys.len > UINT16_MAX) {
        op->detail = "the index keys are too long together";
        rc = KVS_EINVAL;
    }
    if (rc == 0) {
        parts.indexes = r.indexes = kvs_buf_slice(&keys);
        if (keys.len == 0) {
            parts.indexes = r.indexes = kvs_slice(NULL, 0);
        }
        result = commit_version(p, b, op, &parts, &r, it == NULL ? WRITE_CREATED : WRITE_REPLACED);
    } else {
        result = rc == KVS_ENOMEM ? WRITE_NO_MEMORY : WRITE_BAD_INDEX;
    }
    kvs_buf_fini(&keys);
    return result;
}

static uint32_t op_delete(struct partition *p, struct batch *b, struct write_op *op)
{
    struct item_parts parts = {
        .key = op->key, .tombstone = 1, .offset = p->leo, .epoch = p->conf.leader_epoch};
    struct record r = {.kind = RECORD_DELETE, .key = op->key};

    return commit_version(p, b, op, &parts, &r, WRITE_DELETED);
}

static uint32_t op_touch(struct partition *p, struct batch *b, struct write_op *op,
                         const struct item *it)
{
    struct record r = {.kind = RECORD_TOUCH, .key = op->key, .expires_at_ms = op->expires_at_ms};
    struct item_parts parts;

    item_parts(it, &parts);
    if ((it->flags & ITEM_TYPE_INLINE) == 0 && p->type_count > 0) {
        parts.content_type = kvs_slice_str(p->types[it->type]);
    }
    parts.expires_at_ms = op->expires_at_ms;
    parts.offset = p->leo;
    parts.epoch = p->conf.leader_epoch;
    return commit_version(p, b, op, &parts, &r, WRITE_TOUCHED);
}

/* Bytes of the item may be gone when the answer is made: keep a copy. */
static uint32_t op_get(struct partition *p, struct write_op *op, const struct item *it,
                       struct kvs_arena *arena)
{
    struct item_view *v = &op->got;

    item_view_fill(p, it, v);
    v->key = op->key;
    v->value.ptr = kvs_arena_strdup(arena, v->value);
    v->content_type.ptr = kvs_arena_strdup(arena, v->content_type);
    v->partition_key.ptr = kvs_arena_strdup(arena, v->partition_key);
    v->item = NULL;
    return v->value.ptr == NULL || v->content_type.ptr == NULL || v->partition_key.ptr == NULL
               ? WRITE_NO_MEMORY
               : WRITE_GOT;
}

static uint32_t op_run(struct partition *p, struct batch *b, struct write_op *op,
                       struct kvs_arena *arena, uint64_t now_ms)
{
    struct item *it = present(p, op, now_ms);

    if (!conditions_hold(op, it)) {
        return it == NULL && op->kind == WRITE_DELETE ? WRITE_NOT_FOUND : WRITE_PRECONDITION;
    }
    if (op->kind == WRITE_PUT) {
        return op_put(p, b, op, it);
    }
    if (it == NULL) {
        return WRITE_NOT_FOUND;
    }
    switch (op->kind) {
    case WRITE_DELETE:
        return op_delete(p, b, op);
    case WRITE_TOUCH:
        return op_touch(p, b, op, it);
    default:
        return op_get(p, op, it, arena);
    }
}

static int changed_something(uint32_t result)
{
    return result == WRITE_CREATED || result == WRITE_REPLACED || result == WRITE_DELETED ||
           result == WRITE_TOUCHED;
}

/* ---- a batch of operations ---------------------------------------------------------------------
 */

static uint64_t bytes_needed(const struct write_batch *wb)
{
    uint64_t n = wb->idempotency_key.len + RECORD_SIZE_EXTRA + wb->count * 24u;

    for (uint32_t i = 0; i < wb->count; i++) {
        const struct write_op *op = &wb->ops[i];

        n += op->key.len + op->partition_key.len + op->value.len + op->content_type.len +
             RECORD_SIZE_EXTRA;
        for (uint32_t k = 0; k < op->index_count; k++) {
            n += op->indexes[k].value.len + 24;
        }
    }
    return n;
}

/* Take back what an atomic batch did so far. */
static void undo(struct partition *p, struct batch *b, struct write_batch *wb, uint64_t leo,
                 size_t len, uint32_t count)
{
    b->buf.len = len;
    b->append.count = count;
    roll_back(p, leo);
    for (uint32_t i = 0; i < wb->count; i++) {
        if (wb->ops[i].result == WRITE_NONE || changed_something(wb->ops[i].result) ||
            wb->ops[i].result == WRITE_GOT) {
            wb->ops[i].result = WRITE_CONFLICT;
        }
    }
}

/* Remember the answer under the idempotency key, in the same batch. */
static int remember(struct partition *p, struct batch *b, struct write_batch *wb, uint64_t now_ms)
{
    struct record r = {.kind = RECORD_ANSWER,
                       .key = wb->idempotency_key,
                       .hash = wb->idempotency_hash,
                       .time_ms = now_ms};
    struct kvs_buf results;
    struct answer *a = NULL;

    kvs_buf_init(&results, p->host, &storage_other);
    answer_results(&results, wb);
    if (!results.failed && ring_reserve(p, 1) == 0) {
        a = answer_add(p, r.key, r.hash, r.time_ms, p->leo, kvs_buf_slice(&results));
    }
    if (a != NULL) {
        r.answers = kvs_buf_slice(&results);
        record_put(&b->buf, &r);
        b->append.count++;
        *pending_at(p, p->leo) = (struct pending){NULL, NULL, a};
        p->leo++;
    }
    kvs_buf_fini(&results);
    return a == NULL ? KVS_ENOMEM : 0;
}

static int run_ops(struct partition *p, struct batch *b, struct write_batch *wb)
{
    uint64_t now_ms = kvs_now_ms(p->host), leo = p->leo;
    size_t len = b->buf.len;
    uint32_t count = b->append.count;
    int failed = 0;

    for (uint32_t i = 0; i < wb->count && !(failed && wb->atomic); i++) {
        struct write_op *op = &wb->ops[i];

        op->result = op_run(p, b, op, wb->arena, now_ms);
        failed |= !changed_something(op->result) && op->result != WRITE_GOT;
    }
    if (failed && wb->atomic) {
        undo(p, b, wb, leo, len, count);
    } else if (wb->idempotency_key.ptr != NULL && p->leo > leo && remember(p, b, wb, now_ms) != 0) {
        undo(p, b, wb, leo, len, count);
        return KVS_ENOMEM;
    }
    return 0;
}

/* Call back now, or when everything below leo is committed: then also an answer that only looked at
 * uncommitted versions tells of nothing that could still be lost. */
static void wait_or_answer(struct partition *p, struct write_batch *wb)
{
    if (wb->acks == 0 || p->hw == p->leo) {
        wb->cb(wb, 0);
        return;
    }
    wb->last_offset = p->leo - 1;
    wb->next = NULL;
    *p->waiters_tail = wb;
    p->waiters_tail = &wb->next;
}

static int replay_answer(struct partition *p, struct write_batch *wb)
{
    struct answer *a = wb->idempotency_key.ptr == NULL ? NULL : answer_find(p, wb->idempotency_key);
    int rc;

    if (a == NULL) {
        return 0;
    }
    rc = answer_give(a, wb);
    if (rc == 0) {
        wait_or_answer(p, wb);
        return 1;
    }
    return rc;
}

int partition_write(struct partition *p, struct write_batch *wb)
{
    struct batch *b;
    uint64_t bytes;
    int rc;

    if (p->closing) {
        return KVS_ECANCELED;
    }
    if (p->failed != 0) {
        return p->failed;
    }
    for (uint32_t i = 0; i < wb->count; i++) {
        wb->ops[i].result = WRITE_NONE;
    }
    wb->replayed = 0;
    rc = replay_answer(p, wb);
    if (rc != 0) {
        return rc < 0 ? rc : 0;
    }
    bytes = bytes_needed(wb);
    if (bytes > KVS_BATCH_SIZE_MAX - KVS_BATCH_HEADER_SIZE) {
        return KVS_ETOOBIG;
    }
    b = batch_open(p, bytes);
    rc = b == NULL ? KVS_ENOMEM : run_ops(p, b, wb);
    if (rc == 0) {
        wait_or_answer(p, wb);
    }
    return rc;
}
