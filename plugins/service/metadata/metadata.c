/* SPDX-License-Identifier: MIT
 *
 * Plugin service-metadata: life, consensus, waiting for views; see metadata.h. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"

#define VIEW_WAIT_MS       10000u /* for a view that a proposal led to */
#define PROPOSE_TIMEOUT_MS 10000u
#define MONITOR_PERIOD_MS  100u
#define HOME               0u /* the loop all requests run on */

static const struct kvs_mem_tag TAG = {"metadata.view"};

static void init_cluster(struct metadata *self);

/* ---- consensus thread ------------------------------------------------------------------------ */

/* The proposer's word: code in the low byte, state version above. */
static uint64_t pack_result(int code, uint64_t version)
{
    return (uint64_t)(uint8_t)(-code) | version << 8;
}

static void fsm_apply(void *arg, uint64_t index, struct kvs_slice entry, uint64_t *ret_result)
{
    struct metadata *self = arg;
    uint64_t value;
    int rc = state_apply(&self->state, index, entry, &value);

    *ret_result = pack_result(rc, self->state.version);
}

static void text_free(void *text)
{
    free(text);
}

static int fsm_snapshot(void *arg, struct kvs_slice *ret_bytes, void (**ret_free)(void *),
                        void **ret_arg)
{
    struct metadata *self = arg;
    char *text = state_save(&self->state);

    if (text == NULL) {
        return KVS_ENOMEM;
    }
    *ret_bytes = kvs_slice_str(text);
    *ret_free = text_free;
    *ret_arg = text;
    return 0;
}

static int fsm_restore(void *arg, struct kvs_slice bytes, struct kvs_error *err)
{
    struct metadata *self = arg;

    return state_load(&self->state, bytes, err);
}

static void view_free(struct view *v)
{
    if (v != NULL) {
        const struct kvs_host *host = v->self->host;

        state_fini(&v->state);
        free(v->map_public);
        free(v->map_peer);
        kvs_free(host, &TAG, v, sizeof *v);
    }
}

static void view_arrives(struct kvs_task *task);

static void fsm_applied(void *arg, uint64_t index)
{
    struct metadata *self = arg;
    struct view *v = kvs_calloc(self->host, &TAG, sizeof *v);

    (void)index;
    /* Without memory for a view this server cannot answer truthfully any more. */
    KVS_ASSERT(self->host, v != NULL && state_copy(&self->state, &v->state) == 0);
    v->self = self;
    v->task.run = view_arrives;
    kvs_post(self->host, HOME, &v->task);
}

static void fsm_role_changed(void *arg, uint32_t state, uint64_t term, const char *leader_id)
{
    struct metadata *self = arg;

    (void)leader_id;
    atomic_store_explicit(&self->term, term, memory_order_relaxed);
    /* Pairs with the load in role_arrives; the flag keeps the one task from being posted twice. */
    atomic_store_explicit(&self->role, state, memory_order_release);
    if (atomic_exchange_explicit(&self->role_posted, 1, memory_order_acq_rel) == 0) {
        kvs_post(self->host, HOME, &self->role_task);
    }
}

/* ---- loop 0: views and waiting --------------------------------------------------------------- */

static void ready_update(struct metadata *self)
{
    int known = self->view != NULL && self->view->state.cluster_id[0] != '\0';

    self->host->ready_set(self->host->ctx, "metadata", known ? 1 : 0,
                          known ? "" : "the metadata quorum has no leader yet");
}

static void role_arrives(struct kvs_task *task)
{
    struct metadata *self = KVS_CONTAINER_OF(task, struct metadata, role_task);
    uint32_t role;

    atomic_store_explicit(&self->role_posted, 0, memory_order_seq_cst);
    role = atomic_load_explicit(&self->role, memory_order_seq_cst);
    if (role == KVS_CONSENSUS_LEADER && !self->leading) {
        self->leading = 1;
        self->leader_since_ns = kvs_mono_ns(self->host);
        memset(self->nodes, 0, sizeof self->nodes);
    } else if (role != KVS_CONSENSUS_LEADER) {
        self->leading = 0;
    }
    KVS_LOG(self->host, KVS_LOG_INFO, "role", "leader=%s term=%llu",
            self->leading ? "true" : "false",
            (unsigned long long)atomic_load_explicit(&self->term, memory_order_relaxed));
    init_cluster(self);
    ready_update(self);
}

static void waiter_unlink(struct waiter *w)
{
    *w->link = w->next;
    if (w->next != NULL) {
        w->next->link = w->link;
    }
    if (w->timer != NULL) {
        w->self->host->timer_stop(w->self->host->ctx, w->timer);
        w->timer = NULL;
    }
}

static void view_arrives(struct kvs_task *task)
{
    struct view *v = KVS_CONTAINER_OF(task, struct view, task);
    struct metadata *self = v->self;
    struct waiter *w, *next, *due = NULL, **tail = &due;

    view_free(self->view);
    self->view = v;
    init_cluster(self);
    ready_update(self);
    for (w = self->waiters; w != NULL; w = next) {
        next = w->next;
        if (w->min_version <= v->state.version) {
            waiter_unlink(w);
            w->next = NULL;
            *tail = w;
            tail = &w->next;
        }
    }
    /* Apart from the list: a handler may wait again. The waiter dies with its request. */
    for (w = due; w != NULL; w = next) {
        next = w->next;
        w->run(self, w->req);
    }
}

static void waiter_late(void *arg)
{
    struct waiter *w = arg;

    w->timer = NULL; /* single shot: freed itself */
    waiter_unlink(w);
    w->late(w->self, w->req);
}

static void out_of_memory(struct metadata *self, struct kvs_request *req)
{
    metadata_problem(self, req, 503, "out_of_memory", 1, "the server is out of memory");
}

void metadata_wait(struct metadata *self, struct kvs_request *req, uint64_t min_version,
                   uint64_t wait_ms, void (*fn)(struct metadata *self, struct kvs_request *req),
                   void (*late)(struct metadata *self, struct kvs_request *req))
{
    struct waiter *w;

    if (self->view != NULL && self->view->state.version >= min_version) {
        fn(self, req);
        return;
    }
    if (wait_ms == 0 || self->draining) {
        late(self, req);
        return;
    }
    w = kvs_arena_alloc(&req->arena, sizeof *w);
    if (w == NULL) {
        out_of_memory(self, req);
        return;
    }
    *w = (struct waiter){
        .self = self, .req = req, .min_version = min_version, .run = fn, .late = late};
    w->timer = self->host->timer_start(self->host->ctx, wait_ms, 0, waiter_late, w);
    if (w->timer == NULL) {
        out_of_memory(self, req);
        return;
    }
    w->next = self->waiters;
    w->link = &self->waiters;
    if (w->next != NULL) {
        w->next->link = &w->next;
    }
    self->waiters = w;
}

static void not_ready(struct metadata *self, struct kvs_request *req)
{
    metadata_problem(self, req, 503, "not_ready", 1, "the metadata quorum has no leader yet");
}

/* What a handler wants to run on loop 0, kept in the request. */
struct hop {
    struct metadata *self;
    void (*fn)(struct metadata *self, struct kvs_request *req);
};

static void hop_arrives(struct kvs_task *task)
{
    struct kvs_request *req = KVS_CONTAINER_OF(task, struct kvs_request, task);
    struct hop *hop = req->state;
    struct metadata *self = hop->self;

    if (self->view == NULL || self->view->state.cluster_id[0] == '\0') {
        not_ready(self, req);
        return;
    }
    hop->fn(self, req);
}

void metadata_on_view(struct metadata *self, struct kvs_request *req,
                      void (*fn)(struct metadata *self, struct kvs_request *req))
{
    struct hop *hop = kvs_arena_alloc(&req->arena, sizeof *hop);

    if (hop == NULL) {
        out_of_memory(self, req);
        return;
    }
    hop->self = self;
    hop->fn = fn;
    req->state = hop;
    req->task.run = hop_arrives;
    if (self->host->loop_current(self->host->ctx) == HOME) {
        hop_arrives(&req->task);
    } else {
        kvs_post(self->host, HOME, &req->task);
    }
}

/* ---- proposals ------------------------------------------------------------------------------- */

struct op {
    struct kvs_proposal p;
    struct metadata *self;
    struct kvs_request *req; /* NULL: our own */
    const char *what;
    char *entry; /* jansson's memory */
    void (*fn)(struct metadata *self, struct kvs_request *req);
};

static void propose_failed(struct metadata *self, struct kvs_request *req, int rc)
{
    struct kvs_problem problem = {.status = 503,
                                  .code = "not_ready",
                                  .retryable = 1,
                                  .outcome = KVS_OUTCOME_NOT_APPLIED,
                                  .retry_after_ms = 1000};

    if (rc == KVS_ENOTLEADER) {
        problem.code = "no_leader";
    } else if (rc == KVS_EINVAL || rc == KVS_ETOOBIG) {
        problem = (struct kvs_problem){
            .status = 413, .code = "too_large", .limit = KVS_CONSENSUS_ENTRY_SIZE_MAX};
    } else if (rc == KVS_ETIMEDOUT || rc == KVS_ECANCELED) {
        problem = (struct kvs_problem){.status = 504,
                                       .code = "outcome_unknown",
                                       .retryable = 1,
                                       .outcome = KVS_OUTCOME_UNKNOWN};
    }
    kvs_problem(req, &problem, "the metadata change was not confirmed: %s", kvs_code_text(rc));
    self->host->complete(self->host->ctx, req);
}

/* The state machine said no. */
static void propose_rejected(struct metadata *self, struct kvs_request *req, int code,
                             const char *what)
{
    switch (code) {
    case KVS_EEXIST:
        metadata_problem(self, req, 409, "already_exists", 0, "%s exists already", what);
        break;
    case KVS_ENOTFOUND:
        metadata_problem(self, req, 404, "not_found", 0, "%s does not exist", what);
        break;
    case KVS_ENOREPLICAS:
        metadata_problem(self, req, 409, "not_enough_nodes", 0,
                         "%s asks for more replicas than there are active storage nodes (%u)", what,
                         self->view == NULL ? 0 : state_active_nodes(&self->view->state));
        break;
    case KVS_ETOOMANY:
        metadata_problem(self, req, 409, "limit_reached", 0,
                         "%s: the cluster holds as many as it may; see GET /v1/configuration",
                         what);
        break;
    case KVS_ECONFLICT:
        metadata_problem(self, req, 409, "conflict", 0, "%s: conflicts with its present state",
                         what);
        break;
    default:
        metadata_problem(self, req, 400, "invalid_body", 0, "%s: %s", what, kvs_code_text(code));
        break;
    }
}

static void view_late(struct metadata *self, struct kvs_request *req)
{
    struct kvs_problem problem = {
        .status = 504, .code = "outcome_unknown", .retryable = 1, .outcome = KVS_OUTCOME_APPLIED};

    kvs_problem(req, &problem, "the change was made but is not visible here yet");
    self->host->complete(self->host->ctx, req);
}

static void op_done(struct kvs_proposal *p, int rc)
{
    struct op *op = KVS_CONTAINER_OF(p, struct op, p);
    struct metadata *self = op->self;
    struct kvs_request *req = op->req;
    int code = -(int)(uint8_t)p->result;
    uint64_t version = p->result >> 8;

    self->pending--;
    free(op->entry);
    op->entry = NULL;
    if (req == NULL) {
        self->initializing = 0;
        if (rc != 0) {
            KVS_LOG(self->host, KVS_LOG_WARN, "proposal_failed", "error='%s' retrying=true",
                    kvs_code_text(rc));
        }
        kvs_free(self->host, &TAG, op, sizeof *op);
        return;
    }
    if (rc != 0) {
        propose_failed(self, req, rc);
    } else if (code != 0) {
        propose_rejected(self, req, code, op->what);
    } else {
        metadata_wait(self, req, version, VIEW_WAIT_MS, op->fn, view_late);
    }
}

static int op_submit(struct op *op, json_t *command)
{
    struct metadata *self = op->self;
    int rc;

    op->entry = command == NULL ? NULL : json_dumps(command, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(command);
    if (op->entry == NULL) {
        return KVS_ENOMEM;
    }
    op->p.entry = kvs_slice_str(op->entry);
    op->p.timeout_ms = PROPOSE_TIMEOUT_MS;
    op->p.cb = op_done;
    rc = self->consensus->propose(self->consensus_self, &op->p);
    if (rc != 0) {
        free(op->entry);
        op->entry = NULL;
        return rc;
    }
    self->pending++;
    return 0;
}

void metadata_propose(struct metadata *self, struct kvs_request *req, json_t *take_command,
                      const char *what, void (*fn)(struct metadata *self, struct kvs_request *req))
{
    struct op *op = kvs_arena_alloc(&req->arena, sizeof *op);
    int rc;

    if (op == NULL || self->draining) {
        json_decref(take_command);
        propose_failed(self, req, op == NULL ? KVS_ENOMEM : KVS_ESTATE);
        return;
    }
    memset(op, 0, sizeof *op);
    op->self = self;
    op->req = req;
    op->what = what;
    op->fn = fn;
    rc = op_submit(op, take_command);
    if (rc != 0) {
        propose_failed(self, req, rc);
    }
}

/* A proposal of our own, without a request. */
static int propose_own(struct metadata *self, json_t *take_command)
{
    struct op *op = kvs_calloc(self->host, &TAG, sizeof *op);
    int rc;

    if (op == NULL) {
        json_decref(take_command);
        return KVS_ENOMEM;
    }
    op->self = self;
    rc = op_submit(op, take_command);
    if (rc != 0) {
        kvs_free(self->host, &TAG, op, sizeof *op);
    }
    return rc;
}

/* The first leader of a new cluster names it and draws its secret. */
static void init_cluster(struct metadata *self)
{
    uint8_t random[META_SECRET_SIZE + 16];
    char hex[2 * sizeof random + 1];

    if (!self->leading || self->initializing || self->draining ||
        (self->view != NULL && self->view->state.cluster_id[0] != '\0')) {
        return;
    }
    self->host->random(self->host->ctx, random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", random[i]);
    }
    self->initializing =
        propose_own(self, json_pack("{s:s, s:s, s:s#}", "op", "cluster.init", "cluster_id",
                                    hex + 2 * (size_t)META_SECRET_SIZE, "secret", hex,
                                    (size_t)2 * META_SECRET_SIZE)) == 0;
}

/* ---- the monitor ----------------------------------------------------------------------------- */

uint64_t metadata_session_timeout(const struct metadata *self)
{
    const struct meta_state *s = &self->view->state;

    return s->settings[SETTING_SESSION_TIMEOUT] == UINT64_MAX
               ? self->conf->session_timeout_ms
               : s->settings[SETTING_SESSION_TIMEOUT];
}

/* A node that was silent for a session time-out is fenced: it leads nothing until it registers
 * again. */
static void monitor_tick(void *arg)
{
    struct metadata *self = arg;
    uint64_t now = kvs_mono_ns(self->host), limit_ns;

    if (self->view == NULL) {
        return;
    }
    init_cluster(self);
    limit_ns = metadata_session_timeout(self) * 1000000u;
    for (uint32_t i = 0; self->leading && i < self->view->state.node_count; i++) {
        const struct meta_node *n = &self->view->state.nodes[i];
        struct node_watch *w = &self->nodes[i];
        uint64_t heard = w->heard_ns > self->leader_since_ns ? w->heard_ns : self->leader_since_ns;

        if (n->state == NODE_FENCED || n->state == NODE_REMOVED) {
            w->fencing = 0;
            continue;
        }
        if (now - heard <= limit_ns || w->fencing) {
            continue;
        }
        KVS_LOG(self->host, KVS_LOG_WARN, "node_lost", "node=%s silent_ms=%" PRIu64 " fencing=true",
                n->id, (now - heard) / 1000000u);
        w->fencing = propose_own(self, json_pack("{s:s, s:s, s:i}", "op", "node.state", "id", n->id,
                                                 "state", NODE_FENCED)) == 0;
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

void metadata_reply(struct metadata *self, struct kvs_request *req, uint32_t status,
                    json_t *take_body)
{
    char *text = take_body == NULL ? NULL : json_dumps(take_body, JSON_COMPACT);

    json_decref(take_body);
    if (text == NULL) {
        out_of_memory(self, req);
        return;
    }
    req->response.status = status;
    req->response.content_type = "application/json";
    req->response.body = kvs_slice_str(text);
    req->response.body_free = text_free;
    req->response.body_arg = text;
    self->host->complete(self->host->ctx, req);
}

void metadata_problem(struct metadata *self, struct kvs_request *req, uint32_t status,
                      const char *code, uint32_t retryable, const char *fmt, ...)
{
    struct kvs_problem problem = {.status = status, .code = code, .retryable = retryable};
    char detail[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(detail, sizeof detail, fmt, args);
    va_end(args);
    if (retryable) {
        problem.retry_after_ms = 1000;
    }
    kvs_problem(req, &problem, "%s", detail);
    self->host->complete(self->host->ctx, req);
}

json_t *metadata_body(struct metadata *self, struct kvs_request *req)
{
    json_error_t where;
    json_t *body = json_loadb(req->body.ptr == NULL ? "" : req->body.ptr, req->body.len,
                              JSON_REJECT_DUPLICATES, &where);

    if (body == NULL) {
        metadata_problem(self, req, 400, "malformed_json", 0,
                         "the body is not JSON: line %d, column %d: %s", where.line, where.column,
                         where.text);
    } else if (!json_is_object(body)) {
        metadata_problem(self, req, 400, "invalid_body", 0, "the body must be a JSON object");
        json_decref(body);
        body = NULL;
    }
    return body;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int metadata_init(const struct kvs_host *host, const void *conf, void **ret_self,
                         struct kvs_error *err)
{
    struct metadata *self = kvs_calloc(host, &TAG, sizeof *self);
    struct kvs_fsm fsm;
    const void *ops;
    int rc;

    if (self == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    self->host = host;
    self->conf = conf;
    self->role_task.run = role_arrives;
    state_init(&self->state, host);
    rc = host->find(host->ctx, KVS_KIND_CONSENSUS, NULL, &ops, &self->consensus_self, err);
    if (rc != 0) {
        (void)kvs_err_wrap(err, "service 'metadata' needs a consensus plugin");
        goto fail;
    }
    self->consensus = ops;
    fsm = (struct kvs_fsm){.arg = self,
                           .apply = fsm_apply,
                           .snapshot = fsm_snapshot,
                           .restore = fsm_restore,
                           .role_changed = fsm_role_changed,
                           .applied = fsm_applied};
    rc = self->consensus->bind(self->consensus_self, &fsm, err);
    if (rc != 0) {
        goto fail;
    }
    host->ready_set(host->ctx, "metadata", 0, "the metadata quorum has no leader yet");
    *ret_self = self;
    return 0;
fail:
    kvs_free(host, &TAG, self, sizeof *self);
    return rc;
}

static void start_on_loop(void *arg)
{
    struct metadata *self = arg;

    self->monitor = self->host->timer_start(self->host->ctx, MONITOR_PERIOD_MS, MONITOR_PERIOD_MS,
                                            monitor_tick, self);
}

static int metadata_start(void *arg, struct kvs_error *err)
{
    struct metadata *self = arg;

    self->host->run_on(self->host->ctx, HOME, start_on_loop, self);
    return self->monitor == NULL ? kvs_err(err, KVS_ENOMEM, "out of memory") : 0;
}

/* Long polls end early; changes under way are answered by their own callbacks. */
static void drain_on_loop(void *arg)
{
    struct metadata *self = arg;

    self->draining = 1;
    while (self->waiters != NULL) {
        struct waiter *w = self->waiters;

        waiter_unlink(w);
        w->late(self, w->req);
    }
    if (self->monitor != NULL) {
        self->host->timer_stop(self->host->ctx, self->monitor);
        self->monitor = NULL;
    }
}

static void metadata_drain(void *arg, void (*done)(void *done_arg), void *done_arg)
{
    struct metadata *self = arg;

    self->host->run_on(self->host->ctx, HOME, drain_on_loop, self);
    done(done_arg);
}

static void metadata_stop(void *arg)
{
    struct metadata *self = arg;

    self->host->run_on(self->host->ctx, HOME, drain_on_loop, self);
}

static void metadata_fini(void *arg)
{
    struct metadata *self = arg;
    const struct kvs_host *host = self->host;

    view_free(self->view);
    state_fini(&self->state);
    kvs_free(host, &TAG, self, sizeof *self);
}

static const struct kvs_opt OPTIONS[] = {
    {.name = "session_timeout",
     .type = KVS_OPT_DURATION,
     .fallback = "3s",
     .min = 500,
     .max = 600000,
     .offset = offsetof(struct metadata_conf, session_timeout_ms),
     .help =
         "a storage node that was not heard for this long is fenced; the cluster setting of the "
         "same name, once set, goes before"},
    KVS_OPTS_END,
};

static const uint32_t NEEDS[] = {KVS_KIND_CONSENSUS, 0};

static const struct kvs_service_ops OPS = {
    .size = sizeof OPS,
    .method_count = METADATA_METHOD_COUNT,
    .methods = METADATA_METHODS,
    .schemas = METADATA_SCHEMAS,
    .drain = metadata_drain,
};

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "metadata", .version = "1.0.0",
           .summary = "tables, partitions, leaders, nodes and settings of the cluster",
           .opts = OPTIONS, .conf_size = sizeof(struct metadata_conf), .needs = NEEDS, .ops = &OPS,
           .init = metadata_init, .start = metadata_start, .stop = metadata_stop,
           .fini = metadata_fini);
