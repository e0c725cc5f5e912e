/* SPDX-License-Identifier: MIT
 *
 * The metadata service: one instance and the way of its requests.
 *
 *   consensus thread                    loop 0                               any loop
 *   apply(command) -> live state        view: a copy of the state           request arrives
 *   applied() -> copy ------ mailbox -> swapped in; waiting requests run <- posted to loop 0
 *
 * Everything a client can ask runs on loop 0, against the view. A change is proposed from there;
 * its callback brings the state version it led to, and the answer waits for a view at least that
 * new. So a client reads its own writes, whichever loop it talks to. Long polls wait in the same
 * list.
 *
 * Files: state/spec/save/settings (the deterministic part), metadata.c (life, consensus, waiting),
 * map.c (the map), tables.c, cluster.c (handlers), methods.c (the table of methods). */
#ifndef KVS_METADATA_METADATA_H
#define KVS_METADATA_METADATA_H

#include <stdatomic.h>

#include "kvs/consensus.h"
#include "kvs/service.h"
#include "kvs/support.h"
#include "state.h"

struct metadata_conf {
    uint64_t session_timeout_ms;
};

struct view {
    struct kvs_task task; /* on its way to loop 0 */
    struct metadata *self;
    struct meta_state state;
    char *map_public, *map_peer; /* rendered on first use; jansson's memory */
};

/* A request that waits for a view with version >= min_version. */
struct waiter {
    struct waiter *next, **link;
    struct metadata *self;
    struct kvs_request *req;
    struct kvs_timer *timer;
    uint64_t min_version;
    void (*run)(struct metadata *self, struct kvs_request *req);
    void (*late)(struct metadata *self, struct kvs_request *req); /* when the time is up */
};

/* What the monitor knows of a node, by slot; not part of the replicated state. */
struct node_watch {
    uint64_t heard_ns; /* monotonic; 0: never since this server leads */
    uint64_t node_epoch;
    uint32_t fencing; /* a fence command is under way */
    uint32_t reserved;
};

struct metadata {
    const struct kvs_host *host;
    const struct metadata_conf *conf;
    const struct kvs_consensus_ops *consensus;
    void *consensus_self;
    struct meta_state state; /* the consensus thread's */
    atomic_uint role;        /* enum kvs_consensus_state, by role_changed */
    atomic_ullong term;
    struct kvs_task role_task; /* tells loop 0 */
    atomic_uint role_posted;
    /* loop 0's */
    struct view *view;
    struct waiter *waiters;
    struct node_watch nodes[META_NODE_MAX];
    struct kvs_timer *monitor;
    uint64_t leader_since_ns;
    uint32_t leading, initializing, draining;
    uint32_t pending; /* proposals under way */
};

/* Arrange that fn(self, req) runs on loop 0 with a view; answers 503 itself when there is none. */
void metadata_on_view(struct metadata *self, struct kvs_request *req,
                      void (*fn)(struct metadata *self, struct kvs_request *req));
/* On loop 0: run `fn` when the view has at least that version, or `late` after wait_ms. */
void metadata_wait(struct metadata *self, struct kvs_request *req, uint64_t min_version,
                   uint64_t wait_ms, void (*fn)(struct metadata *self, struct kvs_request *req),
                   void (*late)(struct metadata *self, struct kvs_request *req));
/* On loop 0: propose `command` (reference taken) for req, then run `fn` on a view that has it;
 * problems are answered here, `what` names the subject ("table 'x'"). */
void metadata_propose(struct metadata *self, struct kvs_request *req, json_t *take_command,
                      const char *what, void (*fn)(struct metadata *self, struct kvs_request *req));
/* Complete with a JSON body; takes the reference. */
void metadata_reply(struct metadata *self, struct kvs_request *req, uint32_t status,
                    json_t *take_body);
void metadata_problem(struct metadata *self, struct kvs_request *req, uint32_t status,
                      const char *code, uint32_t retryable, const char *fmt, ...) KVS_PRINTF(6, 7);
/* The request's body as JSON, or NULL after having answered 400. */
json_t *metadata_body(struct metadata *self, struct kvs_request *req);

uint64_t metadata_session_timeout(const struct metadata *self);

/* map.c */
void map_get(void *self, struct kvs_request *req);
void map_watch(void *self, struct kvs_request *req);
/* tables.c */
void tables_create(void *self, struct kvs_request *req);
void tables_list(void *self, struct kvs_request *req);
void tables_get(void *self, struct kvs_request *req);
void tables_alter(void *self, struct kvs_request *req);
void tables_drop(void *self, struct kvs_request *req);
void tables_partitions(void *self, struct kvs_request *req);
json_t *table_view(const struct meta_table *t);
/* cluster.c */
void nodes_register(void *self, struct kvs_request *req);
void nodes_heartbeat(void *self, struct kvs_request *req);
void nodes_list(void *self, struct kvs_request *req);
void nodes_get(void *self, struct kvs_request *req);
void cluster_get(void *self, struct kvs_request *req);
void configuration_get(void *self, struct kvs_request *req);
void configuration_set(void *self, struct kvs_request *req);
void quorum_get(void *self, struct kvs_request *req);
json_t *node_view(const struct meta_node *n);

/* methods.c */
#define METADATA_METHOD_COUNT 16
extern const struct kvs_method METADATA_METHODS[METADATA_METHOD_COUNT];
extern const struct kvs_schema METADATA_SCHEMAS[];

#endif
