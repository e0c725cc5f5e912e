/* SPDX-License-Identifier: MIT
 *
 * Event loops and queues: the threads of the process.
 *
 * A loop is libuv on a thread of its own with a mailbox: a lock-free stack many threads push to and
 * the loop takes whole, reversed into order. A push wakes the loop only if the mailbox was empty,
 * so a burst costs one wake-up. Deferred tasks run before the loop waits again (uv_prepare).
 *
 * A queue is a thread that runs blocking work in order and posts what is done back to a loop.
 *
 * Order of ending: services have stopped; queues are freed by their owners; then loops_stop runs
 * what is still in the mailboxes and joins the threads. */
#ifndef KVS_CORE_SCHED_H
#define KVS_CORE_SCHED_H

#include "kvs/host.h"

#define KVS__LOOP_MAX 64u

/* Main thread. KVS_ENOMEM, KVS_EIO. */
int kvs__loops_start(uint32_t count, struct kvs_error *err);
void kvs__loops_stop(void);
uint32_t kvs__loop_count(void);

uint32_t kvs__loop_current(void);
void kvs__loop_post(uint32_t loop, struct kvs_task *task);              /* any thread */
void kvs__loop_defer(struct kvs_task *task);                            /* on a loop */
void kvs__loop_run_on(uint32_t loop, void (*fn)(void *arg), void *arg); /* main thread */
/* Milliseconds since the loop last turned, for the watchdog. Any thread. */
uint64_t kvs__loop_silence_ms(uint32_t loop);

struct kvs_timer *kvs__timer_start(uint64_t delay_ms, uint64_t period_ms, void (*fn)(void *arg),
                                   void *arg);
void kvs__timer_stop(struct kvs_timer *timer);

int kvs__watch_start(int fd, uint32_t events, void (*fn)(void *arg, uint32_t events), void *arg,
                     struct kvs_watch **ret_watch, struct kvs_error *err);
void kvs__watch_stop(struct kvs_watch *watch);

int kvs__queue_new(const char *name, struct kvs_queue **ret_queue, struct kvs_error *err);
void kvs__queue_submit(struct kvs_queue *queue, struct kvs_work *work);
void kvs__queue_free(struct kvs_queue *queue);

uint64_t kvs__mono_ns(void);

#endif
