/* SPDX-License-Identifier: MIT
 *
 * struct kvs_host for an instance: thin calls into the rest of the core. */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "obs/panic.h"
#include "sched/sched.h"

static void table_log(void *ctx, uint32_t level, const char *event, const char *fmt, ...)
{
    const struct kvs__instance *i = ctx;
    va_list args;

    va_start(args, fmt);
    kvs__log_v(level, i->component, event, fmt, args);
    va_end(args);
}

static void *table_alloc(void *ctx, const struct kvs_mem_tag *tag, size_t size)
{
    (void)ctx;
    return kvs__mem_alloc(tag, size);
}

static void *table_realloc(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                           size_t new_size)
{
    (void)ctx;
    return kvs__mem_realloc(tag, ptr, old_size, new_size);
}

static void table_free(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    (void)ctx;
    kvs__mem_free(tag, ptr, size);
}

static uint64_t table_now_ms(void *ctx)
{
    struct timespec t;

    (void)ctx;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static uint64_t table_mono_ns(void *ctx)
{
    (void)ctx;
    return kvs__mono_ns();
}

static void table_random(void *ctx, void *buf, size_t len)
{
    char *p = buf;

    (void)ctx;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0) {
            continue; /* EINTR; anything else cannot happen with these arguments */
        }
        p += n;
        len -= (size_t)n;
    }
}

static uint32_t table_loop_current(void *ctx)
{
    (void)ctx;
    return kvs__loop_current();
}

static void table_post(void *ctx, uint32_t loop, struct kvs_task *task)
{
    (void)ctx;
    kvs__loop_post(loop, task);
}

static void table_defer(void *ctx, struct kvs_task *task)
{
    (void)ctx;
    kvs__loop_defer(task);
}

static void table_run_on(void *ctx, uint32_t loop, void (*fn)(void *arg), void *arg)
{
    (void)ctx;
    kvs__loop_run_on(loop, fn, arg);
}

static struct kvs_timer *table_timer_start(void *ctx, uint64_t delay_ms, uint64_t period_ms,
                                           void (*fn)(void *arg), void *arg)
{
    (void)ctx;
    return kvs__timer_start(delay_ms, period_ms, fn, arg);
}

static void table_timer_stop(void *ctx, struct kvs_timer *timer)
{
    (void)ctx;
    kvs__timer_stop(timer);
}

static int table_watch_start(void *ctx, int fd, uint32_t events,
                             void (*fn)(void *arg, uint32_t events), void *arg,
                             struct kvs_watch **ret_watch, struct kvs_error *err)
{
    (void)ctx;
    return kvs__watch_start(fd, events, fn, arg, ret_watch, err);
}

static void table_watch_stop(void *ctx, struct kvs_watch *watch)
{
    (void)ctx;
    kvs__watch_stop(watch);
}

static int table_queue_new(void *ctx, const char *name, uint32_t dedicated,
                           struct kvs_queue **ret_queue, struct kvs_error *err)
{
    (void)ctx;
    (void)dedicated; /* every queue has a thread of its own: there are few */
    return kvs__queue_new(name, ret_queue, err);
}

static void table_queue_submit(void *ctx, struct kvs_queue *queue, struct kvs_work *work)
{
    (void)ctx;
    kvs__queue_submit(queue, work);
}

static void table_queue_free(void *ctx, struct kvs_queue *queue)
{
    (void)ctx;
    kvs__queue_free(queue);
}

static int table_each(void *ctx, uint32_t kind, uint32_t i, const char **ret_name,
                      const void **ret_ops, void **ret_self)
{
    (void)ctx;
    for (uint32_t n = 0; n < kvs__instance_count(); n++) {
        const struct kvs__instance *in = kvs__instance(n);

        if (in->plugin->kind != kind || in->state == KVS__CHECKED || i-- != 0) {
            continue;
        }
        if (ret_name != NULL) {
            *ret_name = in->plugin->name;
        }
        if (ret_ops != NULL) {
            *ret_ops = in->plugin->ops;
        }
        if (ret_self != NULL) {
            *ret_self = in->self;
        }
        return 0;
    }
    return KVS_ENOTFOUND;
}

static int table_find(void *ctx, uint32_t kind, const char *name, const void **ret_ops,
                      void **ret_self, struct kvs_error *err)
{
    const char *kind_name = kind < KVS_KIND_COUNT ? kvs__kind_names[kind] : "?", *found;

    if (name == NULL) {
        if (table_each(ctx, kind, 1, NULL, NULL, NULL) == 0) {
            return kvs_err(err, KVS_ECONFLICT, "several %s plugins are loaded: name one",
                           kind_name);
        }
        if (table_each(ctx, kind, 0, NULL, ret_ops, ret_self) != 0) {
            return kvs_err(err, KVS_ENOTFOUND, "no %s plugin is loaded", kind_name);
        }
        return 0;
    }
    for (uint32_t i = 0; table_each(ctx, kind, i, &found, ret_ops, ret_self) == 0; i++) {
        if (strcmp(found, name) == 0) {
            return 0;
        }
    }
    return kvs_err(err, KVS_ENOTFOUND, "plugin '%s-%s' is not loaded. Add plugins.%s.%s", kind_name,
                   name, kind_name, name);
}

static struct kvs_metric_ref *table_metric(void *ctx, const struct kvs_metric *def,
                                           const char *labels)
{
    (void)ctx;
    return kvs__metric(def, labels);
}

static void table_metric_add(void *ctx, struct kvs_metric_ref *ref, int64_t delta)
{
    (void)ctx;
    kvs__metric_add(ref, delta);
}

static void table_metric_set(void *ctx, struct kvs_metric_ref *ref, int64_t value)
{
    (void)ctx;
    kvs__metric_set(ref, value);
}

static void table_metric_observe(void *ctx, struct kvs_metric_ref *ref, uint64_t value)
{
    (void)ctx;
    kvs__metric_observe(ref, value);
}

static void table_metric_free(void *ctx, struct kvs_metric_ref *ref)
{
    (void)ctx;
    kvs__metric_free(ref);
}

static void table_ready_set(void *ctx, const char *condition, uint32_t ok, const char *reason)
{
    const struct kvs__instance *i = ctx;

    kvs__ready_set(i->component, condition, ok, reason);
}

static int table_route(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    return kvs__router_route(req);
}

static void table_dispatch(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    kvs__request_dispatch(req);
}

static void table_complete(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    kvs__request_complete(req);
}

static int table_call(void *ctx, struct kvs_call *call, struct kvs_error *err)
{
    const struct kvs__instance *i = ctx;

    return kvs__request_call(&i->host, call, err);
}

/* KVS_FAULT_POINT=name in the environment makes that step fail with an input/output error. */
static int table_fault(void *ctx, const char *point)
{
    static const char *armed;
    static int looked;

    (void)ctx;
    if (KVS_UNLIKELY(!looked)) {
        armed =
            getenv("KVS_FAULT_POINT"); /* set before the process began: any thread reads the same */
        looked = 1;
    }
    return armed != NULL && strcmp(armed, point) == 0 ? KVS_EIO : 0;
}

static KVS_NORETURN void table_panic(void *ctx, const char *file, int line, const char *what)
{
    (void)ctx;
    kvs__panic(file, line, what);
}

void kvs__table_fill(struct kvs__instance *i, const struct kvs__node_conf *node)
{
    (void)table_fault(i, ""); /* look into the environment while there is one thread */
    i->host = (struct kvs_host){
        .size = sizeof i->host,
        .abi_major = KVS_ABI_MAJOR,
        .abi_minor = KVS_ABI_MINOR,
        .ctx = i,
        .node_id = node->id,
        .rack = node->rack,
        .data_dir = node->data_dir,
        .version = KVS_VERSION,
        .loop_count = kvs__loop_count(),
        .log_level = kvs__log_level(i->component),
        .fs = &kvs__fs,
        .log = table_log,
        .alloc = table_alloc,
        .realloc = table_realloc,
        .free = table_free,
        .now_ms = table_now_ms,
        .mono_ns = table_mono_ns,
        .random = table_random,
        .loop_current = table_loop_current,
        .post = table_post,
        .defer = table_defer,
        .run_on = table_run_on,
        .timer_start = table_timer_start,
        .timer_stop = table_timer_stop,
        .watch_start = table_watch_start,
        .watch_stop = table_watch_stop,
        .queue_new = table_queue_new,
        .queue_submit = table_queue_submit,
        .queue_free = table_queue_free,
        .find = table_find,
        .each = table_each,
        .metric = table_metric,
        .metric_add = table_metric_add,
        .metric_set = table_metric_set,
        .metric_observe = table_metric_observe,
        .metric_free = table_metric_free,
        .ready_set = table_ready_set,
        .route = table_route,
        .dispatch = table_dispatch,
        .complete = table_complete,
        .call = table_call,
        .fault = table_fault,
        .panic = table_panic,
    };
}
