/* SPDX-License-Identifier: MIT
 *
 * What libmicrohttpd alone can do: answers every GET with the bytes and headers of an item of 100
 * bytes. One thread, external epoll and the flags of plugins/transport/rest; no routing, no item.
 *
 *   mhd_bare        prints its port */
#include <microhttpd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static char value[100];

static enum MHD_Result handle(void *arg, struct MHD_Connection *mhd, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_data_size, void **con_cls)
{
    static char seen;
    struct MHD_Response *m;
    enum MHD_Result ok;

    (void)arg;
    (void)url;
    (void)method;
    (void)version;
    (void)upload_data;
    (void)upload_data_size;
    if (*con_cls == NULL) { /* the head; the answer comes with the call after it */
        *con_cls = &seen;
        return MHD_YES;
    }
    m = MHD_create_response_from_buffer(sizeof value, value, MHD_RESPMEM_PERSISTENT);
    if (m == NULL) {
        return MHD_NO;
    }
    ok = MHD_add_response_header(m, "KVS-Request-Id", "b5916d189219ecc2");
    ok &= MHD_add_response_header(m, "Content-Type", "text/plain");
    ok &= MHD_add_response_header(m, "KVS-Partition", "3");
    ok &= MHD_add_response_header(m, "KVS-Served-By", "standalone-1");
    ok &= MHD_add_response_header(m, "ETag", "\"1-123456\"");
    ok = ok == MHD_YES ? MHD_queue_response(mhd, 200, m) : MHD_NO;
    MHD_destroy_response(m);
    return ok;
}

int main(void)
{
    struct MHD_Daemon *d;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN};

    memset(value, 'v', sizeof value);
    d = MHD_start_daemon(MHD_USE_EPOLL | (MHD_ALLOW_SUSPEND_RESUME & ~(unsigned)MHD_USE_ITC) |
                             MHD_USE_ERROR_LOG,
                         0, NULL, NULL, handle, NULL, MHD_OPTION_CONNECTION_LIMIT, 1024u,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(24 << 10), MHD_OPTION_END);
    if (d == NULL || epoll_fd < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD,
                  MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, &e) != 0) {
        (void)fprintf(stderr, "mhd_bare: libmicrohttpd does not start\n");
        return 1;
    }
    (void)printf("%u\n", (unsigned)MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT)->port);
    (void)fflush(stdout);
    for (;;) {
        MHD_UNSIGNED_LONG_LONG ms;
        int wait = MHD_get_timeout(d, &ms) == MHD_YES ? (int)ms : -1;

        (void)epoll_wait(epoll_fd, &e, 1, wait);
        (void)MHD_run(d);
    }
}
