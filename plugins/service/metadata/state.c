/* SPDX-License-Identifier: MIT
 *
 * The state machine: look-ups and commands; see state.h. Saving and loading is in save.c.
 *
 * Commands (JSON, one per log entry)
 *   {"op":"cluster.init","cluster_id":"..","secret":"<64 hex>"}                       once
 *   {"op":"node.register","id","rack","incarnation":"<hex>","endpoints":[..],"now":ms}   yields
 * node epoch
 *   {"op":"node.state","id","state":0..3}
 *   {"op":"table.create","body":{..},"seed":"<hex>","now":ms}                         yields table
 * id
 *   {"op":"table.alter","name","body":{..}}
 *   {"op":"table.drop","name"}
 *   {"op":"setting.set","values":{name: number|null}} */
#include <stdlib.h>

#include "kvs/support.h"
#include "state.h"

static const struct kvs_mem_tag TAG = {"metadata.state"};

void state_init(struct meta_state *s, const struct kvs_host *host)
{
    memset(s, 0, sizeof *s);
    s->host = host;
    s->next_table_id = 1;
    memset(s->settings, 0xff, sizeof s->settings);
}

static void table_free(struct meta_state *s, struct meta_table *t)
{
    kvs_free(s->host, &TAG, t->partitions, t->spec.partitions * sizeof *t->partitions);
    kvs_free(s->host, &TAG, t, sizeof *t);
}

void state_fini(struct meta_state *s)
{
    for (uint32_t i = 0; i < s->table_count; i++) {
        table_free(s, s->tables[i]);
    }
    kvs_free(s->host, &TAG, s->tables, s->table_cap * sizeof(struct meta_table *));
    kvs_free(s->host, &TAG, s->nodes, s->node_cap * sizeof *s->nodes);
    state_init(s, s->host);
}

int state_copy(const struct meta_state *s, struct meta_state *dst)
{
    *dst = *s;
    dst->node_cap = 0;
    dst->table_cap = 0;
    dst->table_count = 0;
    dst->nodes = s->node_cap == 0 ? NULL : kvs_alloc(s->host, &TAG, s->node_cap * sizeof *s->nodes);
    dst->tables = s->table_cap == 0
                      ? NULL
                      : kvs_alloc(s->host, &TAG, s->table_cap * sizeof(struct meta_table *));
    dst->node_cap = dst->nodes == NULL ? 0 : s->node_cap;
    dst->table_cap = dst->tables == NULL ? 0 : s->table_cap;
    if (dst->node_cap != s->node_cap || dst->table_cap != s->table_cap) {
        state_fini(dst);
        return KVS_ENOMEM;
    }
    if (s->node_count > 0) {
        memcpy(dst->nodes, s->nodes, s->node_count * sizeof *s->nodes);
    }
    for (uint32_t i = 0; i < s->table_count; i++) {
        size_t bytes = s->tables[i]->spec.partitions * sizeof(struct meta_partition);
        struct meta_table *t = kvs_alloc(s->host, &TAG, sizeof *t);
        struct meta_partition *p = t == NULL ? NULL : kvs_alloc(s->host, &TAG, bytes);

        if (p == NULL) {
            kvs_free(s->host, &TAG, t, sizeof *t);
            state_fini(dst);
            return KVS_ENOMEM;
        }
        *t = *s->tables[i];
        t->partitions = p;
        memcpy(p, s->tables[i]->partitions, bytes);
        dst->tables[dst->table_count++] = t;
    }
    return 0;
}

/* Members must not diverge: one that cannot apply a command stops. */
static void *must_alloc(struct meta_state *s, size_t size)
{
    void *p = kvs_calloc(s->host, &TAG, size);

    KVS_ASSERT(s->host, p != NULL);
    return p;
}

static void must_grow(struct meta_state *s, void **list, uint32_t count, uint32_t *cap, size_t each)
{
    uint32_t wider = *cap == 0 ? 8 : *cap * 2;
    void *p;

    if (count < *cap) {
        return;
    }
    p = must_alloc(s, wider * each);
    if (*cap != 0) {
        memcpy(p, *list, *cap * each);
        kvs_free(s->host, &TAG, *list, *cap * each);
    }
    *list = p;
    *cap = wider;
}

/* ---- look-ups -------------------------------------------------------------------------------- */

/* Position of the table, or where it belongs. */
static uint32_t table_position(const struct meta_state *s, const char *name, int *ret_found)
{
    uint32_t low = 0, high = s->table_count;

    *ret_found = 0;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int c = strcmp(s->tables[mid]->name, name);

        if (c == 0) {
            *ret_found = 1;
            return mid;
        }
        if (c < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

struct meta_table *state_table(const struct meta_state *s, const char *name)
{
    int found;
    uint32_t at = table_position(s, name, &found);

    return found ? s->tables[at] : NULL;
}

struct meta_node *state_node(const struct meta_state *s, const char *id, uint32_t *ret_slot)
{
    for (uint32_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i].state != NODE_REMOVED && strcmp(s->nodes[i].id, id) == 0) {
            if (ret_slot != NULL) {
                *ret_slot = i;
            }
            return &s->nodes[i];
        }
    }
    return NULL;
}

uint32_t state_active_nodes(const struct meta_state *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->node_count; i++) {
        n += s->nodes[i].state == NODE_ACTIVE;
    }
    return n;
}

/* ---- placement and election ------------------------------------------------------------------ */

static uint32_t node_load(const struct meta_state *s, uint32_t slot, int leaders_only)
{
    uint32_t n = 0;

    for (uint32_t t = 0; t < s->table_count; t++) {
        for (uint32_t i = 0; i < s->tables[t]->spec.partitions; i++) {
            const struct meta_partition *p = &s->tables[t]->partitions[i];

            if (leaders_only) {
                n += p->leader == (int32_t)slot;
                continue;
            }
            for (uint32_t r = 0; r < p->replica_count; r++) {
                n += p->replicas[r] == slot;
            }
        }
    }
    return n;
}

static int has_slot(const uint16_t *list, uint8_t count, uint32_t slot)
{
    for (uint8_t i = 0; i < count; i++) {
        if (list[i] == slot) {
            return 1;
        }
    }
    return 0;
}

static int rack_used(const struct meta_state *s, const struct meta_partition *p, const char *rack)
{
    for (uint8_t i = 0; i < p->replica_count; i++) {
        if (strcmp(s->nodes[p->replicas[i]].rack, rack) == 0) {
            return 1;
        }
    }
    return 0;
}

/* The node for the next replica: another rack first, then the least loaded, then the lowest slot.
 */
static int pick_node(const struct meta_state *s, const struct meta_partition *p,
                     const uint32_t *load)
{
    int best = -1, best_shares_rack = 0;

    for (uint32_t i = 0; i < s->node_count; i++) {
        int shares;

        if (s->nodes[i].state != NODE_ACTIVE || has_slot(p->replicas, p->replica_count, i)) {
            continue;
        }
        shares = rack_used(s, p, s->nodes[i].rack);
        if (best < 0 || shares < best_shares_rack ||
            (shares == best_shares_rack && load[i] < load[best])) {
            best = (int)i;
            best_shares_rack = shares;
        }
    }
    return best;
}

/* Replicas of all partitions of a new table; the first replica leads. Two replicas' worth of load
 * is counted for the leader, so leaders spread as well. */
static void place_table(struct meta_state *s, struct meta_table *t)
{
    uint32_t load[META_NODE_MAX];

    for (uint32_t i = 0; i < s->node_count; i++) {
        load[i] = node_load(s, i, 0) + node_load(s, i, 1);
    }
    for (uint32_t i = 0; i < t->spec.partitions; i++) {
        struct meta_partition *p = &t->partitions[i];

        for (uint32_t r = 0; r < t->spec.replication_factor; r++) {
            int slot = pick_node(s, p, load);

            KVS_ASSERT(s->host, slot >= 0); /* checked by the caller: enough active nodes */
            p->replicas[p->replica_count++] = (uint16_t)slot;
            load[slot] += r == 0 ? 2 : 1;
        }
        memcpy(p->isr, p->replicas, sizeof p->isr);
        p->isr_count = p->replica_count;
        p->leader = p->replicas[0];
        p->leader_epoch = 1;
        p->partition_epoch = 1;
    }
}

/* R7: from the ISR, the preferred replica first. */
static int32_t elect_from(const struct meta_state *s, const struct meta_partition *p)
{
    for (uint8_t i = 0; i < p->replica_count; i++) {
        uint32_t slot = p->replicas[i];

        if (s->nodes[slot].state == NODE_ACTIVE && has_slot(p->isr, p->isr_count, slot)) {
            return (int32_t)slot;
        }
    }
    return -1;
}

/* A node came back under a new epoch, or went: elect where it led, or where nobody does. */
static void reelect(struct meta_state *s, uint32_t slot)
{
    for (uint32_t t = 0; t < s->table_count; t++) {
        struct meta_table *table = s->tables[t];

        for (uint32_t i = 0; i < table->spec.partitions; i++) {
            struct meta_partition *p = &table->partitions[i];
            int32_t leader;

            if (p->leader != (int32_t)slot && p->leader != -1) {
                continue;
            }
            leader = elect_from(s, p);
            if (leader == -1 && p->leader == -1) {
                continue;
            }
            p->leader = leader;
            p->leader_epoch++;
            p->partition_epoch++;
            table->changed = s->version + 1;
        }
    }
}

/* ---- commands -------------------------------------------------------------------------------- */

static const char *text_of(const json_t *cmd, const char *key, size_t max)
{
    const json_t *v = json_object_get(cmd, key);
    const char *text = json_string_value(v);

    if (text == NULL || json_string_length(v) != strlen(text) || strlen(text) > max) {
        return NULL;
    }
    return text;
}

static int hex_u64(const json_t *cmd, const char *key, uint64_t *ret_v)
{
    const char *text = text_of(cmd, key, 16);

    if (text == NULL || text[0] == '\0' || strspn(text, "0123456789abcdef") != strlen(text)) {
        return KVS_EINVAL;
    }
    *ret_v = strtoull(text, NULL, 16);
    return 0;
}

static int hex_bytes(const char *text, uint8_t *dst, size_t len)
{
    if (text == NULL || strlen(text) != 2 * len ||
        strspn(text, "0123456789abcdef") != strlen(text)) {
        return KVS_EINVAL;
    }
    for (size_t i = 0; i < len; i++) {
        char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};

        dst[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return 0;
}

static uint64_t time_of(const json_t *cmd)
{
    json_int_t v = json_integer_value(json_object_get(cmd, "now"));

    return v < 0 ? 0 : (uint64_t)v;
}

static int cluster_init(struct meta_state *s, const json_t *cmd)
{
    const char *id = text_of(cmd, "cluster_id", sizeof s->cluster_id - 1);

    if (s->cluster_id[0] != '\0') {
        return KVS_EEXIST;
    }
    if (id == NULL || id[0] == '\0' ||
        hex_bytes(text_of(cmd, "secret", 2 * (size_t)META_SECRET_SIZE), s->secret,
                  sizeof s->secret) != 0) {
        return KVS_EINVAL;
    }
    memcpy(s->cluster_id, id, strlen(id) + 1);
    return 0;
}

static int node_endpoints(struct meta_node *n, const json_t *list)
{
    size_t i;
    json_t *v;

    n->endpoint_count = 0;
    json_array_foreach(list, i, v)
    {
        const char *url = json_string_value(v);

        if (url == NULL || strlen(url) >= sizeof n->endpoints[0].url || i >= META_ENDPOINT_MAX) {
            return KVS_EINVAL;
        }
        memcpy(n->endpoints[n->endpoint_count++].url, url, strlen(url) + 1);
    }
    return 0;
}

static int node_register(struct meta_state *s, uint64_t index, const json_t *cmd,
                         uint64_t *ret_epoch)
{
    const char *id = text_of(cmd, "id", META_NODE_ID_SIZE - 1);
    const char *rack = text_of(cmd, "rack", META_NODE_ID_SIZE - 1);
    struct meta_node fresh, *n;
    uint32_t slot;

    memset(&fresh, 0, sizeof fresh);
    if (id == NULL || id[0] == '\0' || rack == NULL ||
        hex_u64(cmd, "incarnation", &fresh.incarnation) != 0 ||
        node_endpoints(&fresh, json_object_get(cmd, "endpoints")) != 0) {
        return KVS_EINVAL;
    }
    memcpy(fresh.id, id, strlen(id) + 1);
    memcpy(fresh.rack, rack, strlen(rack) + 1);
    fresh.node_epoch = index;
    fresh.registered_at = time_of(cmd);
    n = state_node(s, id, &slot);
    if (n != NULL && n->incarnation == fresh.incarnation && n->state == NODE_ACTIVE) {
        *ret_epoch = n->node_epoch; /* R9: the same incarnation may retry */
        return 0;
    }
    if (n == NULL) {
        if (s->node_count == META_NODE_MAX) {
            return KVS_ETOOMANY;
        }
        must_grow(s, (void **)&s->nodes, s->node_count, &s->node_cap, sizeof *s->nodes);
        slot = s->node_count++;
    }
    s->nodes[slot] = fresh;
    reelect(s, slot);
    *ret_epoch = index;
    return 0;
}

static int node_set_state(struct meta_state *s, const json_t *cmd)
{
    const char *id = text_of(cmd, "id", META_NODE_ID_SIZE - 1);
    json_int_t state = json_integer_value(json_object_get(cmd, "state"));
    struct meta_node *n;
    uint32_t slot;

    if (id == NULL || state < NODE_ACTIVE || state > NODE_DRAINING) {
        return KVS_EINVAL;
    }
    n = state_node(s, id, &slot);
    if (n == NULL) {
        return KVS_ENOTFOUND;
    }
    if (n->state == (uint32_t)state) {
        return 0;
    }
    n->state = (uint32_t)state;
    if (state != NODE_DRAINING) {
        reelect(s, slot);
    }
    return 0;
}

static int table_create(struct meta_state *s, const json_t *cmd, uint64_t *ret_id)
{
    struct meta_spec spec;
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    uint32_t active = state_active_nodes(s), next_index_id = 1, at;
    const char *member;
    struct meta_table *t;
    uint64_t seed;
    int found, rc;

    spec_defaults(&spec, active);
    spec.partitions = (uint32_t)setting_get(s, SETTING_DEFAULT_PARTITIONS);
    rc = spec_parse(json_object_get(cmd, "body"), SPEC_CREATE, &spec, name, &next_index_id, &member,
                    NULL);
    if (rc != 0 || hex_u64(cmd, "seed", &seed) != 0) {
        return rc != 0 ? rc : KVS_EINVAL;
    }
    at = table_position(s, name, &found);
    if (found) {
        return KVS_EEXIST;
    }
    if (s->table_count >= setting_get(s, SETTING_TABLE_COUNT_MAX)) {
        return KVS_ETOOMANY;
    }
    if (spec.replication_factor > active) {
        return KVS_ENOREPLICAS;
    }
    t = must_alloc(s, sizeof *t);
    t->id = s->next_table_id++;
    t->next_index_id = next_index_id;
    memcpy(t->name, name, sizeof t->name);
    t->seed = seed;
    t->created_at = time_of(cmd);
    t->changed = s->version + 1;
    t->spec = spec;
    t->partitions = must_alloc(s, spec.partitions * sizeof *t->partitions);
    place_table(s, t);
    must_grow(s, (void **)&s->tables, s->table_count, &s->table_cap, sizeof(struct meta_table *));
    memmove(&s->tables[at + 1], &s->tables[at],
            (s->table_count - at) * sizeof(struct meta_table *));
    s->tables[at] = t;
    s->table_count++;
    *ret_id = t->id;
    return 0;
}

static int table_alter(struct meta_state *s, const json_t *cmd)
{
    const char *name = text_of(cmd, "name", KVS_TABLE_NAME_SIZE_MAX);
    struct meta_table *t = name == NULL ? NULL : state_table(s, name);
    struct meta_spec spec;
    const char *member;
    uint32_t next_id;
    int rc;

    if (t == NULL) {
        return KVS_ENOTFOUND;
    }
    spec = t->spec;
    next_id = t->next_index_id;
    rc = spec_parse(json_object_get(cmd, "body"), SPEC_ALTER, &spec, NULL, &next_id, &member, NULL);
    if (rc == 0) {
        t->spec = spec;
        t->next_index_id = next_id;
        t->changed = s->version + 1;
    }
    return rc;
}

static int table_drop(struct meta_state *s, const json_t *cmd)
{
    const char *name = text_of(cmd, "name", KVS_TABLE_NAME_SIZE_MAX);
    int found = 0;
    uint32_t at = name == NULL ? 0 : table_position(s, name, &found);

    if (!found) {
        return KVS_ENOTFOUND;
    }
    table_free(s, s->tables[at]);
    s->table_count--;
    memmove(&s->tables[at], &s->tables[at + 1],
            (s->table_count - at) * sizeof(struct meta_table *));
    return 0;
}

static int settings_set(struct meta_state *s, const json_t *cmd)
{
    const json_t *values = json_object_get(cmd, "values");
    uint64_t wanted[META_SETTING_MAX];
    void *it;

    if (!json_is_object(values)) {
        return KVS_EINVAL;
    }
    memcpy(wanted, s->settings, sizeof wanted);
    for (it = json_object_iter((json_t *)(uintptr_t)values); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)values, it)) {
        int i = setting_find(json_object_iter_key(it));
        const json_t *v = json_object_iter_value(it);

        if (i < 0) {
            return KVS_EINVAL;
        }
        if (json_is_null(v)) {
            wanted[i] = UINT64_MAX;
        } else if (setting_parse(&SETTINGS[i], v, &wanted[i], NULL) != 0) {
            return KVS_EINVAL;
        }
    }
    memcpy(s->settings, wanted, sizeof wanted);
    return 0;
}

static int command(struct meta_state *s, uint64_t index, const json_t *cmd, uint64_t *ret_value)
{
    const char *op = text_of(cmd, "op", 32);

    if (op == NULL) {
        return KVS_EINVAL;
    }
    if (strcmp(op, "cluster.init") == 0) {
        return cluster_init(s, cmd);
    }
    if (strcmp(op, "node.register") == 0) {
        return node_register(s, index, cmd, ret_value);
    }
    if (strcmp(op, "node.state") == 0) {
        return node_set_state(s, cmd);
    }
    if (strcmp(op, "table.create") == 0) {
        return table_create(s, cmd, ret_value);
    }
    if (strcmp(op, "table.alter") == 0) {
        return table_alter(s, cmd);
    }
    if (strcmp(op, "table.drop") == 0) {
        return table_drop(s, cmd);
    }
    if (strcmp(op, "setting.set") == 0) {
        return settings_set(s, cmd);
    }
    return KVS_EINVAL;
}

int state_apply(struct meta_state *s, uint64_t index, struct kvs_slice entry, uint64_t *ret_value)
{
    json_t *cmd = json_loadb(entry.ptr, entry.len, JSON_REJECT_DUPLICATES, NULL);
    int rc;

    *ret_value = 0;
    if (!json_is_object(cmd)) {
        json_decref(cmd);
        return KVS_EINVAL;
    }
    rc = command(s, index, cmd, ret_value);
    if (rc == 0) {
        s->version++;
    }
    json_decref(cmd);
    return rc;
}
