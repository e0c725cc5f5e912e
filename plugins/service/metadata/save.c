/* SPDX-License-Identifier: MIT
 *
 * The state as canonical JSON and back; see state.h.
 *
 *   {"format":1,"version":N,"cluster_id":"..","secret":"hex","next_table_id":N,
 *    "settings":{name: number},
 *    "nodes":[{"id","rack","incarnation":hex,"node_epoch","registered_at","state",
 *              "endpoints":[..]}],
 *    "tables":[{"id","name","seed":hex,"created_at","changed","next_index_id","spec":{..},
 *               "partitions":[[leader,leader_epoch,partition_epoch,[replicas],[isr],[elr]],..]}]}
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "kvs/support.h"
#include "state.h"

static const struct kvs_mem_tag TAG = {"metadata.state"};

static json_t *hex64(uint64_t v)
{
    return json_sprintf("%016" PRIx64, v);
}

static json_t *slots_json(const uint16_t *slots, uint8_t count)
{
    json_t *list = json_array();

    for (uint8_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, json_integer(slots[i]));
    }
    return list;
}

static json_t *node_json(const struct meta_node *n)
{
    json_t *urls = json_array();

    for (uint32_t i = 0; i < n->endpoint_count; i++) {
        (void)json_array_append_new(urls, json_string(n->endpoints[i].url));
    }
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:i, s:o}", "id", n->id, "rack", n->rack,
                     "incarnation", hex64(n->incarnation), "node_epoch", (json_int_t)n->node_epoch,
                     "registered_at", (json_int_t)n->registered_at, "state", (int)n->state,
                     "endpoints", urls);
}

static json_t *table_json(const struct meta_table *t)
{
    json_t *parts = json_array();

    for (uint32_t i = 0; i < t->spec.partitions; i++) {
        const struct meta_partition *p = &t->partitions[i];

        (void)json_array_append_new(
            parts,
            json_pack("[i, I, I, o, o, o]", (int)p->leader, (json_int_t)p->leader_epoch,
                      (json_int_t)p->partition_epoch, slots_json(p->replicas, p->replica_count),
                      slots_json(p->isr, p->isr_count), slots_json(p->elr, p->elr_count)));
    }
    return json_pack("{s:I, s:s, s:o, s:I, s:I, s:I, s:o, s:o}", "id", (json_int_t)t->id, "name",
                     t->name, "seed", hex64(t->seed), "created_at", (json_int_t)t->created_at,
                     "changed", (json_int_t)t->changed, "next_index_id",
                     (json_int_t)t->next_index_id, "spec", spec_json(&t->spec), "partitions",
                     parts);
}

static json_t *settings_json(const struct meta_state *s)
{
    json_t *o = json_object();

    for (int i = 0; i < SETTING_COUNT; i++) {
        if (s->settings[i] != UINT64_MAX) {
            (void)json_object_set_new(o, SETTINGS[i].name,
                                      json_integer((json_int_t)s->settings[i]));
        }
    }
    return o;
}

char *state_save(const struct meta_state *s)
{
    json_t *nodes = json_array(), *tables = json_array(), *root;
    char secret[2 * META_SECRET_SIZE + 1], *text;

    for (uint32_t i = 0; i < META_SECRET_SIZE; i++) {
        (void)snprintf(secret + (size_t)2 * i, 3, "%02x", s->secret[i]);
    }
    for (uint32_t i = 0; i < s->node_count; i++) {
        (void)json_array_append_new(nodes, node_json(&s->nodes[i]));
    }
    for (uint32_t i = 0; i < s->table_count; i++) {
        (void)json_array_append_new(tables, table_json(s->tables[i]));
    }
    root = json_pack("{s:i, s:I, s:s, s:s, s:I, s:o, s:o, s:o}", "format", META_FORMAT, "version",
                     (json_int_t)s->version, "cluster_id", s->cluster_id, "secret", secret,
                     "next_table_id", (json_int_t)s->next_table_id, "settings", settings_json(s),
                     "nodes", nodes, "tables", tables);
    if (root == NULL || json_array_size(nodes) != s->node_count ||
        json_array_size(tables) != s->table_count) {
        json_decref(root);
        return NULL;
    }
    text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    return text;
}

/* ---- loading: a snapshot comes from disk or a peer, nothing of it is trusted ----------------- */

static int load_u64(const json_t *o, const char *key, uint64_t max, uint64_t *ret_v)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) {
        return KVS_ECORRUPT;
    }
    *ret_v = (uint64_t)json_integer_value(v);
    return 0;
}

static int load_text(const json_t *o, const char *key, char *dst, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (text == NULL || strlen(text) >= size) {
        return KVS_ECORRUPT;
    }
    memcpy(dst, text, strlen(text) + 1);
    return 0;
}

static int load_hex(const json_t *o, const char *key, uint64_t *ret_v)
{
    char text[17];

    if (load_text(o, key, text, sizeof text) != 0 || strlen(text) != 16 ||
        strspn(text, "0123456789abcdef") != 16) {
        return KVS_ECORRUPT;
    }
    *ret_v = strtoull(text, NULL, 16);
    return 0;
}

static int load_secret(const json_t *o, uint8_t secret[META_SECRET_SIZE])
{
    char text[2 * META_SECRET_SIZE + 1];

    if (load_text(o, "secret", text, sizeof text) != 0 ||
        strspn(text, "0123456789abcdef") != 2 * (size_t)META_SECRET_SIZE) {
        return KVS_ECORRUPT;
    }
    for (uint32_t i = 0; i < META_SECRET_SIZE; i++) {
        char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};

        secret[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return 0;
}

static int load_node(const json_t *o, struct meta_node *n)
{
    const json_t *urls = json_object_get(o, "endpoints");
    uint64_t state;

    memset(n, 0, sizeof *n);
    if (load_text(o, "id", n->id, sizeof n->id) != 0 ||
        load_text(o, "rack", n->rack, sizeof n->rack) != 0 ||
        load_hex(o, "incarnation", &n->incarnation) != 0 ||
        load_u64(o, "node_epoch", INT64_MAX, &n->node_epoch) != 0 ||
        load_u64(o, "registered_at", INT64_MAX, &n->registered_at) != 0 ||
        load_u64(o, "state", NODE_REMOVED, &state) != 0 ||
        json_array_size(urls) > META_ENDPOINT_MAX) {
        return KVS_ECORRUPT;
    }
    n->state = (uint32_t)state;
    for (size_t i = 0; i < json_array_size(urls); i++) {
        const char *url = json_string_value(json_array_get(urls, i));

        if (url == NULL || strlen(url) >= sizeof n->endpoints[0].url) {
            return KVS_ECORRUPT;
        }
        memcpy(n->endpoints[n->endpoint_count++].url, url, strlen(url) + 1);
    }
    return 0;
}

static int load_slots(const json_t *list, uint32_t node_count, uint16_t *slots, uint8_t *ret_count)
{
    if (!json_is_array(list) || json_array_size(list) > META_REPLICA_MAX) {
        return KVS_ECORRUPT;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t slot = json_integer_value(json_array_get(list, i));

        if (slot < 0 || slot >= (json_int_t)node_count) {
            return KVS_ECORRUPT;
        }
        slots[i] = (uint16_t)slot;
    }
    *ret_count = (uint8_t)json_array_size(list);
    return 0;
}

static int load_partition(const json_t *v, uint32_t node_count, struct meta_partition *p)
{
    json_int_t leader = json_integer_value(json_array_get(v, 0));
    json_int_t leader_epoch = json_integer_value(json_array_get(v, 1));
    json_int_t partition_epoch = json_integer_value(json_array_get(v, 2));

    if (json_array_size(v) != 6 || leader < -1 || leader >= (json_int_t)node_count ||
        leader_epoch < 0 || leader_epoch > UINT32_MAX || partition_epoch < 0 ||
        partition_epoch > UINT32_MAX ||
        load_slots(json_array_get(v, 3), node_count, p->replicas, &p->replica_count) != 0 ||
        load_slots(json_array_get(v, 4), node_count, p->isr, &p->isr_count) != 0 ||
        load_slots(json_array_get(v, 5), node_count, p->elr, &p->elr_count) != 0) {
        return KVS_ECORRUPT;
    }
    p->leader = (int32_t)leader;
    p->leader_epoch = (uint32_t)leader_epoch;
    p->partition_epoch = (uint32_t)partition_epoch;
    return 0;
}

static int load_index_ids(const json_t *list, struct meta_spec *spec)
{
    for (uint32_t i = 0; i < spec->index_count; i++) {
        uint64_t id;

        if (load_u64(json_array_get(list, i), "id", UINT32_MAX, &id) != 0) {
            return KVS_ECORRUPT;
        }
        spec->indexes[i].id = (uint32_t)id;
    }
    return 0;
}

static int load_table(struct meta_state *s, const json_t *o, struct meta_table *t)
{
    const json_t *parts = json_object_get(o, "partitions");
    json_t *spec = json_object_get(o, "spec");
    uint32_t ignored = 1;
    uint64_t id, next_index_id;
    const char *member;

    if (load_u64(o, "id", UINT32_MAX, &id) != 0 ||
        load_u64(o, "next_index_id", UINT32_MAX, &next_index_id) != 0 ||
        load_text(o, "name", t->name, sizeof t->name) != 0 || load_hex(o, "seed", &t->seed) != 0 ||
        load_u64(o, "created_at", INT64_MAX, &t->created_at) != 0 ||
        load_u64(o, "changed", INT64_MAX, &t->changed) != 0 || !json_is_object(spec)) {
        return KVS_ECORRUPT;
    }
    t->id = (uint32_t)id;
    t->next_index_id = (uint32_t)next_index_id;
    spec_defaults(&t->spec, 1);
    (void)json_object_set_new(spec, "name", json_string(t->name));
    if (spec_parse(spec, SPEC_CREATE, &t->spec, t->name, &ignored, &member, NULL) != 0 ||
        load_index_ids(json_object_get(spec, "indexes"), &t->spec) != 0 ||
        json_array_size(parts) != t->spec.partitions) {
        t->spec.partitions = 0;
        return KVS_ECORRUPT;
    }
    t->partitions = kvs_calloc(s->host, &TAG, t->spec.partitions * sizeof *t->partitions);
    if (t->partitions == NULL) {
        t->spec.partitions = 0;
        return KVS_ENOMEM;
    }
    for (uint32_t i = 0; i < t->spec.partitions; i++) {
        if (load_partition(json_array_get(parts, i), s->node_count, &t->partitions[i]) != 0) {
            return KVS_ECORRUPT;
        }
    }
    return 0;
}

static int load_lists(struct meta_state *s, const json_t *nodes, const json_t *tables)
{
    size_t node_count = json_array_size(nodes), table_count = json_array_size(tables);

    if (!json_is_array(nodes) || !json_is_array(tables) || node_count > META_NODE_MAX ||
        table_count > META_TABLE_MAX) {
        return KVS_ECORRUPT;
    }
    s->node_cap = (uint32_t)node_count;
    s->table_cap = (uint32_t)table_count;
    s->nodes = node_count == 0 ? NULL : kvs_calloc(s->host, &TAG, node_count * sizeof *s->nodes);
    s->tables = table_count == 0
                    ? NULL
                    : kvs_calloc(s->host, &TAG, table_count * sizeof(struct meta_table *));
    if ((node_count != 0 && s->nodes == NULL) || (table_count != 0 && s->tables == NULL)) {
        s->node_cap = s->nodes == NULL ? 0 : s->node_cap;
        s->table_cap = s->tables == NULL ? 0 : s->table_cap;
        return KVS_ENOMEM;
    }
    for (size_t i = 0; i < node_count; i++, s->node_count++) {
        if (load_node(json_array_get(nodes, i), &s->nodes[i]) != 0) {
            return KVS_ECORRUPT;
        }
    }
    for (size_t i = 0; i < table_count; i++) {
        struct meta_table *t = kvs_calloc(s->host, &TAG, sizeof *t);
        int rc;

        if (t == NULL) {
            return KVS_ENOMEM;
        }
        s->tables[s->table_count++] = t;
        rc = load_table(s, json_array_get(tables, i), t);
        if (rc != 0) {
            return rc;
        }
        if (i > 0 && strcmp(s->tables[i - 1]->name, t->name) >= 0) {
            return KVS_ECORRUPT;
        }
    }
    return 0;
}

static int load_settings(struct meta_state *s, const json_t *o)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        const json_t *v = json_object_get(o, SETTINGS[i].name);

        if (v != NULL && setting_parse(&SETTINGS[i], v, &s->settings[i], NULL) != 0) {
            return KVS_ECORRUPT;
        }
    }
    return json_is_object(o) ? 0 : KVS_ECORRUPT;
}

static int load_root(struct meta_state *s, const json_t *root, struct kvs_error *err)
{
    uint64_t format, next_table_id;
    int rc;

    if (!json_is_object(root) || load_u64(root, "format", INT64_MAX, &format) != 0) {
        return kvs_err(err, KVS_ECORRUPT, "metadata snapshot is not a kvs snapshot");
    }
    if (format != META_FORMAT) {
        return kvs_err(err, KVS_EFORMAT, "metadata snapshot has format %" PRIu64 ", this is %d",
                       format, META_FORMAT);
    }
    rc = load_u64(root, "next_table_id", UINT32_MAX, &next_table_id);
    s->next_table_id = rc == 0 ? (uint32_t)next_table_id : 1;
    if (rc == 0) {
        rc = load_u64(root, "version", INT64_MAX, &s->version);
    }
    if (rc == 0) {
        rc = load_text(root, "cluster_id", s->cluster_id, sizeof s->cluster_id);
    }
    if (rc == 0) {
        rc = load_secret(root, s->secret);
    }
    if (rc == 0) {
        rc = load_settings(s, json_object_get(root, "settings"));
    }
    if (rc == 0) {
        rc = load_lists(s, json_object_get(root, "nodes"), json_object_get(root, "tables"));
    }
    return rc == 0 ? 0 : kvs_err(err, rc, "metadata snapshot: %s", kvs_code_text(rc));
}

int state_load(struct meta_state *s, struct kvs_slice bytes, struct kvs_error *err)
{
    json_t *root = json_loadb(bytes.ptr, bytes.len, JSON_REJECT_DUPLICATES, NULL);
    struct meta_state fresh;
    int rc;

    state_init(&fresh, s->host);
    rc = load_root(&fresh, root, err);
    json_decref(root);
    if (rc != 0) {
        state_fini(&fresh);
        return rc;
    }
    state_fini(s);
    *s = fresh;
    return 0;
}
