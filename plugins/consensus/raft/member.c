/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: who belongs, who leads, and what is told about it.
 *
 * A change is a few steps on the leader, one change at a time (rule 9):
 *
 *   add     join as SPARE (no log) -> STANDBY (gets the log) -> wait until its log is close to ours
 *           -> VOTER, if that was asked for. The library gives up a promotion after a few slow
 *           rounds; then the step is tried again until the proposal times out.
 *   remove  one step; refused if the voters that answer could not form a quorum afterwards.
 *
 * The library numbers servers; the number is a hash of the node's id, and the id itself travels in
 * the address, "id@host:port". */
#include <stdio.h>
#include <stdlib.h>

#include "raft_private.h"

#define CATCH_UP_ENTRIES 256u /* distance at which a STANDBY may become VOTER */
#define RETRY_MS         200u

enum change_step { STEP_JOIN, STEP_STANDBY, STEP_CATCH_UP, STEP_VOTER, STEP_REMOVE };

raft_id raft_id_of(const char *id)
{
    uint64_t h = 14695981039346656037ull; /* FNV-1a, 64 bits */

    for (; *id != '\0'; id++) {
        h = (h ^ (uint8_t)*id) * 1099511628211ull;
    }
    return h == 0 ? 1 : h;
}

int raft_address_split(const char *address, char ret_id[64], char ret_host_port[128])
{
    const char *at = strchr(address, '@'), *colon = strrchr(address, ':');
    size_t id_len = at == NULL ? 0 : (size_t)(at - address);
    char *end;
    long port;

    if (id_len == 0 || id_len >= 64 || colon == NULL || colon <= at + 1 || strlen(at + 1) >= 128 ||
        strlen(address) >= RAFT_ADDRESS_SIZE) {
        return KVS_EINVAL;
    }
    port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end != '\0' || port < 0 || port > 65535) {
        return KVS_EINVAL;
    }
    memcpy(ret_id, address, id_len);
    ret_id[id_len] = '\0';
    (void)snprintf(ret_host_port, 128, "%s", at + 1);
    return 0;
}

/* ---- status ------------------------------------------------------------------------------------
 */

static uint32_t state_of(const struct raft_plugin *self)
{
    if (self->failed) {
        return KVS_CONSENSUS_FAILED;
    }
    switch (self->raft.state) {
    case RAFT_FOLLOWER:
        return KVS_CONSENSUS_FOLLOWER;
    case RAFT_CANDIDATE:
        return KVS_CONSENSUS_CANDIDATE;
    case RAFT_LEADER:
        /* Leader for others once its own term is committed and all before it is applied. */
        return raft_shim_leading(&self->shim) ? KVS_CONSENSUS_LEADER : KVS_CONSENSUS_CANDIDATE;
    default:
        return KVS_CONSENSUS_STOPPED;
    }
}

static void leader_of(struct raft_plugin *self, char ret_id[64])
{
    raft_id number = 0;
    const char *address = NULL;
    char host_port[128];

    ret_id[0] = '\0';
    if (self->raft_started && !self->closing && !self->failed) {
        raft_leader(&self->raft, &number, &address);
    }
    if (number == self->raft_id && self->raft.state == RAFT_LEADER) {
        (void)snprintf(ret_id, 64, "%s", self->id);
    } else if (address != NULL && raft_address_split(address, ret_id, host_port) != 0) {
        ret_id[0] = '\0';
    }
}

static void members_fill(const struct raft_plugin *self, struct kvs_consensus_status *st)
{
    const struct raft *r = &self->raft;
    uint32_t n = 0;

    for (unsigned i = 0; i < r->configuration.n && n < KVS_CONSENSUS_MEMBER_MAX; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        struct kvs_member *m = &st->members[n];

        memset(m, 0, sizeof *m);
        if (raft_address_split(s->address, m->id, m->address) != 0) {
            continue;
        }
        m->role = s->role == RAFT_VOTER     ? KVS_ROLE_VOTER
                  : s->role == RAFT_STANDBY ? KVS_ROLE_STANDBY
                                            : KVS_ROLE_SPARE;
        if (s->id == self->raft_id) {
            m->online = 1;
            m->match_index = r->last_stored;
        } else if (r->state == RAFT_LEADER) {
            m->online = r->leader_state.progress[i].recent_recv;
            m->match_index = r->leader_state.progress[i].match_index;
        }
        n++;
    }
    st->member_count = n;
}

void raft_status_update(struct raft_plugin *self, int all)
{
    struct kvs_consensus_status *st = &self->status;
    const struct raft *r = &self->raft;
    uint32_t state = state_of(self);
    char leader[64];
    int changed;

    leader_of(self, leader);
    changed = state != self->seen_state || r->current_term != self->seen_term ||
              strcmp(leader, self->seen_leader) != 0;
    (void)pthread_mutex_lock(&self->lock);
    st->state = state;
    st->term = r->current_term;
    st->commit_index = r->commit_index;
    st->applied_index = r->last_applied;
    st->snapshot_bytes = self->snapshot_size;
    st->log_bytes = self->applied_bytes;
    (void)snprintf(st->id, sizeof st->id, "%s", self->id);
    (void)snprintf(st->leader_id, sizeof st->leader_id, "%s", leader);
    (void)snprintf(st->failure, sizeof st->failure, "%.127s", self->failed ? self->shim.why : "");
    if (self->raft_started && !self->closing && (all || changed)) {
        st->last_index = raft_shim_last_index(r);
        st->snapshot_index = r->log.snapshot.last_index;
        members_fill(self, st);
    }
    (void)pthread_mutex_unlock(&self->lock);
    if (!changed) {
        return;
    }
    self->seen_state = state;
    self->seen_term = r->current_term;
    (void)snprintf(self->seen_leader, sizeof self->seen_leader, "%s", leader);
    if (self->fsm.role_changed != NULL) {
        self->fsm.role_changed(self->fsm.arg, state, r->current_term, leader);
    }
}

/* ---- changes -----------------------------------------------------------------------------------
 */

static int index_of(const struct raft_plugin *self, raft_id id)
{
    const struct raft_configuration *c = &self->raft.configuration;

    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == id) {
            return (int)i;
        }
    }
    return -1;
}

static void change_end(struct raft_plugin *self, int rc)
{
    struct kvs_proposal *p = self->change;

    self->change = NULL;
    if (p != NULL) {
        p->index = rc == 0 ? self->raft.last_applied : 0;
        raft_complete(self, p, rc);
    }
}

/* True if the voters that answer are still a majority when `without` is gone. */
static int quorum_holds(const struct raft_plugin *self, raft_id without)
{
    const struct raft *r = &self->raft;
    unsigned voters = 0, alive = 0;

    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];

        if (s->role == RAFT_VOTER && s->id != without) {
            voters++;
            alive += s->id == self->raft_id || r->leader_state.progress[i].recent_recv;
        }
    }
    return voters > 0 && alive * 2 > voters;
}

static void change_cb(struct raft_change *req, int status)
{
    struct raft_plugin *self = KVS_CONTAINER_OF(req, struct raft_plugin, change_req);

    self->change_waits = 0;
    if (self->change == NULL) {
        return; /* timed out */
    }
    if (status != 0 && self->change_step == STEP_VOTER && status == RAFT_NOCONNECTION) {
        return; /* not fast enough: on_timer tries again */
    }
    if (status != 0) {
        change_end(self, raft_code(self, status));
        return;
    }
    switch ((enum change_step)self->change_step) {
    case STEP_JOIN:
        self->change_step = STEP_STANDBY;
        break;
    case STEP_STANDBY:
        self->change_step = STEP_CATCH_UP;
        break;
    default:
        change_end(self, 0);
        break;
    }
}

static void change_submit(struct raft_plugin *self)
{
    const struct raft_member_op *op = self->change_op;
    raft_id id = raft_id_of(op->id);
    char address[RAFT_ADDRESS_SIZE];
    int rv = 0;

    (void)snprintf(address, sizeof address, "%s@%s", op->id, op->address);
    self->change_waits = 1;
    switch ((enum change_step)self->change_step) {
    case STEP_JOIN:
        rv = raft_add(&self->raft, &self->change_req, id, address, change_cb);
        break;
    case STEP_STANDBY:
        rv = raft_assign(&self->raft, &self->change_req, id, RAFT_STANDBY, change_cb);
        break;
    case STEP_VOTER:
        rv = raft_assign(&self->raft, &self->change_req, id, RAFT_VOTER, change_cb);
        break;
    case STEP_REMOVE:
        rv = raft_remove(&self->raft, &self->change_req, id, change_cb);
        break;
    case STEP_CATCH_UP:
        break;
    }
    if (rv != 0) {
        self->change_waits = 0;
        if (rv != RAFT_CANTCHANGE && rv != RAFT_BUSY) {
            change_end(self, raft_code(self, rv));
        }
    }
}

/* A STANDBY is close enough to vote, or it needs no vote. */
static void catch_up_check(struct raft_plugin *self)
{
    int i = index_of(self, raft_id_of(self->change_op->id));
    const struct raft *r = &self->raft;

    if (self->change_op->role != KVS_ROLE_VOTER || i < 0) {
        change_end(self, i < 0 ? KVS_ENOTFOUND : 0);
    } else if (r->leader_state.progress[i].match_index + CATCH_UP_ENTRIES >=
               raft_shim_last_index(r)) {
        self->change_step = STEP_VOTER;
    }
}

void raft_member_step(struct raft_plugin *self)
{
    uint64_t now_ns = kvs_mono_ns(self->host);

    if (self->change == NULL) {
        return;
    }
    if (self->raft.state != RAFT_LEADER) {
        change_end(self, KVS_ECANCELED);
    } else if (raft_deadline_ns(self->change) <= now_ns) {
        change_end(self, KVS_ETIMEDOUT);
    } else if (!self->change_waits && now_ns >= self->change_retry_ns) {
        if (self->change_step == STEP_CATCH_UP) {
            catch_up_check(self);
        }
        if (self->change != NULL && self->change_step != STEP_CATCH_UP) {
            self->change_retry_ns = now_ns + RETRY_MS * 1000000u;
            change_submit(self);
            raft_shim_step(&self->shim);
        }
    }
}

static int change_allowed(const struct raft_plugin *self, const struct raft_member_op *op)
{
    int i = index_of(self, raft_id_of(op->id));

    if (self->raft.state != RAFT_LEADER) {
        return KVS_ENOTLEADER;
    }
    if (self->change != NULL || self->change_waits || !raft_shim_leading(&self->shim)) {
        return KVS_EBUSY;
    }
    if (op->kind == CHANGE_ADD) {
        return i >= 0                                                   ? KVS_EEXIST
               : self->raft.configuration.n >= KVS_CONSENSUS_MEMBER_MAX ? KVS_ETOOMANY
                                                                        : 0;
    }
    if (i < 0) {
        return KVS_ENOTFOUND;
    }
    /* The leader hands over first. */
    return strcmp(op->id, self->id) == 0 || !quorum_holds(self, raft_id_of(op->id)) ? KVS_ECONFLICT
                                                                                    : 0;
}

void raft_member_begin(struct raft_plugin *self, struct kvs_proposal *p)
{
    struct raft_member_op *op = raft_member_op(p);
    int rc = self->failed ? KVS_EFAILED : change_allowed(self, op);

    if (rc != 0) {
        raft_complete(self, p, rc);
        return;
    }
    self->change = p;
    self->change_op = op;
    self->change_step = op->kind == CHANGE_ADD ? STEP_JOIN : STEP_REMOVE;
    self->change_retry_ns = 0;
    raft_member_step(self);
}

/* ---- transfer ----------------------------------------------------------------------------------
 */

static void transfer_cb(struct raft_transfer *req)
{
    struct raft_plugin *self = KVS_CONTAINER_OF(req, struct raft_plugin, transfer_req);
    struct kvs_proposal *p = self->transfer;

    self->transfer_busy = 0;
    self->transfer = NULL;
    if (p != NULL) {
        raft_complete(self, p, self->raft.state == RAFT_LEADER ? KVS_ETIMEDOUT : 0);
    }
}

void raft_transfer_begin(struct raft_plugin *self, struct kvs_proposal *p)
{
    const struct raft_member_op *op = raft_member_op(p);
    raft_id id = op->id[0] == '\0' ? 0 : raft_id_of(op->id);
    int rv;

    if (self->raft.state != RAFT_LEADER || self->failed) {
        raft_complete(self, p, self->failed ? KVS_EFAILED : KVS_ENOTLEADER);
        return;
    }
    if (self->transfer_busy) {
        raft_complete(self, p, KVS_EBUSY);
        return;
    }
    if (id == self->raft_id) {
        raft_complete(self, p, 0);
        return;
    }
    self->transfer = p;
    self->transfer_busy = 1;
    rv = raft_transfer(&self->raft, &self->transfer_req, id, transfer_cb);
    if (rv != 0) {
        self->transfer = NULL;
        self->transfer_busy = 0;
        raft_complete(self, p, raft_code(self, rv));
    }
}

/* ---- ops, on the caller's loop -----------------------------------------------------------------
 */

static int member_submit(struct raft_plugin *self, enum raft_op kind, struct raft_member_op op,
                         const char *id, const char *address, struct kvs_proposal *p)
{
    struct raft_member_op *copy;

    if (strlen(id) >= sizeof op.id || strlen(address) >= sizeof op.address) {
        return KVS_EINVAL;
    }
    copy = kvs_calloc(self->host, &raft_memory, sizeof *copy);
    if (copy == NULL) {
        return KVS_ENOMEM;
    }
    *copy = op;
    (void)snprintf(copy->id, sizeof copy->id, "%s", id);
    (void)snprintf(copy->address, sizeof copy->address, "%s", address);
    return raft_submit(self, p, kind, copy);
}

int raft_member_add_op(void *arg, const char *id, const char *address, uint32_t role,
                       struct kvs_proposal *p)
{
    char full[RAFT_ADDRESS_SIZE], id_copy[64], host_port[128];
    int n = snprintf(full, sizeof full, "%s@%s", id, address);

    if (n < 0 || (size_t)n >= sizeof full || raft_address_split(full, id_copy, host_port) != 0 ||
        role > KVS_ROLE_VOTER) {
        return KVS_EINVAL;
    }
    return member_submit(arg, OP_CHANGE, (struct raft_member_op){.kind = CHANGE_ADD, .role = role},
                         id, address, p);
}

int raft_member_remove_op(void *arg, const char *id, struct kvs_proposal *p)
{
    return member_submit(arg, OP_CHANGE, (struct raft_member_op){.kind = CHANGE_REMOVE}, id, "", p);
}

int raft_transfer_op(void *arg, const char *id, struct kvs_proposal *p)
{
    return member_submit(arg, OP_TRANSFER, (struct raft_member_op){.kind = CHANGE_ADD}, id, "", p);
}
