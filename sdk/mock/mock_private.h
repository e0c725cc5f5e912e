/* SPDX-License-Identifier: MIT
 *
 * What the files of the fake host share; see kvs/mock.h.
 *
 *   mock.c     loops, timers, queues, clock, random, metrics, readiness
 *   memory.c   tagged memory that knows every block
 *   disk.c     files, names and what is durable of them
 *   crash.c    what a power cut leaves
 *   request.c  requests and calls */
#ifndef KVS_MOCK_PRIVATE_H
#define KVS_MOCK_PRIVATE_H

#include "kvs/mock.h"

#define MOCK_LOOP_MAX   16u
#define MOCK_QUEUE_MAX  32u
#define MOCK_PLUGIN_MAX 32u
#define MOCK_NAME_MAX   128u

/* A test that gets this far hangs: events without time passing, fake time without the flag set. */
#define MOCK_STALL_EVENT_MAX 10000000u
#define MOCK_WAIT_MS_MAX     (24u * 3600u * 1000u)

struct task_list {
    struct kvs_task *head, *tail;
};

struct kvs_timer {
    struct kvs_timer *next;
    uint64_t due_ns, period_ns, order;
    uint32_t loop;
    void (*fn)(void *arg);
    void *arg;
};

struct kvs_queue {
    struct kvs_mock *mock;
    struct task_list work;
};

struct kvs_metric_ref {
    struct kvs_metric_ref *next;
    const struct kvs_metric *def;
    int64_t value;
    char labels[];
};

struct block; /* memory.c */
struct inode; /* disk.c */
struct name;
struct name_op;

struct fault {
    uint64_t countdown; /* 0: not armed */
    int once, code;
};

struct kvs_mock {
    struct kvs_host host;
    struct kvs_fs fs;
    uint64_t rng, now_ns, order;
    int64_t wall_offset_ms;
    uint64_t stalled;                        /* events since the clock moved */
    uint32_t log_level, loop_count, current; /* current: KVS_LOOP_NONE or a loop */
    uint32_t depth;                          /* events that are running now */
    struct task_list tasks[MOCK_LOOP_MAX], deferred[MOCK_LOOP_MAX];
    struct kvs_queue *queues[MOCK_QUEUE_MAX];
    struct kvs_timer *timers;
    struct kvs_metric_ref *metrics;
    struct {
        uint32_t kind;
        const char *name;
        const void *ops;
        void *self;
    } plugins[MOCK_PLUGIN_MAX];
    uint32_t plugin_count;
    struct {
        char name[MOCK_NAME_MAX], reason[256];
        int ok;
    } conditions[16];
    uint32_t condition_count;
    char node_id[64];

    struct block *blocks;
    struct {
        const char *name;
        uint64_t bytes;
    } tags[64];
    uint32_t tag_count;

    struct inode *inodes;
    struct name *names, *durable_names;
    struct name_op *name_ops;
    struct kvs_file *files;
    const char **listing;
    uint64_t disk_limit;

    struct fault fail_alloc, fail_io, fail_sync;
    const char *fail_point;
    int fail_point_code, fired;

    struct {
        const char *method;
        void (*fn)(void *arg, struct kvs_call *call);
        void *arg;
    } answers[16];
    uint32_t answer_count;
    struct kvs_mock_answer answer;
    struct kvs_header answer_headers[KVS_RESPONSE_HEADER_MAX];
    char *answer_text; /* everything answer points to */
};

uint64_t mock_random(struct kvs_mock *m);
/* 1 if the fault strikes now. */
int mock_fault(struct kvs_mock *m, struct fault *f);
void mock_stop_test(const char *why) KVS_NORETURN;
void mock_push(struct task_list *list, struct kvs_task *task);

void mock_memory_fill(struct kvs_mock *m);
void mock_memory_forget(struct kvs_mock *m);
/* Prints accounts that are not empty; returns how many. */
uint32_t mock_memory_held(struct kvs_mock *m);

void mock_disk_fill(struct kvs_mock *m);
void mock_disk_crash(struct kvs_mock *m);
void mock_disk_free(struct kvs_mock *m);

void mock_request_fill(struct kvs_mock *m);
void mock_request_free(struct kvs_mock *m);

#endif
