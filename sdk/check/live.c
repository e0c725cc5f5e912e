/* SPDX-License-Identifier: MIT
 *
 * The fake host with what transports and consensus plugins need beyond it: other threads may use
 * the table, time passes by itself, descriptors can be watched, data_dir exists, requests that a
 * transport routes are answered by the check.
 *
 * The table is a copy of the fake host's; each function here takes one recursive lock and calls the
 * original. Loops are run by live_pump on the main thread, under that lock. */
#define _GNU_SOURCE /* recursive mutexes */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define WATCH_MAX 64u
#define PULSE_MS  5u

struct kvs_watch {
    int fd;
    uint32_t events, loop, used;
    void (*fn)(void *arg, uint32_t events);
    void *arg;
};

static struct {
    struct kvs_mock *mock;
    struct kvs_host host, base;
    pthread_mutex_t lock;
    pthread_t main;
    int wake[2];
    struct kvs_watch watches[WATCH_MAX];
    uint64_t last_ns;
} live;

int (*live_route)(struct kvs_request *req);
void (*live_dispatch)(struct kvs_request *req);

void live_lock(void)
{
    (void)pthread_mutex_lock(&live.lock);
}

void live_unlock(void)
{
    (void)pthread_mutex_unlock(&live.lock);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    (void)clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void wake_main(void)
{
    if (!pthread_equal(pthread_self(), live.main)) {
        (void)!write(live.wake[1], "", 1);
    }
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static void *live_alloc(void *ctx, const struct kvs_mem_tag *tag, size_t size)
{
    void *p;

    live_lock();
    p = live.base.alloc(ctx, tag, size);
    live_unlock();
    return p;
}

static void *live_realloc(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                          size_t new_size)
{
    void *p;

    live_lock();
    p = live.base.realloc(ctx, tag, ptr, old_size, new_size);
    live_unlock();
    return p;
}

static void live_free(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    live_lock();
    live.base.free(ctx, tag, ptr, size);
    live_unlock();
}

static uint64_t live_now_ms(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_REALTIME) / 1000000u;
}

static uint64_t live_mono_ns(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_MONOTONIC);
}

static void live_random(void *ctx, void *buf, size_t len)
{
    live_lock();
    live.base.random(ctx, buf, len);
    live_unlock();
}

static uint32_t live_loop_current(void *ctx)
{
    return pthread_equal(pthread_self(), live.main) ? live.base.loop_current(ctx) : KVS_LOOP_NONE;
}

static void live_post(void *ctx, uint32_t loop, struct kvs_task *task)
{
    live_lock();
    live.base.post(ctx, loop, task);
    live_unlock();
    wake_main();
}

static void live_submit(void *ctx, struct kvs_queue *queue, struct kvs_work *work)
{
    live_lock();
    live.base.queue_submit(ctx, queue, work);
    live_unlock();
    wake_main();
}

static int live_watch_start(void *ctx, int fd, uint32_t events,
                            void (*fn)(void *arg, uint32_t events), void *arg,
                            struct kvs_watch **ret_watch, struct kvs_error *err)
{
    uint32_t loop = live.base.loop_current(ctx);

    CHECK(loop != KVS_LOOP_NONE, "watch_start outside a loop");
    for (uint32_t i = 0; i < WATCH_MAX; i++) {
        if (!live.watches[i].used) {
            live.watches[i] = (struct kvs_watch){fd, events, loop, 1, fn, arg};
            *ret_watch = &live.watches[i];
            return 0;
        }
    }
    return kvs_err(err, KVS_ETOOMANY, "more than %u watches", WATCH_MAX);
}

static void live_watch_stop(void *ctx, struct kvs_watch *watch)
{
    CHECK(watch->used, "watch_stop of a watch that was stopped before");
    CHECK(live.base.loop_current(ctx) == watch->loop, "watch_stop on another loop");
    watch->used = 0;
}

static struct kvs_metric_ref *live_metric(void *ctx, const struct kvs_metric *def,
                                          const char *labels)
{
    struct kvs_metric_ref *ref;

    live_lock();
    ref = live.base.metric(ctx, def, labels);
    live_unlock();
    return ref;
}

static void live_metric_add(void *ctx, struct kvs_metric_ref *ref, int64_t delta)
{
    live_lock();
    live.base.metric_add(ctx, ref, delta);
    live_unlock();
}

static void live_metric_set(void *ctx, struct kvs_metric_ref *ref, int64_t value)
{
    live_lock();
    live.base.metric_set(ctx, ref, value);
    live_unlock();
}

static void live_metric_observe(void *ctx, struct kvs_metric_ref *ref, uint64_t value)
{
    live_lock();
    live.base.metric_observe(ctx, ref, value);
    live_unlock();
}

static void live_ready_set(void *ctx, const char *condition, uint32_t ok, const char *reason)
{
    live_lock();
    live.base.ready_set(ctx, condition, ok, reason);
    live_unlock();
}

static int on_route(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    CHECK(live_route != NULL, "route is called, but nobody sent a request");
    return live_route(req);
}

static void on_dispatch(void *ctx, struct kvs_request *req)
{
    (void)ctx;
    live_dispatch(req);
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void watch_run(struct kvs_watch *watch, short revents)
{
    uint32_t events = 0;

    if (!watch->used || revents == 0) {
        return;
    }
    events |= (revents & (POLLIN | POLLHUP | POLLERR)) != 0 ? KVS_WATCH_READ : 0;
    events |= (revents & (POLLOUT | POLLHUP | POLLERR)) != 0 ? KVS_WATCH_WRITE : 0;
    kvs_mock_enter(live.mock, watch->loop);
    watch->fn(watch->arg, events & watch->events);
    kvs_mock_enter(live.mock, KVS_LOOP_NONE);
}

/* Fake time follows the clock, so that timers of the fake host fire. */
static void time_run(void)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC), ms = (now - live.last_ns) / 1000000u;

    live.last_ns += ms * 1000000u;
    (void)kvs_mock_run(live.mock, ms);
}

void live_pump(struct kvs_mock *m, uint32_t ms)
{
    struct pollfd fds[WATCH_MAX + 1];
    char spill[64];

    CHECK(m == live.mock, "another live world is open");
    for (uint32_t i = 0; i < WATCH_MAX; i++) {
        const struct kvs_watch *w = &live.watches[i];

        fds[i].fd = w->used ? w->fd : -1;
        fds[i].events = (short)(((w->events & KVS_WATCH_READ) != 0 ? POLLIN : 0) |
                                ((w->events & KVS_WATCH_WRITE) != 0 ? POLLOUT : 0));
        fds[i].revents = 0;
    }
    fds[WATCH_MAX] = (struct pollfd){.fd = live.wake[0], .events = POLLIN};
    (void)poll(fds, WATCH_MAX + 1, (int)ms);
    while (read(live.wake[0], spill, sizeof spill) > 0) {
    }
    live_lock();
    for (uint32_t i = 0; i < WATCH_MAX; i++) {
        watch_run(&live.watches[i], fds[i].revents);
    }
    time_run();
    live_unlock();
}

int live_wait(struct kvs_mock *m, const volatile int *flag, uint32_t ms)
{
    uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)ms * 1000000u;

    for (;;) {
        int set;

        live_lock();
        set = *flag;
        live_unlock();
        if (set || clock_ns(CLOCK_MONOTONIC) > end) {
            return set;
        }
        live_pump(m, PULSE_MS);
    }
}

/* ---- life --------------------------------------------------------------------------------------
 */

const struct kvs_host *live_open(struct kvs_mock *m)
{
    pthread_mutexattr_t attr;

    CHECK(live.mock == NULL, "two live worlds at once");
    live.mock = m;
    live.base = live.host = *kvs_mock_host(m);
    live.main = pthread_self();
    live.last_ns = clock_ns(CLOCK_MONOTONIC);
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    (void)pthread_mutex_init(&live.lock, &attr);
    CHECK(pipe(live.wake) == 0 && fcntl(live.wake[0], F_SETFL, O_NONBLOCK) == 0 &&
              fcntl(live.wake[1], F_SETFL, O_NONBLOCK) == 0,
          "no pipe for waking up");
    live.host.data_dir = check_dir;
    live.host.alloc = live_alloc;
    live.host.realloc = live_realloc;
    live.host.free = live_free;
    live.host.now_ms = live_now_ms;
    live.host.mono_ns = live_mono_ns;
    live.host.random = live_random;
    live.host.loop_current = live_loop_current;
    live.host.post = live_post;
    live.host.queue_submit = live_submit;
    live.host.watch_start = live_watch_start;
    live.host.watch_stop = live_watch_stop;
    live.host.metric = live_metric;
    live.host.metric_add = live_metric_add;
    live.host.metric_set = live_metric_set;
    live.host.metric_observe = live_metric_observe;
    live.host.ready_set = live_ready_set;
    live.host.route = on_route;
    live.host.dispatch = on_dispatch;
    return &live.host;
}

/* The directory stays for the next world of this check. */
void live_close(void)
{
    for (uint32_t i = 0; i < WATCH_MAX; i++) {
        CHECK(!live.watches[i].used, "a descriptor is still watched after fini");
    }
    (void)close(live.wake[0]);
    (void)close(live.wake[1]);
    (void)pthread_mutex_destroy(&live.lock);
    live.mock = NULL;
}
