/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: options, life, the loop thread.
 *
 * One thread owns the libuv loop, the library, the shim and the state machine. A round of the loop
 * is: events (disk, timer), then on_round() takes the proposals that came, gives them to the
 * library, tells the service what to publish and posts what is complete. */
#include <inttypes.h>
#include <stdio.h>

#include "raft_private.h"

#define TIMER_MS      50u
#define SEGMENT_BYTES (8u << 20)
#define AT(field)     offsetof(struct raft_conf, field)

const struct kvs_mem_tag raft_memory = {"consensus.raft"};

static const struct kvs_opt options[] = {
    {"listen", KVS_OPT_STR, 0, NULL, 0, 100, AT(listen), NULL,
     "Address for the other members, host:port. Not needed by a single voter."},
    {"members", KVS_OPT_LIST, 0, NULL, 0, 0, AT(members), NULL,
     "The first voters, each id@host:port; used at the first start only. Empty: this node alone."},
    {"election_timeout", KVS_OPT_DURATION, 0, "1s", 50, 60000, AT(election_timeout_ms), NULL,
     "Silence of the leader after which a member stands for election."},
    {"heartbeat_timeout", KVS_OPT_DURATION, 0, "100ms", 5, 30000, AT(heartbeat_timeout_ms), NULL,
     "How often an idle leader makes itself heard."},
    {"snapshot_threshold", KVS_OPT_INT, 0, "8192", 16, 1000000, AT(snapshot_threshold), NULL,
     "Log entries after which a snapshot is taken."},
    {"snapshot_trailing", KVS_OPT_INT, 0, "1024", 1, 1000000, AT(snapshot_trailing), NULL,
     "Log entries kept behind a snapshot for members that lag."},
    {"snapshot_bytes", KVS_OPT_BYTES, 0, "16MiB", 65536, 1 << 30, AT(snapshot_bytes), NULL,
     "Bytes of log after which a snapshot is taken, however few entries they are."},
    KVS_OPTS_END,
};

/* ---- the loop thread ---------------------------------------------------------------------------
 */

static void set_phase(struct raft_plugin *self, enum raft_phase phase)
{
    (void)pthread_mutex_lock(&self->lock);
    self->phase = phase;
    (void)pthread_cond_broadcast(&self->changed);
    (void)pthread_mutex_unlock(&self->lock);
}

static enum raft_phase phase_of(struct raft_plugin *self)
{
    enum raft_phase phase;

    (void)pthread_mutex_lock(&self->lock);
    phase = self->phase;
    (void)pthread_mutex_unlock(&self->lock);
    return phase;
}

static void handle_close(uv_handle_t *h)
{
    if (!uv_is_closing(h)) {
        uv_close(h, NULL);
    }
}

static void close_handles(struct raft_plugin *self)
{
    handle_close((uv_handle_t *)&self->timer);
    handle_close((uv_handle_t *)&self->round);
    handle_close((uv_handle_t *)&self->wake);
}

static void on_raft_closed(struct raft *raft)
{
    /* raft_uv may have a callback of its own left in this round: it is freed when the loop ended.
     */
    close_handles(KVS_CONTAINER_OF(raft, struct raft_plugin, raft));
}

/* Nothing new is taken; on_raft_closed() ends the loop. */
static void begin_close(struct raft_plugin *self)
{
    self->closing = 1;
    raft_fail_all(self, self->failed ? KVS_EFAILED : KVS_ECANCELED);
    if (self->raft_inited) {
        raft_close(&self->raft, on_raft_closed);
        raft_shim_close(&self->shim);
        return;
    }
    close_handles(self);
}

/* Rule 4: the member stays up to say what happened, and does nothing else. */
static void fail_stop(struct raft_plugin *self)
{
    const struct kvs_host *host = self->host;

    self->failed = 1;
    KVS_LOG(host, KVS_LOG_ERROR, "consensus_failed", "error='%s' hint='restart this node'",
            self->shim.why);
    host->ready_set(host->ctx, "consensus", 0, self->shim.why);
    (void)pthread_mutex_lock(&self->lock);
    if (self->phase == PHASE_STARTING) {
        self->start_rc = kvs_err(&self->start_err, KVS_EFAILED, "%s", self->shim.why);
        self->phase = PHASE_STOPPING;
        (void)pthread_cond_broadcast(&self->changed);
    }
    (void)pthread_mutex_unlock(&self->lock);
}

/* A single voter leads and has applied its whole log before start() returns; several have to find
 * each other first, and the service waits for its role. */
static int start_complete(const struct raft_plugin *self)
{
    return self->raft.configuration.n > 1 || raft_shim_leading(&self->shim);
}

static void on_round(uv_prepare_t *handle)
{
    struct raft_plugin *self = handle->data;
    enum raft_phase phase;

    if (self->closing) {
        raft_post_done(self);
        return;
    }
    raft_shim_step(&self->shim);
    if (self->shim.dead && !self->failed) {
        fail_stop(self);
    }
    phase = phase_of(self);
    if (phase == PHASE_STOPPING) {
        begin_close(self);
    } else if (self->failed) {
        raft_fail_all(self, KVS_EFAILED);
    } else {
        raft_take_inbox(self);
        raft_pump(self);
        raft_shim_step(&self->shim);
    }
    if (self->fsm_changed) {
        self->fsm_changed = 0;
        if (self->fsm.applied != NULL) {
            self->fsm.applied(self->fsm.arg, self->raft.last_applied);
        }
    }
    raft_status_update(self, 0);
    if (phase == PHASE_STARTING && !self->failed && start_complete(self)) {
        raft_status_update(self, 1);
        set_phase(self, PHASE_RUNNING);
    }
    raft_post_done(self);
}

static void on_timer(uv_timer_t *handle)
{
    struct raft_plugin *self = handle->data;

    if (!self->closing) {
        raft_expire(self);
        raft_member_step(self);
        raft_status_update(self, 1);
    }
}

static void on_wake(uv_async_t *handle)
{
    (void)handle; /* on_round() does the work */
}

/* ---- opening the library -----------------------------------------------------------------------
 */

/* raft_uv is used for its disk only; this stands where its connections would be. */
static int none_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t;
    (void)id;
    (void)address;
    return 0;
}

static int none_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t;
    (void)cb;
    return 0;
}

static int none_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                        const char *address, raft_uv_connect_cb cb)
{
    (void)t;
    (void)req;
    (void)id;
    (void)address;
    (void)cb;
    return RAFT_NOCONNECTION;
}

static void none_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

/* The shim turns the refusal into a later failure, as the library needs it. */
static int none_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                     raft_io_send_cb cb)
{
    (void)io;
    (void)req;
    (void)m;
    (void)cb;
    return RAFT_NOCONNECTION;
}

static int library_error(int rv, const char *text, struct kvs_error *err)
{
    int rc = rv == RAFT_NOMEM       ? KVS_ENOMEM
             : rv == RAFT_NOSPACE   ? KVS_ENOSPC
             : rv == RAFT_CORRUPT   ? KVS_ECORRUPT
             : rv == RAFT_MALFORMED ? KVS_ECORRUPT
                                    : KVS_EIO;

    return kvs_err(err, rc, "consensus log: %s", text[0] != '\0' ? text : raft_strerror(rv));
}

static int io_open(struct raft_plugin *self, struct kvs_error *err)
{
    int rv;

    self->no_transport = (struct raft_uv_transport){
        .init = none_init, .listen = none_listen, .connect = none_connect, .close = none_close};
    memset(&self->io, 0, sizeof self->io);
    rv = raft_uv_init(&self->io, &self->loop, self->dir, &self->no_transport);
    if (rv != 0) {
        return library_error(rv, self->io.errmsg, err);
    }
    self->io_inited = 1;
    self->io.version = 2; /* it forgets; asynchronous snapshots need it */
    self->io.send = none_send;
    raft_uv_set_segment_size(&self->io, SEGMENT_BYTES);
    raft_uv_set_auto_recovery(&self->io, false);
    rv = raft_uv_set_snapshot_compression(&self->io, true);
    return rv == 0 ? 0 : library_error(rv, self->io.errmsg, err);
}

static int raft_open(struct raft_plugin *self, struct kvs_error *err)
{
    const struct raft_conf *conf = self->conf;
    int rv;

    raft_fsm_init(self);
    raft_shim_init(&self->shim, &self->raft, &self->io);
    self->shim.message_bytes_max = RAFT_MESSAGE_BYTES_MAX;
    rv = raft_init(&self->raft, &self->io, &self->raft_fsm, self->raft_id, self->address);
    if (rv != 0) {
        return library_error(rv, self->raft.errmsg, err);
    }
    self->raft_inited = 1;
    raft_set_election_timeout(&self->raft, (unsigned)conf->election_timeout_ms);
    raft_set_heartbeat_timeout(&self->raft, (unsigned)conf->heartbeat_timeout_ms);
    raft_set_install_snapshot_timeout(&self->raft, 10000);
    raft_set_snapshot_threshold(&self->raft, (unsigned)conf->snapshot_threshold);
    raft_set_snapshot_trailing(&self->raft, (unsigned)conf->snapshot_trailing);
    raft_set_pre_vote(&self->raft, true);
    return 0;
}

/* The first start writes the list of members as entry 1. Interrupted before the identity is
 * claimed, it is done again; the library refuses to overwrite what is there. */
static int bootstrap(struct raft_plugin *self, struct kvs_error *err)
{
    struct raft_configuration members;
    int rv;

    raft_configuration_init(&members);
    rv = raft_configuration_add(&members, self->raft_id, self->address, RAFT_VOTER);
    if (rv == 0) {
        rv = raft_bootstrap(&self->raft, &members);
    }
    raft_configuration_close(&members);
    if (rv != 0 && rv != RAFT_CANTBOOTSTRAP) {
        return library_error(rv, self->io.errmsg, err);
    }
    return raft_data_claim(self, err);
}

static int library_start(struct raft_plugin *self, struct kvs_error *err)
{
    int first_start = 0;
    int rc = raft_data_open(self, &first_start, err), rv;

    if (rc == 0) {
        rc = io_open(self, err);
    }
    if (rc == 0) {
        rc = raft_open(self, err);
    }
    if (rc == 0 && first_start) {
        rc = bootstrap(self, err);
    }
    if (rc != 0) {
        return rc;
    }
    rv = raft_start(&self->raft);
    if (rv != 0) {
        return self->shim.dead ? kvs_err(err, KVS_ECORRUPT, "%s", self->shim.why)
                               : library_error(rv, self->raft.errmsg, err);
    }
    self->raft_started = 1;
    return 0;
}

static int loop_open(struct raft_plugin *self, struct kvs_error *err)
{
    int rv = uv_loop_init(&self->loop);

    if (rv != 0) {
        return kvs_err(err, KVS_ENOMEM, "event loop: %s", uv_strerror(rv));
    }
    rv = uv_async_init(&self->loop, &self->wake, on_wake);
    if (rv != 0) {
        (void)uv_loop_close(&self->loop);
        return kvs_err(err, KVS_ENOMEM, "event loop: %s", uv_strerror(rv));
    }
    (void)uv_prepare_init(&self->loop, &self->round);
    (void)uv_timer_init(&self->loop, &self->timer);
    self->wake.data = self->round.data = self->timer.data = self;
    return 0;
}

static void *loop_thread(void *arg)
{
    struct raft_plugin *self = arg;
    struct kvs_error err = {0};
    int rc = library_start(self, &err);

    if (rc == 0) {
        (void)uv_prepare_start(&self->round, on_round);
        (void)uv_timer_start(&self->timer, on_timer, TIMER_MS, TIMER_MS);
        /* Nothing may be on its way when the first round runs: make sure there is one. */
        (void)uv_async_send(&self->wake);
    } else {
        (void)pthread_mutex_lock(&self->lock);
        self->start_rc = rc;
        self->start_err = err;
        self->phase = PHASE_STOPPING;
        (void)pthread_cond_broadcast(&self->changed);
        (void)pthread_mutex_unlock(&self->lock);
        begin_close(self);
    }
    (void)uv_run(&self->loop, UV_RUN_DEFAULT);
    raft_post_done(self);
    if (self->io_inited) {
        raft_uv_close(&self->io);
    }
    if (self->snapshot.free != NULL) {
        self->snapshot.free(self->snapshot.arg);
        self->snapshot.free = NULL;
    }
    KVS_ASSERT(self->host, uv_loop_close(&self->loop) == 0);
    raft_status_update(self, 1);
    return NULL;
}

static void op_status(void *arg, struct kvs_consensus_status *ret_status)
{
    struct raft_plugin *self = arg;

    (void)pthread_mutex_lock(&self->lock);
    *ret_status = self->status;
    (void)pthread_mutex_unlock(&self->lock);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static int conf_check(const void *arg, struct kvs_error *err)
{
    const struct raft_conf *conf = arg;

    if (conf->heartbeat_timeout_ms * 2 > conf->election_timeout_ms) {
        return kvs_err(err, KVS_EINVAL,
                       "heartbeat_timeout: must be at most half of election_timeout");
    }
    for (uint64_t i = 0; i < conf->members.count; i++) {
        char id[64], host_port[128];

        if (raft_address_split(conf->members.items[i], id, host_port) != 0) {
            return kvs_err(err, KVS_EINVAL, "members: '%s' is not id@host:port",
                           conf->members.items[i]);
        }
    }
    if (conf->members.count > 1) {
        return kvs_err(err, KVS_ENOTSUP, "members: this version runs a single voter");
    }
    return 0;
}

static int life_init(const struct kvs_host *host, const void *conf, void **ret_self,
                     struct kvs_error *err)
{
    struct raft_plugin *self = kvs_calloc(host, &raft_memory, sizeof *self);
    char id[64] = "", host_port[128];

    if (self == NULL) {
        return kvs_err(err, KVS_ENOMEM, "consensus-raft");
    }
    self->host = host;
    self->conf = conf;
    (void)snprintf(self->id, sizeof self->id, "%s", host->node_id);
    (void)snprintf(self->address, sizeof self->address, "%s@%s", host->node_id,
                   self->conf->listen[0] != '\0' ? self->conf->listen : "localhost:0");
    if (self->conf->members.count == 1) {
        (void)raft_address_split(self->conf->members.items[0], id, host_port);
        if (strcmp(id, host->node_id) != 0) {
            int rc =
                kvs_err(err, KVS_EINVAL, "members: no entry is this node, '%s'", host->node_id);

            kvs_free(host, &raft_memory, self, sizeof *self);
            return rc;
        }
        (void)snprintf(self->address, sizeof self->address, "%s", self->conf->members.items[0]);
    }
    self->raft_id = raft_id_of(self->id);
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->changed, NULL);
    raft_queue_init(&self->inbox);
    raft_queue_init(&self->entries);
    raft_queue_init(&self->barriers);
    raft_queue_init(&self->barriers_out);
    raft_queue_init(&self->snapshots);
    raft_queue_init(&self->done);
    *ret_self = self;
    return 0;
}

static int life_start(void *arg, struct kvs_error *err)
{
    struct raft_plugin *self = arg;
    struct kvs_consensus_status status;
    int rc;

    if (!self->bound) {
        return kvs_err(err, KVS_ESTATE, "no service uses the consensus plugin");
    }
    rc = loop_open(self, err);
    if (rc != 0) {
        return rc;
    }
    self->phase = PHASE_STARTING;
    if (pthread_create(&self->thread, NULL, loop_thread, self) != 0) {
        close_handles(self);
        (void)uv_run(&self->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&self->loop);
        self->phase = PHASE_STOPPED;
        return kvs_err(err, KVS_ENOMEM, "cannot start a thread");
    }
    (void)pthread_mutex_lock(&self->lock);
    while (self->phase == PHASE_STARTING) {
        (void)pthread_cond_wait(&self->changed, &self->lock);
    }
    rc = self->start_rc;
    (void)pthread_mutex_unlock(&self->lock);
    if (rc != 0) {
        (void)pthread_join(self->thread, NULL);
        set_phase(self, PHASE_STOPPED);
        if (err != NULL) {
            *err = self->start_err;
        }
        return rc;
    }
    self->host->ready_set(self->host->ctx, "consensus", 1, "");
    op_status(self, &status);
    KVS_LOG(self->host, KVS_LOG_INFO, "started", "id='%s' term=%" PRIu64 " applied=%" PRIu64,
            self->address, status.term, status.applied_index);
    return 0;
}

static void life_stop(void *arg)
{
    struct raft_plugin *self = arg;

    (void)pthread_mutex_lock(&self->lock);
    if (self->phase != PHASE_RUNNING) {
        (void)pthread_mutex_unlock(&self->lock);
        return;
    }
    self->phase = PHASE_STOPPING;
    (void)uv_async_send(&self->wake);
    (void)pthread_mutex_unlock(&self->lock);
    (void)pthread_join(self->thread, NULL);
    set_phase(self, PHASE_STOPPED);
}

static void life_fini(void *arg)
{
    struct raft_plugin *self = arg;

    (void)pthread_cond_destroy(&self->changed);
    (void)pthread_mutex_destroy(&self->lock);
    kvs_free(self->host, &raft_memory, self, sizeof *self);
}

/* ---- ops ---------------------------------------------------------------------------------------
 */

static int op_bind(void *arg, const struct kvs_fsm *fsm, struct kvs_error *err)
{
    struct raft_plugin *self = arg;

    if (self->bound) {
        return kvs_err(err, KVS_EEXIST, "the consensus plugin has a state machine already");
    }
    self->fsm = *fsm;
    self->bound = 1;
    return 0;
}

static int op_propose(void *arg, struct kvs_proposal *p)
{
    if (p->entry.len == 0 || p->entry.len > KVS_CONSENSUS_ENTRY_SIZE_MAX) {
        return KVS_EINVAL;
    }
    return raft_submit(arg, p, OP_ENTRY, NULL);
}

static int op_barrier(void *arg, struct kvs_proposal *p)
{
    return raft_submit(arg, p, OP_BARRIER, NULL);
}

static int op_snapshot(void *arg, struct kvs_proposal *p)
{
    return raft_submit(arg, p, OP_SNAPSHOT, NULL);
}

static const struct kvs_consensus_ops ops = {
    .size = sizeof ops,
    .bind = op_bind,
    .propose = op_propose,
    .barrier = op_barrier,
    .snapshot = op_snapshot,
    .member_add = raft_member_add_op,
    .member_remove = raft_member_remove_op,
    .transfer = raft_transfer_op,
    .status = op_status,
};

KVS_PLUGIN(.kind = KVS_KIND_CONSENSUS, .name = "raft", .version = "1.0.0",
           .summary = "Raft by canonical/raft 0.15 behind a safety shim", .opts = options,
           .conf_size = sizeof(struct raft_conf), .ops = &ops, .check = conf_check,
           .init = life_init, .start = life_start, .stop = life_stop, .fini = life_fini);
