/* SPDX-License-Identifier: MIT
 *
 * Listening sockets, one per loop and address; see rest_private.h.
 *
 * SO_REUSEPORT lets our loops share a port, but it would also let a second kvsd of the same user
 * share it silently. So the first loop binds without it once, to learn whether the port is free. */
#define _GNU_SOURCE /* SO_REUSEPORT, accept flags */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rest_private.h"

#define BACKLOG 1024

static int resolve(const char *address, struct addrinfo **ret_info, struct kvs_error *err)
{
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    char host[256];
    size_t n;
    int rc;

    if (colon == NULL || colon[1] == '\0' || (size_t)(colon - address) >= sizeof host) {
        return kvs_err(err, KVS_EINVAL, "listen: '%s' is not host:port, as in 127.0.0.1:9200",
                       address);
    }
    n = (size_t)(colon - address);
    if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
        address++;
        n -= 2;
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)n, address);
    rc = getaddrinfo(n == 0 || strcmp(host, "*") == 0 ? NULL : host, colon + 1, &hints, ret_info);
    if (rc != 0) {
        return kvs_err(err, KVS_EINVAL, "listen: '%s': %s", address, gai_strerror(rc));
    }
    return 0;
}

static void port_set(struct sockaddr *sa, uint16_t port)
{
    /* Both families keep the port at the same place; memcpy because of alignment rules. */
    uint16_t wire = (uint16_t)(port >> 8 | port << 8);

    memcpy((char *)sa + 2, &wire, sizeof wire);
}

static uint16_t port_get(const struct sockaddr *sa)
{
    uint8_t b[2];

    memcpy(b, (const char *)sa + 2, sizeof b);
    return (uint16_t)(b[0] << 8 | b[1]);
}

static int bind_one(const struct addrinfo *info, int shared, int *ret_fd, struct kvs_error *err)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    char text[96];
    char host[64] = "?", port[16] = "?";

    if (fd < 0) {
        return kvs_err_os(err, errno, "listen: socket");
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    }
    if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || (shared && listen(fd, BACKLOG) != 0)) {
        int e = errno;

        (void)getnameinfo(info->ai_addr, info->ai_addrlen, host, sizeof host, port, sizeof port,
                          NI_NUMERICHOST | NI_NUMERICSERV);
        (void)snprintf(text, sizeof text, "%s:%s", host, port);
        (void)close(fd);
        return e == EADDRINUSE
                   ? kvs_err(
                         err, KVS_EADDRINUSE,
                         "listen: address %s is in use by another process. Choose another port, or "
                         "0 for a free one",
                         text)
                   : kvs_err_os(err, e, "listen: %s", text);
    }
    *ret_fd = fd;
    return 0;
}

int listen_open(const char *address, uint16_t *port, int first, int *ret_fd, char *ret_endpoint,
                size_t endpoint_size, struct kvs_error *err)
{
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof bound;
    char host[64];
    struct addrinfo *info;
    int rc = resolve(address, &info, err), probe;

    if (rc != 0) {
        return rc;
    }
    if (*port != 0) {
        port_set(info->ai_addr, *port);
    }
    if (first && port_get(info->ai_addr) != 0) {
        rc = bind_one(info, 0, &probe, err);
        if (rc == 0) {
            /* An address that is bound but does not listen can be bound again with SO_REUSEADDR. */
            rc = listen(probe, 1) == 0
                     ? 0
                     : kvs_err(err, KVS_EADDRINUSE,
                               "listen: address '%s' is in use by another process. "
                               "Choose another port, or 0 for a free one",
                               address);
            (void)close(probe);
        }
    }
    rc = rc != 0 ? rc : bind_one(info, 1, ret_fd, err);
    freeaddrinfo(info);
    if (rc != 0) {
        return rc;
    }
    if (getsockname(*ret_fd, (struct sockaddr *)&bound, &bound_len) == 0 &&
        getnameinfo((struct sockaddr *)&bound, bound_len, host, sizeof host, NULL, 0,
                    NI_NUMERICHOST) == 0) {
        *port = port_get((struct sockaddr *)&bound);
        (void)snprintf(ret_endpoint, endpoint_size, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u",
                       host, *port);
    }
    return 0;
}
