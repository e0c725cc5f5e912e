/* SPDX-License-Identifier: MIT
 *
 * Contract tests take the plugin as a file, as kvsd does. */
#ifndef KVS_TESTS_PLUGIN_FILE_H
#define KVS_TESTS_PLUGIN_FILE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "kvs/plugin.h"

/* The descriptor of the plugin argv[1] names; ends the program if it cannot be had. */
static inline const struct kvs_plugin *plugin_file_open(int argc, char **argv, uint32_t kind)
{
    kvs_plugin_entry_fn entry;
    const struct kvs_plugin *plugin;
    void *module, *symbol;

    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s PLUGIN.so\n", argv[0]);
        exit(2);
    }
    module = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    symbol = module == NULL ? NULL : dlsym(module, KVS_PLUGIN_ENTRY_NAME);
    if (symbol == NULL) {
        (void)fprintf(stderr, "%s: %s\n", argv[1], dlerror());
        exit(2);
    }
    memcpy(&entry, &symbol, sizeof entry);
    plugin = entry();
    if (plugin->kind != kind) {
        (void)fprintf(stderr, "%s: is of another kind\n", argv[1]);
        exit(2);
    }
    return plugin;
}

#endif
