/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: says where it listens, and does not. */
#include <stdio.h>

#include "kvs/transport.h"

struct broken_conf {
    const char *listen;
};

static const struct kvs_opt options[] = {
    {"listen", KVS_OPT_STR, 0, "127.0.0.1:0", 1, 100, offsetof(struct broken_conf, listen), NULL,
     "Where it would listen."},
    KVS_OPTS_END,
};

static size_t broken_endpoint(void *self, uint32_t i, char *buf, size_t buf_size)
{
    (void)self;
    return i > 0 ? 0 : (size_t)snprintf(buf, buf_size, "http://127.0.0.1:1"); /* the defect */
}

static void broken_drain(void *self)
{
    (void)self;
}

static int broken_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    static int anchor;

    (void)host;
    (void)conf;
    (void)err;
    *ret_self = &anchor;
    return 0;
}

static void broken_fini(void *self)
{
    (void)self;
}

static const struct kvs_transport_ops ops = {
    .size = sizeof ops,
    .endpoint = broken_endpoint,
    .drain = broken_drain,
};

KVS_PLUGIN(.kind = KVS_KIND_TRANSPORT, .name = "broken", .version = "1",
           .summary = "does not listen", .opts = options, .conf_size = sizeof(struct broken_conf),
           .ops = &ops, .init = broken_init, .fini = broken_fini);
