/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: a second exported symbol, which another plugin's could meet. */
#include "service_base.h"

KVS_EXPORT int loud_helper(void); /* the defect */

int loud_helper(void)
{
    return 1;
}

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "loud", .version = "1",
           .summary = "exports more than it should", .ops = &ops, .init = base_init,
           .fini = base_fini);
