/* SPDX-License-Identifier: MIT
 *
 * persistence-wal and damaged files: what is served is right, what is missing is reported, and
 * nothing crashes; for every bit of a journal file and of a snapshot, and for every length. */
#include "wal_world.h"

#define BATCHES 5u

/* What a recovery of damaged files may be. */
enum verdict { SAME, TORN, REFUSED };

/* The files of a small world, to be damaged again and again. */
struct original {
    struct world *w;
    char path[128];
    uint8_t bytes[3 * SEGMENT_SIZE];
    size_t len;
    uint64_t batches;
};

/* Cut or grow the file on the fake disk to n bytes, and give it the bytes of the original. */
static void file_restore(struct original *o, size_t n)
{
    const struct kvs_fs *fs = o->w->host->fs;
    struct kvs_slice bytes = {(const char *)o->bytes, n};
    struct kvs_file *file;

    assert_int_equal(fs->open(fs->ctx, o->path, KVS_FS_WRITE | KVS_FS_CREATE, &file, NULL), 0);
    assert_int_equal(fs->truncate(fs->ctx, file, n, NULL), 0);
    assert_int_equal(fs->write(fs->ctx, file, 0, &bytes, 1, NULL), 0);
    assert_int_equal(fs->sync(fs->ctx, file, NULL), 0);
    fs->close(fs->ctx, file);
}

static void original_keep(struct original *o, const char *prefix, const char *suffix)
{
    uint8_t *bytes = file_last(o->w, prefix, suffix, o->path, &o->len);

    assert_true(o->len <= sizeof o->bytes);
    memcpy(o->bytes, bytes, o->len);
}

/* What judge() appends: its segment is not part of what is damaged. */
static void successor_remove(struct original *o)
{
    const struct kvs_fs *fs = o->w->host->fs;
    char path[64];

    segment_path(path, 1);
    (void)fs->remove(fs->ctx, path, NULL);
}

/* Recover; on success everything is right and in order, from the first on. */
static enum verdict judge(struct original *o)
{
    struct world *w = o->w;
    enum verdict v;
    int rc;

    world_start(w);
    rc = world_recover_only(w);
    if (rc != 0) {
        assert_true(rc == KVS_ECORRUPT || rc == KVS_EFORMAT);
        assert_non_null(strstr(w->err.msg, o->path)); /* the operator is told the file */
        assert_true(rc == KVS_EFORMAT || strstr(w->err.msg, "offset ") != NULL);
        v = REFUSED;
    } else {
        assert_true(w->got[0].count <= w->wrote[0].count);
        for (size_t i = 0; i < w->got[0].count; i++) {
            assert_int_equal(w->got[0].at[i].tag, w->wrote[0].at[i].tag);
        }
        v = w->got[0].count == o->batches ? SAME : TORN;
        assert_true(v == SAME || w->report.torn_bytes > 0); /* never silently */
    }
    assert_int_equal(put_try(w, 1, 20, NULL), rc == 0 ? 0 : KVS_ESTATE);
    world_run(w);
    w->wrote[1].count = 0;
    w->next_offset[1] = 0;
    world_kill(w);
    successor_remove(o);
    return v;
}

/* A journal of one segment that ended without a marker. */
static void journal_make(struct original *o, const struct wal_conf *conf)
{
    memset(o, 0, sizeof *o);
    o->w = wal_new(conf, 1, 1);
    for (uint32_t i = 0; i < BATCHES; i++) {
        put_ok(o->w, 0, 40 + i * 50);
    }
    o->batches = BATCHES;
    world_kill(o->w);
    original_keep(o, "journal/", ".seg");
}

/* Where frame i begins. */
static size_t frame_offset(const struct original *o, uint32_t i)
{
    size_t at = SEGMENT_HEADER_SIZE;

    while (i-- > 0) {
        at += frame_total(kvs_get_u32(o->bytes + at + 8));
    }
    return at;
}

/* Every bit of a journal file flipped: the last frame may be cut, with a report; a flip in what was
 * durable before it stops; one in unused bytes changes nothing. */
static void test_wal__bit_flips_in_journal__never_served_silently(void **state)
{
    struct original o;
    uint64_t count[3] = {0};

    (void)state;
    journal_make(&o, &WAL_ALWAYS);
    for (size_t bit = 0; bit < o.len * 8; bit++) {
        size_t at = bit / 8, len;
        enum verdict v;

        file_restore(&o, o.len);
        kvs_mock_file(o.w->mock, o.path, &len)[at] ^= (uint8_t)(1u << bit % 8);
        v = judge(&o);
        count[v]++;
        if (at < SEGMENT_HEADER_SIZE) {
            assert_int_equal(v, REFUSED);
        } else if (at < frame_offset(&o, BATCHES - 1)) {
            assert_true(v == REFUSED || v == SAME); /* the same: padding */
        }
    }
    assert_true(count[SAME] > 0 && count[TORN] > 0 && count[REFUSED] > 0);
    world_free(o.w);
}

/* The same behind an orderly stop: nothing is cut, because the marker says how much there is. */
static void test_wal__bit_flips_after_clean_stop__nothing_is_cut(void **state)
{
    struct original o, marker;
    uint64_t count[3] = {0};

    (void)state;
    memset(&o, 0, sizeof o);
    o.w = wal_new(&WAL_ALWAYS, 1, 1);
    for (uint32_t i = 0; i < BATCHES; i++) {
        put_ok(o.w, 0, 40 + i * 50);
    }
    o.batches = BATCHES;
    world_stop(o.w);
    original_keep(&o, "journal/", ".seg");
    marker = o;
    original_keep(&marker, "journal/clean", "");
    for (size_t bit = 0; bit < o.len * 8; bit++) {
        size_t len;
        enum verdict v;

        file_restore(&o, o.len);
        file_restore(&marker, marker.len);
        kvs_mock_file(o.w->mock, o.path, &len)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        v = judge(&o);
        count[v]++;
        assert_true(v != TORN);
    }
    file_restore(&o, o.len);
    for (size_t bit = 0; bit < marker.len * 8; bit++) {
        size_t len;

        file_restore(&marker, marker.len);
        kvs_mock_file(o.w->mock, marker.path, &len)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judge(&marker), REFUSED);
    }
    assert_true(count[SAME] > 0 && count[REFUSED] > 0);
    world_free(o.w);
}

/* A journal file cut at any length is damage, whether it has a successor or not: files have their
 * full size from the beginning. */
static void test_wal__journal_cut_at_every_length__refused(void **state)
{
    struct original o;

    (void)state;
    journal_make(&o, &WAL_ALWAYS);
    for (size_t n = 0; n < o.len; n++) {
        file_restore(&o, n);
        assert_int_equal(judge(&o), REFUSED);
    }
    file_restore(&o, o.len);
    world_start(o.w);
    assert_int_equal(world_recover_only(o.w), 0);
    put_ok(o.w, 1, 20); /* a successor; the first gives back what it did not use */
    world_kill(o.w);
    original_keep(&o, "journal/0000000000000000", ".seg");
    assert_true(o.len < SEGMENT_SIZE);
    for (size_t n = 0; n < o.len; n++) {
        /* The last sector ends in padding. */
        size_t used = frame_offset(&o, BATCHES - 1) + FRAME_HEADER_SIZE +
                      kvs_get_u32(o.bytes + frame_offset(&o, BATCHES - 1) + 8);

        file_restore(&o, n);
        world_start(o.w);
        assert_int_equal(world_recover_only(o.w), n < used ? KVS_ECORRUPT : 0);
        world_kill(o.w);
    }
    world_free(o.w);
}

/* A torn tail: cut, reported with its length, and the journal goes on behind it. */
static void test_wal__torn_tail__cut_and_reported(void **state)
{
    struct original o;
    struct world *w;
    size_t len, at;

    (void)state;
    journal_make(&o, &WAL_ALWAYS);
    w = o.w;
    at = frame_offset(&o, BATCHES - 1);
    kvs_mock_file(w->mock, o.path, &len)[at + FRAME_HEADER_SIZE + 70] ^= 1;
    w->wrote[0].count--; /* as if it had not been acknowledged */
    w->next_offset[0] = w->wrote[0].at[BATCHES - 2].base + w->wrote[0].at[BATCHES - 2].count;
    wal_again(w);
    assert_int_equal(w->report.batch_count, BATCHES - 1);
    assert_int_equal(w->report.torn_bytes, 512);
    for (uint32_t i = 0; i < 3; i++) {
        put_ok(w, 0, 60);
        world_kill(w);
        wal_again(w);
        assert_int_equal(w->report.batch_count, BATCHES + i);
        assert_int_equal(w->report.torn_bytes, 0);
    }
    wal_end(w);
}

/* Damage before the tail stops, and says where. */
static void test_wal__damage_inside__file_and_offset(void **state)
{
    struct original o;
    char where[64];
    size_t len;

    (void)state;
    journal_make(&o, &WAL_ALWAYS);
    for (uint32_t i = 0; i + 1 < BATCHES; i++) {
        file_restore(&o, o.len);
        kvs_mock_file(o.w->mock, o.path, &len)[frame_offset(&o, i) + 50] ^= 8;
        assert_int_equal(judge(&o), REFUSED);
        (void)snprintf(where, sizeof where, "offset %zu:", frame_offset(&o, i));
        assert_non_null(strstr(o.w->err.msg, where));
    }
    world_free(o.w);
}

/* A segment in the middle, or its frames, missing: refused. */
static void test_wal__segment_missing__refused(void **state)
{
    (void)state;
    for (uint64_t missing = 1; missing < 4; missing++) {
        struct world *w = wal_new(&WAL_ALWAYS, 2, 1);
        const struct kvs_fs *fs = w->host->fs;
        char path[64];

        for (uint32_t i = 0; i < 30; i++) {
            put_ok(w, 0, 600);
        }
        world_stop(w);
        segment_path(path, missing);
        assert_int_equal(fs->remove(fs->ctx, path, NULL), 0);
        world_start(w);
        assert_int_equal(world_recover_only(w), KVS_ECORRUPT);
        assert_non_null(strstr(w->err.msg, "missing"));
        world_kill(w);
        world_free(w);
    }
}

/* With sync: os frames of which none is known to be durable may be lost: all are counted. */
static void test_wal__unsynced_frames_lost__all_counted(void **state)
{
    static const struct wal_conf CONF = {WAL_SYNC_OS, 100, SEGMENT_SIZE, 60000};
    struct original o;
    size_t len;

    (void)state;
    journal_make(&o, &CONF);
    kvs_mock_file(o.w->mock, o.path, &len)[frame_offset(&o, 1) + 50] ^= 8;
    assert_int_equal(judge(&o), TORN);
    assert_int_equal(o.w->got[0].count, 1);
    assert_int_equal(o.w->report.torn_bytes, frame_offset(&o, BATCHES) - frame_offset(&o, 1));
    world_free(o.w);
}

/* A snapshot: every bit flipped, every length. */
static void test_wal__snapshot_damaged__refused(void **state)
{
    struct original o;
    size_t len;

    (void)state;
    memset(&o, 0, sizeof o);
    o.w = wal_new(&WAL_ALWAYS, 1, 1);
    put_ok(o.w, 0, 40);
    assert_int_equal(snapshot_write(o.w, 0, "none"), 0);
    world_kill(o.w);
    original_keep(&o, "snapshots/", ".snap");
    for (size_t bit = 0; bit < o.len * 8; bit++) {
        file_restore(&o, o.len);
        kvs_mock_file(o.w->mock, o.path, &len)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judge(&o), REFUSED);
    }
    for (size_t n = 0; n < o.len; n++) {
        file_restore(&o, n);
        assert_int_equal(judge(&o), REFUSED);
    }
    o.bytes[o.len] = 0;
    file_restore(&o, o.len + 1);
    assert_int_equal(judge(&o), REFUSED);
    file_restore(&o, o.len);
    o.batches = 0; /* the snapshot holds it */
    assert_int_equal(judge(&o), SAME);
    world_free(o.w);
}

/* The list of dropped streams, damaged: refused, or streams would come back. */
static void test_wal__dropped_list_damaged__refused(void **state)
{
    struct original o;
    size_t len;

    (void)state;
    memset(&o, 0, sizeof o);
    o.w = wal_new(&WAL_ALWAYS, 1, 1);
    put_ok(o.w, 2, 40);
    assert_int_equal(stream_drop(o.w, 2), 0);
    world_kill(o.w);
    original_keep(&o, "journal/dropped", "");
    for (size_t bit = 0; bit < o.len * 8; bit++) {
        file_restore(&o, o.len);
        kvs_mock_file(o.w->mock, o.path, &len)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judge(&o), REFUSED);
    }
    for (size_t n = 0; n < o.len; n++) {
        file_restore(&o, n);
        assert_int_equal(judge(&o), REFUSED);
    }
    world_free(o.w);
}

/* Raise the format number at `at`, and make the checksum right. */
static void format_raise(struct original *o, size_t at, size_t crc_len)
{
    kvs_put_u32(o->bytes + at, 2);
    kvs_put_u32(o->bytes + 4, kvs_crc32c(0, o->bytes + 8, crc_len - 8));
    file_restore(o, o->len);
}

/* Files of a newer format are not guessed at. */
static void test_wal__newer_format__refused(void **state)
{
    struct original o, s;

    (void)state;
    journal_make(&o, &WAL_ALWAYS);
    wal_again(o.w);
    assert_int_equal(snapshot_write(o.w, 0, "none"), 0);
    assert_int_equal(stream_drop(o.w, 3), 0);
    world_stop(o.w);
    s = o;
    original_keep(&s, "snapshots/", ".snap");
    /* The checksum of a snapshot's header goes over the meta behind it, too. */
    format_raise(&s, 8, SNAPSHOT_HEADER_SIZE + 40);
    assert_int_equal(judge(&s), REFUSED);
    assert_non_null(strstr(s.w->err.msg, "snapshot format 2"));
    kvs_put_u32(s.bytes + 8, 1);
    original_keep(&s, "journal/dropped", "");
    format_raise(&s, 8, s.len);
    assert_int_equal(judge(&s), REFUSED);
    assert_non_null(strstr(s.w->err.msg, "blob format 2"));
    assert_int_equal(o.w->host->fs->remove(o.w->host->fs->ctx, "journal/dropped", NULL), 0);
    format_raise(&o, 8, SEGMENT_HEADER_SIZE);
    assert_int_equal(judge(&o), REFUSED);
    assert_non_null(strstr(o.w->err.msg, "journal format 2"));
    world_free(o.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal__bit_flips_in_journal__never_served_silently),
        cmocka_unit_test(test_wal__bit_flips_after_clean_stop__nothing_is_cut),
        cmocka_unit_test(test_wal__journal_cut_at_every_length__refused),
        cmocka_unit_test(test_wal__torn_tail__cut_and_reported),
        cmocka_unit_test(test_wal__damage_inside__file_and_offset),
        cmocka_unit_test(test_wal__segment_missing__refused),
        cmocka_unit_test(test_wal__unsynced_frames_lost__all_counted),
        cmocka_unit_test(test_wal__snapshot_damaged__refused),
        cmocka_unit_test(test_wal__dropped_list_damaged__refused),
        cmocka_unit_test(test_wal__newer_format__refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
