/* SPDX-License-Identifier: MIT
 *
 * Kills a server in the middle of writes, again and again, and looks at what is left.
 *
 *   crash_writer KVSD CONFIGURATION DATA_DIR CYCLES CONNECTIONS
 *
 * Each connection has a thread with a few keys of its own and puts {"n": N, "pad": ..} with rising
 * N on one after another. After a random time: SIGKILL, start, and then for every key
 *   - the item is there if a put of it was acknowledged, with the acknowledged N or one that was
 *     under way when the server died;
 *   - its bytes are those of one put, whole;
 *   - the index of N finds it under the N it has, and under no other. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEYS            4
#define CONNECTIONS_MAX 256
#define ANSWER_MAX      (1u << 20)

struct key {
    unsigned acked, sent; /* 0: never */
};

struct client {
    int fd;
    char *answer; /* [ANSWER_MAX] */
    int status;
    char *body;
    size_t body_len;
};

struct writer {
    pthread_t thread;
    unsigned index, seed, acked;
    struct key keys[KEYS];
};

static const char *kvsd, *config, *data_dir;
static char host[64];
static int port;
static pid_t server;
static struct writer writers[CONNECTIONS_MAX];
static unsigned problems;

static void die(const char *what)
{
    perror(what);
    if (server > 0) {
        (void)kill(server, SIGKILL);
    }
    exit(1);
}

/* ---- a small HTTP client -----------------------------------------------------------------------
 */

static int client_open(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 20};
    int on = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        return -1;
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return 0;
}

static void client_init(struct client *c)
{
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->answer = malloc(ANSWER_MAX + 1);
    if (c->answer == NULL) {
        die("malloc");
    }
}

static void client_fini(struct client *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    free(c->answer);
}

static int send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0) {
            return -1;
        }
        p += sent;
        n -= (size_t)sent;
    }
    return 0;
}

/* 0 with status and body, -1 if the connection broke. */
static int receive(struct client *c)
{
    size_t len = 0, want = 0;
    char *end = NULL;

    while (end == NULL || len < want) {
        ssize_t n = len < ANSWER_MAX ? recv(c->fd, c->answer + len, ANSWER_MAX - len, 0) : 0;

        if (n <= 0) {
            return -1;
        }
        len += (size_t)n;
        c->answer[len] = '\0';
        if (end == NULL && (end = strstr(c->answer, "\r\n\r\n")) != NULL) {
            const char *length = strstr(c->answer, "Content-Length: ");

            c->body = end + 4;
            c->body_len = length == NULL || length > end ? 0 : strtoul(length + 16, NULL, 10);
            want = (size_t)(c->body - c->answer) + c->body_len;
        }
    }
    c->status = atoi(c->answer + 9);
    return 0;
}

static int ask(struct client *c, const char *method, const char *path, const char *body)
{
    char request[2048];
    int n = snprintf(request, sizeof request,
                     "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     method, path, host, strlen(body), body);

    if (c->fd < 0 && client_open(c) != 0) {
        return -1;
    }
    return send_all(c->fd, request, (size_t)n) != 0 ? -1 : receive(c);
}

/* ---- the server --------------------------------------------------------------------------------
 */

static int read_endpoint(const char *path)
{
    char text[1024] = "";
    const char *at;
    FILE *f = fopen(path, "re");

    if (f == NULL) {
        return -1;
    }
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    (void)fclose(f);
    at = strstr(text, "127.0.0.1:");
    port = at == NULL ? 0 : atoi(at + 10);
    (void)snprintf(host, sizeof host, "127.0.0.1:%d", port);
    return port > 0 ? 0 : -1;
}

static int ready(void)
{
    struct client c;
    int rc;

    client_init(&c);
    rc = ask(&c, "GET", "/readyz", "");
    rc = rc == 0 && c.status == 200;
    client_fini(&c);
    return rc;
}

static void server_start(void)
{
    char endpoints[4096], dir[4096];

    (void)snprintf(endpoints, sizeof endpoints, "%s/endpoints.json", data_dir);
    (void)snprintf(dir, sizeof dir, "node.data_dir=%s", data_dir);
    (void)unlink(endpoints);
    server = fork();
    if (server < 0) {
        die("fork");
    }
    if (server == 0) {
        (void)execl(kvsd, kvsd, "-c", config, "--set", dir, "--set",
                    "plugins.transport.rest.listen=127.0.0.1:0", "--set", "node.log.level=warn",
                    (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1200; i++) {
        if (waitpid(server, NULL, WNOHANG) == server) {
            server = 0;
            errno = 0;
            die("the server ended while it started");
        }
        if (read_endpoint(endpoints) == 0 && ready()) {
            return;
        }
        (void)usleep(50000);
    }
    die("the server is not ready after a minute");
}

static void server_kill(void)
{
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    server = 0;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static int value_of(unsigned n, unsigned pad, char *buf, size_t size)
{
    return snprintf(
        buf, size, "{\"n\":%u,\"pad\":\"%.*s%u\"}", n, (int)pad,
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
        n);
}

static void *write_keys(void *arg)
{
    struct writer *w = arg;
    struct client c;

    client_init(&c);
    for (unsigned turn = 0;; turn++) {
        struct key *k = &w->keys[turn % KEYS];
        char path[64], value[512];

        k->sent++;
        (void)snprintf(path, sizeof path, "/v1/tables/t/items/k%u-%u", w->index, turn % KEYS);
        (void)value_of(k->sent, (unsigned)rand_r(&w->seed) % 160, value, sizeof value);
        if (ask(&c, "PUT", path, value) != 0) {
            break; /* killed */
        }
        if (c.status != 201 && c.status != 204) {
            (void)fprintf(stderr, "crash_writer: PUT answered %d: %s\n", c.status, c.body);
            problems++;
            break;
        }
        k->acked = k->sent;
        w->acked++;
    }
    client_fini(&c);
    return NULL;
}

/* ---- looking -----------------------------------------------------------------------------------
 */

static void complain(const struct writer *w, unsigned key, const char *what)
{
    (void)fprintf(stderr, "crash_writer: k%u-%u: %s (acknowledged %u, sent %u)\n", w->index, key,
                  what, w->keys[key].acked, w->keys[key].sent);
    problems++;
}

static void check_index(struct client *c, const struct writer *w, unsigned key, unsigned n)
{
    char path[128], name[64];

    (void)snprintf(path, sizeof path, "/v1/tables/t/indexes/n/items?eq=%u&limit=1000&values=false",
                   n);
    (void)snprintf(name, sizeof name, "\"key\":\"k%u-%u\"", w->index, key);
    if (ask(c, "GET", path, "") != 0 || c->status != 200 || strstr(c->body, name) == NULL) {
        complain(w, key, "the index does not find it");
    }
}

/* True if the item is there. */
static int check_key(struct client *c, struct writer *w, unsigned key)
{
    struct key *k = &w->keys[key];
    char path[64], value[512];
    unsigned n = 0;
    int whole = 0;

    (void)snprintf(path, sizeof path, "/v1/tables/t/items/k%u-%u", w->index, key);
    if (ask(c, "GET", path, "") != 0) {
        die("the server does not answer");
    }
    if (c->status == 404 && k->acked == 0) {
        k->sent = 0;
        return 0;
    }
    if (c->status != 200 || sscanf(c->body, "{\"n\":%u,", &n) != 1) {
        complain(w, key, c->status == 404 ? "lost" : "unreadable");
        return 0;
    }
    if (n < k->acked || n > k->sent) {
        complain(w, key, n < k->acked ? "an older version than was acknowledged" : "never sent");
    }
    for (unsigned pad = 0; pad <= 160 && !whole; pad++) {
        int len = value_of(n, pad, value, sizeof value);

        whole = (size_t)len == c->body_len && memcmp(value, c->body, c->body_len) == 0;
    }
    if (!whole) {
        complain(w, key, "torn");
    }
    k->acked = k->sent = n;
    check_index(c, w, key, n);
    return 1;
}

/* The index holds an entry for each item and no other. */
static void check_index_count(struct client *c, unsigned items)
{
    unsigned entries = 0;

    if (ask(c, "GET", "/v1/tables/t/indexes/n/items?from=0&limit=1000&values=false", "") != 0) {
        die("the server does not answer");
    }
    for (const char *p = c->body; (p = strstr(p, "\"key\":")) != NULL; p++) {
        entries++;
    }
    if (entries != (items < 1000 ? items : 1000)) {
        (void)fprintf(stderr, "crash_writer: %u items, %u entries in the index\n", items, entries);
        problems++;
    }
}

static void look(unsigned count)
{
    struct client c;
    unsigned items = 0;

    client_init(&c);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < KEYS; k++) {
            items += (unsigned)check_key(&c, &writers[i], k);
        }
    }
    check_index_count(&c, items);
    client_fini(&c);
}

static void create_table(void)
{
    struct client c;

    client_init(&c);
    if (ask(&c, "POST", "/v1/tables",
            "{\"name\":\"t\",\"partitions\":8,\"indexes\":"
            "[{\"name\":\"n\",\"type\":\"number\",\"path\":\"/n\"}]}") != 0 ||
        c.status != 201) {
        die("cannot create the table");
    }
    client_fini(&c);
}

int main(int argc, char **argv)
{
    unsigned cycles, count, acked = 0, seed = (unsigned)time(NULL);

    if (argc != 6) {
        (void)fputs("usage: crash_writer KVSD CONFIGURATION DATA_DIR CYCLES CONNECTIONS\n", stderr);
        return 2;
    }
    kvsd = argv[1];
    config = argv[2];
    data_dir = argv[3];
    cycles = (unsigned)atoi(argv[4]);
    count = (unsigned)atoi(argv[5]);
    count = count > CONNECTIONS_MAX ? CONNECTIONS_MAX : count;
    server_start();
    create_table();
    for (unsigned cycle = 0; cycle < cycles && problems == 0; cycle++) {
        for (unsigned i = 0; i < count; i++) {
            writers[i].index = i;
            writers[i].seed = seed + i * 7919u + cycle;
            if (pthread_create(&writers[i].thread, NULL, write_keys, &writers[i]) != 0) {
                die("pthread_create");
            }
        }
        (void)usleep(20000 + (useconds_t)rand_r(&seed) % 400000);
        server_kill();
        for (unsigned i = 0; i < count; i++) {
            (void)pthread_join(writers[i].thread, NULL);
        }
        server_start();
        look(count);
    }
    for (unsigned i = 0; i < count; i++) {
        acked += writers[i].acked;
    }
    (void)kill(server, SIGTERM);
    (void)waitpid(server, NULL, 0);
    (void)printf("crash_writer: %u kills, %u connections, %u acknowledged writes, %u problems\n",
                 cycles, count, acked, problems);
    return problems == 0 ? 0 : 1;
}
