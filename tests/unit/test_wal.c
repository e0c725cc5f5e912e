/* SPDX-License-Identifier: MIT
 *
 * persistence-wal when nothing goes wrong with the disk: what is acknowledged is read back, group
 * commit, segments, the meaning of `sync`, blobs, states. */
#include "wal_world.h"

/* Batches of six streams on three loops come back in order, after an orderly stop. */
static void test_wal__stop_and_start__every_batch_in_order(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 1, 3);

    (void)state;
    for (int round = 0; round < 40; round++) {
        for (uint32_t i = 0; i < 5; i++) {
            (void)put(w, (uint32_t)world_random(w) % WORLD_STREAMS,
                      8 + (uint32_t)(world_random(w) % 300));
        }
        world_run(w);
    }
    assert_int_equal(w->acked, 200);
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 1);
    assert_int_equal(w->report.batch_count, 200);
    assert_int_equal(w->report.torn_bytes, 0);
    assert_int_equal(w->report.byte_count, w->progress_total);
    assert_int_equal(w->progress_done, w->progress_total);
    wal_end(w);
}

/* A killed process leaves no marker, and loses nothing that was acknowledged. */
static void test_wal__kill__no_marker_nothing_lost(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 2, 2);

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        put_ok(w, i % WORLD_STREAMS, 8 + i * 5);
    }
    world_kill(w);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 0);
    assert_int_equal(w->report.batch_count, 50);
    assert_int_equal(w->report.torn_bytes, 0);
    wal_end(w);
}

/* The marker counts for one start only. */
static void test_wal__stop_start_kill_start__marker_is_gone(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 3, 1);

    (void)state;
    put_ok(w, 0, 30);
    world_stop(w);
    assert_int_equal(file_count(w, "journal/clean"), 1);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 1);
    assert_int_equal(file_count(w, "journal/clean"), 0);
    world_kill(w);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 0);
    wal_end(w);
}

/* What was recovered after a kill survives a power cut at once: it was served. */
static void test_wal__kill_recover_power_cut__served_stays(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_OS, 100, SEGMENT_SIZE, 60000};

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct world *w = wal_new(&CONF, seed, 1);

        for (uint32_t i = 0; i < 6; i++) {
            put_ok(w, i, 200);
        }
        world_kill(w);
        wal_again(w);
        assert_int_equal(w->report.batch_count, 6);
        world_crash(w, seed);
        wal_again(w);
        assert_int_equal(w->report.batch_count, 6);
        wal_end(w);
    }
}

/* All that was appended in one round, by any loop, costs one fsync. */
static void test_wal__many_appends_in_a_round__one_sync(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 4, 1);
    struct kvs_persistence_status before, after;

    (void)state;
    put_ok(w, 0, 50);
    before = world_status(w);
    for (uint32_t i = 0; i < 20; i++) {
        (void)put(w, i % WORLD_STREAMS, 40);
    }
    world_run(w);
    after = world_status(w);
    assert_int_equal(after.sync_count - before.sync_count, 1);
    assert_int_equal(after.synced_batches - before.synced_batches, 20);
    assert_int_equal(w->acked, 21);
    assert_true(after.appended_bytes > before.appended_bytes);
    wal_end(w);
}

/* Groups have limits; more than fit one frame go into several. */
static void test_wal__more_than_a_group_holds__several_frames(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_ALWAYS, 100, 1u << 20, 60000};
    struct world *w = wal_new(&CONF, 5, 1);

    (void)state;
    for (uint32_t i = 0; i < 2 * GROUP_COUNT_MAX + 10; i++) {
        (void)put(w, i % WORLD_STREAMS, 16);
    }
    for (uint32_t i = 0; i < 3; i++) {
        (void)put(w, i, GROUP_SIZE_MAX / 2);
    }
    world_run(w);
    assert_int_equal(w->acked, 2 * GROUP_COUNT_MAX + 13);
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.batch_count, 2 * GROUP_COUNT_MAX + 13);
    wal_end(w);
}

/* A batch larger than a segment gets one of its size. */
static void test_wal__batch_larger_than_a_segment__is_written(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 6, 1);

    (void)state;
    put_ok(w, 0, 100);
    put_ok(w, 1, 3 * SEGMENT_SIZE);
    put_ok(w, 0, 100);
    world_kill(w);
    wal_again(w);
    assert_int_equal(w->report.batch_count, 3);
    wal_end(w);
}

/* sync: interval acknowledges first and syncs by the clock. */
static void test_wal__sync_interval__syncs_by_the_clock(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_INTERVAL, 100, SEGMENT_SIZE, 60000};
    struct world *w = wal_new(&CONF, 7, 1);
    uint64_t before;

    (void)state;
    put_ok(w, 0, 100);
    before = world_status(w).sync_count;
    put_ok(w, 1, 100);
    assert_int_equal(world_status(w).sync_count, before);
    (void)kvs_mock_run(w->mock, 110);
    assert_int_equal(world_status(w).sync_count, before + 1);
    (void)kvs_mock_run(w->mock, 1000); /* nothing to sync */
    assert_int_equal(world_status(w).sync_count, before + 1);
    for (uint64_t seed = 1; seed < 30; seed++) { /* synced: a power cut takes none of it */
        world_crash(w, seed);
        wal_again(w);
        assert_int_equal(w->got[1].count, 1);
    }
    wal_end(w);
}

/* sync: os may lose acknowledged batches in a power cut, but only from the end; of segments before
 * the newest nothing. */
static void test_wal__sync_os_power_cut__keeps_a_prefix(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_OS, 100, SEGMENT_SIZE, 60000};
    uint64_t lost = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct world *w = wal_new(&CONF, seed, 2);
        uint32_t count = seed % 2 == 0 ? 6 : 20;

        for (uint32_t i = 0; i < count; i++) {
            put_ok(w, i % WORLD_STREAMS, 150);
        }
        assert_true(count > 6 || world_status(w).sync_count == 0);
        world_crash(w, seed);
        world_doubt(w);
        wal_again(w);
        assert_true(count == 6 || w->report.batch_count >= 14);
        lost += count - w->report.batch_count;
        put_ok(w, 0, 20);
        world_stop(w);
        wal_again(w);
        wal_end(w);
    }
    assert_true(lost > 0);
}

/* An orderly stop makes everything durable, whatever `sync` says. */
static void test_wal__sync_os_stop_power_cut__nothing_lost(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_OS, 100, SEGMENT_SIZE, 60000};

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct world *w = wal_new(&CONF, seed, 2);

        for (uint32_t i = 0; i < 8; i++) {
            (void)put(w, i % WORLD_STREAMS, 150); /* not even handed over */
        }
        world_stop(w);
        assert_int_equal(w->acked, 8);
        world_crash(w, seed);
        wal_again(w);
        assert_int_equal(w->report.clean_shutdown, 1);
        wal_end(w);
    }
}

/* Before recovery and after the stop nothing is taken; what cannot be a batch is refused. */
static void test_wal__wrong_state__refused(void **state)
{
    struct world *w = world_new(kvs_plugin_entry(), &WAL_ALWAYS, 8, 1);
    struct kvs_append none = {.batch = {"", 0}}, huge = {.batch = {"", KVS_BATCH_SIZE_MAX + 1}};
    struct kvs_snapshot *s;
    struct step step = {0};

    (void)state;
    world_start(w);
    assert_int_equal(put_try(w, 0, 20, NULL), KVS_ESTATE);
    assert_int_equal(snapshot_begin(w, 0, 1, "none", &s), KVS_ESTATE);
    assert_int_equal(w->ops->stream_drop(w->self, 1, &step.step), KVS_ESTATE);
    world_recover(w);
    kvs_mock_enter(w->mock, 0);
    assert_int_equal(w->ops->append(w->self, &none), KVS_ETOOBIG);
    assert_int_equal(w->ops->append(w->self, &huge), KVS_ETOOBIG);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self);
    assert_int_equal(put_try(w, 0, 20, NULL), KVS_ESTATE);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self); /* twice is as good as once */
    w->plugin->fini(w->self);
    world_free(w);
}

/* Blobs are replaced whole. */
static void test_wal__blobs__replaced_whole(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 9, 1);
    static char big[(64u << 10) + 1], back[64u << 10];
    char buf[8];
    size_t len = 77;

    (void)state;
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    assert_int_equal(w->ops->blob_get(w->self, "a", buf, sizeof buf, &len, &w->err), 0);
    assert_int_equal(len, 0);
    assert_int_equal(w->ops->blob_put(w->self, "a", kvs_slice_str("one"), &w->err), 0);
    assert_int_equal(w->ops->blob_put(w->self, "a.tmp", kvs_slice_str("tmp"), &w->err), 0);
    assert_int_equal(w->ops->blob_put(w->self, "a", kvs_slice_str("second"), &w->err), 0);
    world_crash(w, 3);
    wal_again(w);
    assert_int_equal(w->ops->blob_get(w->self, "a", buf, sizeof buf, &len, &w->err), 0);
    assert_true(kvs_slice_eq_str(kvs_slice(buf, len), "second"));
    assert_int_equal(w->ops->blob_get(w->self, "a.tmp", buf, sizeof buf, &len, &w->err), 0);
    assert_true(kvs_slice_eq_str(kvs_slice(buf, len), "tmp"));
    assert_int_equal(w->ops->blob_get(w->self, "a", buf, 5, &len, &w->err), KVS_ETOOBIG);
    memset(big, 'x', sizeof big);
    assert_int_equal(w->ops->blob_put(w->self, "b", kvs_slice(big, sizeof big), &w->err),
                     KVS_ETOOBIG);
    assert_int_equal(w->ops->blob_put(w->self, "b", kvs_slice(big, sizeof back), &w->err), 0);
    assert_int_equal(w->ops->blob_get(w->self, "b", back, sizeof back, &len, &w->err), 0);
    assert_int_equal(len, sizeof back);
    assert_memory_equal(back, big, len);
    assert_int_equal(w->ops->blob_put(w->self, "b", kvs_slice("", 0), &w->err), 0);
    assert_int_equal(w->ops->blob_get(w->self, "b", back, sizeof back, &len, &w->err), 0);
    assert_int_equal(len, 0);
    assert_int_equal(w->ops->blob_put(w->self, "", kvs_slice_str("x"), &w->err), KVS_EINVAL);
    assert_int_equal(w->ops->blob_put(w->self, "A", kvs_slice_str("x"), &w->err), KVS_EINVAL);
    assert_int_equal(w->ops->blob_put(w->self, "a/b", kvs_slice_str("x"), &w->err), KVS_EINVAL);
    assert_int_equal(w->ops->blob_get(w->self, "..", buf, sizeof buf, &len, &w->err), KVS_EINVAL);
    wal_end(w);
}

/* At every moment of a replacement a power cut leaves the former or the new blob. */
static void test_wal__blob_put_power_cut__former_or_new(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth < 12; nth++) {
        for (uint64_t seed = 0; seed < 30; seed++) {
            struct world *w = wal_new(&WAL_ALWAYS, seed, 1);
            char buf[16];
            size_t len;
            int rc;

            kvs_mock_enter(w->mock, KVS_LOOP_NONE);
            assert_int_equal(w->ops->blob_put(w->self, "a", kvs_slice_str("former"), NULL), 0);
            kvs_mock_fail_io(w->mock, nth, 0, KVS_EIO); /* as if the power went there */
            rc = w->ops->blob_put(w->self, "a", kvs_slice_str("new"), NULL);
            world_crash(w, seed);
            wal_again(w);
            assert_int_equal(w->ops->blob_get(w->self, "a", buf, sizeof buf, &len, NULL), 0);
            assert_true(kvs_slice_eq_str(kvs_slice(buf, len), "new") ||
                        (rc != 0 && kvs_slice_eq_str(kvs_slice(buf, len), "former")));
            wal_end(w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal__stop_and_start__every_batch_in_order),
        cmocka_unit_test(test_wal__kill__no_marker_nothing_lost),
        cmocka_unit_test(test_wal__stop_start_kill_start__marker_is_gone),
        cmocka_unit_test(test_wal__kill_recover_power_cut__served_stays),
        cmocka_unit_test(test_wal__many_appends_in_a_round__one_sync),
        cmocka_unit_test(test_wal__more_than_a_group_holds__several_frames),
        cmocka_unit_test(test_wal__batch_larger_than_a_segment__is_written),
        cmocka_unit_test(test_wal__sync_interval__syncs_by_the_clock),
        cmocka_unit_test(test_wal__sync_os_power_cut__keeps_a_prefix),
        cmocka_unit_test(test_wal__sync_os_stop_power_cut__nothing_lost),
        cmocka_unit_test(test_wal__wrong_state__refused),
        cmocka_unit_test(test_wal__blobs__replaced_whole),
        cmocka_unit_test(test_wal__blob_put_power_cut__former_or_new),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
