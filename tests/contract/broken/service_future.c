/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: built for a plugin ABI that does not exist yet. */
#include "service_base.h"

KVS_EXPORT const struct kvs_plugin *kvs_plugin_entry(void);

const struct kvs_plugin *kvs_plugin_entry(void)
{
    static const struct kvs_plugin descriptor = {
        .size = sizeof descriptor,
        .abi_major = KVS_ABI_MAJOR,
        .abi_minor = 99, /* the defect */
        .kind = KVS_KIND_SERVICE,
        .name = "future",
        .version = "1",
        .summary = "of another time",
        .ops = &ops,
        .init = base_init,
        .fini = base_fini,
    };
    return &descriptor;
}
