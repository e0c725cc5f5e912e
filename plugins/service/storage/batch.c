/* SPDX-License-Identifier: MIT
 *
 * Many operations in one request: a JSON array, or one JSON object a line (NDJSON).
 *
 *   1. Every operation is read and checked; one that is malformed gets a result and no write.
 *   2. Operations are sorted by partition, keeping their order, and each group travels to its loop
 * as one write of the engine: one record batch, one place in the journal.
 *   3. Whoever finishes last renders the results, in the order of the request. */
#include <inttypes.h>
#include <stdio.h>

#include "batch.h"

static const struct kvs_mem_tag batch_memory = {"storage.client_batches"};

static int is_ndjson(const struct kvs_request *req)
{
    return req->content_type.len >= 20 &&
           memcmp(req->content_type.ptr, "application/x-ndjson", 20) == 0;
}

/* ---- results -----------------------------------------------------------------------------------
 */

static void buf_free(void *arg)
{
    kvs_buf_fini(arg);
}

static void render_problem(struct batch_request *b, struct kvs_buf *out,
                           const struct kvs_problem *problem, const char *detail)
{
    struct kvs_slice text = kvs_problem_json(&b->req->arena, problem, NULL, detail);

    kvs_buf_printf(out, "{\"status\":%" PRIu32 ",\"problem\":", problem->status);
    kvs_buf_append(out, text.ptr, text.len);
    out->failed |= text.ptr == NULL;
    kvs_buf_append_str(out, "}");
}

/* What a group that failed as a whole says for each of its operations. */
static struct kvs_problem group_problem(int rc)
{
    switch (rc) {
    case KVS_ENOSPC:
        return (struct kvs_problem){
            .status = 507, .code = "no_space", .retryable = 1, .outcome = KVS_OUTCOME_NOT_APPLIED};
    case KVS_EREUSED:
        return (struct kvs_problem){
            .status = 422, .code = "idempotency_reused", .outcome = KVS_OUTCOME_NOT_APPLIED};
    case KVS_ENOMEM:
        return (struct kvs_problem){
            .status = 507, .code = "no_memory", .retryable = 1, .outcome = KVS_OUTCOME_NOT_APPLIED};
    case KVS_ETOOBIG:
        return (struct kvs_problem){
            .status = 413, .code = "too_large", .outcome = KVS_OUTCOME_NOT_APPLIED};
    case KVS_ENOTFOUND:
        return (struct kvs_problem){
            .status = 404, .code = "table_not_found", .outcome = KVS_OUTCOME_NOT_APPLIED};
    default:
        return (struct kvs_problem){.status = 503,
                                    .code = "storage_failed",
                                    .retryable = 1,
                                    .outcome = KVS_OUTCOME_UNKNOWN};
    }
}

static void render_done(struct kvs_buf *out, const struct write_op *op)
{
    static const uint32_t STATUS[] = {[WRITE_CREATED] = 201,
                                      [WRITE_REPLACED] = 204,
                                      [WRITE_DELETED] = 204,
                                      [WRITE_TOUCHED] = 204,
                                      [WRITE_GOT] = 200};

    struct version version = op->result == WRITE_GOT ? op->got.version : op->version;

    kvs_buf_append_str(out, "{\"status\":");
    kvs_json_u64(out, STATUS[op->result]);
    kvs_buf_append_str(out, ",\"version\":\"");
    kvs_json_u64(out, version.epoch);
    kvs_buf_append(out, "-", 1);
    kvs_json_u64(out, version.offset);
    kvs_buf_append(out, "\"", 1);
    if (op->result == WRITE_GOT) {
        kvs_buf_append_str(out, ",\"item\":");
        render_item(out, NULL, &op->got, 1);
    } else if (op->expires_at_ms != 0 && op->result != WRITE_DELETED) {
        kvs_buf_printf(out, ",\"expires_at\":%" PRIu64, op->expires_at_ms);
    }
    kvs_buf_append_str(out, "}");
}

static void render_one(struct batch_request *b, struct kvs_buf *out, const struct operation *o)
{
    struct kvs_problem problem;
    const struct write_op *op;
    const struct group *g = o->group;
    const char *detail;

    if (g == NULL) {
        render_problem(b, out,
                       &(struct kvs_problem){
                           .status = 400, .code = "malformed", .outcome = KVS_OUTCOME_NOT_APPLIED},
                       o->wrong);
        return;
    }
    op = &g->wb.ops[o->position];
    if (g->rc != 0) {
        problem = group_problem(g->rc);
        render_problem(b, out, &problem, kvs_code_text(g->rc));
    } else if (op->result == WRITE_CREATED || op->result == WRITE_REPLACED ||
               op->result == WRITE_DELETED || op->result == WRITE_TOUCHED ||
               op->result == WRITE_GOT) {
        render_done(out, op);
    } else {
        struct table limits = {.limits.max_value_bytes = b->max_value_bytes};

        problem_of(op, &limits, &problem, &detail);
        problem.outcome = op->kind == WRITE_GET ? KVS_OUTCOME_NONE : KVS_OUTCOME_NOT_APPLIED;
        render_problem(b, out, &problem, detail);
    }
}

static void answer_atomic_failed(struct batch_request *b, int *ret_answered)
{
    *ret_answered = 0;
    if (!b->atomic) {
        return;
    }
    for (uint32_t i = 0; i < b->group_count; i++) {
        if (b->groups[i].rc != 0) {
            struct kvs_problem problem = group_problem(b->groups[i].rc);

            kvs_problem(b->req, &problem, "%s", kvs_code_text(b->groups[i].rc));
            *ret_answered = 1;
        }
    }
}

static void finish(struct batch_request *b)
{
    struct kvs_request *req = b->req;
    const struct kvs_host *host = b->svc->host;
    struct kvs_buf *out = kvs_arena_alloc(&req->arena, sizeof *out);
    int answered;

    answer_atomic_failed(b, &answered);
    if (!answered && out != NULL) {
        kvs_buf_init(out, host, &batch_memory);
        kvs_buf_append_str(out, b->ndjson ? "" : "[");
        for (uint32_t i = 0; i < b->count; i++) {
            kvs_buf_append_str(out, i == 0 || b->ndjson ? "" : ",");
            render_one(b, out, &b->ops[i]);
            kvs_buf_append_str(out, b->ndjson ? "\n" : "");
        }
        kvs_buf_append_str(out, b->ndjson ? "" : "]\n");
        req->response.status = 200;
        req->response.content_type = b->ndjson ? "application/x-ndjson" : "application/json";
        req->response.body = kvs_buf_slice(out);
        req->response.body_free = buf_free;
        req->response.body_arg = out;
    }
    if (!answered && (out == NULL || out->failed)) {
        kvs_problem(req,
                    &(struct kvs_problem){
                        .status = 507, .code = "no_memory", .outcome = KVS_OUTCOME_APPLIED},
                    "the operations took effect, but there is no memory for their results");
    }
    for (uint32_t i = 0; i < b->group_count; i++) {
        kvs_arena_fini(&b->groups[i].arena);
    }
    host->complete(host->ctx, req);
}

/* ---- on the loops ------------------------------------------------------------------------------
 */

static void group_done(struct group *g, int rc)
{
    struct batch_request *b = g->b;

    g->rc = rc;
    if (atomic_fetch_sub_explicit(&b->left, 1, memory_order_acq_rel) == 1) {
        finish(b);
    }
}

static void on_written(struct write_batch *wb, int rc)
{
    group_done(KVS_CONTAINER_OF(wb, struct group, wb), rc);
}

static void loop_arrives(struct kvs_task *task)
{
    struct batch_loop *l = KVS_CONTAINER_OF(task, struct batch_loop, task);
    struct batch_request *b = l->b;
    struct group *g = l->groups, *next;

    for (; g != NULL; g = next) {
        const struct table *t;
        struct partition *p = part_here(b->svc, b->table_id, g->partition, &t);
        int rc;

        next = g->next; /* after its last group the request may be gone */
        g->wb.cb = on_written;
        rc = p == NULL ? KVS_ENOTFOUND : partition_write(p, &g->wb);
        if (rc != 0) {
            group_done(g, rc == KVS_ENOTFOUND ? KVS_ENOTFOUND : rc);
        }
    }
}

/* ---- grouping ----------------------------------------------------------------------------------
 */

static void group_init(struct group *g, struct batch_request *b, uint32_t partition,
                       struct write_op *ops)
{
    g->b = b;
    g->partition = partition;
    g->wb.ops = ops;
    g->wb.atomic = b->atomic;
    g->wb.acks = b->acks;
    g->wb.arena = &g->arena;
    kvs_arena_init(&g->arena, b->svc->host, NULL, 0);
}

/* Sort by partition, keeping order: count, place, fill. */
static int group_up(struct batch_request *b, const struct table *t)
{
    struct kvs_arena *arena = &b->req->arena;
    uint32_t *counts = kvs_arena_alloc(arena, t->partition_count * sizeof *counts), at = 0;
    struct group **groups = kvs_arena_alloc(arena, t->partition_count * sizeof(struct group *));

    if (counts == NULL || groups == NULL) {
        return KVS_ENOMEM;
    }
    memset(counts, 0, t->partition_count * sizeof *counts);
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->ops[i].wrong == NULL) {
            b->group_count += counts[b->ops[i].partition]++ == 0;
        }
    }
    b->sorted = kvs_arena_alloc(arena, (b->count + 1) * sizeof *b->sorted);
    b->groups = kvs_arena_alloc(arena, (b->group_count + 1) * sizeof *b->groups);
    if (b->sorted == NULL || b->groups == NULL) {
        b->group_count = 0;
        return KVS_ENOMEM;
    }
    memset(b->groups, 0, (b->group_count + 1) * sizeof *b->groups);
    b->group_count = 0;
    for (uint32_t p = 0; p < t->partition_count; p++) {
        if (counts[p] > 0) {
            groups[p] = &b->groups[b->group_count++];
            group_init(groups[p], b, p, &b->sorted[at]);
            at += counts[p];
        }
    }
    for (uint32_t i = 0; i < b->count; i++) {
        struct operation *o = &b->ops[i];

        if (o->wrong == NULL) {
            o->group = groups[o->partition];
            o->position = o->group->wb.count++;
            o->group->wb.ops[o->position] = o->op;
        }
    }
    return 0;
}

static void send_groups(struct batch_request *b)
{
    const struct kvs_host *host = b->svc->host;
    uint32_t here = host->loop_current(host->ctx), n = host->loop_count;
    struct batch_loop *loops = b->loops;

    for (uint32_t i = b->group_count; i > 0; i--) {
        struct group *g = &b->groups[i - 1];
        struct batch_loop *l = &loops[loop_of(b->svc, b->table_id, g->partition)];

        g->next = l->groups;
        l->groups = g;
    }
    for (uint32_t i = 0; i < n; i++) {
        loops[i].b = b;
        loops[i].task.run = loop_arrives;
        if (i != here && loops[i].groups != NULL) {
            kvs_post(host, i, &loops[i].task);
        }
    }
    if (loops[here].groups != NULL) {
        loop_arrives(&loops[here].task); /* last: the request may be gone afterwards */
    }
}

/* An atomic batch is one group and has no malformed operation. 0, or the request was answered. */
static int check_atomic(struct batch_request *b)
{
    if (!b->atomic) {
        return 0;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->ops[i].wrong != NULL) {
            kvs_problem(b->req, &(struct kvs_problem){.status = 400, .code = "malformed"},
                        "operation %" PRIu32 ": %s. None of this atomic batch took effect", i,
                        b->ops[i].wrong);
            return KVS_EINVAL;
        }
    }
    if (b->group_count > 1) {
        kvs_problem(b->req, &(struct kvs_problem){.status = 409, .code = "conflict"},
                    "the operations of an atomic batch must fall in one partition: give them one "
                    "partition_key");
        return KVS_EINVAL;
    }
    return 0;
}

static void identify(struct batch_request *b)
{
    struct kvs_slice key = kvs_arg(b->req, BATCH_IDEMPOTENCY_KEY);
    uint64_t hash;

    if (key.ptr == NULL) {
        return;
    }
    hash = kvs_hash64(b->req->body, kvs_hash64(b->req->target, b->req->verb));
    for (uint32_t i = 0; i < b->group_count; i++) {
        b->groups[i].wb.idempotency_key = key;
        b->groups[i].wb.idempotency_hash = hash;
    }
}

/* Read, check and group the operations. */
static int prepare(struct batch_request *b, const struct table *t, const char **ret_detail)
{
    size_t loops_size = b->svc->host->loop_count * sizeof *b->loops;
    int rc = batch_read(b, t, ret_detail);

    if (rc != 0) {
        return rc;
    }
    b->loops = kvs_arena_alloc(&b->req->arena, loops_size);
    if (b->loops == NULL) {
        return KVS_ENOMEM;
    }
    memset(b->loops, 0, loops_size);
    return group_up(b, t);
}

static void refuse(struct batch_request *b, int rc, const char *detail)
{
    struct kvs_request *req = b->req;

    if (rc == KVS_EINVAL) {
        kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"}, "%s",
                    detail == NULL ? "out of memory" : detail);
    } else if (rc == KVS_ETOOMANY) {
        kvs_problem(req,
                    &(struct kvs_problem){
                        .status = 413, .code = "too_large", .limit = KVS_BATCH_OPERATION_COUNT_MAX},
                    "a batch has at most %u operations", KVS_BATCH_OPERATION_COUNT_MAX);
    } else {
        kvs_problem_code(req, rc, "out of memory");
    }
    b->svc->host->complete(b->svc->host->ctx, req);
}

void items_batch(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_batch);
    struct batch_request *b = t == NULL ? NULL : kvs_arena_alloc(&req->arena, sizeof *b);
    const char *detail = NULL;
    int rc;

    if (b == NULL) {
        return; /* answered, or parked; an arena without room for this cannot be */
    }
    memset(b, 0, sizeof *b);
    b->svc = s;
    b->req = req;
    b->table_id = t->id;
    b->max_value_bytes = t->limits.max_value_bytes;
    b->ndjson = (uint32_t)is_ndjson(req);
    b->atomic = req->args[BATCH_ATOMIC].u != 0;
    b->acks = kvs_arg_given(req, BATCH_ACKS) ? (uint32_t)req->args[BATCH_ACKS].u : t->acks;
    rc = prepare(b, t, &detail);
    if (rc != 0) {
        refuse(b, rc, detail);
        return;
    }
    if (check_atomic(b) != 0) {
        s->host->complete(s->host->ctx, req);
        return;
    }
    identify(b);
    atomic_store_explicit(&b->left, b->group_count, memory_order_relaxed);
    if (b->group_count == 0) {
        finish(b);
    } else {
        send_groups(b);
    }
}
