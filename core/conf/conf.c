/* SPDX-License-Identifier: MIT
 *
 * Loading, merging, and the list of problems; see conf.h. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/mem.h"
#include "conf/conf.h"

struct block {
    struct block *next;
};

struct problem {
    struct problem *next;
    const struct kvs__source *source;
    uint32_t line, col;
    const char *message;
};

struct kvs__conf {
    struct block *blocks; /* everything this configuration allocated */
    struct kvs__source *sources;
    struct kvs__node *root;
    struct problem *problems, **problems_tail;
    uint32_t problem_count;
};

KVS_STATIC_ASSERT(sizeof(struct block) <= 16, "what follows a block head is aligned");

void *kvs__conf_alloc(struct kvs__conf *c, size_t size)
{
    struct block *b = calloc(1, 16 + size);

    if (b == NULL) {
        (void)fputs("kvsd: out of memory while reading the configuration\n", stderr);
        exit(1);
    }
    b->next = c->blocks;
    c->blocks = b;
    return (char *)b + 16;
}

char *kvs__conf_strdup(struct kvs__conf *c, const char *text, size_t len)
{
    char *copy = kvs__conf_alloc(c, len + 1);

    if (len > 0) {
        memcpy(copy, text, len);
    }
    return copy;
}

struct kvs__source *kvs__conf_source(struct kvs__conf *c, const char *name, const char *text,
                                     size_t len, int is_file)
{
    struct kvs__source *s = kvs__conf_alloc(c, sizeof *s);

    s->name = kvs__conf_strdup(c, name, strlen(name));
    s->text = kvs__conf_strdup(c, text, len);
    s->is_file = is_file;
    s->next = c->sources;
    c->sources = s;
    return s;
}

/* ---- problems ----------------------------------------------------------------------------------
 */

void kvs__conf_error_at(struct kvs__conf *c, const struct kvs__source *source, uint32_t line,
                        uint32_t col, const char *message)
{
    struct problem *p;

    c->problem_count++;
    if (c->problem_count > KVS__CONF_ERROR_MAX) {
        return;
    }
    p = kvs__conf_alloc(c, sizeof *p);
    p->source = source;
    p->line = line;
    p->col = col;
    p->message = kvs__conf_strdup(c, message, strlen(message));
    *c->problems_tail = p;
    c->problems_tail = &p->next;
}

void kvs__conf_error(struct kvs__conf *c, const struct kvs__node *at, int at_key, const char *path,
                     const char *fmt, ...)
{
    char message[1024];
    va_list args;
    int n = path[0] == '\0' ? 0 : snprintf(message, sizeof message, "%s: ", path);

    va_start(args, fmt);
    (void)vsnprintf(message + n, sizeof message - (size_t)n, fmt, args);
    va_end(args);
    if (at == NULL) {
        kvs__conf_error_at(c, c->sources, 0, 0, message);
    } else {
        kvs__conf_error_at(c, at->source, at_key ? at->key_line : at->line,
                           at_key ? at->key_col : at->col, message);
    }
}

uint32_t kvs__conf_errors(const struct kvs__conf *c)
{
    return c->problem_count;
}

static void print_caret(FILE *to, const struct problem *p)
{
    const char *at = p->source->text;
    size_t len;

    for (uint32_t line = 1; line < p->line; line++) {
        at = strchr(at, '\n');
        if (at == NULL) {
            return;
        }
        at++;
    }
    len = strcspn(at, "\n");
    (void)fprintf(to, "  %.*s\n  ", (int)(len > 200 ? 200 : len), at);
    for (uint32_t col = 1; col < p->col && col <= len; col++) {
        (void)fputc(at[col - 1] == '\t' ? '\t' : ' ', to);
    }
    (void)fputs("^\n", to);
}

void kvs__conf_errors_print(const struct kvs__conf *c, FILE *to)
{
    for (const struct problem *p = c->problems; p != NULL; p = p->next) {
        const char *name = p->source == NULL ? "kvsd" : p->source->name;

        if (p->line == 0 || p->source == NULL) {
            (void)fprintf(to, "%s: error: %s\n", name, p->message);
            continue;
        }
        if (p->source->is_file) {
            (void)fprintf(to, "%s:%u:%u: error: %s\n", name, p->line, p->col, p->message);
        } else {
            (void)fprintf(to, "%s: error: %s\n", name, p->message);
        }
        print_caret(to, p);
    }
    if (c->problem_count > KVS__CONF_ERROR_MAX) {
        (void)fprintf(to, "... and %u more\n", c->problem_count - KVS__CONF_ERROR_MAX);
    }
}

/* ---- trees -------------------------------------------------------------------------------------
 */

struct kvs__node *kvs__node_get(const struct kvs__node *node, const char *key)
{
    struct kvs__node *child = node == NULL || node->kind != KVS__NODE_MAP ? NULL : node->child;

    while (child != NULL && (child->key == NULL || strcmp(child->key, key) != 0)) {
        child = child->next;
    }
    return child;
}

static void map_add(struct kvs__node *map, struct kvs__node *child)
{
    struct kvs__node **tail = &map->child;

    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    child->next = NULL;
    *tail = child;
}

/* Lay `over` upon `base`; both are maps. Depth is bounded by the parser. */
static void merge(struct kvs__node *base, struct kvs__node *over)
{
    struct kvs__node *next;

    for (struct kvs__node *child = over->child; child != NULL; child = next) {
        struct kvs__node *old = kvs__node_get(base, child->key);

        next = child->next;
        if (old == NULL) {
            map_add(base, child);
        } else if (old->kind == KVS__NODE_MAP && child->kind == KVS__NODE_MAP) {
            merge(old, child);
        } else {
            struct kvs__node *sibling = old->next;

            *old = *child;
            old->next = sibling;
        }
    }
}

static void merge_source(struct kvs__conf *c, const struct kvs__source *source)
{
    struct kvs__node *tree = kvs__yaml_parse(c, source);

    if (tree == NULL || tree->kind == KVS__NODE_NULL) {
        return;
    }
    if (tree->kind != KVS__NODE_MAP) {
        kvs__conf_error_at(c, source, 1, 1, "a configuration is a map: 'node: {id: ..}'");
        return;
    }
    merge(c->root, tree);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static char file_text[KVS__CONF_FILE_SIZE_MAX + 1]; /* main thread only, like all of this */

static void load_file(struct kvs__conf *c, const char *path)
{
    char message[512];
    struct kvs__source *source;
    FILE *f = fopen(path, "re");
    char *text;
    size_t len;

    source = kvs__conf_source(c, path, "", 0, 1);
    if (f == NULL) {
        (void)snprintf(message, sizeof message, "cannot be read: %s", strerror(errno));
        kvs__conf_error_at(c, source, 0, 0, message);
        return;
    }
    len = fread(file_text, 1, sizeof file_text, f);
    text = kvs__conf_strdup(c, file_text, len);
    if (ferror(f) != 0) {
        (void)snprintf(message, sizeof message, "cannot be read: %s", strerror(errno));
        kvs__conf_error_at(c, source, 0, 0, message);
    } else if (len > KVS__CONF_FILE_SIZE_MAX) {
        kvs__conf_error_at(c, source, 0, 0, "is larger than 4 MiB: is this a configuration?");
    } else if (memchr(text, '\0', len) != NULL) {
        kvs__conf_error_at(c, source, 0, 0, "holds a NUL byte: is this a configuration?");
    } else {
        source->text = text;
        merge_source(c, source);
    }
    (void)fclose(f);
}

static int is_yaml(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');

    return entry->d_name[0] != '.' && dot != NULL && strcmp(dot, ".yaml") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_conf_d(struct kvs__conf *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    char dir[3800], file[4096];
    struct dirent **entries;
    int n;

    (void)snprintf(dir, sizeof dir, "%.*sconf.d", slash == NULL ? 0 : (int)(slash - path + 1),
                   path);
    n = scandir(dir, &entries, is_yaml, by_bytes);
    if (n < 0) {
        return; /* there is none */
    }
    for (int i = 0; i < n; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", dir, entries[i]->d_name);
        load_file(c, file);
        free(entries[i]);
    }
    free(entries);
}

/* ---- --set -------------------------------------------------------------------------------------
 */

static void load_set(struct kvs__conf *c, const char *set)
{
    const char *eq = strchr(set, '=');
    struct kvs__source *source;
    struct kvs__node *value, *at = c->root;
    char name[64], *path, *part, *rest;

    (void)snprintf(name, sizeof name, "--set %s", set);
    source =
        kvs__conf_source(c, name, eq == NULL ? set : eq + 1, strlen(eq == NULL ? set : eq + 1), 0);
    if (eq == NULL || eq == set) {
        kvs__conf_error_at(c, source, 1, 1, "write --set path=value, as in node.data_dir=/srv/kvs");
        return;
    }
    value = kvs__yaml_parse(c, source);
    if (value == NULL) {
        value = kvs__conf_alloc(c, sizeof *value);
        value->kind = KVS__NODE_SCALAR;
        value->text = "";
        value->source = source;
        value->line = value->col = 1;
    }
    path = kvs__conf_strdup(c, set, (size_t)(eq - set));
    for (part = strtok_r(path, ".", &rest); part != NULL; part = strtok_r(NULL, ".", &rest)) {
        struct kvs__node *child = kvs__node_get(at, part);

        if (child == NULL) {
            child = kvs__conf_alloc(c, sizeof *child);
            child->key = part;
            child->source = source;
            child->line = child->col = child->key_line = child->key_col = 1;
            map_add(at, child);
        }
        if (*rest != '\0' && child->kind != KVS__NODE_MAP) {
            child->kind = KVS__NODE_MAP; /* a step on the way: it becomes a map */
            child->child = NULL;
        }
        at = child;
    }
    value->key = at->key;
    value->next = at->next;
    value->key_line = value->key_col = 1;
    if (at->kind == KVS__NODE_MAP && value->kind == KVS__NODE_MAP) {
        merge(at, value);
    } else {
        *at = *value;
    }
}

struct kvs__conf *kvs__conf_load(const char *path, const char *const *sets, uint32_t set_count)
{
    struct kvs__conf *c = calloc(1, sizeof *c);

    if (c == NULL) {
        return NULL;
    }
    c->problems_tail = &c->problems;
    c->root = kvs__conf_alloc(c, sizeof *c->root);
    c->root->kind = KVS__NODE_MAP;
    if (path != NULL) {
        load_file(c, path);
        load_conf_d(c, path);
    }
    for (uint32_t i = 0; i < set_count; i++) {
        load_set(c, sets[i]);
    }
    return c;
}

void kvs__conf_free(struct kvs__conf *c)
{
    if (c == NULL) {
        return;
    }
    while (c->blocks != NULL) {
        struct block *next = c->blocks->next;

        free(c->blocks);
        c->blocks = next;
    }
    free(c);
}

void kvs__conf_adopt(struct kvs__conf *c, struct kvs__conf *take_other)
{
    struct block **end = &take_other->blocks;

    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = c->blocks;
    c->blocks = take_other->blocks;
    free(take_other);
}

struct kvs__node *kvs__conf_root(struct kvs__conf *c)
{
    return c->root;
}
