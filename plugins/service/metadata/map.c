/* SPDX-License-Identifier: MIT
 *
 * The map: who holds what. GET /v1/metadata for clients, metadata.watch for storage servers (the
 * same, with the secret that signs cursors). Rendered once per version; a long poll waits for a
 * newer one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"

enum { ARG_AFTER = 0, ARG_WAIT = 1, ARG_IF_NONE_MATCH = 2 };

static json_t *ids_json(const struct meta_state *s, const uint16_t *slots, uint8_t count)
{
    json_t *list = json_array();

    for (uint8_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, json_string(s->nodes[slots[i]].id));
    }
    return list;
}

static json_t *partition_json(const struct meta_state *s, const struct meta_table *t, uint32_t i)
{
    const struct meta_partition *p = &t->partitions[i];

    return json_pack(
        "{s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:o}", "table", (json_int_t)t->id, "partition",
        (json_int_t)i, "leader", p->leader < 0 ? json_null() : json_string(s->nodes[p->leader].id),
        "leader_epoch", (json_int_t)p->leader_epoch, "partition_epoch",
        (json_int_t)p->partition_epoch, "replicas", ids_json(s, p->replicas, p->replica_count),
        "isr", ids_json(s, p->isr, p->isr_count), "elr", ids_json(s, p->elr, p->elr_count));
}

static char *map_render(const struct meta_state *s, int with_secret)
{
    json_t *nodes = json_array(), *tables = json_array(), *partitions = json_array(), *root;
    char secret[2 * META_SECRET_SIZE + 1], *text;

    for (uint32_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i].state != NODE_REMOVED) {
            (void)json_array_append_new(nodes, node_view(&s->nodes[i]));
        }
    }
    for (uint32_t i = 0; i < s->table_count; i++) {
        (void)json_array_append_new(tables, table_view(s->tables[i]));
        for (uint32_t k = 0; k < s->tables[i]->spec.partitions; k++) {
            (void)json_array_append_new(partitions, partition_json(s, s->tables[i], k));
        }
    }
    root = json_pack("{s:I, s:s, s:o, s:o, s:o}", "version", (json_int_t)s->version, "cluster_id",
                     s->cluster_id, "nodes", nodes, "tables", tables, "partitions", partitions);
    if (root != NULL && with_secret) {
        for (uint32_t i = 0; i < META_SECRET_SIZE; i++) {
            (void)snprintf(secret + (size_t)2 * i, 3, "%02x", s->secret[i]);
        }
        (void)json_object_set_new(root, "cluster_secret", json_string(secret));
    }
    text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

static void answer(struct metadata *self, struct kvs_request *req, int with_secret)
{
    struct view *v = self->view;
    char **cache = with_secret ? &v->map_peer : &v->map_public;
    char *copy = NULL;

    if (*cache == NULL) {
        *cache = map_render(&v->state, with_secret);
    }
    /* The view may go before the answer is sent: each answer carries its own copy. */
    if (*cache != NULL) {
        copy = kvs_arena_strdup(&req->arena, kvs_slice_str(*cache));
    }
    if (copy == NULL) {
        metadata_problem(self, req, 503, "out_of_memory", 1, "the server is out of memory");
        return;
    }
    kvs_response_header(req, "ETag",
                        kvs_arena_printf(&req->arena, "\"%" PRIu64 "\"", v->state.version));
    req->response.status = 200;
    req->response.content_type = "application/json";
    req->response.body = kvs_slice_str(copy);
    self->host->complete(self->host->ctx, req);
}

static void answer_public(struct metadata *self, struct kvs_request *req)
{
    answer(self, req, 0);
}

static void answer_peer(struct metadata *self, struct kvs_request *req)
{
    answer(self, req, 1);
}

static void unchanged(struct metadata *self, struct kvs_request *req)
{
    uint64_t version = self->view == NULL ? 0 : self->view->state.version;

    kvs_response_header(req, "ETag", kvs_arena_printf(&req->arena, "\"%" PRIu64 "\"", version));
    req->response.status = 304;
    self->host->complete(self->host->ctx, req);
}

/* The version a client says it has: `after`, else If-None-Match; -1 none. */
static int known_version(const struct kvs_request *req, uint64_t *ret_v)
{
    struct kvs_slice etag;

    if (kvs_arg_given(req, ARG_AFTER)) {
        *ret_v = req->args[ARG_AFTER].u;
        return 1;
    }
    etag = kvs_arg(req, ARG_IF_NONE_MATCH);
    return etag.ptr != NULL && etag.len > 2 && etag.ptr[0] == '"' &&
           etag.ptr[etag.len - 1] == '"' &&
           kvs_u64_parse(kvs_slice(etag.ptr + 1, etag.len - 2), ret_v) == 0;
}

static void serve(struct metadata *self, struct kvs_request *req,
                  void (*fn)(struct metadata *self, struct kvs_request *req))
{
    uint64_t version, wait_ms = kvs_arg_given(req, ARG_WAIT) ? req->args[ARG_WAIT].u : 0;

    if (!known_version(req, &version)) {
        fn(self, req);
    } else if (version > self->view->state.version) {
        /* A client ahead of us talked to another cluster or a newer server: give what is true here.
         */
        fn(self, req);
    } else {
        metadata_wait(self, req, version + 1, wait_ms, fn, unchanged);
    }
}

static void get_on_view(struct metadata *self, struct kvs_request *req)
{
    serve(self, req, answer_public);
}

static void watch_on_view(struct metadata *self, struct kvs_request *req)
{
    serve(self, req, answer_peer);
}

void map_get(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, get_on_view);
}

void map_watch(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, watch_on_view);
}
