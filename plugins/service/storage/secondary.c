/* SPDX-License-Identifier: MIT
 *
 * Secondary indexes: values given with an item or found in its JSON value.
 *
 * An entry of the map is (value, primary key) as one composite key, so that a walk goes by value
 * and then by key. It is counted: an item and the version that replaces it share it if they share
 * the value, and it is there as long as any version that can still be read has it. A reader of an
 * item with several versions checks that the one it sees has the value.
 *
 *   string   bytes with 0x00 written as 0x00 0xff, then 0x00 0x01, then the primary key
 *   number   eight bytes of the IEEE 754 double, sign handled so that memcmp orders, then the key
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "partition_private.h"

#define POINTER_DEPTH_MAX 32u

/* ---- encoding of values ------------------------------------------------------------------------
 */

static void encode_double(double d, char out[8])
{
    uint64_t bits;

    d = d == 0 ? 0 : d; /* -0 and 0 are one number */
    memcpy(&bits, &d, sizeof bits);
    bits = (bits >> 63) != 0 ? ~bits : bits | 1ULL << 63;
    for (int i = 0; i < 8; i++) {
        out[i] = (char)(bits >> (56 - 8 * i));
    }
}

static double decode_double(const char in[8])
{
    uint64_t bits = 0;
    double d;

    for (int i = 0; i < 8; i++) {
        bits = bits << 8 | (uint8_t)in[i];
    }
    bits = (bits >> 63) != 0 ? bits & ~(1ULL << 63) : ~bits;
    memcpy(&d, &bits, sizeof d);
    return d;
}

int secondary_encode(uint32_t type, struct kvs_slice text, char *buf, size_t *ret_len)
{
    char number[64], *end;
    double d;

    if (type == SECONDARY_STRING) {
        if (text.len > KVS_INDEX_KEY_SIZE_MAX) {
            return KVS_EINVAL;
        }
        if (text.len > 0) {
            memcpy(buf, text.ptr, text.len);
        }
        *ret_len = text.len;
        return 0;
    }
    if (text.len == 0 || text.len >= sizeof number) {
        return KVS_EINVAL;
    }
    memcpy(number, text.ptr, text.len);
    number[text.len] = '\0';
    if (strspn(number, "0123456789+-.eE") < text.len) {
        return KVS_EINVAL; /* strtod() would also take hexadecimal and nan */
    }
    d = strtod(number, &end);
    if (*end != '\0' || !isfinite(d)) {
        return KVS_EINVAL;
    }
    encode_double(d, buf);
    *ret_len = 8;
    return 0;
}

struct kvs_slice secondary_decode(uint32_t type, struct kvs_slice encoded, char *buf)
{
    double d;

    if (type == SECONDARY_STRING) {
        return encoded;
    }
    d = encoded.len == 8 ? decode_double(encoded.ptr) : 0;
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(buf, 40, "%.*g", digits, d);
        if (strtod(buf, NULL) == d) { /* NOLINT: exactly equal is what is asked for */
            break;
        }
    }
    return kvs_slice_str(buf);
}

void partition_position(struct kvs_buf *b, uint32_t type, struct kvs_slice encoded)
{
    if (type == SECONDARY_NUMBER) {
        kvs_buf_append(b, encoded.ptr, encoded.len);
        return;
    }
    for (size_t i = 0; i < encoded.len; i++) {
        kvs_buf_append(b, &encoded.ptr[i], 1);
        if (encoded.ptr[i] == '\0') {
            kvs_buf_append(b, "\xff", 1);
        }
    }
    kvs_buf_append(b, "\0\1", 2);
}

static struct kvs_slice composite(struct partition *p, uint32_t type, struct kvs_slice encoded,
                                  struct kvs_slice key, size_t *ret_prefix_len)
{
    kvs_buf_clear(&p->scratch);
    partition_position(&p->scratch, type, encoded);
    *ret_prefix_len = p->scratch.len;
    kvs_buf_append(&p->scratch, key.ptr, key.len);
    return p->scratch.failed ? kvs_slice(NULL, 0) : kvs_buf_slice(&p->scratch);
}

/* ---- keys of an item ---------------------------------------------------------------------------
 */

/* RFC 6901: the node a pointer names, or NULL. */
static json_t *json_at(json_t *root, const char *pointer)
{
    json_t *at = root;

    for (uint32_t depth = 0; *pointer == '/' && at != NULL; depth++) {
        char name[256];
        size_t n = 0;

        for (pointer++; *pointer != '\0' && *pointer != '/'; pointer++) {
            char c = *pointer;

            if (c == '~' && (pointer[1] == '0' || pointer[1] == '1')) {
                c = *++pointer == '0' ? '~' : '/';
            }
            if (n < sizeof name - 1) {
                name[n++] = c;
            }
        }
        name[n] = '\0';
        if (depth == POINTER_DEPTH_MAX) {
            return NULL;
        }
        if (json_is_array(at)) {
            char *end;
            unsigned long i = strtoul(name, &end, 10);

            at = n == 0 || *end != '\0' ? NULL : json_array_get(at, i);
        } else {
            at = json_object_get(at, name);
        }
    }
    return at;
}

struct visit {
    struct secondary *s;
    uint32_t count;
    int (*fn)(void *arg, struct secondary *s, struct kvs_slice encoded);
    void *arg;
};

/* One scalar of the value; what does not fit the index's type is not indexed. */
static int visit_scalar(struct visit *v, json_t *value)
{
    char number[8];

    if (v->s->def.type == SECONDARY_STRING && json_is_string(value)) {
        if (json_string_length(value) > KVS_INDEX_KEY_SIZE_MAX) {
            return KVS_ETOOBIG;
        }
        v->count++;
        return v->fn(v->arg, v->s, kvs_slice(json_string_value(value), json_string_length(value)));
    }
    if (v->s->def.type == SECONDARY_NUMBER && json_is_number(value)) {
        encode_double(json_number_value(value), number);
        v->count++;
        return v->fn(v->arg, v->s, kvs_slice(number, sizeof number));
    }
    return 0;
}

static int visit_path(struct visit *v, json_t *root)
{
    json_t *at = json_at(root, v->s->def.path);
    int rc = 0;

    if (!json_is_array(at)) {
        return at == NULL ? 0 : visit_scalar(v, at);
    }
    for (size_t i = 0; i < json_array_size(at) && rc == 0; i++) {
        rc = v->count == KVS_INDEX_KEYS_PER_ITEM_MAX ? KVS_ETOOMANY
                                                     : visit_scalar(v, json_array_get(at, i));
    }
    return rc;
}

static int each_path(struct partition *p, struct kvs_slice value,
                     int (*fn)(void *arg, struct secondary *s, struct kvs_slice encoded), void *arg)
{
    size_t skip = 0;
    json_t *root;
    int rc = 0;

    while (skip < value.len && strchr(" \t\r\n", value.ptr[skip]) != NULL) {
        skip++;
    }
    if (skip == value.len || (value.ptr[skip] != '{' && value.ptr[skip] != '[')) {
        return 0; /* not a JSON document */
    }
    root = json_loadb(value.ptr, value.len, 0, NULL);
    for (uint32_t i = 0; root != NULL && i < p->secondary_count && rc == 0; i++) {
        struct visit v = {p->secondaries[i], 0, fn, arg};

        if (v.s->def.path[0] != '\0') {
            rc = visit_path(&v, root);
        }
    }
    json_decref(root);
    return rc;
}

int secondaries_each(struct partition *p, const struct item *it,
                     int (*fn)(void *arg, struct secondary *s, struct kvs_slice encoded), void *arg)
{
    struct item_parts parts;
    struct kvs_slice encoded;
    uint32_t id;
    int rc = 0;

    if (p->secondary_count == 0 || (it->flags & ITEM_TOMBSTONE) != 0) {
        return 0;
    }
    item_parts(it, &parts);
    while (parts.indexes.len > 0 && rc == 0 && index_key_take(&parts.indexes, &id, &encoded) == 0) {
        struct secondary *s = secondary_find(p, id);

        rc = s == NULL ? 0 : fn(arg, s, encoded); /* NULL: the index was dropped */
    }
    if (rc == 0 && p->path_count > 0) {
        rc = each_path(p, parts.value, fn, arg);
    }
    return rc;
}

/* ---- entries -----------------------------------------------------------------------------------
 */

static size_t entry_size(const struct entry *e)
{
    return sizeof *e + e->len;
}

struct change {
    struct partition *p;
    const struct item *it;
    const struct secondary *only; /* NULL: every index */
    uint32_t done, limit;
};

/* While an index is being built, a version may not be in it yet. */
static int is_in(const struct secondary *s, const struct item *it)
{
    return s->state == BUILD_READY || it->offset >= s->build_start ||
           (s->build_key.len > 0 && kvs_slice_cmp(item_key(it), kvs_buf_slice(&s->build_key)) <= 0);
}

static int add_one(void *arg, struct secondary *s, struct kvs_slice encoded)
{
    struct change *c = arg;
    const struct kvs_index_ops *ops = c->p->conf.ordered;
    struct kvs_slice key;
    struct entry *e;
    size_t prefix_len;
    void *old;

    if (c->only != NULL && c->only != s) {
        return 0;
    }
    key = composite(c->p, s->def.type, encoded, item_key(c->it), &prefix_len);
    if (key.ptr == NULL) {
        return KVS_ENOMEM;
    }
    e = ops->get(s->map, key);
    if (e != NULL) {
        e->refs++;
        c->done++;
        return 0;
    }
    e = kvs_alloc(c->p->host, &storage_index, sizeof *e + key.len);
    if (e == NULL) {
        return KVS_ENOMEM;
    }
    e->refs = 1;
    e->len = (uint16_t)key.len;
    e->prefix_len = (uint16_t)prefix_len;
    memcpy(e->key, key.ptr, key.len);
    if (ops->put(s->map, e, &old) != 0) {
        kvs_free(c->p->host, &storage_index, e, entry_size(e));
        return KVS_ENOMEM;
    }
    c->done++;
    return 0;
}

static int remove_one(void *arg, struct secondary *s, struct kvs_slice encoded)
{
    struct change *c = arg;
    struct kvs_slice key;
    size_t prefix_len;
    struct entry *e;

    if ((c->only != NULL && c->only != s) || (c->only == NULL && !is_in(s, c->it))) {
        return 0;
    }
    if (c->done++ == c->limit) {
        return 1; /* undoing: no further than adding had come */
    }
    key = composite(c->p, s->def.type, encoded, item_key(c->it), &prefix_len);
    e = key.ptr == NULL ? NULL : c->p->conf.ordered->get(s->map, key);
    if (e == NULL) {
        return 0; /* memory ran out making the key: the entry stays and readers filter it */
    }
    if (--e->refs == 0) {
        (void)c->p->conf.ordered->del(s->map, key);
        kvs_free(c->p->host, &storage_index, e, entry_size(e));
    }
    return 0;
}

int secondaries_add(struct partition *p, const struct item *it, const char **ret_detail)
{
    struct change c = {.p = p, .it = it};
    int rc = secondaries_each(p, it, add_one, &c);

    if (rc != 0) {
        struct change undo = {.p = p, .it = it, .limit = c.done};

        (void)secondaries_each(p, it, remove_one, &undo);
        *ret_detail = rc == KVS_ETOOBIG    ? "a string at an indexed path is longer than 512 bytes"
                      : rc == KVS_ETOOMANY ? "an indexed path has more than 64 values"
                                           : "out of memory";
        return rc == KVS_ENOMEM ? rc : KVS_EINVAL;
    }
    return 0;
}

void secondaries_remove(struct partition *p, const struct item *it)
{
    struct change c = {.p = p, .it = it, .limit = UINT32_MAX};

    (void)secondaries_each(p, it, remove_one, &c);
}

struct has {
    struct partition *p;
    const struct secondary *s;
    struct kvs_slice prefix;
};

static int has_one(void *arg, struct secondary *s, struct kvs_slice encoded)
{
    struct has *h = arg;

    if (s != h->s) {
        return 0;
    }
    kvs_buf_clear(&h->p->scratch);
    partition_position(&h->p->scratch, s->def.type, encoded);
    return kvs_slice_eq(kvs_buf_slice(&h->p->scratch), h->prefix);
}

int secondary_has(struct partition *p, const struct item *it, struct secondary *s,
                  struct kvs_slice prefix)
{
    struct has h = {p, s, prefix};

    return secondaries_each(p, it, has_one, &h) == 1;
}

/* ---- explicit keys -----------------------------------------------------------------------------
 */

static const struct secondary *find_by_name(const struct partition *p, struct kvs_slice name)
{
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        if (kvs_slice_eq_str(name, p->secondaries[i]->def.name)) {
            return p->secondaries[i];
        }
    }
    return NULL;
}

int explicit_encode(struct partition *p, const struct index_value *values, uint32_t count,
                    struct kvs_buf *b, const char **ret_detail)
{
    char encoded[KVS_INDEX_KEY_SIZE_MAX];
    size_t len;

    if (count > KVS_INDEX_KEYS_PER_ITEM_MAX) {
        *ret_detail = "more than 64 index keys for one item";
        return KVS_EINVAL;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct secondary *s = find_by_name(p, values[i].name);
        char *room;

        if (s == NULL) {
            *ret_detail = "the table has no index of that name";
            return KVS_EINVAL;
        }
        if (s->def.path[0] != '\0') {
            *ret_detail = "this index is filled from the value by its path, not by explicit keys";
            return KVS_EINVAL;
        }
        if (secondary_encode(s->def.type, values[i].value, encoded, &len) != 0) {
            *ret_detail = s->def.type == SECONDARY_NUMBER
                              ? "a key of a number index is not a number"
                              : "an index key is longer than 512 bytes";
            return KVS_EINVAL;
        }
        room = kvs_buf_reserve(b, len + 20);
        if (room != NULL) {
            size_t n = kvs_varint_put(room, s->def.id);

            n += kvs_varint_put(room + n, len);
            memcpy(room + n, encoded, len);
            b->len += n + len;
        }
    }
    *ret_detail = b->failed ? "out of memory" : *ret_detail;
    return b->failed ? KVS_ENOMEM : 0;
}

/* ---- definitions and building ------------------------------------------------------------------
 */

static struct kvs_slice entry_key(void *arg, const void *entry)
{
    const struct entry *e = entry;

    (void)arg;
    return kvs_slice(e->key, e->len);
}

static int entry_free(void *arg, void *entry)
{
    struct partition *p = arg;

    kvs_free(p->host, &storage_index, entry, entry_size(entry));
    return 0;
}

static void secondary_free(struct partition *p, struct secondary *s)
{
    (void)p->conf.ordered->each(s->map, entry_free, p);
    p->conf.ordered->map_free(s->map);
    kvs_buf_fini(&s->build_key);
    kvs_free(p->host, &storage_other, s, sizeof *s);
}

void secondaries_free(struct partition *p)
{
    while (p->secondary_count > 0) {
        secondary_free(p, p->secondaries[--p->secondary_count]);
    }
}

struct secondary *secondary_find(const struct partition *p, uint32_t id)
{
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        if (p->secondaries[i]->def.id == id) {
            return p->secondaries[i];
        }
    }
    return NULL;
}

static int secondary_new(struct partition *p, const struct secondary_def *def,
                         struct kvs_error *err)
{
    struct kvs_index_conf conf = {.key_of = entry_key, .tag = &storage_index};
    struct secondary *s = kvs_calloc(p->host, &storage_other, sizeof *s);

    if (s == NULL || p->conf.ordered->map_new(p->conf.ordered_self, &conf, &s->map) != 0) {
        kvs_free(p->host, &storage_other, s, sizeof *s);
        return kvs_err(err, KVS_ENOMEM, "index '%s': out of memory", def->name);
    }
    s->def = *def;
    kvs_buf_init(&s->build_key, p->host, &storage_other);
    s->build_start = p->leo;
    s->state = p->conf.index->count(p->index) == 0 ? BUILD_READY : BUILD_RUNNING;
    p->secondaries[p->secondary_count++] = s;
    return 0;
}

int partition_secondaries_set(struct partition *p, const struct secondary_def *defs, uint32_t count,
                              struct kvs_error *err)
{
    uint32_t kept = 0;
    int rc = 0;

    if (count > KVS_INDEX_COUNT_MAX || (count > 0 && p->conf.ordered == NULL)) {
        return kvs_err(err, KVS_EINVAL, "too many indexes, or no ordered index plugin is loaded");
    }
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        struct secondary *s = p->secondaries[i];
        int wanted = 0;

        for (uint32_t k = 0; k < count; k++) {
            wanted |= defs[k].id == s->def.id;
        }
        if (wanted) {
            p->secondaries[kept++] = s;
        } else {
            secondary_free(p, s);
        }
    }
    p->secondary_count = kept;
    for (uint32_t k = 0; k < count && rc == 0; k++) {
        if (secondary_find(p, defs[k].id) == NULL) {
            rc = secondary_new(p, &defs[k], err);
        }
    }
    p->path_count = 0;
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        p->path_count += p->secondaries[i]->def.path[0] != '\0';
    }
    return rc;
}

/* Take back what a build added for the versions before `stop`, and `done` keys of that one. */
static void build_undo(struct partition *p, struct secondary *s, struct item *newest,
                       const struct item *stop, uint32_t done)
{
    for (struct item *v = newest;; v = pending_at(p, v->offset)->previous) {
        struct change c = {.p = p, .it = v, .only = s, .limit = v == stop ? done : UINT32_MAX};

        if (v->offset < s->build_start) {
            (void)secondaries_each(p, v, remove_one, &c);
        }
        if (v == stop) {
            return;
        }
    }
}

/* Every version of one key that was written before the build began. KVS_ENOMEM: nothing was added.
 */
static int build_item(struct partition *p, struct secondary *s, struct item *newest)
{
    struct item *v = newest;

    while (v != NULL) {
        struct change c = {.p = p, .it = v, .only = s};
        int rc = v->offset < s->build_start ? secondaries_each(p, v, add_one, &c) : 0;

        if (rc == KVS_ENOMEM) {
            build_undo(p, s, newest, v, c.done);
            return rc;
        }
        /* Old data that does not fit the index (too long, too many) is in it as far as it fits. */
        v = v->offset >= p->hw ? pending_at(p, v->offset)->previous : NULL;
    }
    return 0;
}

static int build_some(struct partition *p, struct secondary *s, uint32_t max)
{
    const struct kvs_index_ops *ops = p->conf.index;
    struct kvs_index_cursor c;

    ops->seek(p->index, kvs_buf_slice(&s->build_key), KVS_INDEX_GT, &c);
    for (uint32_t n = 0; n < max && c.entry != NULL; n++) {
        struct kvs_slice key = item_key(c.entry);

        if (build_item(p, s, c.entry) != 0) {
            return 1; /* out of memory: the next step tries this item again */
        }
        kvs_buf_clear(&s->build_key);
        kvs_buf_append(&s->build_key, key.ptr, key.len);
        ops->next(&c);
    }
    if (c.entry == NULL) {
        s->state = BUILD_READY;
        kvs_buf_fini(&s->build_key);
    }
    return c.entry != NULL;
}

struct build_all {
    struct partition *p;
    struct secondary *s;
    int rc;
};

static int build_visit(void *arg, void *entry)
{
    struct build_all *b = arg;

    b->rc = build_item(b->p, b->s, entry);
    return b->rc;
}

int partition_build_step(struct partition *p, uint32_t max)
{
    for (uint32_t i = 0; i < p->secondary_count; i++) {
        struct secondary *s = p->secondaries[i];

        if (s->state != BUILD_RUNNING) {
            continue;
        }
        if (p->conf.index->seek == NULL) { /* an unordered table is walked in one go */
            struct build_all b = {p, s, 0};

            (void)p->conf.index->each(p->index, build_visit, &b);
            s->state = b.rc == 0 ? BUILD_READY : BUILD_RUNNING;
            return 1;
        }
        (void)build_some(p, s, max);
        return 1;
    }
    return 0;
}

uint32_t partition_secondary_state(struct partition *p, uint32_t secondary_id)
{
    const struct secondary *s = secondary_find(p, secondary_id);

    return s == NULL ? BUILD_NONE : (uint32_t)s->state;
}
