/* SPDX-License-Identifier: MIT
 *
 * The OpenAPI 3.1 document, made once from the method tables. Schemas of services are JSON text in
 * their tables; this file only assembles. */
#include <inttypes.h>

#include "base/mem.h"
#include "host/host_private.h"

static struct kvs_buf document;

static const char *const VERBS[] = {"", "get", "put", "post", "delete", "patch", "head", "options"};

static void put_text(struct kvs_buf *b, const char *lead, const char *name, const char *text)
{
    kvs_buf_printf(b, "%s\"%s\":", lead, name);
    kvs_json_str(b, kvs_slice_str(text));
}

static void put_param_schema(struct kvs_buf *b, const struct kvs_param *p)
{
    switch (p->type) {
    case KVS_PARAM_UINT:
        kvs_buf_append_str(b, "{\"type\":\"integer\"");
        if (p->min != 0 || p->max != 0) {
            kvs_buf_printf(b, ",\"minimum\":%" PRIu64, p->min);
            if (p->max <= INT64_MAX) {
                kvs_buf_printf(b, ",\"maximum\":%" PRIu64, p->max);
            }
        }
        break;
    case KVS_PARAM_BOOL:
        kvs_buf_append_str(b, "{\"type\":\"boolean\"");
        break;
    case KVS_PARAM_ENUM:
        kvs_buf_append_str(b, "{\"enum\":[");
        for (uint32_t i = 0; p->choices[i] != NULL; i++) {
            kvs_buf_printf(b, "%s\"%s\"", i == 0 ? "" : ",", p->choices[i]);
        }
        kvs_buf_append_str(b, "]");
        break;
    case KVS_PARAM_DURATION:
        kvs_buf_append_str(b, "{\"type\":\"string\",\"pattern\":\"^[0-9]+(ms|s|m|h|d)$\"");
        break;
    case KVS_PARAM_TTL:
        kvs_buf_append_str(b, "{\"type\":\"string\",\"pattern\":\"^([0-9]+(ms|s|m|h|d)|none)$\"");
        break;
    default:
        kvs_buf_append_str(b, "{\"type\":\"string\"");
        if (p->max != 0) {
            kvs_buf_printf(b, ",\"minLength\":%" PRIu64 ",\"maxLength\":%" PRIu64, p->min, p->max);
        }
    }
    if (p->fallback != NULL && p->type == KVS_PARAM_UINT) {
        kvs_buf_printf(b, ",\"default\":%s", p->fallback);
    } else if (p->fallback != NULL && p->type == KVS_PARAM_BOOL) {
        kvs_buf_printf(b, ",\"default\":%s", p->fallback);
    } else if (p->fallback != NULL) {
        put_text(b, ",", "default", p->fallback);
    }
    kvs_buf_append_str(b, "}");
}

static void put_params(struct kvs_buf *b, const struct kvs_method *m)
{
    static const char *const PLACES[] = {"", "path", "query", "header"};

    kvs_buf_append_str(b, ",\"parameters\":[");
    for (uint32_t i = 0; i < m->param_count; i++) {
        const struct kvs_param *p = &m->params[i];
        int required = p->place == KVS_IN_PATH || (p->flags & KVS_PARAM_REQUIRED) != 0;

        put_text(b, i == 0 ? "{" : ",{", "name", p->name);
        put_text(b, ",", "in", PLACES[p->place & 3]);
        put_text(b, ",", "description", p->help == NULL ? "" : p->help);
        kvs_buf_append_str(b, required ? ",\"required\":true,\"schema\":" : ",\"schema\":");
        put_param_schema(b, p);
        kvs_buf_append_str(b, "}");
    }
    kvs_buf_append_str(b, "]");
}

static void put_content(struct kvs_buf *b, const char *types, const char *schema)
{
    kvs_buf_append_str(b, "\"content\":{");
    for (const char *p = types; *p != '\0'; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        int any = n == 1 && *p == '*';

        kvs_buf_printf(b, "%s\"%.*s\":{", p == types ? "" : ",", any ? 3 : (int)n, any ? "*/*" : p);
        if (schema != NULL) {
            kvs_buf_printf(b, "\"schema\":{\"$ref\":\"#/components/schemas/%s\"}", schema);
        }
        kvs_buf_append_str(b, "}");
        p += n;
    }
    kvs_buf_append_str(b, "}");
}

static void put_response_headers(struct kvs_buf *b, const char *names)
{
    kvs_buf_append_str(b, ",\"headers\":{\"KVS-Request-Id\":{\"schema\":{\"type\":\"string\"}}");
    for (const char *p = names == NULL ? "" : names; *p != '\0'; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");

        kvs_buf_printf(b, ",\"%.*s\":{\"schema\":{\"type\":\"string\"}}", (int)n, p);
        p += n;
    }
    kvs_buf_append_str(b, "}");
}

static void put_answers(struct kvs_buf *b, const struct kvs_method *m)
{
    kvs_buf_append_str(b, ",\"responses\":{");
    for (uint32_t i = 0; i < m->answer_count; i++) {
        const struct kvs_answer *a = &m->answers[i];

        kvs_buf_printf(b, "\"%" PRIu32 "\":{", a->status);
        put_text(b, "", "description", a->help == NULL ? "" : a->help);
        put_response_headers(b, a->headers);
        if (a->content_type != NULL) {
            kvs_buf_append_str(b, ",");
            put_content(b, a->content_type, a->schema);
        }
        kvs_buf_append_str(b, "},");
    }
    kvs_buf_append_str(b, "\"default\":{\"$ref\":\"#/components/responses/Problem\"}}");
}

static void put_method(struct kvs_buf *b, const struct kvs_method *m)
{
    static const char *const RIGHTS[] = {"none", "viewer", "writer", "operator", "admin", "peer"};
    size_t tag = strcspn(m->name, ".");

    kvs_buf_printf(b, "\"%s\":{\"operationId\":\"%s\",\"tags\":[\"%.*s\"]", VERBS[m->verb], m->name,
                   (int)tag, m->name);
    put_text(b, ",", "summary", m->summary);
    if (m->help != NULL) {
        put_text(b, ",", "description", m->help);
    }
    put_text(b, ",", "x-kvs-access", RIGHTS[m->access]);
    put_params(b, m);
    if (m->body_types != NULL) {
        kvs_buf_append_str(b, ",\"requestBody\":{");
        if ((m->flags & 3u) == KVS_METHOD_BODY_REQUIRED) {
            kvs_buf_append_str(b, "\"required\":true,");
        }
        put_content(b, m->body_types, m->body_schema);
        kvs_buf_append_str(b, "}");
    }
    put_answers(b, m);
    kvs_buf_append_str(b, "}");
}

static int is_public(const struct kvs_method *m)
{
    return m->verb != KVS_VERB_NONE && m->access != KVS_ACCESS_PEER;
}

/* All verbs of one path stand together. */
static void put_paths(struct kvs_buf *b)
{
    const struct kvs__route *r, *other;
    int first = 1;

    for (uint32_t i = 0; (r = kvs__router_method(i)) != NULL; i++) {
        int seen = 0, inner = 1;

        if (!is_public(r->method)) {
            continue;
        }
        for (uint32_t k = 0; k < i; k++) {
            other = kvs__router_method(k);
            seen |= is_public(other->method) && strcmp(other->method->path, r->method->path) == 0;
        }
        if (seen) {
            continue;
        }
        kvs_buf_printf(b, "%s\"%s\":{", first ? "" : ",", r->method->path);
        first = 0;
        for (uint32_t k = i; (other = kvs__router_method(k)) != NULL; k++) {
            if (is_public(other->method) && strcmp(other->method->path, r->method->path) == 0) {
                kvs_buf_append_str(b, inner ? "" : ",");
                inner = 0;
                put_method(b, other->method);
            }
        }
        kvs_buf_append_str(b, "}");
    }
}

static void put_schemas(struct kvs_buf *b, const struct kvs_schema *s, int *first)
{
    for (; s != NULL && s->name != NULL; s++) {
        kvs_buf_printf(b, "%s\"%s\":", *first ? "" : ",", s->name);
        kvs_buf_append_str(b, s->json);
        *first = 0;
    }
}

int kvs__openapi_make(struct kvs_error *err)
{
    struct kvs_buf *b = &document;
    int first = 1;

    kvs_buf_init(b, kvs__mem_host(), &kvs__mem_core);
    kvs_buf_printf(b,
                   "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"kvs\",\"version\":\"%s\","
                   "\"license\":{\"name\":\"MIT\",\"identifier\":\"MIT\"},\"description\":"
                   "\"The REST API of this server, made from the methods its plugins "
                   "registered.\"},\"servers\":[{\"url\":\"/\"}],\"paths\":{",
                   KVS_VERSION);
    put_paths(b);
    kvs_buf_append_str(
        b, "},\"components\":{\"responses\":{\"Problem\":{\"description\":\"An RFC 9457 "
           "problem document.\",\"content\":{\"application/problem+json\":{\"schema\":{"
           "\"$ref\":\"#/components/schemas/Problem\"}}}}},\"schemas\":{");
    put_schemas(b, kvs__builtin_ops.schemas, &first);
    for (uint32_t i = 0; i < kvs__instance_count(); i++) {
        const struct kvs__instance *in = kvs__instance(i);

        if (in->plugin->kind == KVS_KIND_SERVICE) {
            put_schemas(b, ((const struct kvs_service_ops *)in->plugin->ops)->schemas, &first);
        }
    }
    kvs_buf_append_str(b, "}}}\n");
    return b->failed ? kvs_err(err, KVS_ENOMEM, "out of memory") : 0;
}

struct kvs_slice kvs__openapi(void)
{
    return kvs_buf_slice(&document);
}

void kvs__openapi_fini(void)
{
    if (document.host != NULL) {
        kvs_buf_fini(&document);
    }
}
