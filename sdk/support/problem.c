/* SPDX-License-Identifier: MIT
 *
 * Problem documents (RFC 9457): every answer of 400 and above; see kvs/method.h.
 *
 * Code words and what they mean to a client. `retryable`: the same request may succeed later.
 *
 *   malformed 400            unknown_parameter 400       unauthenticated 401    forbidden 403
 *   not_found 404            method_not_allowed 405      conflict 409           exists 409
 *   precondition_failed 412  too_large 413               unsupported_media 415  not_leader 421
 *   idempotency_reused 422   too_many 429                header_too_large 431   internal 500
 *   busy 503                 no_leader 503               not_enough_replicas 503
 *   stopping 503             storage_failed 503          timeout 504            no_space 507 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "kvs/method.h"
#include "kvs/support.h"

static const struct kvs_mem_tag tag = {"request.problem"};

static const char NO_MEMORY[] =
    "{\"type\":\"about:blank\",\"title\":\"Insufficient Storage\",\"status\":507,"
    "\"code\":\"no_memory\",\"detail\":\"out of memory\",\"retryable\":true,"
    "\"outcome\":\"not_applied\"}";

static const char *title_of(uint32_t status)
{
    static const struct {
        uint32_t status;
        const char *title;
    } TITLES[] = {
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < KVS_ARRAY_COUNT(TITLES); i++) {
        if (TITLES[i].status == status) {
            return TITLES[i].title;
        }
    }
    return "Error";
}

/* Detail may quote what a client sent: bytes that are not UTF-8 would break the document. */
static void put_text(struct kvs_buf *b, const char *name, const char *text)
{
    struct kvs_slice s = kvs_slice_str(text);

    kvs_buf_printf(b, ",\"%s\":", name);
    if (kvs_utf8_valid(s)) {
        kvs_json_str(b, s);
    } else {
        kvs_buf_append_str(b, "\"");
        for (size_t i = 0; i < s.len; i++) {
            unsigned char c = (unsigned char)s.ptr[i];

            if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') {
                kvs_buf_printf(b, "%%%02X", c);
            } else {
                kvs_buf_append(b, &s.ptr[i], 1);
            }
        }
        kvs_buf_append_str(b, "\"");
    }
}

static void compose(struct kvs_buf *b, const struct kvs_problem *p, const char *instance,
                    const char *detail)
{
    static const char *const OUTCOMES[] = {"", "not_applied", "applied", "unknown"};

    kvs_buf_printf(b, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%" PRIu32,
                   title_of(p->status), p->status);
    put_text(b, "code", p->code);
    put_text(b, "detail", detail);
    if (instance != NULL) {
        put_text(b, "instance", instance);
    }
    kvs_buf_printf(b, ",\"retryable\":%s", p->retryable ? "true" : "false");
    if (p->outcome != KVS_OUTCOME_NONE) {
        put_text(b, "outcome", OUTCOMES[p->outcome & 3]);
    }
    if (p->leader != NULL) {
        put_text(b, "leader", p->leader);
    }
    if (p->limit != 0) {
        kvs_buf_printf(b, ",\"limit\":%" PRIu64, p->limit);
    }
    if (p->retry_after_ms != 0) {
        kvs_buf_printf(b, ",\"retry_after_ms\":%" PRIu64, p->retry_after_ms);
    }
    kvs_buf_append_str(b, "}");
}

struct kvs_slice kvs_problem_json(struct kvs_arena *arena, const struct kvs_problem *problem,
                                  const char *instance, const char *detail)
{
    struct kvs_slice text = {NULL, 0};
    struct kvs_buf b;

    kvs_buf_init(&b, arena->host, &tag);
    compose(&b, problem, instance, detail);
    if (!b.failed) {
        text.ptr = kvs_arena_strdup(arena, kvs_buf_slice(&b));
        text.len = text.ptr == NULL ? 0 : b.len;
    }
    kvs_buf_fini(&b);
    return text;
}

static void retry_after(struct kvs_request *req, uint64_t ms)
{
    char *text = kvs_arena_printf(&req->arena, "%" PRIu64, (ms + 999) / 1000);

    if (text != NULL) {
        kvs_response_header(req, "Retry-After", text);
    }
}

void kvs_problem(struct kvs_request *req, const struct kvs_problem *problem, const char *detail_fmt,
                 ...)
{
    struct kvs_problem p = *problem;
    char detail[512];
    va_list args;

    va_start(args, detail_fmt);
    if (vsnprintf(detail, sizeof detail, detail_fmt, args) < 0) {
        detail[0] = '\0';
    }
    va_end(args);
    if (p.outcome == KVS_OUTCOME_NONE && req->method != NULL &&
        (req->method->flags & KVS_METHOD_WRITE) != 0) {
        p.outcome = KVS_OUTCOME_NOT_APPLIED;
    }
    req->response.status = p.status;
    req->response.content_type = "application/problem+json";
    req->response.body =
        kvs_problem_json(&req->arena, &p, req->id[0] != '\0' ? req->id : NULL, detail);
    if (req->response.body.ptr == NULL) {
        req->response.status = 507;
        req->response.body = kvs_slice(NO_MEMORY, sizeof NO_MEMORY - 1);
    }
    if (p.retry_after_ms != 0) {
        retry_after(req, p.retry_after_ms);
    }
}

void kvs_problem_code(struct kvs_request *req, int code, const char *detail)
{
    static const struct {
        int code;
        struct kvs_problem problem;
    } MAP[] = {
        {KVS_EINVAL, {.status = 400, .code = "malformed"}},
        {KVS_ENOMEM, {.status = 507, .code = "no_memory", .retryable = 1}},
        {KVS_EIO, {.status = 503, .code = "storage_failed"}},
        {KVS_EFAILED, {.status = 503, .code = "storage_failed"}},
        {KVS_ENOSPC, {.status = 507, .code = "no_space", .retryable = 1, .retry_after_ms = 1000}},
        {KVS_ENOTFOUND, {.status = 404, .code = "not_found"}},
        {KVS_EEXIST, {.status = 409, .code = "exists"}},
        {KVS_ECONFLICT, {.status = 409, .code = "conflict"}},
        {KVS_ESTATE, {.status = 409, .code = "conflict"}},
        {KVS_EPRECONDITION, {.status = 412, .code = "precondition_failed"}},
        {KVS_ETOOBIG, {.status = 413, .code = "too_large"}},
        {KVS_ETOOMANY, {.status = 429, .code = "too_many", .retryable = 1, .retry_after_ms = 1000}},
        {KVS_EBUSY, {.status = 503, .code = "busy", .retryable = 1, .retry_after_ms = 1000}},
        {KVS_ENOTLEADER,
         {.status = 503, .code = "no_leader", .retryable = 1, .retry_after_ms = 1000}},
        {KVS_ENOREPLICAS,
         {.status = 503, .code = "not_enough_replicas", .retryable = 1, .retry_after_ms = 1000}},
        {KVS_EACCES, {.status = 403, .code = "forbidden"}},
        {KVS_ENOTSUP, {.status = 501, .code = "not_supported"}},
        {KVS_EREUSED, {.status = 422, .code = "idempotency_reused"}},
        {KVS_ECANCELED,
         {.status = 503, .code = "stopping", .retryable = 1, .outcome = KVS_OUTCOME_UNKNOWN}},
        {KVS_ETIMEDOUT,
         {.status = 504, .code = "timeout", .retryable = 1, .outcome = KVS_OUTCOME_UNKNOWN}},
    };
    struct kvs_problem problem = {.status = 500, .code = "internal"};

    for (size_t i = 0; i < KVS_ARRAY_COUNT(MAP); i++) {
        if (MAP[i].code == code) {
            problem = MAP[i].problem;
        }
    }
    if (req->method == NULL || (req->method->flags & KVS_METHOD_WRITE) == 0) {
        problem.outcome = KVS_OUTCOME_NONE;
    }
    kvs_problem(req, &problem, "%s", detail);
}
