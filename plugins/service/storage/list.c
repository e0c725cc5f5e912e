/* SPDX-License-Identifier: MIT
 *
 * Lists and index queries in one order over all partitions; see storage.h.
 *
 * Each loop merges its own partitions with a heap of cursors and renders at most a page; whoever is
 * last merges these pages and answers. What a loop rendered beyond the page is lost work, at most
 * once per loop; what it costs does not grow with the number of partitions beyond one seek each. */
#include <inttypes.h>
#include <stdio.h>

#include "storage.h"

static const struct kvs_mem_tag list_memory = {"storage.lists"};

/* What is asked, whichever method asked it. Slices lie in the request. */
struct query {
    uint32_t table_id, secondary_id, descending, with_value, read, ndjson, single, partition;
    uint64_t limit, max_bytes, now_ms, hash;
    struct kvs_slice prefix, low, high; /* list: keys; query: positions; ptr NULL: open */
    struct kvs_slice after;             /* cursor's position */
};

struct row {
    uint32_t key_at, key_len; /* composite: value's part and key */
    uint32_t json_at, json_len;
    uint32_t prefix_len, reserved;
};

/* One loop's page. */
struct share {
    struct kvs_task task;
    struct list *list;
    uint32_t loop, more, building, gone, no_memory;
    struct kvs_buf json, keys, rows;
    const struct row *next, *end; /* merging */
};

struct list {
    struct storage *svc;
    struct kvs_request *req;
    struct query q;
    _Atomic uint32_t left;
    uint32_t share_count;
    struct share *shares; /* [share_count] */
};

/* ---- one loop ----------------------------------------------------------------------------------
 */

struct heap {
    struct partition_cursor *at; /* [count], a heap by position */
    uint32_t count;
    int descending;
};

static int compare(const struct partition_cursor *a, const struct partition_cursor *b)
{
    int c = a->secondary == 0 ? 0 : kvs_slice_cmp(a->secondary_key, b->secondary_key);

    return c != 0 ? c : kvs_slice_cmp(a->item.key, b->item.key);
}

static int before(const struct heap *h, uint32_t a, uint32_t b)
{
    int c = compare(&h->at[a], &h->at[b]);

    return h->descending ? c > 0 : c < 0;
}

static void sift(struct heap *h, uint32_t i)
{
    for (;;) {
        uint32_t first = i, left = 2 * i + 1, right = left + 1;
        struct partition_cursor tmp;

        if (left < h->count && before(h, left, first)) {
            first = left;
        }
        if (right < h->count && before(h, right, first)) {
            first = right;
        }
        if (first == i) {
            return;
        }
        tmp = h->at[i];
        h->at[i] = h->at[first];
        h->at[first] = tmp;
        i = first;
    }
}

/* Has the walk left what is asked for? */
static int past_end(const struct query *q, const struct partition_cursor *c)
{
    if (q->secondary_id == 0) {
        return (q->prefix.len > 0 &&
                (c->item.key.len < q->prefix.len ||
                 memcmp(c->item.key.ptr, q->prefix.ptr, q->prefix.len) != 0)) ||
               (q->high.ptr != NULL && kvs_slice_cmp(c->item.key, q->high) >= 0);
    }
    return q->descending ? q->low.ptr != NULL && kvs_slice_cmp(c->secondary_key, q->low) < 0
                         : q->high.ptr != NULL && kvs_slice_cmp(c->secondary_key, q->high) >= 0;
}

static void seek(struct partition *p, const struct query *q, struct partition_cursor *c)
{
    struct kvs_slice from = q->descending ? q->high : q->low;
    uint32_t after = q->descending;

    if (q->after.ptr != NULL) {
        from = q->after;
        after = 1;
    }
    if (q->secondary_id == 0) {
        partition_seek(p, from, after, q->read, q->now_ms, c);
    } else {
        partition_seek_secondary(p, q->secondary_id, from, after, q->descending, q->read, q->now_ms,
                                 c);
    }
}

static void put_row(struct share *sh, const struct query *q, const struct partition_cursor *c)
{
    struct row row = {.key_at = (uint32_t)sh->keys.len, .json_at = (uint32_t)sh->json.len};

    if (q->secondary_id != 0) {
        kvs_buf_append(&sh->keys, c->secondary_key.ptr, c->secondary_key.len);
        row.prefix_len = (uint32_t)c->secondary_key.len;
    }
    kvs_buf_append(&sh->keys, c->item.key.ptr, c->item.key.len);
    row.key_len = (uint32_t)sh->keys.len - row.key_at;
    render_item(&sh->json, c->p, &c->item, (int)q->with_value);
    row.json_len = (uint32_t)sh->json.len - row.json_at;
    kvs_buf_append(&sh->rows, &row, sizeof row);
}

static void walk(struct share *sh, struct heap *h)
{
    const struct query *q = &sh->list->q;
    uint64_t n = 0;

    for (uint32_t i = h->count / 2; i > 0; i--) {
        sift(h, i - 1);
    }
    while (h->count > 0) {
        struct partition_cursor *c = &h->at[0];

        if (n == q->limit || (n > 0 && sh->json.len >= q->max_bytes)) {
            sh->more = 1;
            return;
        }
        put_row(sh, q, c);
        n++;
        partition_next(c);
        if (!c->valid || past_end(q, c)) {
            h->at[0] = h->at[--h->count];
        }
        sift(h, 0);
    }
}

/* Cursors of this loop's partitions. */
static int cursors(struct share *sh, const struct table *t, struct heap *h)
{
    struct storage *s = sh->list->svc;
    const struct query *q = &sh->list->q;

    for (uint32_t i = 0; i < t->partition_count; i++) {
        struct partition_cursor *c = &h->at[h->count];
        struct partition *p;

        if (loop_of(s, t->id, i) != sh->loop || (q->single && i != q->partition) ||
            t->parts[i] == NULL) {
            continue;
        }
        p = t->parts[i]->partition;
        if (q->secondary_id != 0 && partition_secondary_state(p, q->secondary_id) != 2) {
            sh->building = 1;
            return 0;
        }
        seek(p, q, c);
        h->count += c->valid && !past_end(q, c);
    }
    return 1;
}

static void share_run(struct share *sh)
{
    struct storage *s = sh->list->svc;
    const struct kvs_host *host = s->host;
    const struct loop *l = &s->loops[sh->loop];
    const struct table *t = l->map == NULL ? NULL : map_table_by_id(l->map, sh->list->q.table_id);
    struct heap h = {.descending = (int)sh->list->q.descending};
    size_t bytes;

    if (t == NULL) {
        sh->gone = 1;
        return;
    }
    bytes = (t->partition_count / host->loop_count + 2) * sizeof *h.at;
    h.at = kvs_alloc(host, &list_memory, bytes);
    if (h.at == NULL) {
        sh->no_memory = 1;
        return;
    }
    if (cursors(sh, t, &h)) {
        walk(sh, &h);
    }
    kvs_free(host, &list_memory, h.at, bytes);
    sh->no_memory = sh->json.failed || sh->keys.failed || sh->rows.failed;
}

/* ---- merging -----------------------------------------------------------------------------------
 */

static int row_compare(const struct share *a, const struct share *b)
{
    const struct row *x = a->next, *y = b->next;
    int c = kvs_slice_cmp(kvs_slice(a->keys.ptr + x->key_at, x->prefix_len),
                          kvs_slice(b->keys.ptr + y->key_at, y->prefix_len));

    return c != 0 ? c
                  : kvs_slice_cmp(kvs_slice(a->keys.ptr + x->key_at + x->prefix_len,
                                            x->key_len - x->prefix_len),
                                  kvs_slice(b->keys.ptr + y->key_at + y->prefix_len,
                                            y->key_len - y->prefix_len));
}

/* The share with the next row. *ret_stop: a loop's page is used up, though it has more: what comes
 * next is not known. */
static struct share *next_share(struct list *l, int *ret_stop)
{
    struct share *best = NULL;

    *ret_stop = 0;
    for (uint32_t i = 0; i < l->share_count; i++) {
        struct share *sh = &l->shares[i];
        int c;

        if (sh->next == sh->end) {
            *ret_stop |= (int)sh->more;
            continue;
        }
        c = best == NULL ? -1 : row_compare(sh, best);
        if (best == NULL || (l->q.descending ? c > 0 : c < 0)) {
            best = sh;
        }
    }
    return best;
}

static void buf_free(void *arg)
{
    kvs_buf_fini(arg);
}

static void put_next(struct list *l, struct kvs_buf *b, struct kvs_slice last)
{
    struct cursor c = {.query = l->q.hash,
                       .table_id = l->q.table_id,
                       .secondary_id = l->q.secondary_id,
                       .position = last};
    const char *text = cursor_make(l->svc, &l->req->arena, &c);

    if (text == NULL) {
        b->failed = 1;
    } else if (l->q.ndjson) {
        kvs_response_header(l->req, "KVS-Next", text);
    } else {
        kvs_buf_printf(b, ",\"next\":\"%s\"", text);
    }
}

static void merge(struct list *l, struct kvs_buf *b)
{
    struct kvs_slice last = {NULL, 0};
    struct share *sh;
    uint64_t n = 0;
    int stop = 0;

    for (uint32_t i = 0; i < l->share_count; i++) {
        struct share *one = &l->shares[i];

        one->next = (const struct row *)(const void *)one->rows.ptr;
        one->end = one->next == NULL ? NULL : one->next + one->rows.len / sizeof *one->next;
    }
    kvs_buf_append_str(b, l->q.ndjson ? "" : "{\"items\":[");
    while ((sh = next_share(l, &stop)) != NULL && !stop && n < l->q.limit &&
           (n == 0 || b->len < l->q.max_bytes)) {
        const struct row *row = sh->next++;

        kvs_buf_append_str(b, n > 0 && !l->q.ndjson ? "," : "");
        kvs_buf_append(b, sh->json.ptr + row->json_at, row->json_len);
        kvs_buf_append_str(b, l->q.ndjson ? "\n" : "");
        last = kvs_slice(sh->keys.ptr + row->key_at, row->key_len);
        n++;
    }
    kvs_buf_append_str(b, l->q.ndjson ? "" : "]");
    if (sh != NULL || stop) {
        put_next(l, b, last.ptr == NULL ? l->q.after : last);
    }
    kvs_buf_append_str(b, l->q.ndjson ? "" : "}\n");
}

static void answer_list(struct list *l)
{
    struct kvs_request *req = l->req;
    const struct kvs_host *host = l->svc->host;
    struct kvs_buf *b = kvs_arena_alloc(&req->arena, sizeof *b);
    uint32_t building = 0, gone = 0, no_memory = b == NULL;

    for (uint32_t i = 0; i < l->share_count; i++) {
        building |= l->shares[i].building;
        gone |= l->shares[i].gone;
        no_memory |= l->shares[i].no_memory;
    }
    if (gone) {
        kvs_problem(req, &(struct kvs_problem){.status = 404, .code = "table_not_found"},
                    "the table was dropped");
    } else if (building) {
        kvs_problem(
            req,
            &(struct kvs_problem){
                .status = 503, .code = "index_building", .retryable = 1, .retry_after_ms = 1000},
            "the index is being built over the table's items: try again soon");
    } else if (!no_memory) {
        kvs_buf_init(b, host, &list_memory);
        merge(l, b);
        no_memory = b->failed;
        req->response.status = 200;
        req->response.content_type = l->q.ndjson ? "application/x-ndjson" : "application/json";
        req->response.body = kvs_buf_slice(b);
        req->response.body_free = buf_free;
        req->response.body_arg = b;
    }
    if (no_memory) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < l->share_count; i++) {
        kvs_buf_fini(&l->shares[i].json);
        kvs_buf_fini(&l->shares[i].keys);
        kvs_buf_fini(&l->shares[i].rows);
    }
    kvs_response_header(req, "KVS-Served-By", host->node_id);
    host->complete(host->ctx, req);
}

static void share_arrives(struct kvs_task *task)
{
    struct share *sh = KVS_CONTAINER_OF(task, struct share, task);
    struct list *l = sh->list;

    share_run(sh);
    /* Release what this loop wrote, acquire what the others did, if this is the last. */
    if (atomic_fetch_sub_explicit(&l->left, 1, memory_order_acq_rel) == 1) {
        answer_list(l);
    }
}

static void begin(struct storage *s, struct kvs_request *req, const struct query *q)
{
    const struct kvs_host *host = s->host;
    uint32_t n = q->single ? 1 : host->loop_count, here = host->loop_current(host->ctx);
    struct list *l = kvs_arena_alloc(&req->arena, sizeof *l);
    struct share *shares = kvs_arena_alloc(&req->arena, n * sizeof *shares);

    if (l == NULL || shares == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        host->complete(host->ctx, req);
        return;
    }
    memset(l, 0, sizeof *l);
    memset(shares, 0, n * sizeof *shares);
    l->svc = s;
    l->req = req;
    l->q = *q;
    l->shares = shares;
    l->share_count = n;
    atomic_store_explicit(&l->left, n, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        struct share *sh = &shares[i];

        sh->list = l;
        sh->loop = q->single ? loop_of(s, q->table_id, q->partition) : i;
        sh->task.run = share_arrives;
        kvs_buf_init(&sh->json, host, &list_memory);
        kvs_buf_init(&sh->keys, host, &list_memory);
        kvs_buf_init(&sh->rows, host, &list_memory);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (shares[i].loop != here) {
            kvs_post(host, shares[i].loop, &shares[i].task);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (shares[i].loop == here) {
            share_arrives(&shares[i].task); /* last: the request may be gone afterwards */
            return;
        }
    }
}

/* ---- what is asked -----------------------------------------------------------------------------
 */

static void refuse(struct storage *s, struct kvs_request *req, const char *detail)
{
    kvs_problem(req, &(struct kvs_problem){.status = 400, .code = "malformed"}, "%s", detail);
    s->host->complete(s->host->ctx, req);
}

static uint64_t mix(uint64_t hash, struct kvs_slice s)
{
    return kvs_hash64(s.ptr == NULL ? kvs_slice("", 0) : s, hash * 31 + (s.ptr != NULL));
}

/* 0, or KVS_EINVAL with the request answered. */
static int take_cursor(struct storage *s, struct kvs_request *req, struct query *q, uint32_t arg)
{
    struct kvs_slice text = kvs_arg(req, arg);
    struct cursor c;

    if (text.ptr == NULL) {
        return 0;
    }
    if (cursor_read(s, &req->arena, text, &c) != 0) {
        refuse(s, req, "the cursor is not one that this cluster gave out: use `next` as it was");
        return KVS_EINVAL;
    }
    if (c.table_id != q->table_id || c.secondary_id != q->secondary_id || c.query != q->hash) {
        refuse(s, req, "the cursor belongs to another query: repeat the same parameters with it");
        return KVS_EINVAL;
    }
    q->after = c.position;
    return 0;
}

static void take_partition(const struct table *t, struct query *q, struct kvs_slice partition_key)
{
    if (partition_key.ptr != NULL) {
        q->single = 1;
        q->partition = kvs_hash_bucket(partition_key, t->seed, t->partition_count);
    }
}

static int accepts_ndjson(const struct kvs_request *req, uint32_t arg)
{
    struct kvs_slice accept = kvs_arg(req, arg);

    return accept.ptr != NULL && accept.len >= 20 &&
           memcmp(accept.ptr, "application/x-ndjson", 20) == 0;
}

void items_list(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_list);
    struct query q = {0};

    if (t == NULL) {
        return;
    }
    if (!t->ordered) {
        refuse(s, req,
               "this table has a hash index and no order: only single keys can be asked for");
        return;
    }
    q.table_id = t->id;
    q.prefix = kvs_arg(req, LIST_PREFIX);
    q.low = kvs_arg(req, LIST_START);
    q.high = kvs_arg(req, LIST_END);
    q.hash = mix(mix(mix(mix(1, q.prefix), q.low), q.high), kvs_arg(req, LIST_PARTITION_KEY));
    if (q.prefix.ptr != NULL && (q.low.ptr == NULL || kvs_slice_cmp(q.low, q.prefix) < 0)) {
        q.low = q.prefix;
    }
    q.with_value = req->args[LIST_VALUES].u != 0;
    q.limit = req->args[LIST_LIMIT].u;
    q.max_bytes = req->args[LIST_MAX_BYTES].u;
    q.read = req->args[LIST_READ].u == 1 ? READ_UNCOMMITTED : READ_COMMITTED;
    q.ndjson = (uint32_t)accepts_ndjson(req, LIST_ACCEPT);
    q.now_ms = kvs_now_ms(s->host);
    take_partition(t, &q, kvs_arg(req, LIST_PARTITION_KEY));
    if (take_cursor(s, req, &q, LIST_CURSOR) == 0) {
        begin(s, req, &q);
    }
}

/* A value's position in the arena; ptr NULL with the request answered. */
static struct kvs_slice position_of(struct storage *s, struct kvs_request *req,
                                    const struct secondary_def *def, struct kvs_slice text)
{
    char encoded[KVS_INDEX_KEY_SIZE_MAX];
    struct kvs_slice position = {NULL, 0};
    struct kvs_buf b;
    size_t len;

    if (secondary_encode(def->type, text, encoded, &len) != 0) {
        refuse(s, req,
               def->type == SECONDARY_NUMBER ? "eq, from and to of a number index must be numbers"
                                             : "eq, from and to must be at most 512 bytes long");
        return position;
    }
    kvs_buf_init(&b, s->host, &list_memory);
    partition_position(&b, def->type, kvs_slice(encoded, len));
    position = kvs_slice(kvs_arena_strdup(&req->arena, kvs_buf_slice(&b)), b.len);
    kvs_buf_fini(&b);
    if (position.ptr == NULL) {
        kvs_problem_code(req, KVS_ENOMEM, "out of memory");
        s->host->complete(s->host->ctx, req);
    }
    return position;
}

/* The first position behind every one that begins with p; ptr NULL: there is none. */
static struct kvs_slice behind(struct kvs_arena *arena, struct kvs_slice p)
{
    char *next = kvs_arena_strdup(arena, p);
    size_t n = p.len;

    while (next != NULL && n > 0 && (uint8_t)next[n - 1] == 0xff) {
        n--;
    }
    if (next == NULL || n == 0) {
        return kvs_slice(NULL, 0);
    }
    next[n - 1] = (char)((uint8_t)next[n - 1] + 1);
    return kvs_slice(next, n);
}

/* low and high of eq, from, to. 0, or the request was answered. */
static int take_bounds(struct storage *s, struct kvs_request *req, const struct secondary_def *def,
                       struct query *q)
{
    struct kvs_slice eq = kvs_arg(req, QUERY_EQ), from = kvs_arg(req, QUERY_FROM);
    struct kvs_slice to = kvs_arg(req, QUERY_TO);

    if (eq.ptr != NULL && (from.ptr != NULL || to.ptr != NULL)) {
        refuse(s, req, "give eq, or from and to, not both");
        return KVS_EINVAL;
    }
    if (eq.ptr != NULL) {
        q->low = position_of(s, req, def, eq);
        if (q->low.ptr == NULL) {
            return KVS_EINVAL;
        }
        q->high = behind(&req->arena, q->low);
        return 0;
    }
    if (from.ptr != NULL) {
        q->low = position_of(s, req, def, from);
        if (q->low.ptr == NULL) {
            return KVS_EINVAL;
        }
    }
    if (to.ptr != NULL) {
        q->high = position_of(s, req, def, to);
        if (q->high.ptr == NULL) {
            return KVS_EINVAL;
        }
    }
    return 0;
}

static const struct secondary_def *find_index(const struct table *t, struct kvs_slice name)
{
    for (uint32_t i = 0; i < t->secondary_count; i++) {
        if (kvs_slice_eq_str(name, t->secondaries[i].name)) {
            return &t->secondaries[i];
        }
    }
    return NULL;
}

void items_query(void *self, struct kvs_request *req)
{
    struct storage *s = self;
    const struct table *t = route_table(s, req, items_query);
    const struct secondary_def *def;
    struct query q = {0};

    if (t == NULL) {
        return;
    }
    def = find_index(t, kvs_arg(req, QUERY_INDEX));
    if (def == NULL) {
        kvs_problem(req, &(struct kvs_problem){.status = 404, .code = "index_not_found"},
                    "the table has no such index: see GET /v1/tables/%s", t->name);
        s->host->complete(s->host->ctx, req);
        return;
    }
    q.table_id = t->id;
    q.secondary_id = def->id;
    q.descending = req->args[QUERY_ORDER].u == 1;
    q.hash = mix(mix(mix(mix(2 + q.descending, kvs_arg(req, QUERY_EQ)), kvs_arg(req, QUERY_FROM)),
                     kvs_arg(req, QUERY_TO)),
                 kvs_arg(req, QUERY_PARTITION_KEY));
    q.with_value = req->args[QUERY_VALUES].u != 0;
    q.limit = req->args[QUERY_LIMIT].u;
    q.max_bytes = req->args[QUERY_MAX_BYTES].u;
    q.read = req->args[QUERY_READ].u == 1 ? READ_UNCOMMITTED : READ_COMMITTED;
    q.ndjson = (uint32_t)accepts_ndjson(req, QUERY_ACCEPT);
    q.now_ms = kvs_now_ms(s->host);
    take_partition(t, &q, kvs_arg(req, QUERY_PARTITION_KEY));
    if (take_bounds(s, req, def, &q) == 0 && take_cursor(s, req, &q, QUERY_CURSOR) == 0) {
        begin(s, req, &q);
    }
}
