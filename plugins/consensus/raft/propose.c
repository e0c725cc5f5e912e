/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: proposals, from the loop that makes them to their callback.
 *
 * propose() links the proposal into the inbox and wakes the loop thread. There everything that
 * waits is packed into one log entry, at most two entries on their way at a time: under load the
 * batches grow by themselves, and the commit index is never starved. Barriers that wait share one
 * barrier entry, and those that come while it is on its way share the next. Completions are
 * gathered and posted after the service was told to publish what was applied. */
#include "raft_private.h"

/* What the plugin keeps in kvs_proposal.plugin_data. */
#define DATA_OP       0 /* enum raft_op */
#define DATA_DEADLINE 1 /* ns */
#define DATA_PLUGIN   2 /* struct raft_plugin * */
#define DATA_MEMBER   3 /* struct raft_member_op * or 0 */
#define DATA_INDEX    4 /* snapshot: the index it must reach */

void raft_queue_init(struct raft_queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static struct kvs_proposal *next_of(const struct kvs_proposal *p)
{
    return (struct kvs_proposal *)(void *)p->task.next;
}

void raft_queue_push(struct raft_queue *q, struct kvs_proposal *p)
{
    p->task.next = NULL;
    *q->tail = p;
    q->tail = (struct kvs_proposal **)(void *)&p->task.next;
}

struct kvs_proposal *raft_queue_pop(struct raft_queue *q)
{
    struct kvs_proposal *p = q->head;

    if (p != NULL) {
        q->head = next_of(p);
        if (q->head == NULL) {
            q->tail = &q->head;
        }
        p->task.next = NULL;
    }
    return p;
}

uint64_t raft_deadline_ns(const struct kvs_proposal *p)
{
    return p->plugin_data[DATA_DEADLINE];
}

struct raft_member_op *raft_member_op(const struct kvs_proposal *p)
{
    return (struct raft_member_op *)(uintptr_t)p->plugin_data[DATA_MEMBER];
}

int raft_code(const struct raft_plugin *self, int rv)
{
    switch (rv) {
    case 0:
        return 0;
    case RAFT_NOTLEADER:
        return KVS_ENOTLEADER;
    case RAFT_NOMEM:
        return KVS_ENOMEM;
    case RAFT_NOTFOUND:
    case RAFT_BADID:
        return KVS_ENOTFOUND;
    case RAFT_DUPLICATEID:
    case RAFT_DUPLICATEADDRESS:
    case RAFT_BADROLE:
        return KVS_EEXIST;
    case RAFT_CANTCHANGE:
    case RAFT_BUSY:
        return KVS_EBUSY;
    default:
        /* Lost leadership or shutting down: what is in the log may still be committed. */
        return self->failed || (self->shim.dead && !self->closing) ? KVS_EFAILED : KVS_ECANCELED;
    }
}

/* ---- any thread --------------------------------------------------------------------------------
 */

int raft_submit(struct raft_plugin *self, struct kvs_proposal *p, enum raft_op op,
                struct raft_member_op *take_op)
{
    const struct kvs_host *host = self->host;
    uint64_t timeout_ms = p->timeout_ms == 0 ? RAFT_TIMEOUT_DEFAULT_MS : p->timeout_ms;
    int rc = 0;

    p->loop = host->loop_current(host->ctx);
    KVS_ASSERT(host, p->loop != KVS_LOOP_NONE && p->cb != NULL);
    p->rc = 0;
    p->result = 0;
    p->index = 0;
    memset(p->plugin_data, 0, sizeof p->plugin_data);
    p->plugin_data[DATA_OP] = op;
    p->plugin_data[DATA_DEADLINE] = kvs_mono_ns(host) + timeout_ms * 1000000u;
    p->plugin_data[DATA_PLUGIN] = (uint64_t)(uintptr_t)self;
    p->plugin_data[DATA_MEMBER] = (uint64_t)(uintptr_t)take_op;
    (void)pthread_mutex_lock(&self->lock);
    if (self->phase != PHASE_RUNNING) {
        rc = KVS_ESTATE;
    } else if (self->waiting >= RAFT_WAITING_MAX ||
               self->waiting_bytes + p->entry.len > RAFT_WAITING_BYTES_MAX) {
        rc = KVS_EBUSY;
    } else {
        self->waiting++;
        self->waiting_bytes += p->entry.len;
        if (self->inbox.head == NULL) {
            (void)uv_async_send(&self->wake); /* under the lock: the handle is open in this phase */
        }
        raft_queue_push(&self->inbox, p);
    }
    (void)pthread_mutex_unlock(&self->lock);
    if (rc != 0) {
        kvs_free(host, &raft_memory, take_op, sizeof *take_op);
    }
    return rc;
}

static void proposal_done(struct kvs_task *task)
{
    struct kvs_proposal *p = KVS_CONTAINER_OF(task, struct kvs_proposal, task);

    p->cb(p, p->rc);
}

/* ---- loop thread -------------------------------------------------------------------------------
 */

void raft_complete(struct raft_plugin *self, struct kvs_proposal *p, int rc)
{
    p->rc = rc;
    raft_queue_push(&self->done, p);
}

void raft_post_done(struct raft_plugin *self)
{
    const struct kvs_host *host = self->host;
    struct kvs_proposal *p;
    uint64_t count = 0, bytes = 0;

    if (self->done.head == NULL) {
        return;
    }
    for (p = self->done.head; p != NULL; p = next_of(p)) {
        count++;
        bytes += p->entry.len;
    }
    (void)pthread_mutex_lock(&self->lock);
    self->waiting -= count;
    self->waiting_bytes -= bytes;
    (void)pthread_mutex_unlock(&self->lock);
    while ((p = raft_queue_pop(&self->done)) != NULL) {
        kvs_free(host, &raft_memory, raft_member_op(p), sizeof(struct raft_member_op));
        p->task.run = proposal_done;
        kvs_post(host, p->loop, &p->task); /* the caller's again */
    }
}

/* Asked to take a snapshot: the library takes one when it next applies something, so give it a
 * barrier to apply if we can. */
static void snapshot_begin(struct raft_plugin *self, struct kvs_proposal *p)
{
    struct raft *r = &self->raft;

    if (r->last_applied == 0 || r->last_applied == r->log.snapshot.last_index) {
        raft_complete(self, p, 0);
        return;
    }
    p->plugin_data[DATA_INDEX] = r->last_applied;
    r->snapshot.threshold = 1;
    self->barrier_wanted |= r->state == RAFT_LEADER;
    raft_queue_push(&self->snapshots, p);
}

static void snapshots_check(struct raft_plugin *self)
{
    struct raft_queue still;
    struct kvs_proposal *p;

    raft_queue_init(&still);
    while ((p = raft_queue_pop(&self->snapshots)) != NULL) {
        if (self->raft.log.snapshot.last_index >= p->plugin_data[DATA_INDEX]) {
            p->index = self->raft.log.snapshot.last_index;
            raft_complete(self, p, 0);
        } else {
            raft_queue_push(&still, p);
        }
    }
    while ((p = raft_queue_pop(&still)) != NULL) {
        raft_queue_push(&self->snapshots, p);
    }
}

void raft_take_inbox(struct raft_plugin *self)
{
    struct raft_queue in;
    struct kvs_proposal *p;

    raft_queue_init(&in);
    (void)pthread_mutex_lock(&self->lock);
    while ((p = raft_queue_pop(&self->inbox)) != NULL) {
        raft_queue_push(&in, p);
    }
    (void)pthread_mutex_unlock(&self->lock);
    while ((p = raft_queue_pop(&in)) != NULL) {
        if (self->closing) {
            raft_complete(self, p, self->failed ? KVS_EFAILED : KVS_ECANCELED);
            continue;
        }
        switch ((enum raft_op)p->plugin_data[DATA_OP]) {
        case OP_ENTRY:
            raft_queue_push(&self->entries, p);
            break;
        case OP_BARRIER:
            raft_queue_push(&self->barriers, p);
            break;
        case OP_SNAPSHOT:
            snapshot_begin(self, p);
            break;
        case OP_CHANGE:
            raft_member_begin(self, p);
            break;
        case OP_TRANSFER:
            raft_transfer_begin(self, p);
            break;
        }
    }
}

static void complete_queue(struct raft_plugin *self, struct raft_queue *q, int rc)
{
    struct kvs_proposal *p;

    while ((p = raft_queue_pop(q)) != NULL) {
        raft_complete(self, p, rc);
    }
}

static void batch_cb(struct raft_apply *req, int status, void *result)
{
    struct raft_batch *b = req->data;
    struct raft_plugin *self = b->self;

    (void)result; /* self->results, filled just before */
    for (uint32_t i = 0; i < b->count; i++) {
        struct kvs_proposal *p = b->ops[i];

        if (p != NULL) {
            p->result = status == 0 ? self->results[i] : 0;
            p->index = status == 0 ? req->index : 0;
            raft_complete(self, p, raft_code(self, status));
        }
    }
    b->busy = 0;
}

/* Pack what waits into one entry and give it to the library. */
static void batch_submit(struct raft_plugin *self, struct raft_batch *b)
{
    struct raft_buffer buf = {NULL, RAFT_ENTRY_HEAD_SIZE};
    size_t at;
    int rv;

    b->self = self;
    b->count = 0;
    for (struct kvs_proposal *p = self->entries.head; p != NULL && b->count < RAFT_BATCH_OPS_MAX;
         p = next_of(p)) {
        size_t size = raft_op_size(p->entry.len);

        if (b->count > 0 && buf.len + size > RAFT_BATCH_BYTES_MAX) {
            break;
        }
        buf.len += size;
        b->count++;
    }
    buf.base = raft_malloc(buf.len);
    at = buf.base == NULL ? 0 : raft_entry_begin(buf.base, b->count);
    for (uint32_t i = 0; i < b->count; i++) {
        b->ops[i] = raft_queue_pop(&self->entries);
        if (buf.base != NULL) {
            at = raft_entry_add(buf.base, at, b->ops[i]->entry);
        }
    }
    b->req.data = b;
    b->busy = 1;
    rv = buf.base == NULL ? RAFT_NOMEM : raft_apply(&self->raft, &b->req, &buf, 1, batch_cb);
    if (rv != 0) {
        raft_free(buf.base); /* ours after an error */
        batch_cb(&b->req, rv, NULL);
    }
}

static void barrier_cb(struct raft_barrier *req, int status)
{
    struct raft_plugin *self = req->data;

    self->barrier_busy = 0;
    for (struct kvs_proposal *p = self->barriers_out.head; p != NULL; p = next_of(p)) {
        p->index = status == 0 ? req->index : 0;
    }
    complete_queue(self, &self->barriers_out, raft_code(self, status));
}

static void barrier_submit(struct raft_plugin *self)
{
    struct kvs_proposal *p;
    int rv;

    while ((p = raft_queue_pop(&self->barriers)) != NULL) {
        raft_queue_push(&self->barriers_out, p);
    }
    self->barrier_wanted = 0;
    self->barrier_busy = 1;
    self->barrier.data = self;
    rv = raft_barrier(&self->raft, &self->barrier, barrier_cb);
    if (rv != 0) {
        barrier_cb(&self->barrier, rv);
    }
}

void raft_pump(struct raft_plugin *self)
{
    if (self->raft.state != RAFT_LEADER) {
        complete_queue(self, &self->entries, KVS_ENOTLEADER);
        complete_queue(self, &self->barriers, KVS_ENOTLEADER);
        self->barrier_wanted = 0;
    }
    for (uint32_t i = 0; i < RAFT_BATCHES_OUTSTANDING; i++) {
        if (!self->batches[i].busy && self->entries.head != NULL && !self->shim.dead) {
            batch_submit(self, &self->batches[i]);
        }
    }
    if (!self->barrier_busy && (self->barriers.head != NULL || self->barrier_wanted) &&
        !self->shim.dead) {
        barrier_submit(self);
    }
    if (self->snapshots.head != NULL) {
        snapshots_check(self);
    }
}

/* Time out what waits too long. */
static void expire_queue(struct raft_plugin *self, struct raft_queue *q, uint64_t now_ns)
{
    struct raft_queue still;
    struct kvs_proposal *p;

    raft_queue_init(&still);
    while ((p = raft_queue_pop(q)) != NULL) {
        if (raft_deadline_ns(p) <= now_ns) {
            raft_complete(self, p, KVS_ETIMEDOUT);
        } else {
            raft_queue_push(&still, p);
        }
    }
    while ((p = raft_queue_pop(&still)) != NULL) {
        raft_queue_push(q, p);
    }
}

void raft_expire(struct raft_plugin *self)
{
    uint64_t now_ns = kvs_mono_ns(self->host);

    expire_queue(self, &self->entries, now_ns);
    expire_queue(self, &self->barriers, now_ns);
    expire_queue(self, &self->barriers_out, now_ns);
    expire_queue(self, &self->snapshots, now_ns);
    for (uint32_t i = 0; i < RAFT_BATCHES_OUTSTANDING; i++) {
        struct raft_batch *b = &self->batches[i];

        for (uint32_t j = 0; b->busy && j < b->count; j++) {
            if (b->ops[j] != NULL && raft_deadline_ns(b->ops[j]) <= now_ns) {
                raft_complete(self, b->ops[j], KVS_ETIMEDOUT);
                b->ops[j] = NULL;
            }
        }
    }
}

void raft_fail_all(struct raft_plugin *self, int rc)
{
    raft_take_inbox(self);
    complete_queue(self, &self->entries, rc);
    complete_queue(self, &self->barriers, rc);
    complete_queue(self, &self->barriers_out, rc);
    complete_queue(self, &self->snapshots, rc);
    for (uint32_t i = 0; i < RAFT_BATCHES_OUTSTANDING; i++) {
        struct raft_batch *b = &self->batches[i];

        for (uint32_t j = 0; b->busy && j < b->count; j++) {
            if (b->ops[j] != NULL) {
                raft_complete(self, b->ops[j], rc);
                b->ops[j] = NULL;
            }
        }
    }
    if (self->change != NULL) {
        raft_complete(self, self->change, rc);
        self->change = NULL;
    }
    if (self->transfer != NULL) {
        raft_complete(self, self->transfer, rc);
        self->transfer = NULL;
    }
}
