/* SPDX-License-Identifier: MIT
 *
 * persistence-memory: the contract of its kind with nothing on disk; see README.md.
 *
 * An append is counted and answered in a later round of its loop, in the order they were made. A
 * snapshot is taken and dropped. Blobs are kept until the process ends. There is no thread of its
 * own: `lock` guards what several loops share. */
#include <pthread.h>
#include <stdatomic.h>

#include "kvs/compression.h"
#include "kvs/persistence.h"
#include "kvs/support.h"

#define MEMORY_LOOP_MAX 64u
#define BLOB_SIZE_MAX   (64u << 10)
#define BLOB_NAME_MAX   64u

static const struct kvs_mem_tag memory_tag = {"persistence.memory"};

struct loop_state {
    struct kvs_task task;         /* posted: answers what is in the list */
    struct kvs_task *head, *tail; /* appends, oldest first; the loop's own */
};

struct blob {
    struct blob *next;
    size_t len;
    char name[BLOB_NAME_MAX + 1];
    char bytes[];
};

struct kvs_snapshot {
    struct kvs_snapshot *next; /* memory->active */
    uint64_t stream;
};

struct memory {
    const struct kvs_host *host;
    _Atomic uint32_t open; /* recovered and not stopping */
    _Atomic uint64_t appended_bytes, synced_batches;
    struct loop_state loops[MEMORY_LOOP_MAX];
    pthread_mutex_t lock;
    struct blob *blobs;          /* guarded by: lock */
    struct kvs_snapshot *active; /* guarded by: lock */
};

/* ---- appends -----------------------------------------------------------------------------------
 */

static void loop_answer(struct loop_state *l)
{
    struct kvs_task *task = l->head;

    l->head = l->tail = NULL; /* callbacks may append: that is for a later round */
    while (task != NULL) {
        struct kvs_append *a = KVS_CONTAINER_OF(task, struct kvs_append, task);

        task = task->next;
        a->cb(a, 0);
    }
}

static void on_answer(struct kvs_task *task)
{
    loop_answer(KVS_CONTAINER_OF(task, struct loop_state, task));
}

static int memory_append(void *self, struct kvs_append *append)
{
    struct memory *m = self;
    const struct kvs_host *host = m->host;
    uint32_t loop = host->loop_current(host->ctx);
    struct loop_state *l;

    KVS_ASSERT(host, loop < host->loop_count);
    if (atomic_load_explicit(&m->open, memory_order_acquire) == 0) {
        return KVS_ESTATE;
    }
    if (append->batch.len < KVS_BATCH_HEADER_SIZE || append->batch.len > KVS_BATCH_SIZE_MAX) {
        return KVS_ETOOBIG;
    }
    l = &m->loops[loop];
    append->loop = loop;
    append->rc = 0;
    append->task.next = NULL;
    if (l->head == NULL) {
        l->head = &append->task;
        l->task.run = on_answer;
        kvs_post(host, loop, &l->task);
    } else {
        l->tail->next = &append->task;
    }
    l->tail = &append->task;
    (void)atomic_fetch_add_explicit(&m->appended_bytes, append->batch.len, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&m->synced_batches, 1, memory_order_relaxed);
    return 0;
}

/* Nothing was kept: there is nothing to give back. */
static int memory_recover(void *self, const struct kvs_recover_ops *ops, void *arg,
                          struct kvs_recover_report *ret_report, struct kvs_error *err)
{
    struct memory *m = self;

    (void)err;
    memset(ret_report, 0, sizeof *ret_report);
    if (ops->progress != NULL) {
        ops->progress(arg, 0, 0);
    }
    atomic_store_explicit(&m->open, 1, memory_order_release);
    return 0;
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

static void on_step(struct kvs_task *task)
{
    struct kvs_snapshot_step *step = KVS_CONTAINER_OF(task, struct kvs_snapshot_step, task);

    step->cb(step, step->rc);
}

static void step_answer(struct memory *m, struct kvs_snapshot_step *step)
{
    step->rc = atomic_load(&m->open) != 0 ? 0 : KVS_ECANCELED;
    step->loop = m->host->loop_current(m->host->ctx);
    step->task.run = on_step;
    kvs_post(m->host, step->loop, &step->task);
}

static void snapshot_end(struct memory *m, struct kvs_snapshot *s)
{
    struct kvs_snapshot **at = &m->active;

    (void)pthread_mutex_lock(&m->lock);
    while (*at != NULL && *at != s) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = s->next;
    }
    (void)pthread_mutex_unlock(&m->lock);
    kvs_free(m->host, &memory_tag, s, sizeof *s);
}

static int memory_snapshot_begin(void *self, const struct kvs_snapshot_info *info,
                                 const char *codec, struct kvs_snapshot **ret_snapshot,
                                 struct kvs_error *err)
{
    struct memory *m = self;
    const struct kvs_host *host = m->host;
    struct kvs_snapshot *s;
    int taken = 0, rc;

    if (info->meta.len > KVS_SNAPSHOT_META_MAX) {
        return kvs_err(err, KVS_ETOOBIG, "snapshot meta is larger than 64 KiB");
    }
    if (atomic_load_explicit(&m->open, memory_order_acquire) == 0) {
        return kvs_err(err, KVS_ESTATE, "the journal is not open");
    }
    if (strcmp(codec, "none") != 0) {
        rc = host->find(host->ctx, KVS_KIND_COMPRESSION, codec, NULL, NULL, err);
        if (rc != 0) {
            return rc;
        }
    }
    s = kvs_calloc(host, &memory_tag, sizeof *s);
    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->stream = info->stream;
    (void)pthread_mutex_lock(&m->lock);
    for (const struct kvs_snapshot *o = m->active; o != NULL; o = o->next) {
        taken |= o->stream == s->stream;
    }
    if (!taken) {
        s->next = m->active;
        m->active = s;
    }
    (void)pthread_mutex_unlock(&m->lock);
    if (taken) {
        kvs_free(host, &memory_tag, s, sizeof *s);
        return kvs_err(err, KVS_EBUSY, "a snapshot of this stream is being written");
    }
    *ret_snapshot = s;
    return 0;
}

static void memory_snapshot_block(void *self, struct kvs_snapshot *snapshot,
                                  struct kvs_snapshot_step *step)
{
    struct memory *m = self;

    (void)snapshot;
    KVS_ASSERT(m->host, step->block.len > 0 && step->block.len <= KVS_SNAPSHOT_BLOCK_MAX);
    step_answer(m, step);
}

static void memory_snapshot_commit(void *self, struct kvs_snapshot *snapshot,
                                   struct kvs_snapshot_step *step)
{
    struct memory *m = self;

    step_answer(m, step);
    if (step->rc == 0) { /* else only abort is left */
        snapshot_end(m, snapshot);
    }
}

static void memory_snapshot_abort(void *self, struct kvs_snapshot *snapshot)
{
    snapshot_end(self, snapshot);
}

static int memory_stream_drop(void *self, uint64_t stream, struct kvs_snapshot_step *step)
{
    struct memory *m = self;

    (void)stream;
    if (atomic_load_explicit(&m->open, memory_order_acquire) == 0) {
        return KVS_ESTATE;
    }
    step_answer(m, step);
    return 0;
}

/* ---- blobs -------------------------------------------------------------------------------------
 */

/* The rule of persistence-wal. */
static int name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n <= BLOB_NAME_MAX && strcmp(name, ".") != 0 && strstr(name, "..") == NULL &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == n;
}

static struct blob **blob_find_locked(struct memory *m, const char *name)
{
    struct blob **at = &m->blobs;

    while (*at != NULL && strcmp((*at)->name, name) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static int memory_blob_put(void *self, const char *name, struct kvs_slice bytes,
                           struct kvs_error *err)
{
    struct memory *m = self;
    struct blob *b, *former, **at;

    if (!name_ok(name)) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name", name);
    }
    if (bytes.len > BLOB_SIZE_MAX) {
        return kvs_err(err, KVS_ETOOBIG, "blob '%s': larger than 64 KiB", name);
    }
    b = kvs_calloc(m->host, &memory_tag, sizeof *b + bytes.len);
    if (b == NULL) {
        return kvs_err(err, KVS_ENOMEM, "blob '%s': out of memory", name);
    }
    memcpy(b->name, name, strlen(name) + 1);
    b->len = bytes.len;
    if (bytes.len > 0) {
        memcpy(b->bytes, bytes.ptr, bytes.len);
    }
    (void)pthread_mutex_lock(&m->lock);
    at = blob_find_locked(m, name);
    former = *at;
    b->next = former == NULL ? NULL : former->next;
    *at = b;
    (void)pthread_mutex_unlock(&m->lock);
    if (former != NULL) {
        kvs_free(m->host, &memory_tag, former, sizeof *former + former->len);
    }
    return 0;
}

static int memory_blob_get(void *self, const char *name, void *buf, size_t buf_size,
                           size_t *ret_len, struct kvs_error *err)
{
    struct memory *m = self;
    const struct blob *b;
    int rc = 0;

    if (!name_ok(name)) {
        return kvs_err(err, KVS_EINVAL, "blob '%s': wrong name", name);
    }
    (void)pthread_mutex_lock(&m->lock);
    b = *blob_find_locked(m, name);
    if (b != NULL && b->len > buf_size) {
        rc = kvs_err(err, KVS_ETOOBIG, "blob '%s' is larger than the buffer", name);
    } else {
        *ret_len = b == NULL ? 0 : b->len;
        if (*ret_len > 0) {
            memcpy(buf, b->bytes, *ret_len);
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void memory_status(void *self, struct kvs_persistence_status *ret)
{
    struct memory *m = self;

    memset(ret, 0, sizeof *ret);
    ret->appended_bytes = atomic_load_explicit(&m->appended_bytes, memory_order_relaxed);
    ret->synced_batches = atomic_load_explicit(&m->synced_batches, memory_order_relaxed);
}

static int memory_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    struct memory *m;

    (void)conf;
    if (host->loop_count > MEMORY_LOOP_MAX) {
        return kvs_err(err, KVS_ETOOMANY, "persistence-memory serves at most %u event loops",
                       MEMORY_LOOP_MAX);
    }
    m = kvs_calloc(host, &memory_tag, sizeof *m);
    if (m == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    m->host = host;
    (void)pthread_mutex_init(&m->lock, NULL);
    KVS_LOG(host, KVS_LOG_WARN, "nothing_is_durable",
            "effect='all data of this server is lost when it ends'");
    *ret_self = m;
    return 0;
}

static void stop_on_loop(void *arg)
{
    loop_answer(arg);
}

static void memory_stop(void *self)
{
    struct memory *m = self;

    if (atomic_exchange(&m->open, 0) == 0) {
        return;
    }
    for (uint32_t i = 0; i < m->host->loop_count; i++) {
        m->host->run_on(m->host->ctx, i, stop_on_loop, &m->loops[i]);
    }
}

static void memory_fini(void *self)
{
    struct memory *m = self;

    while (m->active != NULL) {
        snapshot_end(m, m->active);
    }
    while (m->blobs != NULL) {
        struct blob *b = m->blobs;

        m->blobs = b->next;
        kvs_free(m->host, &memory_tag, b, sizeof *b + b->len);
    }
    (void)pthread_mutex_destroy(&m->lock);
    kvs_free(m->host, &memory_tag, m, sizeof *m);
}

static const struct kvs_persistence_ops ops = {
    .size = sizeof ops,
    .recover = memory_recover,
    .append = memory_append,
    .snapshot_begin = memory_snapshot_begin,
    .snapshot_block = memory_snapshot_block,
    .snapshot_commit = memory_snapshot_commit,
    .snapshot_abort = memory_snapshot_abort,
    .stream_drop = memory_stream_drop,
    .blob_put = memory_blob_put,
    .blob_get = memory_blob_get,
    .status = memory_status,
};

KVS_PLUGIN(.kind = KVS_KIND_PERSISTENCE, .name = "memory", .version = "1.0.0",
           .summary = "no journal at all: data lives as long as the process", .ops = &ops,
           .init = memory_init, .stop = memory_stop, .fini = memory_fini);
