/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `persistence` on the memory disk of the fake host: append, recover, snapshot,
 * drop, blobs; restarts and power cuts for plugins that promise to survive them. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/persistence.h"

#define STREAM_COUNT 3u
#define APPEND_MAX   400u
#define PAYLOAD_MAX  3000u
#define BLOCK_SIZE   5000u
#define WAIT_MS      10000u

static const struct kvs_persistence_ops *ops;

/* One append and what became of it. */
struct write {
    struct kvs_append append;
    uint8_t *bytes;
    uint32_t len, calls, in_call;
    uint32_t stream; /* index */
    int rc;
};

/* What recovery gave for one stream. */
struct found {
    uint32_t batches;
    uint64_t first_offset, next_offset;
    uint32_t snapshots, blocks, ended;
    uint64_t snapshot_offset;
};

static struct {
    struct world world;
    void *conf;
    struct write writes[APPEND_MAX];
    uint32_t count, next_callback[2];
    uint64_t next_offset[STREAM_COUNT];
    struct found found[STREAM_COUNT];
    struct kvs_recover_report report;
    struct kvs_error err;
    int rc, done;
} j;

static uint64_t stream_id(uint32_t stream)
{
    return kvs_stream(7 + stream, stream);
}

/* ---- recovery ----------------------------------------------------------------------------------
 */

static struct found *found_of(uint64_t id)
{
    for (uint32_t i = 0; i < STREAM_COUNT; i++) {
        if (stream_id(i) == id) {
            return &j.found[i];
        }
    }
    check_fail(__FILE__, __LINE__, "recovery gives stream %llx, which was never written",
               (unsigned long long)id);
}

static int on_begin(void *arg, const struct kvs_snapshot_info *info, struct kvs_error *err)
{
    struct found *f = found_of(info->stream);

    (void)arg;
    (void)err;
    CHECK(f->snapshots++ == 0, "recovery gives two snapshots of one stream");
    CHECK(f->batches == 0, "recovery gives a snapshot behind batches of its stream");
    CHECK(kvs_slice_eq_str(info->meta, "meta"), "the snapshot's meta comes back changed");
    CHECK(info->item_count == 42 && info->leader_epoch == 3, "snapshot info comes back changed");
    f->snapshot_offset = info->offset;
    return 0;
}

static int on_block(void *arg, uint64_t stream, struct kvs_slice raw, struct kvs_error *err)
{
    struct found *f = found_of(stream);

    (void)arg;
    (void)err;
    CHECK(f->snapshots == 1 && !f->ended, "a block outside of snapshot_begin and snapshot_end");
    CHECK(raw.len == BLOCK_SIZE + f->blocks, "block %u comes back with another size", f->blocks);
    for (size_t i = 0; i < raw.len; i++) {
        CHECK(raw.ptr[i] == (char)(f->blocks + i / 9), "block %u comes back changed", f->blocks);
    }
    f->blocks++;
    return 0;
}

static int on_end(void *arg, uint64_t stream, struct kvs_error *err)
{
    struct found *f = found_of(stream);

    (void)arg;
    (void)err;
    CHECK(f->snapshots == 1 && f->ended++ == 0, "snapshot_end without snapshot_begin");
    return 0;
}

static int on_batch(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                    struct kvs_error *err)
{
    struct found *f = found_of(h->stream);

    (void)arg;
    (void)err;
    CHECK(f->snapshots == f->ended, "a batch before its stream's snapshot_end");
    CHECK(f->batches == 0 || h->base_offset == f->next_offset,
          "a stream's batches come back with a gap or out of order: %llu after %llu",
          (unsigned long long)h->base_offset, (unsigned long long)f->next_offset);
    CHECK(h->base_offset + h->count > f->snapshot_offset, "a batch from before the snapshot");
    for (size_t i = 0; i < payload.len; i++) {
        CHECK(payload.ptr[i] == (char)(h->base_offset + i), "a batch comes back changed");
    }
    f->first_offset = f->batches++ == 0 ? h->base_offset : f->first_offset;
    f->next_offset = h->base_offset + h->count;
    return 0;
}

static void recover_run(struct kvs_work *work)
{
    static const struct kvs_recover_ops recover_ops = {on_begin, on_block, on_end, on_batch, NULL};

    (void)work;
    j.rc = ops->recover(j.world.self, &recover_ops, NULL, &j.report, &j.err);
    j.done = 1;
}

/* On a pool thread, as services do. */
static void recover(void)
{
    struct kvs_work work = {.run = recover_run, .reply_loop = KVS_LOOP_NONE};
    const struct kvs_host *host = j.world.host;
    struct kvs_queue *queue;

    memset(j.found, 0, sizeof j.found);
    j.done = 0;
    CHECK(host->queue_new(host->ctx, "check", 0, &queue, &j.err) == 0, "no queue");
    host->queue_submit(host->ctx, queue, &work);
    kvs_mock_run_until(j.world.mock, &j.done);
    host->queue_free(host->ctx, queue);
    CHECK(j.rc == 0, "recover returns %s: %s", check_code(j.rc), j.err.msg);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void begin(uint64_t seed)
{
    ops = check.plugin->ops;
    j.conf = check_conf(check.plugin, check.sets, check.set_count);
    world_open(&j.world, seed, 2, 0);
    world_init(&j.world, j.conf);
    world_start(&j.world);
}

static void writes_free(void)
{
    for (uint32_t i = 0; i < j.count; i++) {
        free(j.writes[i].bytes);
    }
    memset(j.writes, 0, sizeof j.writes);
    memset(j.next_offset, 0, sizeof j.next_offset);
    j.count = 0;
}

static void end(void)
{
    world_close(&j.world);
    writes_free();
}

static void need_durable(void)
{
    if ((check.plugin->caps & KVS_PERSISTENCE_CAP_DURABLE) == 0) {
        check_skip("it does not promise to survive the process (KVS_PERSISTENCE_CAP_DURABLE)");
    }
}

static void init_again(void)
{
    j.world.self = NULL;
    j.world.started = 0;
    world_init(&j.world, j.conf);
    world_start(&j.world);
    recover();
}

static void restart(void)
{
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
    if (check.plugin->stop != NULL) {
        check.plugin->stop(j.world.self);
    }
    (void)kvs_mock_run(j.world.mock, 0);
    check.plugin->fini(j.world.self);
    init_again();
}

static void power_cut(uint64_t seed)
{
    kvs_mock_crash(j.world.mock, seed);
    init_again();
}

/* ---- appends -----------------------------------------------------------------------------------
 */

static void on_append(struct kvs_append *append, int rc)
{
    struct write *w = KVS_CONTAINER_OF(append, struct write, append);
    uint32_t loop = j.world.host->loop_current(j.world.host->ctx), index;

    CHECK(!w->in_call, "append calls its callback before it returns");
    CHECK(w->calls++ == 0, "append calls its callback twice");
    CHECK(loop == w->stream % 2, "the callback runs on another loop than append did");
    w->rc = rc;
    /* Callbacks of a loop come in the order of its appends. */
    for (index = j.next_callback[loop]; &j.writes[index] != w; index++) {
        CHECK(index < j.count, "callbacks of one loop are out of order");
        CHECK(j.writes[index].stream % 2 != loop || j.writes[index].calls > 0,
              "callbacks of one loop are out of order");
    }
    j.next_callback[loop] = index;
}

/* Appends a batch of `count` records to the stream; does not wait. Returns append's code. */
static int append(uint32_t stream, uint32_t count, uint32_t payload)
{
    struct write *w = &j.writes[j.count];
    struct kvs_batch_header h = {.total_size = KVS_BATCH_HEADER_SIZE + payload,
                                 .leader_epoch = 1,
                                 .count = count,
                                 .raw_size = payload,
                                 .stream = stream_id(stream),
                                 .base_offset = j.next_offset[stream],
                                 .append_time_ms = 1};
    int rc;

    CHECK(j.count++ < APPEND_MAX, "the check writes too much");
    w->len = h.total_size;
    w->bytes = check_alloc(w->len);
    for (uint32_t i = 0; i < payload; i++) {
        w->bytes[KVS_BATCH_HEADER_SIZE + i] = (uint8_t)(h.base_offset + i);
    }
    kvs_batch_seal(w->bytes, &h);
    w->stream = stream;
    w->append.batch = kvs_slice(w->bytes, w->len);
    w->append.stream = h.stream;
    w->append.base_offset = h.base_offset;
    w->append.count = count;
    w->append.cb = on_append;
    kvs_mock_enter(j.world.mock, stream % 2);
    w->in_call = 1;
    rc = ops->append(j.world.self, &w->append);
    w->in_call = 0;
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
    if (rc == 0) {
        j.next_offset[stream] += count;
    }
    return rc;
}

static void append_many(uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t stream = (uint32_t)(check_random(&seed) % STREAM_COUNT);

        CHECK_CODE(append(stream, 1 + (uint32_t)(check_random(&seed) % 5),
                          (uint32_t)(check_random(&seed) % PAYLOAD_MAX)),
                   0, "append");
        if (check_random(&seed) % 4 == 0) {
            (void)kvs_mock_run(j.world.mock, 0);
        }
    }
}

static void wait_all(int rc)
{
    (void)kvs_mock_run(j.world.mock, WAIT_MS);
    for (uint32_t i = 0; i < j.count; i++) {
        CHECK(j.writes[i].calls == 1, "an append was not answered within 10 s");
        CHECK(j.writes[i].rc == rc, "an append ends with %s, not %s", check_code(j.writes[i].rc),
              check_code(rc));
    }
}

static void expect_all(const char *when)
{
    for (uint32_t i = 0; i < STREAM_COUNT; i++) {
        CHECK(j.found[i].batches == 0 || j.found[i].first_offset <= j.found[i].snapshot_offset,
              "%s the first batches of a stream are missing", when);
        CHECK(j.found[i].next_offset == j.next_offset[i] ||
                  (j.found[i].batches == 0 && j.found[i].snapshot_offset == j.next_offset[i]),
              "%s stream %u ends at %llu, acknowledged were %llu", when, i,
              (unsigned long long)j.found[i].next_offset, (unsigned long long)j.next_offset[i]);
    }
}

/* ---- checks of appends -------------------------------------------------------------------------
 */

static void before_recover(void)
{
    begin(1);
    CHECK_CODE(append(0, 1, 10), KVS_ESTATE, "append before recover");
    end();
}

static void empty_recovery(void)
{
    begin(1);
    recover();
    CHECK(j.report.batch_count == 0 && j.report.snapshot_count == 0, "an empty journal holds data");
    end();
}

static void appends_answered(void)
{
    struct kvs_persistence_status status;

    for (uint64_t seed = 1; seed <= 5; seed++) {
        memset(&j, 0, sizeof j);
        begin(seed);
        recover();
        append_many(200, seed);
        wait_all(0);
        ops->status(j.world.self, &status);
        CHECK(status.failed == 0 && status.last_append == 0, "status tells of a failure");
        end();
    }
}

static void too_small(void)
{
    struct kvs_append a = {.batch = {"x", 1}, .cb = on_append};

    begin(1);
    recover();
    kvs_mock_enter(j.world.mock, 0);
    CHECK(ops->append(j.world.self, &a) != 0, "append takes one byte for a batch");
    end();
}

static void restarted(void)
{
    need_durable();
    begin(2);
    recover();
    append_many(100, 9);
    wait_all(0);
    restart();
    expect_all("after a restart");
    CHECK(j.report.clean_shutdown == 1, "after an orderly stop clean_shutdown is not set");
    CHECK(j.report.torn_bytes == 0, "after an orderly stop the tail is torn");
    append_many(100, 10);
    wait_all(0);
    restart();
    expect_all("after a second restart");
    end();
}

/* What is acknowledged survives; what is not comes back whole, in order, or not at all. */
static void power_cuts(void)
{
    need_durable();
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t acknowledged[STREAM_COUNT] = {0};

        memset(&j, 0, sizeof j);
        begin(seed);
        recover();
        append_many(30 + (uint32_t)seed, seed);
        if (seed % 2 == 0) {
            wait_all(0);
        }
        append_many(20, seed + 100);
        for (uint32_t i = 0; i < j.count; i++) {
            if (j.writes[i].calls > 0 && j.writes[i].rc == 0) {
                acknowledged[j.writes[i].stream] =
                    j.writes[i].append.base_offset + j.writes[i].append.count;
            }
        }
        power_cut(seed);
        for (uint32_t i = 0; i < STREAM_COUNT; i++) {
            CHECK(j.found[i].first_offset == 0 && j.found[i].next_offset >= acknowledged[i],
                  "seed %llu: after a power cut stream %u ends at %llu, acknowledged were %llu",
                  (unsigned long long)seed, i, (unsigned long long)j.found[i].next_offset,
                  (unsigned long long)acknowledged[i]);
            CHECK(j.found[i].next_offset <= j.next_offset[i], "recovery invents records");
        }
        end();
    }
}

static void failed_sync(void)
{
    need_durable();
    begin(3);
    recover();
    append_many(10, 3);
    wait_all(0);
    kvs_mock_fail_sync(j.world.mock, 1, 1);
    (void)append(0, 1, 100);
    (void)kvs_mock_run(j.world.mock, WAIT_MS);
    if (!kvs_mock_fault_fired(j.world.mock)) {
        check_skip("it does not sync before it answers");
    }
    CHECK(j.writes[j.count - 1].rc == KVS_EFAILED, "an append whose sync failed ends with %s",
          check_code(j.writes[j.count - 1].rc));
    CHECK_CODE(append(0, 1, 100), KVS_EFAILED, "append after a failed sync");
    end();
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

struct step {
    struct kvs_snapshot_step step;
    int done, rc;
};

static void on_step(struct kvs_snapshot_step *step, int rc)
{
    struct step *s = KVS_CONTAINER_OF(step, struct step, step);

    CHECK(s->done == 0, "a snapshot step calls its callback twice");
    CHECK(j.world.host->loop_current(j.world.host->ctx) == 0,
          "the callback of a snapshot step runs on another loop");
    s->rc = rc;
    s->done = 1;
}

static void step_wait(struct step *s, const char *what)
{
    CHECK(!s->done, "%s calls its callback before it returns", what);
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
    kvs_mock_run_until(j.world.mock, &s->done);
    CHECK_CODE(s->rc, 0, what);
    kvs_mock_enter(j.world.mock, 0);
}

/* Writes `blocks` blocks; the snapshot stays open. */
static struct kvs_snapshot *snapshot_write(uint32_t stream, uint64_t offset, uint32_t blocks)
{
    static char raw[BLOCK_SIZE + 16];
    struct kvs_snapshot_info info = {.stream = stream_id(stream),
                                     .offset = offset,
                                     .item_count = 42,
                                     .leader_epoch = 3,
                                     .meta = kvs_slice_str("meta")};
    struct kvs_snapshot *snapshot = NULL, *second = NULL;

    kvs_mock_enter(j.world.mock, 0);
    j.rc = ops->snapshot_begin(j.world.self, &info, "none", &snapshot, &j.err);
    CHECK(j.rc == 0, "snapshot_begin returns %s: %s", check_code(j.rc), j.err.msg);
    CHECK_CODE(ops->snapshot_begin(j.world.self, &info, "none", &second, &j.err), KVS_EBUSY,
               "a second snapshot_begin of the stream");
    for (uint32_t i = 0; i < blocks; i++) {
        struct step s = {.step = {.cb = on_step}};

        for (size_t k = 0; k < BLOCK_SIZE + i; k++) {
            raw[k] = (char)(i + k / 9);
        }
        s.step.block = kvs_slice(raw, BLOCK_SIZE + i);
        ops->snapshot_block(j.world.self, snapshot, &s.step);
        step_wait(&s, "snapshot_block");
    }
    return snapshot;
}

static void snapshot_commit(struct kvs_snapshot *snapshot)
{
    struct step s = {.step = {.cb = on_step}};

    ops->snapshot_commit(j.world.self, snapshot, &s.step);
    step_wait(&s, "snapshot_commit");
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
}

static void snapshots(void)
{
    uint64_t at;

    need_durable();
    begin(4);
    recover();
    append_many(60, 1);
    wait_all(0);
    snapshot_commit(snapshot_write(0, j.next_offset[0], 3));
    append_many(60, 2);
    wait_all(0);
    at = j.next_offset[0];
    snapshot_commit(snapshot_write(0, at, 5));
    append_many(60, 3);
    wait_all(0);
    for (uint32_t round = 0; round < 2; round++) {
        if (round == 0) {
            restart();
        } else {
            power_cut(17);
        }
        CHECK(j.found[0].snapshots == 1 && j.found[0].ended == 1 && j.found[0].blocks == 5,
              "the newest snapshot does not come back whole");
        CHECK(j.found[0].snapshot_offset == at, "recovery uses an older snapshot");
        CHECK(j.found[1].snapshots == 0, "a stream without a snapshot gets one");
        expect_all("after a snapshot");
    }
    end();
}

static void snapshot_aborted(void)
{
    begin(5);
    recover();
    append_many(30, 1);
    wait_all(0);
    ops->snapshot_abort(j.world.self, snapshot_write(0, j.next_offset[0], 2));
    (void)kvs_mock_run(j.world.mock, WAIT_MS); /* abort has no callback: it may end later */
    ops->snapshot_abort(j.world.self, snapshot_write(0, j.next_offset[0], 0));
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
    (void)kvs_mock_run(j.world.mock, WAIT_MS);
    if ((check.plugin->caps & KVS_PERSISTENCE_CAP_DURABLE) != 0) {
        restart();
        CHECK(j.found[0].snapshots == 0, "an aborted snapshot comes back");
        expect_all("after an aborted snapshot");
    }
    end();
}

static void dropped(void)
{
    struct step s = {.step = {.cb = on_step}};

    need_durable();
    begin(6);
    recover();
    append_many(60, 1);
    wait_all(0);
    snapshot_commit(snapshot_write(0, j.next_offset[0], 2));
    append_many(30, 2);
    wait_all(0);
    kvs_mock_enter(j.world.mock, 0);
    CHECK_CODE(ops->stream_drop(j.world.self, stream_id(0), &s.step), 0, "stream_drop");
    step_wait(&s, "stream_drop");
    kvs_mock_enter(j.world.mock, KVS_LOOP_NONE);
    for (uint32_t round = 0; round < 2; round++) {
        power_cut(round);
        CHECK(j.found[0].snapshots == 0 && j.found[0].batches == 0, "a dropped stream comes back");
        CHECK(j.found[1].next_offset == j.next_offset[1],
              "another stream than the dropped is hurt");
    }
    end();
}

/* ---- blobs -------------------------------------------------------------------------------------
 */

static void blob_is(const char *name, const char *text)
{
    char buf[64];
    size_t len = 99;

    CHECK_CODE(ops->blob_get(j.world.self, name, buf, sizeof buf, &len, &j.err), 0, "blob_get");
    CHECK(kvs_slice_eq_str(kvs_slice(buf, len), text), "blob '%s' is '%.*s', not '%s'", name,
          (int)(len > sizeof buf ? 0 : len), buf, text);
}

static void blobs(void)
{
    static const char *const NAMES[] = {"identity", "a.b-c_d"};
    char small[2];
    size_t len;

    begin(7);
    blob_is("absent", "");
    for (size_t i = 0; i < KVS_ARRAY_COUNT(NAMES); i++) {
        CHECK_CODE(ops->blob_put(j.world.self, NAMES[i], kvs_slice_str("first"), &j.err), 0,
                   "blob_put");
        blob_is(NAMES[i], "first");
        CHECK_CODE(ops->blob_put(j.world.self, NAMES[i], kvs_slice_str(NAMES[i]), &j.err), 0,
                   "blob_put");
        blob_is(NAMES[i], NAMES[i]);
    }
    CHECK_CODE(ops->blob_get(j.world.self, "identity", small, sizeof small, &len, &j.err),
               KVS_ETOOBIG, "blob_get into too small a buffer");
    recover();
    if ((check.plugin->caps & KVS_PERSISTENCE_CAP_DURABLE) != 0) {
        power_cut(5);
        blob_is(NAMES[0], NAMES[0]);
        blob_is(NAMES[1], NAMES[1]);
    }
    end();
}

const struct check_case check_persistence_cases[] = {
    {"append before recover is refused", before_recover},
    {"recovery of nothing", empty_recovery},
    {"appends are answered once, in order, on their loop", appends_answered},
    {"what is no batch is refused", too_small},
    {"restart: all that was acknowledged comes back", restarted},
    {"power cut: all that was acknowledged comes back", power_cuts},
    {"a failed sync is final", failed_sync},
    {"the newest snapshot comes back, then what follows it", snapshots},
    {"an aborted snapshot does not come back", snapshot_aborted},
    {"a dropped stream does not come back", dropped},
    {"blobs", blobs},
    {NULL, NULL},
};
