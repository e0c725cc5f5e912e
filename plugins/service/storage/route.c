/* SPDX-License-Identifier: MIT
 *
 * From table and key to the loop of the partition; see storage.h.
 *
 * A table this node has not heard of may have been created a moment ago: the request is parked, the
 * map is fetched once for all that wait, and then they are looked at again. */
#include "storage.h"

struct parked {
    struct parked *next;
    struct kvs_task task;
    struct storage *svc;
    struct kvs_request *req;
    uint32_t loop;
    void (*again)(void *self, struct kvs_request *req);
};

static char looked_twice; /* req->state of a request that was parked before */

static void complete(struct storage *s, struct kvs_request *req)
{
    s->host->complete(s->host->ctx, req);
}

static void not_ready(struct storage *s, struct kvs_request *req)
{
    kvs_problem(req,
                &(struct kvs_problem){
                    .status = 503, .code = "not_ready", .retryable = 1, .retry_after_ms = 500},
                "this server is still reading its data: see /readyz");
    complete(s, req);
}

static void no_table(struct storage *s, struct kvs_request *req)
{
    kvs_problem(req, &(struct kvs_problem){.status = 404, .code = "table_not_found"},
                "there is no table '%.*s'", (int)kvs_arg(req, 0).len, kvs_arg(req, 0).ptr);
    complete(s, req);
}

/* ---- parking -----------------------------------------------------------------------------------
 */

static void park_arrives(struct kvs_task *task)
{
    struct parked *k = KVS_CONTAINER_OF(task, struct parked, task);

    /* A map that is under way may be older than what this request was promised. */
    if (k->svc->refreshing) {
        k->next = k->svc->parked_late;
        k->svc->parked_late = k;
        return;
    }
    k->next = k->svc->parked;
    k->svc->parked = k;
    map_refresh(k->svc);
}

static void park_again(struct kvs_task *task)
{
    struct parked *k = KVS_CONTAINER_OF(task, struct parked, task);

    k->again(k->svc, k->req);
}

void parked_resume(struct storage *s)
{
    struct parked *k = s->parked, *next;

    s->parked = s->parked_late;
    s->parked_late = NULL;
    for (; k != NULL; k = next) {
        next = k->next;
        k->task.run = park_again;
        kvs_post(s->host, k->loop, &k->task); /* behind the map, which was posted before */
    }
}

static void park(struct storage *s, struct kvs_request *req,
                 void (*again)(void *self, struct kvs_request *req))
{
    struct parked *k = kvs_arena_alloc(&req->arena, sizeof *k);

    if (k == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        complete(s, req);
        return;
    }
    *k = (struct parked){.svc = s, .req = req, .again = again};
    k->loop = s->host->loop_current(s->host->ctx);
    k->task.run = park_arrives;
    req->state = &looked_twice;
    kvs_post(s->host, 0, &k->task);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

const struct table *route_table(struct storage *s, struct kvs_request *req,
                                void (*again)(void *self, struct kvs_request *req))
{
    const struct loop *l = &s->loops[s->host->loop_current(s->host->ctx)];
    const struct table *t;

    if (l->map == NULL) {
        not_ready(s, req);
        return NULL;
    }
    t = map_table_by_name(l->map, kvs_arg(req, 0));
    if (t == NULL && req->state == NULL) {
        park(s, req, again);
    } else if (t == NULL) {
        no_table(s, req);
    }
    return t;
}

struct partition *part_here(struct storage *s, uint32_t table_id, uint32_t partition,
                            const struct table **ret_table)
{
    const struct loop *l = &s->loops[s->host->loop_current(s->host->ctx)];
    const struct table *t = l->map == NULL ? NULL : map_table_by_id(l->map, table_id);

    if (t == NULL || partition >= t->partition_count || t->parts[partition] == NULL) {
        return NULL;
    }
    *ret_table = t;
    return t->parts[partition]->partition;
}

/* ---- keys --------------------------------------------------------------------------------------
 */

static void arrive(struct kvs_task *task)
{
    struct kvs_request *req = KVS_CONTAINER_OF(task, struct kvs_request, task);
    struct route *r = req->state;
    const struct table *t;
    struct partition *p = part_here(r->svc, r->table_id, r->partition, &t);

    if (p == NULL) {
        no_table(r->svc, req); /* dropped while the request was on its way */
        return;
    }
    r->run(r, t, p);
}

void route_key(struct route *r, const struct table *t, struct kvs_slice key,
               struct kvs_slice partition_key)
{
    const struct kvs_host *host = r->svc->host;
    uint32_t loop;

    r->table_id = t->id;
    r->partition = kvs_hash_bucket(partition_key.ptr != NULL ? partition_key : key, t->seed,
                                   t->partition_count);
    r->req->state = r;
    r->req->task.run = arrive;
    loop = loop_of(r->svc, t->id, r->partition);
    if (loop == host->loop_current(host->ctx)) {
        arrive(&r->req->task);
    } else {
        kvs_post(host, loop, &r->req->task);
    }
}
