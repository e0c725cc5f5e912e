/* SPDX-License-Identifier: MIT
 *
 * See partition_world.h. Plugins are loaded from the files named by KVS_BTREE_SO, KVS_HASH_SO and
 * KVS_LZ4_SO, as kvsd does. */
#include "partition_world.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static struct world *current; /* whose partition posts; tests have one world at a time */

static void stop_test(const char *why)
{
    (void)fprintf(stderr, "world: %s\n", why);
    abort();
}

static const struct kvs_plugin *plugin_open(const char *path)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = module == NULL ? NULL : dlsym(module, KVS_PLUGIN_ENTRY_NAME);
    kvs_plugin_entry_fn entry;

    if (symbol == NULL) {
        stop_test(dlerror());
    }
    memcpy(&entry, &symbol, sizeof entry);
    return entry();
}

static const struct kvs_plugin *plugin_init(struct world *w, const char *path, void **ret_self)
{
    const struct kvs_plugin *plugin = plugin_open(path);

    if (plugin->init(&w->host, NULL, ret_self, NULL) != 0) {
        stop_test("a plugin does not start");
    }
    return plugin;
}

static void post(void *ctx, uint32_t loop, struct kvs_task *task)
{
    (void)ctx;
    (void)loop;
    task->next = NULL;
    *current->posted_tail = task;
    current->posted_tail = &task->next;
}

int world_post_one(struct world *w)
{
    struct kvs_task *task = w->posted;

    if (task == NULL) {
        return 0;
    }
    w->posted = task->next;
    if (w->posted == NULL) {
        w->posted_tail = &w->posted;
    }
    task->run(task);
    return 1;
}

static const struct kvs_compression_ops *codec_by_id(const struct kvs_host *host, uint32_t id,
                                                     void **ret_self)
{
    (void)host;
    *ret_self = current->lz4_self;
    return id == KVS_CODEC_LZ4 ? current->lz4->ops : NULL;
}

static const struct secondary_def DEFS[] = {
    {"tag", SECONDARY_STRING, 1, ""},
    {"size", SECONDARY_NUMBER, 2, ""},
    {"color", SECONDARY_STRING, 3, "/color"},
    {"n", SECONDARY_NUMBER, 4, "/stats/n"},
};

void world_open(struct world *w, uint64_t seed, uint32_t flags, uint32_t index_count)
{
    memset(w, 0, sizeof *w);
    current = w;
    w->posted_tail = &w->posted;
    w->mock = kvs_mock_new(&(struct kvs_mock_conf){.seed = seed});
    w->host = *kvs_mock_host(w->mock);
    w->host.post = post;
    kvs_mock_enter(w->mock, 0);
    w->btree = plugin_init(w, KVS_BTREE_SO, &w->btree_self);
    w->hash = plugin_init(w, KVS_HASH_SO, &w->hash_self);
    w->lz4 = plugin_init(w, KVS_LZ4_SO, &w->lz4_self);
    memcpy(w->defs, DEFS, sizeof DEFS);
    w->conf = (struct partition_conf){
        .host = &w->host,
        .stream = WORLD_STREAM,
        .leader_epoch = 1,
        .persistence = &journal_ops,
        .persistence_self = &w->journal,
        .index = (flags & WORLD_HASH) != 0 ? w->hash->ops : w->btree->ops,
        .index_self = (flags & WORLD_HASH) != 0 ? w->hash_self : w->btree_self,
        .ordered = w->btree->ops,
        .ordered_self = w->btree_self,
        .codec = (flags & WORLD_LZ4) != 0 ? w->lz4->ops : NULL,
        .codec_self = w->lz4_self,
        .codec_name = (flags & WORLD_LZ4) != 0 ? "lz4" : "none",
        .codec_by_id = codec_by_id,
        .limits = {.max_value_bytes = KVS_VALUE_SIZE_MAX},
        .idempotency_window_ms = 600000,
        .idempotency_count_max = 100000,
        .secondaries = w->defs,
        .secondary_count = index_count,
    };
    if (world_start(w) != 0) {
        stop_test("no partition");
    }
}

int world_start(struct world *w)
{
    struct kvs_error err;

    return partition_new(&w->conf, &w->p, &err);
}

static void on_closed(void *arg)
{
    struct world *w = arg;

    w->closed++;
}

void world_stop(struct world *w)
{
    int before = w->closed;

    partition_close(w->p, on_closed, w);
    world_round(w);
    while (journal_complete(&w->journal) || journal_step(&w->journal) || world_post_one(w)) {
        world_round(w);
    }
    if (w->closed != before + 1) {
        stop_test("the partition does not close");
    }
    partition_free(w->p);
    w->p = NULL;
}

void world_close(struct world *w)
{
    if (w->p != NULL) {
        world_stop(w);
    }
    w->btree->fini(w->btree_self);
    w->hash->fini(w->hash_self);
    w->lz4->fini(w->lz4_self);
    journal_fini(&w->journal);
    kvs_mock_free(w->mock);
}

uint64_t world_now(const struct world *w)
{
    return kvs_now_ms(&w->host);
}

void world_round(struct world *w)
{
    (void)kvs_mock_run(w->mock, 0);
}

void world_settle(struct world *w)
{
    world_round(w);
    while (journal_complete(&w->journal)) {
        world_round(w);
    }
}

static void on_snapshot(void *arg, int rc)
{
    struct world *w = arg;

    w->snapshot_done++;
    w->snapshot_rc = rc;
}

int world_snapshot(struct world *w)
{
    int before = w->snapshot_done, rc = partition_snapshot_begin(w->p, 7, on_snapshot, w);

    if (rc != 0) {
        return rc;
    }
    while (world_post_one(w) || journal_step(&w->journal)) {
    }
    if (w->snapshot_done != before + 1) {
        stop_test("the snapshot does not end");
    }
    return w->snapshot_rc;
}

static int on_begin(void *arg, const struct kvs_snapshot_info *info, struct kvs_error *err)
{
    return partition_recover_begin(arg, info, err);
}

static int on_block(void *arg, uint64_t stream, struct kvs_slice raw, struct kvs_error *err)
{
    (void)stream;
    return partition_recover_block(arg, raw, err);
}

static int on_end(void *arg, uint64_t stream, struct kvs_error *err)
{
    (void)stream;
    return partition_recover_end(arg, err);
}

static int on_batch(void *arg, const struct kvs_batch_header *h, struct kvs_slice payload,
                    struct kvs_error *err)
{
    return partition_recover_batch(arg, h, payload, err);
}

int world_recover(struct world *w, struct partition **ret_p, struct kvs_error *err)
{
    static const struct kvs_recover_ops OPS = {on_begin, on_block, on_end, on_batch, NULL};
    struct partition *p;
    int rc = partition_new(&w->conf, &p, err);

    if (rc == 0) {
        rc = journal_replay(&w->journal, &OPS, p, err);
        if (rc != 0) {
            partition_free(p);
        }
    }
    if (rc == 0) {
        *ret_p = p;
    }
    return rc;
}

struct partition_stats world_stats(const struct partition *p)
{
    struct partition_stats s;

    partition_stats(p, &s);
    return s;
}

int world_recovers(struct world *w)
{
    struct partition *again;
    struct partition_stats is, was = world_stats(w->p);
    struct kvs_error err = {0};
    int same;

    if (world_recover(w, &again, &err) != 0) {
        (void)fprintf(stderr, "world: recovery: %s\n", err.msg);
        return 0;
    }
    is = world_stats(again);
    same = partition_digest(again) == partition_digest(w->p) && partition_verify(again) == 0 &&
           is.leo == was.hw && is.hw == was.hw && is.item_count == was.item_count &&
           is.key_bytes == was.key_bytes && is.value_bytes == was.value_bytes &&
           is.expiring == was.expiring && is.tombstones == 0;
    partition_free(again);
    return same;
}

/* ---- writes ------------------------------------------------------------------------------------
 */

static void on_written(struct write_batch *wb, int rc)
{
    struct request *r = KVS_CONTAINER_OF(wb, struct request, wb);

    r->fired++;
    r->rc = rc;
}

int world_submit(struct world *w, struct request *r, struct write_op *ops, uint32_t count,
                 uint32_t atomic, uint32_t acks)
{
    r->fired = 0;
    r->rc = 1;
    kvs_arena_init(&r->arena, &w->host, NULL, 0);
    r->wb.ops = ops;
    r->wb.count = count;
    r->wb.atomic = atomic;
    r->wb.acks = acks;
    r->wb.arena = &r->arena;
    r->wb.cb = on_written;
    return partition_write(w->p, &r->wb);
}

void request_fini(struct request *r)
{
    kvs_arena_fini(&r->arena);
}

struct write_op op_of(uint32_t kind, const char *key)
{
    struct write_op op;

    memset(&op, 0, sizeof op);
    op.kind = kind;
    op.key = kvs_slice_str(key);
    return op;
}

struct write_op op_put(const char *key, const char *value)
{
    struct write_op op = op_of(WRITE_PUT, key);

    op.value = kvs_slice_str(value);
    return op;
}

struct write_op world_do(struct world *w, struct write_op op)
{
    struct request r = {.fired = 0};
    int rc = world_submit(w, &r, &op, 1, 0, 2);

    if (rc == 0) {
        world_settle(w);
    }
    if (rc != 0 || r.fired != 1 || r.rc != 0) {
        stop_test("a write did not end well");
    }
    request_fini(&r);
    return op;
}

int world_has(struct world *w, const char *key, uint32_t read, const char *value)
{
    struct item_view v;
    int found = partition_get(w->p, kvs_slice_str(key), read, world_now(w), &v);

    return value == NULL ? !found : found && kvs_slice_eq_str(v.value, value);
}

const char *world_keys(struct partition *p, uint32_t secondary, uint32_t descending, uint32_t read,
                       char buf[512])
{
    struct partition_cursor c;
    size_t n = 0;

    buf[0] = '\0';
    for (partition_seek_secondary(p, secondary, kvs_slice(NULL, 0), 0, descending, read, 0, &c);
         c.valid; partition_next(&c)) {
        n += (size_t)snprintf(buf + n, 512 - n, "%s%.*s", n == 0 ? "" : " ", (int)c.item.key.len,
                              c.item.key.ptr);
    }
    return buf;
}
