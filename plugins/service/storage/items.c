/* SPDX-License-Identifier: MIT
 *
 * One item: put, get, delete; see storage.h. */
#include <inttypes.h>
#include <stdio.h>

#include "storage.h"

/* A write of one item, in the request's arena. */
struct write {
    struct route route; /* first */
    struct write_batch wb;
    struct write_op op;
};

static void complete(struct kvs_request *req, struct storage *s)
{
    s->host->complete(s->host->ctx, req);
}

static void refuse(struct storage *s, struct kvs_request *req, const char *detail)
{
    kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"}, "%s", detail);
    complete(req, s);
}

static struct write *write_new(struct storage *s, struct kvs_request *req, uint32_t kind)
{
    struct write *w = kvs_arena_alloc(&req->arena, sizeof *w);

    if (w == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        complete(req, s);
        return NULL;
    }
    memset(w, 0, sizeof *w);
    w->route.svc = s;
    w->route.req = req;
    w->op.kind = kind;
    w->wb.ops = &w->op;
    w->wb.count = 1;
    w->wb.arena = &req->arena;
    return w;
}

/* ---- conditions --------------------------------------------------------------------------------
 */

/* If-Match: one entity tag, or *. A tag that is not of ours matches nothing. */
static void if_match(struct write_op *op, struct kvs_slice tag)
{
    if (tag.ptr == NULL) {
        return;
    }
    if (kvs_slice_eq_str(tag, "*")) {
        op->if_present = 1;
        return;
    }
    op->if_match = 1;
    if (version_parse(tag, &op->if_version) != 0) {
        op->if_version.epoch = UINT32_MAX;
        op->if_version.offset = UINT64_MAX;
    }
}

static void idempotency(struct write *w, struct kvs_slice key)
{
    struct kvs_request *req = w->route.req;
    uint64_t hash;

    if (key.ptr == NULL) {
        return;
    }
    hash = kvs_hash64(req->target, req->verb);
    hash = kvs_hash64(req->body, hash);
    hash = kvs_hash64(req->content_type, hash);
    w->wb.idempotency_key = key;
    w->wb.idempotency_hash = hash;
}

/* "name=value", both percent-encoded. */
static int index_values(struct write *w, const struct kvs_arg *arg)
{
    struct kvs_arena *arena = &w->route.req->arena;
    struct index_value *values;
    uint32_t n = 0;

    if (arg->text.ptr == NULL) {
        return 0;
    }
    for (const struct kvs_arg *a = arg; a != NULL; a = a->next) {
        n++;
    }
    values = kvs_arena_alloc(arena, n * sizeof *values);
    if (values == NULL) {
        return KVS_ENOMEM;
    }
    n = 0;
    for (const struct kvs_arg *a = arg; a != NULL; a = a->next, n++) {
        const char *eq = memchr(a->text.ptr, '=', a->text.len);
        size_t name_len = eq == NULL ? 0 : (size_t)(eq - a->text.ptr), len;
        char *to = kvs_arena_alloc(arena, a->text.len + 1);

        if (eq == NULL || to == NULL ||
            kvs_percent_decode(kvs_slice(a->text.ptr, name_len), 0, to, a->text.len, &len) != 0) {
            return to == NULL ? KVS_ENOMEM : KVS_EINVAL;
        }
        values[n].name = kvs_slice(to, len);
        to += len;
        if (kvs_percent_decode(kvs_slice(eq + 1, a->text.len - name_len - 1), 0, to,
                               a->text.len - len, &len) != 0) {
            return KVS_EINVAL;
        }
        values[n].value = kvs_slice(to, len);
    }
    w->op.indexes = values;
    w->op.index_count = n;
    return 0;
}

/* ---- answers of writes -------------------------------------------------------------------------
 */

static void answer_expiry(struct kvs_request *req, uint64_t expires_at_ms)
{
    char *text;

    if (expires_at_ms != 0) {
        text = kvs_arena_printf(&req->arena, "%" PRIu64, expires_at_ms);
        if (text != NULL) {
            kvs_response_header(req, "KVS-Expires-At", text);
        }
    }
}

static void answer_write(struct write *w, const struct table *t)
{
    struct kvs_request *req = w->route.req;
    struct kvs_problem problem;
    const char *detail;

    answer_headers(w->route.svc, req, w->route.partition);
    switch (w->op.result) {
    case WRITE_CREATED:
    case WRITE_REPLACED:
        req->response.status = w->op.result == WRITE_CREATED ? 201 : 204;
        kvs_response_header(req, "ETag", render_version(&req->arena, w->op.version));
        answer_expiry(req, w->op.expires_at_ms);
        break;
    case WRITE_DELETED:
        req->response.status = 204;
        break;
    default:
        problem_of(&w->op, t, &problem, &detail);
        if (w->op.result == WRITE_PRECONDITION && w->op.version.epoch != 0) {
            kvs_response_header(req, "ETag", render_version(&req->arena, w->op.version));
        }
        kvs_problem(req, &problem, "%s", detail);
    }
    if (w->wb.replayed) {
        kvs_response_header(req, "KVS-Replayed", "true");
    }
    complete(req, w->route.svc);
}

static void on_written(struct write_batch *wb, int rc)
{
    struct write *w = KVS_CONTAINER_OF(wb, struct write, wb);
    const struct table *t = NULL;

    if (rc != 0) {
        answer_write_failed(w->route.svc, w->route.req, rc, 1);
        return;
    }
    (void)part_here(w->route.svc, w->route.table_id, w->route.partition, &t);
    answer_write(w, t);
}

static void write_run(struct route *r, const struct table *t, struct partition *p)
{
    struct write *w = (struct write *)r;
    int rc;

    (void)t;
    w->wb.cb = on_written;
    rc = partition_write(p, &w->wb);
    if (rc != 0) {
        answer_write_failed(r->svc, r->req, rc, 0);
    }
}

/* ---- put ---------------------------------------------------------------------------------------
 */

static uint64_t expiry_of(const struct storage *s, const struct kvs_request *req, uint32_t arg,
                          const struct table *t)
{
    uint64_t ttl = kvs_arg_given(req, arg) ? req->args[arg].u : t->ttl_ms;

    return ttl == 0 ? 0 : kvs_now_ms(s->host) + ttl;
}

static uint32_t acks_of(const struct kvs_request *req, uint32_t arg, const struct table *t)
{
    return kvs_arg_given(req, arg) ? (uint32_t)req->args[arg].u : t->acks;
}

static int refuse_memory(struct storage *s, struct kvs_request *req)
{
    if (KVS_LIKELY(atomic_load_explicit(&s->over_memory, memory_order_relaxed) == 0)) {
        return 0;
    }
    kvs_problem(req,
                &(struct kvs_problem){.status = 507,
                                      .code = "memory_limit",
                                      .retryable = 1,
                                      .retry_after_ms = 1000,
                                      .limit = s->conf->memory_limit},
                "this server holds as much as its memory_limit allows: delete items or raise it");
    complete(req, s);
    return 1;
}

void items_put(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_put);
    struct kvs_slice none_match;
    struct write *w;
    int rc;

    if (t == NULL || refuse_memory(s, req)) {
        return;
    }
    none_match = kvs_arg(req, PUT_IF_NONE_MATCH);
    if (none_match.ptr != NULL && !kvs_slice_eq_str(none_match, "*")) {
        refuse(s, req, "If-None-Match of a PUT must be *: create only");
        return;
    }
    w = write_new(s, req, WRITE_PUT);
    if (w == NULL) {
        return;
    }
    w->op.key = kvs_arg(req, PUT_KEY);
    w->op.partition_key = kvs_arg(req, PUT_PARTITION_KEY);
    w->op.value = req->body.ptr == NULL ? kvs_slice("", 0) : req->body;
    w->op.content_type = kvs_arg(req, PUT_CONTENT_TYPE);
    w->op.expires_at_ms = expiry_of(s, req, PUT_TTL, t);
    w->op.if_absent = none_match.ptr != NULL;
    if_match(&w->op, kvs_arg(req, PUT_IF_MATCH));
    w->wb.acks = acks_of(req, PUT_ACKS, t);
    idempotency(w, kvs_arg(req, PUT_IDEMPOTENCY_KEY));
    rc = index_values(w, &req->args[PUT_INDEX]);
    if (rc != 0) {
        refuse(s, req, "KVS-Index must be name=value, both percent-encoded");
        return;
    }
    w->route.run = write_run;
    route_key(&w->route, t, w->op.key, w->op.partition_key);
}

void items_delete(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_delete);
    struct write *w = t == NULL ? NULL : write_new(s, req, WRITE_DELETE);

    if (w == NULL) {
        return;
    }
    w->op.key = kvs_arg(req, DEL_KEY);
    w->op.partition_key = kvs_arg(req, DEL_PARTITION_KEY);
    if_match(&w->op, kvs_arg(req, DEL_IF_MATCH));
    w->wb.acks = acks_of(req, DEL_ACKS, t);
    idempotency(w, kvs_arg(req, DEL_IDEMPOTENCY_KEY));
    w->route.run = write_run;
    route_key(&w->route, t, w->op.key, w->op.partition_key);
}

/* ---- get ---------------------------------------------------------------------------------------
 */

static const struct kvs_mem_tag envelope_memory = {"storage.answers"};

static void buf_free(void *arg)
{
    struct kvs_buf *b = arg;

    kvs_buf_fini(b);
}

static void answer_envelope(struct route *r, struct partition *p, const struct item_view *item)
{
    struct kvs_request *req = r->req;
    struct kvs_buf *b = kvs_arena_alloc(&req->arena, sizeof *b);

    if (b != NULL) {
        kvs_buf_init(b, r->svc->host, &envelope_memory);
        render_item(b, p, item, 1);
    }
    if (b == NULL || b->failed) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        return;
    }
    req->response.status = 200;
    req->response.content_type = "application/json";
    req->response.body = kvs_buf_slice(b);
    req->response.body_free = buf_free;
    req->response.body_arg = b;
}

static void answer_value(struct kvs_request *req, const struct item_view *item)
{
    const char *type = item->content_type.len == 0
                           ? "application/octet-stream"
                           : kvs_arena_strdup(&req->arena, item->content_type);
    char *value = kvs_arena_strdup(&req->arena, item->value);

    if (type == NULL || value == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        return;
    }
    req->response.status = 200;
    req->response.content_type = type;
    req->response.body = kvs_slice(value, item->value.len);
}

static int none_match(const struct kvs_request *req, struct version v)
{
    struct kvs_slice tag = kvs_arg(req, GET_IF_NONE_MATCH);
    struct version known;

    if (tag.ptr == NULL) {
        return 0;
    }
    return kvs_slice_eq_str(tag, "*") ||
           (version_parse(tag, &known) == 0 && known.epoch == v.epoch && known.offset == v.offset);
}

static void get_run(struct route *r, const struct table *t, struct partition *p)
{
    struct kvs_request *req = r->req;
    uint32_t read = req->args[GET_READ].u == 1 ? READ_UNCOMMITTED : READ_COMMITTED;
    struct item_view item;

    (void)t;
    answer_headers(r->svc, req, r->partition);
    if (!partition_get(p, kvs_arg(req, GET_KEY), read, kvs_now_ms(r->svc->host), &item)) {
        kvs_problem(req, &(struct kvs_problem){.status = 404, .code = "not_found"},
                    "the table holds no item with this key");
    } else {
        kvs_response_header(req, "ETag", render_version(&req->arena, item.version));
        answer_expiry(req, item.expires_at_ms);
        if (none_match(req, item.version)) {
            req->response.status = 304;
        } else if (req->args[GET_FORMAT].u == 1) {
            answer_envelope(r, p, &item);
        } else {
            answer_value(req, &item);
        }
    }
    complete(req, r->svc);
}

void items_get(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_get);
    struct route *r = t == NULL ? NULL : kvs_arena_alloc(&req->arena, sizeof *r);

    if (t == NULL) {
        return;
    }
    if (r == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        complete(req, s);
        return;
    }
    *r = (struct route){.svc = s, .req = req, .run = get_run};
    route_key(r, t, kvs_arg(req, GET_KEY), kvs_arg(req, GET_PARTITION_KEY));
}
