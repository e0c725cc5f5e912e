/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: the path of its method names a parameter that the table does not declare. */
#define METHOD_PATH "/v1/broken/{key}" /* the defect */
#include "service_base.h"

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "broken", .version = "1",
           .summary = "a path that is not declared", .ops = &ops, .init = base_init,
           .fini = base_fini);
