/* SPDX-License-Identifier: MIT
 *
 * The cluster's state: a deterministic state machine over the consensus log.
 *
 * A command is one JSON object in one log entry: {"op":"table.create", ...}. state_apply looks at
 * the state and the command, nothing else: what comes from a clock or a dice (creation time, seed,
 * secret) is in the command. Two machines fed the same log are equal byte by byte: state_save
 * writes the whole state as canonical JSON (sorted keys, integers only), which is also the
 * snapshot.
 *
 * A command that makes no sense any more (a table created twice) is rejected with a code, the same
 * on every member, and changes nothing but nothing else either: the log goes on.
 *
 * Ids. Tables, nodes and indexes get numbers that are never reused. A partition names its replicas
 * by node slot, the position in `nodes`; a slot is never reused while a partition may name it.
 *
 * Threads  one at a time; the consensus plugin's thread owns the live one. */
#ifndef KVS_METADATA_STATE_H
#define KVS_METADATA_STATE_H

#include <jansson.h>

#include "kvs/base.h"
#include "kvs/error.h"
#include "kvs/host.h"

#define META_NODE_MAX     1024u
#define META_TABLE_MAX    4096u
#define META_REPLICA_MAX  9u
#define META_ENDPOINT_MAX 4u
#define META_NODE_ID_SIZE 64u
#define META_SECRET_SIZE  32u
#define META_SETTING_MAX  16u
#define META_FORMAT       1 /* of the snapshot */

enum meta_node_state { NODE_ACTIVE = 0, NODE_FENCED = 1, NODE_DRAINING = 2, NODE_REMOVED = 3 };

struct meta_endpoint {
    char url[128];
};

struct meta_node {
    char id[META_NODE_ID_SIZE];
    char rack[META_NODE_ID_SIZE];
    uint64_t incarnation; /* random, per process start */
    uint64_t node_epoch;  /* log index of the registration */
    uint64_t registered_at;
    uint32_t state; /* enum meta_node_state */
    uint32_t endpoint_count;
    struct meta_endpoint endpoints[META_ENDPOINT_MAX];
};

struct meta_index {
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    char path[256];
    uint32_t id;
    uint32_t type; /* 0 string, 1 number */
};

/* What a client may choose about a table. */
struct meta_spec {
    uint32_t partitions, replication_factor, min_isr;
    uint32_t acks;   /* 0 none, 1 leader, 2 all */
    uint64_t ttl_ms; /* 0: none */
    char index[32];  /* primary index plugin */
    char compression[32];
    uint64_t max_value_bytes;
    uint64_t max_items; /* of the table; 0: none */
    uint64_t max_bytes; /* keys and values of the table; 0: none */
    uint32_t index_count;
    uint32_t reserved;
    struct meta_index indexes[KVS_INDEX_COUNT_MAX];
};

struct meta_partition {
    int32_t leader; /* node slot, -1: none */
    uint32_t leader_epoch;
    uint32_t partition_epoch;
    uint8_t replica_count, isr_count, elr_count, reserved;
    uint16_t replicas[META_REPLICA_MAX]; /* ordered, first = preferred */
    uint16_t isr[META_REPLICA_MAX];
    uint16_t elr[META_REPLICA_MAX];
};

struct meta_table {
    uint32_t id;
    uint32_t next_index_id;
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    uint64_t seed;
    uint64_t created_at; /* Unix ms */
    uint64_t changed;    /* state version of the last change of the table or a partition of it */
    struct meta_spec spec;
    struct meta_partition *partitions; /* [spec.partitions] */
};

struct meta_state {
    const struct kvs_host *host; /* memory only */
    uint64_t version;            /* grows with every command that changed something */
    char cluster_id[40];         /* "" until cluster.init */
    uint8_t secret[META_SECRET_SIZE];
    uint32_t next_table_id;
    uint32_t node_count, table_count;
    uint32_t node_cap, table_cap;
    struct meta_node *nodes;             /* by slot */
    struct meta_table **tables;          /* sorted by name */
    uint64_t settings[META_SETTING_MAX]; /* by setting index; UINT64_MAX: default */
};

void state_init(struct meta_state *s, const struct kvs_host *host);
void state_fini(struct meta_state *s);

/* A deep copy, for readers on another thread. `dst` is uninitialised. Out of memory: KVS_ENOMEM,
 * nothing to free. */
int state_copy(const struct meta_state *s, struct meta_state *dst);

/* Apply one command. Returns 0 (changed), or KVS_EEXIST, KVS_ENOTFOUND, KVS_ECONFLICT, KVS_EINVAL
 * (malformed or out of bounds), KVS_ETOOMANY. Out of memory is a panic: members must not diverge.
 * *ret_value: the number a command yields (node epoch, table id), else 0. */
int state_apply(struct meta_state *s, uint64_t index, struct kvs_slice entry, uint64_t *ret_value);

/* Canonical JSON text; free() it. NULL: out of memory. */
char *state_save(const struct meta_state *s);
/* Replace *s by what state_save wrote. KVS_ECORRUPT, KVS_EFORMAT; then *s is as it was. */
int state_load(struct meta_state *s, struct kvs_slice bytes, struct kvs_error *err);

struct meta_table *state_table(const struct meta_state *s, const char *name);
struct meta_node *state_node(const struct meta_state *s, const char *id, uint32_t *ret_slot);
uint32_t state_active_nodes(const struct meta_state *s);

/* ---- specifications (spec.c) ----------------------------------------------------------------- */

#define SPEC_CREATE 0u
#define SPEC_ALTER  1u

/* Read a table body into *spec (which holds the defaults, or the present values for SPEC_ALTER).
 * Unknown members, wrong types and values out of bounds give KVS_EINVAL with a sentence for the
 * client; *ret_member names the member at fault ("" if none). `name` (65 bytes) is set for
 * SPEC_CREATE. */
int spec_parse(const json_t *body, uint32_t mode, struct meta_spec *spec, char *name,
               uint32_t *next_index_id, const char **ret_member, struct kvs_error *err);
void spec_defaults(struct meta_spec *spec, uint32_t active_nodes);
/* Rules that span members: factor against min ISR, hash primary without secondaries, .. */
int spec_check(const struct meta_spec *spec, struct kvs_error *err);
int spec_name_valid(const char *name);
/* As the members of the API's table object and of the snapshot. New reference or NULL. */
json_t *spec_json(const struct meta_spec *spec);

/* ---- settings of the cluster (settings.c) ---------------------------------------------------- */

enum meta_setting {
    SETTING_SESSION_TIMEOUT = 0,
    SETTING_HEARTBEAT_INTERVAL,
    SETTING_LEASE,
    SETTING_REPLICA_LAG_TIME_MAX,
    SETTING_DEFAULT_PARTITIONS,
    SETTING_TABLE_COUNT_MAX,
    SETTING_COUNT,
};

struct setting_def {
    const char *name;
    const char *unit; /* "ms" (written as a duration) or "" (a number) */
    uint64_t fallback, min, max;
    uint32_t needs_restart;
    const char *help;
};

extern const struct setting_def SETTINGS[SETTING_COUNT];

uint64_t setting_get(const struct meta_state *s, enum meta_setting which);
/* Index by name, -1 if there is none. */
int setting_find(const char *name);
/* Read a JSON value (number, or duration text) within bounds. */
int setting_parse(const struct setting_def *def, const json_t *value, uint64_t *ret_v,
                  struct kvs_error *err);

#endif
