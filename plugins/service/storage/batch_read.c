/* SPDX-License-Identifier: MIT
 *
 * The operations of a batch, read straight from the body: no JSON tree, no copy of what holds no
 * escape. A body that is not JSON is refused as a whole; an operation that is JSON but makes no
 * sense gets its own result. */
#include <inttypes.h>

#include "batch.h"

#define OPS_FIRST 128u

enum member {
    M_OP,
    M_KEY,
    M_KEY_BASE64,
    M_PARTITION_KEY,
    M_PARTITION_KEY_BASE64,
    M_VALUE,
    M_VALUE_BASE64,
    M_CONTENT_TYPE,
    M_TTL,
    M_INDEXES,
    M_IF_VERSION,
    M_IF_ABSENT,
    M_COUNT,
};

static const char *const MEMBERS[] = {"op",
                                      "key",
                                      "key_base64",
                                      "partition_key",
                                      "partition_key_base64",
                                      "value",
                                      "value_base64",
                                      "content_type",
                                      "ttl",
                                      "indexes",
                                      "if_version",
                                      "if_absent",
                                      NULL};

struct reading {
    struct batch_request *b;
    const struct table *t;
    struct kvs_json_reader r;
    struct operation *op;
    uint64_t now_ms;
    uint32_t seen, capacity; /* bits of enum member; of b->ops */
};

static void complain(struct reading *rd, const char *what)
{
    if (rd->op->wrong == NULL) {
        rd->op->wrong = what == NULL ? "out of memory" : what;
    }
}

/* ---- members -----------------------------------------------------------------------------------
 */

static uint32_t member_of(struct kvs_slice name)
{
    uint32_t i = 0;

    while (i < M_COUNT && !kvs_slice_eq_str(name, MEMBERS[i])) {
        i++;
    }
    return i;
}

static void complain_unknown(struct reading *rd, struct kvs_slice name)
{
    const char *near = kvs_nearest(name, MEMBERS);

    complain(rd, kvs_arena_printf(&rd->b->req->arena, "unknown member '%.*s'%s%s%s",
                                  (int)(name.len < 60 ? name.len : 60), name.ptr,
                                  near == NULL ? "" : ". Did you mean '", near == NULL ? "" : near,
                                  near == NULL ? "" : "'?"));
}

static void take_bytes(struct reading *rd, const struct kvs_json_value *v, int coded,
                       struct kvs_slice *to)
{
    char *bytes;
    size_t len;

    if (v->type != KVS_JSON_STRING) {
        complain(rd, "key, partition_key and value are strings");
    } else if (to->ptr != NULL) {
        complain(rd, "give a member plain or as _base64, not both");
    } else if (!coded) {
        *to = v->text;
    } else {
        bytes = kvs_arena_alloc(&rd->b->req->arena, v->text.len + 1);
        if (bytes == NULL || kvs_base64_decode(v->text, bytes, v->text.len, &len) != 0) {
            complain(rd, "a _base64 member is not base64 (RFC 4648, with padding)");
            return;
        }
        *to = kvs_slice(bytes, len);
    }
}

static uint32_t kind_of(struct kvs_slice name)
{
    static const struct {
        const char *name;
        uint32_t kind;
    } KINDS[] = {
        {"put", WRITE_PUT}, {"delete", WRITE_DELETE}, {"get", WRITE_GET}, {"touch", WRITE_TOUCH}};

    for (size_t i = 0; i < KVS_ARRAY_COUNT(KINDS); i++) {
        if (kvs_slice_eq_str(name, KINDS[i].name)) {
            return KINDS[i].kind;
        }
    }
    return 0;
}

static void take_ttl(struct reading *rd, const struct kvs_json_value *v)
{
    uint64_t ms;

    if (v->type == KVS_JSON_STRING && kvs_slice_eq_str(v->text, "none")) {
        rd->op->op.expires_at_ms = 0;
    } else if (v->type != KVS_JSON_STRING || kvs_duration_parse(v->text, &ms) != 0) {
        complain(rd, "ttl must be a duration such as 30s, or none");
    } else {
        rd->op->op.expires_at_ms = ms == 0 ? 0 : rd->now_ms + ms;
    }
}

static void take_scalar(struct reading *rd, enum member member, const struct kvs_json_value *v)
{
    struct write_op *w = &rd->op->op;
    int is_string = v->type == KVS_JSON_STRING;

    switch (member) {
    case M_OP:
        w->kind = is_string ? kind_of(v->text) : 0;
        break;
    case M_KEY:
    case M_KEY_BASE64:
        take_bytes(rd, v, member == M_KEY_BASE64, &w->key);
        break;
    case M_PARTITION_KEY:
    case M_PARTITION_KEY_BASE64:
        take_bytes(rd, v, member == M_PARTITION_KEY_BASE64, &w->partition_key);
        break;
    case M_VALUE:
    case M_VALUE_BASE64:
        take_bytes(rd, v, member == M_VALUE_BASE64, &w->value);
        break;
    case M_CONTENT_TYPE:
        w->content_type = v->text;
        if (!is_string || v->text.len > KVS_CONTENT_TYPE_SIZE_MAX) {
            complain(rd, "content_type must be a string of at most 128 bytes");
        }
        break;
    case M_TTL:
        take_ttl(rd, v);
        break;
    case M_IF_VERSION:
        w->if_match = 1;
        if (!is_string || version_parse(v->text, &w->if_version) != 0) {
            complain(rd, "if_version must be a version such as \"1-42\"");
        }
        break;
    case M_IF_ABSENT:
        w->if_absent = v->type == KVS_JSON_TRUE;
        if (v->type != KVS_JSON_TRUE && v->type != KVS_JSON_FALSE) {
            complain(rd, "if_absent must be true or false");
        }
        break;
    case M_INDEXES:
    case M_COUNT:
        complain(rd, "indexes must be an object");
        break;
    }
}

/* ---- "indexes": {name: value or [values]} ------------------------------------------------------
 */

static void add_index(struct reading *rd, struct index_value *values, struct kvs_slice name,
                      const struct kvs_json_value *v)
{
    struct write_op *w = &rd->op->op;

    if (v->type != KVS_JSON_STRING && v->type != KVS_JSON_NUMBER) {
        complain(rd, "indexes must be {name: string, number, or an array of them}");
    } else if (w->index_count == KVS_INDEX_KEYS_PER_ITEM_MAX) {
        complain(rd, "more than 64 index keys for one item");
    } else if (values == NULL) {
        complain(rd, NULL);
    } else {
        values[w->index_count++] = (struct index_value){.name = name, .value = v->text};
    }
}

/* The value of one name. -1: not JSON. */
static int take_index(struct reading *rd, struct index_value *values, struct kvs_slice name)
{
    struct kvs_json_value v;
    uint32_t n = 0;
    int more;

    if (kvs_json_read(&rd->r, &v) != 0) {
        return -1;
    }
    if (v.type != KVS_JSON_ARRAY) {
        add_index(rd, values, name, &v);
        return kvs_json_skip(&rd->r, &v);
    }
    while ((more = kvs_json_element(&rd->r, &n)) > 0) {
        if (kvs_json_read(&rd->r, &v) != 0) {
            return -1;
        }
        add_index(rd, values, name, &v);
        if (kvs_json_skip(&rd->r, &v) != 0) {
            return -1;
        }
    }
    return more;
}

static int take_indexes(struct reading *rd)
{
    struct index_value *values =
        kvs_arena_alloc(&rd->b->req->arena, KVS_INDEX_KEYS_PER_ITEM_MAX * sizeof *values);
    struct kvs_slice name;
    uint32_t n = 0;
    int more;

    rd->op->op.indexes = values;
    while ((more = kvs_json_member(&rd->r, &n, &name)) > 0) {
        if (take_index(rd, values, name) != 0) {
            return -1;
        }
    }
    return more;
}

/* ---- one operation -----------------------------------------------------------------------------
 */

static int take_member(struct reading *rd, struct kvs_slice name)
{
    uint32_t member = member_of(name);
    struct kvs_json_value v;

    if (kvs_json_read(&rd->r, &v) != 0) {
        return -1;
    }
    if (member == M_COUNT) {
        complain_unknown(rd, name);
        return kvs_json_skip(&rd->r, &v);
    }
    if ((rd->seen & 1u << member) != 0) {
        complain(rd, kvs_arena_printf(&rd->b->req->arena, "'%s' is given twice", MEMBERS[member]));
    }
    rd->seen |= 1u << member;
    if (member == M_INDEXES && v.type == KVS_JSON_OBJECT) {
        return take_indexes(rd);
    }
    take_scalar(rd, (enum member)member, &v);
    return kvs_json_skip(&rd->r, &v);
}

static int key_ok(struct kvs_slice key)
{
    return key.len >= 1 && key.len <= KVS_KEY_SIZE_MAX;
}

/* What only the whole operation shows. */
static void complete(struct reading *rd)
{
    struct write_op *w = &rd->op->op;
    const struct table *t = rd->t;

    if (w->kind == 0) {
        complain(rd, "op must be put, delete, get or touch");
    } else if (!key_ok(w->key) || (w->partition_key.ptr != NULL && !key_ok(w->partition_key))) {
        complain(rd, "key and partition_key must be 1 to 1024 bytes long");
    } else if (w->kind == WRITE_PUT && w->value.ptr == NULL) {
        complain(rd, "a put needs value or value_base64");
    }
    if (w->kind == WRITE_PUT && (rd->seen & 1u << M_TTL) == 0 && t->ttl_ms != 0) {
        w->expires_at_ms = rd->now_ms + t->ttl_ms;
    }
    rd->op->partition = kvs_hash_bucket(w->partition_key.ptr != NULL ? w->partition_key : w->key,
                                        t->seed, t->partition_count);
}

static int operation_new(struct reading *rd)
{
    struct batch_request *b = rd->b;

    if (b->count == KVS_BATCH_OPERATION_COUNT_MAX) {
        return KVS_ETOOMANY;
    }
    if (b->count == rd->capacity) {
        uint32_t capacity = rd->capacity == 0 ? OPS_FIRST : 2 * rd->capacity;
        struct operation *ops = kvs_arena_alloc(&b->req->arena, capacity * sizeof *ops);

        if (ops == NULL) {
            return KVS_ENOMEM;
        }
        if (b->count > 0) {
            memcpy(ops, b->ops, b->count * sizeof *ops);
        }
        b->ops = ops;
        rd->capacity = capacity;
    }
    rd->op = &b->ops[b->count++];
    memset(rd->op, 0, sizeof *rd->op);
    rd->seen = 0;
    return 0;
}

/* 0, KVS_EINVAL: not JSON, KVS_ETOOMANY, KVS_ENOMEM. */
static int read_operation(struct reading *rd)
{
    struct kvs_json_value v;
    struct kvs_slice name;
    uint32_t n = 0;
    int more, rc = operation_new(rd);

    if (rc != 0) {
        return rc;
    }
    if (kvs_json_read(&rd->r, &v) != 0) {
        return KVS_EINVAL;
    }
    if (v.type != KVS_JSON_OBJECT) {
        complain(rd, "an operation is a JSON object");
        return kvs_json_skip(&rd->r, &v) == 0 ? 0 : KVS_EINVAL;
    }
    while ((more = kvs_json_member(&rd->r, &n, &name)) > 0) {
        if (take_member(rd, name) != 0) {
            return KVS_EINVAL;
        }
    }
    complete(rd);
    return more == 0 ? 0 : KVS_EINVAL;
}

/* ---- the body ----------------------------------------------------------------------------------
 */

/* One operation a line; empty lines are none. */
static int read_lines(struct reading *rd)
{
    const char *end = rd->r.end;
    int rc = 0;

    while (rd->r.at < end && rc == 0) {
        const char *eol = memchr(rd->r.at, '\n', (size_t)(end - rd->r.at));

        rd->r.end = eol == NULL ? end : eol;
        if (kvs_json_end(&rd->r) != 0) {
            rd->r.wrong = NULL; /* something is there */
            rc = read_operation(rd);
            rc = rc == 0 && kvs_json_end(&rd->r) != 0 ? KVS_EINVAL : rc;
        }
        rd->r.at += rc == 0 && rd->r.end < end;
    }
    return rc;
}

static int read_array(struct reading *rd)
{
    struct kvs_json_value v;
    uint32_t n = 0;
    int more, rc;

    if (kvs_json_read(&rd->r, &v) != 0) {
        return KVS_EINVAL;
    }
    if (v.type != KVS_JSON_ARRAY) {
        rd->r.wrong = "the body must be a JSON array of operations, or NDJSON with Content-Type "
                      "application/x-ndjson";
        return KVS_EINVAL;
    }
    while ((more = kvs_json_element(&rd->r, &n)) > 0) {
        rc = read_operation(rd);
        if (rc != 0) {
            return rc;
        }
    }
    return more == 0 && kvs_json_end(&rd->r) == 0 ? 0 : KVS_EINVAL;
}

int batch_read(struct batch_request *b, const struct table *t, const char **ret_detail)
{
    struct reading rd = {.b = b, .t = t, .now_ms = kvs_now_ms(b->svc->host)};
    uint64_t line, column;
    int rc;

    kvs_json_begin(&rd.r, b->req->body, &b->req->arena);
    rc = b->ndjson ? read_lines(&rd) : read_array(&rd);
    if (rc == KVS_EINVAL) {
        kvs_json_place(&rd.r, &line, &column);
        *ret_detail = kvs_arena_printf(
            &b->req->arena, "the body is wrong at line %" PRIu64 ", column %" PRIu64 ": %s", line,
            column, rd.r.wrong);
    }
    return rc;
}
