/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `persistence`, run on every plugin of the kind. What a restart gives back is
 * asked only of those that claim to be durable.
 *
 *   test_persistence PLUGIN.so */
#include "journal_world.h"
#include "plugin_file.h"

#include "kvs/support.h"

#define CONF_SIZE_MAX 4096u

static const struct kvs_plugin *plugin;
static uint64_t conf[CONF_SIZE_MAX / 8]; /* the defaults */
static int durable;

/* Fill the configuration with the defaults of the options. */
static void conf_fill(void)
{
    assert_true(plugin->conf_size <= CONF_SIZE_MAX);
    for (const struct kvs_opt *o = plugin->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        char *at = (char *)conf + o->offset;
        uint64_t v = 0;
        uint32_t choice = 0;

        assert_non_null(o->fallback);
        switch (o->type) {
        case KVS_OPT_ENUM:
            while (strcmp(o->choices[choice], o->fallback) != 0) {
                choice++;
                assert_non_null(o->choices[choice]);
            }
            memcpy(at, &choice, sizeof choice);
            break;
        case KVS_OPT_BYTES:
            assert_int_equal(kvs_bytes_parse(kvs_slice_str(o->fallback), &v), 0);
            v = o->min > 0 ? (uint64_t)o->min : v; /* small is good enough, and quick */
            memcpy(at, &v, sizeof v);
            break;
        case KVS_OPT_DURATION:
            assert_int_equal(kvs_duration_parse(kvs_slice_str(o->fallback), &v), 0);
            memcpy(at, &v, sizeof v);
            break;
        default:
            fail_msg("option '%s': a type this test does not fill yet", o->name);
        }
    }
}

static struct world *contract_open(uint64_t seed, uint32_t loops)
{
    struct world *w = world_new(plugin, conf, seed, loops);

    world_start(w);
    world_recover(w);
    return w;
}

/* Restart in order. What is not durable is gone, and the model knows. */
static void again(struct world *w)
{
    world_stop(w);
    for (uint32_t i = 0; i < WORLD_STREAMS && !durable; i++) {
        w->wrote[i].count = 0;
        w->next_offset[i] = 0;
        w->snapshot[i].there = 0;
    }
    world_start(w);
    world_recover(w);
}

static void contract_close(struct world *w)
{
    world_stop(w);
    world_free(w); /* fails if anything is still held */
}

/* The descriptor and the table are whole. */
static void test_persistence__descriptor__whole(void **state)
{
    const struct kvs_persistence_ops *ops = plugin->ops;

    (void)state;
    assert_true(KVS_HAS(ops, status));
    assert_non_null(ops->recover);
    assert_non_null(ops->append);
    assert_non_null(ops->snapshot_begin);
    assert_non_null(ops->snapshot_block);
    assert_non_null(ops->snapshot_commit);
    assert_non_null(ops->snapshot_abort);
    assert_non_null(ops->stream_drop);
    assert_non_null(ops->blob_put);
    assert_non_null(ops->blob_get);
    assert_non_null(ops->status);
}

/* Nothing is taken before recovery and after the stop. */
static void test_persistence__not_recovered_or_stopped__refused(void **state)
{
    struct world *w = world_new(plugin, conf, 1, 2);
    struct kvs_snapshot *s;
    struct step step = {.step = {.cb = world_on_step}};

    (void)state;
    world_start(w);
    assert_int_equal(put_try(w, 0, 30, NULL), KVS_ESTATE);
    assert_int_equal(snapshot_begin(w, 0, 0, "none", &s), KVS_ESTATE);
    assert_int_equal(w->ops->stream_drop(w->self, 1, &step.step), KVS_ESTATE);
    world_recover(w);
    put_ok(w, 0, 30);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self);
    assert_int_equal(put_try(w, 0, 30, NULL), KVS_ESTATE);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self); /* idempotent */
    (void)kvs_mock_run(w->mock, 0);
    w->plugin->fini(w->self);
    world_free(w);
}

/* Started and never recovered, or only inited: it ends all the same. */
static void test_persistence__never_used__ends(void **state)
{
    struct world *w = world_new(plugin, conf, 2, 1);
    struct kvs_error err;

    (void)state;
    assert_int_equal(plugin->init(w->host, conf, &w->self, &err), 0);
    plugin->fini(w->self);
    world_start(w);
    world_stop(w);
    world_free(w);
}

/* Callbacks: once, on the loop that appended, in order (the model checks), never inside append;
 * sizes out of bounds are refused. Then a restart. */
static void test_persistence__appends__answered_in_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct world *w = contract_open(seed, 1 + (uint32_t)(seed % 4));
        struct kvs_append wrong = {.batch = {"", KVS_BATCH_SIZE_MAX + 1}};

        for (uint32_t i = 0; i < 200; i++) {
            struct put *p = put(w, (uint32_t)(world_random(w) % WORLD_STREAMS),
                                8 + (uint32_t)(world_random(w) % 2000));

            assert_false(p->done);
            if (world_random(w) % 9 == 0) {
                world_run(w);
                assert_true(p->done);
            }
        }
        kvs_mock_enter(w->mock, 0);
        assert_int_equal(w->ops->append(w->self, &wrong), KVS_ETOOBIG);
        world_run(w);
        assert_int_equal(w->acked, 200);
        assert_int_equal(world_status(w).failed, 0);
        assert_int_equal(world_status(w).last_append, 0);
        assert_true(world_status(w).appended_bytes > 0);
        assert_int_equal(world_status(w).synced_batches, 200);
        again(w);
        assert_int_equal(w->report.batch_count, durable ? 200 : 0);
        assert_int_equal(w->report.clean_shutdown, durable);
        contract_close(w);
    }
}

/* Appends still under way at the stop are answered. */
static void test_persistence__stop_under_appends__all_answered(void **state)
{
    struct world *w = contract_open(3, 3);

    (void)state;
    for (uint32_t i = 0; i < 30; i++) {
        (void)put(w, i % WORLD_STREAMS, 100);
    }
    again(w); /* world_stop looks at every one */
    contract_close(w);
}

/* A snapshot takes the place of the batches below it. */
static void test_persistence__snapshot__replaces_batches(void **state)
{
    struct world *w = contract_open(4, 2);

    (void)state;
    for (uint32_t i = 0; i < 30; i++) {
        put_ok(w, i % 3, 100);
    }
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    assert_int_equal(snapshot_write(w, 1, "none"), 0);
    put_ok(w, 0, 100);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    put_ok(w, 0, 100);
    again(w);
    assert_int_equal(w->report.snapshot_count, durable ? 2 : 0);
    assert_int_equal(w->got[0].count, durable ? 1 : 0);
    contract_close(w);
}

/* One snapshot per stream at a time; refusals; abort frees the place. */
static void test_persistence__snapshot_begin__refusals(void **state)
{
    struct world *w = contract_open(5, 2);
    static char meta[KVS_SNAPSHOT_META_MAX + 1];
    struct kvs_snapshot_info info = {.stream = 9, .meta = kvs_slice(meta, sizeof meta)};
    struct kvs_snapshot *s, *other;

    (void)state;
    assert_int_equal(snapshot_begin(w, 0, 5, "no-such-codec", &s), KVS_ENOTFOUND);
    assert_int_equal(w->ops->snapshot_begin(w->self, &info, "none", &s, &w->err), KVS_ETOOBIG);
    assert_int_equal(snapshot_begin(w, 0, 5, "none", &s), 0);
    assert_int_equal(snapshot_begin(w, 0, 6, "none", &other), KVS_EBUSY);
    assert_int_equal(snapshot_begin(w, 1, 6, "none", &other), 0); /* of another stream */
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_abort(w->self, s);
    world_run(w);
    assert_int_equal(snapshot_begin(w, 0, 6, "none", &s), 0);
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_abort(w->self, s);
    kvs_mock_enter(w->mock, 1);
    w->ops->snapshot_abort(w->self, other);
    world_run(w);
    again(w);
    assert_int_equal(w->report.snapshot_count, 0);
    contract_close(w);
}

/* A dropped stream never comes back. */
static void test_persistence__drop__never_comes_back(void **state)
{
    struct world *w = contract_open(6, 2);

    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        put_ok(w, i % 3, 100);
    }
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    assert_int_equal(stream_drop(w, 0), 0);
    assert_int_equal(stream_drop(w, 1), 0);
    for (int i = 0; i < 3; i++) {
        again(w);
        put_ok(w, 2, 10);
    }
    contract_close(w);
}

/* Blobs: replaced whole, absent is empty, bounds are kept. */
static void test_persistence__blobs__replaced_whole(void **state)
{
    struct world *w = contract_open(7, 1);
    static char big[(64u << 10) + 1];
    char buf[16];
    size_t len = 99;

    (void)state;
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    assert_int_equal(w->ops->blob_get(w->self, "none", buf, sizeof buf, &len, &w->err), 0);
    assert_int_equal(len, 0);
    assert_int_equal(w->ops->blob_put(w->self, "a-b_c.1", kvs_slice_str("first"), &w->err), 0);
    assert_int_equal(w->ops->blob_put(w->self, "other", kvs_slice_str("x"), &w->err), 0);
    assert_int_equal(w->ops->blob_put(w->self, "a-b_c.1", kvs_slice_str("second"), &w->err), 0);
    assert_int_equal(w->ops->blob_get(w->self, "a-b_c.1", buf, sizeof buf, &len, &w->err), 0);
    assert_true(kvs_slice_eq_str(kvs_slice(buf, len), "second"));
    assert_int_equal(w->ops->blob_get(w->self, "a-b_c.1", buf, 5, &len, &w->err), KVS_ETOOBIG);
    assert_int_equal(w->ops->blob_put(w->self, "big", kvs_slice(big, sizeof big), &w->err),
                     KVS_ETOOBIG);
    assert_int_equal(w->ops->blob_put(w->self, "../x", kvs_slice_str("x"), &w->err), KVS_EINVAL);
    assert_int_equal(w->ops->blob_put(w->self, "UP", kvs_slice_str("x"), &w->err), KVS_EINVAL);
    assert_int_equal(w->ops->blob_get(w->self, "", buf, sizeof buf, &len, &w->err), KVS_EINVAL);
    again(w);
    assert_int_equal(w->ops->blob_get(w->self, "a-b_c.1", buf, sizeof buf, &len, &w->err), 0);
    assert_true(kvs_slice_eq_str(kvs_slice(buf, len), durable ? "second" : ""));
    contract_close(w);
}

/* A power cut: what was acknowledged is there, if that is claimed. */
static void test_persistence__power_cut__acknowledged_is_there(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct world *w = contract_open(seed, 2);

        for (uint32_t i = 0; i < 40; i++) {
            (void)put(w, (uint32_t)(world_random(w) % WORLD_STREAMS), 100);
            if (world_random(w) % 3 == 0) {
                world_run(w);
            }
        }
        world_crash(w, seed);
        world_start(w);
        if (durable) {
            world_recover(w);
        } else {
            assert_int_equal(world_recover_only(w), 0);
            assert_int_equal(w->report.batch_count, 0);
        }
        contract_close(w);
    }
}

/* The n-th allocation fails: refused, nothing leaks. */
static void test_persistence__nth_allocation_fails__nothing_leaks(void **state)
{
    uint64_t n = 0;
    int fired;

    (void)state;
    do {
        struct world *w = world_new(plugin, conf, n, 2);

        w->tolerant = 1;
        kvs_mock_fail_alloc(w->mock, ++n, 1);
        if (world_try_start(w) == 0) {
            if (world_recover_only(w) == 0) {
                (void)put(w, 0, 100);
                world_run(w);
                (void)snapshot_write(w, 0, "none");
                (void)stream_drop(w, 1);
                kvs_mock_enter(w->mock, KVS_LOOP_NONE);
                (void)w->ops->blob_put(w->self, "b", kvs_slice_str("x"), NULL);
            }
            world_stop(w);
        }
        fired = kvs_mock_fault_fired(w->mock);
        world_free(w);
    } while (fired && n < 1000);
    assert_false(fired);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_persistence__descriptor__whole),
        cmocka_unit_test(test_persistence__not_recovered_or_stopped__refused),
        cmocka_unit_test(test_persistence__never_used__ends),
        cmocka_unit_test(test_persistence__appends__answered_in_order),
        cmocka_unit_test(test_persistence__stop_under_appends__all_answered),
        cmocka_unit_test(test_persistence__snapshot__replaces_batches),
        cmocka_unit_test(test_persistence__snapshot_begin__refusals),
        cmocka_unit_test(test_persistence__drop__never_comes_back),
        cmocka_unit_test(test_persistence__blobs__replaced_whole),
        cmocka_unit_test(test_persistence__power_cut__acknowledged_is_there),
        cmocka_unit_test(test_persistence__nth_allocation_fails__nothing_leaks),
    };

    plugin = plugin_file_open(argc, argv, KVS_KIND_PERSISTENCE);
    durable = (plugin->caps & KVS_PERSISTENCE_CAP_DURABLE) != 0;
    conf_fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
