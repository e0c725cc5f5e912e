/* SPDX-License-Identifier: MIT
 *
 * Option tables: what a plugin can be told, declared once.
 *
 * One row per option. The configuration parser, `kvsd --check`, `kvsd --help-plugin`, `kvsd
 * --print-config`, the README table and GET /v1/plugins all read this table. Nested YAML maps are
 * written with dots: {replication: {transport: grpc}} is the row "replication.transport".
 *
 * The host fills a structure of the plugin's own (`conf_size` bytes, zeroed) at `offset`:
 *
 *   type               field in the structure        text form
 *   KVS_OPT_BOOL       uint32_t (0 or 1)             true | false
 *   KVS_OPT_INT        int64_t                       -12
 *   KVS_OPT_BYTES      uint64_t, bytes               4096, 64KiB, 64MiB, 8GiB (binary units only)
 *   KVS_OPT_DURATION   uint64_t, milliseconds        500ms 30s 5m 24h 7d
 *   KVS_OPT_STR        const char *                  any; "" unless given and without default
 *   KVS_OPT_ENUM       uint32_t, index in choices    one of the choices
 *   KVS_OPT_LIST       struct kvs_str_list           [a, b] or a single scalar
 *
 * Strings and lists belong to the host and live as long as the instance. */
#ifndef KVS_OPTION_H
#define KVS_OPTION_H

#include "kvs/base.h"

enum kvs_opt_type {
    KVS_OPT_END = 0,
    KVS_OPT_BOOL = 1,
    KVS_OPT_INT = 2,
    KVS_OPT_BYTES = 3,
    KVS_OPT_DURATION = 4,
    KVS_OPT_STR = 5,
    KVS_OPT_ENUM = 6,
    KVS_OPT_LIST = 7,
};

#define KVS_OPT_REQUIRED 1u /* must be given */
#define KVS_OPT_SECRET   2u /* printed as *** everywhere */
#define KVS_OPT_RELOAD   4u /* SIGHUP applies a change; without it a change needs a restart */

struct kvs_str_list {
    const char *const *items; /* [count] */
    uint64_t count;
};

struct kvs_opt {
    const char *name;     /* dotted, lower case */
    uint32_t type;        /* enum kvs_opt_type; KVS_OPT_END ends the table */
    uint32_t flags;       /* KVS_OPT_REQUIRED ... */
    const char *fallback; /* default, as text; NULL: zero, empty, or required */
    int64_t min, max;     /* bounds of INT, BYTES, DURATION (ms), length of STR; both 0: none */
    uint64_t offset;      /* offsetof in the plugin's structure */
    const char *const *choices; /* ENUM: ends with NULL */
    const char *help;           /* one sentence for the operator */
};

#define KVS_OPTS_END                                                                               \
    {                                                                                              \
        NULL, KVS_OPT_END, 0, NULL, 0, 0, 0, NULL, NULL                                            \
    }

#endif
