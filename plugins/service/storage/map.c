/* SPDX-License-Identifier: MIT
 *
 * The metadata map on a storage server; see storage.h.
 *
 * Loop 0 registers the node, watches the map (metadata.watch, a long poll), turns each version into
 * an immutable struct map, makes partitions for tables that are new, and posts the map to every
 * loop. A loop that adopts a map closes the partitions that are not in it any more. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "kvs/transport.h"
#include "storage.h"

#define RETRY_MS       50u
#define WATCH_WAIT     "25s"
#define HEARTBEAT_MS   500u
#define ENDPOINT_TRIES 200u /* x 5 ms: transports start right after services */

/* A call of ours; frees itself after fn. */
struct ask {
    struct kvs_call call; /* first */
    struct storage *svc;
    struct kvs_call_arg args[2];
    char after[24];
    char *body;
    void (*fn)(struct storage *s, struct ask *a, int rc);
};

static void begin_soon(struct storage *s, uint64_t ms);
static void watch(struct storage *s);

/* ---- calls -------------------------------------------------------------------------------------
 */

static void ask_free(struct ask *a)
{
    free(a->body); /* jansson's */
    kvs_free(a->svc->host, &storage_service, a, sizeof *a);
}

static void on_answer(struct kvs_call *call, int rc)
{
    struct ask *a = (struct ask *)call;

    a->fn(a->svc, a, rc != 0 ? rc : call->status >= 400 ? KVS_EFAILED : 0);
    ask_free(a);
}

/* take_body: JSON text of jansson's, or NULL. Returns nonzero if the call was not made. */
static int ask(struct storage *s, const char *method, json_t *take_body, uint64_t after,
               const char *wait, void (*fn)(struct storage *s, struct ask *a, int rc))
{
    struct ask *a = kvs_calloc(s->host, &storage_service, sizeof *a);
    struct kvs_error err = {0};
    int rc;

    if (a == NULL) {
        json_decref(take_body);
        return KVS_ENOMEM;
    }
    a->svc = s;
    a->fn = fn;
    if (take_body != NULL) {
        a->body = json_dumps(take_body, JSON_COMPACT);
        json_decref(take_body);
    }
    a->call.method = method;
    a->call.peer = s->conf->metadata.count > 0 ? s->conf->metadata.items[0] : NULL;
    a->call.body = kvs_slice_str(a->body);
    a->call.content_type = "application/json";
    a->call.timeout_ms = 60000;
    a->call.cb = on_answer;
    if (wait != NULL) {
        (void)snprintf(a->after, sizeof a->after, "%" PRIu64, after);
        a->args[0] = (struct kvs_call_arg){"after", kvs_slice_str(a->after)};
        a->args[1] = (struct kvs_call_arg){"wait", kvs_slice_str(wait)};
        a->call.args = a->args;
        a->call.arg_count = 2;
    }
    rc = s->host->call(s->host->ctx, &a->call, &err);
    if (rc != 0) {
        s->host->ready_set(s->host->ctx, "metadata", 0, err.msg);
        ask_free(a);
    }
    return rc;
}

/* ---- maps --------------------------------------------------------------------------------------
 */

struct table *map_table_by_id(const struct map *m, uint32_t id)
{
    for (uint32_t i = 0; i < m->table_count; i++) {
        if (m->tables[i]->id == id) {
            return m->tables[i];
        }
    }
    return NULL;
}

struct table *map_table_by_name(const struct map *m, struct kvs_slice name)
{
    uint32_t low = 0, high = m->table_count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int c = kvs_slice_cmp(kvs_slice_str(m->tables[middle]->name), name);

        if (c == 0) {
            return m->tables[middle];
        }
        if (c < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct table *const *)a)->name, (*(struct table *const *)b)->name);
}

void table_free(struct storage *s, struct table *t)
{
    const struct kvs_host *host = s->host;

    if (t == NULL) {
        return;
    }
    if (t->last) {
        kvs_free(host, &storage_service, t->parts, t->partition_count * sizeof(struct part *));
    }
    kvs_free(host, &storage_service, t->secondaries,
             (t->secondary_count + 1) * sizeof *t->secondaries);
    kvs_free(host, &storage_service, t->leader_epochs,
             t->partition_count * sizeof *t->leader_epochs);
    kvs_free(host, &storage_service, t, sizeof *t);
}

void map_free(struct storage *s, struct map *m)
{
    for (uint32_t i = 0; m->tables != NULL && i < m->table_count; i++) {
        table_free(s, m->tables[i]);
    }
    kvs_free(s->host, &storage_service, m->tables, (m->table_count + 1) * sizeof(struct table *));
    kvs_free(s->host, &storage_service, m, sizeof *m);
}

void map_release(struct storage *s, struct map *m)
{
    if (m != NULL && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        map_free(s, m);
    }
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static const char *text_at(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));

    return text == NULL ? "" : text;
}

static uint64_t number_at(const json_t *o, const char *name)
{
    json_int_t v = json_integer_value(json_object_get(o, name));

    return v < 0 ? 0 : (uint64_t)v;
}

static int read_secondaries(struct storage *s, struct table *t, const json_t *list)
{
    t->secondary_count = (uint32_t)json_array_size(list);
    t->secondaries =
        kvs_calloc(s->host, &storage_service, (t->secondary_count + 1) * sizeof *t->secondaries);
    if (t->secondaries == NULL) {
        return KVS_ENOMEM;
    }
    for (uint32_t i = 0; i < t->secondary_count; i++) {
        const json_t *o = json_array_get(list, i);
        struct secondary_def *d = &t->secondaries[i];

        d->id = (uint32_t)number_at(o, "id");
        d->type = strcmp(text_at(o, "type"), "number") == 0 ? SECONDARY_NUMBER : SECONDARY_STRING;
        (void)snprintf(d->name, sizeof d->name, "%s", text_at(o, "name"));
        (void)snprintf(d->path, sizeof d->path, "%s", text_at(o, "path"));
    }
    return 0;
}

static int index_ordered(struct storage *s, const char *name)
{
    const void *ops = NULL;

    return s->host->find(s->host->ctx, KVS_KIND_INDEX, name, &ops, NULL, NULL) == 0 &&
           ((const struct kvs_index_ops *)ops)->seek != NULL;
}

static struct table *read_table(struct storage *s, const json_t *o)
{
    struct table *t = kvs_calloc(s->host, &storage_service, sizeof *t);
    const char *acks = text_at(o, "acks");

    if (t == NULL) {
        return NULL;
    }
    t->id = (uint32_t)number_at(o, "id");
    t->partition_count = (uint32_t)number_at(o, "partitions");
    t->seed = strtoull(text_at(json_object_get(o, "hash"), "seed"), NULL, 0);
    t->ttl_ms = number_at(o, "ttl_ms");
    t->acks = strcmp(acks, "none") == 0 ? 0 : strcmp(acks, "leader") == 0 ? 1 : 2;
    t->limits.max_value_bytes = number_at(o, "max_value_bytes");
    t->limits.max_items = number_at(o, "max_items");
    t->limits.max_bytes = number_at(o, "max_bytes");
    (void)snprintf(t->name, sizeof t->name, "%s", text_at(o, "name"));
    (void)snprintf(t->index, sizeof t->index, "%s", text_at(o, "index"));
    (void)snprintf(t->compression, sizeof t->compression, "%s", text_at(o, "compression"));
    t->ordered = (uint32_t)index_ordered(s, t->index);
    if (t->partition_count >
        0) { /* limits are the table's: each partition gets its part, rounded up */
        t->limits.max_items = (t->limits.max_items + t->partition_count - 1) / t->partition_count;
        t->limits.max_bytes = (t->limits.max_bytes + t->partition_count - 1) / t->partition_count;
        t->leader_epochs =
            kvs_calloc(s->host, &storage_service, t->partition_count * sizeof *t->leader_epochs);
    }
    if (t->partition_count == 0 || t->leader_epochs == NULL ||
        read_secondaries(s, t, json_object_get(o, "indexes")) != 0) {
        table_free(s, t);
        return NULL;
    }
    return t;
}

static void read_epochs(struct map *m, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        struct table *t = map_table_by_id(m, (uint32_t)number_at(o, "table"));
        uint64_t number = number_at(o, "partition");

        if (t != NULL && number < t->partition_count) {
            t->leader_epochs[number] = (uint32_t)number_at(o, "leader_epoch");
        }
    }
}

static void read_secret(struct storage *s, const char *hex)
{
    for (size_t i = 0; i < sizeof s->secret && hex[2 * i] != '\0' && hex[2 * i + 1] != '\0'; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

        s->secret[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
}

static struct map *map_read(struct storage *s, struct kvs_slice text)
{
    json_t *root = json_loadb(text.ptr, text.len, 0, NULL);
    const json_t *tables = json_object_get(root, "tables");
    struct map *m = root == NULL ? NULL : kvs_calloc(s->host, &storage_service, sizeof *m);
    size_t n = json_array_size(tables);

    if (m == NULL) {
        json_decref(root);
        return NULL;
    }
    m->version = number_at(root, "version");
    m->table_count = (uint32_t)n;
    m->tables = kvs_calloc(s->host, &storage_service, (n + 1) * sizeof(struct table *));
    for (size_t i = 0; m->tables != NULL && i < n; i++) {
        m->tables[i] = read_table(s, json_array_get(tables, i));
        if (m->tables[i] == NULL) {
            break;
        }
    }
    if (m->tables == NULL || (n > 0 && m->tables[n - 1] == NULL)) {
        map_free(s, m);
        json_decref(root);
        return NULL;
    }
    qsort(m->tables, n, sizeof m->tables[0], by_name);
    read_epochs(m, json_object_get(root, "partitions"));
    if (s->newest == NULL) {
        read_secret(s, text_at(root, "cluster_secret"));
    }
    json_decref(root);
    return m;
}

/* ---- adopting ----------------------------------------------------------------------------------
 */

struct adoption {
    struct kvs_task task;
    struct storage *svc;
    struct map *map;
    uint32_t loop;
};

/* On a loop: what changed for the partitions it has. */
static void adopt_table(struct loop *l, struct table *t)
{
    for (uint32_t i = 0; i < t->partition_count; i++) {
        struct kvs_error err = {0};

        if (loop_of(l->svc, t->id, i) != l->index || t->parts[i] == NULL) {
            continue;
        }
        partition_limits_set(t->parts[i]->partition, &t->limits);
        partition_epoch_set(t->parts[i]->partition, t->leader_epochs[i]);
        if (partition_secondaries_set(t->parts[i]->partition, t->secondaries, t->secondary_count,
                                      &err) != 0) {
            KVS_LOG(l->svc->host, KVS_LOG_ERROR, "index_not_made", "table=%s error='%s'", t->name,
                    err.msg);
        }
    }
}

static void adopt(struct kvs_task *task)
{
    struct adoption *a = KVS_CONTAINER_OF(task, struct adoption, task);
    struct storage *s = a->svc;
    struct loop *l = &s->loops[a->loop];
    struct map *former = l->map;

    l->map = a->map;
    for (uint32_t i = 0; i < l->map->table_count; i++) {
        adopt_table(l, l->map->tables[i]);
    }
    for (uint32_t i = 0; former != NULL && i < former->table_count; i++) {
        struct table *t = former->tables[i];

        if (map_table_by_id(l->map, t->id) != NULL) {
            continue;
        }
        for (uint32_t k = 0; k < t->partition_count; k++) {
            if (loop_of(s, t->id, k) == l->index && t->parts[k] != NULL) {
                part_close(t->parts[k], 1);
            }
        }
    }
    map_release(s, former);
    kvs_free(s->host, &storage_service, a, sizeof *a);
}

void map_publish(struct storage *s, struct map *m)
{
    const struct kvs_host *host = s->host;

    for (uint32_t i = 0; s->newest != NULL && i < s->newest->table_count; i++) {
        struct table *t = s->newest->tables[i];

        t->last = map_table_by_id(m, t->id) == NULL;
    }
    atomic_store_explicit(&m->refs, host->loop_count + 1, memory_order_relaxed); /* and newest */
    for (uint32_t i = 0; i < host->loop_count; i++) {
        struct adoption *a = kvs_calloc(host, &storage_service, sizeof *a);

        /* Loops with different maps would answer differently: a bug beyond repair here. */
        KVS_ASSERT(host, a != NULL);
        a->svc = s;
        a->map = m;
        a->loop = i;
        a->task.run = adopt;
        kvs_post(host, i, &a->task);
    }
    map_release(s, s->newest);
    s->newest = m;
}

/* Take back what fill_parts made for the tables before `end`. */
static void parts_forget(struct storage *s, struct map *m, uint32_t end)
{
    for (uint32_t i = 0; i < end; i++) {
        if (s->newest == NULL || map_table_by_id(s->newest, m->tables[i]->id) == NULL) {
            table_parts_free(s, m->tables[i]);
        }
    }
}

/* Parts of tables known before are shared; new tables get theirs. */
static int fill_parts(struct storage *s, struct map *m)
{
    struct kvs_error err = {0};

    for (uint32_t i = 0; i < m->table_count; i++) {
        struct table *t = m->tables[i];
        struct table *known = s->newest == NULL ? NULL : map_table_by_id(s->newest, t->id);

        if (known != NULL) {
            t->parts = known->parts;
        } else if (table_parts_new(s, t, &err) != 0) {
            KVS_LOG(s->host, KVS_LOG_ERROR, "table_not_opened", "table=%s error='%s' retrying=true",
                    t->name, err.msg);
            parts_forget(s, m, i);
            return KVS_ENOMEM;
        }
    }
    return 0;
}

/* A newer map arrived. */
static void take_map(struct storage *s, struct map *m)
{
    if (m == NULL || s->newest == NULL || m->version <= s->newest->version) {
        if (m != NULL) {
            map_free(s, m);
        }
        return;
    }
    if (fill_parts(s, m) != 0) {
        map_free(s, m); /* the next answer of the watch tries again */
        return;
    }
    map_publish(s, m);
}

/* ---- watching ----------------------------------------------------------------------------------
 */

static void watch_later(void *arg)
{
    watch(arg);
}

static void on_watched(struct storage *s, struct ask *a, int rc)
{
    s->watching = 0;
    if (s->stopped) {
        return;
    }
    s->host->ready_set(s->host->ctx, "metadata", rc == 0, "the metadata service does not answer");
    if (rc == 0 && a->call.status == 200) {
        take_map(s, map_read(s, a->call.reply));
    }
    if (rc != 0) {
        (void)s->host->timer_start(s->host->ctx, RETRY_MS, 0, watch_later, s);
    } else {
        watch(s);
    }
}

static void watch(struct storage *s)
{
    if (s->watching || s->stopped) {
        return;
    }
    s->watching = 1;
    if (ask(s, "metadata.watch", NULL, s->newest->version, WATCH_WAIT, on_watched) != 0) {
        s->watching = 0;
        (void)s->host->timer_start(s->host->ctx, RETRY_MS, 0, watch_later, s);
    }
}

static void on_refreshed(struct storage *s, struct ask *a, int rc)
{
    s->refreshing = 0;
    if (rc == 0 && a->call.status == 200 && !s->stopped) {
        take_map(s, map_read(s, a->call.reply));
    }
    parked_resume(s);
    if (s->parked != NULL) {
        map_refresh(s); /* for those that came while the map was under way */
    }
}

void map_refresh(struct storage *s)
{
    if (s->refreshing) {
        return;
    }
    if (s->newest == NULL ||
        ask(s, "metadata.watch", NULL, s->newest->version, "0ms", on_refreshed) != 0) {
        parked_resume(s);
        return;
    }
    s->refreshing = 1;
}

/* ---- registering -------------------------------------------------------------------------------
 */

static void on_heartbeat(struct storage *s, struct ask *a, int rc)
{
    s->heartbeat_busy = 0;
    if (rc != 0 && a->call.status == 409 && !s->stopped) {
        KVS_LOG(s->host, KVS_LOG_WARN, "session_lost", "registering_again=true");
        s->registered = 0;
        begin_soon(s, RETRY_MS);
    }
}

static void heartbeat(void *arg)
{
    struct storage *s = arg;

    if (!s->registered || s->heartbeat_busy || s->stopped) {
        return;
    }
    s->heartbeat_busy = 1;
    if (ask(s, "nodes.heartbeat",
            json_pack("{s:s, s:I}", "id", s->host->node_id, "node_epoch",
                      (json_int_t)s->node_epoch),
            0, NULL, on_heartbeat) != 0) {
        s->heartbeat_busy = 0;
    }
}

static void on_recovered(struct storage *s, struct map *m)
{
    map_publish(s, m);
    atomic_store_explicit(&s->recovered, 1, memory_order_release);
    s->host->ready_set(s->host->ctx, "data", 1, "");
    watch(s);
}

static void on_first_map(struct storage *s, struct ask *a, int rc)
{
    struct map *m = rc == 0 ? map_read(s, a->call.reply) : NULL;

    if (s->stopped) {
        if (m != NULL) {
            map_free(s, m);
        }
        return;
    }
    if (m == NULL || fill_parts(s, m) != 0) {
        begin_soon(s, RETRY_MS);
        return;
    }
    s->host->ready_set(s->host->ctx, "metadata", 1, "");
    recover_begin(s, m, on_recovered);
}

static void on_registered(struct storage *s, struct ask *a, int rc)
{
    json_t *root;

    if (s->stopped) {
        return;
    }
    if (rc != 0) {
        begin_soon(s, RETRY_MS);
        return;
    }
    root = json_loadb(a->call.reply.ptr, a->call.reply.len, 0, NULL);
    s->node_epoch = number_at(root, "node_epoch");
    json_decref(root);
    s->registered = 1;
    if (s->heartbeat == NULL) {
        s->heartbeat = s->host->timer_start(s->host->ctx, HEARTBEAT_MS, HEARTBEAT_MS, heartbeat, s);
    }
    if (s->newest == NULL && ask(s, "metadata.watch", NULL, 0, NULL, on_first_map) != 0) {
        begin_soon(s, RETRY_MS);
    }
}

/* Addresses of this server; NULL while its transports have not started. */
static json_t *endpoints(struct storage *s)
{
    json_t *list = json_array();
    const void *ops;
    void *self;

    for (uint32_t i = 0; s->host->each(s->host->ctx, KVS_KIND_TRANSPORT, i, NULL, &ops, &self) == 0;
         i++) {
        const struct kvs_transport_ops *t = ops;
        char text[256];

        if (t->endpoint(self, 0, text, sizeof text) == 0 && s->register_tries++ < ENDPOINT_TRIES) {
            json_decref(list);
            return NULL;
        }
        for (uint32_t k = 0; t->endpoint(self, k, text, sizeof text) > 0; k++) {
            (void)json_array_append_new(list, json_string(text));
        }
    }
    return list;
}

void map_begin(struct storage *s)
{
    json_t *list = s->stopped || s->registered ? NULL : endpoints(s);
    char incarnation[20];

    if (list == NULL) {
        if (!s->stopped && !s->registered) {
            begin_soon(s, 5);
        } else if (!s->stopped && s->newest == NULL) {
            on_registered(s, NULL, KVS_EFAILED);
        }
        return;
    }
    (void)snprintf(incarnation, sizeof incarnation, "%016" PRIx64, s->incarnation);
    if (ask(s, "nodes.register",
            json_pack("{s:s, s:s, s:s, s:o}", "id", s->host->node_id, "rack", s->host->rack,
                      "incarnation", incarnation, "endpoints", list),
            0, NULL, on_registered) != 0) {
        begin_soon(s, RETRY_MS);
    }
}

static void begin_again(void *arg)
{
    map_begin(arg);
}

static void begin_soon(struct storage *s, uint64_t ms)
{
    (void)s->host->timer_start(s->host->ctx, ms, 0, begin_again, s);
}
