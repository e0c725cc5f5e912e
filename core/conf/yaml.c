/* SPDX-License-Identifier: MIT
 *
 * YAML text to our tree, by libfyaml; see conf.h. */
#include <libfyaml.h>
#include <stdlib.h>

#include "base/mem.h"
#include "conf/conf.h"

struct reader {
    struct kvs__conf *conf;
    const struct kvs__source *source;
};

static struct kvs__node *read_node(struct reader *r, struct fy_node *fyn, uint32_t depth);

static void complain(struct reader *r, const struct kvs__node *at, const char *message)
{
    kvs__conf_error_at(r->conf, r->source, at->line, at->col, message);
}

/* ---- environment -------------------------------------------------------------------------------
 */

/* One ${..} at p (behind the "${"); returns behind its "}", NULL if it is broken. */
static const char *substitute(struct reader *r, const struct kvs__node *at, const char *p,
                              struct kvs_buf *b)
{
    const char *close = strchr(p, '}'), *dash;
    char name[128], message[400];
    const char *value;
    size_t name_len;

    if (close == NULL) {
        complain(r, at, "'${' without '}'. Write $${ for a literal ${");
        return NULL;
    }
    dash = strstr(p, ":-");
    if (dash != NULL && dash > close) {
        dash = NULL;
    }
    name_len = (size_t)((dash == NULL ? close : dash) - p);
    if (name_len == 0 || name_len >= sizeof name ||
        strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") < name_len) {
        complain(r, at, "'${..}' needs the name of an environment variable: ${NAME:-default}");
        return NULL;
    }
    memcpy(name, p, name_len);
    name[name_len] = '\0';
    value = getenv(name);
    if (value != NULL && (value[0] != '\0' || dash == NULL)) {
        kvs_buf_append_str(b, value);
    } else if (dash != NULL) {
        kvs_buf_append(b, dash + 2, (size_t)(close - dash - 2));
    } else {
        (void)snprintf(message, sizeof message,
                       "environment variable '%s' is not set. Set it, or write ${%s:-default}",
                       name, name);
        complain(r, at, message);
        return NULL;
    }
    return close + 1;
}

static const char *expand(struct reader *r, const struct kvs__node *at, const char *text)
{
    const char *p = text, *result = text;
    struct kvs_buf b;

    if (strstr(text, "${") == NULL) {
        return text;
    }
    kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
    while (p != NULL && *p != '\0') {
        if (strncmp(p, "$${", 3) == 0) {
            kvs_buf_append_str(&b, "${");
            p += 3;
        } else if (strncmp(p, "${", 2) == 0) {
            p = substitute(r, at, p + 2, &b);
        } else {
            kvs_buf_append(&b, p++, 1);
        }
    }
    if (p != NULL && !b.failed) {
        result = kvs__conf_strdup(r->conf, b.ptr == NULL ? "" : b.ptr, b.len);
    }
    kvs_buf_fini(&b);
    return result;
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

static void locate(struct kvs__node *n, struct fy_node *fyn)
{
    struct fy_token *token = fy_node_get_scalar_token(fyn);
    const struct fy_mark *mark = token == NULL ? NULL : fy_token_start_mark(token);

    if (mark != NULL) {
        n->line = (uint32_t)mark->line + 1;
        n->col = (uint32_t)mark->column + 1;
    }
}

static void read_scalar(struct reader *r, struct kvs__node *n, struct fy_node *fyn)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(fyn, &len);
    int plain = fy_node_get_style(fyn) == FYNS_PLAIN;

    if (text == NULL || (plain && (len == 0 || (len == 1 && *text == '~') ||
                                   (len == 4 && memcmp(text, "null", 4) == 0)))) {
        n->kind = KVS__NODE_NULL;
        return;
    }
    n->kind = KVS__NODE_SCALAR;
    if (memchr(text, '\0', len) != NULL) {
        complain(r, n, "a NUL byte cannot be part of a value");
    }
    n->text = expand(r, n, kvs__conf_strdup(r->conf, text, len));
}

static void read_map(struct reader *r, struct kvs__node *n, struct fy_node *fyn, uint32_t depth)
{
    struct kvs__node **tail = &n->child;
    struct fy_node_pair *pair;
    void *at = NULL;

    n->kind = KVS__NODE_MAP;
    while ((pair = fy_node_mapping_iterate(fyn, &at)) != NULL) {
        struct fy_node *key = fy_node_pair_key(pair);
        struct kvs__node *child, where = {.line = n->line, .col = n->col};
        size_t len = 0;
        const char *name = key == NULL ? NULL : fy_node_get_scalar(key, &len);

        if (key != NULL) {
            locate(&where, key);
        }
        if (name == NULL || len == 0 || memchr(name, '\0', len) != NULL) {
            complain(r, &where, "a key must be a word");
            continue;
        }
        child = read_node(r, fy_node_pair_value(pair), depth + 1);
        child->key = kvs__conf_strdup(r->conf, name, len);
        child->key_line = where.line;
        child->key_col = where.col;
        if (child->line == 0) {
            child->line = where.line;
            child->col = where.col;
        }
        if (kvs__node_get(n, child->key) != NULL) {
            complain(r, &where, "this key is given twice in one map");
            continue;
        }
        *tail = child;
        tail = &child->next;
    }
}

static void read_list(struct reader *r, struct kvs__node *n, struct fy_node *fyn, uint32_t depth)
{
    struct kvs__node **tail = &n->child;
    struct fy_node *item;
    void *at = NULL;

    n->kind = KVS__NODE_LIST;
    while ((item = fy_node_sequence_iterate(fyn, &at)) != NULL) {
        *tail = read_node(r, item, depth + 1);
        if (n->line == 0) {
            n->line = (*tail)->line;
            n->col = (*tail)->col;
        }
        tail = &(*tail)->next;
    }
}

/* Depth is bounded by KVS__CONF_DEPTH_MAX: recursion is safe here. */
static struct kvs__node *read_node(struct reader *r, struct fy_node *fyn, uint32_t depth)
{
    struct kvs__node *n = kvs__conf_alloc(r->conf, sizeof *n);

    n->source = r->source;
    if (fyn == NULL) {
        return n;
    }
    locate(n, fyn);
    if (depth > KVS__CONF_DEPTH_MAX) {
        complain(r, n, "nested too deeply");
    } else if (fy_node_is_alias(fyn)) {
        complain(r, n, "aliases (*name) are not supported: write the value out");
    } else if (fy_node_get_tag_token(fyn) != NULL) {
        complain(r, n, "tags (!name) are not supported");
    } else if (fy_node_is_mapping(fyn)) {
        read_map(r, n, fyn, depth);
    } else if (fy_node_is_sequence(fyn)) {
        read_list(r, n, fyn, depth);
    } else {
        read_scalar(r, n, fyn);
    }
    return n;
}

/* ---- documents ---------------------------------------------------------------------------------
 */

static void report(struct reader *r, struct fy_diag *diag)
{
    struct fy_diag_error *e;
    void *at = NULL;
    uint32_t before = kvs__conf_errors(r->conf);

    while ((e = fy_diag_errors_iterate(diag, &at)) != NULL) {
        kvs__conf_error_at(r->conf, r->source, e->line < 1 ? 1 : (uint32_t)e->line,
                           e->column < 1 ? 1 : (uint32_t)e->column, e->msg);
    }
    if (kvs__conf_errors(r->conf) == before) {
        kvs__conf_error_at(r->conf, r->source, 1, 1, "this is not YAML");
    }
}

struct kvs__node *kvs__yaml_parse(struct kvs__conf *c, const struct kvs__source *source)
{
    struct reader r = {c, source};
    struct fy_diag_cfg diag_cfg;
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG};
    struct fy_diag *diag;
    struct fy_document *doc;
    struct kvs__node *root = NULL;
    size_t len = strlen(source->text);

    if (source->text[strspn(source->text, " \t\r\n")] == '\0') {
        return NULL;
    }
    if (!kvs_utf8_valid(kvs_slice(source->text, len))) {
        kvs__conf_error_at(c, source, 1, 1, "this file is not UTF-8 text");
        return NULL;
    }
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag = fy_diag_create(&diag_cfg);
    if (diag == NULL) {
        kvs__conf_error_at(c, source, 1, 1, "out of memory");
        return NULL;
    }
    fy_diag_set_collect_errors(diag, true);
    cfg.diag = diag;
    doc = fy_document_build_from_string(&cfg, source->text, len);
    if (doc == NULL) {
        report(&r, diag);
    } else if (fy_document_root(doc) != NULL) {
        root = read_node(&r, fy_document_root(doc), 0);
    }
    fy_document_destroy(doc);
    fy_diag_destroy(diag);
    return root;
}
