/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: fini gives back nothing of what init took. */
#include "service_base.h"

static const struct kvs_mem_tag leaky_memory = {"leaky"};

static int leaky_init(const struct kvs_host *host, const void *conf, void **ret_self,
                      struct kvs_error *err)
{
    struct base *base = kvs_calloc(host, &leaky_memory, sizeof *base);

    (void)conf;
    if (base == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    base->host = host;
    *ret_self = base;
    return 0;
}

static void leaky_fini(void *self)
{
    (void)self; /* the defect */
}

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "leaky", .version = "1", .summary = "leaks",
           .ops = &ops, .init = leaky_init, .fini = leaky_fini);
