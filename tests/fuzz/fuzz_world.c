/* SPDX-License-Identifier: MIT
 *
 * See fuzz_world.h. */
#include "fuzz_world.h"

#include <stdio.h>
#include <stdlib.h>

const struct kvs_plugin *fuzz_btree_entry(void);
const struct kvs_plugin *fuzz_lz4_entry(void);

const struct secondary_def FUZZ_SECONDARIES[FUZZ_SECONDARY_COUNT] = {
    {"tag", SECONDARY_STRING, 1, ""},
    {"size", SECONDARY_NUMBER, 2, ""},
    {"color", SECONDARY_STRING, 3, "/color"},
    {"n", SECONDARY_NUMBER, 4, "/stats/n"},
};

void fuzz_fail(const char *what)
{
    (void)fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

/* ---- a persistence plugin that keeps nothing ---------------------------------------------------
 */

static void append_done(struct kvs_task *task)
{
    struct kvs_append *a = KVS_CONTAINER_OF(task, struct kvs_append, task);

    a->cb(a, 0);
}

static int append(void *self, struct kvs_append *a)
{
    const struct kvs_host *host = self;
    struct kvs_batch_header h;
    struct kvs_slice payload;

    FUZZ_CHECK(kvs_batch_open(a->batch, &h, &payload, NULL) == 0, "a batch is not sealed");
    a->task.run = append_done;
    kvs_post(host, host->loop_current(host->ctx), &a->task);
    return 0;
}

const struct kvs_persistence_ops fuzz_persistence_ops = {
    .size = sizeof fuzz_persistence_ops,
    .append = append,
};

/* ---- memory ------------------------------------------------------------------------------------
 */

#define BIG_SIZE_MIN  (256u << 10)
#define BIG_COUNT_MAX 16u

static size_t held; /* one world at a time */
/* Large blocks are kept from run to run: under a sanitizer making one costs more than a run. */
static struct {
    void *ptr;
    size_t size;
    int used;
} bigs[BIG_COUNT_MAX];

static void *big_take(size_t size)
{
    for (size_t i = 0; i < BIG_COUNT_MAX; i++) {
        if (bigs[i].ptr == NULL) {
            bigs[i].ptr = malloc(size);
            bigs[i].size = size;
        }
        if (!bigs[i].used && bigs[i].size == size) {
            bigs[i].used = bigs[i].ptr != NULL;
            return bigs[i].ptr;
        }
    }
    return malloc(size);
}

static void big_give(void *ptr)
{
    for (size_t i = 0; i < BIG_COUNT_MAX; i++) {
        if (bigs[i].ptr == ptr) {
            bigs[i].used = 0;
            return;
        }
    }
    free(ptr);
}

static void *mem_alloc(void *ctx, const struct kvs_mem_tag *tag, size_t size)
{
    void *p = size < BIG_SIZE_MIN ? malloc(size) : big_take(size);

    (void)ctx;
    (void)tag;
    FUZZ_CHECK(size > 0, "an allocation of nothing");
    held += p == NULL ? 0 : size;
    return p;
}

static void mem_free(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    (void)ctx;
    (void)tag;
    held -= ptr == NULL ? 0 : size;
    if (size < BIG_SIZE_MIN) {
        free(ptr);
    } else if (ptr != NULL) {
        big_give(ptr);
    }
}

static void *mem_realloc(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                         size_t new_size)
{
    void *p = mem_alloc(ctx, tag, new_size);

    if (p != NULL && ptr != NULL) {
        memcpy(p, ptr, old_size < new_size ? old_size : new_size);
        mem_free(ctx, tag, ptr, old_size);
    }
    return p;
}

/* ---- the world ---------------------------------------------------------------------------------
 */

void fuzz_world_open(struct fuzz_world *w)
{
    memset(w, 0, sizeof *w);
    w->mock = kvs_mock_new(&(struct kvs_mock_conf){.seed = 1});
    w->table = *kvs_mock_host(w->mock);
    w->table.alloc = mem_alloc;
    w->table.realloc = mem_realloc;
    w->table.free = mem_free;
    w->host = &w->table;
    held = 0;
    w->persistence = &fuzz_persistence_ops;
    memcpy(&w->persistence_self, &w->host, sizeof w->host); /* the ops take it back as const */
    w->btree = fuzz_btree_entry();
    w->lz4 = fuzz_lz4_entry();
    FUZZ_CHECK(w->btree->init(w->host, NULL, &w->btree_self, NULL) == 0 &&
                   w->lz4->init(w->host, NULL, &w->lz4_self, NULL) == 0,
               "a plugin does not start");
    kvs_mock_add(w->mock, KVS_KIND_INDEX, "btree", w->btree->ops, w->btree_self);
    kvs_mock_add(w->mock, KVS_KIND_COMPRESSION, "lz4", w->lz4->ops, w->lz4_self);
}

void fuzz_world_close(struct fuzz_world *w)
{
    w->btree->fini(w->btree_self);
    w->lz4->fini(w->lz4_self);
    FUZZ_CHECK(held == 0, "memory is left, or a size given back is not the one taken");
    kvs_mock_free(w->mock);
}

/* ---- a partition -------------------------------------------------------------------------------
 */

static const struct kvs_compression_ops *codec_by_id(const struct kvs_host *host, uint32_t id,
                                                     void **ret_self)
{
    const void *ops = NULL;

    return id == KVS_CODEC_LZ4 &&
                   host->find(host->ctx, KVS_KIND_COMPRESSION, "lz4", &ops, ret_self, NULL) == 0
               ? ops
               : NULL;
}

struct partition *fuzz_partition_new(struct fuzz_world *w, uint64_t stream)
{
    struct partition_conf conf = {
        .host = w->host,
        .stream = stream,
        .leader_epoch = 1,
        .persistence = w->persistence,
        .persistence_self = w->persistence_self,
        .index = w->btree->ops,
        .index_self = w->btree_self,
        .ordered = w->btree->ops,
        .ordered_self = w->btree_self,
        .codec_name = "none",
        .codec_by_id = codec_by_id,
        .limits = {.max_value_bytes = KVS_VALUE_SIZE_MAX},
        .idempotency_window_ms = 600000,
        .idempotency_count_max = 1000,
        .secondaries = FUZZ_SECONDARIES,
        .secondary_count = FUZZ_SECONDARY_COUNT,
    };
    struct partition *p = NULL;

    FUZZ_CHECK(partition_new(&conf, &p, NULL) == 0, "no partition");
    return p;
}

static void on_closed(void *arg)
{
    int *closed = arg;

    *closed = 1;
}

void fuzz_partition_free(struct fuzz_world *w, struct partition *p, int failed)
{
    int closed = 0;

    if (failed) {
        partition_free(p);
        return;
    }
    kvs_mock_enter(w->mock, 0);
    (void)kvs_mock_run(w->mock, 0);
    FUZZ_CHECK(partition_verify(p) == 0, "indexes differ from the items");
    (void)partition_digest(p);
    partition_close(p, on_closed, &closed);
    kvs_mock_run_until(w->mock, &closed);
    partition_free(p);
}

/* ---- checksums ---------------------------------------------------------------------------------
 */

void fuzz_seal_batches(uint8_t *bytes, size_t len)
{
    while (len >= KVS_BATCH_HEADER_SIZE) {
        uint32_t total = kvs_get_u32(bytes + 8);

        if (total < KVS_BATCH_HEADER_SIZE || total > len) {
            total = (uint32_t)len;
            kvs_put_u32(bytes + 8, total);
        }
        kvs_put_u32(bytes, KVS_BATCH_MAGIC);
        kvs_put_u32(bytes + 4, kvs_crc32c(0, bytes + 8, total - 8));
        bytes += total;
        len -= total;
    }
}
