/* SPDX-License-Identifier: MIT
 *
 * Life of a partition, reads, cursors, expiry, statistics; see partition.h and partition_private.h.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "partition_private.h"

#define RING_MIN 64u

const struct kvs_mem_tag storage_items = {"storage.items"};
const struct kvs_mem_tag storage_index = {"storage.index"};
const struct kvs_mem_tag storage_batches = {"storage.batches"};
const struct kvs_mem_tag storage_other = {"storage.other"};

static struct kvs_slice primary_key(void *arg, const void *entry)
{
    (void)arg;
    return item_key(entry);
}

static struct kvs_slice expiry_key(void *arg, const void *entry)
{
    (void)arg;
    return item_expiry_key(entry);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static int maps_new(struct partition *p)
{
    struct kvs_index_conf primary = {.key_of = primary_key, .tag = &storage_index};
    struct kvs_index_conf expiry = {.key_of = expiry_key, .tag = &storage_index};
    int rc = p->conf.index->map_new(p->conf.index_self, &primary, &p->index);

    if (rc == 0 && p->conf.ordered != NULL) {
        rc = p->conf.ordered->map_new(p->conf.ordered_self, &expiry, &p->expiry);
    }
    return rc != 0 ? rc : answers_init(p);
}

int partition_new(const struct partition_conf *conf, struct partition **ret_p,
                  struct kvs_error *err)
{
    struct partition *p = kvs_calloc(conf->host, &storage_other, sizeof *p);
    int rc;

    if (p == NULL) {
        return kvs_err(err, KVS_ENOMEM, "partition: out of memory");
    }
    p->conf = *conf;
    p->host = conf->host;
    p->waiters_tail = &p->waiters;
    kvs_buf_init(&p->scratch, p->host, &storage_other);
    p->ring_cap = RING_MIN;
    p->ring = kvs_alloc(p->host, &storage_other, p->ring_cap * sizeof *p->ring);
    rc = p->ring == NULL ? KVS_ENOMEM : maps_new(p);
    rc = rc != 0 ? rc : partition_secondaries_set(p, conf->secondaries, conf->secondary_count, err);
    if (rc != 0) {
        partition_free(p);
        return kvs_err(err, rc, "partition: %s", kvs_code_text(rc));
    }
    *ret_p = p;
    return 0;
}

static int item_free_visit(void *arg, void *entry)
{
    struct partition *p = arg;

    kvs_free(p->host, &storage_items, entry, item_size(entry));
    return 0;
}

/* Predecessors of pending versions are in the ring only. */
static void ring_free(struct partition *p)
{
    for (uint64_t o = p->hw; p->ring != NULL && o < p->leo; o++) {
        struct item *previous = pending_at(p, o)->previous;

        if (previous != NULL) {
            kvs_free(p->host, &storage_items, previous, item_size(previous));
        }
    }
    kvs_free(p->host, &storage_other, p->ring, p->ring_cap * sizeof *p->ring);
}

void partition_free(struct partition *p)
{
    if (p == NULL) {
        return;
    }
    ring_free(p);
    secondaries_free(p);
    if (p->expiry != NULL) {
        p->conf.ordered->map_free(p->expiry);
    }
    if (p->index != NULL) {
        (void)p->conf.index->each(p->index, item_free_visit, p);
        p->conf.index->map_free(p->index);
    }
    answers_free(p);
    batches_free(p);
    for (uint32_t i = 0; i < p->type_count; i++) {
        kvs_free(p->host, &storage_other, p->types[i], strlen(p->types[i]) + 1);
    }
    kvs_buf_fini(&p->scratch);
    kvs_free(p->host, &storage_other, p, sizeof *p);
}

/* ---- versions ----------------------------------------------------------------------------------
 */

static int type_intern(struct partition *p, struct kvs_slice type)
{
    char *copy;

    for (uint32_t i = 0; i < p->type_count; i++) {
        if (kvs_slice_eq_str(type, p->types[i])) {
            return (int)i;
        }
    }
    if (p->type_count == TYPE_MAX || memchr(type.ptr, '\0', type.len) != NULL) {
        return -1;
    }
    copy = kvs_alloc(p->host, &storage_other, type.len + 1);
    if (copy == NULL) {
        return -1;
    }
    memcpy(copy, type.ptr, type.len);
    copy[type.len] = '\0';
    p->types[p->type_count] = copy;
    return (int)p->type_count++;
}

/* Number 0 is "no type" once it exists: the first type interned is the empty one. */
struct item *item_make(struct partition *p, const struct item_parts *parts)
{
    struct item_parts made = *parts;
    struct item *it;
    int type;

    if (p->type_count == 0) {
        (void)type_intern(p, kvs_slice("", 0));
    }
    type =
        p->type_count == 0 && parts->content_type.len == 0
            ? 0
            : type_intern(p, kvs_slice(parts->content_type.len == 0 ? "" : parts->content_type.ptr,
                                       parts->content_type.len));
    if (kvs_slice_eq(made.partition_key, made.key)) {
        made.partition_key = kvs_slice(NULL, 0);
    }
    it = kvs_alloc(p->host, &storage_items, item_size_of(&made, type < 0));
    if (it != NULL) {
        item_fill(it, &made, type);
    }
    return it;
}

void item_drop(struct partition *p, struct item *it)
{
    secondaries_remove(p, it);
    if (p->snapshot == NULL || !snapshot_keeps(p, it)) {
        kvs_free(p->host, &storage_items, it, item_size(it));
    }
}

void counters_add(struct partition *p, const struct item *it, int sign)
{
    uint64_t one = sign > 0 ? 1 : UINT64_MAX; /* wraps: minus one */

    p->item_bytes += one * item_size(it);
    if ((it->flags & ITEM_TOMBSTONE) != 0) {
        p->tombstones += one;
        return;
    }
    p->item_count += one;
    p->key_bytes += one * it->key_len;
    p->value_bytes += one * it->value_len;
}

struct item *version_visible(const struct partition *p, struct item *newest, uint32_t read)
{
    struct item *v = newest;

    while (read == READ_COMMITTED && v != NULL && v->offset >= p->hw) {
        v = pending_at(p, v->offset)->previous;
    }
    return v == NULL || (v->flags & ITEM_TOMBSTONE) != 0 ? NULL : v;
}

int item_expired(const struct item *it, uint64_t now_ms)
{
    return (it->flags & ITEM_EXPIRES) != 0 && item_expires_at(it) <= now_ms;
}

void item_view_fill(const struct partition *p, const struct item *it, struct item_view *ret)
{
    struct item_parts parts;

    item_parts(it, &parts);
    ret->key = parts.key;
    ret->partition_key = parts.partition_key.len > 0 ? parts.partition_key : parts.key;
    ret->value = parts.value;
    if ((it->flags & ITEM_TYPE_INLINE) != 0) {
        ret->content_type = parts.content_type;
    } else {
        ret->content_type = kvs_slice_str(p->type_count == 0 ? "" : p->types[it->type]);
    }
    ret->version.epoch = it->epoch;
    ret->version.offset = it->offset;
    ret->expires_at_ms = parts.expires_at_ms;
    ret->item = it;
}

int partition_get(struct partition *p, struct kvs_slice key, uint32_t read, uint64_t now_ms,
                  struct item_view *ret_item)
{
    const struct item *it = version_visible(p, p->conf.index->get(p->index, key), read);

    if (it == NULL || item_expired(it, now_ms)) {
        return 0;
    }
    item_view_fill(p, it, ret_item);
    return 1;
}

/* ---- cursors -----------------------------------------------------------------------------------
 */

static void step(struct partition_cursor *c)
{
    const struct kvs_index_ops *ops = c->secondary != 0 ? c->p->conf.ordered : c->p->conf.index;

    if (c->descending) {
        ops->prev(&c->at);
    } else {
        ops->next(&c->at);
    }
}

/* The version this cursor sees behind its present entry, or NULL. */
static const struct item *behind(struct partition_cursor *c)
{
    const struct entry *e = c->at.entry;
    struct item *newest;
    const struct item *it;

    if (c->secondary == 0) {
        it = version_visible(c->p, c->at.entry, c->read);
        return it != NULL && item_expired(it, c->now_ms) ? NULL : it;
    }
    newest = c->p->conf.index->get(
        c->p->index, kvs_slice(e->key + e->prefix_len, (size_t)e->len - e->prefix_len));
    it = version_visible(c->p, newest, c->read);
    if (it == NULL || item_expired(it, c->now_ms)) {
        return NULL;
    }
    if (newest->offset >= c->p->hw && !secondary_has(c->p, it, secondary_find(c->p, c->secondary),
                                                     kvs_slice(e->key, e->prefix_len))) {
        return NULL; /* another version of the item has this value */
    }
    return it;
}

/* Rest at the present entry if the reader sees an item there, or go on to one. */
static void settle(struct partition_cursor *c)
{
    c->valid = 0;
    while (c->at.entry != NULL) {
        const struct item *it = behind(c);

        if (it != NULL) {
            item_view_fill(c->p, it, &c->item);
            if (c->secondary != 0) {
                const struct entry *e = c->at.entry;

                c->secondary_key = kvs_slice(e->key, e->prefix_len);
            }
            c->valid = 1;
            return;
        }
        step(c);
    }
}

static void cursor_begin(struct partition_cursor *c, struct partition *p, uint32_t read,
                         uint64_t now_ms)
{
    memset(c, 0, sizeof *c);
    c->p = p;
    c->read = read;
    c->now_ms = now_ms;
}

void partition_seek(struct partition *p, struct kvs_slice key, uint32_t after, uint32_t read,
                    uint64_t now_ms, struct partition_cursor *ret_c)
{
    cursor_begin(ret_c, p, read, now_ms);
    p->conf.index->seek(p->index, key, after ? KVS_INDEX_GT : KVS_INDEX_GE, &ret_c->at);
    settle(ret_c);
}

void partition_seek_secondary(struct partition *p, uint32_t secondary_id, struct kvs_slice position,
                              uint32_t after, uint32_t descending, uint32_t read, uint64_t now_ms,
                              struct partition_cursor *ret_c)
{
    struct secondary *s = secondary_find(p, secondary_id);
    uint32_t mode;

    cursor_begin(ret_c, p, read, now_ms);
    if (s == NULL) {
        return;
    }
    ret_c->secondary = secondary_id;
    ret_c->descending = descending;
    if (descending) {
        mode = after || position.len == 0 ? KVS_INDEX_LT : KVS_INDEX_LE;
    } else {
        mode = after ? KVS_INDEX_GT : KVS_INDEX_GE;
    }
    p->conf.ordered->seek(s->map, position, mode, &ret_c->at);
    settle(ret_c);
}

void partition_next(struct partition_cursor *c)
{
    if (c->valid) {
        step(c);
        settle(c);
    }
}

struct indexes_visit {
    void (*fn)(void *arg, const struct secondary_def *def, struct kvs_slice encoded);
    void *arg;
};

static int index_visit(void *arg, struct secondary *s, struct kvs_slice encoded)
{
    struct indexes_visit *v = arg;

    v->fn(v->arg, &s->def, encoded);
    return 0;
}

void partition_item_indexes(struct partition *p, const struct item_view *item,
                            void (*fn)(void *arg, const struct secondary_def *def,
                                       struct kvs_slice encoded),
                            void *arg)
{
    struct indexes_visit v = {fn, arg};

    (void)secondaries_each(p, item->item, index_visit, &v);
}

/* ---- expiry ------------------------------------------------------------------------------------
 */

static int expiry_add_visit(void *arg, void *entry)
{
    struct partition *p = arg;
    const struct item *it = entry;
    void *old;

    if ((it->flags & (ITEM_EXPIRES | ITEM_TOMBSTONE)) != ITEM_EXPIRES) {
        return 0;
    }
    return p->conf.ordered->put(p->expiry, entry, &old);
}

static struct item *expiry_first(struct partition *p)
{
    struct kvs_index_cursor c;

    if (p->expiry_dirty && p->conf.index->each(p->index, expiry_add_visit, p) == 0) {
        p->expiry_dirty = 0; /* an entry was lost when memory ran out: all are there again */
    }
    p->conf.ordered->seek(p->expiry, kvs_slice(NULL, 0), KVS_INDEX_GE, &c);
    return c.entry;
}

uint32_t partition_expire(struct partition *p, uint64_t now_ms, uint32_t max)
{
    uint32_t n = 0;

    answers_trim(p, now_ms);
    while (n < max && p->expiry != NULL && p->failed == 0 && !p->closing) {
        struct item *it = expiry_first(p);
        struct record r = {.kind = RECORD_DELETE};
        struct item_parts parts = {.tombstone = 1, .epoch = p->conf.leader_epoch, .offset = p->leo};
        struct item *tombstone;
        struct batch *b;

        if (it == NULL || item_expires_at(it) > now_ms) {
            break;
        }
        parts.key = r.key = item_key(it);
        b = batch_open(p, r.key.len + 32);
        tombstone = b == NULL ? NULL : item_make(p, &parts);
        if (tombstone == NULL) {
            break; /* out of memory: the item stays invisible and is removed later */
        }
        if (version_apply(p, tombstone) != 0) {
            kvs_free(p->host, &storage_items, tombstone, item_size(tombstone));
            break;
        }
        record_put(&b->buf, &r);
        b->append.count++;
        n++;
    }
    return n;
}

uint64_t partition_next_expiry(struct partition *p)
{
    const struct item *it = p->expiry == NULL ? NULL : expiry_first(p);

    return it == NULL ? 0 : item_expires_at(it);
}

/* ---- statistics --------------------------------------------------------------------------------
 */

void partition_limits_set(struct partition *p, const struct table_limits *limits)
{
    p->conf.limits = *limits;
}

void partition_stats(const struct partition *p, struct partition_stats *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->item_count = p->item_count;
    ret->key_bytes = p->key_bytes;
    ret->value_bytes = p->value_bytes;
    ret->memory_bytes = p->item_bytes + p->conf.index->memory(p->index);
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        ret->memory_bytes += p->conf.ordered->memory(p->secondaries[i]->map);
    }
    ret->leo = p->leo;
    ret->hw = p->hw;
    ret->log_start = p->snapshot_offset;
    ret->tombstones = p->tombstones;
    ret->expiring = p->expiry == NULL ? 0 : p->conf.ordered->count(p->expiry);
    ret->idempotency_keys = p->answer_count;
    ret->journaled_bytes = p->journaled_bytes;
    ret->failed = p->failed;
    ret->leader_epoch = p->conf.leader_epoch;
}

static int digest_visit(void *arg, void *entry)
{
    uint64_t *sum = arg, fields[3];
    const struct item *it = entry;
    struct item_parts parts;

    if ((it->flags & ITEM_TOMBSTONE) != 0) {
        return 0;
    }
    item_parts(it, &parts);
    fields[0] = it->offset;
    fields[1] = it->epoch;
    fields[2] = parts.expires_at_ms;
    *sum += XXH3_64bits_withSeed(
        parts.key.ptr, parts.key.len,
        XXH3_64bits_withSeed(parts.value.ptr, parts.value.len, XXH3_64bits(fields, sizeof fields)));
    return 0;
}

uint64_t partition_digest(struct partition *p)
{
    uint64_t sum = 0;

    (void)p->conf.index->each(p->index, digest_visit, &sum);
    return sum;
}

struct verify {
    struct partition *p;
    struct secondary *s; /* the index looked at */
    uint64_t expected, found, unbacked;
};

static int verify_key(void *arg, struct secondary *s, struct kvs_slice encoded)
{
    struct verify *v = arg;

    (void)encoded;
    v->expected += s == v->s;
    return 0;
}

static struct item *older(const struct partition *p, const struct item *it)
{
    return it->offset >= p->hw ? pending_at(p, it->offset)->previous : NULL;
}

static int verify_item(void *arg, void *entry)
{
    struct verify *v = arg;

    for (struct item *it = entry; it != NULL; it = older(v->p, it)) {
        (void)secondaries_each(v->p, it, verify_key, v);
    }
    return 0;
}

/* Every entry must be backed by a version that has its value. */
static int verify_entry(void *arg, void *entry)
{
    struct verify *v = arg;
    const struct entry *e = entry;
    struct kvs_slice key = {e->key + e->prefix_len, (size_t)e->len - e->prefix_len};
    int has = 0;

    v->found += e->refs;
    for (struct item *it = v->p->conf.index->get(v->p->index, key); it != NULL;
         it = older(v->p, it)) {
        has |= secondary_has(v->p, it, v->s, kvs_slice(e->key, e->prefix_len));
    }
    v->unbacked += !has;
    return 0;
}

uint64_t partition_verify(struct partition *p)
{
    uint64_t wrong = 0;

    for (uint32_t i = 0; i < p->secondary_count; i++) {
        struct verify v = {.p = p, .s = p->secondaries[i]};

        if (v.s->state != BUILD_READY) {
            continue;
        }
        (void)p->conf.index->each(p->index, verify_item, &v);
        (void)p->conf.ordered->each(v.s->map, verify_entry, &v);
        wrong += v.unbacked + (v.found > v.expected ? v.found - v.expected : v.expected - v.found);
    }
    return wrong;
}
