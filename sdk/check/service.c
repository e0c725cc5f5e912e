/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `service`: its tables, its life, and that every method answers. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/service.h"

#define TEXT_MAX 64u

static const struct kvs_service_ops *ops;

static void on_drained(void *arg)
{
    ++*(int *)arg;
}

/* The order of kvsd: drain, then stop. */
static void drain_and_close(struct world *w)
{
    int drained = 0;

    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    if (ops->drain != NULL) {
        ops->drain(w->self, on_drained, &drained);
        (void)kvs_mock_run(w->mock, 30000);
        CHECK(drained == 1, "drain calls done %d times in 30 s", drained);
    }
    world_close(w);
}

static void open_and_start(struct world *w, uint32_t loop_count)
{
    ops = check.plugin->ops;
    world_open(w, loop_count, loop_count, 0);
    world_init(w, check_conf(check.plugin, check.sets, check.set_count));
    world_start(w);
}

static void life_drained(void)
{
    for (uint32_t loops = 1; loops <= 3; loops += 2) {
        struct world w;

        open_and_start(&w, loops);
        (void)kvs_mock_run(w.mock, 3000);
        drain_and_close(&w);
    }
}

static void life_stopped_at_once(void)
{
    struct world w;

    open_and_start(&w, 2);
    drain_and_close(&w);
}

/* ---- every method ------------------------------------------------------------------------------
 */

/* A value the parameter's declaration allows. */
static const char *value_for(const struct kvs_param *p, char buf[TEXT_MAX])
{
    size_t len = p->min == 0 ? 1 : p->min < TEXT_MAX - 1 ? (size_t)p->min : TEXT_MAX - 1;

    switch (p->type) {
    case KVS_PARAM_UINT:
        (void)snprintf(buf, TEXT_MAX, "%llu", (unsigned long long)p->min);
        return buf;
    case KVS_PARAM_BOOL:
        return "true";
    case KVS_PARAM_DURATION:
        (void)snprintf(buf, TEXT_MAX, "%llums", (unsigned long long)(p->min == 0 ? 1 : p->min));
        return buf;
    case KVS_PARAM_ENUM:
        return p->choices[0];
    case KVS_PARAM_TTL:
        return "none";
    default:
        memset(buf, 'a', len);
        buf[len] = '\0';
        return buf;
    }
}

/* required_only: path parameters and those flagged so; else all, except repeats. */
static void call_method(struct world *w, const struct kvs_method *m, int required_only,
                        const char *body, const char *type)
{
    const char *params[2 * KVS_METHOD_PARAM_MAX + 1];
    char values[KVS_METHOD_PARAM_MAX][TEXT_MAX];
    const struct kvs_mock_answer *a;
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->param_count; i++) {
        const struct kvs_param *p = &m->params[i];

        if (!required_only || p->place == KVS_IN_PATH || (p->flags & KVS_PARAM_REQUIRED) != 0) {
            params[n++] = p->name;
            params[n++] = value_for(p, values[i]);
        }
    }
    params[n] = NULL;
    a = kvs_mock_request(w->mock, m, w->self, params, kvs_slice_str(body), type);
    CHECK(a->status >= 100 && a->status <= 599, "%s: answers with status %u", m->name, a->status);
    CHECK(a->status != 500, "%s: answers 500: %.*s", m->name, (int)a->body.len, a->body.ptr);
    CHECK(a->body.len == 0 || a->content_type != NULL, "%s: a body without a content type",
          m->name);
    if (a->status < 400) {
        int declared = 0;

        for (uint32_t i = 0; i < m->answer_count; i++) {
            declared |= m->answers[i].status == a->status;
        }
        CHECK(declared, "%s: answers %u, which it does not declare", m->name, a->status);
    }
}

/* The first type a method accepts. */
static const char *body_type(const struct kvs_method *m, char buf[TEXT_MAX])
{
    if (m->body_types == NULL) {
        return "";
    }
    (void)snprintf(buf, TEXT_MAX, "%.*s", (int)strcspn(m->body_types, " "), m->body_types);
    return strcmp(buf, "*") == 0 ? "application/octet-stream" : buf;
}

static void methods_answer(void)
{
    struct world w;
    char type[TEXT_MAX];

    open_and_start(&w, 2);
    (void)kvs_mock_run(w.mock, 1000);
    for (uint32_t i = 0; i < ops->method_count; i++) {
        const struct kvs_method *m = &ops->methods[i];
        int takes_body = (m->flags & 3u) != KVS_METHOD_BODY_NONE;

        call_method(&w, m, 1, takes_body ? "{}" : "", body_type(m, type));
        call_method(&w, m, 0, takes_body ? "{\"a\":[1,2,{\"b\":null}]}" : "", body_type(m, type));
        if (takes_body) {
            call_method(&w, m, 1, "{\"broken", body_type(m, type));
            call_method(&w, m, 1, "", "");
        }
    }
    drain_and_close(&w);
}

const struct check_case check_service_cases[] = {
    {"the method table is sane", check_methods},
    {"schemas are JSON and exist", check_schemas},
    {"starts, drains, stops twice and leaves nothing behind", life_drained},
    {"stops right after it started", life_stopped_at_once},
    {"every method answers once, with a status it declares", methods_answer},
    {NULL, NULL},
};
