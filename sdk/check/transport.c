/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `transport`, on a live world: it listens, and where its endpoint is HTTP, a
 * request reaches the host and the answer comes back. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "kvs/transport.h"

#define WAIT_MS   5000u
#define BODY_SIZE 100000u

static const struct kvs_transport_ops *ops;

/* What the check answers: the body comes back, behind "echo:"; at once or a turn later. */
static struct {
    const struct kvs_host *host;
    int later;
    uint32_t dispatched;
} echo;

static void on_echo(void *self, struct kvs_request *req)
{
    char *text = kvs_arena_alloc(&req->arena, req->body.len + 5);

    (void)self;
    CHECK(text != NULL, "the arena of a request gives no memory");
    memcpy(text, "echo:", 5);
    if (req->body.len > 0) {
        memcpy(text + 5, req->body.ptr, req->body.len);
    }
    req->response.status = 200;
    req->response.content_type = "application/octet-stream";
    req->response.body = kvs_slice(text, req->body.len + 5);
    echo.host->complete(echo.host->ctx, req);
}

static const struct kvs_method ECHO_METHOD = {
    .name = "check.echo",
    .verb = KVS_VERB_POST,
    .flags = KVS_METHOD_BODY_OPTIONAL,
    .path = "/check",
    .body_types = "*",
    .summary = "Give the body back",
    .handler = on_echo,
};

static int on_route(struct kvs_request *req)
{
    CHECK(req->magic == KVS_REQUEST_MAGIC && req->size >= sizeof *req && req->done != NULL &&
              req->header != NULL && req->transport != NULL,
          "route gets a request that is not filled");
    CHECK(req->loop == echo.host->loop_current(echo.host->ctx),
          "route is called on loop %u for a request of loop %u",
          echo.host->loop_current(echo.host->ctx), req->loop);
    req->method = &ECHO_METHOD;
    req->service = NULL;
    (void)snprintf(req->id, sizeof req->id, "check");
    if (kvs_slice_eq_str(req->target, "/refused")) {
        kvs_problem(req, &(struct kvs_problem){.status = 404, .code = "not_found"}, "nothing here");
        return KVS_ENOTFOUND;
    }
    CHECK(kvs_slice_eq_str(req->target, "/check?a=%00b"), "the target arrives as '%.*s'",
          (int)req->target.len, req->target.ptr);
    return 0;
}

static void on_later(struct kvs_task *task)
{
    on_echo(NULL, KVS_CONTAINER_OF(task, struct kvs_request, task));
}

static void on_dispatch(struct kvs_request *req)
{
    echo.dispatched++;
    if (echo.later) {
        req->task.run = on_later;
        kvs_post(echo.host, req->loop, &req->task);
    } else {
        on_echo(NULL, req);
    }
}

/* ---- listening ---------------------------------------------------------------------------------
 */

static void open_and_start(struct world *w, uint32_t loop_count)
{
    const struct kvs_opt *listen = check_option(check.plugin, "listen");
    const char *sets[CHECK_SET_MAX + 1];
    uint32_t n = 0;

    if (listen != NULL && (listen->type == KVS_OPT_LIST || listen->type == KVS_OPT_STR)) {
        sets[n++] = "listen=127.0.0.1:0"; /* one that is given goes before */
    } else if (check.set_count == 0) {
        check_skip("it has no option 'listen': say with --set where it may listen");
    }
    for (uint32_t i = 0; i < check.set_count; i++) {
        sets[n++] = check.sets[i];
    }
    ops = check.plugin->ops;
    live_route = on_route;
    live_dispatch = on_dispatch;
    world_open(w, 1, loop_count, 1);
    echo.host = w->host;
    world_init(w, check_conf(check.plugin, sets, n));
    world_start(w);
    live_pump(w->mock, 1);
}

/* Host and port of "scheme://host:port". */
static void endpoint_split(struct world *w, char text[128], char host[64], char port[8])
{
    size_t len = ops->endpoint(w->self, 0, text, 128);
    const char *authority = strstr(text, "://"), *colon = strrchr(text, ':');

    CHECK(len > 0 && len < 128 && strlen(text) == len,
          "endpoint 0 after start is not a text as long as it returns");
    CHECK(authority != NULL && colon > authority + 3, "endpoint '%s' is not scheme://host:port",
          text);
    CHECK(strcmp(colon + 1, "0") != 0 && strlen(colon + 1) < 8 &&
              colon[1 + strspn(colon + 1, "0123456789")] == '\0',
          "endpoint '%s' has no real port", text);
    (void)snprintf(host, 64, "%.*s", (int)(colon - authority - 3), authority + 3);
    (void)snprintf(port, 8, "%s", colon + 1);
}

static int connect_to(struct world *w)
{
    char text[128], host[64], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *info = NULL;
    int fd, rc;

    endpoint_split(w, text, host, port);
    rc = getaddrinfo(host, port, &hints, &info);
    CHECK(rc == 0, "endpoint '%s': %s", text, gai_strerror(rc));
    fd = socket(info->ai_family, info->ai_socktype, info->ai_protocol);
    rc = connect(fd, info->ai_addr, info->ai_addrlen);
    CHECK(rc == 0, "connecting to its endpoint '%s': %s", text, strerror(errno));
    freeaddrinfo(info);
    return fd;
}

static void endpoints(void)
{
    struct world w;
    char text[128], host[64], port[8];

    open_and_start(&w, 2);
    endpoint_split(&w, text, host, port);
    CHECK(ops->endpoint(w.self, 1000, text, sizeof text) == 0, "endpoint 1000 exists");
    world_close(&w);
}

static void connections(void)
{
    struct world w;
    int fds[8];

    open_and_start(&w, 2);
    for (size_t i = 0; i < KVS_ARRAY_COUNT(fds); i++) {
        fds[i] = connect_to(&w);
        live_pump(w.mock, 1);
    }
    (void)close(fds[0]);
    live_pump(w.mock, 5);
    world_close(&w); /* with open connections */
    for (size_t i = 1; i < KVS_ARRAY_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
}

static void drained(void)
{
    struct world w;
    int fd;

    open_and_start(&w, 2);
    fd = connect_to(&w);
    live_pump(w.mock, 5);
    ops->drain(w.self);
    live_pump(w.mock, 5);
    world_close(&w);
    (void)close(fd);
}

static void started_again(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        struct world w;

        open_and_start(&w, 1);
        world_close(&w);
    }
}

static void capabilities(void)
{
    const struct kvs_transport_ops *o = check.plugin->ops;

    CHECK((o->call != NULL) == ((check.plugin->caps & KVS_TRANSPORT_CAP_CALL) != 0),
          "call exists if and only if caps say KVS_TRANSPORT_CAP_CALL");
}

/* ---- HTTP --------------------------------------------------------------------------------------
 */

static void open_http(struct world *w)
{
    char text[128], host[64], port[8];

    open_and_start(w, 2);
    endpoint_split(w, text, host, port);
    if (strncmp(text, "http://", 7) != 0) {
        check_skip("its endpoint is '%s', not plain HTTP", text);
    }
}

/* Sends and receives in turns with the loop, until the end of the answer is there. */
static char *exchange(struct world *w, const char *request, size_t len, const char *end)
{
    static char reply[BODY_SIZE + 4096];
    int fd = connect_to(w);
    size_t sent = 0, got = 0;

    for (uint32_t turn = 0; turn < WAIT_MS; turn++) {
        ssize_t n =
            sent < len ? send(fd, request + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

        sent += n > 0 ? (size_t)n : 0;
        live_pump(w->mock, 1);
        n = recv(fd, reply + got, sizeof reply - 1 - got, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        reply[got] = '\0';
        if (n == 0 || strstr(reply, end) != NULL) {
            break;
        }
    }
    (void)close(fd);
    live_pump(w->mock, 2);
    return reply;
}

static void http_echo(int later)
{
    static char request[BODY_SIZE + 512];
    struct world w;

    open_http(&w);
    echo.later = later;
    for (size_t body = 0; body <= BODY_SIZE; body += BODY_SIZE / 2 - 3) {
        int head = snprintf(request, sizeof request,
                            "POST /check?a=%%00b HTTP/1.1\r\nHost: check\r\nContent-Type: "
                            "text/plain\r\nContent-Length: %zu\r\n\r\n",
                            body + 5);
        const char *reply;

        memset(request + head, 'x', body);
        memcpy(request + head + body, "-end-", 6);
        echo.dispatched = 0;
        reply = exchange(&w, request, (size_t)head + body + 5, "-end-");
        CHECK(strncmp(reply, "HTTP/1.1 200", 12) == 0, "a POST of %zu bytes is answered '%.40s'",
              body + 5, reply);
        CHECK(strstr(reply, "\r\n\r\necho:") != NULL && strstr(reply, "-end-") != NULL,
              "a POST of %zu bytes: the answer's body is not the handler's", body + 5);
        CHECK(echo.dispatched == 1, "one request is dispatched %u times", echo.dispatched);
    }
    world_close(&w);
}

static void http_at_once(void)
{
    http_echo(0);
}

static void http_later(void)
{
    http_echo(1);
}

static void http_refused(void)
{
    static const char request[] = "GET /refused HTTP/1.1\r\nHost: check\r\n\r\n";
    struct world w;
    const char *reply;

    open_http(&w);
    echo.dispatched = 0;
    reply = exchange(&w, request, sizeof request - 1, "nothing here");
    CHECK(strncmp(reply, "HTTP/1.1 404", 12) == 0, "a refusal of route is answered '%.40s'", reply);
    CHECK(echo.dispatched == 0, "a request that route refused is dispatched");
    world_close(&w);
}

const struct check_case check_transport_cases[] = {
    {"call goes with KVS_TRANSPORT_CAP_CALL", capabilities},
    {"listens on a free port and says which", endpoints},
    {"takes connections, and stops with some open", connections},
    {"drains and stops", drained},
    {"starts and stops three times", started_again},
    {"HTTP: an answer given at once", http_at_once},
    {"HTTP: an answer given later", http_later},
    {"HTTP: a request that route refuses", http_refused},
    {NULL, NULL},
};
