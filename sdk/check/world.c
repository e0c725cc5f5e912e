/* SPDX-License-Identifier: MIT
 *
 * A host for one check, and the lifecycle in the order kvsd runs it: all init, neighbours start
 * first, stop in reverse, loops run dry, fini in reverse. */
#include <stdio.h>

#include "check.h"

#define OOM_MAX 500u

void world_open(struct world *w, uint64_t seed, uint32_t loop_count, int live)
{
    memset(w, 0, sizeof *w);
    w->mock = kvs_mock_new(&(struct kvs_mock_conf){
        .seed = seed, .loop_count = loop_count, .log_level = KVS_LOG_DEBUG});
    w->live = live != 0;
    w->host = live ? live_open(w->mock) : kvs_mock_host(w->mock);
    for (uint32_t i = 0; i < check.with_count; i++) {
        const struct kvs_plugin *p = check.with[i];
        struct kvs_error err = {0};

        CHECK(p->init(w->host, check_conf(p, NULL, 0), &w->with_self[i], &err) == 0,
              "neighbour %s-%s: init: %s", check_kind_names[p->kind], p->name, err.msg);
        kvs_mock_add(w->mock, p->kind, p->name, p->ops, w->with_self[i]);
        w->with_inited++;
    }
}

void world_init(struct world *w, const void *conf)
{
    struct kvs_error err = {0};
    int rc = check.plugin->init(w->host, conf, &w->self, &err);

    CHECK(rc == 0, "init returns %s: %s", check_code(rc), err.msg);
    CHECK(w->self != NULL, "init returns 0 but no instance");
}

void world_start(struct world *w)
{
    struct kvs_error err = {0};
    int rc = 0;

    for (; w->with_started < w->with_inited; w->with_started++) {
        const struct kvs_plugin *p = check.with[w->with_started];

        CHECK(p->start == NULL || p->start(w->with_self[w->with_started], &err) == 0,
              "neighbour %s-%s: start: %s", check_kind_names[p->kind], p->name, err.msg);
    }
    if (check.plugin->start != NULL) {
        rc = check.plugin->start(w->self, &err);
    }
    CHECK(rc == 0, "start returns %s: %s", check_code(rc), err.msg);
    w->started = 1;
}

static void settle(struct world *w)
{
    if (w->live) {
        live_pump(w->mock, 0);
    }
    (void)kvs_mock_run(w->mock, 0);
}

void world_close(struct world *w)
{
    const struct kvs_plugin *p = check.plugin;

    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    if (w->started && p->stop != NULL) {
        p->stop(w->self);
        p->stop(w->self); /* idempotent */
    }
    settle(w);
    while (w->with_started-- > 0) {
        if (check.with[w->with_started]->stop != NULL) {
            check.with[w->with_started]->stop(w->with_self[w->with_started]);
        }
    }
    settle(w);
    if (w->self != NULL) {
        p->fini(w->self);
    }
    while (w->with_inited-- > 0) {
        check.with[w->with_inited]->fini(w->with_self[w->with_inited]);
    }
    if (w->live) {
        live_close();
    }
    kvs_mock_free(w->mock); /* aborts if something is left */
}

/* ---- lifecycle checks of every kind ------------------------------------------------------------
 */

static int kind_is_live(void)
{
    return check.plugin->kind == KVS_KIND_TRANSPORT || check.plugin->kind == KVS_KIND_CONSENSUS;
}

void check_life(void)
{
    void *conf = check_conf(check.plugin, check.sets, check.set_count);

    for (uint32_t loops = 1; loops <= 3; loops += 2) {
        struct world w;

        world_open(&w, loops, loops, kind_is_live());
        world_init(&w, conf);
        world_close(&w);
    }
}

void check_life_two_instances(void)
{
    void *conf = check_conf(check.plugin, check.sets, check.set_count);
    struct world a, b;

    if (kind_is_live()) {
        check_skip("this kind may need its directory and addresses for itself");
    }
    world_open(&a, 1, 1, 0);
    world_open(&b, 2, 2, 0);
    world_init(&a, conf);
    world_init(&b, conf);
    world_close(&a);
    world_close(&b);
}

void check_life_out_of_memory(void)
{
    void *conf = check_conf(check.plugin, check.sets, check.set_count);

    for (uint64_t nth = 1; nth < OOM_MAX; nth++) {
        struct kvs_error err = {0};
        struct world w;
        int rc, fired;

        world_open(&w, nth, 2, kind_is_live());
        kvs_mock_fail_alloc(w.mock, nth, 1);
        rc = check.plugin->init(w.host, conf, &w.self, &err);
        fired = kvs_mock_fault_fired(w.mock);
        kvs_mock_fail_alloc(w.mock, 0, 0);
        CHECK(rc == 0 || rc == KVS_ENOMEM, "allocation %llu of init fails: init returns %s",
              (unsigned long long)nth, check_code(rc));
        CHECK(rc == 0 || err.msg[0] != '\0', "allocation %llu of init fails: init leaves err empty",
              (unsigned long long)nth);
        w.self = rc == 0 ? w.self : NULL;
        world_close(&w);
        if (!fired) {
            return;
        }
    }
    check_fail(__FILE__, __LINE__, "init allocates %u times and more", OOM_MAX);
}
