/* SPDX-License-Identifier: MIT
 *
 * The partition engine: remembered answers, snapshots, recovery. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "partition_world.h"

static void on_snapshot_end(void *arg, int rc)
{
    *(int *)arg = rc;
}

/* ---- idempotency -------------------------------------------------------------------------------
 */

static uint32_t put_once(struct world *w, const char *key, const char *idempotency_key,
                         uint64_t hash, int *ret_rc)
{
    struct request r = {.fired = 0};
    struct write_op op = op_put(key, "v");
    int rc;

    r.wb.idempotency_key = kvs_slice_str(idempotency_key);
    r.wb.idempotency_hash = hash;
    rc = world_submit(w, &r, &op, 1, 0, 2);
    if (rc == 0) {
        world_settle(w);
        assert_int_equal(r.fired, 1);
        rc = r.rc;
    }
    request_fini(&r);
    *ret_rc = rc;
    return r.wb.replayed;
}

static void test_idempotency__repeat__gets_the_stored_answer_also_after_recovery(void **state)
{
    /* A repeat changes nothing and hears the same; another request under the key is refused; both
     * also after a recovery from the journal, and from a snapshot. */
    struct world w;
    int rc;

    (void)state;
    world_open(&w, 1, 0, 0);
    assert_true(put_once(&w, "a", "id", 7, &rc) == 0 && rc == 0);
    for (int round = 0; round < 3; round++) {
        uint64_t leo = world_stats(w.p).leo;

        assert_true(put_once(&w, "a", "id", 7, &rc) == 1 && rc == 0);
        (void)put_once(&w, "a", "id", 8, &rc);
        assert_int_equal(rc, KVS_EREUSED);
        assert_true(world_stats(w.p).leo == leo && world_stats(w.p).idempotency_keys == 1);
        if (round == 1) {
            assert_int_equal(world_snapshot(&w), 0);
        }
        world_stop(&w);
        assert_int_equal(world_recover(&w, &w.p, NULL), 0);
    }
    world_close(&w);
}

static void test_idempotency__original_is_rolled_back__key_is_free_again(void **state)
{
    /* A repeat waits for the original; when that fails, both fail, and the third try works. */
    struct world w;
    struct request r[2];
    struct write_op ops[2] = {op_put("a", "1"), op_put("a", "1")};
    int rc;

    (void)state;
    world_open(&w, 1, 0, 0);
    for (int i = 0; i < 2; i++) {
        memset(&r[i], 0, sizeof r[i]);
        r[i].wb.idempotency_key = kvs_slice_str("id");
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, 2), 0);
        world_round(&w);
    }
    assert_true(r[1].wb.replayed == 1 && r[1].fired == 0);
    journal_fail(&w.journal, KVS_ENOSPC);
    for (int i = 0; i < 2; i++) {
        assert_true(r[i].fired == 1 && r[i].rc == KVS_ENOSPC);
        request_fini(&r[i]);
    }
    assert_true(world_stats(w.p).idempotency_keys == 0);
    assert_true(put_once(&w, "a", "id", 0, &rc) == 0 && rc == 0);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_idempotency__window__is_bounded_by_time_and_count(void **state)
{
    /* The oldest go when there are too many, all go when the window has passed. */
    struct world w;
    char id[16];
    int rc;

    (void)state;
    world_open(&w, 1, 0, 0);
    world_stop(&w);
    w.conf.idempotency_count_max = 5;
    w.conf.idempotency_window_ms = 1000;
    assert_int_equal(world_start(&w), 0);
    for (int i = 0; i < 8; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_true(put_once(&w, "a", id, 0, &rc) == 0 && rc == 0);
    }
    (void)partition_expire(w.p, world_now(&w), 10);
    assert_true(world_stats(w.p).idempotency_keys == 5);
    assert_true(put_once(&w, "a", "id7", 0, &rc) == 1 && rc == 0);
    (void)kvs_mock_run(w.mock, 1001);
    (void)partition_expire(w.p, world_now(&w), 10);
    assert_true(world_stats(w.p).idempotency_keys == 0);
    assert_true(put_once(&w, "a", "id7", 0, &rc) == 0 && rc == 0);
    world_close(&w);
}

/* ---- snapshots and recovery --------------------------------------------------------------------
 */

static void churn(struct world *w, uint32_t from, uint32_t count)
{
    char key[16], value[32];

    for (uint32_t i = from; i < from + count; i++) {
        struct write_op op;

        (void)snprintf(key, sizeof key, "k%03u", i * 37 % 100);
        (void)snprintf(value, sizeof value, "{\"color\":\"c%u\"}", i % 7);
        op = i % 5 == 4 ? op_of(WRITE_DELETE, key)
                        : (i % 5 == 3 ? op_of(WRITE_TOUCH, key) : op_put(key, value));
        op.expires_at_ms = i % 3 == 0 ? world_now(w) + 100000 + i : 0;
        (void)world_do(w, op);
    }
}

static void test_snapshot__writes_between_its_slices__recovery_equals(void **state)
{
    /* The walk of an ordered and of an unordered table, with every kind of change beneath it. */
    (void)state;
    for (uint32_t flags = 0; flags < 4; flags++) {
        struct world w;
        uint64_t begun_at;
        uint32_t n = 0;
        int rc = 1, more = 1;

        world_open(&w, 1, flags, 4);
        churn(&w, 0, 150);
        begun_at = world_stats(w.p).hw;
        assert_int_equal(partition_snapshot_begin(w.p, 3, on_snapshot_end, &rc), 0);
        while (more) {
            more = world_post_one(&w);
            more |= n % 3 == 0 && journal_step(&w.journal);
            more |= w.journal.step_count > 0;
            churn(&w, 150 + 4 * n++, 4);
            assert_int_equal(partition_verify(w.p), 0);
        }
        assert_int_equal(rc, 0);
        assert_true(w.journal.has_kept && partition_snapshot_offset(w.p) == begun_at);
        assert_true(world_recovers(&w));
        churn(&w, 2000, 50);
        assert_int_equal(world_snapshot(&w), 0);
        assert_true(world_recovers(&w));
        world_close(&w);
    }
}

static void test_snapshot__several_blocks_on_their_way__none_is_lost(void **state)
{
    /* A slow disk: the second block is half full when the first is written. */
    static char value[4096];

    (void)state;
    memset(value, 'v', sizeof value);
    for (uint32_t flags = 0; flags < 2; flags++) {
        struct world w;
        uint32_t turn = 0;
        int rc = 1, more = 1;

        world_open(&w, 1, flags, 0);
        for (uint32_t i = 0; i < 300; i++) {
            struct write_op op;
            char key[16];

            (void)snprintf(key, sizeof key, "k%03u", i);
            op = op_put(key, "");
            op.value = kvs_slice(value, sizeof value);
            (void)world_do(&w, op);
        }
        assert_int_equal(partition_snapshot_begin(w.p, 3, on_snapshot_end, &rc), 0);
        while (more) {
            more = world_post_one(&w);
            more |= turn++ % 7 == 6 && journal_step(&w.journal);
            more |= w.journal.step_count > 0;
        }
        assert_int_equal(rc, 0);
        assert_true(world_recovers(&w));
        world_close(&w);
    }
}

static void test_snapshot__a_step_fails__it_is_given_up_and_another_works(void **state)
{
    /* The former snapshot stays; the partition goes on. */
    struct world w;

    (void)state;
    world_open(&w, 1, 0, 0);
    churn(&w, 0, 40);
    assert_int_equal(world_snapshot(&w), 0);
    churn(&w, 40, 40);
    w.journal.fail_snapshot = KVS_ENOSPC;
    assert_int_equal(world_snapshot(&w), KVS_ENOSPC);
    assert_true(partition_snapshot_offset(w.p) < world_stats(w.p).hw);
    assert_true(world_recovers(&w));
    w.journal.fail_snapshot = 0;
    assert_int_equal(world_snapshot(&w), 0);
    assert_true(partition_snapshot_offset(w.p) == world_stats(w.p).hw);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_snapshot__of_nothing__recovers_to_nothing_at_the_right_offset(void **state)
{
    /* All items are gone, but the offsets go on. */
    struct world w;

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("k", "v"));
    (void)world_do(&w, op_of(WRITE_DELETE, "k"));
    assert_int_equal(world_snapshot(&w), 0);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_snapshot__largest_value__fits_a_block(void **state)
{
    /* Values of KVS_VALUE_SIZE_MAX: what a block may hold is a contract (the fake journal checks).
     */
    struct world w;
    struct write_op op = op_put("big", "");
    char *big = malloc(KVS_VALUE_SIZE_MAX);

    (void)state;
    assert_non_null(big);
    memset(big, 'x', KVS_VALUE_SIZE_MAX);
    world_open(&w, 1, 0, 0);
    churn(&w, 0, 20);
    op.value = kvs_slice(big, KVS_VALUE_SIZE_MAX);
    (void)world_do(&w, op);
    assert_int_equal(world_snapshot(&w), 0);
    assert_true(world_recovers(&w));
    free(big);
    world_close(&w);
}

static void test_recovery__a_batch_is_missing_or_damaged__is_refused(void **state)
{
    /* Holes, records cut short or garbled, a codec that is not there: never served. */
    struct world w;
    struct partition *again;
    struct kvs_error err = {0};
    struct kvs_batch_header h;
    struct kvs_slice payload;
    char *copy;

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("k", "value"));
    (void)world_do(&w, op_put("l", "value"));
    assert_int_equal(kvs_batch_open(kvs_slice(w.journal.batches[1].ptr, w.journal.batches[1].len),
                                    &h, &payload, &err),
                     0);
    assert_int_equal(partition_new(&w.conf, &again, &err), 0);
    assert_int_equal(partition_recover_batch(again, &h, payload, &err), KVS_ECORRUPT);
    h.base_offset = 0;
    h.codec = 99;
    assert_int_equal(partition_recover_batch(again, &h, payload, &err), KVS_ENOTFOUND);
    h.codec = KVS_CODEC_LZ4;
    h.raw_size = 100;
    assert_int_equal(partition_recover_batch(again, &h, payload, &err), KVS_ECORRUPT);
    h.codec = KVS_CODEC_NONE;
    copy = malloc(payload.len);
    assert_non_null(copy);
    for (size_t cut = 0; cut < payload.len; cut++) {
        memcpy(copy, payload.ptr, payload.len);
        assert_int_equal(partition_recover_batch(again, &h, kvs_slice(copy, cut), &err),
                         KVS_ECORRUPT);
    }
    h.count = 2; /* one is there */
    assert_int_equal(partition_recover_batch(again, &h, payload, &err), KVS_ECORRUPT);
    free(copy);
    partition_free(again);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idempotency__repeat__gets_the_stored_answer_also_after_recovery),
        cmocka_unit_test(test_idempotency__original_is_rolled_back__key_is_free_again),
        cmocka_unit_test(test_idempotency__window__is_bounded_by_time_and_count),
        cmocka_unit_test(test_snapshot__writes_between_its_slices__recovery_equals),
        cmocka_unit_test(test_snapshot__several_blocks_on_their_way__none_is_lost),
        cmocka_unit_test(test_snapshot__a_step_fails__it_is_given_up_and_another_works),
        cmocka_unit_test(test_snapshot__of_nothing__recovers_to_nothing_at_the_right_offset),
        cmocka_unit_test(test_snapshot__largest_value__fits_a_block),
        cmocka_unit_test(test_recovery__a_batch_is_missing_or_damaged__is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
