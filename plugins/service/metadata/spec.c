/* SPDX-License-Identifier: MIT
 *
 * Reading and checking what a client says about a table; see state.h. The same code checks a
 * request before it is proposed (for a good message) and the command when it is applied (for
 * safety). */
#include <inttypes.h>

#include "kvs/support.h"
#include "state.h"

static const char *const MEMBERS[] = {
    "name",
    "partitions",
    "replication_factor",
    "min_in_sync_replicas",
    "acks",
    "ttl",
    "index",
    "indexes",
    "add_indexes",
    "drop_indexes",
    "compression",
    "max_value_bytes",
    "max_items",
    "max_bytes",
    NULL,
};

static const char *const INDEX_MEMBERS[] = {"name", "type", "path", "id", NULL};
static const char *const ACKS[] = {"none", "leader", "all", NULL};
static const char *const INDEX_TYPES[] = {"string", "number", NULL};

static int copy_text(char *dst, size_t size, const char *text)
{
    size_t len = strlen(text);

    if (len >= size) {
        return KVS_EINVAL;
    }
    memcpy(dst, text, len + 1);
    return 0;
}

int spec_name_valid(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > KVS_TABLE_NAME_SIZE_MAX || name[0] < 'a' || name[0] > 'z') {
        return 0;
    }
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

void spec_defaults(struct meta_spec *spec, uint32_t active_nodes)
{
    memset(spec, 0, sizeof *spec);
    spec->partitions = 8;
    spec->replication_factor = active_nodes < 3 ? (active_nodes == 0 ? 1 : active_nodes) : 3;
    spec->min_isr = spec->replication_factor > 1 ? 2 : 1;
    spec->acks = 2;
    memcpy(spec->index, "btree", sizeof "btree");
    memcpy(spec->compression, "lz4", sizeof "lz4");
    spec->max_value_bytes = KVS_VALUE_SIZE_DEFAULT;
}

static int parse_count(const json_t *v, const char *name, uint64_t min, uint64_t max,
                       uint64_t *ret_v, struct kvs_error *err)
{
    uint64_t n = 0;
    int ok = json_is_integer(v) && json_integer_value(v) >= 0;

    if (ok) {
        n = (uint64_t)json_integer_value(v);
    } else if (json_is_string(v)) {
        ok = kvs_bytes_parse(kvs_slice(json_string_value(v), json_string_length(v)), &n) == 0;
    }
    if (!ok || n < min || n > max) {
        return kvs_err(err, KVS_EINVAL, "'%s' must be a whole number, %" PRIu64 " to %" PRIu64,
                       name, min, max);
    }
    *ret_v = n;
    return 0;
}

static int parse_word(const json_t *v, const char *name, const char *const *words, uint32_t *ret_i,
                      struct kvs_error *err)
{
    const char *text = json_string_value(v);
    const char *near;

    for (uint32_t i = 0; text != NULL && words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *ret_i = i;
            return 0;
        }
    }
    near = text == NULL ? NULL : kvs_nearest(kvs_slice_str(text), words);
    return kvs_err(err, KVS_EINVAL, "'%s' is not known here. Did you mean '%s'?", name,
                   near == NULL ? words[0] : near);
}

static int parse_plugin_name(const json_t *v, const char *member, char dst[32],
                             struct kvs_error *err)
{
    const char *text = json_string_value(v);

    if (text == NULL || text[0] == '\0' ||
        strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(text) ||
        copy_text(dst, 32, text) != 0) {
        return kvs_err(err, KVS_EINVAL, "'%s' must be the name of a plugin", member);
    }
    return 0;
}

static int parse_ttl(const json_t *v, uint64_t *ret_ms, struct kvs_error *err)
{
    const char *text = json_string_value(v);

    if (json_is_null(v) || (text != NULL && strcmp(text, "none") == 0)) {
        *ret_ms = 0;
        return 0;
    }
    if (text == NULL || kvs_duration_parse(kvs_slice(text, json_string_length(v)), ret_ms) != 0 ||
        *ret_ms == 0) {
        return kvs_err(err, KVS_EINVAL, "'ttl' must be a duration such as '30s', or 'none'");
    }
    return 0;
}

static int member_known(const json_t *object, const char *const *words, const char **ret_member,
                        struct kvs_error *err)
{
    void *it;

    for (it = json_object_iter((json_t *)(uintptr_t)object); it != NULL;
         it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const char *key = json_object_iter_key(it);
        const char *near;
        uint32_t i = 0;

        while (words[i] != NULL && strcmp(words[i], key) != 0) {
            i++;
        }
        if (words[i] == NULL) {
            near = kvs_nearest(kvs_slice_str(key), words);
            *ret_member = key;
            return near == NULL
                       ? kvs_err(err, KVS_EINVAL, "member '%s' is not known", key)
                       : kvs_err(err, KVS_EINVAL, "member '%s' is not known. Did you mean '%s'?",
                                 key, near);
        }
    }
    return 0;
}

static int parse_index(const json_t *v, struct meta_index *ix, struct kvs_error *err)
{
    const json_t *path = json_object_get(v, "path");
    const json_t *type = json_object_get(v, "type");
    const char *name = json_string_value(json_object_get(v, "name"));
    const char *member;
    int rc;

    if (!json_is_object(v)) {
        return kvs_err(err, KVS_EINVAL, "an index is an object with name, type and path");
    }
    rc = member_known(v, INDEX_MEMBERS, &member, err);
    if (rc != 0) {
        return rc;
    }
    memset(ix, 0, sizeof *ix);
    if (name == NULL || !spec_name_valid(name)) {
        return kvs_err(err, KVS_EINVAL,
                       "an index needs a 'name' of the form [a-z][a-z0-9_-]{0,63}");
    }
    (void)copy_text(ix->name, sizeof ix->name, name);
    if (type != NULL) {
        rc = parse_word(type, "type", INDEX_TYPES, &ix->type, err);
        if (rc != 0) {
            return rc;
        }
    }
    if (path != NULL && !json_is_null(path)) {
        const char *text = json_string_value(path);

        if (text == NULL || (text[0] != '/' && text[0] != '\0') ||
            copy_text(ix->path, sizeof ix->path, text) != 0) {
            return kvs_err(err, KVS_EINVAL,
                           "'path' of index '%s' must be a JSON Pointer such as '/a/b'", name);
        }
    }
    return 0;
}

static struct meta_index *spec_index(struct meta_spec *spec, const char *name)
{
    for (uint32_t i = 0; i < spec->index_count; i++) {
        if (strcmp(spec->indexes[i].name, name) == 0) {
            return &spec->indexes[i];
        }
    }
    return NULL;
}

static int add_index(struct meta_spec *spec, const json_t *v, uint32_t *next_id,
                     struct kvs_error *err)
{
    struct meta_index ix;
    int rc = parse_index(v, &ix, err);

    if (rc != 0) {
        return rc;
    }
    if (spec_index(spec, ix.name) != NULL) {
        return kvs_err(err, KVS_ECONFLICT, "index '%s' exists already", ix.name);
    }
    if (spec->index_count == KVS_INDEX_COUNT_MAX) {
        return kvs_err(err, KVS_EINVAL, "a table has at most %u indexes", KVS_INDEX_COUNT_MAX);
    }
    ix.id = (*next_id)++;
    spec->indexes[spec->index_count++] = ix;
    return 0;
}

/* The list as a whole: indexes that stay the same keep their id, changed ones are new. */
static int set_indexes(struct meta_spec *spec, const json_t *list, uint32_t *next_id,
                       struct kvs_error *err)
{
    struct meta_spec old = *spec;
    size_t i;
    json_t *v;

    if (!json_is_array(list)) {
        return kvs_err(err, KVS_EINVAL, "'indexes' must be an array");
    }
    spec->index_count = 0;
    json_array_foreach(list, i, v)
    {
        struct meta_index *before, *now;
        int rc = add_index(spec, v, next_id, err);

        if (rc != 0) {
            return rc;
        }
        now = &spec->indexes[spec->index_count - 1];
        before = spec_index(&old, now->name);
        if (before != NULL && before->type == now->type && strcmp(before->path, now->path) == 0) {
            now->id = before->id;
        }
    }
    return 0;
}

static int drop_indexes(struct meta_spec *spec, const json_t *list, struct kvs_error *err)
{
    size_t i;
    json_t *v;

    if (!json_is_array(list)) {
        return kvs_err(err, KVS_EINVAL, "'drop_indexes' must be an array of names");
    }
    json_array_foreach(list, i, v)
    {
        const char *name = json_string_value(v);
        struct meta_index *ix = name == NULL ? NULL : spec_index(spec, name);

        if (ix == NULL) {
            return kvs_err(err, KVS_ENOTFOUND, "there is no index '%.64s'",
                           name == NULL ? "" : name);
        }
        memmove(ix, ix + 1, (size_t)(&spec->indexes[spec->index_count] - (ix + 1)) * sizeof *ix);
        spec->index_count--;
    }
    return 0;
}

static int parse_indexes(const json_t *body, const char *key, struct meta_spec *spec,
                         uint32_t *next_id, struct kvs_error *err)
{
    const json_t *list = json_object_get(body, key);
    size_t i;
    json_t *v;

    if (strcmp(key, "indexes") == 0) {
        return set_indexes(spec, list, next_id, err);
    }
    if (strcmp(key, "drop_indexes") == 0) {
        return drop_indexes(spec, list, err);
    }
    if (!json_is_array(list)) {
        return kvs_err(err, KVS_EINVAL, "'add_indexes' must be an array");
    }
    json_array_foreach(list, i, v)
    {
        int rc = add_index(spec, v, next_id, err);

        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int parse_number_member(const char *key, const json_t *v, struct meta_spec *spec,
                               struct kvs_error *err)
{
    uint64_t n;
    int rc;

    if (strcmp(key, "partitions") == 0) {
        rc = parse_count(v, key, 1, KVS_PARTITION_COUNT_MAX, &n, err);
        spec->partitions = rc == 0 ? (uint32_t)n : spec->partitions;
    } else if (strcmp(key, "replication_factor") == 0) {
        rc = parse_count(v, key, 1, META_REPLICA_MAX, &n, err);
        spec->replication_factor = rc == 0 ? (uint32_t)n : spec->replication_factor;
    } else if (strcmp(key, "min_in_sync_replicas") == 0) {
        rc = parse_count(v, key, 1, META_REPLICA_MAX, &n, err);
        spec->min_isr = rc == 0 ? (uint32_t)n : spec->min_isr;
    } else if (strcmp(key, "max_value_bytes") == 0) {
        rc = parse_count(v, key, 1, KVS_VALUE_SIZE_MAX, &spec->max_value_bytes, err);
    } else if (strcmp(key, "max_items") == 0) {
        rc = parse_count(v, key, 0, INT64_MAX, &spec->max_items, err);
    } else {
        rc = parse_count(v, key, 0, INT64_MAX, &spec->max_bytes, err);
    }
    return rc;
}

static int parse_member(const char *key, const json_t *v, const json_t *body,
                        struct meta_spec *spec, uint32_t *next_id, struct kvs_error *err)
{
    if (strcmp(key, "acks") == 0) {
        return parse_word(v, key, ACKS, &spec->acks, err);
    }
    if (strcmp(key, "ttl") == 0) {
        return parse_ttl(v, &spec->ttl_ms, err);
    }
    if (strcmp(key, "index") == 0) {
        return parse_plugin_name(v, key, spec->index, err);
    }
    if (strcmp(key, "compression") == 0) {
        return parse_plugin_name(v, key, spec->compression, err);
    }
    if (strstr(key, "indexes") != NULL) {
        return parse_indexes(body, key, spec, next_id, err);
    }
    return parse_number_member(key, v, spec, err);
}

static int alterable(const char *key)
{
    static const char *const FIXED[] = {"name",  "partitions",  "replication_factor",
                                        "index", "compression", NULL};

    for (size_t i = 0; FIXED[i] != NULL; i++) {
        if (strcmp(FIXED[i], key) == 0) {
            return 0;
        }
    }
    return 1;
}

int spec_parse(const json_t *body, uint32_t mode, struct meta_spec *spec, char *name,
               uint32_t *next_index_id, const char **ret_member, struct kvs_error *err)
{
    const char *given;
    int rc;

    *ret_member = "";
    if (!json_is_object(body)) {
        return kvs_err(err, KVS_EINVAL, "the body must be a JSON object");
    }
    rc = member_known(body, MEMBERS, ret_member, err);
    if (rc != 0) {
        return rc;
    }
    if (mode == SPEC_CREATE) {
        given = json_string_value(json_object_get(body, "name"));
        if (given == NULL || !spec_name_valid(given)) {
            *ret_member = "name";
            return kvs_err(err, KVS_EINVAL,
                           "a table needs a 'name' of the form [a-z][a-z0-9_-]{0,63}");
        }
        (void)copy_text(name, KVS_TABLE_NAME_SIZE_MAX + 1, given);
    }
    /* In the order of MEMBERS, not of the client: the same body gives the same state everywhere. */
    for (size_t i = 0; MEMBERS[i] != NULL; i++) {
        const json_t *v = json_object_get(body, MEMBERS[i]);

        if (v == NULL || (mode == SPEC_CREATE && i == 0)) {
            continue;
        }
        *ret_member = MEMBERS[i];
        if (mode == SPEC_ALTER && !alterable(MEMBERS[i])) {
            return kvs_err(err, KVS_EINVAL, "'%s' of a table cannot be changed", MEMBERS[i]);
        }
        rc = parse_member(MEMBERS[i], v, body, spec, next_index_id, err);
        if (rc != 0) {
            return rc;
        }
    }
    *ret_member = "";
    return spec_check(spec, err);
}

int spec_check(const struct meta_spec *spec, struct kvs_error *err)
{
    if (spec->min_isr > spec->replication_factor) {
        return kvs_err(err, KVS_EINVAL,
                       "'min_in_sync_replicas' (%u) must not be above 'replication_factor' (%u)",
                       spec->min_isr, spec->replication_factor);
    }
    return 0;
}

static json_t *indexes_json(const struct meta_spec *spec)
{
    json_t *list = json_array();

    for (uint32_t i = 0; list != NULL && i < spec->index_count; i++) {
        const struct meta_index *ix = &spec->indexes[i];
        json_t *o = json_pack("{s:s, s:s, s:i}", "name", ix->name, "type", INDEX_TYPES[ix->type],
                              "id", (int)ix->id);

        if (ix->path[0] != '\0') {
            (void)json_object_set_new(o, "path", json_string(ix->path));
        }
        if (json_array_append_new(list, o) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

json_t *spec_json(const struct meta_spec *spec)
{
    char ttl[32];

    return json_pack("{s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "partitions",
                     (json_int_t)spec->partitions, "replication_factor",
                     (json_int_t)spec->replication_factor, "min_in_sync_replicas",
                     (json_int_t)spec->min_isr, "acks", ACKS[spec->acks], "ttl",
                     spec->ttl_ms == 0 ? "none" : kvs_duration_text(spec->ttl_ms, ttl), "index",
                     spec->index, "compression", spec->compression, "max_value_bytes",
                     (json_int_t)spec->max_value_bytes, "max_items", (json_int_t)spec->max_items,
                     "max_bytes", (json_int_t)spec->max_bytes, "indexes", indexes_json(spec));
}
