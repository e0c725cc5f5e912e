/* SPDX-License-Identifier: MIT
 *
 * The method table of a service: what the router, the validator and the API document take for
 * granted. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "check.h"
#include "kvs/service.h"
#include "kvs/support.h"

#define SEGMENT_MAX 16u

static const struct kvs_service_ops *ops;

/* "items.put": words of a-z, 0-9, '_' with dots between, at least one dot. */
static int method_name_ok(const char *name)
{
    uint32_t dots = 0;
    char before = '.';

    for (const char *p = name; *p != '\0'; before = *p++) {
        if (*p == '.' ? before == '.'
            : before == '.'
                ? !islower((unsigned char)*p)
                : !islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '_') {
            return 0;
        }
        dots += *p == '.';
    }
    return dots > 0 && before != '.';
}

static int text_ok(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* ---- parameters --------------------------------------------------------------------------------
 */

static int wire_name_ok(const struct kvs_param *p)
{
    const char *c = p->name;

    for (; *c != '\0'; c++) {
        int word = islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_';
        int header = isalnum((unsigned char)*c) || *c == '-';

        if (p->place == KVS_IN_HEADER ? !header : !word) {
            return 0;
        }
    }
    return p->name[0] != '\0';
}

static int fallback_ok(const struct kvs_param *p)
{
    struct kvs_slice s = kvs_slice_str(p->fallback);
    uint64_t v = 0;
    uint32_t i = 0;
    int rc = 0;

    switch (p->type) {
    case KVS_PARAM_BYTES:
    case KVS_PARAM_STR:
        v = s.len;
        break;
    case KVS_PARAM_UINT:
        rc = kvs_u64_parse(s, &v);
        break;
    case KVS_PARAM_BOOL:
        return strcmp(p->fallback, "true") == 0 || strcmp(p->fallback, "false") == 0;
    case KVS_PARAM_ENUM:
        while (p->choices[i] != NULL && strcmp(p->choices[i], p->fallback) != 0) {
            i++;
        }
        return p->choices[i] != NULL;
    default:
        if (p->type == KVS_PARAM_TTL && strcmp(p->fallback, "none") == 0) {
            return 1;
        }
        rc = kvs_duration_parse(s, &v);
    }
    return rc == 0 && ((p->min == 0 && p->max == 0) || (v >= p->min && (!p->max || v <= p->max)));
}

static void param_sane(const struct kvs_method *m, const struct kvs_param *p)
{
    CHECK(text_ok(p->name) && p->place >= KVS_IN_PATH && p->place <= KVS_IN_HEADER,
          "%s: a parameter without name or place", m->name);
    CHECK(wire_name_ok(p), "%s: parameter '%s': a name is a-z, 0-9, '_' (a header's: letters, '-')",
          m->name, p->name);
    CHECK(p->type >= KVS_PARAM_BYTES && p->type <= KVS_PARAM_TTL,
          "%s: parameter '%s': unknown type %u", m->name, p->name, p->type);
    CHECK((p->flags & ~(KVS_PARAM_REQUIRED | KVS_PARAM_REPEAT)) == 0,
          "%s: parameter '%s': unknown flags", m->name, p->name);
    CHECK(p->min <= p->max || p->max == 0, "%s: parameter '%s': min is above max", m->name,
          p->name);
    CHECK(text_ok(p->help), "%s: parameter '%s' has no help", m->name, p->name);
    CHECK(p->type != KVS_PARAM_ENUM || (p->choices != NULL && p->choices[0] != NULL),
          "%s: parameter '%s' has no choices", m->name, p->name);
    CHECK(p->place != KVS_IN_PATH || (p->fallback == NULL && (p->flags & KVS_PARAM_REPEAT) == 0),
          "%s: path parameter '%s' has a default or repeats", m->name, p->name);
    CHECK((p->flags & KVS_PARAM_REQUIRED) == 0 || p->fallback == NULL,
          "%s: parameter '%s' is required and has a default", m->name, p->name);
    CHECK(p->fallback == NULL || fallback_ok(p),
          "%s: parameter '%s': its default '%s' is not one of its values", m->name, p->name,
          p->fallback);
    for (const struct kvs_param *k = m->params; k != p; k++) {
        CHECK(strcmp(k->name, p->name) != 0, "%s: parameter '%s' exists twice", m->name, p->name);
    }
}

/* ---- paths -------------------------------------------------------------------------------------
 */

/* Each {name} is the next path parameter; the rest is literal text. */
static void path_sane(const struct kvs_method *m)
{
    uint32_t params = 0, segments = 0, declared = 0;

    CHECK(m->path != NULL && m->path[0] == '/', "%s: its path does not begin with '/'", m->name);
    for (const char *p = m->path; *p == '/';) {
        size_t n = strcspn(++p, "/");

        CHECK(++segments <= SEGMENT_MAX, "%s: more than %u segments", m->name, SEGMENT_MAX);
        CHECK(n > 0 || m->path[1] == '\0', "%s: path '%s' has an empty segment", m->name, m->path);
        if (n > 0 && p[0] == '{') {
            const struct kvs_param *at = params < m->param_count ? &m->params[params] : NULL;

            CHECK(n > 2 && p[n - 1] == '}', "%s: path '%s': '{' without '}'", m->name, m->path);
            CHECK(at != NULL && at->place == KVS_IN_PATH && strlen(at->name) == n - 2 &&
                      strncmp(at->name, p + 1, n - 2) == 0,
                  "%s: path '%s': '%.*s' is not declared as path parameter %u", m->name, m->path,
                  (int)n, p, params);
            params++;
        } else {
            CHECK(strcspn(p, "{}?#% ") >= n, "%s: path '%s': a segment is literal or one {name}",
                  m->name, m->path);
        }
        p += n;
    }
    for (uint32_t i = 0; i < m->param_count; i++) {
        declared += m->params[i].place == KVS_IN_PATH;
    }
    CHECK(declared == params, "%s: path '%s' holds %u parameters, the table declares %u", m->name,
          m->path, params, declared);
}

/* True if some target would match both; parameters match anything. */
static int paths_collide(const char *a, const char *b)
{
    for (;;) {
        size_t n = strcspn(++a, "/"), k = strcspn(++b, "/");
        int a_param = a[0] == '{', b_param = b[0] == '{';

        if (a_param != b_param || (!a_param && (n != k || strncmp(a, b, n) != 0))) {
            return 0;
        }
        a += n;
        b += k;
        if (*a == '\0' || *b == '\0') {
            return *a == *b;
        }
    }
}

/* ---- methods -----------------------------------------------------------------------------------
 */

static void answers_sane(const struct kvs_method *m)
{
    CHECK(m->answer_count > 0 && m->answers != NULL, "%s: declares no answer", m->name);
    for (uint32_t i = 0; i < m->answer_count; i++) {
        const struct kvs_answer *a = &m->answers[i];

        CHECK(a->status >= 100 && a->status <= 599, "%s: answer with status %u", m->name,
              a->status);
        CHECK(text_ok(a->help), "%s: answer %u has no help", m->name, a->status);
        for (uint32_t k = 0; k < i; k++) {
            CHECK(m->answers[k].status != a->status || m->answers[k].content_type == NULL ||
                      a->content_type == NULL ||
                      strcmp(m->answers[k].content_type, a->content_type) != 0,
                  "%s: answer %u exists twice", m->name, a->status);
        }
    }
}

static void method_sane(const struct kvs_method *m)
{
    uint32_t body = m->flags & 3u;

    CHECK(text_ok(m->name) && method_name_ok(m->name),
          "method '%s': a name is words with dots, as in items.put",
          m->name == NULL ? "" : m->name);
    CHECK(m->verb <= KVS_VERB_HEAD, "%s: verb %u is not a service's", m->name, m->verb);
    CHECK(m->handler != NULL, "%s: has no handler", m->name);
    CHECK(text_ok(m->summary) && strchr(m->summary, '\n') == NULL,
          "%s: its summary is not one line", m->name);
    CHECK(m->access <= KVS_ACCESS_PEER, "%s: access %u does not exist", m->name, m->access);
    CHECK(body <= KVS_METHOD_BODY_REQUIRED, "%s: body flag %u does not exist", m->name, body);
    CHECK(body == KVS_METHOD_BODY_NONE || m->body_types != NULL,
          "%s: takes a body of no type: set body_types (\"*\": any)", m->name);
    CHECK(body != KVS_METHOD_BODY_NONE || m->body_types == NULL,
          "%s: has body_types but takes no body", m->name);
    CHECK(m->verb != KVS_VERB_GET || body == KVS_METHOD_BODY_NONE, "%s: a GET with a body",
          m->name);
    CHECK(m->verb != KVS_VERB_GET || (m->flags & KVS_METHOD_WRITE) == 0, "%s: a GET that writes",
          m->name);
    CHECK(m->param_count <= KVS_METHOD_PARAM_MAX, "%s: more than %u parameters", m->name,
          KVS_METHOD_PARAM_MAX);
    CHECK(m->param_count == 0 || m->params != NULL, "%s: params is NULL", m->name);
    for (uint32_t i = 0; i < m->param_count; i++) {
        param_sane(m, &m->params[i]);
    }
    if (m->verb != KVS_VERB_NONE) {
        path_sane(m);
    }
    answers_sane(m);
}

void check_methods(void)
{
    ops = check.plugin->ops;
    CHECK(ops->method_count > 0, "a service without methods cannot be called");
    for (uint32_t i = 0; i < ops->method_count; i++) {
        const struct kvs_method *m = &ops->methods[i];

        method_sane(m);
        for (const struct kvs_method *k = ops->methods; k != m; k++) {
            CHECK(strcmp(k->name, m->name) != 0, "method '%s' exists twice", m->name);
            CHECK(
                k->verb == KVS_VERB_NONE || k->verb != m->verb || !paths_collide(k->path, m->path),
                "methods '%s' and '%s' want the same verb and path %s", k->name, m->name, m->path);
        }
    }
}

/* ---- schemas -----------------------------------------------------------------------------------
 */

static int schema_known(const char *name)
{
    static const char *const HOSTS[] = {"Problem", "Health", "Readiness", "Version", "Plugins"};

    for (size_t i = 0; i < KVS_ARRAY_COUNT(HOSTS); i++) {
        if (strcmp(HOSTS[i], name) == 0) {
            return 1;
        }
    }
    for (const struct kvs_schema *s = ops->schemas; s != NULL && s->name != NULL; s++) {
        if (strcmp(s->name, name) == 0) {
            return 1;
        }
    }
    return 0;
}

void check_schemas(void)
{
    ops = check.plugin->ops;
    for (const struct kvs_schema *s = ops->schemas; s != NULL && s->name != NULL; s++) {
        json_error_t where;
        json_t *parsed = s->json == NULL ? NULL : json_loads(s->json, JSON_DECODE_ANY, &where);

        CHECK(s->json != NULL, "schema '%s' is empty", s->name);
        CHECK(parsed != NULL, "schema '%s' is not JSON: line %d, column %d: %s", s->name,
              where.line, where.column, where.text);
        CHECK(json_is_object(parsed) || json_is_boolean(parsed),
              "schema '%s' is neither an object nor true or false", s->name);
        json_decref(parsed);
    }
    for (uint32_t i = 0; i < ops->method_count; i++) {
        const struct kvs_method *m = &ops->methods[i];

        CHECK(m->body_schema == NULL || schema_known(m->body_schema),
              "%s: body schema '%s' does not exist", m->name, m->body_schema);
        for (uint32_t k = 0; k < m->answer_count; k++) {
            CHECK(m->answers[k].schema == NULL || schema_known(m->answers[k].schema),
                  "%s: schema '%s' does not exist", m->name, m->answers[k].schema);
        }
    }
}
