/* SPDX-License-Identifier: MIT
 *
 * The methods of the service: REST routes, validation and the API document come from here. The
 * order of parameters is the enums of storage.h. */
#include "storage.h"

#define ARRAY(a)   .params = (a), .param_count = KVS_ARRAY_COUNT(a)
#define ANSWERS(a) .answers = (a), .answer_count = KVS_ARRAY_COUNT(a)
#define TTL_MAX    (36500ULL * 86400000) /* a hundred years */

#define TABLE                                                                                      \
    {                                                                                              \
        .name = "table", .place = KVS_IN_PATH, .type = KVS_PARAM_STR, .min = 1,                    \
        .max = KVS_TABLE_NAME_SIZE_MAX, .help = "name of the table"                                \
    }
#define KEY                                                                                        \
    {                                                                                              \
        .name = "key", .place = KVS_IN_PATH, .type = KVS_PARAM_BYTES, .min = 1,                    \
        .max = KVS_KEY_SIZE_MAX, .help = "key of the item, percent-encoded; any bytes"             \
    }
#define PARTITION_KEY(help_)                                                                       \
    {                                                                                              \
        .name = "partition_key", .place = KVS_IN_QUERY, .type = KVS_PARAM_BYTES, .min = 1,         \
        .max = KVS_KEY_SIZE_MAX, .help = (help_)                                                   \
    }
#define ITEM_PARTITION_KEY       PARTITION_KEY("decides the partition; default the key itself")
#define LIST_PARTITION_KEY_PARAM PARTITION_KEY("ask only the partition of this partition key")
#define ACKS_PARAM                                                                                 \
    {                                                                                              \
        .name = "acks", .place = KVS_IN_QUERY, .type = KVS_PARAM_ENUM, .choices = ACKS,            \
        .help =                                                                                    \
            "when to answer: none at once, leader when durable here, all when on every in-sync "   \
            "replica; default the table's"                                                         \
    }
#define IF_MATCH_PARAM                                                                             \
    {                                                                                              \
        .name = "If-Match", .place = KVS_IN_HEADER, .type = KVS_PARAM_STR,                         \
        .help = "only if the item's version is this entity tag; * for any"                         \
    }
#define IDEMPOTENCY_PARAM                                                                          \
    {                                                                                              \
        .name = "Idempotency-Key", .place = KVS_IN_HEADER, .type = KVS_PARAM_BYTES, .min = 1,      \
        .max = 128, .help = "repeats of the request with this key get the first answer"            \
    }
#define READ_PARAM                                                                                 \
    {                                                                                              \
        .name = "read", .place = KVS_IN_QUERY, .type = KVS_PARAM_ENUM, .choices = READS,           \
        .fallback = "committed",                                                                   \
        .help = "committed: linearizable; uncommitted: the leader's newest; any: any replica"      \
    }
#define VALUES_PARAM                                                                               \
    {                                                                                              \
        .name = "values", .place = KVS_IN_QUERY, .type = KVS_PARAM_BOOL, .fallback = "true",       \
        .help = "with the items' values"                                                           \
    }
#define LIMIT_PARAM                                                                                \
    {                                                                                              \
        .name = "limit", .place = KVS_IN_QUERY, .type = KVS_PARAM_UINT, .min = 1,                  \
        .max = KVS_LIST_LIMIT_MAX, .fallback = "100", .help = "items of a page, at most"           \
    }
#define MAX_BYTES_PARAM                                                                            \
    {                                                                                              \
        .name = "max_bytes", .place = KVS_IN_QUERY, .type = KVS_PARAM_UINT, .min = 1,              \
        .max = 64u << 20, .fallback = "1048576",                                                   \
        .help = "bytes of a page, about; at least one item"                                        \
    }
#define CURSOR_PARAM                                                                               \
    {                                                                                              \
        .name = "cursor", .place = KVS_IN_QUERY, .type = KVS_PARAM_STR, .min = 1, .max = 8192,     \
        .help = "`next` of the page before, with the same parameters"                              \
    }
#define ACCEPT_PARAM                                                                               \
    {                                                                                              \
        .name = "Accept", .place = KVS_IN_HEADER, .type = KVS_PARAM_STR,                           \
        .help = "application/x-ndjson: one item a line, the cursor in the header KVS-Next"         \
    }

static const char *const ACKS[] = {"none", "leader", "all", NULL};
static const char *const READS[] = {"committed", "uncommitted", "any", NULL};
static const char *const FORMATS[] = {"raw", "envelope", NULL};
static const char *const ORDERS[] = {"asc", "desc", NULL};

static const struct kvs_param PUT_PARAMS[] = {
    TABLE,
    KEY,
    ITEM_PARTITION_KEY,
    {.name = "ttl",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_TTL,
     .min = 1,
     .max = TTL_MAX,
     .help = "time to live; none: for ever; default the table's"},
    ACKS_PARAM,
    IF_MATCH_PARAM,
    {.name = "If-None-Match",
     .place = KVS_IN_HEADER,
     .type = KVS_PARAM_STR,
     .help = "*: only if there is no such item"},
    {.name = "KVS-Index",
     .place = KVS_IN_HEADER,
     .type = KVS_PARAM_STR,
     .flags = KVS_PARAM_REPEAT,
     .help = "name=value, both percent-encoded: a key of a secondary index without path"},
    IDEMPOTENCY_PARAM,
    {.name = "Content-Type",
     .place = KVS_IN_HEADER,
     .type = KVS_PARAM_STR,
     .min = 0,
     .max = KVS_CONTENT_TYPE_SIZE_MAX,
     .help = "kept with the value and given back"},
};

static const struct kvs_param GET_PARAMS[] = {
    TABLE,
    KEY,
    ITEM_PARTITION_KEY,
    READ_PARAM,
    {.name = "max_lag",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_DURATION,
     .help = "with read=any: how far behind the replica may be"},
    {.name = "format",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_ENUM,
     .choices = FORMATS,
     .fallback = "raw",
     .help = "envelope: the item as JSON with its metadata"},
    {.name = "If-None-Match",
     .place = KVS_IN_HEADER,
     .type = KVS_PARAM_STR,
     .help = "304 if the item's version is this entity tag"},
};

static const struct kvs_param DELETE_PARAMS[] = {
    TABLE, KEY, ITEM_PARTITION_KEY, ACKS_PARAM, IF_MATCH_PARAM, IDEMPOTENCY_PARAM,
};

static const struct kvs_param LIST_PARAMS[] = {
    TABLE,
    {.name = "prefix",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BYTES,
     .max = KVS_KEY_SIZE_MAX,
     .help = "only keys that begin with this"},
    {.name = "start",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BYTES,
     .max = KVS_KEY_SIZE_MAX,
     .help = "first key, inclusive"},
    {.name = "end",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BYTES,
     .max = KVS_KEY_SIZE_MAX,
     .help = "key to stop before"},
    LIST_PARTITION_KEY_PARAM,
    VALUES_PARAM,
    LIMIT_PARAM,
    MAX_BYTES_PARAM,
    CURSOR_PARAM,
    READ_PARAM,
    ACCEPT_PARAM,
};

static const struct kvs_param QUERY_PARAMS[] = {
    TABLE,
    {.name = "index",
     .place = KVS_IN_PATH,
     .type = KVS_PARAM_STR,
     .min = 1,
     .max = KVS_TABLE_NAME_SIZE_MAX,
     .help = "name of the secondary index"},
    {.name = "eq", .place = KVS_IN_QUERY, .type = KVS_PARAM_BYTES, .help = "items with this value"},
    {.name = "from",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BYTES,
     .help = "smallest value, inclusive"},
    {.name = "to",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BYTES,
     .help = "largest value, exclusive"},
    {.name = "order",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_ENUM,
     .choices = ORDERS,
     .fallback = "asc",
     .help = "by value, then by key"},
    LIST_PARTITION_KEY_PARAM,
    VALUES_PARAM,
    LIMIT_PARAM,
    MAX_BYTES_PARAM,
    CURSOR_PARAM,
    READ_PARAM,
    ACCEPT_PARAM,
};

static const struct kvs_param BATCH_PARAMS[] = {
    TABLE,
    {.name = "atomic",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_BOOL,
     .fallback = "false",
     .help = "all operations, which must fall in one partition, take effect or none does"},
    ACKS_PARAM,
    IDEMPOTENCY_PARAM,
};

static const struct kvs_param STATUS_PARAMS[] = {
    {.name = "table",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_UINT,
     .flags = KVS_PARAM_REQUIRED,
     .help = "id of the table"},
};

#define ITEM_HEADERS "KVS-Partition KVS-Served-By"

static const struct kvs_answer PUT_ANSWERS[] = {
    {201, 0, NULL, NULL, "ETag KVS-Expires-At " ITEM_HEADERS, "created"},
    {204, 0, NULL, NULL, "ETag KVS-Expires-At " ITEM_HEADERS, "replaced"},
};
static const struct kvs_answer GET_ANSWERS[] = {
    {200, 0, "*", NULL, "ETag KVS-Expires-At " ITEM_HEADERS, "the value, or the item as JSON"},
    {304, 0, NULL, NULL, "ETag " ITEM_HEADERS, "not modified"},
};
static const struct kvs_answer DELETE_ANSWERS[] = {{204, 0, NULL, NULL, ITEM_HEADERS, "deleted"}};
static const struct kvs_answer LIST_ANSWERS[] = {
    {200, 0, "application/json application/x-ndjson", "ItemPage", "KVS-Next KVS-Served-By",
     "a page; without `next` it is the last"},
};
static const struct kvs_answer BATCH_ANSWERS[] = {
    {200, 0, "application/json application/x-ndjson", "BatchResults", NULL,
     "one result per operation, in order, in the form of the request"},
};
static const struct kvs_answer STATUS_ANSWERS[] = {
    {200, 0, "application/json", NULL, NULL, "partitions of the table on this node"},
};

const struct kvs_method STORAGE_METHODS[STORAGE_METHOD_COUNT] = {
    {.name = "items.put",
     .verb = KVS_VERB_PUT,
     .path = "/v1/tables/{table}/items/{key}",
     .flags = KVS_METHOD_BODY_OPTIONAL | KVS_METHOD_WRITE,
     .access = KVS_ACCESS_WRITER,
     ARRAY(PUT_PARAMS),
     ANSWERS(PUT_ANSWERS),
     .body_types = "*",
     .body_size_max = KVS_VALUE_SIZE_MAX,
     .summary = "Write one item",
     .help =
         "The body is the value, any bytes. Answered when the write is durable, unless acks=none.",
     .handler = items_put},
    {.name = "items.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables/{table}/items/{key}",
     .access = KVS_ACCESS_VIEWER,
     ARRAY(GET_PARAMS),
     ANSWERS(GET_ANSWERS),
     .summary = "Read one item",
     .handler = items_get},
    {.name = "items.delete",
     .verb = KVS_VERB_DELETE,
     .path = "/v1/tables/{table}/items/{key}",
     .flags = KVS_METHOD_WRITE,
     .access = KVS_ACCESS_WRITER,
     ARRAY(DELETE_PARAMS),
     ANSWERS(DELETE_ANSWERS),
     .summary = "Delete one item",
     .handler = items_delete},
    {.name = "items.list",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables/{table}/items",
     .access = KVS_ACCESS_VIEWER,
     ARRAY(LIST_PARAMS),
     ANSWERS(LIST_ANSWERS),
     .summary = "List items in key order over all partitions",
     .handler = items_list},
    {.name = "items.query",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables/{table}/indexes/{index}/items",
     .access = KVS_ACCESS_VIEWER,
     ARRAY(QUERY_PARAMS),
     ANSWERS(LIST_ANSWERS),
     .summary = "Query items by a secondary index",
     .handler = items_query},
    {.name = "items.batch",
     .verb = KVS_VERB_POST,
     .path = "/v1/tables/{table}/batch",
     .flags = KVS_METHOD_BODY_REQUIRED | KVS_METHOD_WRITE,
     .access = KVS_ACCESS_WRITER,
     ARRAY(BATCH_PARAMS),
     ANSWERS(BATCH_ANSWERS),
     .body_types = "application/json application/x-ndjson",
     .body_schema = "BatchOperations",
     .body_size_max = KVS_BATCH_BODY_SIZE_MAX,
     .summary = "Many operations in one request",
     .handler = items_batch},
    {.name = "storage.status",
     .access = KVS_ACCESS_PEER,
     ARRAY(STATUS_PARAMS),
     ANSWERS(STATUS_ANSWERS),
     .summary = "Partitions of a table as they are on this node",
     .handler = storage_status},
};

#define TEXT        "{\"type\":\"string\"}"
#define BYTES(name) "\"" name "\":" TEXT ",\"" name "_base64\":" TEXT

const struct kvs_schema STORAGE_SCHEMAS[] = {
    {"Item",
     "{\"type\":\"object\",\"required\":[\"content_type\",\"version\",\"expires_at\",\"indexes\"],"
     "\"properties\":{" BYTES("key") "," BYTES("partition_key") "," BYTES(
         "value") ",\"content_type\":" TEXT ",\"version\":" TEXT
                  ",\"expires_at\":{\"type\":[\"integer\","
                  "\"null\"]},\"indexes\":{\"type\":\"object\"}}}"},
    {"ItemPage",
     "{\"type\":\"object\",\"required\":[\"items\"],\"properties\":{\"items\":{\"type\":\"array\","
     "\"items\":{\"$ref\":\"#/components/schemas/Item\"}},\"next\":" TEXT "}}"},
    {"BatchOperations", "{\"type\":\"array\",\"maxItems\":10000,\"items\":{\"type\":\"object\","
                        "\"required\":[\"op\"],"
                        "\"properties\":{\"op\":{\"enum\":[\"put\",\"delete\",\"get\",\"touch\"]}"
                        "," BYTES("key") "," BYTES("partition_key") "," BYTES(
                            "value") ",\"content_type\":" TEXT ",\"ttl\":" TEXT
                                     ",\"indexes\":{\"type\":\"object\"},\"if_version\":" TEXT
                                     ",\"if_absent\":{\"type\":\"boolean\"}}}}"},
    {"BatchResults",
     "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"status\"],\"properties\":{"
     "\"status\":{\"type\":\"integer\"},\"version\":" TEXT ",\"expires_at\":{\"type\":\"integer\"},"
     "\"item\":{\"$ref\":\"#/components/schemas/Item\"},"
     "\"problem\":{\"$ref\":\"#/components/schemas/Problem\"}}}}"},
    {NULL, NULL},
};
