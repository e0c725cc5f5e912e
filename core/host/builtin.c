/* SPDX-License-Identifier: MIT
 *
 * Methods of the host itself: health, readiness, metrics, version, API document, plugins. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/metrics.h"
#include "obs/panic.h"

/* Answer with what is in b, which is handed over to the arena and freed. */
static void answer(struct kvs_request *req, uint32_t status, const char *type, struct kvs_buf *b)
{
    char *text = b->failed ? NULL : kvs_arena_strdup(&req->arena, kvs_buf_slice(b));

    if (text == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
    } else {
        req->response.status = status;
        req->response.content_type = type;
        req->response.body = kvs_slice(text, b->len);
    }
    kvs_buf_fini(b);
    kvs__request_complete(req);
}

static void handle_healthz(void *self, struct kvs_request *req)
{
    (void)self;
    req->response.status = 200;
    req->response.content_type = "application/json";
    req->response.body = kvs_slice_str("{\"status\":\"ok\"}\n");
    kvs__request_complete(req);
}

static void handle_readyz(void *self, struct kvs_request *req)
{
    struct kvs_buf b;
    int ready;

    (void)self;
    kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
    ready = kvs__ready(&b);
    answer(req, ready ? 200 : 503, "application/json", &b);
}

static void handle_metrics(void *self, struct kvs_request *req)
{
    struct kvs_buf b;

    (void)self;
    kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
    kvs__metrics_render(&b);
    answer(req, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

static void handle_version(void *self, struct kvs_request *req)
{
    struct kvs_buf b;

    (void)self;
    kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
    kvs_buf_printf(&b, "{\"version\":\"%s\",\"abi\":\"%u.%u\",\"build\":\"%s\"}\n", KVS_VERSION,
                   KVS_ABI_MAJOR, KVS_ABI_MINOR, kvs__build_id());
    answer(req, 200, "application/json", &b);
}

static void handle_openapi(void *self, struct kvs_request *req)
{
    (void)self;
    req->response.status = 200;
    req->response.content_type = "application/json";
    req->response.body = kvs__openapi();
    kvs__request_complete(req);
}

static void put_member(struct kvs_buf *b, const char *lead, const char *name, const char *text)
{
    kvs_buf_printf(b, "%s\"%s\":", lead, name);
    kvs_json_str(b, kvs_slice_str(text == NULL ? "" : text));
}

static void put_option(struct kvs_buf *b, const struct kvs__instance *i, const struct kvs_opt *o)
{
    static const char *const TYPES[] = {"",         "bool",   "int",  "bytes",
                                        "duration", "string", "enum", "list"};
    struct kvs_buf value;

    kvs_buf_init(&value, kvs__mem_host(), &kvs__mem_core);
    kvs__conf_opt_text(&value, o, i->conf);
    put_member(b, "{", "name", o->name);
    put_member(b, ",", "type", TYPES[o->type & 7]);
    kvs_buf_append_str(b, ",\"value\":");
    kvs_json_str(b, kvs_buf_slice(&value));
    kvs_buf_fini(&value);
    if (o->fallback != NULL) {
        put_member(b, ",", "default", o->fallback);
    }
    put_member(b, ",", "origin", kvs__conf_origin(kvs__conf_opt_node(i->node, o->name)));
    kvs_buf_printf(b, ",\"reloadable\":%s", (o->flags & KVS_OPT_RELOAD) != 0 ? "true" : "false");
    put_member(b, ",", "help", o->help);
    kvs_buf_append_str(b, "}");
}

static void put_plugin(struct kvs_buf *b, const struct kvs__instance *i)
{
    const struct kvs_plugin *p = i->plugin;

    put_member(b, "{", "kind", kvs__kind_names[p->kind]);
    put_member(b, ",", "name", p->name);
    put_member(b, ",", "version", p->version);
    kvs_buf_printf(b, ",\"abi\":\"%u.%u\"", p->abi_major, p->abi_minor);
    put_member(b, ",", "summary", p->summary);
    put_member(b, ",", "path", i->path);
    put_member(b, ",", "state", kvs__instance_state_name(i->state));
    kvs_buf_append_str(b, ",\"options\":[");
    for (const struct kvs_opt *o = p->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        kvs_buf_append_str(b, o == p->opts ? "" : ",");
        put_option(b, i, o);
    }
    kvs_buf_append_str(b, "]}");
}

static void handle_plugins(void *self, struct kvs_request *req)
{
    struct kvs_buf b;

    (void)self;
    kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
    kvs_buf_append_str(&b, "{\"plugins\":[");
    for (uint32_t i = 0; i < kvs__instance_count(); i++) {
        kvs_buf_append_str(&b, i == 0 ? "" : ",");
        put_plugin(&b, kvs__instance(i));
    }
    kvs_buf_append_str(&b, "]}\n");
    answer(req, 200, "application/json", &b);
}

#define JSON "application/json"

static const struct kvs_answer HEALTH_ANSWERS[] = {
    {200, 0, JSON, "Health", NULL, "The process lives."}};
static const struct kvs_answer READY_ANSWERS[] = {
    {200, 0, JSON, "Readiness", NULL, "Everything this server is for works."},
    {503, 0, JSON, "Readiness", NULL, "Something does not; the conditions say what and why."}};
static const struct kvs_answer METRICS_ANSWERS[] = {
    {200, 0, "text/plain", NULL, NULL, "Prometheus text format 0.0.4."}};
static const struct kvs_answer VERSION_ANSWERS[] = {{200, 0, JSON, "Version", NULL, "Versions."}};
static const struct kvs_answer OPENAPI_ANSWERS[] = {{200, 0, JSON, NULL, NULL, "This document."}};
static const struct kvs_answer PLUGINS_ANSWERS[] = {
    {200, 0, JSON, "Plugins", NULL, "Loaded plugins."}};

#define GET_METHOD(name_, path_, access_, answers_, summary_, handler_)                            \
    {                                                                                              \
        .name = (name_), .verb = KVS_VERB_GET, .path = (path_), .access = (access_),               \
        .answers = (answers_), .answer_count = KVS_ARRAY_COUNT(answers_), .summary = (summary_),   \
        .handler = (handler_),                                                                     \
    }

static const struct kvs_method METHODS[] = {
    GET_METHOD("host.health", "/healthz", KVS_ACCESS_NONE, HEALTH_ANSWERS, "Is the process alive",
               handle_healthz),
    GET_METHOD("host.ready", "/readyz", KVS_ACCESS_NONE, READY_ANSWERS,
               "Can the server do its work, and if not, why", handle_readyz),
    GET_METHOD("host.metrics", "/metrics", KVS_ACCESS_NONE, METRICS_ANSWERS, "Metrics",
               handle_metrics),
    GET_METHOD("host.version", "/version", KVS_ACCESS_NONE, VERSION_ANSWERS,
               "Version of server and plugin ABI", handle_version),
    GET_METHOD("host.openapi", "/openapi.json", KVS_ACCESS_NONE, OPENAPI_ANSWERS,
               "The API as an OpenAPI 3.1 document", handle_openapi),
    GET_METHOD("host.plugins", "/v1/plugins", KVS_ACCESS_VIEWER, PLUGINS_ANSWERS,
               "Loaded plugins with version, ABI, options and their origin", handle_plugins),
};

#define TEXT "{\"type\":\"string\"}"

static const struct kvs_schema SCHEMAS[] = {
    {"Problem",
     "{\"type\":\"object\",\"required\":[\"type\",\"title\",\"status\",\"code\",\"detail\","
     "\"retryable\"],\"properties\":{\"type\":" TEXT ",\"title\":" TEXT
     ",\"status\":{\"type\":\"integer\"},\"code\":" TEXT ",\"detail\":" TEXT ",\"instance\":" TEXT
     ",\"retryable\":{\"type\":\"boolean\"},\"outcome\":{\"enum\":[\"not_applied\",\"applied\","
     "\"unknown\"]},\"leader\":" TEXT ",\"limit\":{\"type\":\"integer\"},"
     "\"retry_after_ms\":{\"type\":\"integer\"}}}"},
    {"Health",
     "{\"type\":\"object\",\"required\":[\"status\"],\"properties\":{\"status\":" TEXT "}}"},
    {"Readiness",
     "{\"type\":\"object\",\"required\":[\"ready\",\"conditions\"],\"properties\":{"
     "\"ready\":{\"type\":\"boolean\"},\"conditions\":{\"type\":\"array\",\"items\":{\"type\":"
     "\"object\",\"required\":[\"name\",\"ok\"],\"properties\":{\"name\":" TEXT
     ",\"ok\":{\"type\":\"boolean\"},\"reason\":" TEXT "}}}}}"},
    {"Version", "{\"type\":\"object\",\"required\":[\"version\",\"abi\"],\"properties\":{"
                "\"version\":" TEXT ",\"abi\":" TEXT ",\"build\":" TEXT "}}"},
    {"Plugins",
     "{\"type\":\"object\",\"required\":[\"plugins\"],\"properties\":{\"plugins\":{\"type\":"
     "\"array\",\"items\":{\"type\":\"object\",\"required\":[\"kind\",\"name\",\"version\",\"abi\","
     "\"state\",\"options\"],\"properties\":{\"kind\":" TEXT ",\"name\":" TEXT ",\"version\":" TEXT
     ",\"abi\":" TEXT ",\"summary\":" TEXT ",\"path\":" TEXT ",\"state\":" TEXT
     ",\"options\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}}}}}"},
    {NULL, NULL},
};

const struct kvs_service_ops kvs__builtin_ops = {
    .size = sizeof kvs__builtin_ops,
    .method_count = KVS_ARRAY_COUNT(METHODS),
    .methods = METHODS,
    .schemas = SCHEMAS,
};
