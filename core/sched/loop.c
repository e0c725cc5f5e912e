/* SPDX-License-Identifier: MIT
 *
 * Event loops; see sched.h. */
#define _GNU_SOURCE /* pthread_setname_np */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

#include "obs/panic.h"
#include "sched/sched.h"

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    uv_prepare_t before_wait;
    uv_timer_t pulse; /* so that an idle loop shows it lives */
    pthread_t thread;
    uint32_t index;
    int stopping;
    _Atomic(struct kvs_task *) mailbox; /* newest first */
    struct kvs_task *deferred, **deferred_tail;
    _Atomic uint64_t turned_ns;
};

struct kvs_timer {
    uv_timer_t uv;
    void (*fn)(void *arg);
    void *arg;
    int once;
};

struct kvs_watch {
    uv_poll_t uv;
    void (*fn)(void *arg, uint32_t events);
    void *arg;
};

static struct loop *loops[KVS__LOOP_MAX];
static uint32_t loop_n;
static _Thread_local struct loop *here;

uint64_t kvs__mono_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- mailbox and deferred tasks -------------------------------------------------------------- */

static void mailbox_run(struct loop *l)
{
    /* Acquire pairs with the release of the push: what the poster wrote is seen. */
    struct kvs_task *newest = atomic_exchange_explicit(&l->mailbox, NULL, memory_order_acquire);
    struct kvs_task *in_order = NULL;

    while (newest != NULL) {
        struct kvs_task *next = newest->next;

        newest->next = in_order;
        in_order = newest;
        newest = next;
    }
    while (in_order != NULL) {
        struct kvs_task *task = in_order;

        in_order = task->next; /* the task may be gone after run */
        task->run(task);
    }
}

static void on_wake(uv_async_t *handle)
{
    mailbox_run(handle->data);
}

static void on_before_wait(uv_prepare_t *handle)
{
    struct loop *l = handle->data;

    while (l->deferred != NULL) {
        struct kvs_task *task = l->deferred;

        l->deferred = task->next;
        if (l->deferred == NULL) {
            l->deferred_tail = &l->deferred;
        }
        task->run(task);
    }
    atomic_store_explicit(&l->turned_ns, uv_hrtime(), memory_order_relaxed);
}

static void on_pulse(uv_timer_t *handle)
{
    (void)handle;
}

void kvs__loop_post(uint32_t loop, struct kvs_task *task)
{
    struct loop *l = loops[loop];
    struct kvs_task *head = atomic_load_explicit(&l->mailbox, memory_order_relaxed);

    KVS__ASSERT(loop < loop_n);
    do {
        task->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&l->mailbox, &head, task, memory_order_release,
                                                    memory_order_relaxed));
    if (head == NULL) {
        (void)uv_async_send(&l->wake);
    }
}

void kvs__loop_defer(struct kvs_task *task)
{
    KVS__ASSERT(here != NULL);
    task->next = NULL;
    *here->deferred_tail = task;
    here->deferred_tail = &task->next;
}

uint32_t kvs__loop_current(void)
{
    return here == NULL ? KVS_LOOP_NONE : here->index;
}

uint32_t kvs__loop_count(void)
{
    return loop_n;
}

uint64_t kvs__loop_silence_ms(uint32_t loop)
{
    uint64_t turned = atomic_load_explicit(&loops[loop]->turned_ns, memory_order_relaxed);
    uint64_t now = uv_hrtime();

    return turned == 0 || turned > now ? 0 : (now - turned) / 1000000u;
}

/* ---- run_on ---------------------------------------------------------------------------------- */

struct errand {
    struct kvs_task task;
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int done; /* guarded by: lock */
};

static void errand_run(struct kvs_task *task)
{
    struct errand *e = KVS_CONTAINER_OF(task, struct errand, task);

    e->fn(e->arg);
    (void)pthread_mutex_lock(&e->lock);
    e->done = 1;
    (void)pthread_cond_signal(&e->cond);
    (void)pthread_mutex_unlock(&e->lock);
}

void kvs__loop_run_on(uint32_t loop, void (*fn)(void *arg), void *arg)
{
    struct errand e = {.task = {.run = errand_run}, .fn = fn, .arg = arg};

    KVS__ASSERT(here == NULL); /* a loop that waited for another could wait for ever */
    (void)pthread_mutex_init(&e.lock, NULL);
    (void)pthread_cond_init(&e.cond, NULL);
    kvs__loop_post(loop, &e.task);
    (void)pthread_mutex_lock(&e.lock);
    while (!e.done) {
        (void)pthread_cond_wait(&e.cond, &e.lock);
    }
    (void)pthread_mutex_unlock(&e.lock);
    (void)pthread_cond_destroy(&e.cond);
    (void)pthread_mutex_destroy(&e.lock);
}

/* ---- timers and watches ---------------------------------------------------------------------- */

static void timer_closed(uv_handle_t *handle)
{
    free(KVS_CONTAINER_OF(handle, struct kvs_timer, uv));
}

static void on_timer(uv_timer_t *handle)
{
    struct kvs_timer *t = KVS_CONTAINER_OF(handle, struct kvs_timer, uv);
    void (*fn)(void *arg) = t->fn;
    void *arg = t->arg;

    if (t->once) {
        uv_close((uv_handle_t *)&t->uv, timer_closed);
    }
    fn(arg);
}

struct kvs_timer *kvs__timer_start(uint64_t delay_ms, uint64_t period_ms, void (*fn)(void *arg),
                                   void *arg)
{
    struct kvs_timer *t;

    KVS__ASSERT(here != NULL);
    t = calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->fn = fn;
    t->arg = arg;
    t->once = period_ms == 0;
    uv_update_time(&here->uv); /* a delay counts from now, not from when the round began */
    (void)uv_timer_init(&here->uv, &t->uv);
    (void)uv_timer_start(&t->uv, on_timer, delay_ms, period_ms);
    return t;
}

void kvs__timer_stop(struct kvs_timer *timer)
{
    if (timer != NULL) {
        uv_close((uv_handle_t *)&timer->uv, timer_closed);
    }
}

static void on_watch(uv_poll_t *handle, int status, int events)
{
    struct kvs_watch *w = KVS_CONTAINER_OF(handle, struct kvs_watch, uv);
    uint32_t what = 0;

    if (status < 0) {
        what = KVS_WATCH_READ | KVS_WATCH_WRITE; /* the owner finds the error when it tries */
    }
    what |= (events & UV_READABLE) != 0 ? KVS_WATCH_READ : 0;
    what |= (events & UV_WRITABLE) != 0 ? KVS_WATCH_WRITE : 0;
    w->fn(w->arg, what);
}

static void watch_closed(uv_handle_t *handle)
{
    free(KVS_CONTAINER_OF(handle, struct kvs_watch, uv));
}

int kvs__watch_start(int fd, uint32_t events, void (*fn)(void *arg, uint32_t events), void *arg,
                     struct kvs_watch **ret_watch, struct kvs_error *err)
{
    int uv_events = ((events & KVS_WATCH_READ) != 0 ? UV_READABLE : 0) |
                    ((events & KVS_WATCH_WRITE) != 0 ? UV_WRITABLE : 0);
    struct kvs_watch *w;
    int rc;

    KVS__ASSERT(here != NULL);
    w = calloc(1, sizeof *w);
    if (w == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    w->fn = fn;
    w->arg = arg;
    rc = uv_poll_init(&here->uv, &w->uv, fd);
    if (rc != 0) {
        free(w);
        return kvs_err(err, KVS_EIO, "watch descriptor %d: %s", fd, uv_strerror(rc));
    }
    rc = uv_poll_start(&w->uv, uv_events, on_watch);
    if (rc != 0) {
        kvs__watch_stop(w);
        return kvs_err(err, KVS_EIO, "watch descriptor %d: %s", fd, uv_strerror(rc));
    }
    *ret_watch = w;
    return 0;
}

void kvs__watch_stop(struct kvs_watch *watch)
{
    if (watch != NULL) {
        uv_close((uv_handle_t *)&watch->uv, watch_closed);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void close_walk(uv_handle_t *handle, void *arg)
{
    (void)arg;
    /* Handles of the loop itself have no close callback; timers and watches that their owners
     * forgot are a leak a sanitizer should report, so they are closed without freeing. */
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void *loop_main(void *arg)
{
    struct loop *l = arg;

    here = l;
    while (!l->stopping) {
        (void)uv_run(&l->uv, UV_RUN_ONCE);
    }
    mailbox_run(l);
    on_before_wait(&l->before_wait);
    uv_walk(&l->uv, close_walk, NULL);
    (void)uv_run(&l->uv, UV_RUN_DEFAULT);
    return NULL;
}

static struct loop *loop_new(uint32_t index)
{
    struct loop *l = calloc(1, sizeof *l);

    if (l == NULL) {
        return NULL;
    }
    l->index = index;
    l->deferred_tail = &l->deferred;
    if (uv_loop_init(&l->uv) != 0) {
        free(l);
        return NULL;
    }
    (void)uv_async_init(&l->uv, &l->wake, on_wake);
    (void)uv_prepare_init(&l->uv, &l->before_wait);
    (void)uv_timer_init(&l->uv, &l->pulse);
    l->wake.data = l;
    l->before_wait.data = l;
    (void)uv_prepare_start(&l->before_wait, on_before_wait);
    (void)uv_timer_start(&l->pulse, on_pulse, 500, 500);
    return l;
}

int kvs__loops_start(uint32_t count, struct kvs_error *err)
{
    KVS__ASSERT(loop_n == 0 && count > 0 && count <= KVS__LOOP_MAX);
    for (uint32_t i = 0; i < count; i++) {
        loops[i] = loop_new(i);
        if (loops[i] == NULL) {
            kvs__loops_stop();
            return kvs_err(err, KVS_ENOMEM, "event loop %u: out of memory", i);
        }
        loop_n = i + 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        char name[16];

        if (pthread_create(&loops[i]->thread, NULL, loop_main, loops[i]) != 0) {
            return kvs_err(err, KVS_EIO, "start the thread of event loop %u", i);
        }
        (void)snprintf(name, sizeof name, "kvs-loop-%u", i);
        (void)pthread_setname_np(loops[i]->thread, name);
    }
    return 0;
}

static void stop_here(void *arg)
{
    (void)arg;
    here->stopping = 1;
}

void kvs__loops_stop(void)
{
    for (uint32_t i = 0; i < loop_n; i++) {
        if (loops[i]->thread != 0) {
            kvs__loop_run_on(i, stop_here, NULL);
            (void)pthread_join(loops[i]->thread, NULL);
        }
    }
    for (uint32_t i = 0; i < loop_n; i++) {
        (void)uv_loop_close(&loops[i]->uv);
        free(loops[i]);
        loops[i] = NULL;
    }
    loop_n = 0;
}
