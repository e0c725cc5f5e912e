/* SPDX-License-Identifier: MIT
 *
 * Dispatch, completion and calls between services; see kvs/method.h. */
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "obs/panic.h"
#include "sched/sched.h"

#define FLAG_DISPATCHED 1u
#define FLAG_COMPLETED  2u

static _Atomic int64_t in_flight;

uint64_t kvs__requests_in_flight(void)
{
    int64_t n = atomic_load_explicit(&in_flight, memory_order_relaxed);

    return n < 0 ? 0 : (uint64_t)n;
}

/* Media types are compared without parameters: "application/json; charset=utf-8" is JSON. */
static int type_accepted(const char *accepted, struct kvs_slice given)
{
    const char *semi = given.len == 0 ? NULL : memchr(given.ptr, ';', given.len);
    size_t n = semi == NULL ? given.len : (size_t)(semi - given.ptr);

    if (strcmp(accepted, "*") == 0) {
        return 1;
    }
    while (n > 0 && given.ptr[n - 1] == ' ') {
        n--;
    }
    for (const char *p = accepted; *p != '\0'; p += strspn(p, " ")) {
        size_t len = strcspn(p, " ");

        if (len == n && strncasecmp(p, given.ptr, n) == 0) {
            return 1;
        }
        p += len;
    }
    return 0;
}

static int check_body(struct kvs_request *req)
{
    const struct kvs_method *m = req->method;
    uint32_t want = m->flags & 3u;

    if (req->body.len == 0) {
        if (want == KVS_METHOD_BODY_REQUIRED && m->body_types != NULL &&
            strcmp(m->body_types, "*") != 0) {
            kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"},
                        "this method needs a body: %s", m->body_types);
            return 1;
        }
        return 0;
    }
    if (want == KVS_METHOD_BODY_NONE) {
        kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"},
                    "this method takes no body");
        return 1;
    }
    if (m->body_types != NULL && !type_accepted(m->body_types, req->content_type)) {
        kvs_problem(req, &(struct kvs_problem){.status = 415, .code = "unsupported_media"},
                    "Content-Type must be one of: %s", m->body_types);
        return 1;
    }
    return 0;
}

void kvs__request_dispatch(struct kvs_request *req)
{
    const struct kvs__route *r = req->host_data;

    KVS__ASSERT(r != NULL && (req->flags & FLAG_DISPATCHED) == 0);
    req->flags |= FLAG_DISPATCHED;
    (void)atomic_fetch_add_explicit(&in_flight, 1, memory_order_relaxed);
    if (req->access == 0) {
        req->access = KVS_ACCESS_ADMIN;
    }
    if (req->access < r->method->access) {
        kvs_problem(req, &(struct kvs_problem){.status = 403, .code = "forbidden"},
                    "this method is for nodes of the cluster");
        kvs__request_complete(req);
        return;
    }
    if (check_body(req) != 0) {
        kvs__request_complete(req);
        return;
    }
    r->method->handler(r->self, req);
}

static void complete_on_loop(struct kvs_task *task)
{
    struct kvs_request *req = KVS_CONTAINER_OF(task, struct kvs_request, task);

    req->done(req);
}

void kvs__request_complete(struct kvs_request *req)
{
    const struct kvs__route *r = req->host_data;
    uint32_t k = req->response.status / 100;

    KVS__ASSERT(req->magic == KVS_REQUEST_MAGIC && (req->flags & FLAG_COMPLETED) == 0);
    KVS__ASSERT(k >= 1 && k <= 5);
    req->flags |= FLAG_COMPLETED;
    (void)atomic_fetch_sub_explicit(&in_flight, 1, memory_order_relaxed);
    kvs__metric_add(r->count[k], 1);
    kvs__metric_observe(r->seconds, kvs__mono_ns() - req->start_ns);
    if (kvs__loop_current() == req->loop) {
        req->done(req);
    } else {
        req->task.run = complete_on_loop;
        kvs__loop_post(req->loop, &req->task);
    }
}

/* ---- calls -------------------------------------------------------------------------------------
 */

static const struct kvs_mem_tag call_tag = {"core.calls"};

/* One call inside this process: a request without a wire. */
struct local_call {
    struct kvs_request req;
    struct kvs_call *call;
    struct kvs_timer *timer;
    uint32_t answered; /* cb has run, by time-out: the request is still under way */
};

static struct kvs_slice no_header(struct kvs_request *req, const char *name, uint32_t nth)
{
    (void)req;
    (void)name;
    (void)nth;
    return kvs_slice(NULL, 0);
}

static struct kvs_slice call_param(struct kvs_request *req, const char *name, uint32_t nth)
{
    const struct local_call *l = req->transport_data;

    /* Copied: after a time-out the caller may free its side while the handler still works. */
    for (uint64_t i = 0; i < l->call->arg_count && nth == 0; i++) {
        if (strcmp(l->call->args[i].name, name) == 0) {
            struct kvs_slice value = l->call->args[i].value;

            return kvs_slice(kvs_arena_strdup(&req->arena, value), value.len);
        }
    }
    return kvs_slice(NULL, 0);
}

static void local_free(struct local_call *l)
{
    if (l->req.response.body_free != NULL) {
        l->req.response.body_free(l->req.response.body_arg);
    }
    kvs_arena_fini(&l->req.arena);
    kvs__mem_free(&call_tag, l, sizeof *l);
}

/* Always a task of its own: cb never runs inside host->call. */
static void local_answer(struct kvs_task *task)
{
    struct local_call *l = KVS_CONTAINER_OF(task, struct local_call, req.task);

    if (!l->answered) {
        kvs__timer_stop(l->timer);
        l->call->status = l->req.response.status;
        l->call->reply = l->req.response.body;
        l->call->cb(l->call, 0);
    }
    local_free(l);
}

static void local_done(struct kvs_request *req)
{
    req->task.run = local_answer;
    kvs__loop_post(req->loop, &req->task);
}

static void local_timeout(void *arg)
{
    struct local_call *l = arg;

    l->timer = NULL;
    l->answered = 1;
    l->call->cb(l->call, KVS_ETIMEDOUT);
}

static int call_local(struct kvs_call *call, struct kvs_error *err)
{
    struct local_call *l = kvs__mem_alloc(&call_tag, sizeof *l);
    struct kvs_request *req;

    if (l == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    memset(l, 0, sizeof *l);
    l->call = call;
    req = &l->req;
    req->magic = KVS_REQUEST_MAGIC;
    req->size = sizeof *req;
    req->loop = kvs__loop_current();
    req->method_name = call->method;
    req->header = no_header;
    req->param = call_param;
    req->done = local_done;
    req->transport = "local";
    req->transport_data = l;
    req->access = KVS_ACCESS_PEER;
    kvs_arena_init(&req->arena, kvs__mem_host(), NULL, 0);
    if (call->body.len > 0) {
        req->body = kvs_slice(kvs_arena_strdup(&req->arena, call->body), call->body.len);
        req->content_type = kvs_slice_str(call->content_type);
        if (req->body.ptr == NULL) {
            local_free(l);
            return kvs_err(err, KVS_ENOMEM, "out of memory");
        }
    }
    if (kvs__router_route(req) != 0) {
        if (req->method == NULL) {
            local_free(l);
            return kvs_err(err, KVS_ENOTFOUND, "no method '%s' in this process", call->method);
        }
        local_done(req);
        return 0;
    }
    if (call->timeout_ms != 0) {
        l->timer = kvs__timer_start(call->timeout_ms, 0, local_timeout, l);
    }
    kvs__request_dispatch(req);
    return 0;
}

int kvs__request_call(const struct kvs_host *host, struct kvs_call *call, struct kvs_error *err)
{
    KVS__ASSERT(kvs__loop_current() != KVS_LOOP_NONE);
    if (call->peer == NULL) {
        return call_local(call, err);
    }
    for (uint32_t i = 0;; i++) {
        const struct kvs_transport_ops *ops;
        const void *found;
        void *self;

        if (host->each(host->ctx, KVS_KIND_TRANSPORT, i, NULL, &found, &self) != 0) {
            return kvs_err(err, KVS_ENOTSUP, "no loaded transport can call peers");
        }
        ops = found;
        if (KVS_HAS(ops, call) && ops->call != NULL) {
            return ops->call(self, call, err);
        }
    }
}
