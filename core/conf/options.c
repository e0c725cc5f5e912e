/* SPDX-License-Identifier: MIT
 *
 * Option tables against the tree; see conf.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "conf/conf.h"

#define WORDS_MAX 128u

struct target {
    struct kvs__conf *conf;
    const char *path; /* before the option names */
    const struct kvs_opt *opts;
    void *out;
};

static const char *unit_hint(const struct kvs_opt *opt)
{
    return opt->type == KVS_OPT_BYTES ? "a size such as 64MiB"
                                      : "a duration such as 500ms, 30s, 5m";
}

/* Both bounds as text, "1MiB to 1GiB". */
static const char *bounds_text(const struct kvs_opt *opt, char text[80])
{
    char a[32], b[32];

    if (opt->type == KVS_OPT_BYTES) {
        (void)snprintf(text, 80, "%s to %s", kvs_bytes_text((uint64_t)opt->min, a),
                       kvs_bytes_text((uint64_t)opt->max, b));
    } else if (opt->type == KVS_OPT_DURATION) {
        (void)snprintf(text, 80, "%s to %s", kvs_duration_text((uint64_t)opt->min, a),
                       kvs_duration_text((uint64_t)opt->max, b));
    } else if (opt->type == KVS_OPT_STR) {
        (void)snprintf(text, 80, "%" PRId64 " to %" PRId64 " bytes", opt->min, opt->max);
    } else {
        (void)snprintf(text, 80, "%" PRId64 " to %" PRId64, opt->min, opt->max);
    }
    return text;
}

static int out_of_bounds(const struct kvs_opt *opt, uint64_t v, int negative)
{
    int64_t s = (int64_t)v;

    if (opt->min == 0 && opt->max == 0) {
        return 0;
    }
    if (!negative && v > (uint64_t)INT64_MAX) {
        return 1;
    }
    return s < opt->min || s > opt->max;
}

/* "64MB" is a near miss of "64MiB": say so. */
static const char *size_guess(const char *text, char guess[40])
{
    size_t digits = strspn(text, "0123456789");
    char unit = text[digits];
    uint64_t v;

    if (digits == 0 || digits > 15 || strchr("kKmMgGtT", unit) == NULL || unit == '\0') {
        return "";
    }
    unit = unit == 'k' ? 'K' : unit == 'm' ? 'M' : unit == 'g' ? 'G' : unit == 't' ? 'T' : unit;
    (void)snprintf(guess, 40, "%.*s%ciB", (int)digits, text, unit);
    return kvs_bytes_parse(kvs_slice_str(guess), &v) == 0 ? guess : "";
}

static const char *set_number(const struct kvs_opt *opt, const char *text, void *field,
                              char message[200])
{
    struct kvs_slice s = kvs_slice_str(text);
    char bounds[80], guess[40];
    uint64_t v = 0;
    int rc, negative = 0;

    if (opt->type == KVS_OPT_BYTES) {
        rc = kvs_bytes_parse(s, &v);
    } else if (opt->type == KVS_OPT_DURATION) {
        rc = kvs_duration_parse(s, &v);
    } else {
        negative = s.len > 1 && s.ptr[0] == '-';
        rc = kvs_u64_parse(kvs_slice(s.ptr + negative, s.len - (size_t)negative), &v);
        rc = rc == 0 && v > (uint64_t)INT64_MAX ? KVS_EINVAL : rc;
        v = negative ? (uint64_t)(-(int64_t)v) : v;
    }
    if (rc != 0) {
        const char *g = opt->type == KVS_OPT_BYTES ? size_guess(text, guess) : "";

        (void)snprintf(message, 200, "'%.60s' is not %s%s%s%s", text,
                       opt->type == KVS_OPT_INT ? "a whole number" : unit_hint(opt),
                       g[0] != '\0' ? ". Did you mean '" : "", g, g[0] != '\0' ? "'?" : "");
        return message;
    }
    if (out_of_bounds(opt, v, negative)) {
        (void)snprintf(message, 200, "'%.60s' is out of bounds (%s)", text,
                       bounds_text(opt, bounds));
        return message;
    }
    memcpy(field, &v, sizeof v); /* int64_t and uint64_t alike */
    return NULL;
}

static const char *set_enum(const struct kvs_opt *opt, const char *text, void *field,
                            char message[200])
{
    const char *near;
    uint32_t i = 0;
    int n;

    while (opt->choices[i] != NULL && strcmp(opt->choices[i], text) != 0) {
        i++;
    }
    if (opt->choices[i] != NULL) {
        memcpy(field, &i, sizeof i);
        return NULL;
    }
    n = snprintf(message, 200, "'%.40s' is none of", text);
    for (i = 0; opt->choices[i] != NULL && n < 150; i++) {
        n += snprintf(message + n, 200 - (size_t)n, "%s %s", i == 0 ? "" : ",", opt->choices[i]);
    }
    near = kvs_nearest(kvs_slice_str(text), opt->choices);
    if (near != NULL && n < 150) {
        (void)snprintf(message + n, 200 - (size_t)n, ". Did you mean '%s'?", near);
    }
    return message;
}

/* Set one field from text; returns what is wrong with it, or NULL. text outlives the structure. */
static const char *set_scalar(const struct kvs_opt *opt, const char *text, void *out,
                              char message[200])
{
    void *field = (char *)out + opt->offset;
    char bounds[80];
    uint32_t truth;

    switch (opt->type) {
    case KVS_OPT_BOOL:
        truth = strcmp(text, "true") == 0;
        if (!truth && strcmp(text, "false") != 0) {
            (void)snprintf(message, 200, "'%.60s' is neither true nor false", text);
            return message;
        }
        memcpy(field, &truth, sizeof truth);
        return NULL;
    case KVS_OPT_ENUM:
        return set_enum(opt, text, field, message);
    case KVS_OPT_STR:
        if (out_of_bounds(opt, strlen(text), 0)) {
            (void)snprintf(message, 200, "must be %s long", bounds_text(opt, bounds));
            return message;
        }
        memcpy(field, &text, sizeof text);
        return NULL;
    default:
        return set_number(opt, text, field, message);
    }
}

static void set_list(struct target *t, const struct kvs_opt *opt, const char *path,
                     const struct kvs__node *node)
{
    struct kvs_str_list list = {NULL, 0};
    const struct kvs__node *item = node->kind == KVS__NODE_LIST ? node->child : node;
    const char **items;
    size_t n = 0;

    for (const struct kvs__node *i = item; i != NULL; i = i->next) {
        n++;
    }
    items = kvs__conf_alloc(t->conf, (n + 1) * sizeof *items);
    n = 0;
    for (; item != NULL; item = node->kind == KVS__NODE_LIST ? item->next : NULL) {
        if (item->kind != KVS__NODE_SCALAR) {
            kvs__conf_error(t->conf, item, 0, path, "a list of words is expected: [a, b]");
            return;
        }
        items[n++] = item->text;
    }
    list.items = items;
    list.count = n;
    memcpy((char *)t->out + opt->offset, &list, sizeof list);
}

static void set_node(struct target *t, const struct kvs_opt *opt, const char *path,
                     const struct kvs__node *node)
{
    char message[200];
    const char *wrong;

    if (node->kind == KVS__NODE_NULL) {
        kvs__conf_error(t->conf, node, 1, path, "has no value");
    } else if (opt->type == KVS_OPT_LIST && node->kind != KVS__NODE_MAP) {
        set_list(t, opt, path, node);
    } else if (node->kind != KVS__NODE_SCALAR) {
        kvs__conf_error(t->conf, node, 0, path, "a single value is expected");
    } else {
        wrong = set_scalar(opt, node->text, t->out, message);
        if (wrong != NULL) {
            kvs__conf_error(t->conf, node, 0, path, "%s", wrong);
        }
    }
}

/* ---- names -------------------------------------------------------------------------------------
 */

static const struct kvs_opt *find_opt(const struct target *t, const char *name)
{
    for (const struct kvs_opt *o = t->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (strcmp(o->name, name) == 0) {
            return o;
        }
    }
    return NULL;
}

/* True if some option is called "<prefix>.something". */
static int is_prefix(const struct target *t, const char *prefix)
{
    size_t n = strlen(prefix);

    for (const struct kvs_opt *o = t->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (strncmp(o->name, prefix, n) == 0 && o->name[n] == '.') {
            return 1;
        }
    }
    return 0;
}

static void complain_unknown(struct target *t, const struct kvs__node *node, const char *name)
{
    const char *words[WORDS_MAX + 1], *near;
    char path[2 * KVS__CONF_PATH_SIZE + 2];
    size_t n = 0;

    for (const struct kvs_opt *o = t->opts; o != NULL && o->type != KVS_OPT_END && n < WORDS_MAX;
         o++) {
        words[n++] = o->name;
    }
    words[n] = NULL;
    near = kvs_nearest(kvs_slice_str(name), words);
    (void)snprintf(path, sizeof path, "%s.%s", t->path, name);
    if (n == 0) {
        kvs__conf_error(t->conf, node, 1, path, "unknown key: there are no options here");
    } else if (near != NULL) {
        kvs__conf_error(t->conf, node, 1, path, "unknown key. Did you mean '%s'?", near);
    } else {
        kvs__conf_error(t->conf, node, 1, path, "unknown key");
    }
}

static void apply_map(struct target *t, const struct kvs__node *map, const char *prefix,
                      uint32_t depth)
{
    char name[KVS__CONF_PATH_SIZE], path[KVS__CONF_PATH_SIZE];

    for (const struct kvs__node *child = map->child; child != NULL; child = child->next) {
        const struct kvs_opt *opt;

        (void)snprintf(name, sizeof name, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".",
                       child->key);
        (void)snprintf(path, sizeof path, "%s.%.200s", t->path, name);
        opt = find_opt(t, name);
        if (opt != NULL) {
            set_node(t, opt, path, child);
        } else if (is_prefix(t, name) && child->kind == KVS__NODE_MAP &&
                   depth < KVS__CONF_DEPTH_MAX) {
            apply_map(t, child, name, depth + 1);
        } else if (is_prefix(t, name)) {
            kvs__conf_error(t->conf, child, 0, path, "a map is expected: {%s: ..}", child->key);
        } else {
            complain_unknown(t, child, name);
        }
    }
}

static void apply_defaults(struct target *t, const struct kvs__node *node)
{
    char message[200], path[KVS__CONF_PATH_SIZE];
    static const char *const nothing = "";

    for (const struct kvs_opt *o = t->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (kvs__conf_opt_node(node, o->name) != NULL) {
            continue;
        }
        if ((o->flags & KVS_OPT_REQUIRED) != 0) {
            (void)snprintf(path, sizeof path, "%s.%s", t->path, o->name);
            kvs__conf_error(t->conf, node, 1, path, "is required: %s", o->help);
        } else if (o->fallback != NULL && o->type != KVS_OPT_LIST) {
            const char *wrong = set_scalar(o, o->fallback, t->out, message);

            if (wrong != NULL) {
                kvs__conf_error(t->conf, node, 1, t->path, "default of %s: %s", o->name, wrong);
            }
        } else if (o->type == KVS_OPT_STR) {
            memcpy((char *)t->out + o->offset, &nothing, sizeof nothing);
        }
    }
}

void kvs__conf_apply(struct kvs__conf *c, const struct kvs__node *node, const char *path,
                     const struct kvs_opt *opts, void *out)
{
    struct target t = {c, path, opts, out};

    if (node != NULL && node->kind != KVS__NODE_NULL && node->kind != KVS__NODE_MAP) {
        kvs__conf_error(c, node, 0, path, "a map of options is expected: {}");
        return;
    }
    apply_defaults(&t, node);
    if (node != NULL && node->kind == KVS__NODE_MAP) {
        apply_map(&t, node, "", 0);
    }
}

const struct kvs__node *kvs__conf_opt_node(const struct kvs__node *node, const char *option)
{
    char part[KVS__CONF_PATH_SIZE];

    while (node != NULL && *option != '\0') {
        size_t n = strcspn(option, ".");

        (void)snprintf(part, sizeof part, "%.*s", (int)n, option);
        node = kvs__node_get(node, part);
        option += n + (option[n] == '.');
    }
    return node;
}
