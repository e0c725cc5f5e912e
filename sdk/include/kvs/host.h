/* SPDX-License-Identifier: MIT
 *
 * The host table: everything a plugin may use of the process it runs in.
 *
 * Time, randomness, disk, threads and other plugins are reached through this table and in no other
 * way, so that a fake host (kvs/mock.h) can run a plugin, or a whole cluster, on one thread with a
 * fake clock, a memory disk and one seed. Exceptions are named in the README of the plugin that
 * makes them (transport-rest owns sockets, consensus-raft runs a loop of its own).
 *
 * Every function takes `ctx` from the table as its first argument; it knows the instance (for log
 * prefixes, metrics and memory accounts). The wrappers at the end of this file save the typing.
 *
 * Threads. The process has one main thread (lifecycle, signals), `loop_count` event loops, each on
 * a thread of its own, and an I/O pool. Objects belong to one loop; threads exchange tasks, not
 * locks. */
#ifndef KVS_HOST_H
#define KVS_HOST_H

#include "kvs/base.h"
#include "kvs/error.h"

struct kvs_request;
struct kvs_call;
struct kvs_method;
struct kvs_timer;
struct kvs_watch;
struct kvs_queue;
struct kvs_metric_ref;
struct kvs_file;

/* ---- tasks -------------------------------------------------------------------------------------
 */

/* A message: embed it in the object it is about, fill run, post it. The poster gives the object
 * away until run is called. No allocation, no copy. Never post a task that is posted already. */
struct kvs_task {
    struct kvs_task *next; /* the host's while posted */
    void (*run)(struct kvs_task *task);
};

/* Blocking work for a queue. `run` executes on a pool thread, then `done` on the loop (or other
 * thread) named by `reply_loop`. done may be NULL; then the object is free again after run
 * returned. */
struct kvs_work {
    struct kvs_task task; /* the host's while submitted */
    uint32_t reply_loop;  /* where done runs; KVS_LOOP_NONE: on the pool thread itself */
    uint32_t reserved;
    void (*run)(struct kvs_work *work);
    void (*done)(struct kvs_work *work);
};

#define KVS_LOOP_NONE UINT32_MAX

/* ---- log ---------------------------------------------------------------------------------------
 */

enum kvs_log_level {
    KVS_LOG_ERROR = 0, /* someone must act */
    KVS_LOG_WARN = 1,  /* we coped; say how: "retrying", "ignoring" */
    KVS_LOG_INFO = 2,  /* a state changed */
    KVS_LOG_DEBUG = 3, /* free; the only level that may show keys or values of users */
};

/* ---- metrics -----------------------------------------------------------------------------------
 */

enum kvs_metric_type {
    KVS_METRIC_COUNTER = 1,   /* only grows; name ends in _total */
    KVS_METRIC_GAUGE = 2,     /* a level */
    KVS_METRIC_HISTOGRAM = 3, /* observed values; unit seconds: observe nanoseconds, bytes: bytes */
};

/* Static. Shown with HELP and TYPE in /metrics. */
struct kvs_metric {
    const char *name; /* kvs_wal_fsync_seconds */
    uint32_t type;    /* enum kvs_metric_type */
    uint32_t reserved;
    const char *unit;  /* "seconds", "bytes", "" */
    const char *help;  /* one line */
    const char *prose; /* what a bad value means and what to do */
};

/* ---- memory ------------------------------------------------------------------------------------
 */

/* A named account; its bytes are the metric kvs_memory_bytes{tag=name}. Static, one per purpose. */
struct kvs_mem_tag {
    const char *name; /* "storage.items" */
};

/* ---- disk --------------------------------------------------------------------------------------
 */

#define KVS_FS_READ      1u
#define KVS_FS_WRITE     2u
#define KVS_FS_CREATE    4u /* create if absent */
#define KVS_FS_EXCLUSIVE 8u /* with CREATE: fail with KVS_EEXIST if present */

/* Files below the node's data directory. Paths are relative to it, use '/', have no "..". Blocking:
 * call on a pool thread or during lifecycle, never on a loop. All return 0 or KVS_ENOENT-like codes
 * of error.h with detail in err (KVS_ENOTFOUND, KVS_EEXIST, KVS_ENOSPC, KVS_EACCES, KVS_EIO,
 * KVS_ENOMEM). A crash loses what was not made durable: file bytes by sync, names by sync_dir. */
struct kvs_fs {
    uint32_t size;
    uint32_t reserved;
    void *ctx;
    int (*open)(void *ctx, const char *path, uint32_t flags, struct kvs_file **ret_file,
                struct kvs_error *err);
    void (*close)(void *ctx, struct kvs_file *file);
    /* Reads up to len bytes; *ret_len is less only at the end of the file. */
    int (*read)(void *ctx, struct kvs_file *file, uint64_t offset, void *buf, size_t len,
                size_t *ret_len, struct kvs_error *err);
    /* Writes all of the count slices, one after another, or fails. After a failure any part may be
     * on disk. */
    int (*write)(void *ctx, struct kvs_file *file, uint64_t offset, const struct kvs_slice *slices,
                 uint32_t count, struct kvs_error *err);
    /* fdatasync. A failure is final: the caller must not write to the file again and hope. */
    int (*sync)(void *ctx, struct kvs_file *file, struct kvs_error *err);
    int (*file_size)(void *ctx, struct kvs_file *file, uint64_t *ret_size, struct kvs_error *err);
    /* Reserves disk blocks so that later writes in [0, size) need none; extends the file with
     * zeros. */
    int (*allocate)(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err);
    int (*truncate)(void *ctx, struct kvs_file *file, uint64_t size, struct kvs_error *err);
    int (*rename)(void *ctx, const char *from, const char *to, struct kvs_error *err);
    int (*remove)(void *ctx, const char *path, struct kvs_error *err);
    int (*mkdir)(void *ctx, const char *path, struct kvs_error *err); /* 0 if it exists */
    int (*sync_dir)(void *ctx, const char *path, struct kvs_error *err);
    /* Calls fn once per name in the directory (no "." and ".."), in bytewise order. */
    int (*list)(void *ctx, const char *path, int (*fn)(void *arg, const char *name), void *arg,
                struct kvs_error *err);
    /* --- end of 1.0 --- */
};

/* ---- the table ---------------------------------------------------------------------------------
 */

#define KVS_WATCH_READ  1u
#define KVS_WATCH_WRITE 2u

struct kvs_host {
    uint32_t size;
    uint16_t abi_major, abi_minor;
    void *ctx;

    /* Facts. */
    const char *node_id;  /* node.id */
    const char *rack;     /* node.rack or "" */
    const char *data_dir; /* absolute; for libraries that insist on a path. Else use fs */
    const char *version;  /* of the host */
    uint32_t loop_count;  /* 1.. */
    uint32_t reserved;
    const uint32_t *log_level; /* present threshold of this instance; may change at any time */
    const struct kvs_fs *fs;

    /* Log one event: "segment_rolled" and then key=value pairs. Values with spaces: 'quoted'.
     * Threads  any.  Cost  a formatted line; test *log_level first (the macros do). */
    void (*log)(void *ctx, uint32_t level, const char *event, const char *fmt, ...)
        KVS_PRINTF(4, 5);

    /* Memory by account. Sizes are given back at free: no headers. NULL on failure (also injected).
     * alloc(0) is a bug. Threads  any. */
    void *(*alloc)(void *ctx, const struct kvs_mem_tag *tag, size_t size);
    void *(*realloc)(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                     size_t new_size);
    void (*free)(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size);

    /* Wall clock in Unix ms, monotonic clock in ns, unpredictable bytes. Threads  any. */
    uint64_t (*now_ms)(void *ctx);
    uint64_t (*mono_ns)(void *ctx);
    void (*random)(void *ctx, void *buf, size_t len);

    /* Index of the loop whose thread this is, or KVS_LOOP_NONE. */
    uint32_t (*loop_current)(void *ctx);
    /* Run task on that loop, soon. Tasks from one thread arrive in order. Threads  any. */
    void (*post)(void *ctx, uint32_t loop, struct kvs_task *task);
    /* Run task on this loop at the end of the present round, before it waits for events again: how
     * work of one round is gathered into one write. Threads  loops. */
    void (*defer)(void *ctx, struct kvs_task *task);
    /* Run fn(arg) on that loop and wait until it returned. Threads  main only. */
    void (*run_on)(void *ctx, uint32_t loop, void (*fn)(void *arg), void *arg);

    /* Timers of the present loop. period_ms 0: once; the timer frees itself after a single shot.
     * timer_stop frees it; never called from a thread other than its loop's. Returns NULL if memory
     * is out. Threads  loops. */
    struct kvs_timer *(*timer_start)(void *ctx, uint64_t delay_ms, uint64_t period_ms,
                                     void (*fn)(void *arg), void *arg);
    void (*timer_stop)(void *ctx, struct kvs_timer *timer);

    /* Watch a descriptor on the present loop (level-triggered). fn gets the events that hold. Stop
     * before closing the descriptor. Threads  loops. */
    int (*watch_start)(void *ctx, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
                       void *arg, struct kvs_watch **ret_watch, struct kvs_error *err);
    void (*watch_stop)(void *ctx, struct kvs_watch *watch);

    /* A queue runs its work one by one, in order. dedicated != 0: on a thread of its own (for the
     * journal); else on a thread of the shared pool. queue_free waits for what was submitted.
     * queue_submit: threads any. */
    int (*queue_new)(void *ctx, const char *name, uint32_t dedicated, struct kvs_queue **ret_queue,
                     struct kvs_error *err);
    void (*queue_submit)(void *ctx, struct kvs_queue *queue, struct kvs_work *work);
    void (*queue_free)(void *ctx, struct kvs_queue *queue);

    /* Other plugins. find: by kind and name (NULL: the only one of its kind). each: the i-th of a
     * kind, in load order. Outputs may be NULL. KVS_ENOTFOUND if there is none. From init on. */
    int (*find)(void *ctx, uint32_t kind, const char *name, const void **ret_ops, void **ret_self,
                struct kvs_error *err);
    int (*each)(void *ctx, uint32_t kind, uint32_t i, const char **ret_name, const void **ret_ops,
                void **ret_self);

    /* Metrics. labels is "" or `table="t",partition="3"`. The same def and labels give the same
     * ref. Threads  any. add: counters and gauges (delta may be negative for gauges). */
    struct kvs_metric_ref *(*metric)(void *ctx, const struct kvs_metric *def, const char *labels);
    void (*metric_add)(void *ctx, struct kvs_metric_ref *ref, int64_t delta);
    void (*metric_set)(void *ctx, struct kvs_metric_ref *ref, int64_t value);
    void (*metric_observe)(void *ctx, struct kvs_metric_ref *ref, uint64_t value);
    /* Forget the series (a dropped table). */
    void (*metric_free)(void *ctx, struct kvs_metric_ref *ref);

    /* A condition of /readyz. ok == 0 needs a reason for the operator. Threads  any. */
    void (*ready_set)(void *ctx, const char *condition, uint32_t ok, const char *reason);

    /* Requests (method.h). route: find the method for verb and target, decode and check parameters.
     * dispatch: call the handler. complete: answer, from any thread, once. call: ask another
     * service, in this process or on a peer. See method.h for each. */
    int (*route)(void *ctx, struct kvs_request *req);
    void (*dispatch)(void *ctx, struct kvs_request *req);
    void (*complete)(void *ctx, struct kvs_request *req);
    int (*call)(void *ctx, struct kvs_call *call, struct kvs_error *err);

    /* Tests make the named step fail: returns 0, or the code to fail with. Free when nothing is
     * armed. */
    int (*fault)(void *ctx, const char *point);

    /* A promise of ours is broken: print expression, place and stack, and stop the process. */
    void (*panic)(void *ctx, const char *file, int line, const char *what) KVS_NORETURN;
    /* --- end of 1.0 --- */
};

/* ---- wrappers ----------------------------------------------------------------------------------
 */

#define KVS_LOG(host, level, event, ...)                                                           \
    do {                                                                                           \
        if (*(host)->log_level + 1u > (uint32_t)(level)) {                                         \
            (host)->log((host)->ctx, (uint32_t)(level), (event), __VA_ARGS__);                     \
        }                                                                                          \
    } while (0)

/* On in release builds: an untrue condition is our bug, and a bug stops the process. Never for
 * bytes from disk, network or configuration. */
#define KVS_ASSERT(host, cond)                                                                     \
    do {                                                                                           \
        if (KVS_UNLIKELY(!(cond))) {                                                               \
            (host)->panic((host)->ctx, __FILE__, __LINE__, #cond);                                 \
        }                                                                                          \
    } while (0)

static inline void *kvs_alloc(const struct kvs_host *host, const struct kvs_mem_tag *tag,
                              size_t size)
{
    return host->alloc(host->ctx, tag, size);
}

static inline void *kvs_calloc(const struct kvs_host *host, const struct kvs_mem_tag *tag,
                               size_t size)
{
    void *p = host->alloc(host->ctx, tag, size);

    if (p != NULL) {
        memset(p, 0, size);
    }
    return p;
}

static inline void kvs_free(const struct kvs_host *host, const struct kvs_mem_tag *tag, void *ptr,
                            size_t size)
{
    if (ptr != NULL) {
        host->free(host->ctx, tag, ptr, size);
    }
}

static inline uint64_t kvs_now_ms(const struct kvs_host *host)
{
    return host->now_ms(host->ctx);
}

static inline uint64_t kvs_mono_ns(const struct kvs_host *host)
{
    return host->mono_ns(host->ctx);
}

static inline void kvs_post(const struct kvs_host *host, uint32_t loop, struct kvs_task *task)
{
    host->post(host->ctx, loop, task);
}

#endif
