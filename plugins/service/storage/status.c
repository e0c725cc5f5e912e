/* SPDX-License-Identifier: MIT
 *
 * storage.status: what the partitions of a table look like on this node. Asked by the metadata
 * service for GET /v1/tables/{t}/partitions. Each loop writes about its own; the last one answers.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "storage.h"

static const struct kvs_mem_tag status_memory = {"storage.status"};

struct piece {
    struct kvs_task task;
    struct status *st;
    struct kvs_buf text;
};

struct status {
    struct storage *svc;
    struct kvs_request *req;
    uint32_t table_id;
    _Atomic uint32_t left;
    struct piece *pieces; /* [loop_count] */
};

static void buf_free(void *arg)
{
    kvs_buf_fini(arg);
}

static void answer(struct status *st)
{
    struct kvs_request *req = st->req;
    const struct kvs_host *host = st->svc->host;
    struct kvs_buf *b = kvs_arena_alloc(&req->arena, sizeof *b);
    uint32_t n = 0;

    if (b != NULL) {
        kvs_buf_init(b, host, &status_memory);
        kvs_buf_append_str(b, "{\"partitions\":[");
        for (uint32_t i = 0; i < host->loop_count; i++) {
            struct kvs_slice text = kvs_buf_slice(&st->pieces[i].text);

            kvs_buf_append_str(b, text.len > 0 && n++ > 0 ? "," : "");
            kvs_buf_append(b, text.ptr, text.len);
            b->failed |= st->pieces[i].text.failed;
        }
        kvs_buf_append_str(b, "]}");
    }
    for (uint32_t i = 0; i < host->loop_count; i++) {
        kvs_buf_fini(&st->pieces[i].text);
    }
    if (b == NULL || b->failed) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
    } else {
        req->response.status = 200;
        req->response.content_type = "application/json";
        req->response.body = kvs_buf_slice(b);
        req->response.body_free = buf_free;
        req->response.body_arg = b;
    }
    host->complete(host->ctx, req);
}

static void put_partition(struct kvs_buf *b, const struct kvs_host *host, uint32_t table_id,
                          uint32_t number, const struct partition_stats *st)
{
    kvs_buf_append_str(b, b->len > 0 ? ",{\"node\":" : "{\"node\":");
    kvs_json_str(b, kvs_slice_str(host->node_id));
    kvs_buf_printf(b,
                   ",\"table\":%" PRIu32 ",\"partition\":%" PRIu32 ",\"leo\":%" PRIu64
                   ",\"hw\":%" PRIu64 ",\"lag\":%" PRIu64 ",\"items\":%" PRIu64
                   ",\"bytes\":%" PRIu64 ",\"memory_bytes\":%" PRIu64 ",\"state\":\"%s\"}",
                   table_id, number, st->leo, st->hw, st->leo - st->hw, st->item_count,
                   st->key_bytes + st->value_bytes, st->memory_bytes,
                   st->failed != 0 ? "failed" : "online");
}

static void piece_arrives(struct kvs_task *task)
{
    struct piece *pc = KVS_CONTAINER_OF(task, struct piece, task);
    struct status *st = pc->st;
    const struct kvs_host *host = st->svc->host;
    const struct loop *l = &st->svc->loops[pc - st->pieces];
    const struct table *t = l->map == NULL ? NULL : map_table_by_id(l->map, st->table_id);

    for (uint32_t i = 0; t != NULL && i < t->partition_count; i++) {
        struct partition_stats stats;

        if (loop_of(st->svc, t->id, i) == l->index && t->parts[i] != NULL) {
            partition_stats(t->parts[i]->partition, &stats);
            put_partition(&pc->text, host, t->id, i, &stats);
        }
    }
    if (atomic_fetch_sub_explicit(&st->left, 1, memory_order_acq_rel) == 1) {
        answer(st);
    }
}

void storage_status(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct kvs_host *host = s->host;
    struct status *st = kvs_arena_alloc(&req->arena, sizeof *st);
    uint32_t here = host->loop_current(host->ctx);

    if (st != NULL) {
        memset(st, 0, sizeof *st);
        st->pieces = kvs_arena_alloc(&req->arena, host->loop_count * sizeof *st->pieces);
    }
    if (st == NULL || st->pieces == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        host->complete(host->ctx, req);
        return;
    }
    st->svc = s;
    st->req = req;
    st->table_id = (uint32_t)req->args[STATUS_TABLE].u;
    atomic_store_explicit(&st->left, host->loop_count, memory_order_relaxed);
    memset(st->pieces, 0, host->loop_count * sizeof *st->pieces);
    for (uint32_t i = 0; i < host->loop_count; i++) {
        st->pieces[i].st = st;
        st->pieces[i].task.run = piece_arrives;
        kvs_buf_init(&st->pieces[i].text, host, &status_memory);
    }
    for (uint32_t i = 0; i < host->loop_count; i++) {
        if (i != here) {
            kvs_post(host, i, &st->pieces[i].task);
        }
    }
    piece_arrives(&st->pieces[here].task);
}
