/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: calls a function that no library defines. Linked with -z undefs, as by hand
 * without the flags of kvs_plugin(). */
#include "service_base.h"

int nobody_defines_this(void); /* the defect */

static int unbound_check(const void *conf, struct kvs_error *err)
{
    (void)conf;
    (void)err;
    return nobody_defines_this();
}

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "unbound", .version = "1",
           .summary = "misses a symbol", .ops = &ops, .check = unbound_check, .init = base_init,
           .fini = base_fini);
