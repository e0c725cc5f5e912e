/* SPDX-License-Identifier: MIT
 *
 * From verb and target to a method with checked parameters; see host_private.h.
 *
 * Paths form a tree by segment: literal children first, then at most one parameter child. Built at
 * boot, read-only afterwards, so any thread may route. A segment is decoded once, and only if it
 * holds a '%'. The request's target must stay as it is until done: parameters point into it. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/metrics.h"
#include "obs/panic.h"
#include "sched/sched.h"

#define METHOD_MAX  256u
#define VERB_COUNT  8u
#define SEGMENT_MAX 16u

struct step {
    struct step *next;  /* sibling literal */
    struct step *child; /* first literal child */
    struct step *param; /* the parameter child */
    const char *text;   /* literal; borrowed from the method's path */
    size_t len;
    struct kvs__route *route[VERB_COUNT];
};

static struct step root;
static struct kvs__route *routes[METHOD_MAX];
static uint32_t route_n;

static const char *const VERB_NAMES[VERB_COUNT] = {"",       "GET",   "PUT",  "POST",
                                                   "DELETE", "PATCH", "HEAD", "OPTIONS"};

/* ---- building ----------------------------------------------------------------------------------
 */

static struct step *step_get(struct step *at, const char *text, size_t len)
{
    int is_param = len > 2 && text[0] == '{';
    struct step **where = is_param ? &at->param : &at->child;

    while (!is_param && *where != NULL &&
           ((*where)->len != len || memcmp((*where)->text, text, len) != 0)) {
        where = &(*where)->next;
    }
    if (*where == NULL) {
        *where = calloc(1, sizeof **where);
        if (*where != NULL) {
            (*where)->text = text;
            (*where)->len = len;
        }
    }
    return *where;
}

static int place(struct kvs__route *r, struct kvs_error *err)
{
    const struct kvs_method *m = r->method;
    const char *p = m->path;
    struct step *at = &root;

    KVS__ASSERT(p[0] == '/' && m->verb < VERB_COUNT);
    while (*p == '/') {
        size_t n = strcspn(++p, "/");

        at = step_get(at, p, n);
        if (at == NULL) {
            return kvs_err(err, KVS_ENOMEM, "out of memory");
        }
        p += n;
    }
    if (at->route[m->verb] != NULL) {
        return kvs_err(err, KVS_ECONFLICT, "methods '%s' and '%s' both want %s %s",
                       at->route[m->verb]->method->name, m->name, VERB_NAMES[m->verb], m->path);
    }
    at->route[m->verb] = r;
    return 0;
}

static void metrics_make(struct kvs__route *r)
{
    static const struct kvs_metric REQUESTS = {
        "kvs_requests_total",
        KVS_METRIC_COUNTER,
        0,
        "",
        "Requests answered, by method and status.",
        "A rising share of 5xx means the server cannot do its work: see the log."};
    static const struct kvs_metric SECONDS = {
        "kvs_request_seconds",
        KVS_METRIC_HISTOGRAM,
        0,
        "seconds",
        "Time from the first byte routed to the answer, by method.",
        "Writes wait for the disk: compare with kvs_wal_fsync_seconds."};
    char labels[128];

    for (uint32_t k = 1; k < 6; k++) {
        (void)snprintf(labels, sizeof labels, "method=\"%s\",status=\"%uxx\"", r->method->name, k);
        r->count[k] = kvs__metric(&REQUESTS, labels);
    }
    (void)snprintf(labels, sizeof labels, "method=\"%s\"", r->method->name);
    r->seconds = kvs__metric(&SECONDS, labels);
}

int kvs__router_add(const struct kvs_service_ops *ops, void *self, struct kvs_error *err)
{
    for (uint32_t i = 0; i < ops->method_count; i++) {
        const struct kvs_method *m = &ops->methods[i];
        struct kvs__route *r;
        int rc;

        for (uint32_t k = 0; k < route_n; k++) {
            if (strcmp(routes[k]->method->name, m->name) == 0) {
                return kvs_err(err, KVS_ECONFLICT, "method '%s' exists twice", m->name);
            }
        }
        r = route_n == METHOD_MAX || m->param_count > KVS_METHOD_PARAM_MAX ? NULL
                                                                           : calloc(1, sizeof *r);
        if (r == NULL) {
            return kvs_err(err, KVS_ETOOMANY, "method '%s': too many methods or parameters",
                           m->name);
        }
        r->method = m;
        r->self = self;
        metrics_make(r);
        routes[route_n++] = r;
        rc = m->verb == KVS_VERB_NONE ? 0 : place(r, err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

const struct kvs__route *kvs__router_method(uint32_t i)
{
    return i < route_n ? routes[i] : NULL;
}

/* The tree is as deep as the longest path of a method: recursion is bounded. */
static void step_free(struct step *s)
{
    while (s != NULL) {
        struct step *next = s->next;

        step_free(s->child);
        step_free(s->param);
        free(s);
        s = next;
    }
}

void kvs__router_fini(void)
{
    step_free(root.child);
    step_free(root.param);
    memset(&root, 0, sizeof root);
    for (uint32_t i = 0; i < route_n; i++) {
        free(routes[i]);
    }
    route_n = 0;
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

#define REFUSE(req, status_, code_, ...)                                                           \
    (kvs_problem((req), &(struct kvs_problem){.status = (status_), .code = (code_)}, __VA_ARGS__), \
     1)

/* What a client sent, short and printable, for a message. */
static const char *shown(struct kvs_slice s, char text[64])
{
    size_t n = s.len < 60 ? s.len : 60;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s.ptr[i];

        text[i] = c < 0x20 || c >= 0x7f || c == '\'' ? '?' : (char)c;
    }
    (void)memcpy(text + n, s.len > n ? "..." : "", s.len > n ? 4 : 1);
    return text;
}

static int refuse_place(struct kvs_request *req, const struct step *at)
{
    char *allow = kvs_arena_printf(&req->arena, "OPTIONS");

    for (uint32_t v = 1; v < VERB_COUNT; v++) {
        if (at->route[v] != NULL && allow != NULL) {
            allow = kvs_arena_printf(&req->arena, "%s, %s%s", allow, VERB_NAMES[v],
                                     v == KVS_VERB_GET ? ", HEAD" : "");
        }
    }
    if (allow == NULL) {
        return REFUSE(req, 503, "out_of_memory", "memory is out");
    }
    kvs_response_header(req, "Allow", allow);
    if (req->verb == KVS_VERB_OPTIONS) {
        req->response.status = 204;
        return 1;
    }
    return REFUSE(req, 405, "method_not_allowed", "this resource answers %s", allow);
}

/* ---- arguments ---------------------------------------------------------------------------------
 */

static int bad_arg(struct kvs_request *req, const struct kvs_param *p, const char *what)
{
    return REFUSE(req, 400, "malformed", "%s '%s' %s",
                  p->place == KVS_IN_HEADER ? "header" : "parameter", p->name, what);
}

static int check_number(struct kvs_request *req, const struct kvs_param *p, struct kvs_arg *arg)
{
    char what[160], a[32], b[32];

    if ((p->min == 0 && p->max == 0) || (arg->u >= p->min && arg->u <= p->max)) {
        return 0;
    }
    if (p->type == KVS_PARAM_UINT) {
        (void)snprintf(what, sizeof what, "must be %" PRIu64 " to %" PRIu64, p->min, p->max);
    } else {
        (void)snprintf(what, sizeof what, "must be %s to %s", kvs_duration_text(p->min, a),
                       kvs_duration_text(p->max, b));
    }
    return bad_arg(req, p, what);
}

static int check_enum(struct kvs_request *req, const struct kvs_param *p, struct kvs_arg *arg)
{
    char what[200];
    int n = snprintf(what, sizeof what, "must be one of");

    for (uint32_t i = 0; p->choices[i] != NULL; i++) {
        if (kvs_slice_eq_str(arg->text, p->choices[i])) {
            arg->u = i;
            return 0;
        }
        n += snprintf(what + n, sizeof what - (size_t)n, "%s %s", i == 0 ? "" : ",", p->choices[i]);
    }
    return bad_arg(req, p, what);
}

/* Parse arg->text by the parameter's type. 0, or 1 with the response filled. */
static int check_arg(struct kvs_request *req, const struct kvs_param *p, struct kvs_arg *arg)
{
    char what[96];

    switch (p->type) {
    case KVS_PARAM_UINT:
        if (kvs_u64_parse(arg->text, &arg->u) != 0) {
            return bad_arg(req, p, "must be a whole number");
        }
        return check_number(req, p, arg);
    case KVS_PARAM_BOOL:
        arg->u = kvs_slice_eq_str(arg->text, "true") ? 1 : 0;
        return arg->u || kvs_slice_eq_str(arg->text, "false")
                   ? 0
                   : bad_arg(req, p, "must be true or false");
    case KVS_PARAM_TTL:
        if (kvs_slice_eq_str(arg->text, "none")) {
            arg->u = 0;
            return 0;
        }
        if (kvs_duration_parse(arg->text, &arg->u) != 0) {
            return bad_arg(req, p, "must be a duration such as 500ms, 30s, 5m, 24h, or none");
        }
        return check_number(req, p, arg);
    case KVS_PARAM_DURATION:
        if (kvs_duration_parse(arg->text, &arg->u) != 0) {
            return bad_arg(req, p, "must be a duration such as 500ms, 30s, 5m, 24h");
        }
        return check_number(req, p, arg);
    case KVS_PARAM_ENUM:
        return check_enum(req, p, arg);
    default:
        if (p->max != 0 && (arg->text.len < p->min || arg->text.len > p->max)) {
            (void)snprintf(what, sizeof what, "must be %" PRIu64 " to %" PRIu64 " bytes long",
                           p->min, p->max);
            return bad_arg(req, p, what);
        }
        if (p->type == KVS_PARAM_STR &&
            (!kvs_utf8_valid(arg->text) || memchr(arg->text.ptr, '\0', arg->text.len) != NULL)) {
            return bad_arg(req, p, "must be UTF-8 text without NUL");
        }
        return 0;
    }
}

/* Decode one piece of the target; borrowed if there is nothing to decode. */
static int decode(struct kvs_request *req, struct kvs_slice raw, int plus, struct kvs_slice *ret)
{
    char *to;
    size_t len;

    if (memchr(raw.ptr, '%', raw.len) == NULL && (!plus || memchr(raw.ptr, '+', raw.len) == NULL)) {
        *ret = raw;
        return 0;
    }
    to = kvs_arena_alloc(&req->arena, raw.len + 1);
    if (to == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        return 1;
    }
    if (kvs_percent_decode(raw, plus, to, raw.len + 1, &len) != 0) {
        return REFUSE(req, 400, "malformed", "the target holds a broken percent escape");
    }
    *ret = kvs_slice(to, len);
    return 0;
}

static int unknown_parameter(struct kvs_request *req, struct kvs_slice name)
{
    const struct kvs_method *m = req->method;
    const char *words[KVS_METHOD_PARAM_MAX + 1], *near;
    char text[64];
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->param_count; i++) {
        if (m->params[i].place == KVS_IN_QUERY) {
            words[n++] = m->params[i].name;
        }
    }
    words[n] = NULL;
    near = kvs_nearest(name, words);
    if (near != NULL) {
        return REFUSE(req, 400, "unknown_parameter", "unknown parameter '%s'. Did you mean '%s'?",
                      shown(name, text), near);
    }
    return REFUSE(req, 400, "unknown_parameter", "unknown parameter '%s'", shown(name, text));
}

static int query_arg(struct kvs_request *req, struct kvs_slice raw_name, struct kvs_slice raw_value)
{
    const struct kvs_method *m = req->method;
    struct kvs_slice name;
    uint32_t i = 0;

    if (decode(req, raw_name, 1, &name) != 0) {
        return 1;
    }
    while (i < m->param_count &&
           (m->params[i].place != KVS_IN_QUERY || !kvs_slice_eq_str(name, m->params[i].name))) {
        i++;
    }
    if (i == m->param_count) {
        return unknown_parameter(req, name);
    }
    if (req->args[i].text.ptr != NULL) {
        return bad_arg(req, &m->params[i], "is given twice");
    }
    if (decode(req, raw_value, 1, &req->args[i].text) != 0) {
        return 1;
    }
    if (req->args[i].text.ptr == NULL) {
        req->args[i].text.ptr = "";
    }
    return check_arg(req, &m->params[i], &req->args[i]);
}

static int query_args(struct kvs_request *req, struct kvs_slice query)
{
    while (query.len > 0) {
        const char *amp = memchr(query.ptr, '&', query.len);
        size_t n = amp == NULL ? query.len : (size_t)(amp - query.ptr);
        const char *eq = memchr(query.ptr, '=', n);
        size_t name_len = eq == NULL ? n : (size_t)(eq - query.ptr);

        if (n > 0 &&
            query_arg(req, kvs_slice(query.ptr, name_len),
                      eq == NULL ? kvs_slice("", 0) : kvs_slice(eq + 1, n - name_len - 1)) != 0) {
            return 1;
        }
        n += amp != NULL;
        query.ptr += n;
        query.len -= n;
    }
    return 0;
}

static int header_args(struct kvs_request *req)
{
    const struct kvs_method *m = req->method;

    for (uint32_t i = 0; i < m->param_count; i++) {
        const struct kvs_param *p = &m->params[i];
        struct kvs_arg *arg = &req->args[i];

        if (p->place != KVS_IN_HEADER) {
            continue;
        }
        arg->text = req->header(req, p->name, 0);
        for (uint32_t nth = 1; arg->text.ptr != NULL; nth++) {
            struct kvs_slice more;

            if (check_arg(req, p, arg) != 0) {
                return 1;
            }
            if (nth > 64) {
                return bad_arg(req, p, "is given more than 64 times");
            }
            more = req->header(req, p->name, nth);
            if (more.ptr == NULL) {
                break;
            }
            if ((p->flags & KVS_PARAM_REPEAT) == 0) {
                return bad_arg(req, p, "is given twice");
            }
            arg->next = kvs_arena_alloc(&req->arena, sizeof *arg);
            if (arg->next == NULL) {
                kvs_problem_code(req, KVS_ENOMEM, "out of memory");
                return 1;
            }
            arg = arg->next;
            *arg = (struct kvs_arg){.text = more};
        }
    }
    return 0;
}

static int missing_args(struct kvs_request *req)
{
    const struct kvs_method *m = req->method;

    for (uint32_t i = 0; i < m->param_count; i++) {
        const struct kvs_param *p = &m->params[i];

        if (req->args[i].text.ptr != NULL) {
            continue;
        }
        if ((p->flags & KVS_PARAM_REQUIRED) != 0) {
            return bad_arg(req, p, "is required");
        }
        if (p->fallback != NULL) {
            req->args[i].text = kvs_slice_str(p->fallback);
            if (check_arg(req, p, &req->args[i]) != 0) {
                return 1;
            }
        }
    }
    return 0;
}

/* ---- routing -----------------------------------------------------------------------------------
 */

static void request_id(struct kvs_request *req)
{
    static _Thread_local uint64_t next, prefix;
    uint64_t v;

    if (KVS_UNLIKELY(prefix == 0)) {
        prefix = kvs__mono_ns() * 0x9e3779b97f4a7c15u | 1;
    }
    v = prefix + ++next;
    for (int i = 15; i >= 0; i--, v >>= 4) {
        req->id[i] = "0123456789abcdef"[v & 15];
    }
    req->id[16] = '\0';
}

static void found(struct kvs_request *req, struct kvs__route *r)
{
    req->method = r->method;
    req->service = r->self;
    req->host_data = r;
    req->body_size_max = r->method->body_size_max;
    memset(req->args, 0, r->method->param_count * sizeof req->args[0]);
}

static int route_by_name(struct kvs_request *req)
{
    for (uint32_t i = 0; i < route_n; i++) {
        const struct kvs_method *m = routes[i]->method;

        if (strcmp(m->name, req->method_name) != 0) {
            continue;
        }
        found(req, routes[i]);
        for (uint32_t k = 0; k < m->param_count; k++) {
            req->args[k].text = req->param(req, m->params[k].name, 0);
            if (req->args[k].text.ptr != NULL &&
                check_arg(req, &m->params[k], &req->args[k]) != 0) {
                return 1;
            }
        }
        return missing_args(req);
    }
    return REFUSE(req, 404, "not_found", "no method '%s' here", req->method_name);
}

static const struct step *child_of(const struct step *at, struct kvs_slice segment)
{
    const struct step *s = at->child;

    while (s != NULL && (s->len != segment.len || memcmp(s->text, segment.ptr, segment.len) != 0)) {
        s = s->next;
    }
    return s != NULL ? s : segment.len > 0 ? at->param : NULL;
}

/* Walk the path; the raw text of parameter segments goes to params[*ret_n]. */
static const struct step *walk(struct kvs_slice path, struct kvs_slice params[SEGMENT_MAX],
                               uint32_t *ret_n)
{
    const struct step *at = &root;
    const char *p = path.ptr, *end = path.ptr + path.len;

    *ret_n = 0;
    while (at != NULL && p < end && *p == '/') {
        const char *slash = memchr(p + 1, '/', (size_t)(end - p - 1));
        struct kvs_slice segment = {p + 1, (size_t)((slash == NULL ? end : slash) - p - 1)};
        const struct step *next = child_of(at, segment);

        if (next != NULL && next == at->param) {
            if (*ret_n == SEGMENT_MAX) {
                return NULL;
            }
            params[(*ret_n)++] = segment;
        }
        at = next;
        p = segment.ptr + segment.len;
    }
    return p == end ? at : NULL;
}

static int route_by_target(struct kvs_request *req)
{
    const char *mark = memchr(req->target.ptr, '?', req->target.len);
    struct kvs_slice path = req->target, query = {"", 0}, params[SEGMENT_MAX];
    uint32_t verb = req->verb == KVS_VERB_HEAD ? KVS_VERB_GET : req->verb, param_n;
    const struct step *at;
    char text[64];

    if (mark != NULL) {
        path.len = (size_t)(mark - req->target.ptr);
        query = kvs_slice(mark + 1, req->target.len - path.len - 1);
    }
    at = walk(path, params, &param_n);
    if (at == NULL || (verb < VERB_COUNT && at->route[verb] == NULL)) {
        int known = 0;

        for (uint32_t v = 0; at != NULL && v < VERB_COUNT; v++) {
            known |= at->route[v] != NULL;
        }
        if (known) {
            return refuse_place(req, at);
        }
        return REFUSE(req, 404, "not_found", "no resource '%s'. See /openapi.json",
                      shown(path, text));
    }
    if (verb >= VERB_COUNT) {
        return refuse_place(req, at);
    }
    found(req, at->route[verb]);
    for (uint32_t i = 0; i < param_n; i++) {
        if (decode(req, params[i], 0, &req->args[i].text) != 0 ||
            check_arg(req, &req->method->params[i], &req->args[i]) != 0) {
            return 1;
        }
    }
    return query_args(req, query) != 0 || header_args(req) != 0 || missing_args(req) != 0;
}

int kvs__router_route(struct kvs_request *req)
{
    KVS__ASSERT(req->magic == KVS_REQUEST_MAGIC);
    req->start_ns = kvs__mono_ns();
    req->method = NULL;
    req->host_data = NULL;
    request_id(req);
    return req->method_name != NULL ? route_by_name(req) : route_by_target(req);
}
