/* SPDX-License-Identifier: MIT
 *
 * Conditions of readiness, each set by the plugin it is about. */
#include <pthread.h>
#include <stdlib.h>

#include "host/host_private.h"
#include "obs/log.h"

struct condition {
    struct condition *next;
    char name[96];
    char reason[256];
    uint32_t ok;
};

static struct condition *conditions; /* guarded by: lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void (*kvs__ready_changed)(void);

static struct condition *find_locked(const char *name)
{
    struct condition **at = &conditions;

    while (*at != NULL && strcmp((*at)->name, name) != 0) {
        at = &(*at)->next;
    }
    if (*at == NULL) {
        *at = calloc(1, sizeof **at);
        if (*at != NULL) {
            (void)snprintf((*at)->name, sizeof(*at)->name, "%s", name);
            (*at)->ok = 2; /* never set before */
        }
    }
    return *at;
}

void kvs__ready_set(const char *who, const char *condition, uint32_t ok, const char *reason)
{
    char name[96];
    struct condition *c;
    int changed = 0;

    (void)snprintf(name, sizeof name, "%s.%s", who, condition);
    (void)pthread_mutex_lock(&lock);
    c = find_locked(name);
    if (c != NULL) {
        changed = c->ok != (ok != 0);
        c->ok = ok != 0;
        (void)snprintf(c->reason, sizeof c->reason, "%s", ok || reason == NULL ? "" : reason);
    }
    (void)pthread_mutex_unlock(&lock);
    if (changed) {
        if (!ok) {
            KVS__LOG(KVS_LOG_INFO, "host", "not_ready", "condition=%s reason='%s'", name,
                     reason == NULL ? "" : reason);
        }
        if (kvs__ready_changed != NULL) {
            kvs__ready_changed();
        }
    }
}

int kvs__ready(struct kvs_buf *b)
{
    int ready = 1;

    (void)pthread_mutex_lock(&lock);
    for (const struct condition *c = conditions; c != NULL; c = c->next) {
        ready = ready && c->ok;
    }
    if (b != NULL) {
        kvs_buf_printf(b, "{\"ready\":%s,\"conditions\":[", ready ? "true" : "false");
        for (const struct condition *c = conditions; c != NULL; c = c->next) {
            kvs_buf_append_str(b, c == conditions ? "{\"name\":" : ",{\"name\":");
            kvs_json_str(b, kvs_slice_str(c->name));
            kvs_buf_printf(b, ",\"ok\":%s", c->ok ? "true" : "false");
            if (!c->ok) {
                kvs_buf_append_str(b, ",\"reason\":");
                kvs_json_str(b, kvs_slice_str(c->reason));
            }
            kvs_buf_append_str(b, "}");
        }
        kvs_buf_append_str(b, "]}\n");
    }
    (void)pthread_mutex_unlock(&lock);
    return ready;
}

void kvs__ready_fini(void)
{
    while (conditions != NULL) {
        struct condition *next = conditions->next;

        free(conditions);
        conditions = next;
    }
}
