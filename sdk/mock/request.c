/* SPDX-License-Identifier: MIT
 *
 * Requests and calls on the fake host: a transport and a router in a few lines. */
#include <stdio.h>
#include <stdlib.h>

#include "kvs/support.h"
#include "mock_private.h"

static const struct kvs_mem_tag tag = {"mock.request"};

/* ---- requests ----------------------------------------------------------------------------------
 */

static struct kvs_slice no_header(struct kvs_request *req, const char *name, uint32_t nth)
{
    (void)req;
    (void)name;
    (void)nth;
    return kvs_slice(NULL, 0);
}

static void refuse(struct kvs_request *req, const struct kvs_param *p)
{
    kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"},
                "parameter '%s' is malformed", p->name);
}

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
            return 0;
        }
        rc = kvs_duration_parse(arg->text, &arg->u);
        break;
    case KVS_PARAM_DURATION:
        rc = kvs_duration_parse(arg->text, &arg->u);
        break;
    case KVS_PARAM_ENUM:
        for (arg->u = 0; p->choices[arg->u] != NULL; arg->u++) {
            if (kvs_slice_eq_str(arg->text, p->choices[arg->u])) {
                return 0;
            }
        }
        return KVS_EINVAL;
    default:
        return p->max != 0 && (arg->text.len < p->min || arg->text.len > p->max) ? KVS_EINVAL : 0;
    }
    if (rc == 0 && (p->min != 0 || p->max != 0) && (arg->u < p->min || arg->u > p->max)) {
        rc = KVS_EINVAL;
    }
    return rc;
}

/* params: name, value, name, value, .., NULL; the value NULL gives an empty one. */
static int fill_args(struct kvs_request *req, const char *const *params)
{
    const struct kvs_method *m = req->method;

    for (uint32_t i = 0; i < m->param_count; i++) {
        struct kvs_arg *arg = &req->args[i];

        for (const char *const *p = params; p != NULL && *p != NULL; p += 2) {
            if (strcmp(p[0], m->params[i].name) != 0) {
                continue;
            }
            if (arg->text.ptr != NULL) {
                arg->next = kvs_arena_alloc(&req->arena, sizeof *arg);
                arg = arg->next;
                memset(arg, 0, sizeof *arg);
            }
            arg->text = kvs_slice_str(p[1] == NULL ? "" : p[1]);
        }
        if (req->args[i].text.ptr == NULL && m->params[i].fallback != NULL) {
            req->args[i].text = kvs_slice_str(m->params[i].fallback);
        }
        if (req->args[i].text.ptr != NULL && parse_arg(&m->params[i], &req->args[i]) != 0) {
            refuse(req, &m->params[i]);
            return 0;
        }
        if (req->args[i].text.ptr == NULL &&
            ((m->params[i].flags & KVS_PARAM_REQUIRED) != 0 || m->params[i].place == KVS_IN_PATH)) {
            refuse(req, &m->params[i]);
            return 0;
        }
    }
    return 1;
}

static void request_done(struct kvs_request *req)
{
    *(int *)req->transport_data = 1;
}

void mock_request_free(struct kvs_mock *m)
{
    struct kvs_request *req = m->last_request;

    if (req == NULL) {
        return;
    }
    if (req->response.body_free != NULL) {
        req->response.body_free(req->response.body_arg);
    }
    kvs_arena_fini(&req->arena);
    kvs_free(&m->host, &tag, req, sizeof *req);
    m->last_request = NULL;
}

const struct kvs_mock_answer *kvs_mock_request(struct kvs_mock *m, const struct kvs_method *method,
                                               void *service, const char *const *params,
                                               struct kvs_slice body, const char *content_type)
{
    struct kvs_request *req;
    int done = 0;

    mock_request_free(m);
    req = kvs_calloc(&m->host, &tag, sizeof *req);
    if (req == NULL) {
        mock_stop_test("out of memory for a request");
    }
    m->last_request = req;
    req->magic = KVS_REQUEST_MAGIC;
    req->size = sizeof *req;
    req->header = no_header;
    req->done = request_done;
    req->transport = "mock";
    req->transport_data = &done;
    req->method = method;
    req->service = service;
    req->access = KVS_ACCESS_PEER;
    req->body = body;
    req->content_type = kvs_slice_str(content_type);
    memcpy(req->id, "mock", 5);
    kvs_arena_init(&req->arena, &m->host, NULL, 0);
    if (fill_args(req, params)) {
        uint32_t before = m->current;

        m->current = 0;
        method->handler(service, req);
        m->current = before;
        kvs_mock_run_until(m, &done);
    }
    m->answer.status = req->response.status;
    m->answer.content_type = req->response.content_type;
    m->answer.body = req->response.body;
    m->answer.headers = req->response.headers;
    m->answer.header_count = req->response.header_count;
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
