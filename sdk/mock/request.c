/* SPDX-License-Identifier: MIT
 *
 * Requests and calls on the fake host: a transport and a router in a few lines. */
#include <stdio.h>
#include <stdlib.h>

#include "kvs/support.h"
#include "mock_private.h"

/* A request under way: freed inside done, as a transport may do, so that sanitizers see a handler
 * that touches it later. */
struct pending {
    struct kvs_mock *mock;
    int done;
};

/* ---- parameters --------------------------------------------------------------------------------
 */

static struct kvs_slice no_header(struct kvs_request *req, const char *name, uint32_t nth)
{
    (void)req;
    (void)name;
    (void)nth;
    return kvs_slice(NULL, 0);
}

static int refuse(struct kvs_request *req, uint32_t status, const char *code, const char *name,
                  const char *what)
{
    kvs_problem(req, &(struct kvs_problem){.status = status, .code = code}, "parameter '%s' %s",
                name, what);
    return 0;
}

static int parse_enum(const struct kvs_param *p, struct kvs_arg *arg)
{
    for (arg->u = 0; p->choices[arg->u] != NULL; arg->u++) {
        if (kvs_slice_eq_str(arg->text, p->choices[arg->u])) {
            return 0;
        }
    }
    return KVS_EINVAL;
}

static int parse_bytes(const struct kvs_param *p, const struct kvs_arg *arg)
{
    if (p->max != 0 && (arg->text.len < p->min || arg->text.len > p->max)) {
        return KVS_EINVAL;
    }
    if (p->type == KVS_PARAM_STR &&
        (!kvs_utf8_valid(arg->text) || memchr(arg->text.ptr, '\0', arg->text.len) != NULL)) {
        return KVS_EINVAL;
    }
    return 0;
}

/* The same rules as the router of kvsd. */
static int parse_arg(const struct kvs_param *p, struct kvs_arg *arg)
{
    int rc = 0;

    switch (p->type) {
    case KVS_PARAM_UINT:
        rc = kvs_u64_parse(arg->text, &arg->u);
        break;
    case KVS_PARAM_BOOL:
        arg->u = kvs_slice_eq_str(arg->text, "true") ? 1 : 0;
        return arg->u != 0 || kvs_slice_eq_str(arg->text, "false") ? 0 : KVS_EINVAL;
    case KVS_PARAM_TTL:
        if (kvs_slice_eq_str(arg->text, "none")) {
            arg->u = 0;
            return 0;
        }
        rc = kvs_duration_parse(arg->text, &arg->u);
        break;
    case KVS_PARAM_DURATION:
        rc = kvs_duration_parse(arg->text, &arg->u);
        break;
    case KVS_PARAM_ENUM:
        return parse_enum(p, arg);
    default:
        return parse_bytes(p, arg);
    }
    if (rc == 0 && (p->min != 0 || p->max != 0) && (arg->u < p->min || arg->u > p->max)) {
        rc = KVS_EINVAL;
    }
    return rc;
}

/* One pair of the test. 0 with the response filled if it is refused. */
static int take_param(struct kvs_request *req, const char *name, const char *value)
{
    const struct kvs_method *m = req->method;
    struct kvs_arg *arg;
    uint32_t i = 0;

    while (i < m->param_count && strcmp(name, m->params[i].name) != 0) {
        i++;
    }
    if (i == m->param_count) {
        return refuse(req, 400, "unknown_parameter", name, "is unknown");
    }
    arg = &req->args[i];
    if (arg->text.ptr != NULL) {
        if ((m->params[i].flags & KVS_PARAM_REPEAT) == 0) {
            return refuse(req, 400, "malformed", name, "is given twice");
        }
        while (arg->next != NULL) {
            arg = arg->next;
        }
        arg->next = kvs_arena_alloc(&req->arena, sizeof *arg);
        if (arg->next == NULL) {
            kvs_problem_code(req, KVS_ENOMEM, "out of memory");
            return 0;
        }
        arg = arg->next;
        memset(arg, 0, sizeof *arg);
    }
    arg->text = kvs_slice_str(value == NULL ? "" : value);
    return parse_arg(&m->params[i], arg) == 0 ? 1
                                              : refuse(req, 400, "malformed", name, "is malformed");
}

/* params: name, value, name, value, .., NULL; the value NULL gives an empty one. */
static int fill_args(struct kvs_request *req, const char *const *params)
{
    const struct kvs_method *m = req->method;

    for (const char *const *p = params; p != NULL && *p != NULL; p += 2) {
        if (!take_param(req, p[0], p[1])) {
            return 0;
        }
    }
    for (uint32_t i = 0; i < m->param_count; i++) {
        const struct kvs_param *p = &m->params[i];

        if (req->args[i].text.ptr != NULL) {
            continue;
        }
        if ((p->flags & KVS_PARAM_REQUIRED) != 0 || p->place == KVS_IN_PATH) {
            return refuse(req, 400, "malformed", p->name, "is required");
        }
        if (p->fallback != NULL) {
            req->args[i].text = kvs_slice_str(p->fallback);
            if (parse_arg(p, &req->args[i]) != 0) {
                mock_stop_test("a parameter's own default is malformed");
            }
        }
    }
    return 1;
}

static int type_accepted(const char *accepted, struct kvs_slice given)
{
    const char *semi = given.len == 0 ? NULL : memchr(given.ptr, ';', given.len);

    given.len = semi == NULL ? given.len : (size_t)(semi - given.ptr);
    for (const char *p = accepted; *p != '\0'; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");

        if ((n == 1 && *p == '*') || kvs_slice_eq(kvs_slice(p, n), given)) {
            return 1;
        }
        p += n;
    }
    return 0;
}

/* What kvsd does before it calls the handler. 0 with the response filled if it refuses. */
static int body_fits(struct kvs_request *req)
{
    const struct kvs_method *m = req->method;
    uint32_t want = m->flags & 3u, status = 0;
    const char *code = "malformed";

    if (req->body.len == 0) {
        status = want == KVS_METHOD_BODY_REQUIRED && m->body_types != NULL &&
                         strcmp(m->body_types, "*") != 0
                     ? 400
                     : 0;
    } else if (want == KVS_METHOD_BODY_NONE) {
        status = 400;
    } else if (m->body_size_max != 0 && req->body.len > m->body_size_max) {
        status = 413;
        code = "too_large";
    } else if (m->body_types != NULL && !type_accepted(m->body_types, req->content_type)) {
        status = 415;
        code = "unsupported_media";
    }
    if (status != 0) {
        kvs_problem(req, &(struct kvs_problem){.status = status, .code = code},
                    "the body does not fit the method");
    }
    return status == 0;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static char *keep(char **at, const void *ptr, size_t len)
{
    char *to = *at;

    if (len > 0) {
        memcpy(to, ptr, len);
    }
    to[len] = '\0';
    *at = to + len + 1;
    return to;
}

/* The answer outlives the request: copy all it points to. */
static void answer_take(struct kvs_mock *m, const struct kvs_response *r)
{
    size_t type_len = r->content_type == NULL ? 0 : strlen(r->content_type);
    size_t size = r->body.len + type_len + 2;
    char *at;

    for (uint32_t i = 0; i < r->header_count; i++) {
        size += strlen(r->headers[i].value) + 1;
    }
    mock_request_free(m);
    m->answer_text = at = malloc(size);
    if (at == NULL) {
        mock_stop_test("out of memory");
    }
    m->answer.status = r->status;
    m->answer.body = kvs_slice(keep(&at, r->body.ptr, r->body.len), r->body.len);
    m->answer.content_type = r->content_type == NULL ? NULL : keep(&at, r->content_type, type_len);
    for (uint32_t i = 0; i < r->header_count; i++) {
        m->answer_headers[i].name = r->headers[i].name;
        m->answer_headers[i].value = keep(&at, r->headers[i].value, strlen(r->headers[i].value));
    }
    m->answer.headers = m->answer_headers;
    m->answer.header_count = r->header_count;
}

static void request_done(struct kvs_request *req)
{
    struct pending *p = req->transport_data;

    answer_take(p->mock, &req->response);
    if (req->response.body_free != NULL) {
        req->response.body_free(req->response.body_arg);
    }
    kvs_arena_fini(&req->arena);
    free(req);
    p->done = 1;
}

void mock_request_free(struct kvs_mock *m)
{
    free(m->answer_text);
    m->answer_text = NULL;
    memset(&m->answer, 0, sizeof m->answer);
}

const struct kvs_mock_answer *kvs_mock_request(struct kvs_mock *m, const struct kvs_method *method,
                                               void *service, const char *const *params,
                                               struct kvs_slice body, const char *content_type)
{
    struct kvs_request *req = calloc(1, sizeof *req); /* not ours to fail: no tag */
    struct pending p = {.mock = m};
    uint32_t before = m->current;

    if (req == NULL) {
        mock_stop_test("out of memory for a request");
    }
    req->magic = KVS_REQUEST_MAGIC;
    req->size = sizeof *req;
    req->verb = method->verb;
    req->header = no_header;
    req->done = request_done;
    req->transport = "mock";
    req->transport_data = &p;
    req->method = method;
    req->service = service;
    req->access = KVS_ACCESS_PEER;
    req->body = body;
    req->body_size_max = method->body_size_max;
    req->content_type = kvs_slice_str(content_type);
    req->start_ns = m->now_ns;
    memcpy(req->id, "mock", 5);
    kvs_arena_init(&req->arena, &m->host, NULL, 0);
    if (fill_args(req, params) && body_fits(req)) {
        m->current = 0;
        m->depth++;
        method->handler(service, req);
        m->depth--;
        m->current = before;
        kvs_mock_run_until(m, &p.done);
    } else {
        request_done(req);
    }
    return &m->answer;
}

static void complete_task(struct kvs_task *task)
{
    struct kvs_request *req = KVS_CONTAINER_OF(task, struct kvs_request, task);

    req->done(req);
}

static void mock_complete(void *ctx, struct kvs_request *req)
{
    struct kvs_mock *m = ctx;

    if (req->magic != KVS_REQUEST_MAGIC || req->response.status == 0) {
        mock_stop_test("a request was completed twice or without a status");
    }
    req->magic = 0;
    if (m->current == req->loop) {
        req->done(req);
    } else {
        req->task.run = complete_task;
        mock_push(&m->tasks[req->loop], &req->task);
    }
}

static int mock_route(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    (void)req;
    mock_stop_test("the fake host routes nothing: use kvs_mock_request");
}

static void mock_dispatch(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    (void)req;
    mock_stop_test("the fake host dispatches nothing: use kvs_mock_request");
}

/* ---- calls -------------------------------------------------------------------------------------
 */

void kvs_mock_on_call(struct kvs_mock *m, const char *method,
                      void (*fn)(void *arg, struct kvs_call *call), void *arg)
{
    uint32_t i = 0;

    while (i < m->answer_count && strcmp(m->answers[i].method, method) != 0) {
        i++;
    }
    if (i == KVS_ARRAY_COUNT(m->answers)) {
        mock_stop_test("too many answered methods");
    }
    m->answer_count += i == m->answer_count;
    m->answers[i].method = method;
    m->answers[i].fn = fn;
    m->answers[i].arg = arg;
}

static void call_answer(struct kvs_task *task)
{
    struct kvs_call *call = KVS_CONTAINER_OF(task, struct kvs_call, task);

    call->cb(call, 0);
}

static int mock_call(void *ctx, struct kvs_call *call, struct kvs_error *err)
{
    struct kvs_mock *m = ctx;

    if (m->current == KVS_LOOP_NONE) {
        mock_stop_test("call outside a loop");
    }
    for (uint32_t i = 0; call->peer == NULL && i < m->answer_count; i++) {
        if (strcmp(m->answers[i].method, call->method) == 0) {
            m->answers[i].fn(m->answers[i].arg, call);
            call->task.run = call_answer;
            mock_push(&m->tasks[m->current], &call->task);
            return 0;
        }
    }
    return kvs_err(err, KVS_ENOTFOUND, "no method '%s'", call->method);
}

void mock_request_fill(struct kvs_mock *m)
{
    m->host.route = mock_route;
    m->host.dispatch = mock_dispatch;
    m->host.complete = mock_complete;
    m->host.call = mock_call;
}
