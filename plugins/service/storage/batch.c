/* SPDX-License-Identifier: MIT
 *
 * Many operations in one request: a JSON array, or one JSON object a line (NDJSON).
 *
 *   1. Every operation is read and checked; one that is malformed gets a result and no write.
 *   2. Operations are sorted by partition, keeping their order, and each group travels to its loop
 * as one write of the engine: one record batch, one place in the journal.
 *   3. Whoever finishes last renders the results, in the order of the request. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "storage.h"

static const struct kvs_mem_tag batch_memory = {"storage.client_batches"};

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
    struct operation *ops;    /* [count] */
    struct write_op *sorted;  /* [count], by partition */
    struct group *groups;     /* [group_count] */
    struct batch_loop *loops; /* [loop_count] */
    uint32_t count, group_count, table_id, ndjson, atomic, acks;
    uint64_t max_value_bytes;
    _Atomic uint32_t left;
    json_t *root; /* holds the strings */
};

static void refuse(struct storage *s, struct kvs_request *req, const char *detail)
{
    kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"}, "%s", detail);
    s->host->complete(s->host->ctx, req);
}

/* ---- reading operations ------------------------------------------------------------------------
 */

static struct kvs_slice text_of(const json_t *v)
{
    return kvs_slice(json_string_value(v), json_string_length(v));
}

/* "name" as it is, or "name_base64" decoded. ptr NULL: neither. */
static struct kvs_slice bytes_of(struct batch_request *b, const json_t *o, const char *name,
                                 const char *name_base64, struct operation *op)
{
    json_t *plain = json_object_get(o, name), *coded = json_object_get(o, name_base64);
    struct kvs_slice text;
    char *to;
    size_t len;

    if (plain != NULL) {
        op->wrong = json_is_string(plain) ? op->wrong : "key, partition_key and value are strings";
        return json_is_string(plain) ? text_of(plain) : kvs_slice(NULL, 0);
    }
    if (coded == NULL) {
        return kvs_slice(NULL, 0);
    }
    text = text_of(coded);
    to = text.ptr == NULL ? NULL : kvs_arena_alloc(&b->req->arena, text.len + 1);
    if (to == NULL || kvs_base64_decode(text, to, text.len, &len) != 0) {
        op->wrong = "a _base64 member is not base64 (RFC 4648, with padding)";
        return kvs_slice(NULL, 0);
    }
    return kvs_slice(to, len);
}

static int add_index(struct batch_request *b, struct operation *op, struct index_value *to,
                     const char *name, json_t *value)
{
    to->name = kvs_slice_str(name);
    if (json_is_string(value)) {
        to->value = text_of(value);
    } else if (json_is_number(value)) {
        char *text = kvs_arena_printf(&b->req->arena, "%.17g", json_number_value(value));

        to->value = kvs_slice_str(text);
    } else {
        op->wrong = "indexes must be {name: string, number, or an array of them}";
        return 0;
    }
    return 1;
}

static void take_indexes(struct batch_request *b, json_t *o, struct operation *op)
{
    json_t *indexes = json_object_get(o, "indexes"), *value;
    const char *name;
    struct index_value *values;
    uint32_t n = 0;

    if (indexes == NULL) {
        return;
    }
    values = kvs_arena_alloc(&b->req->arena, KVS_INDEX_KEYS_PER_ITEM_MAX * sizeof *values);
    if (values == NULL || !json_is_object(indexes)) {
        op->wrong = "indexes must be an object";
        return;
    }
    json_object_foreach(indexes, name, value)
    {
        size_t many = json_is_array(value) ? json_array_size(value) : 1;

        for (size_t i = 0; i < many; i++) {
            json_t *one = json_is_array(value) ? json_array_get(value, i) : value;

            if (n == KVS_INDEX_KEYS_PER_ITEM_MAX) {
                op->wrong = "more than 64 index keys for one item";
                return;
            }
            if (!add_index(b, op, &values[n++], name, one)) {
                return;
            }
        }
    }
    op->op.indexes = values;
    op->op.index_count = n;
}

static void take_ttl(struct batch_request *b, json_t *o, struct operation *op, uint64_t table_ttl)
{
    json_t *ttl = json_object_get(o, "ttl");
    uint64_t ms = table_ttl;

    if (ttl != NULL && json_is_string(ttl) && strcmp(json_string_value(ttl), "none") == 0) {
        ms = 0;
    } else if (ttl != NULL &&
               (!json_is_string(ttl) || kvs_duration_parse(text_of(ttl), &ms) != 0)) {
        op->wrong = "ttl must be a duration such as 30s, or none";
    }
    op->op.expires_at_ms = ms == 0 ? 0 : kvs_now_ms(b->svc->host) + ms;
}

static void take_conditions(json_t *o, struct operation *op)
{
    json_t *version = json_object_get(o, "if_version"), *absent = json_object_get(o, "if_absent");

    if (version != NULL) {
        op->op.if_match = 1;
        if (!json_is_string(version) || version_parse(text_of(version), &op->op.if_version) != 0) {
            op->wrong = "if_version must be a version such as \"1-42\"";
        }
    }
    if (absent != NULL) {
        op->op.if_absent = json_is_true(absent);
        op->wrong = json_is_boolean(absent) ? op->wrong : "if_absent must be true or false";
    }
}

static const char *check_members(struct batch_request *b, json_t *o)
{
    static const char *const MEMBERS[] = {"op",
                                          "key",
                                          "key_base64",
                                          "partition_key",
                                          "partition_key_base64",
                                          "value",
                                          "value_base64",
                                          "content_type",
                                          "ttl",
                                          "indexes",
                                          "if_version",
                                          "if_absent",
                                          NULL};
    const char *name, *near;
    json_t *value;

    json_object_foreach(o, name, value)
    {
        uint32_t i = 0;

        while (MEMBERS[i] != NULL && strcmp(MEMBERS[i], name) != 0) {
            i++;
        }
        if (MEMBERS[i] == NULL) {
            near = kvs_nearest(kvs_slice_str(name), MEMBERS);
            return kvs_arena_printf(&b->req->arena, "unknown member '%.60s'%s%s%s", name,
                                    near == NULL ? "" : ". Did you mean '",
                                    near == NULL ? "" : near, near == NULL ? "" : "'?");
        }
    }
    return NULL;
}

static uint32_t kind_of(const json_t *o)
{
    static const struct {
        const char *name;
        uint32_t kind;
    } KINDS[] = {
        {"put", WRITE_PUT}, {"delete", WRITE_DELETE}, {"get", WRITE_GET}, {"touch", WRITE_TOUCH}};
    const char *name = json_string_value(json_object_get(o, "op"));

    for (size_t i = 0; name != NULL && i < KVS_ARRAY_COUNT(KINDS); i++) {
        if (strcmp(name, KINDS[i].name) == 0) {
            return KINDS[i].kind;
        }
    }
    return 0;
}

static int key_ok(struct kvs_slice key)
{
    return key.len >= 1 && key.len <= KVS_KEY_SIZE_MAX;
}

static void take_operation(struct batch_request *b, const struct table *t, json_t *o,
                           struct operation *op)
{
    struct write_op *w = &op->op;
    struct kvs_slice routing;

    memset(op, 0, sizeof *op);
    op->wrong = json_is_object(o) ? check_members(b, o) : "an operation is a JSON object";
    if (op->wrong != NULL) {
        return;
    }
    w->kind = kind_of(o);
    w->key = bytes_of(b, o, "key", "key_base64", op);
    w->partition_key = bytes_of(b, o, "partition_key", "partition_key_base64", op);
    w->value = bytes_of(b, o, "value", "value_base64", op);
    w->content_type = text_of(json_object_get(o, "content_type"));
    take_ttl(b, o, op, w->kind == WRITE_PUT ? t->ttl_ms : 0);
    take_conditions(o, op);
    take_indexes(b, o, op);
    if (op->wrong != NULL) {
        return;
    }
    if (w->kind == 0) {
        op->wrong = "op must be put, delete, get or touch";
    } else if (!key_ok(w->key) || (w->partition_key.ptr != NULL && !key_ok(w->partition_key))) {
        op->wrong = "key and partition_key must be 1 to 1024 bytes long";
    } else if (w->kind == WRITE_PUT && w->value.ptr == NULL) {
        op->wrong = "a put needs value or value_base64";
    } else if (w->content_type.len > KVS_CONTENT_TYPE_SIZE_MAX) {
        op->wrong = "content_type must be at most 128 bytes long";
    }
    routing = w->partition_key.ptr != NULL ? w->partition_key : w->key;
    op->partition = kvs_hash_bucket(routing, t->seed, t->partition_count);
}

/* ---- the body ----------------------------------------------------------------------------------
 */

static int is_ndjson(const struct kvs_request *req)
{
    return req->content_type.len >= 20 &&
           memcmp(req->content_type.ptr, "application/x-ndjson", 20) == 0;
}

/* NDJSON as an array of the lines' values. NULL with *ret_detail. */
static json_t *parse_lines(struct kvs_request *req, const char **ret_detail)
{
    const char *p = req->body.ptr, *end = p + req->body.len;
    json_t *root = json_array();
    uint64_t line = 0;

    while (p < end && root != NULL) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((eol == NULL ? end : eol) - p);
        json_error_t where;
        json_t *v;

        line++;
        if (n > 0 && !(n == 1 && *p == '\r')) {
            v = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
            if (v == NULL || json_array_append_new(root, v) != 0) {
                *ret_detail =
                    kvs_arena_printf(&req->arena, "line %" PRIu64 " is not JSON: column %d: %s",
                                     line, where.column, where.text);
                json_decref(root);
                return NULL;
            }
        }
        p += n + 1;
    }
    return root;
}

static json_t *parse_body(struct kvs_request *req, const char **ret_detail)
{
    json_error_t where;
    json_t *root;

    *ret_detail = "out of memory";
    if (is_ndjson(req)) {
        return parse_lines(req, ret_detail);
    }
    root =
        json_loadb(req->body.ptr, req->body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (root == NULL) {
        *ret_detail = kvs_arena_printf(&req->arena, "the body is not JSON: line %d, column %d: %s",
                                       where.line, where.column, where.text);
    } else if (!json_is_array(root)) {
        json_decref(root);
        root = NULL;
        *ret_detail = "the body must be a JSON array of operations, or NDJSON with Content-Type "
                      "application/x-ndjson";
    }
    return root;
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

static void render_done(struct batch_request *b, struct kvs_buf *out, const struct write_op *op)
{
    static const uint32_t STATUS[] = {[WRITE_CREATED] = 201,
                                      [WRITE_REPLACED] = 204,
                                      [WRITE_DELETED] = 204,
                                      [WRITE_TOUCHED] = 204,
                                      [WRITE_GOT] = 200};

    kvs_buf_printf(
        out, "{\"status\":%" PRIu32 ",\"version\":\"%s\"", STATUS[op->result],
        render_version(&b->req->arena, op->result == WRITE_GOT ? op->got.version : op->version, 0));
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
        render_done(b, out, op);
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
    json_decref(b->root);
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

static int prepare(struct batch_request *b, const struct table *t)
{
    struct kvs_arena *arena = &b->req->arena;
    size_t loops_size = b->svc->host->loop_count * sizeof *b->loops;

    b->ops = kvs_arena_alloc(arena, (b->count + 1) * sizeof *b->ops);
    b->loops = kvs_arena_alloc(arena, loops_size);
    if (b->ops == NULL || b->loops == NULL) {
        return KVS_ENOMEM;
    }
    memset(b->loops, 0, loops_size);
    for (uint32_t i = 0; i < b->count; i++) {
        take_operation(b, t, json_array_get(b->root, i), &b->ops[i]);
    }
    return group_up(b, t);
}

void items_batch(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct kvs_host *host = s->host;
    const struct table *t = route_table(s, req, items_batch);
    struct batch_request *b = t == NULL ? NULL : kvs_arena_alloc(&req->arena, sizeof *b);
    const char *detail;
    int rc;

    if (b == NULL) {
        return; /* answered, or parked; an arena without room for this cannot be */
    }
    memset(b, 0, sizeof *b);
    b->svc = s;
    b->req = req;
    b->root = parse_body(req, &detail);
    if (b->root == NULL) {
        refuse(s, req, detail);
        return;
    }
    b->count = (uint32_t)json_array_size(b->root);
    if (json_array_size(b->root) > KVS_BATCH_OPERATION_COUNT_MAX) {
        json_decref(b->root);
        kvs_problem(req,
                    &(struct kvs_problem){
                        .status = 413, .code = "too_large", .limit = KVS_BATCH_OPERATION_COUNT_MAX},
                    "a batch has at most %u operations", KVS_BATCH_OPERATION_COUNT_MAX);
        host->complete(host->ctx, req);
        return;
    }
    b->table_id = t->id;
    b->max_value_bytes = t->limits.max_value_bytes;
    b->ndjson = (uint32_t)is_ndjson(req);
    b->atomic = req->args[BATCH_ATOMIC].u != 0;
    b->acks = kvs_arg_given(req, BATCH_ACKS) ? (uint32_t)req->args[BATCH_ACKS].u : t->acks;
    rc = prepare(b, t);
    if (rc != 0) {
        json_decref(b->root);
        kvs_problem_code(req, rc, "out of memory");
        host->complete(host->ctx, req);
        return;
    }
    if (check_atomic(b) != 0) {
        json_decref(b->root);
        host->complete(host->ctx, req);
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
