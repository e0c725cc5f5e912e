/* SPDX-License-Identifier: MIT
 *
 * What the files of transport-rest share.
 *
 *   rest.c      options, lifecycle, one libmicrohttpd daemon per event loop
 *   exchange.c  one request: target, body, dispatch, suspend and resume
 *   response.c  the answer: headers, body, gzip
 *   listen.c    sockets
 *   tls.c       certificates, client certificates, renewal
 *
 * A server is the state of one event loop. Nothing of it is touched by another thread, save
 * `draining`, and the certificates, which are replaced whole. */
#ifndef REST_PRIVATE_H
#define REST_PRIVATE_H

#include <microhttpd.h>
#include <stdatomic.h>

#include "kvs/transport.h"

#define SERVER_MAX 64u

struct rest_conf {
    struct kvs_str_list listen;
    int64_t connections_max;
    uint64_t header_size_max, body_size_max, gzip_size_min;
    uint64_t request_timeout_ms, idle_timeout_ms;
    const char *tls_certificate, *tls_key, *tls_client_ca;
};

struct rest;
struct exchange;
struct tls;

/* One TCP connection. */
struct connection {
    struct connection *next, *prev;
    int fd;
    uint64_t since_ns;       /* accepted, or last answer sent, or request began */
    struct exchange *active; /* request under way, or NULL */
};

/* One address on one event loop. */
struct server {
    struct rest *rest;
    struct MHD_Daemon *daemon;
    struct kvs_watch *watch;
    struct kvs_timer *timer;
    struct connection *connections;
    struct exchange *spare; /* free list */
    struct kvs_task kick;   /* runs the daemon at the end of the round */
    uint32_t kicked;
    uint32_t spare_count, loop, address;
    int listen_fd;
    int rc; /* of start_on_loop */
    struct kvs_error err;
};

struct rest {
    const struct kvs_host *host;
    const struct rest_conf *conf;
    _Atomic uint32_t draining;
    uint32_t server_count;
    struct server *servers[SERVER_MAX];
    _Atomic uint32_t endpoint_count; /* pairs with rest_endpoint on other threads */
    char endpoints[8][96];
    struct tls *tls; /* NULL: plain */
    struct kvs_metric_ref *connections, *refused;
};

#define EXCHANGE_FIRST_SIZE 1600u /* first chunk of a request's arena */

struct exchange {
    struct kvs_request req; /* first: they share an address */
    struct server *server;
    struct MHD_Connection *mhd;
    struct connection *connection;
    struct exchange *next_spare;
    size_t body_len, body_cap;
    char *body;
    uint32_t routed;  /* the head was looked at */
    uint32_t refused; /* by route or for its size: answer without dispatch */
    uint32_t in_dispatch;
    uint32_t dispatched, done, suspended;
    uint32_t gone; /* the connection ended before the answer: free when done */
    char first[EXCHANGE_FIRST_SIZE];
};

extern const struct kvs_mem_tag rest_memory;

/* ---- exchange.c --------------------------------------------------------------------------------
 */

void *exchange_begin(void *arg, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result exchange_handle(void *arg, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload_data,
                                size_t *upload_data_size, void **con_cls);
void exchange_completed(void *arg, struct MHD_Connection *mhd, void **con_cls,
                        enum MHD_RequestTerminationCode how);
void exchange_abort(struct exchange *x); /* stop: let a suspended connection go */

/* rest.c: have the daemon run at the end of this round, as after a connection was resumed. */
void server_kick(struct server *s);
void exchange_spare_free(struct server *s);

/* ---- response.c --------------------------------------------------------------------------------
 */

/* Queue what req.response holds. */
enum MHD_Result response_send(struct exchange *x);

/* ---- listen.c ----------------------------------------------------------------------------------
 */

/* A listening socket on "host:port", shared between loops (SO_REUSEPORT). For port 0 *port is 0 at
 * first and then the port the first loop was given. fills endpoint ("127.0.0.1:9200"). */
int listen_open(const char *address, uint16_t *port, int first, int *ret_fd, char *ret_endpoint,
                size_t endpoint_size, struct kvs_error *err);

/* ---- tls.c -------------------------------------------------------------------------------------
 */

int tls_check(const struct rest_conf *conf, struct kvs_error *err);
int tls_new(const struct kvs_host *host, const struct rest_conf *conf, struct tls **ret_tls,
            struct kvs_error *err);
int tls_reload(struct tls *tls, struct kvs_error *err);
void tls_free(struct tls *tls);
/* Options for MHD_start_daemon; ends with MHD_OPTION_END. */
const struct MHD_OptionItem *tls_options(struct tls *tls);
/* 1 if this client may speak: no client CA is configured, or its certificate is signed by it. */
int tls_client_ok(struct tls *tls, struct MHD_Connection *mhd);

#endif
