/* SPDX-License-Identifier: MIT
 *
 * The methods of the metadata service, declared once. */
#include "metadata.h"

#define BODY_MAX (256u << 10)

static const struct kvs_param TABLE_PARAM[] = {
    {.name = "table",
     .place = KVS_IN_PATH,
     .type = KVS_PARAM_STR,
     .flags = KVS_PARAM_REQUIRED,
     .min = 1,
     .max = 256,
     .help = "name of the table"},
};

static const struct kvs_param NODE_PARAM[] = {
    {.name = "id",
     .place = KVS_IN_PATH,
     .type = KVS_PARAM_STR,
     .flags = KVS_PARAM_REQUIRED,
     .min = 1,
     .max = 256,
     .help = "id of the node"},
};

static const struct kvs_param MAP_PARAMS[] = {
    {.name = "after",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_UINT,
     .min = 0,
     .max = INT64_MAX,
     .help = "answer only with a version above this one"},
    {.name = "wait",
     .place = KVS_IN_QUERY,
     .type = KVS_PARAM_DURATION,
     .min = 0,
     .max = 300000,
     .help = "with `after`: how long to wait for one before answering 304"},
    {.name = "If-None-Match",
     .place = KVS_IN_HEADER,
     .type = KVS_PARAM_STR,
     .max = 64,
     .help = "the ETag of the version you have; as `after`"},
};

static const struct kvs_answer MAP_ANSWERS[] = {
    {.status = 200,
     .content_type = "application/json",
     .schema = "Map",
     .headers = "ETag",
     .help = "the map"},
    {.status = 304, .headers = "ETag", .help = "nothing newer"},
};

#define ONE_ANSWER(code, name, text)                                                               \
    {                                                                                              \
        .status = (code), .content_type = "application/json", .schema = (name), .help = (text)     \
    }

static const struct kvs_answer TABLE_CREATED[] = {
    {.status = 201,
     .content_type = "application/json",
     .schema = "Table",
     .headers = "Location",
     .help = "the new table"},
    ONE_ANSWER(409, "Problem", "there is such a table already, or too few nodes"),
};
static const struct kvs_answer TABLE_ANSWER[] = {ONE_ANSWER(200, "Table", "the table")};
static const struct kvs_answer TABLES_ANSWER[] = {ONE_ANSWER(200, "Tables", "all tables by name")};
static const struct kvs_answer DROPPED[] = {{.status = 204, .help = "the table is gone"}};
static const struct kvs_answer PARTITIONS_ANSWER[] = {
    ONE_ANSWER(200, "Partitions", "where each partition lives and how its replicas stand")};
static const struct kvs_answer NODES_ANSWER[] = {ONE_ANSWER(200, "Nodes", "all nodes")};
static const struct kvs_answer NODE_ANSWER[] = {ONE_ANSWER(200, "Node", "the node")};
static const struct kvs_answer CLUSTER_ANSWER[] = {ONE_ANSWER(200, "Cluster", "the verdict")};
static const struct kvs_answer SETTINGS_ANSWER[] = {ONE_ANSWER(200, "Settings", "all settings")};
static const struct kvs_answer QUORUM_ANSWER[] = {ONE_ANSWER(200, "Quorum", "the metadata quorum")};
static const struct kvs_answer OBJECT_ANSWER[] = {ONE_ANSWER(200, "Object", "done")};

#define PARAMS(list)  .params = (list), .param_count = KVS_ARRAY_COUNT(list)
#define ANSWERS(list) .answers = (list), .answer_count = KVS_ARRAY_COUNT(list)

const struct kvs_method METADATA_METHODS[] = {
    {.name = "metadata.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/metadata",
     .access = KVS_ACCESS_VIEWER,
     .flags = KVS_METHOD_LONG_POLL,
     PARAMS(MAP_PARAMS),
     ANSWERS(MAP_ANSWERS),
     .handler = map_get,
     .summary = "The map: nodes, tables, partitions, leaders; by long poll"},
    {.name = "metadata.watch",
     .access = KVS_ACCESS_PEER,
     .flags = KVS_METHOD_LONG_POLL,
     PARAMS(MAP_PARAMS),
     ANSWERS(MAP_ANSWERS),
     .handler = map_watch,
     .summary = "The map with the cluster's secret, for storage servers"},
    {.name = "nodes.register",
     .access = KVS_ACCESS_PEER,
     .flags = KVS_METHOD_BODY_REQUIRED,
     ANSWERS(OBJECT_ANSWER),
     .body_types = "application/json",
     .body_size_max = BODY_MAX,
     .handler = nodes_register,
     .summary = "A storage server begins a session (R9)"},
    {.name = "nodes.heartbeat",
     .access = KVS_ACCESS_PEER,
     .flags = KVS_METHOD_BODY_REQUIRED,
     ANSWERS(OBJECT_ANSWER),
     .body_types = "application/json",
     .body_size_max = BODY_MAX,
     .handler = nodes_heartbeat,
     .summary = "A storage server renews its session and lease"},
    {.name = "tables.create",
     .verb = KVS_VERB_POST,
     .path = "/v1/tables",
     .access = KVS_ACCESS_OPERATOR,
     .flags = KVS_METHOD_BODY_REQUIRED | KVS_METHOD_WRITE,
     ANSWERS(TABLE_CREATED),
     .body_types = "application/json",
     .body_schema = "TableSpec",
     .body_size_max = BODY_MAX,
     .handler = tables_create,
     .summary = "Create a table"},
    {.name = "tables.list",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables",
     .access = KVS_ACCESS_VIEWER,
     ANSWERS(TABLES_ANSWER),
     .handler = tables_list,
     .summary = "All tables"},
    {.name = "tables.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables/{table}",
     .access = KVS_ACCESS_VIEWER,
     PARAMS(TABLE_PARAM),
     ANSWERS(TABLE_ANSWER),
     .handler = tables_get,
     .summary = "One table"},
    {.name = "tables.alter",
     .verb = KVS_VERB_PATCH,
     .path = "/v1/tables/{table}",
     .access = KVS_ACCESS_OPERATOR,
     .flags = KVS_METHOD_BODY_REQUIRED | KVS_METHOD_WRITE,
     PARAMS(TABLE_PARAM),
     ANSWERS(TABLE_ANSWER),
     .body_types = "application/json application/merge-patch+json",
     .body_schema = "TablePatch",
     .body_size_max = BODY_MAX,
     .handler = tables_alter,
     .summary = "Change ttl, acks, min ISR, limits, secondary indexes"},
    {.name = "tables.drop",
     .verb = KVS_VERB_DELETE,
     .path = "/v1/tables/{table}",
     .access = KVS_ACCESS_OPERATOR,
     .flags = KVS_METHOD_WRITE,
     PARAMS(TABLE_PARAM),
     ANSWERS(DROPPED),
     .handler = tables_drop,
     .summary = "Drop a table with everything in it"},
    {.name = "tables.partitions",
     .verb = KVS_VERB_GET,
     .path = "/v1/tables/{table}/partitions",
     .access = KVS_ACCESS_VIEWER,
     PARAMS(TABLE_PARAM),
     ANSWERS(PARTITIONS_ANSWER),
     .handler = tables_partitions,
     .summary = "Partitions of a table, their leaders and replicas"},
    {.name = "nodes.list",
     .verb = KVS_VERB_GET,
     .path = "/v1/nodes",
     .access = KVS_ACCESS_VIEWER,
     ANSWERS(NODES_ANSWER),
     .handler = nodes_list,
     .summary = "All storage nodes"},
    {.name = "nodes.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/nodes/{id}",
     .access = KVS_ACCESS_VIEWER,
     PARAMS(NODE_PARAM),
     ANSWERS(NODE_ANSWER),
     .handler = nodes_get,
     .summary = "One storage node"},
    {.name = "cluster.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/cluster",
     .access = KVS_ACCESS_VIEWER,
     ANSWERS(CLUSTER_ANSWER),
     .handler = cluster_get,
     .summary = "Health verdict with reasons, and counters"},
    {.name = "configuration.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/configuration",
     .access = KVS_ACCESS_VIEWER,
     ANSWERS(SETTINGS_ANSWER),
     .handler = configuration_get,
     .summary = "Settings of the cluster with value, default, origin and help"},
    {.name = "configuration.set",
     .verb = KVS_VERB_PATCH,
     .path = "/v1/configuration",
     .access = KVS_ACCESS_ADMIN,
     .flags = KVS_METHOD_BODY_REQUIRED | KVS_METHOD_WRITE,
     ANSWERS(SETTINGS_ANSWER),
     .body_types = "application/json application/merge-patch+json",
     .body_schema = "SettingsPatch",
     .body_size_max = BODY_MAX,
     .handler = configuration_set,
     .summary = "Change settings: {name: value}; null restores the default"},
    {.name = "quorum.get",
     .verb = KVS_VERB_GET,
     .path = "/v1/quorum",
     .access = KVS_ACCESS_VIEWER,
     ANSWERS(QUORUM_ANSWER),
     .handler = quorum_get,
     .summary = "Leader, term and members of the metadata quorum"},
};

KVS_STATIC_ASSERT(KVS_ARRAY_COUNT(METADATA_METHODS) == METADATA_METHOD_COUNT,
                  "count in metadata.h");

#define STR_LIST "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"
#define INDEXES                                                                                    \
    "{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{"  \
    "\"name\":{\"type\":\"string\"},\"type\":{\"enum\":[\"string\",\"number\"]},"                  \
    "\"path\":{\"type\":\"string\",\"description\":\"JSON Pointer; without it the index is "       \
    "filled "                                                                                      \
    "by KVS-Index\"},\"id\":{\"type\":\"integer\"}}}}"
#define ALTERABLE                                                                                  \
    "\"min_in_sync_replicas\":{\"type\":\"integer\",\"minimum\":1},"                               \
    "\"acks\":{\"enum\":[\"none\",\"leader\",\"all\"]},"                                           \
    "\"ttl\":{\"type\":[\"string\",\"null\"],\"description\":\"a duration, or none\"},"            \
    "\"max_value_bytes\":{\"type\":[\"integer\",\"string\"]},"                                     \
    "\"max_items\":{\"type\":[\"integer\",\"string\"]},"                                           \
    "\"max_bytes\":{\"type\":[\"integer\",\"string\"]},\"indexes\":" INDEXES
#define SPEC                                                                                       \
    "\"name\":{\"type\":\"string\",\"pattern\":\"^[a-z][a-z0-9_-]{0,63}$\"},"                      \
    "\"partitions\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":4096},"                        \
    "\"replication_factor\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9},"                   \
    "\"index\":{\"type\":\"string\"},\"compression\":{\"type\":\"string\"}," ALTERABLE
#define NODE                                                                                       \
    "{\"type\":\"object\",\"required\":[\"id\",\"state\",\"rack\",\"endpoints\"],\"properties\":{" \
    "\"id\":{\"type\":\"string\"},\"state\":{\"enum\":[\"active\",\"fenced\",\"draining\","        \
    "\"removed\"]},\"rack\":{\"type\":\"string\"},\"endpoints\":" STR_LIST                         \
    ",\"node_epoch\":{\"type\":\"integer\"},\"incarnation\":{\"type\":\"string\"},"                \
    "\"registered_at\":{\"type\":\"integer\"},\"heard_ms_ago\":{\"type\":[\"integer\",\"null\"]}}" \
    "}"
#define LIST_OF(name, item)                                                                        \
    "{\"type\":\"object\",\"required\":[\"" name "\"],\"properties\":{\"" name                     \
    "\":{\"type\":\"array\",\"items\":" item "}}}"
#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"

const struct kvs_schema METADATA_SCHEMAS[] = {
    {"Object", "{\"type\":\"object\"}"},
    {"TableSpec", "{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{" SPEC "}}"},
    {"TablePatch", "{\"type\":\"object\",\"properties\":{" ALTERABLE ",\"add_indexes\":" INDEXES
                   ",\"drop_indexes\":" STR_LIST "}}"},
    {"Table", "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"partitions\",\"hash\"],"
              "\"properties\":{\"id\":{\"type\":\"integer\"},\"state\":{\"type\":\"string\"},"
              "\"created_at\":{\"type\":\"integer\"},\"ttl_ms\":{\"type\":\"integer\"},"
              "\"hash\":{\"type\":\"object\",\"properties\":{\"algorithm\":{\"type\":\"string\"},"
              "\"version\":{\"type\":\"integer\"},\"seed\":{\"type\":\"string\"}}}," SPEC "}}"},
    {"Tables", LIST_OF("tables", REF("Table"))},
    {"Partitions", LIST_OF("partitions", "{\"type\":\"object\"}")},
    {"Node", NODE},
    {"Nodes", LIST_OF("nodes", REF("Node"))},
    {"Map",
     "{\"type\":\"object\",\"required\":[\"version\",\"nodes\",\"tables\",\"partitions\"],"
     "\"properties\":{\"version\":{\"type\":\"integer\"},\"cluster_id\":{\"type\":\"string\"},"
     "\"nodes\":{\"type\":\"array\",\"items\":" REF(
         "Node") "},"
                 "\"tables\":{\"type\":\"array\",\"items\":" REF(
                     "Table") "},"
                              "\"partitions\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}"
                              "}"},
    {"Cluster", "{\"type\":\"object\",\"required\":[\"status\",\"reasons\"],\"properties\":{"
                "\"status\":{\"enum\":[\"healthy\",\"degraded\",\"unavailable\"]},"
                "\"reasons\":" STR_LIST "}}"},
    {"Settings", LIST_OF("configuration", "{\"type\":\"object\"}")},
    {"SettingsPatch", "{\"type\":\"object\"}"},
    {"Quorum",
     "{\"type\":\"object\",\"required\":[\"leader\",\"term\",\"members\"],\"properties\":{"
     "\"leader\":{\"type\":[\"string\",\"null\"]},\"term\":{\"type\":\"integer\"},"
     "\"members\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}}"},
    {NULL, NULL},
};
