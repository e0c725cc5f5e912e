/* SPDX-License-Identifier: MIT
 *
 * transport-rest: HTTP/1.1 by libmicrohttpd, one daemon per event loop and address.
 *
 * libmicrohttpd runs without threads of its own: its epoll descriptor is watched by the loop, so a
 * request is parsed, handled and answered on one thread with no hand-over. SO_REUSEPORT spreads
 * connections over the loops. Requests that wait (for a commit, a long poll) are suspended.
 *
 * It opens sockets itself, the one thing a plugin may do outside the host table: sockets are what a
 * transport is for. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rest_private.h"

#define SWEEP_MS       250u /* how often time-outs are looked at */
#define RUNS_PER_ROUND 16u  /* of one daemon before other work of the loop gets its turn */

const struct kvs_mem_tag rest_memory = {"transport.rest"};

#define AT(field) offsetof(struct rest_conf, field)

static const struct kvs_opt options[] = {
    {"listen", KVS_OPT_LIST, 0, NULL, 0, 0, AT(listen), NULL,
     "Addresses, host:port. Port 0 takes a free one. Default 127.0.0.1:9200."},
    {"connections_max", KVS_OPT_INT, 0, "10000", 1, 1000000, AT(connections_max), NULL,
     "Open connections; further ones are refused."},
    {"header_size_max", KVS_OPT_BYTES, 0, "16KiB", 4096, 1 << 20, AT(header_size_max), NULL,
     "Request line and headers of one request; more is answered 414 or 431."},
    {"body_size_max", KVS_OPT_BYTES, 0, "17MiB", 1024, 1 << 30, AT(body_size_max), NULL,
     "Body of one request; methods may set less. More is answered 413."},
    {"request_timeout", KVS_OPT_DURATION, 0, "30s", 100, 3600000, AT(request_timeout_ms), NULL,
     "Time for a request to arrive whole. Slower clients are cut."},
    {"idle_timeout", KVS_OPT_DURATION, 0, "60s", 100, 86400000, AT(idle_timeout_ms), NULL,
     "How long a connection may rest between requests."},
    {"gzip_size_min", KVS_OPT_BYTES, 0, "16KiB", 0, 1 << 30, AT(gzip_size_min), NULL,
     "Answers of JSON from this size on are compressed if the client accepts gzip; 0: never."},
    {"tls.certificate", KVS_OPT_STR, 0, NULL, 0, 4096, AT(tls_certificate), NULL,
     "PEM file: certificate and chain. With tls.key: HTTPS. Read again on SIGHUP."},
    {"tls.key", KVS_OPT_STR, 0, NULL, 0, 4096, AT(tls_key), NULL,
     "PEM file: private key of tls.certificate. Read again on SIGHUP."},
    {"tls.client_ca", KVS_OPT_STR, 0, NULL, 0, 4096, AT(tls_client_ca), NULL,
     "PEM file: authority whose signature every client certificate must bear."},
    KVS_OPTS_END,
};

/* ---- one daemon on its loop --------------------------------------------------------------------
 */

static void run_daemon(struct server *s)
{
    MHD_UNSIGNED_LONG_LONG timeout = 1;

    for (uint32_t i = 0; i < RUNS_PER_ROUND; i++) {
        (void)MHD_run(s->daemon);
        if (MHD_get_timeout(s->daemon, &timeout) != MHD_YES || timeout > 0) {
            return;
        }
    }
}

static void on_kick(struct kvs_task *task)
{
    struct server *s = KVS_CONTAINER_OF(task, struct server, kick);

    s->kicked = 0;
    if (s->daemon != NULL) {
        run_daemon(s);
    }
}

void server_kick(struct server *s)
{
    const struct kvs_host *host = s->rest->host;

    if (!s->kicked) {
        s->kicked = 1;
        s->kick.run = on_kick;
        host->defer(host->ctx, &s->kick);
    }
}

static void on_events(void *arg, uint32_t events)
{
    (void)events;
    run_daemon(arg);
}

/* Cut connections whose request does not arrive, and those that rest too long. shutdown() only: the
 * daemon finds the end of the stream and cleans up. */
static void on_sweep(void *arg)
{
    struct server *s = arg;
    const struct rest_conf *conf = s->rest->conf;
    uint64_t now = kvs_mono_ns(s->rest->host);

    for (struct connection *c = s->connections; c != NULL; c = c->next) {
        uint64_t age_ms = (now - c->since_ns) / 1000000u;
        int arriving = c->active != NULL && !c->active->dispatched;

        if ((arriving && age_ms > conf->request_timeout_ms) ||
            (c->active == NULL && age_ms > conf->idle_timeout_ms)) {
            (void)shutdown(c->fd, SHUT_RDWR);
        }
    }
    run_daemon(s);
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct server *s = arg;
    const struct kvs_host *host = s->rest->host;
    struct connection *c = *socket_context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

        c = kvs_calloc(host, &rest_memory, sizeof *c);
        if (c == NULL || info == NULL) {
            return; /* works without time-outs */
        }
        c->fd = info->connect_fd;
        c->since_ns = kvs_mono_ns(host);
        c->next = s->connections;
        if (c->next != NULL) {
            c->next->prev = c;
        }
        s->connections = c;
        *socket_context = c;
        host->metric_add(host->ctx, s->rest->connections, 1);
    } else if (c != NULL) {
        if (c->prev != NULL) {
            c->prev->next = c->next;
        } else {
            s->connections = c->next;
        }
        if (c->next != NULL) {
            c->next->prev = c->prev;
        }
        *socket_context = NULL;
        kvs_free(host, &rest_memory, c, sizeof *c);
        host->metric_add(host->ctx, s->rest->connections, -1);
    }
}

KVS_PRINTF(2, 0)
static void on_mhd_log(void *arg, const char *fmt, va_list args)
{
    const struct server *s = arg;
    char text[256];

    (void)vsnprintf(text, sizeof text, fmt, args);
    KVS_LOG(s->rest->host, KVS_LOG_DEBUG, "libmicrohttpd", "message='%s'", text);
}

/* Targets stay as sent: the router decodes once, and keys may hold %00. */
static size_t keep_escapes(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text);
}

static void start_on_loop(void *arg)
{
    struct server *s = arg;
    const struct rest_conf *conf = s->rest->conf;
    const struct kvs_host *host = s->rest->host;
    const union MHD_DaemonInfo *info;
    struct MHD_OptionItem plain = {MHD_OPTION_END, 0, NULL};
    /* Resumed connections are found by server_kick(), not by a system call per answer. */
    unsigned flags = MHD_USE_EPOLL | (MHD_ALLOW_SUSPEND_RESUME & ~MHD_USE_ITC) | MHD_USE_ERROR_LOG;

    if (s->rest->tls != NULL) {
        flags |= MHD_USE_TLS;
    }
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, exchange_handle, s, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, s,
        MHD_OPTION_LISTEN_SOCKET, s->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)((uint64_t)conf->connections_max / host->loop_count + 1),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)conf->header_size_max + 8192,
        MHD_OPTION_URI_LOG_CALLBACK, exchange_begin, s, MHD_OPTION_NOTIFY_COMPLETED,
        exchange_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, s, MHD_OPTION_ARRAY,
        s->rest->tls != NULL ? tls_options(s->rest->tls) : &plain, MHD_OPTION_END);
    if (s->daemon == NULL) {
        s->rc =
            kvs_err(&s->err, KVS_EIO, "libmicrohttpd does not start: see the log at level debug");
        return;
    }
    info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    s->rc = host->watch_start(host->ctx, info->epoll_fd, KVS_WATCH_READ, on_events, s, &s->watch,
                              &s->err);
    if (s->rc == 0) {
        s->timer = host->timer_start(host->ctx, SWEEP_MS, SWEEP_MS, on_sweep, s);
        s->rc = s->timer == NULL ? kvs_err(&s->err, KVS_ENOMEM, "out of memory") : 0;
    }
}

static void stop_on_loop(void *arg)
{
    struct server *s = arg;
    const struct kvs_host *host = s->rest->host;

    if (s->timer != NULL) {
        host->timer_stop(host->ctx, s->timer);
    }
    if (s->watch != NULL) {
        host->watch_stop(host->ctx, s->watch);
    }
    if (s->daemon == NULL) {
        return;
    }
    /* libmicrohttpd refuses to stop with suspended connections. */
    for (struct connection *c = s->connections; c != NULL; c = c->next) {
        if (c->active != NULL) {
            exchange_abort(c->active);
        }
    }
    run_daemon(s);
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
    exchange_spare_free(s);
}

static void drain_on_loop(void *arg)
{
    struct server *s = arg;

    /* The listening socket stays open but is not accepted from: closed with the daemon. */
    (void)MHD_quiesce_daemon(s->daemon);
}

/* ---- the plugin --------------------------------------------------------------------------------
 */

static int rest_check(const void *conf, struct kvs_error *err)
{
    return tls_check(conf, err);
}

static int rest_init(const struct kvs_host *host, const void *conf, void **ret_self,
                     struct kvs_error *err)
{
    static const struct kvs_metric CONNECTIONS = {
        "kvs_rest_connections",
        KVS_METRIC_GAUGE,
        0,
        "",
        "Open HTTP connections.",
        "At plugins.transport.rest.connections_max further clients are refused."};
    struct rest *rest = kvs_calloc(host, &rest_memory, sizeof *rest);
    int rc;

    if (rest == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    rest->host = host;
    rest->conf = conf;
    rest->connections = host->metric(host->ctx, &CONNECTIONS, "");
    rc = tls_new(host, conf, &rest->tls, err);
    if (rc != 0) {
        kvs_free(host, &rest_memory, rest, sizeof *rest);
        return rc;
    }
    *ret_self = rest;
    return 0;
}

static int start_address(struct rest *rest, const char *address, struct kvs_error *err)
{
    const struct kvs_host *host = rest->host;
    char endpoint[80] = "";
    uint16_t port = 0;
    uint32_t n;

    for (uint32_t loop = 0; loop < host->loop_count; loop++) {
        struct server *s;
        int rc;

        if (rest->server_count == SERVER_MAX) {
            return kvs_err(err, KVS_ETOOMANY, "listen: more than %u loops and addresses",
                           SERVER_MAX);
        }
        s = kvs_calloc(host, &rest_memory, sizeof *s);
        if (s == NULL) {
            return kvs_err(err, KVS_ENOMEM, "out of memory");
        }
        s->rest = rest;
        s->loop = loop;
        rest->servers[rest->server_count++] = s;
        s->listen_fd = -1;
        rc = listen_open(address, &port, loop == 0, &s->listen_fd, endpoint, sizeof endpoint, err);
        if (rc != 0) {
            return rc;
        }
        host->run_on(host->ctx, loop, start_on_loop, s);
        if (s->rc != 0) {
            return kvs_err(err, s->rc, "%s", s->err.msg);
        }
    }
    n = atomic_load_explicit(&rest->endpoint_count, memory_order_relaxed);
    if (n < KVS_ARRAY_COUNT(rest->endpoints)) {
        (void)snprintf(rest->endpoints[n], sizeof rest->endpoints[0], "%s://%s",
                       rest->tls != NULL ? "https" : "http", endpoint);
        atomic_store_explicit(&rest->endpoint_count, n + 1, memory_order_release);
    }
    return 0;
}

static void rest_stop(void *self)
{
    struct rest *rest = self;
    const struct kvs_host *host = rest->host;

    for (uint32_t i = 0; i < rest->server_count; i++) {
        struct server *s = rest->servers[i];

        host->run_on(host->ctx, s->loop, stop_on_loop, s);
        if (s->listen_fd >= 0 && s->rc != 0) {
            (void)close(s->listen_fd);
        }
        kvs_free(host, &rest_memory, s, sizeof *s);
    }
    rest->server_count = 0;
}

static int rest_start(void *self, struct kvs_error *err)
{
    struct rest *rest = self;
    int rc = 0;

    if (rest->conf->listen.count == 0) {
        rc = start_address(rest, "127.0.0.1:9200", err);
    }
    for (uint64_t i = 0; i < rest->conf->listen.count && rc == 0; i++) {
        rc = start_address(rest, rest->conf->listen.items[i], err);
    }
    if (rc != 0) {
        rest_stop(rest);
    }
    return rc;
}

static void rest_fini(void *self)
{
    struct rest *rest = self;

    tls_free(rest->tls);
    kvs_free(rest->host, &rest_memory, rest, sizeof *rest);
}

static int rest_reload(void *self, const void *conf, struct kvs_error *err)
{
    struct rest *rest = self;

    (void)conf; /* file names need a restart; their contents do not */
    return rest->tls == NULL ? 0 : tls_reload(rest->tls, err);
}

static size_t rest_endpoint(void *self, uint32_t i, char *buf, size_t buf_size)
{
    struct rest *rest = self;
    int n;

    if (i >= atomic_load_explicit(&rest->endpoint_count, memory_order_acquire)) {
        return 0;
    }
    n = snprintf(buf, buf_size, "%s", rest->endpoints[i]);
    return n < 0 || (size_t)n >= buf_size ? 0 : (size_t)n;
}

static void rest_drain(void *self)
{
    struct rest *rest = self;

    atomic_store_explicit(&rest->draining, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < rest->server_count; i++) {
        struct server *s = rest->servers[i];

        rest->host->run_on(rest->host->ctx, s->loop, drain_on_loop, s);
    }
}

static const struct kvs_transport_ops ops = {
    .size = sizeof ops,
    .endpoint = rest_endpoint,
    .drain = rest_drain,
};

KVS_PLUGIN(.kind = KVS_KIND_TRANSPORT, .name = "rest", .version = "1.0.0",
           .summary = "HTTP/1.1 with JSON, by libmicrohttpd", .opts = options,
           .conf_size = sizeof(struct rest_conf), .ops = &ops, .check = rest_check,
           .init = rest_init, .start = rest_start, .stop = rest_stop, .fini = rest_fini,
           .reload = rest_reload);
