/* SPDX-License-Identifier: MIT
 *
 * Handlers of nodes, cluster verdict, configuration and quorum. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"

enum { ARG_ID = 0 };

static const char *const NODE_STATES[] = {"active", "fenced", "draining", "removed"};

json_t *node_view(const struct meta_node *n)
{
    json_t *urls = json_array();

    for (uint32_t i = 0; i < n->endpoint_count; i++) {
        (void)json_array_append_new(urls, json_string(n->endpoints[i].url));
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:I, s:o}", "id", n->id, "state",
                     NODE_STATES[n->state], "rack", n->rack, "node_epoch",
                     (json_int_t)n->node_epoch, "incarnation",
                     json_sprintf("%016" PRIx64, n->incarnation), "registered_at",
                     (json_int_t)n->registered_at, "endpoints", urls);
}

/* ---- registration and heartbeats (peers) ----------------------------------------------------- */

static void registered(struct metadata *self, struct kvs_request *req)
{
    uint32_t slot;
    const struct meta_node *n = state_node(&self->view->state, (const char *)req->state, &slot);

    if (n == NULL) {
        metadata_problem(self, req, 409, "conflict", 1, "the node was removed again meanwhile");
        return;
    }
    self->nodes[slot].heard_ns = kvs_mono_ns(self->host);
    self->nodes[slot].node_epoch = n->node_epoch;
    metadata_reply(self, req, 200,
                   json_pack("{s:s, s:I, s:I}", "id", n->id, "node_epoch",
                             (json_int_t)n->node_epoch, "version",
                             (json_int_t)self->view->state.version));
}

/* R9: another incarnation may register only when the former one is fenced, unless it lived in this
 * very process: then it is certainly gone. */
static int former_lives(struct metadata *self, const struct kvs_request *req, const json_t *body)
{
    const char *id = json_string_value(json_object_get(body, "id"));
    const char *incarnation = json_string_value(json_object_get(body, "incarnation"));
    const struct meta_node *n = id == NULL ? NULL : state_node(&self->view->state, id, NULL);
    char text[17];

    if (n == NULL || n->state == NODE_FENCED || strcmp(req->transport, "local") == 0) {
        return 0;
    }
    (void)snprintf(text, sizeof text, "%016" PRIx64, n->incarnation);
    return incarnation == NULL || strcmp(incarnation, text) != 0;
}

static void register_on_view(struct metadata *self, struct kvs_request *req)
{
    json_t *body = metadata_body(self, req), *command;
    const char *id;

    if (body == NULL) {
        return;
    }
    if (former_lives(self, req, body)) {
        metadata_problem(
            self, req, 409, "node_alive", 1,
            "another process with this node id was heard a moment ago; it must be fenced "
            "first");
        json_decref(body);
        return;
    }
    id = json_string_value(json_object_get(body, "id"));
    req->state = kvs_arena_strdup(&req->arena, kvs_slice_str(id == NULL ? "" : id));
    command =
        json_pack("{s:s, s:O?, s:O?, s:O?, s:O?, s:I}", "op", "node.register", "id",
                  json_object_get(body, "id"), "rack", json_object_get(body, "rack"), "incarnation",
                  json_object_get(body, "incarnation"), "endpoints",
                  json_object_get(body, "endpoints"), "now", (json_int_t)kvs_now_ms(self->host));
    json_decref(body);
    metadata_propose(self, req, command, "the node", registered);
}

static void heartbeat_on_view(struct metadata *self, struct kvs_request *req)
{
    json_t *body = metadata_body(self, req);
    const char *id = json_string_value(json_object_get(body, "id"));
    json_int_t epoch = json_integer_value(json_object_get(body, "node_epoch"));
    const struct meta_node *n;
    uint32_t slot;

    if (body == NULL) {
        return;
    }
    n = id == NULL ? NULL : state_node(&self->view->state, id, &slot);
    if (!self->leading) {
        metadata_problem(self, req, 503, "no_leader", 1, "this metadata server does not lead");
    } else if (n == NULL || n->state == NODE_FENCED || (uint64_t)epoch != n->node_epoch) {
        metadata_problem(self, req, 409, "fenced", 1, "the node's session is over: register again");
    } else {
        self->nodes[slot].heard_ns = kvs_mono_ns(self->host);
        metadata_reply(
            self, req, 200,
            json_pack("{s:I, s:I, s:I, s:I}", "version", (json_int_t)self->view->state.version,
                      "session_timeout_ms", (json_int_t)metadata_session_timeout(self), "lease_ms",
                      (json_int_t)setting_get(&self->view->state, SETTING_LEASE), "heartbeat_ms",
                      (json_int_t)setting_get(&self->view->state, SETTING_HEARTBEAT_INTERVAL)));
    }
    json_decref(body);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static json_t *node_with_watch(struct metadata *self, uint32_t slot)
{
    json_t *o = node_view(&self->view->state.nodes[slot]);
    uint64_t heard = self->nodes[slot].heard_ns;

    (void)json_object_set_new(
        o, "heard_ms_ago",
        heard == 0 ? json_null()
                   : json_integer((json_int_t)((kvs_mono_ns(self->host) - heard) / 1000000u)));
    return o;
}

static void list_on_view(struct metadata *self, struct kvs_request *req)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < self->view->state.node_count; i++) {
        if (self->view->state.nodes[i].state != NODE_REMOVED) {
            (void)json_array_append_new(list, node_with_watch(self, i));
        }
    }
    metadata_reply(self, req, 200, json_pack("{s:o}", "nodes", list));
}

static void get_on_view(struct metadata *self, struct kvs_request *req)
{
    struct kvs_slice arg = kvs_arg(req, ARG_ID);
    char id[META_NODE_ID_SIZE] = "";
    uint32_t slot;

    if (arg.len < sizeof id && memchr(arg.ptr, '\0', arg.len) == NULL) {
        memcpy(id, arg.ptr, arg.len);
        id[arg.len] = '\0';
    }
    if (state_node(&self->view->state, id, &slot) == NULL) {
        metadata_problem(self, req, 404, "node_not_found", 0, "there is no node '%.*s'",
                         (int)(arg.len > 64 ? 64 : arg.len), arg.ptr);
        return;
    }
    metadata_reply(self, req, 200, node_with_watch(self, slot));
}

/* ---- verdict --------------------------------------------------------------------------------- */

struct counters {
    json_int_t nodes, active, partitions, offline, under_replicated, under_min_isr;
};

static void count(const struct meta_state *s, struct counters *c)
{
    for (uint32_t i = 0; i < s->node_count; i++) {
        c->nodes += s->nodes[i].state != NODE_REMOVED;
        c->active += s->nodes[i].state == NODE_ACTIVE;
    }
    for (uint32_t t = 0; t < s->table_count; t++) {
        const struct meta_table *table = s->tables[t];

        c->partitions += table->spec.partitions;
        for (uint32_t i = 0; i < table->spec.partitions; i++) {
            c->offline += table->partitions[i].leader < 0;
            c->under_replicated +=
                table->partitions[i].isr_count < table->partitions[i].replica_count;
            c->under_min_isr += table->partitions[i].isr_count < table->spec.min_isr;
        }
    }
}

static void reason(json_t *reasons, json_int_t n, const char *text)
{
    if (n > 0) {
        (void)json_array_append_new(reasons, json_sprintf("%" JSON_INTEGER_FORMAT " %s", n, text));
    }
}

static void cluster_on_view(struct metadata *self, struct kvs_request *req)
{
    const struct meta_state *s = &self->view->state;
    json_t *reasons = json_array();
    struct counters c = {0};
    const char *verdict = "healthy";

    count(s, &c);
    reason(reasons, c.offline, "partitions have no leader");
    reason(reasons, c.under_min_isr,
           "partitions have fewer in-sync replicas than they need to accept writes");
    reason(reasons, c.under_replicated, "partitions have fewer in-sync replicas than replicas");
    reason(reasons, c.nodes - c.active, "nodes are not active");
    if (c.nodes == 0) {
        (void)json_array_append_new(reasons, json_string("no storage node has registered"));
    }
    if (c.offline > 0 || c.active == 0) {
        verdict = "unavailable";
    } else if (json_array_size(reasons) > 0) {
        verdict = "degraded";
    }
    metadata_reply(
        self, req, 200,
        json_pack("{s:s, s:o, s:s, s:I, s:s, s:{s:I, s:I}, s:{s:I}, s:{s:I, s:I, s:I, s:I}}",
                  "status", verdict, "reasons", reasons, "cluster_id", s->cluster_id, "map_version",
                  (json_int_t)s->version, "version", self->host->version, "nodes", "total", c.nodes,
                  "active", c.active, "tables", "total", (json_int_t)s->table_count, "partitions",
                  "total", c.partitions, "offline", c.offline, "under_replicated",
                  c.under_replicated, "under_min_isr", c.under_min_isr));
}

/* ---- configuration --------------------------------------------------------------------------- */

static json_t *setting_value(const struct setting_def *def, uint64_t v)
{
    char text[32];

    return strcmp(def->unit, "ms") == 0 ? json_string(kvs_duration_text(v, text))
                                        : json_integer((json_int_t)v);
}

static void configuration_on_view(struct metadata *self, struct kvs_request *req)
{
    const struct meta_state *s = &self->view->state;
    json_t *list = json_array();

    for (int i = 0; i < SETTING_COUNT; i++) {
        const struct setting_def *def = &SETTINGS[i];
        int set = s->settings[i] != UINT64_MAX;
        uint64_t fallback =
            i == SETTING_SESSION_TIMEOUT ? self->conf->session_timeout_ms : def->fallback;

        (void)json_array_append_new(
            list, json_pack("{s:s, s:o, s:o, s:s, s:s, s:s, s:b}", "name", def->name, "value",
                            setting_value(def, set ? s->settings[i] : fallback), "default",
                            setting_value(def, fallback), "origin", set ? "cluster" : "default",
                            "unit", strcmp(def->unit, "ms") == 0 ? "duration" : "number", "help",
                            def->help, "needs_restart", (int)def->needs_restart));
    }
    metadata_reply(self, req, 200, json_pack("{s:o}", "configuration", list));
}

static int settings_valid(struct metadata *self, struct kvs_request *req, const json_t *body)
{
    const char *names[SETTING_COUNT + 1] = {NULL};
    struct kvs_error err;
    void *it;

    for (int i = 0; i < SETTING_COUNT; i++) {
        names[i] = SETTINGS[i].name;
    }
    for (it = json_object_iter((json_t *)(uintptr_t)body); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)body, it)) {
        const char *key = json_object_iter_key(it);
        const json_t *v = json_object_iter_value(it);
        int i = setting_find(key);
        uint64_t ignored;

        if (i < 0) {
            const char *near = kvs_nearest(kvs_slice_str(key), names);

            metadata_problem(self, req, 400, "unknown_setting", 0,
                             "there is no setting '%.64s'%s%s%s", key,
                             near == NULL ? "" : ". Did you mean '", near == NULL ? "" : near,
                             near == NULL ? "" : "'?");
            return 0;
        }
        if (!json_is_null(v) && setting_parse(&SETTINGS[i], v, &ignored, &err) != 0) {
            metadata_problem(self, req, 400, "invalid_setting", 0, "%s", err.msg);
            return 0;
        }
    }
    return 1;
}

static void configuration_set_on_view(struct metadata *self, struct kvs_request *req)
{
    json_t *body = metadata_body(self, req);

    if (body == NULL) {
        return;
    }
    if (!settings_valid(self, req, body)) {
        json_decref(body);
        return;
    }
    metadata_propose(self, req, json_pack("{s:s, s:o}", "op", "setting.set", "values", body),
                     "the configuration", configuration_on_view);
}

/* ---- quorum ---------------------------------------------------------------------------------- */

static void quorum_on_loop(struct metadata *self, struct kvs_request *req)
{
    static const char *const ROLES[] = {"spare", "standby", "voter"};
    static const char *const STATES[] = {"stopped", "follower", "candidate", "leader", "failed"};
    struct kvs_consensus_status st;
    json_t *members = json_array();

    self->consensus->status(self->consensus_self, &st);
    for (uint32_t i = 0; i < st.member_count && i < KVS_CONSENSUS_MEMBER_MAX; i++) {
        const struct kvs_member *m = &st.members[i];

        (void)json_array_append_new(
            members, json_pack("{s:s, s:s, s:s, s:b, s:I}", "id", m->id, "address", m->address,
                               "role", ROLES[m->role <= KVS_ROLE_VOTER ? m->role : 0], "online",
                               (int)m->online, "match_index", (json_int_t)m->match_index));
    }
    metadata_reply(self, req, 200,
                   json_pack("{s:o, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "leader",
                             st.leader_id[0] == '\0' ? json_null() : json_string(st.leader_id),
                             "term", (json_int_t)st.term, "id", st.id, "state",
                             STATES[st.state <= KVS_CONSENSUS_FAILED ? st.state : 0], "last_index",
                             (json_int_t)st.last_index, "commit_index", (json_int_t)st.commit_index,
                             "applied_index", (json_int_t)st.applied_index, "snapshot_index",
                             (json_int_t)st.snapshot_index, "members", members));
}

/* ---- entries --------------------------------------------------------------------------------- */

void nodes_register(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, register_on_view);
}

void nodes_heartbeat(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, heartbeat_on_view);
}

void nodes_list(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, list_on_view);
}

void nodes_get(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, get_on_view);
}

void cluster_get(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, cluster_on_view);
}

void configuration_get(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, configuration_on_view);
}

void configuration_set(void *self, struct kvs_request *req)
{
    metadata_on_view(self, req, configuration_set_on_view);
}

void quorum_get(void *self, struct kvs_request *req)
{
    quorum_on_loop(self, req); /* also without a leader: that is when one looks */
}
