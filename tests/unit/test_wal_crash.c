/* SPDX-License-Identifier: MIT
 *
 * persistence-wal and power cuts: random use, cut at a random moment, again and again on the same
 * disk. Every acknowledged batch is there after each, in order, and nothing else but what was under
 * way; recovery itself is cut, too.
 *
 *   test_wal_crash [FIRST_SEED [COUNT]] */
#include "wal_world.h"

static uint64_t first_seed, seed_count = 3000;

static const struct wal_conf SMALL = {WAL_SYNC_ALWAYS, 100, 6 * 512, 60000};

/* A little use of the journal. Returns 0 once it takes no more. */
static int use(struct world *w)
{
    uint32_t stream = (uint32_t)(world_random(w) % WORLD_STREAMS);

    switch (world_random(w) % 16) {
    case 0:
        if (w->dropped[stream] == 0 && w->pending[stream] == 0) {
            (void)snapshot_write(w, stream, "none"); /* may fail: of that there are tests */
        }
        return 1;
    case 1:
        if (world_random(w) % 6 == 0 && w->dropped[stream] == 0) {
            (void)stream_drop(w, stream);
        }
        return 1;
    case 2:
    case 3:
    case 4:
        world_run(w);
        return 1;
    case 5:
        kvs_mock_disk_limit(w->mock, world_random(w) % 2 == 0 ? 0 : 9000);
        return 1;
    default:
        return w->dropped[stream] != 0 ||
               put_try(w, stream, 8 + (uint32_t)(world_random(w) % 900), NULL) == 0;
    }
}

/* Start; with `cut` the power goes after so many calls of the disk, perhaps. 0: it went. */
static int start(struct world *w, uint64_t cut)
{
    int rc;

    kvs_mock_disk_limit(w->mock, 0);
    kvs_mock_fail_io(w->mock, cut, 0, KVS_EIO);
    rc = world_try_start(w);
    rc = rc != 0 ? rc : world_recover_only(w);
    if (cut == 0 && rc != 0) {
        (void)fprintf(stderr, "recovery: %s\n", w->err.msg);
    }
    assert_true(rc == 0 || (cut != 0 && kvs_mock_fault_fired(w->mock)));
    for (uint32_t i = 0; i < WORLD_STREAMS && rc == 0; i++) {
        world_check_stream(w, i);
        world_adopt(w, i);
    }
    return rc == 0;
}

static void end(struct world *w, uint64_t seed)
{
    uint64_t how = world_random(w) % 8;

    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    if (w->self != NULL && how == 0) {
        world_stop(w);
    } else if (w->self != NULL && how == 1) {
        world_run(w);
        world_kill(w);
    } else {
        world_crash(w, seed);
    }
}

static void life(struct world *w, uint64_t seed)
{
    uint64_t cut = world_random(w) % 4 == 0 ? 1 + world_random(w) % 40 : 0;

    if (!start(w, cut)) {
        world_crash(w, seed);
        (void)start(w, 0);
    }
    /* From now on the power may go inside any call of the disk: that one is half done, none after
     * it happens. */
    w->tolerant = world_random(w) % 3 != 0;
    kvs_mock_fail_io(w->mock, w->tolerant ? 1 + world_random(w) % 150 : 0, 0, KVS_EIO);
    for (uint64_t n = world_random(w) % 60; n > 0 && use(w); n--) {
    }
    end(w, seed);
    w->tolerant = 0;
}

/* Thousands of seeds, a few lives each. */
static void test_wal__power_cuts__acknowledged_survives_in_order(void **state)
{
    uint64_t acked = 0;

    (void)state;
    for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct world *w = world_new(kvs_plugin_entry(), &SMALL, seed, 1 + (uint32_t)(seed % 3));
        uint64_t lives = 3 + world_random(w) % 4;

        if (getenv("KVS_SEED_TRACE") != NULL) {
            (void)fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        }
        for (uint64_t i = 0; i < lives; i++) {
            life(w, seed * 16 + i);
        }
        kvs_mock_fail_io(w->mock, 0, 0, 0);
        assert_true(start(w, 0));
        for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
            if (w->dropped[i] == 0) {
                put_ok(w, i, 50);
            }
        }
        acked += w->acked;
        wal_end(w);
    }
    assert_true(acked > seed_count * 10); /* the test is about something */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal__power_cuts__acknowledged_survives_in_order),
    };

    if (argc > 1) {
        first_seed = strtoull(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
