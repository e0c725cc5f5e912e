/* SPDX-License-Identifier: MIT
 *
 * persistence-wal: snapshots written, read, compressed, given up; streams dropped. */
#include "wal_world.h"

/* ---- a codec: what repeats every 32 bytes is stored once --------------------------------------
 */

static size_t codec_bound(void *self, size_t len)
{
    (void)self;
    return len + 100;
}

static int codec_compress(void *self, struct kvs_slice src, void *dst, size_t dst_size,
                          size_t *ret_len)
{
    (void)self;
    assert_true(dst_size >= src.len);
    memcpy(dst, src.ptr, src.len < 32 ? src.len : 32);
    *ret_len = src.len < 32 ? src.len : 32;
    for (size_t i = 32; i < src.len; i++) {
        if (src.ptr[i] != src.ptr[i - 32]) {
            *ret_len = src.len;
        }
    }
    return 0;
}

static int codec_decompress(void *self, struct kvs_slice src, void *dst, size_t dst_len)
{
    (void)self;
    if (src.len != 32) {
        return KVS_ECORRUPT;
    }
    for (size_t i = 0; i < dst_len; i++) {
        ((char *)dst)[i] = src.ptr[i % 32];
    }
    return 0;
}

static const struct kvs_compression_ops CODEC = {.size = sizeof CODEC,
                                                 .id = 200,
                                                 .bound = codec_bound,
                                                 .compress = codec_compress,
                                                 .decompress = codec_decompress};

static size_t snapshot_size(struct world *w)
{
    char path[128];
    size_t len;

    (void)file_last(w, "snapshots/", ".snap", path, &len);
    return len;
}

/* ---- writing and reading ----------------------------------------------------------------------
 */

/* Recovery gives the newest snapshot, then only what came after. */
static void test_wal__snapshots__newest_then_later_batches(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 1, 2);

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        put_ok(w, i % 3, 50);
    }
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    assert_int_equal(snapshot_write(w, 1, "none"), 0);
    put_ok(w, 0, 60);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    put_ok(w, 0, 70);
    assert_int_equal(world_status(w).snapshot_count, 2);
    assert_int_equal(file_count(w, "snapshots/"), 2); /* the former is gone */
    assert_int_equal(world_status(w).snapshot_bytes, 2 * snapshot_size(w));
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.snapshot_count, 2);
    assert_int_equal(w->got[0].count, 1);
    assert_int_equal(w->got[1].count, 0);
    assert_int_equal(w->got[2].count, 6);
    assert_int_equal(world_status(w).snapshot_count, 2);
    assert_int_equal(world_status(w).snapshot_bytes, 2 * snapshot_size(w));
    wal_end(w);
}

/* A compressed snapshot is smaller, comes back the same, and needs its codec. */
static void test_wal__compressed_snapshot__needs_its_codec(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 2, 1);
    size_t plain;

    (void)state;
    kvs_mock_add(w->mock, KVS_KIND_COMPRESSION, "thirty-two", &CODEC, NULL);
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    plain = snapshot_size(w);
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_write(w, 0, "thirty-two"), 0);
    assert_true(snapshot_size(w) < plain);
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.snapshot_count, 1);
    world_crash(w, 1); /* the plugin is not loaded any more */
    world_start(w);
    assert_int_equal(world_recover_only(w), KVS_ENOTFOUND);
    assert_non_null(strstr(w->err.msg, "plugins.compression"));
    wal_end(w);
}

/* What cannot be begun is refused with a reason. */
static void test_wal__snapshot_begin__refusals(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 3, 1);
    static char meta[KVS_SNAPSHOT_META_MAX + 1];
    struct kvs_snapshot_info info = {.stream = 1, .meta = kvs_slice(meta, sizeof meta)};
    struct kvs_snapshot *s, *second;

    (void)state;
    assert_int_equal(snapshot_begin(w, 0, 1, "brotli", &s), KVS_ENOTFOUND);
    assert_int_equal(w->ops->snapshot_begin(w->self, &info, "none", &s, &w->err), KVS_ETOOBIG);
    assert_int_equal(snapshot_begin(w, 0, 1, "none", &s), 0);
    assert_int_equal(snapshot_begin(w, 0, 1, "none", &second), KVS_EBUSY);
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_abort(w->self, s);
    world_run(w);
    assert_int_equal(snapshot_begin(w, 0, 1, "none", &second), 0);
    world_run(w);
    wal_end(w); /* neither committed nor aborted: given back at the end */
}

/* An aborted snapshot leaves nothing; the former counts. */
static void test_wal__snapshot_abort__former_counts(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 4, 1);
    struct kvs_snapshot *s;
    char block[512];
    uint32_t len;

    (void)state;
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_begin(w, 0, w->next_offset[0], "none", &s), 0);
    len = world_block(world_stream(0), w->next_offset[0], 0, block);
    assert_int_equal(snapshot_step(w, 0, s, kvs_slice(block, len)), 0);
    assert_int_equal(file_count(w, "snapshots/"), 2);
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_abort(w->self, s);
    world_run(w);
    assert_int_equal(file_count(w, "snapshots/"), 1);
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->got[0].count, 1);
    wal_end(w);
}

/* Two blocks may be under way; callbacks come in order. */
static void test_wal__two_blocks_under_way__in_order(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 5, 1);
    struct kvs_snapshot *s;
    struct step steps[3] = {0};
    static char blocks[3][512];

    (void)state;
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_begin(w, 0, w->next_offset[0], "none", &s), 0);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t len = world_block(world_stream(0), w->next_offset[0], i, blocks[i]);

        steps[i].step.block = kvs_slice(blocks[i], len);
        steps[i].step.cb = world_on_step;
    }
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_block(w->self, s, &steps[0].step);
    w->ops->snapshot_block(w->self, s, &steps[1].step);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    kvs_mock_run_until(w->mock, &steps[1].done);
    assert_true(steps[0].done);
    assert_int_equal(snapshot_step(w, 0, s, steps[2].step.block), 0);
    assert_int_equal(snapshot_step(w, 0, s, kvs_slice(NULL, 0)), 0);
    w->snapshot[0] = (struct world_snapshot){1, 3, w->next_offset[0]};
    world_stop(w);
    wal_again(w);
    assert_int_equal(w->report.snapshot_count, 1);
    wal_end(w);
}

/* A snapshot that covers less than the one there is refused: the journal is shortened already. */
static void test_wal__snapshot_of_less__refused(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 6, 1);
    uint64_t less;

    (void)state;
    put_ok(w, 0, 50);
    less = w->next_offset[0];
    put_ok(w, 0, 50);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    assert_int_equal(snapshot_write(w, 0, "none"), 0); /* the same again is nothing special */
    assert_int_equal(world_status(w).snapshot_count, 1);
    assert_int_equal(world_status(w).snapshot_bytes, snapshot_size(w));
    w->next_offset[0] = less;
    assert_int_equal(snapshot_write(w, 0, "none"), KVS_ECONFLICT);
    w->pending[0] = 0;
    world_stop(w);
    wal_again(w);
    wal_end(w);
}

/* A full disk fails the step and leaves only abort; appends are not hurt. */
static void test_wal__disk_full__snapshot_fails_appends_go_on(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 7, 1);

    (void)state;
    put_ok(w, 0, 50);
    kvs_mock_disk_limit(w->mock, SEGMENT_SIZE + 300);
    assert_int_equal(snapshot_write(w, 0, "none"), KVS_ENOSPC);
    assert_int_equal(file_count(w, "snapshots/"), 0);
    put_ok(w, 0, 50);
    kvs_mock_disk_limit(w->mock, 0);
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    world_stop(w);
    wal_again(w);
    wal_end(w);
}

/* Steps asked for while the plugin stops are answered. */
static void test_wal__stop_under_a_snapshot__steps_answered(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 8, 1);
    struct kvs_snapshot *s;
    struct step first = {0}, late = {0}, drop = {0};
    char block[512];
    uint32_t len = world_block(world_stream(0), 0, 0, block);

    (void)state;
    assert_int_equal(snapshot_begin(w, 0, 5, "none", &s), 0);
    first.step.block = late.step.block = kvs_slice(block, len);
    first.step.cb = late.step.cb = drop.step.cb = world_on_step;
    w->ops->snapshot_block(w->self, s, &first.step);
    assert_int_equal(w->ops->stream_drop(w->self, world_stream(3), &drop.step), 0);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self);
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_block(w->self, s, &late.step);
    assert_false(late.done);
    w->ops->snapshot_abort(w->self, s);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    (void)kvs_mock_run(w->mock, 0);
    assert_true(first.done && late.done && drop.done);
    assert_int_equal(first.rc, 0);
    assert_int_equal(late.rc, KVS_ECANCELED);
    assert_int_equal(drop.rc, 0);
    w->plugin->fini(w->self);
    wal_again(w);
    assert_int_equal(file_count(w, "snapshots/"), 0); /* the unfinished one is tidied up */
    wal_end(w);
}

/* ---- drops ------------------------------------------------------------------------------------
 */

static size_t dropped_bytes(struct world *w)
{
    size_t len;

    return kvs_mock_file(w->mock, "journal/dropped", &len) == NULL ? 0 : len - 16;
}

/* A dropped stream is gone, with its snapshot, after every later start. */
static void test_wal__drop__gone_after_every_start(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 9, 2);

    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        put_ok(w, i % 3, 100);
    }
    assert_int_equal(snapshot_write(w, 0, "none"), 0);
    put_ok(w, 0, 100);
    assert_int_equal(stream_drop(w, 0), 0);
    assert_int_equal(stream_drop(w, 1), 0);
    assert_int_equal(stream_drop(w, 1), 0); /* again: nothing more */
    assert_int_equal(file_count(w, "snapshots/"), 0);
    assert_int_equal(world_status(w).snapshot_count, 0);
    assert_int_equal(world_status(w).snapshot_bytes, 0);
    for (uint64_t i = 0; i < 6; i++) {
        if (i % 2 == 0) {
            world_crash(w, i);
        } else {
            world_stop(w);
        }
        wal_again(w);
        assert_int_equal(w->got[2].count, 4 + i);
        put_ok(w, 2, 20);
    }
    wal_end(w);
}

/* Appends made before the drop, still on their way, are dropped too, wherever they land. */
static void test_wal__drop_behind_appends__all_gone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct world *w = wal_new(&WAL_ALWAYS, seed, 3);
        struct step drops[3] = {0};

        for (uint32_t i = 0; i < 30; i++) {
            (void)put(w, i % 3, 700);
        }
        for (uint32_t i = 0; i < 3; i++) {
            drops[i].step.cb = world_on_step;
            kvs_mock_enter(w->mock, i);
            assert_int_equal(w->ops->stream_drop(w->self, world_stream(i), &drops[i].step), 0);
            w->dropped[i] = 2;
        }
        world_run(w);
        for (uint32_t i = 0; i < 3; i++) {
            assert_true(drops[i].done);
            assert_int_equal(drops[i].rc, 0);
        }
        assert_int_equal(w->acked, 30);
        put_ok(w, 4, 50);
        world_crash(w, seed);
        wal_again(w);
        wal_end(w);
    }
}

/* A drop that joins one already on its way to the journal thread still comes after what its loop
 * appended: the entry must outlive the segments that hold the stream. */
static void test_wal__drop_joins_another__entry_outlives_its_batches(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 14, 3);
    struct step drops[2] = {{.step = {.cb = world_on_step}}, {.step = {.cb = world_on_step}}};
    struct kvs_snapshot *s;
    uint64_t covered = 0;
    char block[512];

    (void)state;
    kvs_mock_enter(w->mock, 0);
    assert_int_equal(w->ops->stream_drop(w->self, world_stream(3), &drops[0].step), 0);
    for (uint32_t i = 0; i < 1200; i++) { /* more than a group: several segments */
        (void)put(w, i % 2 == 0 ? 1 : 4, 30);
        covered = i < 1100 ? w->next_offset[4] : covered;
    }
    kvs_mock_enter(w->mock, 1);
    assert_int_equal(w->ops->stream_drop(w->self, world_stream(1), &drops[1].step), 0);
    world_run(w);
    assert_true(drops[0].done && drops[1].done);
    w->dropped[1] = w->dropped[3] = 2;
    assert_true(world_status(w).journal_segments > 1);
    assert_int_equal(snapshot_begin(w, 4, covered, "none", &s), 0);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t len = world_block(world_stream(4), covered, i, block);

        assert_int_equal(snapshot_step(w, 4, s, kvs_slice(block, len)), 0);
    }
    assert_int_equal(snapshot_step(w, 4, s, kvs_slice(NULL, 0)), 0);
    w->snapshot[4] = (struct world_snapshot){1, 3, covered};
    world_run(w);
    assert_int_equal(world_status(w).journal_segments, 1); /* the first is gone */
    assert_int_equal(stream_drop(w, 5), 0);                /* and with it entries */
    world_crash(w, 1);
    wal_again(w);
    wal_end(w);
}

/* The list of dropped streams does not grow for ever: entries go with the segments. */
static void test_wal__drops__forgotten_with_the_segments(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 11, 1);

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        put_ok(w, i, 100);
        assert_int_equal(stream_drop(w, i), 0);
    }
    assert_int_equal(dropped_bytes(w), 4 * 16);
    for (uint32_t i = 0; i < 20; i++) {
        put_ok(w, 4, 700);
    }
    assert_int_equal(snapshot_write(w, 4, "none"), 0);
    assert_int_equal(stream_drop(w, 5), 0);
    assert_int_equal(dropped_bytes(w), 16);
    world_crash(w, 1);
    wal_again(w);
    wal_end(w);
}

/* A snapshot that is being written of a dropped stream cannot be committed. */
static void test_wal__drop_under_a_snapshot__not_committed(void **state)
{
    struct world *w = wal_new(&WAL_ALWAYS, 12, 1);
    struct kvs_snapshot *s;

    (void)state;
    put_ok(w, 0, 100);
    assert_int_equal(snapshot_begin(w, 0, w->next_offset[0], "none", &s), 0);
    assert_int_equal(stream_drop(w, 0), 0);
    assert_int_equal(snapshot_step(w, 0, s, kvs_slice(NULL, 0)), KVS_ECANCELED);
    kvs_mock_enter(w->mock, 0);
    w->ops->snapshot_abort(w->self, s);
    world_run(w);
    assert_int_equal(file_count(w, "snapshots/"), 0);
    world_stop(w);
    wal_again(w);
    wal_end(w);
}

/* Many drops asked for at once share the write. */
static void test_wal__many_drops__one_write(void **state)
{
    enum { COUNT = 500 };
    struct world *w = wal_new(&WAL_ALWAYS, 13, 1);
    struct step *steps = world_alloc(COUNT * sizeof *steps);

    (void)state;
    kvs_mock_enter(w->mock, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        steps[i].step.cb = world_on_step;
        assert_int_equal(w->ops->stream_drop(w->self, 1000 + i, &steps[i].step), 0);
    }
    /* Enough calls for a few writes of the file, not for hundreds. */
    kvs_mock_fail_io(w->mock, 60, 0, KVS_EIO);
    world_run(w);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(steps[i].done);
        assert_int_equal(steps[i].rc, 0);
    }
    kvs_mock_fail_io(w->mock, 0, 0, 0);
    assert_int_equal(dropped_bytes(w), COUNT * 16);
    free(steps);
    wal_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal__snapshots__newest_then_later_batches),
        cmocka_unit_test(test_wal__compressed_snapshot__needs_its_codec),
        cmocka_unit_test(test_wal__snapshot_begin__refusals),
        cmocka_unit_test(test_wal__snapshot_abort__former_counts),
        cmocka_unit_test(test_wal__two_blocks_under_way__in_order),
        cmocka_unit_test(test_wal__snapshot_of_less__refused),
        cmocka_unit_test(test_wal__disk_full__snapshot_fails_appends_go_on),
        cmocka_unit_test(test_wal__stop_under_a_snapshot__steps_answered),
        cmocka_unit_test(test_wal__drop__gone_after_every_start),
        cmocka_unit_test(test_wal__drop_behind_appends__all_gone),
        cmocka_unit_test(test_wal__drop_joins_another__entry_outlives_its_batches),
        cmocka_unit_test(test_wal__drops__forgotten_with_the_segments),
        cmocka_unit_test(test_wal__drop_under_a_snapshot__not_committed),
        cmocka_unit_test(test_wal__many_drops__one_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
