/* SPDX-License-Identifier: MIT
 *
 * persistence-wal and the room on the disk: segments rolled, used again and deleted; a full disk; a
 * disk that fails. */
#include "wal_world.h"

/* Segments are rolled; once snapshots cover them they are kept to be used again, a few, or deleted.
 */
static void test_wal__snapshots_cover_segments__recycled_and_deleted(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 1, 2);
    uint64_t full;

    (void)state;
    for (uint32_t i = 0; i < 120; i++) {
        put_ok(w, i % 3, 200);
    }
    full = world_status(w).journal_segments;
    assert_true(full > 8);
    assert_int_equal(file_count(w, "journal/0"), full);
    assert_int_equal(world_status(w).journal_bytes, full * SEGMENT_SIZE);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    assert_int_equal(snapshot_write(w, 1, "none"), 0);
    assert_int_equal(world_status(w).journal_segments, full); /* stream 2 needs them all */
    assert_int_equal(snapshot_write(w, 2, "none"), 0);
    assert_int_equal(world_status(w).journal_segments, 1);
    assert_int_equal(file_count(w, "journal/free-"), 4);
    assert_int_equal(file_count(w, "journal/0"), 1);
    for (uint32_t i = 0; i < 60; i++) { /* into the used files */
        put_ok(w, i % 3, 200);
    }
    assert_int_equal(file_count(w, "journal/free-"), 0);
    world_kill(w);
    wal_again(w);
    assert_int_equal(w->report.batch_count, 60);
    assert_int_equal(w->report.torn_bytes, 0);
    assert_int_equal(w->report.snapshot_count, 3);
    wal_end(w);
}

/* A node whose tables are written and covered all the time keeps a bounded number of files. */
static void test_wal__steady_use__bounded_files(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 2, 1);

    (void)state;
    for (uint32_t i = 0; i < 400; i++) {
        put_ok(w, i % 2, 300);
        if (i % 10 == 9) {
            assert_int_equal(snapshot_write(w, 0, "none"), 0);
            assert_int_equal(snapshot_write(w, 1, "none"), 0);
        }
        if (i % 70 == 69) {
            world_kill(w);
            wal_again(w);
        }
        assert_true(file_count(w, "journal/") < 12);
        assert_true(file_count(w, "snapshots/") <= 2);
    }
    wal_end(w);
}

/* After a restart the newest segment gives back what it reserved, once it has a successor. */
static void test_wal__restarts__unused_room_is_given_back(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 3, 1);

    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        put_ok(w, 0, 100);
        world_kill(w);
        wal_again(w);
    }
    put_ok(w, 0, 100);
    assert_int_equal(world_status(w).journal_segments, 11);
    assert_true(world_status(w).journal_bytes < 2 * SEGMENT_SIZE + 10 * 1100);
    assert_int_equal(w->report.batch_count, 10);
    wal_end(w);
}

/* A full disk fails the append and what was built on it; with room again writes go on. */
static void test_wal__disk_full__refused_until_there_is_room(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 4, 2);
    uint64_t acked;

    (void)state;
    put_ok(w, 0, 100);
    kvs_mock_disk_limit(w->mock, SEGMENT_SIZE + 600);
    for (uint32_t i = 0; i < 60; i++) {
        (void)put(w, i % 4, 200);
        if (i % 7 == 0) {
            world_run(w);
        }
    }
    world_run(w);
    (void)put(w, 0, SEGMENT_SIZE);
    world_run(w);
    assert_true(w->failed > 0);
    assert_int_equal(world_status(w).last_append, KVS_ENOSPC);
    assert_int_equal(world_status(w).failed, 0);
    for (const struct put *p = w->puts; p != NULL; p = p->next) {
        assert_true(p->done);
        assert_true(p->rc == 0 || p->rc == KVS_ENOSPC);
    }
    kvs_mock_disk_limit(w->mock, 0);
    acked = w->acked;
    put_ok(w, 0, 200);
    put_ok(w, 1, 200);
    assert_int_equal(w->acked, acked + 2);
    assert_int_equal(world_status(w).last_append, 0);
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 1);
    wal_end(w);
}

struct stop {
    struct kvs_task task;
    int reached;
};

static void on_stop(struct kvs_task *task)
{
    KVS_CONTAINER_OF(task, struct stop, task)->reached = 1;
}

/* Let a little of what is due happen. */
static void run_a_little(struct world *w)
{
    struct stop stop = {.task = {.run = on_stop}};

    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    kvs_post(w->host, (uint32_t)(world_random(w) % w->loops), &stop.task);
    kvs_mock_run_until(w->mock, &stop.reached);
}

/* Everything a loop appended before it heard of the failure fails with it, in order. */
static void test_wal__disk_full_while_more_is_appended__all_of_the_loop_fails(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct world *w = wal_new(&WAL_ALWAYS, seed, 3);

        kvs_mock_disk_limit(w->mock, 2 * SEGMENT_SIZE + 100);
        for (uint32_t i = 0; i < 100; i++) {
            (void)put(w, (uint32_t)(world_random(w) % WORLD_STREAMS),
                      world_random(w) % 5 == 0 ? 3000 : 100);
            if (world_random(w) % 2 == 0) {
                run_a_little(w);
            }
        }
        world_run(w);
        assert_true(w->failed > 0);
        kvs_mock_disk_limit(w->mock, 0);
        for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
            put_ok(w, i, 100);
        }
        world_crash(w, seed);
        wal_again(w);
        wal_end(w);
    }
}

/* Also what did not fit the group that failed. */
static void test_wal__disk_full_two_groups__both_fail(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 5, 1);

    (void)state;
    put_ok(w, 0, 100);
    kvs_mock_disk_limit(w->mock, SEGMENT_SIZE);
    for (uint32_t i = 0; i < GROUP_COUNT_MAX + 1; i++) {
        (void)put(w, 0, 40);
    }
    world_run(w);
    assert_int_equal(w->failed, GROUP_COUNT_MAX + 1);
    put_ok(w, 0, 40); /* a small one fits in */
    world_stop(w);
    wal_again(w);
    wal_end(w);
}

/* A write that ran out of space half-way is taken back: its batch is never recovered. */
static void test_wal__write_runs_out_of_space__frame_is_taken_back(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        for (int once = 0; once < 2; once++) {
            struct world *w = wal_new(&WAL_ALWAYS, seed, 1);
            struct put *p;

            put_ok(w, 0, 100);
            kvs_mock_fail_io(w->mock, 1, once, KVS_ENOSPC);
            p = put(w, 0, 120);
            world_run(w);
            assert_int_equal(p->rc, KVS_ENOSPC);
            kvs_mock_fail_io(w->mock, 0, 0, 0);
            if (seed % 3 == 0) {
                put_ok(w, 0, 60);
            }
            if (seed % 2 == 0) {
                world_stop(w); /* takes it back at the latest */
                wal_again(w);
                assert_int_equal(w->report.clean_shutdown, 1);
            } else if (once || seed % 3 == 0) {
                world_crash(w, seed);
                wal_again(w);
            }
            wal_end(w);
        }
    }
}

/* A failed fsync is final: no more writes, and a word about it; a restart goes on. */
static void test_wal__sync_fails__final(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 6, 2);
    struct put *p, *q;
    int64_t bytes;

    (void)state;
    put_ok(w, 0, 100);
    kvs_mock_fail_sync(w->mock, 1, 1); /* the second would succeed */
    w->tolerant = 1;
    p = put(w, 0, 100);
    world_run(w);
    assert_int_equal(p->rc, KVS_EFAILED);
    bytes = kvs_mock_metric(w->mock, "kvs_wal_write_bytes_total");
    assert_int_equal(put_try(w, 0, 100, &q), KVS_EFAILED);
    assert_int_equal(put_try(w, 1, 100, &q), KVS_EFAILED);
    world_run(w);
    assert_int_equal(kvs_mock_metric(w->mock, "kvs_wal_write_bytes_total"), bytes);
    assert_int_equal(world_status(w).failed, KVS_EIO);
    assert_int_equal(world_status(w).last_append, KVS_EFAILED);
    assert_non_null(kvs_mock_not_ready(w->mock, "journal"));
    world_stop(w);
    assert_int_equal(file_count(w, "journal/clean"), 0);
    wal_again(w);
    assert_int_equal(w->report.clean_shutdown, 0);
    put_ok(w, 0, 100);
    wal_end(w);
}

/* What waited behind a failed write is told so, too. */
static void test_wal__write_fails__all_that_wait_hear_of_it(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 7, 3);

    (void)state;
    put_ok(w, 0, 100);
    kvs_mock_fail_io(w->mock, 1, 1, KVS_EIO);
    w->tolerant = 1;
    for (uint32_t i = 0; i < 30; i++) {
        (void)put(w, i % WORLD_STREAMS, 300);
    }
    world_run(w);
    for (const struct put *p = w->puts; p != NULL; p = p->next) {
        assert_true(p->done);
    }
    assert_int_equal(w->failed, 30);
    world_stop(w);
    wal_again(w);
    wal_end(w);
}

/* The fault points of the writer do what the disk would. */
static void test_wal__fault_points__as_from_the_disk(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 8, 1);
    struct put *p;

    (void)state;
    kvs_mock_fail_point(w->mock, "wal.write", KVS_ENOSPC);
    p = put(w, 0, 100);
    world_run(w);
    assert_int_equal(p->rc, KVS_ENOSPC);
    kvs_mock_fail_point(w->mock, NULL, 0);
    put_ok(w, 0, 100);
    kvs_mock_fail_point(w->mock, "wal.sync", KVS_EIO);
    w->tolerant = 1;
    p = put(w, 0, 100);
    world_run(w);
    assert_int_equal(p->rc, KVS_EFAILED);
    wal_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal__snapshots_cover_segments__recycled_and_deleted),
        cmocka_unit_test(test_wal__steady_use__bounded_files),
        cmocka_unit_test(test_wal__restarts__unused_room_is_given_back),
        cmocka_unit_test(test_wal__disk_full__refused_until_there_is_room),
        cmocka_unit_test(test_wal__disk_full_while_more_is_appended__all_of_the_loop_fails),
        cmocka_unit_test(test_wal__disk_full_two_groups__both_fail),
        cmocka_unit_test(test_wal__write_runs_out_of_space__frame_is_taken_back),
        cmocka_unit_test(test_wal__sync_fails__final),
        cmocka_unit_test(test_wal__write_fails__all_that_wait_hear_of_it),
        cmocka_unit_test(test_wal__fault_points__as_from_the_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
