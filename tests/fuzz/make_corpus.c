/* SPDX-License-Identifier: MIT
 *
 * Writes the binary seeds: a journal, the batches in it, a snapshot, made by the plugin itself.
 *
 *   ninja -C build fuzz-make-corpus && build/tests/fuzz-make-corpus tests/fuzz/corpus */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz_wal.h"
#include "kvs/method.h"

struct request {
    struct write_batch wb;
    struct kvs_arena arena;
    int done;
};

static const char *folder;

static void save(const char *name, const uint8_t *head, size_t head_len, const uint8_t *bytes,
                 size_t len)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "we");
    FUZZ_CHECK(f != NULL && fwrite(head, 1, head_len, f) == head_len &&
                   fwrite(bytes, 1, len, f) == len && fclose(f) == 0,
               "a seed cannot be written");
}

static void on_written(struct write_batch *wb, int rc)
{
    FUZZ_CHECK(rc == 0, "a write failed");
    KVS_CONTAINER_OF(wb, struct request, wb)->done = 1;
}

static void write_ops(struct fuzz_world *w, struct partition *p, struct write_op *ops,
                      uint32_t count, const char *idempotency_key)
{
    struct request r = {.wb = {.ops = ops, .count = count, .acks = 2, .cb = on_written}};

    kvs_arena_init(&r.arena, w->host, NULL, 0);
    r.wb.arena = &r.arena;
    if (idempotency_key != NULL) {
        r.wb.idempotency_key = kvs_slice_str(idempotency_key);
        r.wb.idempotency_hash = 5;
    }
    kvs_mock_enter(w->mock, 0);
    FUZZ_CHECK(partition_write(p, &r.wb) == 0, "a write is refused");
    kvs_mock_run_until(w->mock, &r.done);
    kvs_arena_fini(&r.arena);
}

static void write_items(struct fuzz_world *w, struct partition *p)
{
    static const struct index_value INDEXES[] = {{{"tag", 3}, {"x", 1}}, {{"size", 4}, {"12", 2}}};
    struct write_op plain = {
        .kind = WRITE_PUT, .key = kvs_slice_str("a"), .value = kvs_slice_str("first")};
    struct write_op ops[] = {
        {.kind = WRITE_PUT,
         .key = kvs_slice_str("b"),
         .partition_key = kvs_slice_str("part"),
         .value = kvs_slice_str("{\"color\":\"red\",\"stats\":{\"n\":3}}"),
         .content_type = kvs_slice_str("application/json"),
         .indexes = INDEXES,
         .index_count = 2},
        {.kind = WRITE_PUT,
         .key = kvs_slice_str("c"),
         .value = kvs_slice_str("gone soon"),
         .expires_at_ms = 1800000000000},
        {.kind = WRITE_TOUCH, .key = kvs_slice_str("a"), .expires_at_ms = 1800000000001},
        {.kind = WRITE_DELETE, .key = kvs_slice_str("c")}};

    write_ops(w, p, &plain, 1, NULL);
    write_ops(w, p, ops, KVS_ARRAY_COUNT(ops), "key");
}

static void on_snapshot(void *arg, int rc)
{
    int *done = arg;

    FUZZ_CHECK(rc == 0, "a snapshot failed");
    *done = 1;
}

static void save_files(struct fuzz_world *w, const char *codec)
{
    const char *const *names = kvs_mock_files(w->mock);
    char copy[8][128], seed[64];
    uint32_t n = 0;

    for (; names[n] != NULL && n < 8; n++) {
        (void)snprintf(copy[n], sizeof copy[n], "%s", names[n]);
    }
    for (uint32_t i = 0; i < n; i++) {
        size_t len;
        const uint8_t *bytes = kvs_mock_file(w->mock, copy[i], &len);
        uint8_t cut[4];

        if (bytes != NULL && strncmp(copy[i], "snapshots/", 10) == 0) {
            (void)snprintf(seed, sizeof seed, "snapshot/%s", codec);
            save(seed, cut, 0, bytes, len);
        } else if (bytes != NULL && strstr(copy[i], ".seg") != NULL) {
            size_t end = len;

            while (end > 0 && bytes[end - 1] == 0) {
                end--;
            }
            end = (end + FRAME_ALIGN - 1) & ~(size_t)(FRAME_ALIGN - 1);
            kvs_put_u32(cut, (uint32_t)end);
            (void)snprintf(seed, sizeof seed, "journal/%s", codec);
            save(seed, cut, 4, bytes, end);
            (void)snprintf(seed, sizeof seed, "log_batch/%s", codec);
            save(seed, cut, 0, bytes + SEGMENT_HEADER_SIZE + FRAME_HEADER_SIZE,
                 kvs_get_u32(bytes + SEGMENT_HEADER_SIZE + 8));
        }
    }
}

static void make(void)
{
    static const struct wal_conf CONF = {
        .segment_size = 1 << 20, .sync_interval_ms = 100, .snapshot_interval_ms = 60000};
    static const struct kvs_recover_ops OPS = {.batch = NULL};
    const struct kvs_plugin *plugin = kvs_plugin_entry();
    struct kvs_recover_report report;
    struct fuzz_world w;
    struct partition *p;
    int done = 0;

    fuzz_world_open(&w);
    FUZZ_CHECK(plugin->init(w.host, &CONF, &w.persistence_self, NULL) == 0, "no journal");
    w.persistence = plugin->ops;
    FUZZ_CHECK(w.persistence->recover(w.persistence_self, &OPS, NULL, &report, NULL) == 0,
               "an empty journal is not recovered");
    p = fuzz_partition_new(&w, FUZZ_STREAM);
    write_items(&w, p);
    save_files(&w, "plain");
    kvs_mock_enter(w.mock, 0);
    FUZZ_CHECK(partition_snapshot_begin(p, 10, on_snapshot, &done) == 0, "no snapshot");
    kvs_mock_run_until(w.mock, &done);
    save_files(&w, "plain");
    fuzz_partition_free(&w, p, 0);
    kvs_mock_enter(w.mock, KVS_LOOP_NONE);
    plugin->stop(w.persistence_self);
    plugin->fini(w.persistence_self);
    fuzz_world_close(&w);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    folder = argv[1];
    make();
    return 0;
}
