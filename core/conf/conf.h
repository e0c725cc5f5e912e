/* SPDX-License-Identifier: MIT
 *
 * Configuration: YAML files, one tree, every value with the place it came from.
 *
 *   1. kvs__conf_load reads the file, then conf.d/<*.yaml> beside it in bytewise order, then --set
 *      overrides. Maps merge, everything else is replaced by the later one.
 *   2. ${NAME} and ${NAME:-default} in scalars are replaced from the environment; $${ is a literal
 * ${.
 *   3. kvs__conf_apply fills a structure from an option table (kvs/option.h) and complains about
 * unknown keys, wrong types, bounds, missing values.
 *   4. Errors are collected: all of them are shown, as file:line:col, with the line and a caret.
 *
 * YAML aliases, tags and multiple documents are refused: nothing in a configuration needs them.
 * Threads: main only. */
#ifndef KVS_CORE_CONF_H
#define KVS_CORE_CONF_H

#include <stdio.h>

#include "kvs/option.h"
#include "kvs/support.h"

#define KVS__CONF_DEPTH_MAX     16u
#define KVS__CONF_FILE_SIZE_MAX (4u << 20)
#define KVS__CONF_ERROR_MAX     100u
#define KVS__CONF_PATH_SIZE     256u

enum kvs__node_kind {
    KVS__NODE_NULL = 0,
    KVS__NODE_SCALAR = 1,
    KVS__NODE_MAP = 2,
    KVS__NODE_LIST = 3,
};

/* Where text came from: a file, or one --set. */
struct kvs__source {
    struct kvs__source *next;
    const char *name; /* as the user knows it: "etc/standalone.yaml", "--set" */
    const char *text; /* whole, NUL-terminated */
    int is_file;      /* 0: positions are within one --set value */
};

struct kvs__node {
    struct kvs__node *next;  /* sibling */
    struct kvs__node *child; /* first: MAP, LIST */
    enum kvs__node_kind kind;
    const char *key;  /* in a map */
    const char *text; /* SCALAR, environment replaced */
    const struct kvs__source *source;
    uint32_t line, col;         /* of the value, from 1 */
    uint32_t key_line, key_col; /* of the key */
};

struct kvs__conf; /* owns the tree and all strings made from it */

/* Always gives a configuration to look into (NULL only if memory is out); see kvs__conf_errors.
 * sets[set_count]: "path=value". path NULL: only the sets. */
struct kvs__conf *kvs__conf_load(const char *path, const char *const *sets, uint32_t set_count);
void kvs__conf_free(struct kvs__conf *c);
/* What other owns lives as long as c from now on. */
void kvs__conf_adopt(struct kvs__conf *c, struct kvs__conf *take_other);

struct kvs__node *kvs__conf_root(struct kvs__conf *c);
/* Child of a map by key, or NULL. node may be NULL. */
struct kvs__node *kvs__node_get(const struct kvs__node *node, const char *key);

/* Report a problem at a node (its key if at_key). path: "plugins.transport.rest.listen". */
void kvs__conf_error(struct kvs__conf *c, const struct kvs__node *at, int at_key, const char *path,
                     const char *fmt, ...) KVS_PRINTF(5, 6);
uint32_t kvs__conf_errors(const struct kvs__conf *c);
/* All of them, in the order found. */
void kvs__conf_errors_print(const struct kvs__conf *c, FILE *to);

/* Fill out (zeroed, conf_size bytes) from the map `node` (NULL or a null node: all defaults) by the
 * option rows. path: what stands before the option names in messages. Strings live as long as c. */
void kvs__conf_apply(struct kvs__conf *c, const struct kvs__node *node, const char *path,
                     const struct kvs_opt *opts, void *out);
/* The node that gave an option its value, or NULL if the default did. */
const struct kvs__node *kvs__conf_opt_node(const struct kvs__node *node, const char *option);

/* Text of an option in a filled structure, as it could stand in a file; secrets are "***". */
void kvs__conf_opt_text(struct kvs_buf *b, const struct kvs_opt *opt, const void *conf);
/* "etc/x.yaml:12:7", "--set", "default". Static until the next call. */
const char *kvs__conf_origin(const struct kvs__node *node);

/* One "path: value  # origin" line per option. */
void kvs__conf_print(struct kvs_buf *b, const struct kvs__node *node, const char *path,
                     const struct kvs_opt *opts, const void *conf);
/* The reference of an option table: what --help-plugin prints. */
void kvs__conf_help(FILE *to, const struct kvs_opt *opts);

/* ---- between the files of this folder ----------------------------------------------------------
 */

void *kvs__conf_alloc(struct kvs__conf *c,
                      size_t size); /* zeroed; ends the process if memory is out */
char *kvs__conf_strdup(struct kvs__conf *c, const char *text, size_t len);
struct kvs__source *kvs__conf_source(struct kvs__conf *c, const char *name, const char *text,
                                     size_t len, int is_file);
/* Problem at a position of a source. */
void kvs__conf_error_at(struct kvs__conf *c, const struct kvs__source *source, uint32_t line,
                        uint32_t col, const char *message);
/* Parse one YAML text; NULL with an error reported, or for an empty document. */
struct kvs__node *kvs__yaml_parse(struct kvs__conf *c, const struct kvs__source *source);

#endif
