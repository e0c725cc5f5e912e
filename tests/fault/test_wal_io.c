/* SPDX-License-Identifier: MIT
 *
 * persistence-wal: the n-th call of the disk fails, once or from there on, with each code; the n-th
 * allocation fails; n rises until nothing is injected. Every call is answered, nothing leaks, and
 * what was acknowledged is there after a power cut. */
#include "wal_world.h"

static const struct wal_conf SMALL = {WAL_SYNC_ALWAYS, 100, 6 * 512, 60000};
static const struct wal_conf INTERVAL = {WAL_SYNC_INTERVAL, 100, 6 * 512, 60000};

#define N_MAX 5000u /* far more than a run has calls */

/* A life with something of everything, that bears any failure. */
static void use(struct world *w)
{
    char buf[16];
    size_t len;

    for (uint32_t i = 0; i < 24; i++) {
        if (w->dropped[i % WORLD_STREAMS] == 0) {
            (void)put_try(w, i % WORLD_STREAMS, 40 + i * 30, NULL);
        }
        if (i % 3 == 0) {
            world_run(w);
        }
        if (i == 8 || i == 18) {
            for (uint32_t s = 0; s < 4; s++) {
                if (w->dropped[s] == 0 && w->pending[s] == 0) {
                    (void)snapshot_write(w, s, "none");
                }
            }
        }
        if (i == 12 && w->dropped[3] == 0) {
            (void)stream_drop(w, 3);
        }
        if (i == 20 && w->dropped[5] == 0) {
            (void)stream_drop(w, 5);
        }
    }
    world_run(w);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    (void)w->ops->blob_put(w->self, "b", kvs_slice_str("bytes"), NULL);
    (void)w->ops->blob_get(w->self, "b", buf, sizeof buf, &len, NULL);
}

static void check(struct world *w)
{
    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        world_check_stream(w, i);
        world_adopt(w, i);
    }
}

/* One run with a failure armed by `arm` somewhere between the first start and the last stop.
 * Returns whether it struck. */
static int run_with(const struct wal_conf *conf, uint64_t seed,
                    void (*arm)(struct kvs_mock *m, uint64_t n, int how), uint64_t n, int how)
{
    struct world *w = world_new(kvs_plugin_entry(), conf, seed, 2);
    int fired;

    w->tolerant = 1;
    arm(w->mock, n, how);
    for (int life = 0; life < 3; life++) {
        int rc = world_try_start(w);

        if (rc != 0) {
            continue;
        }
        rc = world_recover_only(w);
        if (rc == 0) {
            check(w);
            use(w);
        }
        world_stop(w);
    }
    fired = kvs_mock_fault_fired(w->mock);
    arm(w->mock, 0, 0);
    world_start(w);
    world_recover(w);
    world_crash(w, seed * 1000 + n);
    w->tolerant = 0;
    world_start(w);
    world_recover(w);
    use(w);
    world_crash(w, n);
    if (conf->sync != WAL_SYNC_ALWAYS) {
        world_doubt(w);
    }
    world_start(w);
    world_recover(w);
    world_stop(w);
    world_free(w);
    return fired;
}

static void sweep(const struct wal_conf *conf, uint64_t seed,
                  void (*arm)(struct kvs_mock *m, uint64_t n, int how), int how)
{
    uint64_t n = 1;

    while (run_with(conf, seed, arm, n, how)) {
        n++;
        assert_true(n < N_MAX);
    }
    assert_true(n > 20); /* the sweep was about something */
}

/* how: bit 0: once; code by the rest. */
static void arm_io(struct kvs_mock *m, uint64_t n, int how)
{
    kvs_mock_fail_io(m, n, how & 1, how < 2 ? KVS_EIO : how < 4 ? KVS_ENOSPC : KVS_EACCES);
}

static void arm_sync(struct kvs_mock *m, uint64_t n, int how)
{
    kvs_mock_fail_sync(m, n, how & 1);
}

static void arm_alloc(struct kvs_mock *m, uint64_t n, int how)
{
    kvs_mock_fail_alloc(m, n, how & 1);
}

/* The n-th call of the disk fails with an I/O error. */
static void test_wal_io__nth_call_fails__nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    sweep(&SMALL, 1, arm_io, 1);
    sweep(&SMALL, 2, arm_io, 0);
    sweep(&SMALL, 3, arm_io, 5);
}

/* The n-th call of the disk says that it is full. */
static void test_wal_io__nth_call_out_of_space__nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    sweep(&SMALL, 4, arm_io, 3);
    sweep(&SMALL, 5, arm_io, 2);
}

/* The n-th fdatasync fails. */
static void test_wal_io__nth_sync_fails__nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    sweep(&SMALL, 6, arm_sync, 1);
    sweep(&SMALL, 7, arm_sync, 0);
}

/* The n-th allocation fails: memory, queues, timers, metrics. */
static void test_wal_io__nth_allocation_fails__refused_and_nothing_leaks(void **state)
{
    (void)state;
    sweep(&SMALL, 8, arm_alloc, 1);
    sweep(&SMALL, 9, arm_alloc, 0);
    sweep(&INTERVAL, 10, arm_alloc, 1);
}

/* A drop whose clean-up failed keeps its entry until the clean-up is done: whatever is written,
 * covered and dropped meanwhile, and wherever the power goes then, the stream stays gone. */
static void test_wal_io__clean_up_of_a_drop_fails__stream_stays_gone(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 25u * 25u; n++) {
        struct world *w = wal_new(&SMALL, n, 1);

        put_ok(w, 0, 100);
        assert_int_equal(snapshot_write(w, 0, "none"), 0);
        put_ok(w, 0, 100);
        for (uint32_t i = 0; i < 12; i++) {
            put_ok(w, 1, 700);
        }
        kvs_mock_fail_io(w->mock, 1 + n / 25, 1, KVS_EIO);
        (void)stream_drop(w, 0);
        kvs_mock_fail_io(w->mock, 0, 0, 0);
        for (uint32_t i = 0; i < 4; i++) {
            put_ok(w, 1, 700);
        }
        assert_int_equal(snapshot_write(w, 1, "none"), 0); /* the segments go */
        kvs_mock_fail_io(w->mock, 1 + n % 25, 0, KVS_EIO);
        (void)stream_drop(w, 2); /* and entries with them */
        world_crash(w, n);
        wal_again(w);
        if (w->dropped[3] == 0) {
            assert_int_equal(stream_drop(w, 3), 0);
        }
        world_crash(w, n);
        wal_again(w);
        wal_end(w);
    }
}

/* Memory runs out where the streams of a segment are noted: the segment is kept. */
static void test_wal_io__note_of_a_stream_fails__segment_is_kept(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 12; n++) {
        struct world *w = wal_new(&SMALL, n, 1);

        kvs_mock_fail_alloc(w->mock, n, 1);
        (void)put(w, 0, 100);
        world_run(w);
        kvs_mock_fail_alloc(w->mock, 0, 0);
        for (uint32_t i = 0; i < 8; i++) {
            put_ok(w, 1, 700);
        }
        assert_int_equal(snapshot_write(w, 1, "none"), 0);
        world_crash(w, n);
        wal_again(w);
        wal_end(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal_io__nth_call_fails__nothing_acknowledged_is_lost),
        cmocka_unit_test(test_wal_io__nth_call_out_of_space__nothing_acknowledged_is_lost),
        cmocka_unit_test(test_wal_io__nth_sync_fails__nothing_acknowledged_is_lost),
        cmocka_unit_test(test_wal_io__nth_allocation_fails__refused_and_nothing_leaks),
        cmocka_unit_test(test_wal_io__clean_up_of_a_drop_fails__stream_stays_gone),
        cmocka_unit_test(test_wal_io__note_of_a_stream_fails__segment_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
