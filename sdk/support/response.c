/* SPDX-License-Identifier: MIT
 *
 * Response headers; see kvs/method.h. */
#include "kvs/method.h"

void kvs_response_header(struct kvs_request *req, const char *name, const char *value)
{
    struct kvs_response *r = &req->response;

    KVS_ASSERT(req->arena.host, r->header_count < KVS_RESPONSE_HEADER_MAX);
    r->headers[r->header_count].name = name;
    r->headers[r->header_count].value = value;
    r->header_count++;
}
