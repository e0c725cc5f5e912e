/* SPDX-License-Identifier: MIT
 *
 * HTTP target, query and headers: the first line is a verb's number and the raw target, each line
 * after it a header. Routed over the methods of service-storage and the host's own; an accepted
 * request has arguments as its method declares them, a refused one has a problem. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fuzz_world.h"
#include "host/host_private.h"
#include "storage.h"

#define HEADER_MAX 32u

struct line {
    struct kvs_slice name, value;
};

static struct line headers[HEADER_MAX];
static uint32_t header_count;
static struct kvs_host host;

void fuzz_fail(const char *what)
{
    (void)fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

static int same_name(struct kvs_slice a, const char *b)
{
    for (size_t i = 0; i < a.len; i++) {
        char c = a.ptr[i] >= 'A' && a.ptr[i] <= 'Z' ? (char)(a.ptr[i] + 32) : a.ptr[i];
        char d = b[i] >= 'A' && b[i] <= 'Z' ? (char)(b[i] + 32) : b[i];

        if (d == '\0' || c != d) {
            return 0;
        }
    }
    return b[a.len] == '\0';
}

static struct kvs_slice header(struct kvs_request *req, const char *name, uint32_t nth)
{
    (void)req;
    for (uint32_t i = 0; i < header_count; i++) {
        if (same_name(headers[i].name, name) && nth-- == 0) {
            return headers[i].value;
        }
    }
    return kvs_slice(NULL, 0);
}

static void begin(void)
{
    static const struct kvs_service_ops OPS = {
        .size = sizeof OPS, .method_count = STORAGE_METHOD_COUNT, .methods = STORAGE_METHODS};

    FUZZ_CHECK(kvs__router_add(&OPS, NULL, NULL) == 0 &&
                   kvs__router_add(&kvs__builtin_ops, NULL, NULL) == 0,
               "the router refuses a method");
    host = *kvs__mem_host();
}

/* The next line off *rest, without its end. */
static struct kvs_slice line_take(struct kvs_slice *rest)
{
    const char *eol = rest->len == 0 ? NULL : memchr(rest->ptr, '\n', rest->len);
    size_t n = eol == NULL ? rest->len : (size_t)(eol - rest->ptr);
    struct kvs_slice line = {rest->ptr, n};

    n += eol != NULL;
    rest->ptr += n;
    rest->len -= n;
    return line;
}

static void read_headers(struct kvs_slice rest)
{
    for (header_count = 0; rest.len > 0 && header_count < HEADER_MAX; header_count++) {
        struct kvs_slice line = line_take(&rest);
        const char *colon = line.len == 0 ? NULL : memchr(line.ptr, ':', line.len);
        size_t n = colon == NULL ? line.len : (size_t)(colon - line.ptr);

        headers[header_count].name = kvs_slice(line.ptr, n);
        headers[header_count].value = kvs_slice(line.ptr + n, line.len - n);
        if (colon != NULL) {
            headers[header_count].value.ptr++;
            headers[header_count].value.len--;
        }
    }
}

static void check_args(const struct kvs_request *req)
{
    for (uint32_t i = 0; i < req->method->param_count; i++) {
        const struct kvs_param *p = &req->method->params[i];

        FUZZ_CHECK(kvs_arg_given(req, i) || (p->flags & KVS_PARAM_REQUIRED) == 0,
                   "a required argument is missing");
        for (const struct kvs_arg *a = &req->args[i]; a != NULL && a->text.ptr != NULL;
             a = a->next) {
            if (p->type == KVS_PARAM_UINT && p->max != 0) {
                FUZZ_CHECK(a->u >= p->min && a->u <= p->max, "a number is out of bounds");
            }
            if (p->type <= KVS_PARAM_STR && p->max != 0) {
                FUZZ_CHECK(a->text.len >= p->min && a->text.len <= p->max, "a text is too long");
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int begun;
    struct kvs_slice rest = {(const char *)data, size}, line;
    struct kvs_request *req = calloc(1, sizeof *req);
    int refused;

    if (!begun) {
        begin();
        begun = 1;
    }
    FUZZ_CHECK(req != NULL, "out of memory");
    line = line_take(&rest);
    if (line.len > 2) {
        read_headers(rest);
        req->magic = KVS_REQUEST_MAGIC;
        req->size = sizeof *req;
        req->verb = (uint32_t)(line.ptr[0] - '0') % 8u;
        req->target = kvs_slice(line.ptr + 2, line.len - 2);
        req->header = header;
        req->transport = "fuzz";
        kvs_arena_init(&req->arena, &host, NULL, 0);
        refused = kvs__router_route(req);
        if (refused) {
            FUZZ_CHECK(req->response.status >= 200, "a refusal has no status");
        } else {
            FUZZ_CHECK(req->method != NULL, "no method");
            check_args(req);
        }
        if (req->response.body_free != NULL) {
            req->response.body_free(req->response.body_arg);
        }
        kvs_arena_fini(&req->arena);
    }
    free(req);
    return 0;
}
