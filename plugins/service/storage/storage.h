/* SPDX-License-Identifier: MIT
 *
 * service-storage: the REST side of tables: what the files of the service share.
 *
 *   storage.c   options, lifecycle, recovery, upkeep
 *   map.c       the metadata map: watched on loop 0, handed to every loop as an immutable copy
 *   route.c     from table and key to the loop of the partition; unknown tables
 *   items.c     put, get, delete of one item
 *   list.c      lists and index queries: each loop walks its partitions, one merges
 *   batch.c     many operations in one request
 *   cursor.c    signed cursors
 *   render.c    items as JSON, problems of operations
 *   status.c    what tables.partitions asks
 *   methods.c   the method table
 *
 * The partition engine (partition.h) is below; it knows no request.
 *
 * Threads. Partition i of a table belongs to loop (table id + i) % loops. Every loop has its own
 * pointer to the present map; a part is looked at by its loop only. Requests travel as tasks. */
#ifndef STORAGE_STORAGE_H
#define STORAGE_STORAGE_H

#include <stdatomic.h>

#include "kvs/hashing.h"
#include "kvs/service.h"
#include "kvs/support.h"
#include "partition.h"

#define STORAGE_LOOP_MAX   64u
#define CLUSTER_SECRET_LEN 32u

struct storage_conf {
    struct kvs_str_list metadata;
    const char *replication_transport;
    uint64_t memory_limit;
    uint64_t idempotency_window_ms;
    int64_t idempotency_keys_max;
};

/* One partition on its loop. Only that loop looks inside. */
struct part {
    struct partition *partition;
    struct storage *svc;
    uint32_t loop, number;
    uint64_t stream, snapshot_ms;
    uint32_t snapshot_busy, closed;
    struct kvs_snapshot_step drop;
};

/* A table as one version of the map describes it. */
struct table {
    uint32_t id, partition_count, secondary_count, acks, ordered;
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    uint64_t seed, ttl_ms;
    struct table_limits limits;
    char compression[16], index[33];
    struct secondary_def *secondaries; /* [secondary_count] */
    uint32_t *leader_epochs;           /* [partition_count] */
    struct part **parts;               /* [partition_count], shared by all versions */
    uint32_t last;                     /* no newer map has this table: it frees `parts` */
};

struct map {
    uint64_t version;
    uint32_t table_count;
    struct table **tables; /* by name */
    _Atomic uint32_t refs; /* loops that hold it */
};

struct loop {
    struct storage *svc;
    uint32_t index;
    struct map *map;
    struct kvs_timer *upkeep;
    uint32_t snapshots, closing_parts;
    struct kvs_task drain;
};

struct parked; /* route.c */
struct recovery;

struct storage {
    const struct kvs_host *host;
    const struct storage_conf *conf;
    const struct kvs_persistence_ops *persistence;
    void *persistence_self;
    struct kvs_queue *queue;
    struct loop loops[STORAGE_LOOP_MAX];
    _Atomic uint32_t recovered, over_memory, draining;
    _Atomic uint64_t memory[STORAGE_LOOP_MAX];
    uint8_t secret[CLUSTER_SECRET_LEN]; /* set before the first map is published */
    uint64_t snapshot_interval_ms;

    /* Loop 0 only. */
    struct map *newest;
    uint64_t incarnation, node_epoch;
    uint32_t registered, watching, refreshing, stopped, register_tries;
    struct parked *parked, *parked_late; /* waiting for the map under way; for the one after */
    struct kvs_timer *heartbeat;
    uint32_t heartbeat_busy;
    struct recovery *recovery;

    _Atomic uint32_t drain_left;
    void (*drain_done)(void *arg);
    void *drain_arg;
};

extern const struct kvs_mem_tag storage_service;

/* ---- map.c -------------------------------------------------------------------------------------
 */

/* Register with the metadata service, fetch the map, recover, watch. On loop 0. */
void map_begin(struct storage *s);
/* Fetch the present map, then resume parked requests. On loop 0. */
void map_refresh(struct storage *s);
void map_release(struct storage *s, struct map *m);
struct table *map_table_by_name(const struct map *m, struct kvs_slice name);
struct table *map_table_by_id(const struct map *m, uint32_t id);
/* The first map is complete: partitions exist and hold their data. */
void map_publish(struct storage *s, struct map *m);
/* Make the partitions of a table that has none yet. Any one thread. */
int table_parts_new(struct storage *s, struct table *t, struct kvs_error *err);
void table_free(struct storage *s, struct table *t);
/* Forget partitions that no loop has seen. */
void table_parts_free(struct storage *s, struct table *t);
void map_free(struct storage *s, struct map *m);

static inline uint32_t loop_of(const struct storage *s, uint32_t table_id, uint32_t partition)
{
    return (table_id + partition) % s->host->loop_count;
}

/* ---- storage.c ---------------------------------------------------------------------------------
 */

/* Recover every stream into the partitions of the map, on the pool; then `done` on loop 0. */
void recover_begin(struct storage *s, struct map *m,
                   void (*done)(struct storage *s, struct map *m));
void part_close(struct part *part, int drop);

/* ---- route.c -----------------------------------------------------------------------------------
 */

/* A request on its way to the loop of its partition. Lives in the request's arena. */
struct route {
    struct storage *svc;
    struct kvs_request *req;
    uint32_t table_id, partition;
    /* On the partition's loop. */
    void (*run)(struct route *r, const struct table *t, struct partition *p);
};

/* The table of a request, by its first parameter; NULL: the request was answered or parked (then
 * `again` is called later). */
const struct table *route_table(struct storage *s, struct kvs_request *req,
                                void (*again)(void *self, struct kvs_request *req));
/* Go to the partition of the key (or of partition_key) and run there. */
void route_key(struct route *r, const struct table *t, struct kvs_slice key,
               struct kvs_slice partition_key);
/* The partition on this loop, or NULL. */
struct partition *part_here(struct storage *s, uint32_t table_id, uint32_t partition,
                            const struct table **ret_table);
void parked_resume(struct storage *s);

/* ---- render.c ----------------------------------------------------------------------------------
 */

/* {"key":..,"partition_key":..,"value":..,...} */
void render_item(struct kvs_buf *b, struct partition *p, const struct item_view *item,
                 int with_value);
/* The ETag of a version, quoted, in the arena: "1-42". */
const char *render_version(struct kvs_arena *arena, struct version v);
/* The problem of an operation that did not succeed. */
void problem_of(const struct write_op *op, const struct table *t, struct kvs_problem *ret,
                const char **ret_detail);
/* Answer with the problem of a refused or failed write. cb_rc: it comes from the callback. */
void answer_write_failed(struct storage *s, struct kvs_request *req, int rc, int from_callback);
void answer_headers(struct storage *s, struct kvs_request *req, uint32_t partition);
int version_parse(struct kvs_slice text, struct version *ret);

/* ---- cursor.c ----------------------------------------------------------------------------------
 */

struct cursor {
    uint64_t query; /* hash of what was asked */
    uint32_t table_id, secondary_id;
    struct kvs_slice position; /* behind this */
};

/* Text in the arena, NULL if memory is out. */
const char *cursor_make(struct storage *s, struct kvs_arena *arena, const struct cursor *c);
/* KVS_EINVAL: not ours, changed, or of another query. */
int cursor_read(struct storage *s, struct kvs_arena *arena, struct kvs_slice text,
                struct cursor *ret_c);

/* ---- handlers ----------------------------------------------------------------------------------
 */

void items_put(void *self, struct kvs_request *req);
void items_get(void *self, struct kvs_request *req);
void items_delete(void *self, struct kvs_request *req);
void items_list(void *self, struct kvs_request *req);
void items_query(void *self, struct kvs_request *req);
void items_batch(void *self, struct kvs_request *req);
void storage_status(void *self, struct kvs_request *req);

#define STORAGE_METHOD_COUNT 7u
extern const struct kvs_method STORAGE_METHODS[STORAGE_METHOD_COUNT];
extern const struct kvs_schema STORAGE_SCHEMAS[];

/* Positions of parameters in methods.c. */
enum {
    PUT_TABLE,
    PUT_KEY,
    PUT_PARTITION_KEY,
    PUT_TTL,
    PUT_ACKS,
    PUT_IF_MATCH,
    PUT_IF_NONE_MATCH,
    PUT_INDEX,
    PUT_IDEMPOTENCY_KEY,
    PUT_CONTENT_TYPE
};
enum {
    GET_TABLE,
    GET_KEY,
    GET_PARTITION_KEY,
    GET_READ,
    GET_MAX_LAG,
    GET_FORMAT,
    GET_IF_NONE_MATCH
};
enum { DEL_TABLE, DEL_KEY, DEL_PARTITION_KEY, DEL_ACKS, DEL_IF_MATCH, DEL_IDEMPOTENCY_KEY };
enum {
    LIST_TABLE,
    LIST_PREFIX,
    LIST_START,
    LIST_END,
    LIST_PARTITION_KEY,
    LIST_VALUES,
    LIST_LIMIT,
    LIST_MAX_BYTES,
    LIST_CURSOR,
    LIST_READ,
    LIST_ACCEPT
};
enum {
    QUERY_TABLE,
    QUERY_INDEX,
    QUERY_EQ,
    QUERY_FROM,
    QUERY_TO,
    QUERY_ORDER,
    QUERY_PARTITION_KEY,
    QUERY_VALUES,
    QUERY_LIMIT,
    QUERY_MAX_BYTES,
    QUERY_CURSOR,
    QUERY_READ,
    QUERY_ACCEPT
};
enum { BATCH_TABLE, BATCH_ATOMIC, BATCH_ACKS, BATCH_IDEMPOTENCY_KEY };
enum { STATUS_TABLE };

#endif
