/* SPDX-License-Identifier: MIT
 *
 * The partition engine, behaviour by behaviour: writes, reads, the journal's answers, closing,
 * expiry. Snapshots and recovery: test_partition_recovery.c; indexes: test_partition_index.c; all
 * at once: test_partition_model.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "partition_world.h"

/* ---- writes and reads --------------------------------------------------------------------------
 */

static void test_write__put_get_delete__versions_and_parts_come_back(void **state)
{
    /* What was put comes back with all its parts, under the offset of its record. */
    struct world w;
    struct write_op op = op_put("k", "v1");
    struct item_view v;

    (void)state;
    world_open(&w, 1, 0, 0);
    op.partition_key = kvs_slice_str("pk");
    op.content_type = kvs_slice_str("text/plain");
    op = world_do(&w, op);
    assert_int_equal(op.result, WRITE_CREATED);
    assert_true(op.version.epoch == 1 && op.version.offset == 0);
    assert_int_equal(partition_get(w.p, kvs_slice_str("k"), READ_COMMITTED, 0, &v), 1);
    assert_true(kvs_slice_eq_str(v.key, "k") && kvs_slice_eq_str(v.partition_key, "pk"));
    assert_true(kvs_slice_eq_str(v.value, "v1"));
    assert_true(kvs_slice_eq_str(v.content_type, "text/plain"));
    assert_true(v.version.offset == 0 && v.expires_at_ms == 0);

    op = world_do(&w, op_put("k", ""));
    assert_int_equal(op.result, WRITE_REPLACED);
    assert_true(op.version.offset == 1);
    assert_int_equal(partition_get(w.p, kvs_slice_str("k"), READ_COMMITTED, 0, &v), 1);
    assert_true(v.value.len == 0 && v.content_type.len == 0);
    assert_true(kvs_slice_eq_str(v.partition_key, "k"));

    assert_int_equal(world_do(&w, op_of(WRITE_DELETE, "k")).result, WRITE_DELETED);
    assert_int_equal(world_do(&w, op_of(WRITE_DELETE, "k")).result, WRITE_NOT_FOUND);
    assert_true(world_has(&w, "k", READ_UNCOMMITTED, NULL));
    assert_true(world_stats(w.p).item_count == 0 && world_stats(w.p).tombstones == 0);
    assert_true(world_stats(w.p).leo == 3 && world_stats(w.p).hw == 3);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_write__before_it_is_durable__committed_readers_see_the_former_version(void **state)
{
    /* Both read levels over a chain of uncommitted versions, step by step. */
    static const char *const COMMITTED[] = {"a", "b", NULL, "c"};
    struct world w;
    struct request r[3];
    struct write_op ops[3] = {op_put("k", "b"), op_of(WRITE_DELETE, "k"), op_put("k", "c")};

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("k", "a"));
    for (int i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, 1), 0);
        world_round(&w);
    }
    assert_int_equal(w.journal.flight_count, 3);
    for (int i = 0; i < 4; i++) {
        assert_true(world_has(&w, "k", READ_COMMITTED, COMMITTED[i]));
        assert_true(world_has(&w, "k", READ_UNCOMMITTED, "c"));
        for (int n = 0; n < 3; n++) {
            assert_int_equal(r[n].fired, n < i);
        }
        (void)journal_complete(&w.journal);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r[i].rc, 0);
        request_fini(&r[i]);
    }
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_write__acks__none_answers_at_once_others_when_durable(void **state)
{
    /* acks 0 fires inside the call; 1 and 2 wait for the journal; all of a round are one batch. */
    struct world w;
    struct request r[3];
    struct write_op ops[3] = {op_put("a", "1"), op_put("b", "2"), op_put("c", "3")};

    (void)state;
    world_open(&w, 1, 0, 0);
    for (uint32_t i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, i), 0);
        assert_int_equal(r[i].fired, i == 0);
    }
    assert_int_equal(w.journal.flight_count, 0);
    world_round(&w);
    assert_int_equal(w.journal.flight_count, 1);
    assert_int_equal(w.journal.flight[0]->count, 3);
    assert_int_equal(r[1].fired, 0);
    world_settle(&w);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(r[i].fired == 1 && r[i].rc == 0);
        request_fini(&r[i]);
    }
    world_close(&w);
}

static void test_write__conditions__hold_against_the_newest_version(void **state)
{
    /* If-Match and create-only look at uncommitted versions, and say which version is there. */
    struct world w;
    struct write_op op;
    struct version first;

    (void)state;
    world_open(&w, 1, 0, 0);
    first = world_do(&w, op_put("k", "1")).version;
    op = op_put("k", "2");
    op.if_absent = 1;
    op = world_do(&w, op);
    assert_int_equal(op.result, WRITE_PRECONDITION);
    assert_true(op.version.offset == first.offset && op.version.epoch == first.epoch);
    op = op_put("k", "2");
    op.if_match = 1;
    op.if_version = first;
    assert_int_equal(world_do(&w, op).result, WRITE_REPLACED);
    assert_int_equal(world_do(&w, op).result, WRITE_PRECONDITION);
    op.key = kvs_slice_str("none");
    op.version = first;
    op = world_do(&w, op);
    assert_int_equal(op.result, WRITE_PRECONDITION);
    assert_true(op.version.epoch == 0); /* none is there: not what the caller had in it */
    op = op_of(WRITE_DELETE, "k");
    op.if_match = 1;
    op.if_version = first;
    assert_int_equal(world_do(&w, op).result, WRITE_PRECONDITION);
    assert_true(world_has(&w, "k", READ_COMMITTED, "2"));
    world_close(&w);
}

static void test_write__atomic_batch_fails__nothing_remains(void **state)
{
    /* All or nothing: an earlier put, delete, touch of the batch are taken back. */
    struct world w;
    struct request r = {.fired = 0};
    struct write_op ops[5] = {op_put("new", "x"), op_put("old", "y"), op_of(WRITE_DELETE, "gone"),
                              op_of(WRITE_DELETE, "absent"), op_put("never", "z")};
    uint64_t before;

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("old", "1"));
    (void)world_do(&w, op_put("gone", "1"));
    before = partition_digest(w.p);
    assert_int_equal(world_submit(&w, &r, ops, 5, 1, 2), 0);
    world_settle(&w);
    assert_true(r.fired == 1 && r.rc == 0);
    assert_int_equal(ops[3].result, WRITE_NOT_FOUND);
    for (int i = 0; i < 5; i++) {
        assert_true(i == 3 || ops[i].result == WRITE_CONFLICT);
    }
    assert_true(partition_digest(w.p) == before);
    assert_true(world_stats(w.p).leo == 2);
    request_fini(&r);
    /* The same without `atomic`: each for itself. */
    assert_int_equal(world_submit(&w, &r, ops, 5, 0, 2), 0);
    world_settle(&w);
    assert_int_equal(ops[0].result, WRITE_CREATED);
    assert_int_equal(ops[2].result, WRITE_DELETED);
    assert_int_equal(ops[3].result, WRITE_NOT_FOUND);
    assert_int_equal(ops[4].result, WRITE_CREATED);
    request_fini(&r);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_write__get_inside_a_batch__is_a_copy_of_the_uncommitted_item(void **state)
{
    /* A GET of a batch sees what the batch wrote, and outlives the item. */
    struct world w;
    struct request r = {.fired = 0};
    struct write_op ops[3] = {op_put("k", "value"), op_of(WRITE_GET, "k"),
                              op_of(WRITE_DELETE, "k")};

    (void)state;
    world_open(&w, 1, 0, 0);
    ops[0].content_type = kvs_slice_str("a/b");
    assert_int_equal(world_submit(&w, &r, ops, 3, 1, 2), 0);
    world_settle(&w);
    assert_int_equal(ops[1].result, WRITE_GOT);
    assert_true(kvs_slice_eq_str(ops[1].got.value, "value"));
    assert_true(kvs_slice_eq_str(ops[1].got.content_type, "a/b"));
    assert_true(kvs_slice_eq_str(ops[1].got.partition_key, "k"));
    request_fini(&r);
    world_close(&w);
}

static void test_write__limits__are_kept(void **state)
{
    /* Value size, item count and bytes; replacing with less and deleting always pass. */
    struct world w;
    struct table_limits l = {.max_value_bytes = 10, .max_items = 2, .max_bytes = 14};

    (void)state;
    world_open(&w, 1, 0, 0);
    partition_limits_set(w.p, &l);
    assert_int_equal(world_do(&w, op_put("a", "12345678901")).result, WRITE_TOO_LARGE);
    assert_int_equal(world_do(&w, op_put("a", "1234567890")).result, WRITE_CREATED);
    assert_int_equal(world_do(&w, op_put("b", "123")).result, WRITE_LIMIT);
    assert_int_equal(world_do(&w, op_put("b", "12")).result, WRITE_CREATED);
    assert_int_equal(world_do(&w, op_put("c", "")).result, WRITE_LIMIT);
    assert_int_equal(world_do(&w, op_put("b", "123")).result, WRITE_LIMIT);
    assert_int_equal(world_do(&w, op_put("a", "1")).result, WRITE_REPLACED);
    assert_int_equal(world_do(&w, op_put("b", "123")).result, WRITE_REPLACED);
    assert_int_equal(world_do(&w, op_of(WRITE_DELETE, "a")).result, WRITE_DELETED);
    assert_int_equal(world_do(&w, op_put("c", "")).result, WRITE_CREATED);
    world_close(&w);
}

/* ---- what the journal answers ------------------------------------------------------------------
 */

static void test_journal__disk_full__tail_is_rolled_back_and_offsets_are_reused(void **state)
{
    /* Everything uncommitted goes, also what is not sealed yet; writes work again afterwards. */
    struct world w;
    struct request r[3];
    struct write_op ops[3] = {op_put("a", "2"), op_of(WRITE_DELETE, "b"), op_put("c", "1")};

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("a", "1"));
    (void)world_do(&w, op_put("b", "1"));
    for (int i = 0; i < 3; i++) {
        memset(&r[i], 0, sizeof r[i]);
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, 2), 0);
        if (i < 2) {
            world_round(&w);
        }
    }
    journal_fail(&w.journal, KVS_ENOSPC);
    for (int i = 0; i < 3; i++) {
        assert_true(r[i].fired == 1 && r[i].rc == KVS_ENOSPC);
        request_fini(&r[i]);
    }
    world_settle(&w);
    assert_true(world_stats(w.p).leo == 2 && world_stats(w.p).hw == 2 &&
                world_stats(w.p).failed == 0);
    assert_true(world_stats(w.p).item_count == 2 && world_stats(w.p).tombstones == 0);
    assert_true(world_has(&w, "a", READ_UNCOMMITTED, "1"));
    assert_true(world_has(&w, "b", READ_UNCOMMITTED, "1"));
    assert_true(world_has(&w, "c", READ_UNCOMMITTED, NULL));
    assert_true(world_do(&w, op_put("d", "1")).version.offset == 2);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_journal__put_over_committed_delete_is_undone__tombstone_goes(void **state)
{
    /* The delete committed while a newer version hid it; when that one is undone nothing stays. */
    struct world w;
    struct request r[2];
    struct write_op ops[2] = {op_of(WRITE_DELETE, "k"), op_put("k", "2")};

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("k", "1"));
    for (int i = 0; i < 2; i++) {
        memset(&r[i], 0, sizeof r[i]);
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, 2), 0);
        world_round(&w);
    }
    (void)journal_complete(&w.journal);
    assert_true(r[0].fired == 1 && r[1].fired == 0);
    journal_fail(&w.journal, KVS_ENOSPC);
    assert_true(world_has(&w, "k", READ_UNCOMMITTED, NULL));
    assert_true(world_stats(w.p).tombstones == 0 && world_stats(w.p).item_count == 0);
    request_fini(&r[0]);
    request_fini(&r[1]);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_journal__refuses_at_once__what_is_under_way_is_still_answered(void **state)
{
    /* A refused append must not make the partition deaf to the earlier one's callback: it may
     * succeed, or fail too; its writer hears of it either way. */
    for (int fails = 0; fails < 2; fails++) {
        struct world w;
        struct request r[2];
        struct write_op ops[2] = {op_put("a", "1"), op_put("b", "1")};

        (void)state;
        world_open(&w, 1, 0, 0);
        memset(r, 0, sizeof r);
        assert_int_equal(world_submit(&w, &r[0], &ops[0], 1, 0, 2), 0);
        world_round(&w);
        w.journal.refuse = KVS_EFAILED;
        assert_int_equal(world_submit(&w, &r[1], &ops[1], 1, 0, 2), 0);
        world_round(&w);
        assert_true(r[1].fired == 1 && r[1].rc == KVS_EFAILED && r[0].fired == 0);
        if (fails) {
            journal_fail(&w.journal, KVS_EFAILED);
        } else {
            (void)journal_complete(&w.journal);
        }
        assert_true(r[0].fired == 1 && r[0].rc == (fails ? KVS_EFAILED : 0));
        assert_true(world_has(&w, "a", READ_UNCOMMITTED, fails ? NULL : "1"));
        assert_true(world_has(&w, "b", READ_UNCOMMITTED, NULL));
        assert_true(world_stats(w.p).hw == world_stats(w.p).leo);
        request_fini(&r[0]);
        request_fini(&r[1]);
        world_close(&w);
    }
}

static void test_journal__failed_for_good__writes_are_refused_and_reads_go_on(void **state)
{
    /* A failed fsync is final. */
    struct world w;
    struct request r = {.fired = 0}, late = {.fired = 0};
    struct write_op op = op_put("b", "1"), again = op_put("c", "1");

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("a", "1"));
    assert_int_equal(world_submit(&w, &r, &op, 1, 0, 2), 0);
    world_round(&w);
    journal_fail(&w.journal, KVS_EFAILED);
    assert_true(r.fired == 1 && r.rc == KVS_EFAILED);
    assert_int_equal(world_submit(&w, &late, &again, 1, 0, 2), KVS_EFAILED);
    assert_int_equal(late.fired, 0);
    assert_int_equal(partition_expire(w.p, UINT64_MAX, 10), 0);
    assert_true(world_has(&w, "a", READ_COMMITTED, "1"));
    assert_true(world_stats(w.p).failed == KVS_EFAILED);
    request_fini(&r);
    request_fini(&late);
    world_close(&w);
}

static void test_journal__more_than_a_batch_holds__becomes_several(void **state)
{
    /* 3 MiB of values in one round: batches of about 1 MiB that follow one another. */
    struct world w;
    static char big[200000];
    struct request r[16];
    struct write_op ops[16];
    char keys[16][8];

    (void)state;
    world_open(&w, 1, WORLD_LZ4, 0);
    for (uint32_t i = 0; i < 16; i++) {
        memset(big, (int)('a' + i), sizeof big);
        (void)snprintf(keys[i], sizeof keys[i], "k%u", i);
        ops[i] = op_put(keys[i], "");
        ops[i].value = kvs_slice(big, sizeof big);
        memset(&r[i], 0, sizeof r[i]);
        assert_int_equal(world_submit(&w, &r[i], &ops[i], 1, 0, 2), 0);
    }
    assert_true(w.journal.flight_count >= 2);
    world_settle(&w);
    for (uint32_t i = 0; i < 16; i++) {
        assert_true(r[i].fired == 1 && r[i].rc == 0);
        request_fini(&r[i]);
    }
    assert_true(w.journal.batch_count >= 3);
    assert_true(w.journal.batches[0].len < 100000); /* it compressed */
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_write__larger_than_any_batch__is_refused_and_harms_nothing(void **state)
{
    /* What could not be read back is not begun, and does not stop the partition. */
    struct world w;
    struct request r = {.fired = 0};
    struct write_op ops[5];
    char *big = calloc(1, KVS_VALUE_SIZE_MAX);

    (void)state;
    world_open(&w, 1, 0, 0);
    assert_non_null(big);
    for (int i = 0; i < 5; i++) {
        ops[i] = op_put("k", "");
        ops[i].value = kvs_slice(big, KVS_VALUE_SIZE_MAX);
    }
    assert_int_equal(world_submit(&w, &r, ops, 5, 1, 2), KVS_ETOOBIG);
    world_settle(&w);
    assert_int_equal(r.fired, 0);
    assert_true(world_stats(w.p).leo == 0 && world_stats(w.p).failed == 0);
    request_fini(&r);
    free(big);
    world_close(&w);
}

/* ---- closing -----------------------------------------------------------------------------------
 */

static void free_when_closed(void *arg)
{
    struct world *w = arg;

    partition_free(w->p);
    w->p = NULL;
    w->closed++;
}

static void test_close__in_the_round_of_a_write__may_be_freed_by_the_callback(void **state)
{
    /* The end of the round still has a task of the partition: it must not be done before. */
    static const uint32_t KINDS[] = {WRITE_GET, WRITE_PUT};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct world w;
        struct request r = {.fired = 0}, late = {.fired = 0};
        struct write_op op = op_of(KINDS[i], "k"), again = op_put("c", "1");

        world_open(&w, 1, 0, 0);
        assert_int_equal(world_submit(&w, &r, &op, 1, 0, 2), 0);
        partition_close(w.p, free_when_closed, &w);
        if (w.p != NULL) {
            assert_int_equal(world_submit(&w, &late, &again, 1, 0, 2), KVS_ECANCELED);
            request_fini(&late);
        }
        world_settle(&w);
        assert_true(w.closed == 1 && w.p == NULL && r.fired == 1);
        request_fini(&r);
        world_close(&w);
    }
}

static void on_snapshot_end(void *arg, int rc)
{
    *(int *)arg = rc;
}

static void test_close__snapshot_under_way__is_given_up(void **state)
{
    /* Closing does not wait for the walk to end, but for the steps under way. */
    struct world w;
    int rc = 1;

    (void)state;
    world_open(&w, 1, 0, 0);
    (void)world_do(&w, op_put("k", "v"));
    assert_int_equal(partition_snapshot_begin(w.p, 1, on_snapshot_end, &rc), 0);
    assert_int_equal(partition_snapshot_begin(w.p, 1, on_snapshot_end, &rc), KVS_EBUSY);
    partition_close(w.p, free_when_closed, &w);
    world_round(&w);
    assert_int_equal(w.closed, 0);
    while (world_post_one(&w) || journal_step(&w.journal)) {
    }
    assert_int_equal(rc, KVS_ECANCELED);
    assert_true(w.closed == 1 && !w.journal.is_writing && !w.journal.has_kept);
    world_close(&w);
}

/* ---- expiry ------------------------------------------------------------------------------------
 */

static void test_expiry__deadline_passes__invisible_at_once_and_removed_by_records(void **state)
{
    /* Readers filter by the deadline; partition_expire writes deletes, oldest first. */
    struct world w;
    struct write_op op;
    uint64_t now;
    int i;

    (void)state;
    world_open(&w, 1, 0, 0);
    now = world_now(&w);
    assert_true(partition_next_expiry(w.p) == 0);
    for (i = 0; i < 3; i++) {
        op = op_put(i == 0 ? "x" : i == 1 ? "y" : "z", "v");
        op.expires_at_ms = now + 300 - 100 * (uint64_t)i;
        (void)world_do(&w, op);
    }
    (void)world_do(&w, op_put("stays", "v"));
    assert_true(partition_next_expiry(w.p) == now + 100);
    assert_true(world_stats(w.p).expiring == 3);
    assert_int_equal(partition_expire(w.p, now + 99, 10), 0);
    (void)kvs_mock_run(w.mock, 200);
    assert_true(world_has(&w, "z", READ_COMMITTED, NULL));
    assert_true(world_has(&w, "y", READ_COMMITTED, NULL)); /* the deadline itself is past */
    assert_true(world_has(&w, "x", READ_COMMITTED, "v"));
    assert_int_equal(world_do(&w, op_of(WRITE_DELETE, "z")).result, WRITE_NOT_FOUND);
    assert_int_equal(world_do(&w, op_of(WRITE_TOUCH, "z")).result, WRITE_NOT_FOUND);
    assert_true(world_stats(w.p).item_count == 4);
    assert_int_equal(partition_expire(w.p, world_now(&w), 1), 1);
    assert_true(partition_next_expiry(w.p) == now + 200);
    assert_int_equal(partition_expire(w.p, world_now(&w), 10), 1);
    world_settle(&w);
    assert_true(world_stats(w.p).item_count == 2 && world_stats(w.p).expiring == 1);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_expiry__touch_and_replace__move_the_deadline(void **state)
{
    /* A touch keeps everything else; a put without TTL and a touch to "never" take it away. */
    struct world w;
    struct write_op op = op_put("k", "v");
    struct item_view v;
    uint64_t now;

    (void)state;
    world_open(&w, 1, 0, 0);
    now = world_now(&w);
    op.expires_at_ms = now + 100;
    op.partition_key = kvs_slice_str("pk");
    op.content_type = kvs_slice_str("t/t");
    (void)world_do(&w, op);
    op = op_of(WRITE_TOUCH, "k");
    op.expires_at_ms = now + 500;
    assert_int_equal(world_do(&w, op).result, WRITE_TOUCHED);
    assert_true(partition_next_expiry(w.p) == now + 500);
    (void)kvs_mock_run(w.mock, 200);
    assert_int_equal(partition_expire(w.p, world_now(&w), 10), 0);
    assert_int_equal(partition_get(w.p, kvs_slice_str("k"), 0, world_now(&w), &v), 1);
    assert_true(v.expires_at_ms == now + 500 && v.version.offset == 1);
    assert_true(kvs_slice_eq_str(v.partition_key, "pk") && kvs_slice_eq_str(v.value, "v"));
    assert_true(kvs_slice_eq_str(v.content_type, "t/t"));
    assert_true(world_recovers(&w));
    op.expires_at_ms = 0;
    assert_int_equal(world_do(&w, op).result, WRITE_TOUCHED);
    assert_true(partition_next_expiry(w.p) == 0 && world_stats(w.p).expiring == 0);
    assert_int_equal(world_do(&w, op_of(WRITE_TOUCH, "none")).result, WRITE_NOT_FOUND);
    assert_true(world_recovers(&w));
    world_close(&w);
}

static void test_expiry__removal_is_rolled_back__item_expires_again(void **state)
{
    /* The disk is full while an expired item is removed: it stays invisible, removal comes again.
     */
    struct world w;
    struct write_op op = op_put("k", "v");
    uint64_t now;

    (void)state;
    world_open(&w, 1, 0, 0);
    now = world_now(&w);
    op.expires_at_ms = now + 10;
    (void)world_do(&w, op);
    assert_int_equal(partition_expire(w.p, now + 10, 10), 1);
    assert_int_equal(partition_expire(w.p, now + 10, 10), 0);
    world_round(&w);
    journal_fail(&w.journal, KVS_ENOSPC);
    assert_true(partition_next_expiry(w.p) == now + 10 && world_stats(w.p).expiring == 1);
    assert_int_equal(partition_expire(w.p, now + 10, 10), 1);
    world_settle(&w);
    assert_true(world_stats(w.p).item_count == 0);
    assert_true(world_recovers(&w));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write__put_get_delete__versions_and_parts_come_back),
        cmocka_unit_test(
            test_write__before_it_is_durable__committed_readers_see_the_former_version),
        cmocka_unit_test(test_write__acks__none_answers_at_once_others_when_durable),
        cmocka_unit_test(test_write__conditions__hold_against_the_newest_version),
        cmocka_unit_test(test_write__atomic_batch_fails__nothing_remains),
        cmocka_unit_test(test_write__get_inside_a_batch__is_a_copy_of_the_uncommitted_item),
        cmocka_unit_test(test_write__limits__are_kept),
        cmocka_unit_test(test_journal__disk_full__tail_is_rolled_back_and_offsets_are_reused),
        cmocka_unit_test(test_journal__put_over_committed_delete_is_undone__tombstone_goes),
        cmocka_unit_test(test_journal__refuses_at_once__what_is_under_way_is_still_answered),
        cmocka_unit_test(test_journal__failed_for_good__writes_are_refused_and_reads_go_on),
        cmocka_unit_test(test_journal__more_than_a_batch_holds__becomes_several),
        cmocka_unit_test(test_write__larger_than_any_batch__is_refused_and_harms_nothing),
        cmocka_unit_test(test_close__in_the_round_of_a_write__may_be_freed_by_the_callback),
        cmocka_unit_test(test_close__snapshot_under_way__is_given_up),
        cmocka_unit_test(test_expiry__deadline_passes__invisible_at_once_and_removed_by_records),
        cmocka_unit_test(test_expiry__touch_and_replace__move_the_deadline),
        cmocka_unit_test(test_expiry__removal_is_rolled_back__item_expires_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
