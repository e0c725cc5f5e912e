/* SPDX-License-Identifier: MIT
 *
 * Items, versions and problems as text; see storage.h. */
#include <inttypes.h>
#include <stdio.h>

#include "storage.h"

#define VERSION_TEXT_SIZE 40u /* quotes, 10 and 20 digits, dash, NUL */

/* Writes the digits of v so that they end before `end`. Returns where they begin. */
static char *digits_before(char *end, uint64_t v)
{
    do {
        *--end = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    return end;
}

const char *render_version(struct kvs_arena *arena, struct version v)
{
    char *text = kvs_arena_alloc(arena, VERSION_TEXT_SIZE), *at;

    if (text == NULL) {
        return "";
    }
    at = text + VERSION_TEXT_SIZE;
    *--at = '\0';
    *--at = '"';
    at = digits_before(at, v.offset);
    *--at = '-';
    at = digits_before(at, v.epoch);
    *--at = '"';
    return at;
}

/* "12-345", with or without quotes. */
int version_parse(struct kvs_slice text, struct version *ret)
{
    const char *dash;
    uint64_t epoch;

    if (text.len >= 2 && text.ptr[0] == '"' && text.ptr[text.len - 1] == '"') {
        text.ptr++;
        text.len -= 2;
    }
    dash = text.len == 0 ? NULL : memchr(text.ptr, '-', text.len);
    if (dash == NULL ||
        kvs_u64_parse(kvs_slice(text.ptr, (size_t)(dash - text.ptr)), &epoch) != 0 ||
        epoch > UINT32_MAX ||
        kvs_u64_parse(kvs_slice(dash + 1, text.len - (size_t)(dash - text.ptr) - 1),
                      &ret->offset) != 0) {
        return KVS_EINVAL;
    }
    ret->epoch = (uint32_t)epoch;
    return 0;
}

/* ---- items -------------------------------------------------------------------------------------
 */

struct indexes {
    struct kvs_buf *b;
    const struct secondary_def *last;
    uint32_t count;
};

/* Values of one index come one after another, explicit ones before those of paths. */
static void put_index(void *arg, const struct secondary_def *def, struct kvs_slice encoded)
{
    struct indexes *x = arg;
    char text[64];
    struct kvs_slice value = secondary_decode(def->type, encoded, text);

    if (def != x->last) {
        kvs_buf_append_str(x->b, x->last == NULL ? "" : "],");
        kvs_json_str(x->b, kvs_slice_str(def->name));
        kvs_buf_append_str(x->b, ":[");
    } else {
        kvs_buf_append_str(x->b, ",");
    }
    x->last = def;
    if (def->type == SECONDARY_NUMBER) {
        kvs_buf_append(x->b, value.ptr, value.len);
    } else if (kvs_utf8_valid(value)) {
        kvs_json_str(x->b, value);
    } else {
        kvs_buf_append_str(x->b, "{\"base64\":\"");
        kvs_base64(x->b, value);
        kvs_buf_append_str(x->b, "\"}");
    }
}

void render_item(struct kvs_buf *b, struct partition *p, const struct item_view *item,
                 int with_value)
{
    struct indexes x = {b, NULL, 0};

    kvs_buf_append_str(b, "{");
    kvs_json_bytes_member(b, "key", item->key);
    kvs_buf_append_str(b, ",");
    kvs_json_bytes_member(b, "partition_key", item->partition_key);
    if (with_value) {
        kvs_buf_append_str(b, ",");
        kvs_json_bytes_member(b, "value", item->value);
    }
    kvs_buf_append_str(b, ",\"content_type\":");
    kvs_json_str(b, item->content_type.len == 0 ? kvs_slice_str("application/octet-stream")
                                                : item->content_type);
    kvs_buf_append_str(b, ",\"version\":\"");
    kvs_json_u64(b, item->version.epoch);
    kvs_buf_append_str(b, "-");
    kvs_json_u64(b, item->version.offset);
    kvs_buf_append_str(b, "\",\"expires_at\":");
    if (item->expires_at_ms != 0) {
        kvs_json_u64(b, item->expires_at_ms);
    } else {
        kvs_buf_append_str(b, "null");
    }
    kvs_buf_append_str(b, ",\"indexes\":{");
    if (item->item != NULL && p != NULL) {
        partition_item_indexes(p, item, put_index, &x);
    }
    kvs_buf_append_str(b, x.last != NULL ? "]}}" : "}}");
}

/* ---- problems ----------------------------------------------------------------------------------
 */

void problem_of(const struct write_op *op, const struct table *t, struct kvs_problem *ret,
                const char **ret_detail)
{
    *ret = (struct kvs_problem){.status = 500, .code = "internal"};
    *ret_detail = "";
    switch (op->result) {
    case WRITE_NOT_FOUND:
        *ret = (struct kvs_problem){.status = 404, .code = "not_found"};
        *ret_detail = "the table holds no item with this key";
        break;
    case WRITE_PRECONDITION:
        *ret = (struct kvs_problem){.status = 412, .code = "precondition_failed"};
        *ret_detail = "the item is not in the state the condition asks for";
        break;
    case WRITE_TOO_LARGE:
        *ret = (struct kvs_problem){
            .status = 413, .code = "too_large", .limit = t->limits.max_value_bytes};
        *ret_detail = "the value is larger than the table's max_value_bytes";
        break;
    case WRITE_LIMIT:
        *ret = (struct kvs_problem){.status = 507, .code = "table_full"};
        *ret_detail = "the table is at its max_items or max_bytes: delete items or raise the limit";
        break;
    case WRITE_BAD_INDEX:
        *ret = (struct kvs_problem){.status = 400, .code = "malformed"};
        *ret_detail = op->detail == NULL ? "an index key is not valid" : op->detail;
        break;
    case WRITE_CONFLICT:
        *ret = (struct kvs_problem){.status = 409, .code = "conflict"};
        *ret_detail = "another operation of this atomic batch failed: none took effect";
        break;
    case WRITE_NO_MEMORY:
        *ret = (struct kvs_problem){.status = 507, .code = "no_memory", .retryable = 1};
        *ret_detail = "the server is out of memory";
        break;
    default:
        break;
    }
}

void answer_write_failed(struct storage *s, struct kvs_request *req, int rc, int from_callback)
{
    const struct kvs_host *host = s->host;

    switch (rc) {
    case KVS_EREUSED:
        kvs_problem_code(req, rc, "this Idempotency-Key was used for another request");
        break;
    case KVS_ENOSPC:
        kvs_problem_code(req, rc,
                         "the disk of this server is full: writes are refused until there is "
                         "room; reads go on");
        break;
    case KVS_ENOMEM:
        kvs_problem_code(req, rc, "the server is out of memory");
        break;
    case KVS_ECANCELED:
    case KVS_ESTATE:
        kvs_problem(req,
                    &(struct kvs_problem){.status = 503,
                                          .code = "stopping",
                                          .retryable = 1,
                                          .outcome = from_callback ? KVS_OUTCOME_UNKNOWN
                                                                   : KVS_OUTCOME_NOT_APPLIED,
                                          .retry_after_ms = 1000},
                    "this server is stopping");
        break;
    default:
        kvs_problem(req,
                    &(struct kvs_problem){.status = 503,
                                          .code = "storage_failed",
                                          .outcome = from_callback ? KVS_OUTCOME_UNKNOWN
                                                                   : KVS_OUTCOME_NOT_APPLIED},
                    "the journal of this server failed: it accepts no write until it is restarted");
    }
    host->complete(host->ctx, req);
}

void answer_headers(struct storage *s, struct kvs_request *req, uint32_t partition)
{
    char *number = kvs_arena_printf(&req->arena, "%" PRIu32, partition);

    if (number != NULL) {
        kvs_response_header(req, "KVS-Partition", number);
    }
    kvs_response_header(req, "KVS-Served-By", s->host->node_id);
}
