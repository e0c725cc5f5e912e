/* SPDX-License-Identifier: MIT
 *
 * Settings of the whole cluster, changed while it runs by PATCH /v1/configuration; see state.h. */
#include <inttypes.h>

#include "kvs/support.h"
#include "state.h"

const struct setting_def SETTINGS[SETTING_COUNT] = {
    [SETTING_SESSION_TIMEOUT] = {"session_timeout", "ms", 3000, 500, 600000, 0,
                                 "a storage node that was not heard for this long is fenced"},
    [SETTING_HEARTBEAT_INTERVAL] = {"heartbeat_interval", "ms", 500, 50, 60000, 0,
                                    "how often a storage node reports"},
    [SETTING_LEASE] =
        {"lease", "ms", 2000, 200, 600000, 0,
         "how long a leader may serve strong reads after an answered heartbeat; must be "
         "below session_timeout"},
    [SETTING_REPLICA_LAG_TIME_MAX] =
        {"replica_lag_time_max", "ms", 10000, 1000, 600000, 0,
         "a follower that did not catch up for this long leaves the ISR"},
    [SETTING_DEFAULT_PARTITIONS] = {"default_partitions", "", 8, 1, KVS_PARTITION_COUNT_MAX, 0,
                                    "partitions of a table that does not say"},
    [SETTING_TABLE_COUNT_MAX] = {"table_count_max", "", 1000, 1, META_TABLE_MAX, 0,
                                 "tables the cluster may hold"},
};

uint64_t setting_get(const struct meta_state *s, enum meta_setting which)
{
    uint64_t v = s->settings[which];

    return v == UINT64_MAX ? SETTINGS[which].fallback : v;
}

int setting_find(const char *name)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        if (strcmp(SETTINGS[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int setting_parse(const struct setting_def *def, const json_t *value, uint64_t *ret_v,
                  struct kvs_error *err)
{
    int is_duration = strcmp(def->unit, "ms") == 0;
    uint64_t v = 0;
    char low[32], high[32];

    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        v = (uint64_t)json_integer_value(value);
    } else if (!is_duration || !json_is_string(value) ||
               kvs_duration_parse(kvs_slice(json_string_value(value), json_string_length(value)),
                                  &v) != 0) {
        return kvs_err(err, KVS_EINVAL, "'%s' wants %s", def->name,
                       is_duration ? "a duration such as '3s', or milliseconds" : "a whole number");
    }
    if (v < def->min || v > def->max) {
        if (is_duration) {
            return kvs_err(err, KVS_EINVAL, "'%s' must be %s to %s", def->name,
                           kvs_duration_text(def->min, low), kvs_duration_text(def->max, high));
        }
        return kvs_err(err, KVS_EINVAL, "'%s' must be %" PRIu64 " to %" PRIu64, def->name, def->min,
                       def->max);
    }
    *ret_v = v;
    return 0;
}
