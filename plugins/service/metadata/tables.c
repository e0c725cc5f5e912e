/* SPDX-License-Identifier: MIT
 *
 * Handlers of the Tables section of the API. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"

#define STATUS_CALL_TIMEOUT_MS 2000u

enum { ARG_TABLE = 0 };

json_t *table_view(const struct meta_table *t)
{
    json_t *o = spec_json(&t->spec);
    char seed[24];

    if (o == NULL) {
        return NULL;
    }
    (void)snprintf(seed, sizeof seed, "%" PRIu64, t->seed);
    (void)json_object_set_new(o, "id", json_integer((json_int_t)t->id));
    (void)json_object_set_new(o, "name", json_string(t->name));
    (void)json_object_set_new(o, "ttl_ms", json_integer((json_int_t)t->spec.ttl_ms));
    (void)json_object_set_new(o, "state", json_string("active"));
    (void)json_object_set_new(o, "created_at", json_integer((json_int_t)t->created_at));
    (void)json_object_set_new(
        o, "hash",
        json_pack("{s:s, s:i, s:s}", "algorithm", "jump-xxh3-64", "version", 1, "seed", seed));
    return o;
}

/* The table a request names, or NULL after a 404. */
static struct meta_table *wanted(struct metadata *self, struct kvs_request *req)
{
    char name[KVS_TABLE_NAME_SIZE_MAX + 1] = "";
    struct kvs_slice arg = kvs_arg(req, ARG_TABLE);
    struct meta_table *t = NULL;

    if (arg.len < sizeof name && memchr(arg.ptr, '\0', arg.len) == NULL) {
        memcpy(name, arg.ptr, arg.len);
        name[arg.len] = '\0';
        t = state_table(&self->view->state, name);
    }
    if (t == NULL) {
        metadata_problem(self, req, 404, "table_not_found", 0, "there is no table '%.*s'",
                         (int)(arg.len > 64 ? 64 : arg.len), arg.ptr);
    }
    return t;
}

static const char *subject(struct kvs_request *req, struct kvs_slice name)
{
    const char *text = kvs_arena_printf(&req->arena, "table '%.*s'", (int)name.len, name.ptr);

    return text == NULL ? "the table" : text;
}

static void spec_problem(struct metadata *self, struct kvs_request *req, int rc, const char *member,
                         const struct kvs_error *err)
{
    if (rc == KVS_ECONFLICT) {
        metadata_problem(self, req, 409, "conflict", 0, "%s", err->msg);
    } else if (rc == KVS_ENOTFOUND) {
        metadata_problem(self, req, 404, "index_not_found", 0, "%s", err->msg);
    } else {
        metadata_problem(self, req, 400,
                         strstr(err->msg, "is not known") != NULL ? "unknown_member"
                                                                  : "invalid_body",
                         0, "%s%s%s", member, member[0] == '\0' ? "" : ": ", err->msg);
    }
}

static void plugin_problem(struct metadata *self, struct kvs_request *req, const char *member,
                           const char *name)
{
    metadata_problem(self, req, 400, "unknown_plugin", 0,
                     "'%s': no plugin '%s' is loaded here; GET /v1/plugins lists them", member,
                     name);
}

/* Storage servers must have the plugins a table names. In one process that can be seen at once. */
static int plugins_known(struct metadata *self, struct kvs_request *req,
                         const struct meta_spec *spec)
{
    const struct kvs_host *host = self->host;
    const char *none;

    if (host->each(host->ctx, KVS_KIND_INDEX, 0, &none, NULL, NULL) != 0) {
        return 1; /* a metadata server without storage: the storage servers will say */
    }
    if (host->find(host->ctx, KVS_KIND_INDEX, spec->index, NULL, NULL, NULL) != 0) {
        plugin_problem(self, req, "index", spec->index);
        return 0;
    }
    if (strcmp(spec->compression, "none") != 0 &&
        host->find(host->ctx, KVS_KIND_COMPRESSION, spec->compression, NULL, NULL, NULL) != 0) {
        plugin_problem(self, req, "compression", spec->compression);
        return 0;
    }
    return 1;
}

/* ---- create, alter, drop --------------------------------------------------------------------- */

static void created(struct metadata *self, struct kvs_request *req)
{
    const struct meta_table *t = state_table(&self->view->state, (const char *)req->state);

    if (t == NULL) {
        metadata_problem(self, req, 409, "conflict", 0, "the table was dropped again meanwhile");
        return;
    }
    kvs_response_header(req, "Location", kvs_arena_printf(&req->arena, "/v1/tables/%s", t->name));
    metadata_reply(self, req, 201, table_view(t));
}

static void create_on_view(struct metadata *self, struct kvs_request *req)
{
    const struct meta_state *s = &self->view->state;
    json_t *body = metadata_body(self, req);
    char name[KVS_TABLE_NAME_SIZE_MAX + 1] = "";
    uint32_t next_index_id = 1;
    const char *member;
    struct kvs_error err;
    struct meta_spec spec;
    uint64_t seed;
    int rc;

    if (body == NULL) {
        return;
    }
    spec_defaults(&spec, state_active_nodes(s));
    rc = spec_parse(body, SPEC_CREATE, &spec, name, &next_index_id, &member, &err);
    if (rc != 0) {
        spec_problem(self, req, rc, member, &err);
        json_decref(body);
        return;
    }
    if (!plugins_known(self, req, &spec)) {
        json_decref(body);
        return;
    }
    self->host->random(self->host->ctx, &seed, sizeof seed);
    req->state = kvs_arena_strdup(&req->arena, kvs_slice_str(name));
    metadata_propose(self, req,
                     json_pack("{s:s, s:o, s:o, s:I}", "op", "table.create", "body", body, "seed",
                               json_sprintf("%016" PRIx64, seed), "now",
                               (json_int_t)kvs_now_ms(self->host)),
                     subject(req, kvs_slice_str(name)), created);
}

static void altered(struct metadata *self, struct kvs_request *req)
{
    struct meta_table *t = wanted(self, req);

    if (t != NULL) {
        metadata_reply(self, req, 200, table_view(t));
    }
}

static void alter_on_view(struct metadata *self, struct kvs_request *req)
{
    struct meta_table *t = wanted(self, req);
    json_t *body = t == NULL ? NULL : metadata_body(self, req);
    const char *member;
    struct kvs_error err;
    struct meta_spec spec;
    uint32_t next_id;
    int rc;

    if (body == NULL) {
        return;
    }
    spec = t->spec;
    next_id = t->next_index_id;
    rc = spec_parse(body, SPEC_ALTER, &spec, NULL, &next_id, &member, &err);
    if (rc != 0) {
        spec_problem(self, req, rc, member, &err);
        json_decref(body);
        return;
    }
    metadata_propose(
        self, req, json_pack("{s:s, s:s, s:o}", "op", "table.alter", "name", t->name, "body", body),
        subject(req, kvs_slice_str(t->name)), altered);
}

static void dropped(struct metadata *self, struct kvs_request *req)
{
    req->response.status = 204;
    self->host->complete(self->host->ctx, req);
}

static void drop_on_view(struct metadata *self, struct kvs_request *req)
{
    struct meta_table *t = wanted(self, req);

    if (t != NULL) {
        metadata_propose(self, req, json_pack("{s:s, s:s}", "op", "table.drop", "name", t->name),
                         subject(req, kvs_slice_str(t->name)), dropped);
    }
}

/* ---- list, get ------------------------------------------------------------------------------- */

static void list_on_view(struct metadata *self, struct kvs_request *req)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < self->view->state.table_count; i++) {
        (void)json_array_append_new(list, table_view(self->view->state.tables[i]));
    }
    metadata_reply(self, req, 200, json_pack("{s:o}", "tables", list));
}

static void get_on_view(struct metadata *self, struct kvs_request *req)
{
    altered(self, req);
}

/* ---- partitions: the map's part, and what each storage node says of its replicas ------------- */

struct status_call {
    struct kvs_call call;
    struct kvs_call_arg arg;
    struct metadata *self;
    struct kvs_request *req;
    json_t *replicas; /* storage.status of the local node, or NULL */
};

static json_t *replica_json(const struct meta_state *s, const struct meta_partition *p, uint8_t i,
                            const json_t *statuses, uint32_t partition)
{
    const char *node = s->nodes[p->replicas[i]].id;
    json_t *o = json_pack("{s:s}", "node", node);
    size_t k;
    json_t *status;

    json_array_foreach(statuses, k, status)
    {
        const char *reporter = json_string_value(json_object_get(status, "node"));

        if (json_integer_value(json_object_get(status, "partition")) == (json_int_t)partition &&
            reporter != NULL && strcmp(reporter, node) == 0) {
            (void)json_object_update_missing(o, status);
        }
    }
    (void)json_object_del(o, "partition");
    (void)json_object_del(o, "table");
    if (json_object_get(o, "state") == NULL) {
        (void)json_object_set_new(o, "state", json_string("unknown"));
    }
    return o;
}

static json_t *ids(const struct meta_state *s, const uint16_t *slots, uint8_t count)
{
    json_t *list = json_array();

    for (uint8_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, json_string(s->nodes[slots[i]].id));
    }
    return list;
}

static void partitions_answer(struct metadata *self, struct kvs_request *req,
                              const json_t *statuses)
{
    const struct meta_state *s = &self->view->state;
    struct meta_table *t = wanted(self, req);
    json_t *list;

    if (t == NULL) {
        return;
    }
    list = json_array();
    for (uint32_t i = 0; i < t->spec.partitions; i++) {
        const struct meta_partition *p = &t->partitions[i];
        json_t *replicas = json_array();

        for (uint8_t r = 0; r < p->replica_count; r++) {
            (void)json_array_append_new(replicas, replica_json(s, p, r, statuses, i));
        }
        (void)json_array_append_new(
            list,
            json_pack("{s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:o}", "id", (json_int_t)i, "leader",
                      p->leader < 0 ? json_null() : json_string(s->nodes[p->leader].id),
                      "leader_epoch", (json_int_t)p->leader_epoch, "partition_epoch",
                      (json_int_t)p->partition_epoch, "replicas",
                      ids(s, p->replicas, p->replica_count), "isr", ids(s, p->isr, p->isr_count),
                      "elr", ids(s, p->elr, p->elr_count), "replica_status", replicas));
    }
    metadata_reply(self, req, 200, json_pack("{s:o}", "partitions", list));
}

static void status_arrives(struct kvs_call *call, int rc)
{
    struct status_call *sc = KVS_CONTAINER_OF(call, struct status_call, call);
    json_t *reply = NULL;

    if (rc == 0 && call->status == 200) {
        reply = json_loadb(call->reply.ptr, call->reply.len, 0, NULL);
    }
    partitions_answer(sc->self, sc->req, json_object_get(reply, "partitions"));
    json_decref(reply);
}

static void partitions_on_view(struct metadata *self, struct kvs_request *req)
{
    struct meta_table *t = wanted(self, req);
    struct status_call *sc;

    if (t == NULL) {
        return;
    }
    sc = kvs_arena_alloc(&req->arena, sizeof *sc);
    if (sc == NULL) {
        metadata_problem(self, req, 503, "out_of_memory", 1, "the server is out of memory");
        return;
    }
    memset(sc, 0, sizeof *sc);
    sc->self = self;
    sc->req = req;
    sc->arg.name = "table";
    sc->arg.value = kvs_slice_str(kvs_arena_printf(&req->arena, "%u", t->id));
    sc->call = (struct kvs_call){.method = "storage.status",
                                 .args = &sc->arg,
                                 .arg_count = 1,
                                 .timeout_ms = STATUS_CALL_TIMEOUT_MS,
                                 .cb = status_arrives};
    if (self->host->call(self->host->ctx, &sc->call, NULL) != 0) {
        partitions_answer(self, req, NULL); /* no storage service in this process */
    }
}

/* ---- entries --------------------------------------------------------------------------------- */

void tables_create(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, create_on_view);
}

void tables_list(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, list_on_view);
}

void tables_get(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, get_on_view);
}

void tables_alter(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, alter_on_view);
}

void tables_drop(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, drop_on_view);
}

void tables_partitions(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, partitions_on_view);
}
