/* SPDX-License-Identifier: MIT
 *
 * One request from its target to its answer; see rest_private.h.
 *
 *   begin      the raw target is copied before libmicrohttpd splits it
 *   handle 1   head complete: route, refuse what is too large
 *   handle 2+  body parts
 *   handle n   dispatch; answered at once, or suspended until done() resumes the connection
 *   handle n+1 after resume: the answer is queued
 *   completed  sent or lost: the exchange goes back to the free list, unless its service still
 * works */
#include <stdlib.h>
#include <strings.h>

#include "kvs/support.h"
#include "rest_private.h"

#define SPARE_MAX 1024u
#define SWALLOW_SIZE_MAX                                                                           \
    (1u << 20) /* a refused body this small is read, so that the answer arrives */

static struct kvs_slice exchange_header(struct kvs_request *req, const char *name, uint32_t nth);
static void exchange_done(struct kvs_request *req);

/* ---- life --------------------------------------------------------------------------------------
 */

static struct exchange *exchange_new(struct server *s)
{
    const struct kvs_host *host = s->rest->host;
    struct exchange *x = s->spare;

    if (x != NULL) {
        s->spare = x->next_spare;
        s->spare_count--;
    } else {
        x = kvs_alloc(host, &rest_memory, sizeof *x);
        if (x == NULL) {
            return NULL;
        }
    }
    /* Not the arguments (route clears what it uses) and not the first chunk: they are large. */
    memset(x, 0, offsetof(struct kvs_request, args));
    memset((char *)x + offsetof(struct kvs_request, body_size_max), 0,
           offsetof(struct exchange, first) - offsetof(struct kvs_request, body_size_max));
    x->server = s;
    x->req.magic = KVS_REQUEST_MAGIC;
    x->req.size = sizeof x->req;
    x->req.loop = s->loop;
    x->req.header = exchange_header;
    x->req.done = exchange_done;
    x->req.transport = "rest";
    x->req.transport_data = x;
    kvs_arena_init(&x->req.arena, host, x->first, sizeof x->first);
    return x;
}

static void exchange_free(struct exchange *x)
{
    struct server *s = x->server;

    if (x->req.response.body_free != NULL) {
        x->req.response.body_free(x->req.response.body_arg);
    }
    kvs_arena_fini(&x->req.arena);
    x->req.magic = 0;
    if (s->spare_count < SPARE_MAX) {
        x->next_spare = s->spare;
        s->spare = x;
        s->spare_count++;
    } else {
        kvs_free(s->rest->host, &rest_memory, x, sizeof *x);
    }
}

void exchange_spare_free(struct server *s)
{
    while (s->spare != NULL) {
        struct exchange *next = s->spare->next_spare;

        kvs_free(s->rest->host, &rest_memory, s->spare, sizeof *s->spare);
        s->spare = next;
    }
}

static struct connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info == NULL ? NULL : info->socket_context;
}

void *exchange_begin(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    struct exchange *x = exchange_new(arg);
    size_t len = strlen(uri);
    char *copy;

    if (x == NULL) {
        return NULL;
    }
    copy = kvs_arena_strdup(&x->req.arena, kvs_slice(uri, len));
    if (copy == NULL) {
        exchange_free(x);
        return NULL;
    }
    x->req.target = kvs_slice(copy, len);
    x->mhd = mhd;
    x->connection = connection_of(mhd);
    if (x->connection != NULL) {
        x->connection->active = x;
        x->connection->since_ns = kvs_mono_ns(x->server->rest->host);
    }
    return x;
}

/* ---- headers -----------------------------------------------------------------------------------
 */

struct nth_header {
    const char *name;
    size_t name_len;
    uint32_t nth;
    struct kvs_slice value;
};

static enum MHD_Result nth_visit(void *arg, enum MHD_ValueKind kind, const char *key,
                                 size_t key_len, const char *value, size_t value_len)
{
    struct nth_header *h = arg;

    (void)kind;
    if (key_len == h->name_len && strncasecmp(key, h->name, key_len) == 0 && h->nth-- == 0) {
        h->value = kvs_slice(value == NULL ? "" : value, value_len);
        return MHD_NO;
    }
    return MHD_YES;
}

static struct kvs_slice exchange_header(struct kvs_request *req, const char *name, uint32_t nth)
{
    struct exchange *x = req->transport_data;
    struct nth_header h = {name, strlen(name), nth, {NULL, 0}};
    const char *value = NULL;
    size_t len = 0;

    if (nth > 0) {
        (void)MHD_get_connection_values_n(x->mhd, MHD_HEADER_KIND, nth_visit, &h);
        return h.value;
    }
    if (MHD_lookup_connection_value_n(x->mhd, MHD_HEADER_KIND, name, h.name_len, &value, &len) !=
        MHD_YES) {
        return kvs_slice(NULL, 0);
    }
    return kvs_slice(value == NULL ? "" : value, len);
}

static uint32_t verb_of(const char *method)
{
    static const struct {
        const char *name;
        uint32_t verb;
    } VERBS[] = {{"GET", KVS_VERB_GET},        {"PUT", KVS_VERB_PUT},     {"POST", KVS_VERB_POST},
                 {"DELETE", KVS_VERB_DELETE},  {"PATCH", KVS_VERB_PATCH}, {"HEAD", KVS_VERB_HEAD},
                 {"OPTIONS", KVS_VERB_OPTIONS}};

    for (size_t i = 0; i < KVS_ARRAY_COUNT(VERBS); i++) {
        if (strcmp(method, VERBS[i].name) == 0) {
            return VERBS[i].verb;
        }
    }
    return UINT32_MAX; /* the router answers 405 */
}

/* ---- body --------------------------------------------------------------------------------------
 */

static void refuse(struct exchange *x, const struct kvs_problem *problem, const char *detail)
{
    x->req.response.header_count = 0;
    kvs_problem(&x->req, problem, "%s", detail);
    x->refused = 1;
}

static void refuse_size(struct exchange *x)
{
    refuse(x,
           &(struct kvs_problem){.status = 413, .code = "too_large", .limit = x->req.body_size_max},
           "the body is larger than this method takes");
}

/* Room for n more bytes; known sizes are reserved in one piece. */
static int body_reserve(struct exchange *x, size_t n)
{
    size_t cap = x->body_cap == 0 ? n : x->body_cap;
    char *grown;

    if (x->body_cap - x->body_len >= n) {
        return 0;
    }
    while (cap - x->body_len < n) {
        cap *= 2;
    }
    grown = kvs_arena_alloc(&x->req.arena, cap);
    if (grown == NULL) {
        return KVS_ENOMEM;
    }
    if (x->body_len > 0) {
        memcpy(grown, x->body, x->body_len);
    }
    x->body = grown;
    x->body_cap = cap;
    return 0;
}

static void body_take(struct exchange *x, const char *data, size_t n)
{
    if (x->refused) {
        return;
    }
    if (n > x->req.body_size_max - x->body_len) {
        refuse_size(x);
    } else if (body_reserve(x, n) != 0) {
        kvs_problem_code(&x->req, KVS_ENOMEM, "out of memory");
        x->refused = 1;
    } else {
        memcpy(x->body + x->body_len, data, n);
        x->body_len += n;
    }
}

/* Content-Length as sent; UINT64_MAX if there is none. */
static uint64_t content_length(struct exchange *x)
{
    struct kvs_slice v = exchange_header(&x->req, "Content-Length", 0);
    uint64_t n;

    return v.ptr != NULL && kvs_u64_parse(v, &n) == 0 ? n : UINT64_MAX;
}

static int has_body(struct exchange *x, uint64_t length)
{
    return (length != UINT64_MAX && length > 0) ||
           exchange_header(&x->req, "Transfer-Encoding", 0).ptr != NULL;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static void exchange_route(struct exchange *x, const char *method)
{
    struct rest *rest = x->server->rest;
    const struct kvs_host *host = rest->host;

    x->routed = 1;
    x->req.verb = verb_of(method);
    if (rest->tls != NULL && !tls_client_ok(rest->tls, x->mhd)) {
        refuse(x, &(struct kvs_problem){.status = 401, .code = "unauthenticated"},
               "a client certificate signed by the configured authority is needed");
        return;
    }
    if (host->route(host->ctx, &x->req) != 0) {
        x->refused = 1;
        return;
    }
    if (x->req.body_size_max == 0 || x->req.body_size_max > rest->conf->body_size_max) {
        x->req.body_size_max = rest->conf->body_size_max;
    }
    if (atomic_load_explicit(&rest->draining, memory_order_relaxed) != 0 &&
        x->req.method->access != KVS_ACCESS_NONE) {
        refuse(x,
               &(struct kvs_problem){
                   .status = 503, .code = "stopping", .retryable = 1, .retry_after_ms = 1000},
               "this server is stopping: ask another one");
    }
}

/* First call: the head is complete. */
static enum MHD_Result exchange_head(struct exchange *x, const char *method)
{
    uint64_t length = content_length(x);
    int body = has_body(x, length);

    exchange_route(x, method);
    if (!x->refused && length != UINT64_MAX && length > x->req.body_size_max) {
        refuse_size(x);
    }
    if (x->refused && body && (length == UINT64_MAX || length > SWALLOW_SIZE_MAX)) {
        return response_send(x); /* the connection ends with this answer */
    }
    if (!x->refused && body && length != UINT64_MAX && body_reserve(x, (size_t)length) != 0) {
        kvs_problem_code(&x->req, KVS_ENOMEM, "out of memory");
        x->refused = 1;
    }
    return MHD_YES;
}

static void exchange_done(struct kvs_request *req)
{
    struct exchange *x = req->transport_data;

    x->done = 1;
    if (x->gone) {
        exchange_free(x);
    } else if (x->suspended) {
        x->suspended = 0;
        MHD_resume_connection(x->mhd);
        server_kick(x->server);
    }
}

static enum MHD_Result exchange_dispatch(struct exchange *x)
{
    const struct kvs_host *host = x->server->rest->host;

    x->dispatched = 1;
    x->req.body = kvs_slice(x->body, x->body_len);
    x->req.content_type = exchange_header(&x->req, "Content-Type", 0);
    x->in_dispatch = 1;
    host->dispatch(host->ctx, &x->req);
    x->in_dispatch = 0;
    if (x->done) {
        return response_send(x);
    }
    x->suspended = 1;
    MHD_suspend_connection(x->mhd);
    return MHD_YES;
}

enum MHD_Result exchange_handle(void *arg, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload_data,
                                size_t *upload_data_size, void **con_cls)
{
    struct exchange *x = *con_cls;

    (void)arg;
    (void)mhd;
    (void)url;
    (void)version;
    if (x == NULL) {
        return MHD_NO; /* out of memory when it began */
    }
    if (!x->routed) {
        return exchange_head(x, method);
    }
    if (*upload_data_size > 0) {
        body_take(x, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return MHD_YES;
    }
    if (x->refused || x->done) {
        return response_send(x);
    }
    if (x->dispatched) {
        return MHD_NO; /* resumed without an answer: the server stops */
    }
    return exchange_dispatch(x);
}

void exchange_completed(void *arg, struct MHD_Connection *mhd, void **con_cls,
                        enum MHD_RequestTerminationCode how)
{
    struct exchange *x = *con_cls;

    (void)arg;
    (void)mhd;
    (void)how;
    if (x == NULL) {
        return;
    }
    *con_cls = NULL;
    if (x->connection != NULL) {
        x->connection->active = NULL;
        x->connection->since_ns = kvs_mono_ns(x->server->rest->host);
    }
    if (x->dispatched && !x->done) {
        x->gone = 1; /* its service still works on it: done() frees it */
    } else {
        exchange_free(x);
    }
}

void exchange_abort(struct exchange *x)
{
    if (x->suspended) {
        x->suspended = 0;
        MHD_resume_connection(x->mhd);
    }
}
