/* SPDX-License-Identifier: MIT
 *
 * Queues: a thread each that runs blocking work in order; see sched.h. */
#define _GNU_SOURCE /* pthread_setname_np */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "sched/sched.h"

struct kvs_queue {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct kvs_task *head, **tail; /* guarded by: lock */
    int stopping;                  /* guarded by: lock */
    char name[16];
};

static void work_done(struct kvs_task *task)
{
    struct kvs_work *w = KVS_CONTAINER_OF(task, struct kvs_work, task);

    w->done(w);
}

static void work_run(struct kvs_work *w)
{
    /* Without done the work may be gone after run: decide before. */
    void (*done)(struct kvs_work * work) = w->done;

    w->run(w);
    if (done == NULL) {
        return;
    }
    if (w->reply_loop == KVS_LOOP_NONE) {
        done(w);
    } else {
        w->task.run = work_done;
        kvs__loop_post(w->reply_loop, &w->task);
    }
}

static void *queue_main(void *arg)
{
    struct kvs_queue *q = arg;

    (void)pthread_mutex_lock(&q->lock);
    for (;;) {
        struct kvs_task *batch;

        while (q->head == NULL && !q->stopping) {
            (void)pthread_cond_wait(&q->cond, &q->lock);
        }
        batch = q->head;
        q->head = NULL;
        q->tail = &q->head;
        if (batch == NULL) {
            break;
        }
        (void)pthread_mutex_unlock(&q->lock);
        while (batch != NULL) {
            struct kvs_task *task = batch;

            batch = task->next;
            work_run(KVS_CONTAINER_OF(task, struct kvs_work, task));
        }
        (void)pthread_mutex_lock(&q->lock);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return NULL;
}

int kvs__queue_new(const char *name, struct kvs_queue **ret_queue, struct kvs_error *err)
{
    struct kvs_queue *q = calloc(1, sizeof *q);

    if (q == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_cond_init(&q->cond, NULL);
    q->tail = &q->head;
    (void)snprintf(q->name, sizeof q->name, "kvs-%s", name);
    if (pthread_create(&q->thread, NULL, queue_main, q) != 0) {
        free(q);
        return kvs_err(err, KVS_EIO, "start the thread of queue '%s'", name);
    }
    (void)pthread_setname_np(q->thread, q->name);
    *ret_queue = q;
    return 0;
}

void kvs__queue_submit(struct kvs_queue *queue, struct kvs_work *work)
{
    int was_empty;

    work->task.next = NULL;
    (void)pthread_mutex_lock(&queue->lock);
    was_empty = queue->head == NULL;
    *queue->tail = &work->task;
    queue->tail = &work->task.next;
    (void)pthread_mutex_unlock(&queue->lock);
    if (was_empty) {
        (void)pthread_cond_signal(&queue->cond);
    }
}

void kvs__queue_free(struct kvs_queue *queue)
{
    if (queue == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&queue->lock);
    queue->stopping = 1;
    (void)pthread_cond_signal(&queue->cond);
    (void)pthread_mutex_unlock(&queue->lock);
    (void)pthread_join(queue->thread, NULL);
    (void)pthread_cond_destroy(&queue->cond);
    (void)pthread_mutex_destroy(&queue->lock);
    free(queue);
}
