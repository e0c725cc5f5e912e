/* SPDX-License-Identifier: MIT
 *
 * The host as main() sees it. */
#ifndef KVS_CORE_HOST_H
#define KVS_CORE_HOST_H

#include "kvs/base.h"

struct kvs__run_args {
    const char *conf_path;
    const char *const *sets; /* [set_count] "path=value" */
    uint32_t set_count;
};

/* Run until SIGTERM or SIGINT. Returns the exit code: 0 orderly, 1 failed, 2 wrong configuration.
 */
int kvs__run(const struct kvs__run_args *args);
int kvs__check(const struct kvs__run_args *args);                         /* --check */
int kvs__print_config(const struct kvs__run_args *args);                  /* --print-config */
int kvs__list_plugins(const struct kvs__run_args *args);                  /* --list-plugins */
int kvs__help_plugin(const struct kvs__run_args *args, const char *name); /* "persistence-wal" */

#endif
