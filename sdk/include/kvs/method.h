/* SPDX-License-Identifier: MIT
 *
 * Methods and requests: how services are called, whatever carries the call.
 *
 * A service declares each method once: name, HTTP verb and path, parameters with type, place,
 * bounds and help, the right it needs, its answers. From that table the host routes and validates,
 * checks access, counts, and generates /openapi.json. A handler receives a request whose parameters
 * are decoded and checked, and completes it once, now or later, from any thread. It never sees a
 * socket.
 *
 * Path of a request (T transport, H host, S service)
 *   T  fills verb, target, header(), arena of a request; calls host->route
 *   H  finds the method, decodes path and query once, checks every parameter; on failure fills the
 *      response and returns nonzero: T sends it without reading the body
 *   T  reads the body (at most req->body_size_max bytes), sets body and content_type, calls
 * dispatch H  checks access, calls the handler on this loop S  fills req->response, now or later,
 * on any thread, and calls host->complete H  counts, brings the request back to req->loop, calls
 * req->done T  sends, then frees the request with its arena
 *
 * A transport that is not HTTP (gRPC) sets req->method by name (target empty, `method_name` set)
 * and gives parameters through `param()`; the rest is the same. */
#ifndef KVS_METHOD_H
#define KVS_METHOD_H

#include "kvs/base.h"
#include "kvs/error.h"
#include "kvs/host.h"

enum kvs_verb {
    KVS_VERB_NONE = 0,
    KVS_VERB_GET = 1, /* serves HEAD too: the transport drops the body */
    KVS_VERB_PUT = 2,
    KVS_VERB_POST = 3,
    KVS_VERB_DELETE = 4,
    KVS_VERB_PATCH = 5,
    KVS_VERB_HEAD = 6,
    KVS_VERB_OPTIONS = 7, /* answered by the host: 204 with Allow */
};

enum kvs_place {
    KVS_IN_PATH = 1,
    KVS_IN_QUERY = 2,
    KVS_IN_HEADER = 3,
};

enum kvs_param_type {
    KVS_PARAM_BYTES = 1,    /* any bytes; min..max bytes long */
    KVS_PARAM_STR = 2,      /* UTF-8 without NUL; min..max bytes long */
    KVS_PARAM_UINT = 3,     /* decimal, min..max -> arg.u */
    KVS_PARAM_BOOL = 4,     /* true | false -> arg.u */
    KVS_PARAM_DURATION = 5, /* 500ms 30s 5m 24h -> arg.u ms, min..max */
    KVS_PARAM_ENUM = 6,     /* one of choices -> arg.u index */
    KVS_PARAM_TTL = 7,      /* a duration, or "none" -> arg.u ms, 0 for none */
};

#define KVS_PARAM_REQUIRED 1u
#define KVS_PARAM_REPEAT   2u /* headers: may come several times; walk with arg.next */

struct kvs_param {
    const char *name; /* as on the wire: "partition_key", "If-Match" */
    uint32_t place;   /* enum kvs_place */
    uint32_t type;    /* enum kvs_param_type */
    uint32_t flags;   /* KVS_PARAM_REQUIRED ... */
    uint32_t reserved;
    uint64_t min, max;          /* see the type; both 0: unbounded */
    const char *fallback;       /* default as text, documented and parsed; or NULL */
    const char *const *choices; /* ENUM: ends with NULL */
    const char *help;
};

/* What a caller must be allowed to do. Rights include those above them. */
enum kvs_access {
    KVS_ACCESS_NONE = 0, /* anybody: health, version */
    KVS_ACCESS_VIEWER = 1,
    KVS_ACCESS_WRITER = 2,
    KVS_ACCESS_OPERATOR = 3,
    KVS_ACCESS_ADMIN = 4,
    KVS_ACCESS_PEER = 5, /* other nodes of the cluster only; not in the public document */
};

struct kvs_answer {
    uint32_t status;
    uint32_t reserved;
    const char *content_type; /* NULL: no body */
    const char *schema;  /* name of a schema of this service, of the host ("Problem"), or NULL */
    const char *headers; /* "ETag KVS-Partition": names, space separated; or NULL */
    const char *help;
};

/* A named JSON Schema (2020-12) for components/schemas of the OpenAPI document. */
struct kvs_schema {
    const char *name;
    const char *json; /* the schema as JSON text */
};

#define KVS_METHOD_PARAM_MAX 20u

#define KVS_METHOD_BODY_NONE     0u /* a body is a 400 */
#define KVS_METHOD_BODY_OPTIONAL 1u
#define KVS_METHOD_BODY_REQUIRED 2u
#define KVS_METHOD_LONG_POLL     16u /* may rest for long: exempt from the per-request time limit */
#define KVS_METHOD_WRITE         32u /* problems of this method say `outcome` */

struct kvs_method {
    const char *name; /* "items.put" */
    uint32_t verb;    /* enum kvs_verb; KVS_VERB_NONE: not on HTTP */
    uint32_t flags;   /* KVS_METHOD_* */
    const char *path; /* "/v1/tables/{table}/items/{key}"; a segment is literal or one parameter */
    uint32_t access;  /* enum kvs_access */
    uint32_t reserved;
    const struct kvs_param *params; /* [param_count]; path parameters first, in order */
    uint32_t param_count;           /* <= KVS_METHOD_PARAM_MAX */
    uint32_t answer_count;
    const struct kvs_answer
        *answers;            /* [answer_count]; common problems (400, 401, ..) are implied */
    const char *body_types;  /* accepted content types, space separated; "*": any; NULL: no body */
    const char *body_schema; /* schema of the JSON body, or NULL */
    uint64_t body_size_max;  /* bytes; 0: the transport's limit. A handler may be stricter */
    const char *summary;     /* one line */
    const char *help;        /* a paragraph, may be NULL */
    /* On req->loop (or the caller's loop). Must complete req once, now or later. */
    void (*handler)(void *self, struct kvs_request *req);
};

/* ---- request -----------------------------------------------------------------------------------
 */

/* Request-scoped memory: bump allocation, freed in one call with the request. Not thread-safe: it
 * goes with the request from thread to thread. */
struct kvs_arena {
    const struct kvs_host *host;
    char *pos, *end;
    void *chunks; /* list of further chunks */
};

struct kvs_arg {
    struct kvs_slice text; /* decoded; ptr NULL: not given and without default */
    uint64_t u;            /* UINT, BOOL, DURATION, ENUM, TTL */
    struct kvs_arg *next;  /* REPEAT: the following value */
};

#define KVS_RESPONSE_HEADER_MAX 12u

struct kvs_header {
    const char *name;  /* static */
    const char *value; /* NUL-terminated; static or in the arena */
};

struct kvs_response {
    uint32_t status;
    uint32_t header_count;
    struct kvs_header headers[KVS_RESPONSE_HEADER_MAX];
    const char *content_type;     /* NUL-terminated, static or in the arena; NULL: no body */
    struct kvs_slice body;        /* lives until body_free was called, or as long as the arena */
    void (*body_free)(void *arg); /* may be NULL; called once, on any thread */
    void *body_arg;
};

#define KVS_REQUEST_ID_SIZE 24
#define KVS_REQUEST_MAGIC   0x4b565251u /* "KVRQ" */

struct kvs_request {
    uint32_t magic; /* KVS_REQUEST_MAGIC */
    uint32_t size;
    struct kvs_task task; /* free for whoever owns the request: to post it to another loop */

    /* Set by the transport before route. */
    uint32_t loop;           /* where it arrived and where done runs */
    uint32_t verb;           /* enum kvs_verb */
    struct kvs_slice target; /* raw request target, path and query, still encoded */
    const char *method_name; /* instead of verb and target: "items.put"; or NULL */
    /* Value of a request header, case-insensitive; ptr NULL if absent. `nth` counts repeats from 0.
     */
    struct kvs_slice (*header)(struct kvs_request *req, const char *name, uint32_t nth);
    /* Value of a parameter by name, only with method_name. */
    struct kvs_slice (*param)(struct kvs_request *req, const char *name, uint32_t nth);
    void (*done)(struct kvs_request *req);
    const char *transport; /* "rest", "grpc", "local" */
    const char *peer;      /* address of the caller, for audit; or NULL */
    void *transport_data;
    struct kvs_arena arena;

    /* Set by route. */
    const struct kvs_method *method;           /* NULL: not found */
    void *service;                             /* self of the service */
    struct kvs_arg args[KVS_METHOD_PARAM_MAX]; /* by index in method->params */
    uint64_t body_size_max;
    char id[KVS_REQUEST_ID_SIZE]; /* NUL-terminated; the answer's KVS-Request-Id */
    uint64_t start_ns;            /* monotonic */

    /* Set by the transport before dispatch. */
    struct kvs_slice body;         /* whole; borrowed until done */
    struct kvs_slice content_type; /* raw header, or empty */

    /* The service's. */
    struct kvs_response response;
    void *state; /* whatever the handler needs between steps */

    void *host_data; /* the host's */
    uint32_t access; /* rights of the caller, enum kvs_access; set by dispatch */
    uint32_t flags;  /* the host's */
    /* --- end of 1.0 --- */
};

/* Support library (statically linked)
 * -------------------------------------------------------------- */

/* n bytes aligned to 16, or NULL. */
void *kvs_arena_alloc(struct kvs_arena *arena, size_t n);
/* Begin with the caller's first chunk (may be NULL, 0). */
void kvs_arena_init(struct kvs_arena *arena, const struct kvs_host *host, void *first, size_t size);
void kvs_arena_fini(struct kvs_arena *arena);
/* Copy with a NUL behind it; NULL if memory is out. */
char *kvs_arena_strdup(struct kvs_arena *arena, struct kvs_slice s);
char *kvs_arena_printf(struct kvs_arena *arena, const char *fmt, ...) KVS_PRINTF(2, 3);

/* Append a response header; value must live as long as the arena. Ignores what does not fit in
 * KVS_RESPONSE_HEADER_MAX (a bug, asserted). */
void kvs_response_header(struct kvs_request *req, const char *name, const char *value);

/* The argument of parameter i as given or by default; ptr NULL if absent. */
static inline struct kvs_slice kvs_arg(const struct kvs_request *req, uint32_t i)
{
    return req->args[i].text;
}

static inline int kvs_arg_given(const struct kvs_request *req, uint32_t i)
{
    return req->args[i].text.ptr != NULL;
}

/* ---- problems (RFC 9457) ------------------------------------------------------------------------
 */

enum kvs_outcome {
    KVS_OUTCOME_NONE = 0, /* not a write */
    KVS_OUTCOME_NOT_APPLIED = 1,
    KVS_OUTCOME_APPLIED = 2,
    KVS_OUTCOME_UNKNOWN = 3,
};

struct kvs_problem {
    uint32_t status;
    uint32_t outcome; /* enum kvs_outcome */
    uint32_t retryable;
    uint32_t reserved;
    const char *code;        /* stable word: "precondition_failed"; see problem.c for the list */
    const char *leader;      /* 421: endpoint of the leader; or NULL */
    uint64_t limit;          /* 413, 429: the limit; 0: none */
    uint64_t retry_after_ms; /* 429, 503; 0: none. Also sent as Retry-After, rounded up to s */
};

/* Fill the response with application/problem+json; `detail` says what to do about it. Does not
 * complete the request. On a method flagged KVS_METHOD_WRITE an outcome NONE is sent as
 * not_applied. */
void kvs_problem(struct kvs_request *req, const struct kvs_problem *problem, const char *detail_fmt,
                 ...) KVS_PRINTF(3, 4);
/* One problem object as JSON text in the arena (for results inside a batch). Empty if out of
 * memory. */
struct kvs_slice kvs_problem_json(struct kvs_arena *arena, const struct kvs_problem *problem,
                                  const char *instance, const char *detail);
/* Shorthand: the problem that fits a KVS_E* code with err->msg as detail. */
void kvs_problem_code(struct kvs_request *req, int code, const char *detail);

/* ---- calls between services ------------------------------------------------------------------ */

struct kvs_call_arg {
    const char *name;
    struct kvs_slice value; /* as text, not percent-encoded */
};

/* One call to a method of a service in this process or on a peer. The caller owns it and all it
 * points to until cb, which fires once, on the loop that called (never inside host->call), also
 * with KVS_ECANCELED when the host stops. Immediate refusals (KVS_ENOTFOUND: no such method here)
 * return a code and never fire cb. Calls may only be made on a loop. */
struct kvs_call {
    struct kvs_task task;
    const char *peer;                /* "host:port", or NULL: this process */
    const char *method;              /* "metadata.get" */
    const struct kvs_call_arg *args; /* [arg_count] */
    uint64_t arg_count;
    struct kvs_slice body;
    const char *content_type;
    uint64_t timeout_ms; /* 0: none */
    void (*cb)(struct kvs_call *call, int rc);
    /* Result, valid inside cb when rc is 0. A status of 400 and above is a result, not an rc. */
    uint32_t status;
    uint32_t reserved;
    struct kvs_slice reply;
    void *host_data;
};

#endif
