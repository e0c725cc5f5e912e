/* SPDX-License-Identifier: MIT
 *
 * A sound service with one method, for those that are broken in one place. Before including it,
 * METHOD_PATH may be defined. */
#ifndef KVS_TESTS_SERVICE_BASE_H
#define KVS_TESTS_SERVICE_BASE_H

#include "kvs/service.h"

#ifndef METHOD_PATH
#define METHOD_PATH "/v1/broken"
#endif

struct base {
    const struct kvs_host *host;
    uint64_t words[5];
};

static const struct kvs_mem_tag base_memory = {"base"};

static void base_get(void *self, struct kvs_request *req)
{
    const struct base *base = self;

    req->response.status = 204;
    base->host->complete(base->host->ctx, req);
}

KVS_UNUSED static int base_init(const struct kvs_host *host, const void *conf, void **ret_self,
                                struct kvs_error *err)
{
    struct base *base = kvs_calloc(host, &base_memory, sizeof *base);

    (void)conf;
    if (base == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    base->host = host;
    *ret_self = base;
    return 0;
}

KVS_UNUSED static void base_fini(void *self)
{
    struct base *base = self;

    kvs_free(base->host, &base_memory, base, sizeof *base);
}

static const struct kvs_answer answers[] = {{204, 0, NULL, NULL, NULL, "Nothing."}};

static const struct kvs_method methods[] = {
    {
        .name = "broken.get",
        .verb = KVS_VERB_GET,
        .path = METHOD_PATH,
        .answers = answers,
        .answer_count = KVS_ARRAY_COUNT(answers),
        .summary = "Answer nothing",
        .handler = base_get,
    },
};

static const struct kvs_service_ops ops = {
    .size = sizeof ops,
    .method_count = KVS_ARRAY_COUNT(methods),
    .methods = methods,
};

#endif
