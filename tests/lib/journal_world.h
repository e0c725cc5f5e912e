/* SPDX-License-Identifier: MIT
 *
 * A model of a persistence plugin, run beside it: what was appended to each stream, what of it is
 * acknowledged, which snapshot counts, and what a recovery gave back.
 *
 *   world_new, world_start        a plugin on a fresh fake host
 *   put, world_run                append a batch; let the host run
 *   world_stop / _kill / _crash   an orderly stop, a killed process, a power cut
 *   world_start, world_recover    and what is there then is compared with the model: every
 *                                 acknowledged batch, in order, nothing else but what was under way
 *
 * Batches hold bytes made from a tag, so that one glance tells whether they are right. */
#ifndef KVS_TESTS_JOURNAL_WORLD_H
#define KVS_TESTS_JOURNAL_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kvs/mock.h"
#include "kvs/persistence.h"

#define WORLD_STREAMS 6u
#define WORLD_STREAM0 0x700000001u /* number of the first; the others follow */

struct world_batch {
    uint64_t base, tag;
    uint32_t count, len; /* records, payload bytes */
    int acked;
};

struct world_list {
    struct world_batch *at;
    size_t count, cap;
};

struct world_snapshot {
    int there, count_blocks;
    uint64_t offset;
};

struct world;

/* One append under way, or done. */
struct put {
    struct kvs_append append;
    struct world *world;
    struct put *next;
    uint32_t stream; /* index */
    int done, rc;
    uint64_t tag;
    char bytes[];
};

struct world {
    struct kvs_mock *mock;
    const struct kvs_host *host;
    const struct kvs_plugin *plugin;
    const struct kvs_persistence_ops *ops;
    const void *conf;
    void *self;
    uint64_t rng, next_tag;
    uint32_t loops;
    struct put *puts;       /* newest first */
    uint64_t order;         /* of callbacks */
    uint64_t acked, failed; /* appends */
    int tolerant;           /* an append that failed may be found again (an I/O error) */

    /* The model. */
    struct world_list wrote[WORLD_STREAMS];
    uint64_t next_offset[WORLD_STREAMS];
    struct world_snapshot snapshot[WORLD_STREAMS]; /* the acknowledged one */
    uint64_t pending[WORLD_STREAMS];               /* 1 + offset of one under way, or failed */
    int dropped[WORLD_STREAMS];                    /* 1: asked for, 2: acknowledged */

    /* What the last recovery gave. */
    struct world_list got[WORLD_STREAMS];
    struct world_snapshot got_snapshot[WORLD_STREAMS];
    uint64_t other_streams, progress_done, progress_total;
    struct kvs_recover_report report;
    struct kvs_error err;
};

/* ---- small things ------------------------------------------------------------------------------
 */

/* Of a test: it ends without memory. */
static inline void *world_alloc(size_t size)
{
    void *p = calloc(1, size);

    if (p == NULL) {
        abort();
    }
    return p;
}

static inline uint64_t world_random(struct world *w)
{
    uint64_t z = w->rng += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline void world_list_add(struct world_list *l, struct world_batch b)
{
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 16 : l->cap * 2;
        l->at = realloc(l->at, l->cap * sizeof *l->at);
        if (l->at == NULL) {
            abort();
        }
    }
    l->at[l->count++] = b;
}

/* Byte i of the payload with that tag. The first eight are the tag, seven bits each. */
static inline char world_byte(uint64_t tag, size_t i)
{
    uint64_t v = i < 8 ? tag >> i * 7 : (tag * 0x9e3779b97f4a7c15u >> 40) + i * 7;

    return (char)(v & 0x7f);
}

static inline uint64_t world_stream(uint32_t index)
{
    return WORLD_STREAM0 + index;
}

static inline struct world *world_new(const struct kvs_plugin *plugin, const void *conf,
                                      uint64_t seed, uint32_t loops)
{
    struct world *w = world_alloc(sizeof *w);

    w->mock = kvs_mock_new(&(struct kvs_mock_conf){.seed = seed, .loop_count = loops});
    w->host = kvs_mock_host(w->mock);
    w->plugin = plugin;
    w->ops = plugin->ops;
    w->conf = conf;
    w->rng = seed * 77 + 5;
    w->loops = loops;
    return w;
}

/* init and start; the code of whichever failed. */
static inline int world_try_start(struct world *w)
{
    int rc = w->plugin->init(w->host, w->conf, &w->self, &w->err);

    if (rc == 0 && w->plugin->start != NULL) {
        rc = w->plugin->start(w->self, &w->err);
        if (rc != 0) {
            w->plugin->fini(w->self);
        }
    }
    if (rc != 0) {
        w->self = NULL;
    }
    return rc;
}

static inline void world_start(struct world *w)
{
    assert_int_equal(world_try_start(w), 0);
}

static inline void world_run(struct world *w)
{
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    (void)kvs_mock_run(w->mock, 5);
}

/* Appends that never heard of their end are forgotten, as by a process that died. */
static inline void world_forget_puts(struct world *w)
{
    while (w->puts != NULL) {
        struct put *next = w->puts->next;

        free(w->puts);
        w->puts = next;
    }
}

static inline void world_stop(struct world *w)
{
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->stop(w->self);
    (void)kvs_mock_run(w->mock, 0); /* callbacks */
    w->plugin->fini(w->self);
    w->self = NULL;
    for (const struct put *p = w->puts; p != NULL; p = p->next) {
        assert_true(p->done); /* every append is answered, also on stop */
    }
    world_forget_puts(w);
}

/* The process ends; what the kernel has is kept. Not while anything runs, nor with sync: interval.
 */
static inline void world_kill(struct world *w)
{
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    w->plugin->fini(w->self);
    w->self = NULL;
    world_forget_puts(w);
}

/* With sync: interval or os a power cut may take what was acknowledged. */
static inline void world_doubt(struct world *w)
{
    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        for (size_t n = 0; n < w->wrote[i].count; n++) {
            w->wrote[i].at[n].acked = 0;
        }
    }
}

static inline void world_crash(struct world *w, uint64_t seed)
{
    kvs_mock_crash(w->mock, seed);
    w->self = NULL;
    world_forget_puts(w);
}

static inline void world_free(struct world *w)
{
    kvs_mock_free(w->mock);
    world_forget_puts(w);
    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        free(w->wrote[i].at);
        free(w->got[i].at);
    }
    free(w);
}

/* ---- appending ---------------------------------------------------------------------------------
 */

static inline void world_on_put(struct kvs_append *append, int rc)
{
    struct put *p = KVS_CONTAINER_OF(append, struct put, append);
    struct world *w = p->world;
    struct world_list *l = &w->wrote[p->stream];

    assert_false(p->done);
    assert_int_equal(w->host->loop_current(w->host->ctx), p->stream % w->loops);
    p->done = 1;
    p->rc = rc;
    if (rc == 0) {
        size_t i = 0;

        w->acked++;
        while (i < l->count && l->at[i].tag != p->tag) {
            assert_true(l->at[i].acked); /* in the order they were made */
            i++;
        }
        assert_true(i < l->count);
        l->at[i].acked = 1;
        return;
    }
    /* The tail is rolled back; all that was built on it fails as well. */
    w->failed++;
    for (size_t i = 0; i < l->count && (rc == KVS_ENOSPC || !w->tolerant); i++) {
        if (l->at[i].tag == p->tag) {
            assert_false(l->at[i].acked);
            w->next_offset[p->stream] = l->at[i].base;
            l->count = i;
        }
    }
}

/* Append a batch of `len` payload bytes (8..) on the loop of the stream. The code of append(). */
static inline int put_try(struct world *w, uint32_t stream, uint32_t len, struct put **ret_put)
{
    struct put *p = world_alloc(sizeof *p + KVS_BATCH_HEADER_SIZE + len);
    struct kvs_batch_header h = {.total_size = KVS_BATCH_HEADER_SIZE + len,
                                 .stream = world_stream(stream),
                                 .count = 1 + (uint32_t)(w->next_tag % 3),
                                 .base_offset = w->next_offset[stream],
                                 .raw_size = len};
    int rc;

    p->world = w;
    p->stream = stream;
    p->tag = ++w->next_tag;
    for (size_t i = 0; i < len; i++) {
        p->bytes[KVS_BATCH_HEADER_SIZE + i] = world_byte(p->tag, i);
    }
    kvs_batch_seal(p->bytes, &h);
    p->append = (struct kvs_append){.batch = kvs_slice(p->bytes, h.total_size),
                                    .stream = h.stream,
                                    .base_offset = h.base_offset,
                                    .count = h.count,
                                    .cb = world_on_put};
    kvs_mock_enter(w->mock, stream % w->loops);
    rc = w->ops->append(w->self, &p->append);
    if (rc != 0) {
        free(p);
        return rc;
    }
    p->next = w->puts;
    w->puts = p;
    world_list_add(&w->wrote[stream], (struct world_batch){h.base_offset, p->tag, h.count, len, 0});
    w->next_offset[stream] += h.count;
    if (ret_put != NULL) {
        *ret_put = p;
    }
    return 0;
}

static inline struct put *put(struct world *w, uint32_t stream, uint32_t len)
{
    struct put *p = NULL;

    assert_int_equal(put_try(w, stream, len, &p), 0);
    if (p == NULL) {
        abort(); /* the compiler does not know that the line above ends */
    }
    return p;
}

/* Append and see it acknowledged. */
static inline void put_ok(struct world *w, uint32_t stream, uint32_t len)
{
    struct put *p = put(w, stream, len);

    world_run(w);
    assert_true(p->done);
    assert_int_equal(p->rc, 0);
}

/* ---- snapshots and drops -----------------------------------------------------------------------
 */

struct step {
    struct kvs_snapshot_step step;
    int done, rc;
};

static inline void world_on_step(struct kvs_snapshot_step *step, int rc)
{
    struct step *s = KVS_CONTAINER_OF(step, struct step, step);

    assert_false(s->done);
    s->done = 1;
    s->rc = rc;
}

static inline uint64_t world_snapshot_tag(uint64_t stream, uint64_t offset)
{
    return stream * 1000003u + offset;
}

/* Blocks of a snapshot: three, of different sizes. */
static inline uint32_t world_block(uint64_t stream, uint64_t offset, uint32_t i, char out[512])
{
    uint32_t len = 60 + i * 150;

    for (uint32_t k = 0; k < len; k++) {
        out[k] = world_byte(world_snapshot_tag(stream, offset) + i, k % 32);
    }
    return len;
}

static inline int snapshot_step(struct world *w, uint32_t stream, struct kvs_snapshot *s,
                                struct kvs_slice block)
{
    struct step step = {.step = {.block = block, .cb = world_on_step}};

    kvs_mock_enter(w->mock, stream % w->loops);
    if (block.ptr != NULL) {
        w->ops->snapshot_block(w->self, s, &step.step);
    } else {
        w->ops->snapshot_commit(w->self, s, &step.step);
    }
    assert_false(step.done);
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    kvs_mock_run_until(w->mock, &step.done);
    return step.rc;
}

static inline int snapshot_begin(struct world *w, uint32_t stream, uint64_t offset,
                                 const char *codec, struct kvs_snapshot **ret_s)
{
    char meta[40];
    struct kvs_snapshot_info info = {.stream = world_stream(stream),
                                     .offset = offset,
                                     .item_count = offset * 3,
                                     .leader_epoch = 9,
                                     .meta = kvs_slice(meta, sizeof meta)};

    for (size_t i = 0; i < sizeof meta; i++) {
        meta[i] = world_byte(world_snapshot_tag(info.stream, offset) ^ 0xff, i);
    }
    kvs_mock_enter(w->mock, stream % w->loops);
    return w->ops->snapshot_begin(w->self, &info, codec, ret_s, &w->err);
}

/* A whole snapshot of what was appended so far. The code of the step that failed. */
static inline int snapshot_write(struct world *w, uint32_t stream, const char *codec)
{
    uint64_t offset = w->next_offset[stream];
    struct kvs_snapshot *s = NULL;
    char block[512];
    int rc = snapshot_begin(w, stream, offset, codec, &s);

    if (rc != 0) {
        return rc;
    }
    w->pending[stream] = offset + 1;
    for (uint32_t i = 0; i < 3 && rc == 0; i++) {
        uint32_t len = world_block(world_stream(stream), offset, i, block);

        rc = snapshot_step(w, stream, s, kvs_slice(block, len));
    }
    rc = rc != 0 ? rc : snapshot_step(w, stream, s, kvs_slice(NULL, 0));
    if (rc == 0) {
        w->snapshot[stream] = (struct world_snapshot){1, 3, offset};
        w->pending[stream] = 0;
    } else {
        kvs_mock_enter(w->mock, stream % w->loops);
        w->ops->snapshot_abort(w->self, s);
    }
    world_run(w);
    return rc;
}

static inline int stream_drop(struct world *w, uint32_t stream)
{
    struct step step = {.step = {.cb = world_on_step}};
    int rc;

    kvs_mock_enter(w->mock, stream % w->loops);
    rc = w->ops->stream_drop(w->self, world_stream(stream), &step.step);
    if (rc != 0) {
        return rc;
    }
    w->dropped[stream] = 1;
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    kvs_mock_run_until(w->mock, &step.done);
    if (step.rc == 0) {
        w->dropped[stream] = 2;
    }
    world_run(w);
    return step.rc;
}

/* ---- recovery ----------------------------------------------------------------------------------
 */

static inline int on_snapshot_begin(void *arg, const struct kvs_snapshot_info *info,
                                    struct kvs_error *err)
{
    struct world *w = arg;
    uint64_t i = info->stream - WORLD_STREAM0;

    (void)err;
    assert_true(i < WORLD_STREAMS);
    assert_false(w->got_snapshot[i].there);
    assert_int_equal(w->got[i].count, 0);
    w->got_snapshot[i] = (struct world_snapshot){1, 0, info->offset};
    assert_int_equal(info->item_count, info->offset * 3);
    assert_int_equal(info->leader_epoch, 9);
    assert_int_equal(info->meta.len, 40);
    for (size_t k = 0; k < info->meta.len; k++) {
        assert_int_equal(info->meta.ptr[k],
                         world_byte(world_snapshot_tag(info->stream, info->offset) ^ 0xff, k));
    }
    return 0;
}

static inline int on_snapshot_block(void *arg, uint64_t stream, struct kvs_slice raw,
                                    struct kvs_error *err)
{
    struct world *w = arg;
    struct world_snapshot *s = &w->got_snapshot[stream - WORLD_STREAM0];
    char block[512];
    uint32_t len;

    (void)err;
    assert_true(s->count_blocks < 3);
    len = world_block(stream, s->offset, (uint32_t)s->count_blocks++, block);
    assert_int_equal(raw.len, len);
    assert_memory_equal(raw.ptr, block, len);
    return 0;
}

static inline int on_snapshot_end(void *arg, uint64_t stream, struct kvs_error *err)
{
    struct world *w = arg;

    (void)err;
    assert_int_equal(w->got_snapshot[stream - WORLD_STREAM0].count_blocks, 3);
    return 0;
}

static inline int on_batch(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                           struct kvs_error *err)
{
    struct world *w = arg;
    uint64_t i = h->stream - WORLD_STREAM0, tag = 0;

    (void)err;
    if (i >= WORLD_STREAMS) {
        w->other_streams++;
        return 0;
    }
    assert_true(payload.len >= 8);
    for (size_t k = 0; k < 8; k++) {
        tag |= (uint64_t)payload.ptr[k] << k * 7;
    }
    for (size_t k = 0; k < payload.len; k++) {
        assert_int_equal(payload.ptr[k], world_byte(tag, k));
    }
    world_list_add(&w->got[i],
                   (struct world_batch){h->base_offset, tag, h->count, (uint32_t)payload.len, 0});
    return 0;
}

static inline void on_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    struct world *w = arg;

    assert_true(done_bytes >= w->progress_done);
    assert_true(done_bytes <= total_bytes);
    w->progress_done = done_bytes;
    w->progress_total = total_bytes;
}

static inline int world_recover_only(struct world *w)
{
    static const struct kvs_recover_ops OPS = {on_snapshot_begin, on_snapshot_block,
                                               on_snapshot_end, on_batch, on_progress};
    uint64_t batches = 0;
    int rc;

    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        w->got[i].count = 0;
        w->got_snapshot[i] = (struct world_snapshot){0};
    }
    w->other_streams = w->progress_done = w->progress_total = 0;
    w->err = (struct kvs_error){0};
    kvs_mock_enter(w->mock, KVS_LOOP_NONE);
    rc = w->ops->recover(w->self, &OPS, w, &w->report, &w->err);
    if (rc != 0) {
        assert_true(w->err.msg[0] != '\0');
        return rc;
    }
    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        batches += w->got[i].count;
    }
    assert_int_equal(w->report.batch_count, batches + w->other_streams);
    return 0;
}

/* The stream is what the model allows: the newest acknowledged snapshot or a later one, then the
 * acknowledged batches, then some of those under way, in order. */
static inline void world_check_stream(struct world *w, uint32_t i)
{
    const struct world_list *wrote = &w->wrote[i], *got = &w->got[i];
    const struct world_snapshot *s = &w->got_snapshot[i];
    size_t at = 0, n = 0;

    if (w->dropped[i] == 2 || (w->dropped[i] == 1 && !s->there && got->count == 0)) {
        assert_false(s->there);
        assert_int_equal(got->count, 0);
        return;
    }
    if (w->snapshot[i].there) {
        assert_true(s->there);
    }
    if (s->there && !(w->snapshot[i].there && s->offset == w->snapshot[i].offset)) {
        assert_int_equal(s->offset + 1, w->pending[i]);
    }
    while (s->there && at < wrote->count && wrote->at[at].base + wrote->at[at].count <= s->offset) {
        at++;
    }
    for (; at < wrote->count && n < got->count; at++, n++) {
        assert_int_equal(got->at[n].tag, wrote->at[at].tag);
        assert_int_equal(got->at[n].base, wrote->at[at].base);
        assert_int_equal(got->at[n].count, wrote->at[at].count);
        assert_int_equal(got->at[n].len, wrote->at[at].len);
    }
    assert_int_equal(n, got->count); /* nothing that was never written */
    for (; at < wrote->count; at++) {
        assert_false(wrote->at[at].acked); /* nothing acknowledged is lost */
    }
}

/* The model goes on from what survived. */
static inline void world_adopt(struct world *w, uint32_t i)
{
    struct world_list *wrote = &w->wrote[i];
    const struct world_snapshot *s = &w->got_snapshot[i];

    wrote->count = 0;
    w->next_offset[i] = s->there ? s->offset : 0;
    for (size_t n = 0; n < w->got[i].count; n++) {
        struct world_batch b = w->got[i].at[n];

        b.acked = 1; /* what was served once must stay */
        world_list_add(wrote, b);
        w->next_offset[i] = b.base + b.count;
    }
    w->snapshot[i] = *s;
    w->pending[i] = 0;
    if (w->dropped[i] == 1) {
        w->dropped[i] = s->there || w->got[i].count > 0 ? 0 : 2;
    }
}

/* Recover, compare with the model, go on from there. */
static inline void world_recover(struct world *w)
{
    int rc = world_recover_only(w);

    if (rc != 0) {
        (void)fprintf(stderr, "recovery: %s\n", w->err.msg);
    }
    assert_int_equal(rc, 0);
    for (uint32_t i = 0; i < WORLD_STREAMS; i++) {
        world_check_stream(w, i);
        world_adopt(w, i);
    }
}

static inline struct kvs_persistence_status world_status(struct world *w)
{
    struct kvs_persistence_status status;

    w->ops->status(w->self, &status);
    return status;
}

#endif
