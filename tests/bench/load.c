/* SPDX-License-Identifier: MIT
 *
 * A load generator for HTTP/1.1: one thread, epoll, keep-alive, one request under way per
 * connection.
 *
 *   load -p PORT -o get    -u /v1/tables/t/items/k{}               random numbers below -k for {}
 *   load -p PORT -o put    -u /v1/tables/t/items/k{} -v 100
 *   load -p PORT -o batch  -u /v1/tables/t/batch -b 100            random keys, NDJSON
 *   load -p PORT -o fill   -u /v1/tables/t/batch -b 100 -k 1000000 every key once, then ends
 *   load -p PORT -o etcd                                           PUT through etcd's gateway
 *   load -o resp -k 1000000 -v 100                                 the same items for redis-cli
 * --pipe
 *
 *   -c connections (64)  -s seconds (3)  -w seconds before counting begins (0.3)
 *   -k keys (100000)  -v value bytes (100)  -b operations of a batch (100)  -i tags: index every
 * item
 *
 * Prints: requests per second, then p50, p99, p99.9, maximum in microseconds, then failures.
 *
 * {} is 15 digits, so a key k{} has 16 bytes. A value is hexadecimal noise with its key in front.
 * Latency is measured from the write of a request to the last byte of its answer and counted in
 * buckets 1.6 % wide. A closed loop: a server that stalls is asked less, so compare percentiles of
 * runs at full load with each other only. */
#define _GNU_SOURCE /* getopt, memmem */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTION_MAX 1024u
#define IN_SIZE        (4u << 20)
#define SUB_BITS       6u
#define BUCKETS        (64u << SUB_BITS)

enum op { OP_GET, OP_PUT, OP_BATCH, OP_FILL, OP_ETCD, OP_RESP };

struct connection {
    int fd;
    char *out;
    size_t out_cap, out_len, out_at;
    char *in;
    size_t in_len, need; /* need: of the whole answer, once its head is there */
    uint64_t begun_ns;
};

static struct {
    enum op op;
    int port;
    const char *target;
    uint32_t connections, batch, value_bytes, tags;
    uint64_t keys;
    double seconds, warm_up;
} opt = {.op = OP_GET,
         .target = "/",
         .connections = 64,
         .batch = 100,
         .value_bytes = 100,
         .keys = 100000,
         .seconds = 3,
         .warm_up = 0.3};

static uint64_t buckets[BUCKETS], counted, failures, max_ns, next_key;
static uint64_t rng = 0x9e3779b97f4a7c15u;
static char noise[1 << 16];
static int epoll_fd = -1;

static void die(const char *what)
{
    (void)fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t dice(uint64_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % n;
}

/* ---- percentiles -------------------------------------------------------------------------------
 */

static uint32_t bucket_of(uint64_t ns)
{
    uint32_t top = ns < (1u << SUB_BITS) ? SUB_BITS : 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t shift = top - SUB_BITS;

    return (shift << SUB_BITS) + (uint32_t)(ns >> shift);
}

static double bucket_us(uint32_t b)
{
    uint32_t shift = b < (2u << SUB_BITS) ? 0 : (b >> SUB_BITS) - 1;
    uint64_t low = (uint64_t)(b - (shift << SUB_BITS)) << shift;

    return (double)(low + ((1ull << shift) >> 1)) / 1000.0;
}

static double percentile(double p)
{
    uint64_t want = (uint64_t)(p * (double)counted), seen = 0;

    for (uint32_t b = 0; b < BUCKETS; b++) {
        seen += buckets[b];
        if (seen > want) {
            return bucket_us(b);
        }
    }
    return (double)max_ns / 1000.0;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static char *room(struct connection *c, size_t n)
{
    if (c->out_cap - c->out_len < n) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
        if (c->out == NULL) {
            die("memory");
        }
    }
    return c->out + c->out_len;
}

static void put_text(struct connection *c, const char *text, size_t n)
{
    memcpy(room(c, n), text, n);
    c->out_len += n;
}

static void put_str(struct connection *c, const char *text)
{
    put_text(c, text, strlen(text));
}

static void put_number(struct connection *c, uint64_t v, uint32_t digits)
{
    char *to = room(c, digits);

    c->out_len += digits;
    for (uint32_t i = digits; i > 0; i--, v /= 10) {
        to[i - 1] = (char)('0' + v % 10);
    }
}

static void put_value(struct connection *c, uint64_t key)
{
    uint32_t n = opt.value_bytes < 16 ? 0 : opt.value_bytes - 16;

    if (n > 0) {
        put_str(c, "v");
        put_number(c, key, 15);
    } else {
        n = opt.value_bytes;
    }
    for (uint32_t part; n > 0; n -= part) {
        part = n < 4096 ? n : 4096;
        put_text(c, noise + dice(sizeof noise - 4096), part);
    }
}

static void put_target(struct connection *c, const char *verb, uint64_t key)
{
    const char *mark = strstr(opt.target, "{}");

    put_str(c, verb);
    if (mark == NULL) {
        put_str(c, opt.target);
    } else {
        put_text(c, opt.target, (size_t)(mark - opt.target));
        put_number(c, key, 15);
        put_str(c, mark + 2);
    }
    put_str(c, " HTTP/1.1\r\nHost: localhost\r\n");
}

static void put_operation(struct connection *c, uint64_t key)
{
    put_str(c, "{\"op\":\"put\",\"key\":\"k");
    put_number(c, key, 15);
    put_str(c, "\",\"value\":\"");
    put_value(c, key);
    if (opt.tags != 0) {
        put_str(c, "\",\"indexes\":{\"tag\":\"t");
        put_number(c, dice(opt.tags), 6);
        put_str(c, "\"}}\n");
    } else {
        put_str(c, "\"}\n");
    }
}

/* Leave room for Content-Length, fill it in when the body is known. */
static size_t body_begin(struct connection *c, const char *type)
{
    put_str(c, "Content-Type: ");
    put_str(c, type);
    put_str(c, "\r\nContent-Length: 000000000\r\n\r\n");
    return c->out_len;
}

static void body_end(struct connection *c, size_t begin)
{
    size_t n = c->out_len - begin;

    for (char *p = c->out + begin - 5; n > 0; n /= 10) {
        *p-- = (char)('0' + n % 10);
    }
}

static void put_batch(struct connection *c)
{
    size_t begin;

    put_target(c, "POST ", 0);
    begin = body_begin(c, "application/x-ndjson");
    for (uint32_t i = 0; i < opt.batch; i++) {
        if (opt.op == OP_BATCH) {
            put_operation(c, dice(opt.keys));
        } else if (next_key < opt.keys) {
            put_operation(c, next_key++);
        }
    }
    body_end(c, begin);
}

static void put_base64(struct connection *c, const char *bytes, size_t n)
{
    static const char LETTERS[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)bytes[i] << 16;
        char four[4];

        v |= i + 1 < n ? (uint32_t)(unsigned char)bytes[i + 1] << 8 : 0;
        v |= i + 2 < n ? (uint32_t)(unsigned char)bytes[i + 2] : 0;
        for (uint32_t k = 0; k < 4; k++) {
            four[k] = i + k > n ? '=' : LETTERS[v >> (18 - 6 * k) & 63];
        }
        put_text(c, four, 4);
    }
}

static void put_etcd(struct connection *c)
{
    struct connection plain = {0};
    uint64_t key = dice(opt.keys);
    size_t begin;

    put_str(c, "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\n");
    begin = body_begin(c, "application/json");
    put_str(&plain, "k");
    put_number(&plain, key, 15);
    put_value(&plain, key);
    put_str(c, "{\"key\":\"");
    put_base64(c, plain.out, 16);
    put_str(c, "\",\"value\":\"");
    put_base64(c, plain.out + 16, plain.out_len - 16);
    put_str(c, "\"}");
    body_end(c, begin);
    free(plain.out);
}

static void request_make(struct connection *c)
{
    uint64_t key = dice(opt.keys);
    size_t begin;

    c->out_len = c->out_at = 0;
    switch (opt.op) {
    case OP_PUT:
        put_target(c, "PUT ", key);
        begin = body_begin(c, "text/plain");
        put_value(c, key);
        body_end(c, begin);
        break;
    case OP_BATCH:
    case OP_FILL:
        put_batch(c);
        break;
    case OP_ETCD:
        put_etcd(c);
        break;
    default:
        put_target(c, "GET ", key);
        put_str(c, "\r\n");
    }
}

/* ---- connections -------------------------------------------------------------------------------
 */

static void send_more(struct connection *c)
{
    while (c->out_at < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};

            (void)epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
            return;
        }
        if (n < 0) {
            die("send");
        }
        c->out_at += (size_t)n;
    }
}

static void request_begin(struct connection *c)
{
    request_make(c);
    c->in_len = c->need = 0;
    c->begun_ns = now_ns();
    send_more(c);
}

static void connection_open(struct connection *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    int on = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->in = malloc(IN_SIZE);
    if (c->fd < 0 || c->in == NULL || connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0) {
        die("connect");
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0) {
        die("epoll");
    }
}

/* Bytes of the whole answer, 0 while its head is not there. */
static size_t answer_size(const struct connection *c)
{
    static const char LENGTH[] = "\r\nContent-Length: ";
    const char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4), *at;
    size_t head;

    if (end == NULL) {
        return 0;
    }
    head = (size_t)(end - c->in) + 4;
    at = memmem(c->in, head, LENGTH, sizeof LENGTH - 1);
    return head + (at == NULL ? 0 : strtoul(at + sizeof LENGTH - 1, NULL, 10));
}

static void count(struct connection *c, int counting)
{
    uint64_t ns = now_ns() - c->begun_ns;
    int ok = c->in_len > 9 && c->in[9] == '2';

    if (!ok && failures++ == 0) {
        (void)fprintf(stderr, "load: first failure: %.300s\n", c->in);
    }
    if (counting) {
        buckets[bucket_of(ns)]++;
        counted++;
        max_ns = ns > max_ns ? ns : max_ns;
    }
}

/* 1 if an answer is complete. */
static int receive(struct connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - 1 - c->in_len, 0);

    if (n < 0 && errno == EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        die("the server closed a connection");
    }
    c->in_len += (size_t)n;
    c->in[c->in_len] = '\0';
    if (c->need == 0) {
        c->need = answer_size(c);
    }
    return c->need != 0 && c->in_len >= c->need;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

static void run(struct connection *all)
{
    uint64_t begun = now_ns(), from = begun + (uint64_t)(opt.warm_up * 1e9), now = begun;
    uint64_t until = from + (uint64_t)(opt.seconds * 1e9);
    uint32_t busy = opt.connections;

    if (opt.op == OP_FILL) {
        from = begun;
        until = UINT64_MAX;
    }
    for (uint32_t i = 0; i < opt.connections; i++) {
        request_begin(&all[i]);
    }
    while (now < until && busy > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll_fd, events, 64, 1000);

        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;

            if ((events[i].events & EPOLLOUT) != 0) {
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};

                (void)epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
                send_more(c);
            }
            if ((events[i].events & EPOLLIN) != 0 && receive(c)) {
                count(c, c->begun_ns >= from);
                if (opt.op == OP_FILL && next_key >= opt.keys) {
                    busy--;
                } else {
                    request_begin(c);
                }
            }
        }
        now = now_ns();
    }
    opt.seconds = (double)(now - from) / 1e9;
}

static void print_resp(void)
{
    struct connection c = {0};

    for (uint64_t key = 0; key < opt.keys; key++) {
        char head[80];

        c.out_len = 0;
        put_str(&c, "*3\r\n$3\r\nSET\r\n$16\r\nk");
        put_number(&c, key, 15);
        (void)snprintf(head, sizeof head, "\r\n$%u\r\n", opt.value_bytes);
        put_str(&c, head);
        put_value(&c, key);
        put_str(&c, "\r\n");
        (void)fwrite(c.out, 1, c.out_len, stdout);
    }
    free(c.out);
}

static enum op op_named(const char *name)
{
    static const char *const NAMES[] = {"get", "put", "batch", "fill", "etcd", "resp"};

    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(name, NAMES[i]) == 0) {
            return (enum op)i;
        }
    }
    (void)fprintf(stderr, "load: -o get|put|batch|fill|etcd|resp\n");
    exit(2);
}

static void options(int argc, char **argv)
{
    for (int o; (o = getopt(argc, argv, "p:o:u:c:s:w:k:v:b:i:")) != -1;) {
        switch (o) {
        case 'p':
            opt.port = atoi(optarg);
            break;
        case 'o':
            opt.op = op_named(optarg);
            break;
        case 'u':
            opt.target = optarg;
            break;
        case 'c':
            opt.connections = (uint32_t)atoi(optarg);
            break;
        case 's':
            opt.seconds = atof(optarg);
            break;
        case 'w':
            opt.warm_up = atof(optarg);
            break;
        case 'k':
            opt.keys = strtoull(optarg, NULL, 10);
            break;
        case 'v':
            opt.value_bytes = (uint32_t)atoi(optarg);
            break;
        case 'b':
            opt.batch = (uint32_t)atoi(optarg);
            break;
        case 'i':
            opt.tags = (uint32_t)atoi(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (opt.connections < 1 || opt.connections > CONNECTION_MAX || opt.keys < 1) {
        (void)fprintf(stderr, "load: 1 to %u connections, at least one key\n", CONNECTION_MAX);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct connection all[CONNECTION_MAX];
    struct timespec t;

    options(argc, argv);
    (void)clock_gettime(CLOCK_REALTIME, &t);
    rng ^= (uint64_t)t.tv_nsec << 20 ^ (uint64_t)t.tv_sec;
    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = "0123456789abcdef"[dice(16)];
    }
    if (opt.op == OP_RESP) {
        print_resp();
        return 0;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < opt.connections; i++) {
        connection_open(&all[i]);
    }
    run(all);
    (void)printf("%.0f %.0f %.0f %.0f %.0f %llu\n", (double)counted / opt.seconds, percentile(0.5),
                 percentile(0.99), percentile(0.999), (double)max_ns / 1000.0,
                 (unsigned long long)failures);
    for (uint32_t i = 0; i < opt.connections; i++) {
        (void)close(all[i].fd);
        free(all[i].in);
        free(all[i].out);
    }
    return 0;
}
