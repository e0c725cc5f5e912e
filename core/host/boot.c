/* SPDX-License-Identifier: MIT
 *
 * The life of the process: configuration, start, signals, stop.
 *
 *   start   configuration -> data directory -> loops -> init -> routes -> start -> listening
 *   run     the main thread waits for signals, readiness and its own pulse; it runs no event loop
 *   stop    transports drain -> services drain -> requests under way end -> stop -> loops end ->
 * fini */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/log.h"
#include "obs/metrics.h"
#include "obs/panic.h"
#include "sched/sched.h"

#define LISTEN_GRACE_MS 1000u /* endpoints.json waits for readiness at most this long */
#define PULSE_MS        1000

static const char *const LEVELS[] = {"error", "warn", "info", "debug", NULL};
static const char *const FORMATS[] = {"auto", "human", "logfmt", "json", NULL};

#define AT(field) offsetof(struct kvs__node_conf, field)

const struct kvs_opt kvs__node_opts[] = {
    {"id", KVS_OPT_STR, KVS_OPT_REQUIRED, NULL, 1, 63, AT(id), NULL,
     "Name of this server, unique in the cluster. Never changes once there is data."},
    {"rack", KVS_OPT_STR, 0, NULL, 0, 63, AT(rack), NULL,
     "Where the server stands; replicas of a partition are spread over racks."},
    {"data_dir", KVS_OPT_STR, KVS_OPT_REQUIRED, NULL, 1, 3000, AT(data_dir), NULL,
     "Directory of everything this server keeps. Made if absent; one kvsd at a time."},
    {"threads", KVS_OPT_STR, 0, "auto", 1, 8, AT(threads), NULL,
     "Event loops: a number, or auto for one per processor."},
    {"shutdown_timeout", KVS_OPT_DURATION, 0, "30s", 100, 3600000, AT(shutdown_timeout_ms), NULL,
     "How long an orderly stop may take before the process ends by force."},
    {"plugin_dir", KVS_OPT_LIST, 0, NULL, 0, 0, AT(plugin_dir), NULL,
     "Directories searched for plugins before the built-in ones."},
    {"log.level", KVS_OPT_ENUM, KVS_OPT_RELOAD, "info", 0, 0, AT(log_level), LEVELS,
     "What is logged: this level and worse."},
    {"log.format", KVS_OPT_ENUM, 0, "auto", 0, 0, AT(log_format), FORMATS,
     "auto: human on a terminal, logfmt otherwise."},
    {"log.levels", KVS_OPT_LIST, KVS_OPT_RELOAD, NULL, 0, 0, AT(log_levels), NULL,
     "Levels of single components: [service.storage=debug, transport.rest=warn]."},
    KVS_OPTS_END,
};

static int event_fd = -1, signal_fd = -1;

/* ---- configuration -----------------------------------------------------------------------------
 */

static void check_threads(struct kvs__conf *c, const struct kvs__node_conf *node, uint32_t *ret_n)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t n = 0;

    *ret_n = cpus < 1 ? 1 : cpus > (long)KVS__LOOP_MAX ? KVS__LOOP_MAX : (uint32_t)cpus;
    if (node->threads == NULL || strcmp(node->threads, "auto") == 0) {
        return;
    }
    if (kvs_u64_parse(kvs_slice_str(node->threads), &n) != 0 || n < 1 || n > KVS__LOOP_MAX) {
        const struct kvs__node *at =
            kvs__conf_opt_node(kvs__node_get(kvs__conf_root(c), "node"), "threads");

        kvs__conf_error(c, at, 0, "node.threads", "'%s' is neither auto nor a number 1 to %u",
                        node->threads, KVS__LOOP_MAX);
        return;
    }
    *ret_n = (uint32_t)n;
}

/* "service.storage=debug": 0 with the parts, or KVS_EINVAL. */
static int level_split(const char *text, char component[64], uint32_t *ret_level)
{
    const char *eq = strchr(text, '=');

    if (eq == NULL || eq == text || eq - text > 63) {
        return KVS_EINVAL;
    }
    (void)snprintf(component, 64, "%.*s", (int)(eq - text), text);
    for (uint32_t i = 0; LEVELS[i] != NULL; i++) {
        if (strcmp(eq + 1, LEVELS[i]) == 0) {
            *ret_level = i;
            return 0;
        }
    }
    return KVS_EINVAL;
}

static void log_levels_apply(const struct kvs__node_conf *node)
{
    char component[64];
    uint32_t level;

    kvs__log_level_set_all(node->log_level);
    for (uint64_t i = 0; i < node->log_levels.count; i++) {
        if (level_split(node->log_levels.items[i], component, &level) == 0) {
            kvs__log_level_set(component, level);
        }
    }
}

static void load(struct kvs__conf *c, struct kvs__node_conf *node, uint32_t *ret_threads)
{
    struct kvs__node *map = kvs__node_get(kvs__conf_root(c), "node");
    char component[64];
    uint32_t level;

    memset(node, 0, sizeof *node);
    if (kvs__conf_errors(c) > 0) {
        return; /* the text could not be read: what follows from that would only hide it */
    }
    kvs__conf_apply(c, map, "node", kvs__node_opts, node);
    check_threads(c, node, ret_threads);
    for (uint64_t i = 0; i < node->log_levels.count; i++) {
        if (level_split(node->log_levels.items[i], component, &level) != 0) {
            kvs__conf_error(c, kvs__conf_opt_node(map, "log.levels"), 0, "node.log.levels",
                            "'%s' is not component=error|warn|info|debug",
                            node->log_levels.items[i]);
        }
    }
    (void)kvs__loader_dirs(&node->plugin_dir);
    kvs__instances_load(c);
}

static int load_or_complain(const struct kvs__run_args *args, struct kvs__conf **ret_c,
                            struct kvs__node_conf *node, uint32_t *ret_threads)
{
    struct kvs__conf *c = kvs__conf_load(args->conf_path, args->sets, args->set_count);

    if (c == NULL) {
        (void)fputs("kvsd: out of memory\n", stderr);
        return 1;
    }
    load(c, node, ret_threads);
    *ret_c = c;
    if (kvs__conf_errors(c) == 0) {
        return 0;
    }
    kvs__conf_errors_print(c, stderr);
    (void)fprintf(stderr, "kvsd: %u error%s in the configuration\n", kvs__conf_errors(c),
                  kvs__conf_errors(c) == 1 ? "" : "s");
    return 2;
}

int kvs__check(const struct kvs__run_args *args)
{
    struct kvs__node_conf node;
    struct kvs__conf *c = NULL;
    uint32_t threads;
    int rc = load_or_complain(args, &c, &node, &threads);

    if (rc == 0) {
        (void)printf("%s: ok, %u plugins\n", args->conf_path, kvs__instance_count());
    }
    kvs__conf_free(c);
    return rc;
}

int kvs__print_config(const struct kvs__run_args *args)
{
    struct kvs__node_conf node;
    struct kvs__conf *c = NULL;
    struct kvs_buf b;
    uint32_t threads;
    int rc = load_or_complain(args, &c, &node, &threads);

    if (rc == 0) {
        kvs_buf_init(&b, kvs__mem_host(), &kvs__mem_core);
        kvs__conf_print(&b, kvs__node_get(kvs__conf_root(c), "node"), "node", kvs__node_opts,
                        &node);
        for (uint32_t i = 0; i < kvs__instance_count(); i++) {
            const struct kvs__instance *in = kvs__instance(i);

            if (in->plugin->opts == NULL || in->plugin->opts->type == KVS_OPT_END) {
                kvs_buf_printf(&b, "%s: {}\n", in->conf_path);
            }
            kvs__conf_print(&b, in->node, in->conf_path, in->plugin->opts, in->conf);
        }
        (void)fwrite(b.ptr, 1, b.len, stdout);
        kvs_buf_fini(&b);
    }
    kvs__conf_free(c);
    return rc;
}

/* Plugins can be listed without a configuration: only node.plugin_dir matters. */
static struct kvs__conf *load_dirs(const struct kvs__run_args *args)
{
    struct kvs__conf *c = kvs__conf_load(args->conf_path, args->sets, args->set_count);
    const struct kvs__node *dir;
    struct kvs__node_conf node = {0};

    if (c == NULL) {
        return NULL;
    }
    dir = kvs__conf_opt_node(kvs__conf_root(c), "node.plugin_dir");
    if (dir != NULL) {
        kvs__conf_apply(c, kvs__node_get(kvs__conf_root(c), "node"), "node", kvs__node_opts, &node);
    }
    (void)kvs__loader_dirs(&node.plugin_dir);
    return c;
}

static void list_one(void *arg, const char *file, const struct kvs_plugin *plugin,
                     const char *why_not)
{
    (void)arg;
    if (plugin == NULL) {
        (void)printf("%-24s broken: %s\n", strrchr(file, '/') + 1, why_not);
    } else {
        (void)printf("%s-%-*s %-8s abi %u.%u  %s\n", kvs__kind_names[plugin->kind],
                     (int)(23 - strlen(kvs__kind_names[plugin->kind])), plugin->name,
                     plugin->version, plugin->abi_major, plugin->abi_minor, plugin->summary);
    }
}

int kvs__list_plugins(const struct kvs__run_args *args)
{
    struct kvs__conf *c = load_dirs(args);

    kvs__loader_each(list_one, NULL);
    kvs__conf_free(c);
    return 0;
}

int kvs__help_plugin(const struct kvs__run_args *args, const char *name)
{
    struct kvs__conf *c = load_dirs(args);
    const struct kvs_plugin *plugin;
    struct kvs_error err = {0};
    const char *path, *dash = strchr(name, '-');
    char kind[32];
    int rc = 0;

    (void)snprintf(kind, sizeof kind, "%.*s", dash == NULL ? 0 : (int)(dash - name), name);
    if (dash == NULL || kvs__loader_open(kind, dash + 1, &plugin, &path, &err) != 0) {
        (void)fprintf(stderr, "kvsd: '%s': %s. See kvsd --list-plugins\n", name,
                      dash == NULL ? "a plugin is named <kind>-<name>" : err.msg);
        rc = 2;
    } else {
        (void)printf("%s %s (plugin ABI %u.%u)\n%s\n%s\n\nplugins.%s.%s:\n", name, plugin->version,
                     plugin->abi_major, plugin->abi_minor, plugin->summary, path, kind,
                     plugin->name);
        if (plugin->opts == NULL || plugin->opts->type == KVS_OPT_END) {
            (void)puts("  no options");
        }
        kvs__conf_help(stdout, plugin->opts);
    }
    kvs__conf_free(c);
    return rc;
}

/* ---- endpoints ---------------------------------------------------------------------------------
 */

/* {"endpoints":{"rest":["http://127.0.0.1:9200"]},"node_id":"..","pid":1} */
static void endpoints_text(struct kvs_buf *json, struct kvs_buf *pairs, const char *node_id)
{
    int first = 1;

    kvs_buf_append_str(json, "{\"endpoints\":{");
    for (uint32_t i = 0; i < kvs__instance_count(); i++) {
        const struct kvs__instance *in = kvs__instance(i);
        const struct kvs_transport_ops *ops = in->plugin->ops;
        char text[256];

        if (in->plugin->kind != KVS_KIND_TRANSPORT) {
            continue;
        }
        kvs_buf_printf(json, "%s\"%s\":[", first ? "" : ",", in->plugin->name);
        first = 0;
        for (uint32_t k = 0; ops->endpoint(in->self, k, text, sizeof text) > 0; k++) {
            kvs_buf_append_str(json, k == 0 ? "" : ",");
            kvs_json_str(json, kvs_slice_str(text));
            kvs_buf_printf(pairs, " %s=%s", in->plugin->name, text);
        }
        kvs_buf_append_str(json, "]");
    }
    kvs_buf_append_str(json, "},\"node_id\":");
    kvs_json_str(json, kvs_slice_str(node_id));
    kvs_buf_printf(json, ",\"pid\":%ld}\n", (long)getpid());
    kvs_buf_append(pairs, "", 1);
}

static void announce(const struct kvs__node_conf *node, const char *event, int write_file)
{
    struct kvs_buf json, pairs;
    struct kvs_error err = {0};

    kvs_buf_init(&json, kvs__mem_host(), &kvs__mem_core);
    kvs_buf_init(&pairs, kvs__mem_host(), &kvs__mem_core);
    endpoints_text(&json, &pairs, node->id);
    if (!pairs.failed) {
        KVS__LOG(KVS_LOG_INFO, "host", event, "node=%s%s", node->id, pairs.ptr);
    }
    if (write_file &&
        (json.failed || kvs__datadir_put("endpoints.json", kvs_buf_slice(&json), &err) != 0)) {
        KVS__LOG(KVS_LOG_WARN, "host", "endpoints_not_written", "error='%s'", err.msg);
    }
    kvs_buf_fini(&json);
    kvs_buf_fini(&pairs);
}

/* ---- start -------------------------------------------------------------------------------------
 */

static void on_ready_changed(void)
{
    uint64_t one = 1;

    if (write(event_fd, &one, sizeof one) < 0) {
        return; /* the counter is full: the main thread is awake already */
    }
}

static int signals_open(struct kvs_error *err)
{
    sigset_t set;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL); /* every thread made later inherits this */
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_fd < 0 || event_fd < 0) {
        return kvs_err_os(err, errno, "signalfd");
    }
    kvs__ready_changed = on_ready_changed;
    return 0;
}

/* As many connections as the machine allows; never insist on a number. */
static void raise_open_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int start(struct kvs__node_conf *node, uint32_t threads, struct kvs_error *err)
{
    int rc = signals_open(err);

    raise_open_files();
    rc = rc != 0 ? rc : kvs__datadir_open(node->data_dir, node->id, &node->data_dir, err);
    rc = rc != 0 ? rc : kvs__loops_start(threads, err);
    if (rc != 0) {
        return rc;
    }
    KVS__LOG(KVS_LOG_INFO, "host", "starting", "version=%s node=%s data_dir='%s' loops=%u build=%s",
             KVS_VERSION, node->id, node->data_dir, threads, kvs__build_id());
    for (uint32_t i = 0; i < kvs__instance_count(); i++) {
        kvs__table_fill(kvs__instance(i), node);
    }
    rc = kvs__router_add(&kvs__builtin_ops, NULL, err);
    rc = rc != 0 ? rc : kvs__instances_init(err);
    rc = rc != 0 ? rc : kvs__openapi_make(err);
    rc = rc != 0 ? rc : kvs__instances_start(err);
    return rc;
}

/* ---- run ---------------------------------------------------------------------------------------
 */

static void reload(const struct kvs__run_args *args, struct kvs__conf *c)
{
    struct kvs__conf *fresh = kvs__conf_load(args->conf_path, args->sets, args->set_count);
    struct kvs__node_conf node = {0};

    KVS__LOG(KVS_LOG_INFO, "host", "reloading", "file='%s'", args->conf_path);
    (void)sd_notify(0, "RELOADING=1");
    if (fresh != NULL) {
        kvs__conf_apply(fresh, kvs__node_get(kvs__conf_root(fresh), "node"), "node", kvs__node_opts,
                        &node);
    }
    if (fresh == NULL || kvs__conf_errors(fresh) > 0) {
        if (fresh != NULL) {
            kvs__conf_errors_print(fresh, stderr);
        }
        KVS__LOG(KVS_LOG_ERROR, "host", "reload_refused",
                 "reason='the file has errors; nothing changed'");
        kvs__conf_free(fresh);
    } else {
        log_levels_apply(&node);
        kvs__instances_reload(fresh);
        kvs__conf_adopt(c, fresh); /* instances may point into it */
    }
    (void)sd_notify(0, "READY=1");
}

static void watchdog_pulse(uint64_t watchdog_ms)
{
    for (uint32_t i = 0; i < kvs__loop_count(); i++) {
        uint64_t silence = kvs__loop_silence_ms(i);

        if (watchdog_ms != 0 && silence > watchdog_ms) {
            KVS__LOG(KVS_LOG_ERROR, "host", "loop_stuck", "loop=%u silent_ms=%llu", i,
                     (unsigned long long)silence);
            return; /* systemd will act */
        }
    }
    if (watchdog_ms != 0) {
        (void)sd_notify(0, "WATCHDOG=1");
    }
}

/* Until a signal asks for the end. */
static void run(const struct kvs__run_args *args, struct kvs__conf *c,
                const struct kvs__node_conf *node)
{
    uint64_t began = kvs__mono_ns(), watchdog_us = 0, drained;
    int announced = 0, was_ready = 0;

    if (sd_watchdog_enabled(0, &watchdog_us) <= 0) {
        watchdog_us = 0;
    }
    for (;;) {
        struct pollfd fds[2] = {{signal_fd, POLLIN, 0}, {event_fd, POLLIN, 0}};
        struct signalfd_siginfo info;
        int ready = kvs__ready(NULL);

        if (ready && !was_ready) {
            announce(node, "ready", !announced);
            (void)sd_notify(0, "READY=1");
            announced = 1;
        } else if (!announced && kvs__mono_ns() - began > LISTEN_GRACE_MS * 1000000ULL) {
            announce(node, "listening", 1);
            announced = 1;
        }
        was_ready = ready;
        (void)poll(fds, 2,
                   watchdog_us == 0 || watchdog_us > 2000000 ? PULSE_MS
                                                             : (int)(watchdog_us / 2000));
        if (read(event_fd, &drained, sizeof drained) < 0) {
            drained = 0; /* nothing changed: the poll ended for another reason */
        }
        watchdog_pulse(watchdog_us / 1000);
        while (read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
            if (info.ssi_signo != SIGHUP) {
                KVS__LOG(KVS_LOG_INFO, "host", "stopping", "signal=%s",
                         info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
                return;
            }
            reload(args, c);
        }
    }
}

/* ---- stop --------------------------------------------------------------------------------------
 */

static void too_late(int number)
{
    static const char text[] = "kvsd: the orderly stop took longer than node.shutdown_timeout\n";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
        _exit(1);
    }
    _exit(1);
}

static _Atomic uint32_t draining;

static void drained_one(void *arg)
{
    (void)arg;
    (void)atomic_fetch_sub(&draining, 1);
    on_ready_changed();
}

static int still_waiting(void)
{
    return atomic_load(&draining) > 0;
}

static int still_answering(void)
{
    return kvs__requests_in_flight() > 0;
}

static void wait_while(int (*busy)(void), uint64_t timeout_ms)
{
    uint64_t end = kvs__mono_ns() + timeout_ms * 1000000u;

    while (busy() && kvs__mono_ns() < end) {
        struct pollfd fd = {event_fd, POLLIN, 0};
        uint64_t drained;

        (void)poll(&fd, 1, 5);
        if (read(event_fd, &drained, sizeof drained) < 0) {
            drained = 0;
        }
    }
}

static void drain(uint64_t timeout_ms)
{
    for (uint32_t i = 0; i < kvs__instance_count(); i++) {
        const struct kvs__instance *in = kvs__instance(i);

        if (in->plugin->kind == KVS_KIND_TRANSPORT && in->state == KVS__STARTED) {
            ((const struct kvs_transport_ops *)in->plugin->ops)->drain(in->self);
        }
    }
    for (uint32_t i = kvs__instance_count(); i > 0; i--) {
        const struct kvs__instance *in = kvs__instance(i - 1);
        const struct kvs_service_ops *ops = in->plugin->ops;

        if (in->plugin->kind == KVS_KIND_SERVICE && in->state == KVS__STARTED &&
            ops->drain != NULL) {
            (void)atomic_fetch_add(&draining, 1);
            ops->drain(in->self, drained_one, NULL);
            wait_while(still_waiting, timeout_ms);
        }
    }
    wait_while(still_answering, timeout_ms);
}

static void stop(const struct kvs__node_conf *node)
{
    (void)sd_notify(0, "STOPPING=1");
    (void)signal(SIGALRM, too_late);
    (void)alarm((unsigned)((node->shutdown_timeout_ms + 999) / 1000));
    drain(node->shutdown_timeout_ms * 3 / 4);
    kvs__instances_stop();
    kvs__loops_stop();
    kvs__instances_fini();
}

static void free_rest(void)
{
    kvs__router_fini();
    kvs__openapi_fini();
    kvs__metrics_fini();
    kvs__ready_fini();
    kvs__datadir_close();
}

int kvs__run(const struct kvs__run_args *args)
{
    struct kvs__node_conf node;
    struct kvs__conf *c = NULL;
    struct kvs_error err = {0};
    uint32_t threads = 1;
    int rc = load_or_complain(args, &c, &node, &threads);

    if (rc != 0) {
        kvs__conf_free(c);
        return rc;
    }
    kvs__panic_install();
    kvs__log_format_set((enum kvs__log_format)node.log_format);
    log_levels_apply(&node);
    rc = start(&node, threads, &err);
    if (rc == 0) {
        run(args, c, &node);
    } else {
        kvs__log(KVS_LOG_ERROR, "host", "start_failed", "error='%s'", err.msg);
    }
    stop(&node);
    if (rc == 0) {
        KVS__LOG(KVS_LOG_INFO, "host", "stopped", "node=%s", node.id);
    }
    free_rest();
    kvs__conf_free(c);
    return rc == 0 ? 0 : 1;
}
