/* SPDX-License-Identifier: MIT
 *
 * The plugin ABI: what one shared object gives to the host.
 *
 * A plugin is `<kind>-<name>.so` and exports one function, kvs_plugin_entry(), which returns a
 * static const descriptor. It links no symbol of the host: all it needs arrives in struct kvs_host
 * (host.h).
 *
 * Versioning. Another major: refused. A newer minor than the host's: refused. An older minor:
 * accepted, and the host reads a field only if `size` covers it (KVS_HAS). Fields are appended,
 * never reordered or reused; every minor has a fence comment. Ops tables and struct kvs_host follow
 * the same rule.
 *
 * Lifecycle, all on the main thread:
 *
 *   loaded -> checked -> inited -> started -> stopped -> finished      (or failed, from any)
 *
 *   check  pure: looks at the configuration only. `kvsd --check` runs it alone. Optional.
 *   init   allocates and opens; starts nothing that runs by itself.
 *   start  may spawn work. Kinds in `needs` are started before. Optional.
 *   stop   ends that work; event loops still turn. Runs only if start returned 0. Idempotent.
 *   fini   releases all; event loops have ended. Runs only if init returned 0.
 *   reload applies a new configuration after SIGHUP; only rows with KVS_OPT_RELOAD differ.
 * Optional.
 *
 * Instances. The descriptor is the type, `self` is the instance; a plugin may run many times in one
 * process, so it has no mutable globals.
 *
 * Changes
 *   1.0  2026-11  first version */
#ifndef KVS_PLUGIN_H
#define KVS_PLUGIN_H

#include "kvs/base.h"
#include "kvs/error.h"
#include "kvs/host.h"
#include "kvs/option.h"

#define KVS_ABI_MAJOR 1
#define KVS_ABI_MINOR 0

/* Values are part of the ABI. */
enum kvs_kind {
    KVS_KIND_NONE = 0,
    KVS_KIND_TRANSPORT = 1,
    KVS_KIND_COMPRESSION = 2,
    KVS_KIND_PERSISTENCE = 3,
    KVS_KIND_INDEX = 4,
    KVS_KIND_CONSENSUS = 5,
    KVS_KIND_SERVICE = 6,
    KVS_KIND_COUNT = 7,
};

struct kvs_plugin {
    uint32_t size;                 /* sizeof at build time */
    uint16_t abi_major, abi_minor; /* KVS_ABI_* at build time */
    uint32_t kind;                 /* enum kvs_kind */
    uint32_t caps;                 /* KVS_<KIND>_CAP_* bits */
    const char *name;              /* [a-z][a-z0-9-]*, unique in its kind; never contains '/' */
    const char *version;           /* of the plugin, free text such as "1.0.0" */
    const char *summary;           /* one sentence */
    const struct kvs_opt *opts;    /* ends with a KVS_OPT_END row; may be NULL */
    uint64_t conf_size;            /* bytes of the structure the rows fill */
    const uint32_t *needs;         /* kinds started before this one; ends with 0; may be NULL */
    const void *ops;               /* struct kvs_<kind>_ops, begins with its own size */
    int (*check)(const void *conf, struct kvs_error *err);
    int (*init)(const struct kvs_host *host, const void *conf, void **ret_self,
                struct kvs_error *err);
    int (*start)(void *self, struct kvs_error *err);
    void (*stop)(void *self);
    void (*fini)(void *self);
    int (*reload)(void *self, const void *conf, struct kvs_error *err);
    /* --- end of 1.0 --- */
};

KVS_STATIC_ASSERT(offsetof(struct kvs_plugin, kind) == 8, "ABI");
KVS_STATIC_ASSERT(offsetof(struct kvs_plugin, name) == 16, "ABI");
KVS_STATIC_ASSERT(offsetof(struct kvs_plugin, ops) == 64, "ABI");
KVS_STATIC_ASSERT(sizeof(struct kvs_plugin) == 120, "ABI");

typedef const struct kvs_plugin *(*kvs_plugin_entry_fn)(void);

#define KVS_PLUGIN_ENTRY_NAME "kvs_plugin_entry"

/* Defines the one exported function. The arguments are designated initialisers of struct
 * kvs_plugin:
 *
 *   KVS_PLUGIN(.kind = KVS_KIND_COMPRESSION, .name = "nop", .version = "1.0.0", .ops = &nop_ops,
 * ...);
 */
#define KVS_PLUGIN(...)                                                                            \
    KVS_EXPORT const struct kvs_plugin *kvs_plugin_entry(void);                                    \
    const struct kvs_plugin *kvs_plugin_entry(void)                                                \
    {                                                                                              \
        static const struct kvs_plugin descriptor = {                                              \
            .size = (uint32_t)sizeof(struct kvs_plugin),                                           \
            .abi_major = KVS_ABI_MAJOR,                                                            \
            .abi_minor = KVS_ABI_MINOR,                                                            \
            __VA_ARGS__,                                                                           \
        };                                                                                         \
        return &descriptor;                                                                        \
    }                                                                                              \
    KVS_STATIC_ASSERT(KVS_ABI_MAJOR == 1, "rebuild the plugin against this SDK")

#endif
