/* SPDX-License-Identifier: MIT
 *
 * What the files of core/host share.
 *
 *   loader.c     shared objects and their descriptors       (libltdl)
 *   instance.c   instances: options, order, lifecycle
 *   table.c      struct kvs_host for an instance
 *   fs.c         struct kvs_fs below the data directory; lock, format, identity
 *   router.c     verb and target to method; parameters      (any thread, read-only after boot)
 *   request.c    dispatch, completion, calls between services
 *   builtin.c    /healthz /readyz /metrics /version /openapi.json /v1/plugins
 *   openapi.c    the OpenAPI document
 *   ready.c      conditions of readiness
 *   boot.c       start, signals, stop */
#ifndef KVS_CORE_HOST_PRIVATE_H
#define KVS_CORE_HOST_PRIVATE_H

#include "conf/conf.h"
#include "host/host.h"
#include "kvs/plugin.h"
#include "kvs/service.h"
#include "kvs/transport.h"

/* ---- node settings -----------------------------------------------------------------------------
 */

struct kvs__node_conf {
    const char *id, *rack, *data_dir, *threads;
    uint64_t shutdown_timeout_ms;
    struct kvs_str_list plugin_dir;
    uint32_t log_level, log_format;
    struct kvs_str_list log_levels;
};

extern const struct kvs_opt kvs__node_opts[];

/* ---- loader ------------------------------------------------------------------------------------
 */

/* Directories searched for plugins, in order; ends with NULL. Fixed after the first call. */
const char *const *kvs__loader_dirs(const struct kvs_str_list *configured);
/* KVS_ENOTFOUND, KVS_EABI, KVS_EINVAL; err holds the true reason. ret_path: static. */
int kvs__loader_open(const char *kind, const char *name, const struct kvs_plugin **ret_plugin,
                     const char **ret_path, struct kvs_error *err);
/* Calls fn for each loadable or broken file of the directories. */
void kvs__loader_each(void (*fn)(void *arg, const char *file, const struct kvs_plugin *plugin,
                                 const char *why_not),
                      void *arg);
extern const char *const kvs__kind_names[]; /* by enum kvs_kind; ends with NULL at KVS_KIND_COUNT */

/* ---- instances ---------------------------------------------------------------------------------
 */

enum kvs__instance_state {
    KVS__LOADED = 0,
    KVS__CHECKED,
    KVS__INITED,
    KVS__STARTED,
    KVS__STOPPED,
    KVS__FINISHED,
    KVS__FAILED,
};

#define KVS__INSTANCE_MAX 64u

struct kvs__instance {
    const struct kvs_plugin *plugin;
    const char *path;
    char component[64]; /* "persistence.wal" */
    char conf_path[80]; /* "plugins.persistence.wal" */
    struct kvs__node *node;
    void *conf; /* filled option structure */
    void *self;
    _Atomic uint32_t state; /* enum kvs__instance_state; loops look at it while others start */
    struct kvs_host host;
};

/* All instances in start order, [kvs__instance_count()]. */
struct kvs__instance *kvs__instance(uint32_t i);
uint32_t kvs__instance_count(void);
/* Load every plugin the configuration names, fill and check its options. Problems go to the list.
 */
void kvs__instances_load(struct kvs__conf *c);
/* init and start all; on failure what began is unwound. */
int kvs__instances_init(struct kvs_error *err);
int kvs__instances_start(struct kvs_error *err);
void kvs__instances_stop(void);
void kvs__instances_fini(void);
/* SIGHUP: reload instances whose RELOAD options changed; says what needs a restart. */
void kvs__instances_reload(struct kvs__conf *fresh);
const char *kvs__instance_state_name(enum kvs__instance_state state);

void kvs__table_fill(struct kvs__instance *i, const struct kvs__node_conf *node);

/* ---- disk --------------------------------------------------------------------------------------
 */

/* Create, lock and identify the data directory; sets the root of kvs__fs. KVS_ELOCKED, KVS_EFORMAT,
 * KVS_ECONFLICT (belongs to another node id), KVS_EACCES, KVS_EIO. ret_path: absolute, static. */
int kvs__datadir_open(const char *path, const char *node_id, const char **ret_path,
                      struct kvs_error *err);
void kvs__datadir_close(void);
/* Write a small file atomically (tmp, fsync, rename). */
int kvs__datadir_put(const char *name, struct kvs_slice text, struct kvs_error *err);
extern const struct kvs_fs kvs__fs;

/* ---- requests ----------------------------------------------------------------------------------
 */

struct kvs__route {
    const struct kvs_method *method;
    void *self;
    struct kvs_metric_ref *count[6]; /* by status / 100; [0] unused */
    struct kvs_metric_ref *seconds;
};

/* Before loops run. KVS_ECONFLICT: two methods with one name or place. */
int kvs__router_add(const struct kvs_service_ops *ops, void *self, struct kvs_error *err);
void kvs__router_fini(void);
/* The i-th method, NULL behind the last. */
const struct kvs__route *kvs__router_method(uint32_t i);
/* 0, or 1 with the response filled. */
int kvs__router_route(struct kvs_request *req);

void kvs__request_dispatch(struct kvs_request *req);
void kvs__request_complete(struct kvs_request *req);
int kvs__request_call(const struct kvs_host *host, struct kvs_call *call, struct kvs_error *err);
uint64_t kvs__requests_in_flight(void);

extern const struct kvs_service_ops kvs__builtin_ops;
/* The document, made at boot from all methods. */
int kvs__openapi_make(struct kvs_error *err);
struct kvs_slice kvs__openapi(void);
void kvs__openapi_fini(void);

/* ---- readiness ---------------------------------------------------------------------------------
 */

void kvs__ready_set(const char *who, const char *condition, uint32_t ok, const char *reason);
/* 1 if every condition holds; appends {"ready":..,"conditions":[..]} if b is given. */
int kvs__ready(struct kvs_buf *b);
void kvs__ready_fini(void);
extern void (*kvs__ready_changed)(void); /* called after each change, any thread */

#endif
