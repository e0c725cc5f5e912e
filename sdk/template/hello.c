/* SPDX-License-Identifier: MIT
 *
 * The smallest legal plugin: a service with one method, GET /v1/hello.
 *
 *   descriptor   KVS_PLUGIN at the end: what kvsd reads after loading the file
 *   ops          what the kind asks for; a service gives a table of methods
 *   self         one instance; there are no globals that change */
#include "kvs/service.h"

struct hello {
    const struct kvs_host *host;
};

static const struct kvs_mem_tag hello_memory = {"hello"};

/* On an event loop: never block here, and complete each request once, now or later. */
static void hello_get(void *self, struct kvs_request *req)
{
    const struct hello *hello = self;

    req->response.status = 200;
    req->response.content_type = "application/json";
    req->response.body = kvs_slice_str("{\"message\":\"hello\"}\n");
    hello->host->complete(hello->host->ctx, req);
}

static int hello_init(const struct kvs_host *host, const void *conf, void **ret_self,
                      struct kvs_error *err)
{
    struct hello *hello = kvs_calloc(host, &hello_memory, sizeof *hello);

    (void)conf; /* no options */
    if (hello == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    hello->host = host;
    *ret_self = hello;
    return 0;
}

static void hello_fini(void *self)
{
    struct hello *hello = self;

    kvs_free(hello->host, &hello_memory, hello, sizeof *hello);
}

static const struct kvs_answer answers[] = {
    {200, 0, "application/json", "Hello", NULL, "A greeting."},
};

static const struct kvs_method methods[] = {
    {
        .name = "hello.get",
        .verb = KVS_VERB_GET,
        .path = "/v1/hello",
        .access = KVS_ACCESS_NONE,
        .answers = answers,
        .answer_count = KVS_ARRAY_COUNT(answers),
        .summary = "Say hello",
        .handler = hello_get,
    },
};

static const struct kvs_schema schemas[] = {
    {"Hello", "{\"type\":\"object\",\"required\":[\"message\"],"
              "\"properties\":{\"message\":{\"type\":\"string\"}}}"},
    {NULL, NULL},
};

static const struct kvs_service_ops ops = {
    .size = sizeof ops,
    .method_count = KVS_ARRAY_COUNT(methods),
    .methods = methods,
    .schemas = schemas,
};

KVS_PLUGIN(.kind = KVS_KIND_SERVICE, .name = "hello", .version = "0.1.0",
           .summary = "says hello: the template of a plugin", .ops = &ops, .init = hello_init,
           .fini = hello_fini);
