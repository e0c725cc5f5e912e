/* SPDX-License-Identifier: MIT
 *
 * A consensus plugin of one voter that keeps nothing: what is proposed is applied at the next turn
 * of the loop. Services that need consensus are checked against it on the fake host. */
#include <stdio.h>

#include "check.h"
#include "kvs/consensus.h"

static const struct kvs_mem_tag MEMORY = {"check.stand_in"};

struct stand_in {
    const struct kvs_host *host;
    struct kvs_fsm fsm;
    uint64_t index;
    uint32_t started;
};

/* A proposal finds its instance: plugin_data[0]. */
static struct stand_in *instance_of(const struct kvs_proposal *p)
{
    return (struct stand_in *)(uintptr_t)p->plugin_data[0]; /* NOLINT(performance-no-int-to-ptr) */
}

static void on_turn(struct kvs_task *task)
{
    struct kvs_proposal *p = KVS_CONTAINER_OF(task, struct kvs_proposal, task);
    struct stand_in *s = instance_of(p);

    if (p->entry.len > 0 && s->started) {
        p->index = ++s->index;
        s->fsm.apply(s->fsm.arg, p->index, p->entry, &p->result);
        if (s->fsm.applied != NULL) {
            s->fsm.applied(s->fsm.arg, p->index);
        }
    }
    p->cb(p, s->started ? 0 : KVS_ECANCELED);
}

static int submit(struct stand_in *s, struct kvs_proposal *p)
{
    uint32_t loop = s->host->loop_current(s->host->ctx);

    CHECK(loop != KVS_LOOP_NONE, "a proposal is made outside a loop");
    if (!s->started) {
        return KVS_ESTATE;
    }
    p->loop = loop;
    p->plugin_data[0] = (uint64_t)(uintptr_t)s;
    p->task.run = on_turn;
    kvs_post(s->host, loop, &p->task);
    return 0;
}

static int stand_in_bind(void *self, const struct kvs_fsm *fsm, struct kvs_error *err)
{
    struct stand_in *s = self;

    (void)err;
    s->fsm = *fsm;
    return 0;
}

static int stand_in_propose(void *self, struct kvs_proposal *p)
{
    return p->entry.len == 0 || p->entry.len > KVS_CONSENSUS_ENTRY_SIZE_MAX ? KVS_EINVAL
                                                                            : submit(self, p);
}

static int stand_in_barrier(void *self, struct kvs_proposal *p)
{
    p->entry = kvs_slice(NULL, 0);
    return submit(self, p);
}

static int stand_in_member_add(void *self, const char *id, const char *address, uint32_t role,
                               struct kvs_proposal *p)
{
    (void)self;
    (void)id;
    (void)address;
    (void)role;
    (void)p;
    return KVS_ENOTSUP;
}

static int stand_in_member(void *self, const char *id, struct kvs_proposal *p)
{
    (void)self;
    (void)id;
    (void)p;
    return KVS_ENOTSUP;
}

static void stand_in_status(void *self, struct kvs_consensus_status *ret)
{
    const struct stand_in *s = self;

    memset(ret, 0, sizeof *ret);
    ret->state = s->started ? KVS_CONSENSUS_LEADER : KVS_CONSENSUS_STOPPED;
    ret->member_count = 1;
    ret->term = 1;
    ret->last_index = ret->commit_index = ret->applied_index = s->index;
    (void)snprintf(ret->id, sizeof ret->id, "%s", s->host->node_id);
    (void)snprintf(ret->leader_id, sizeof ret->leader_id, "%s", s->host->node_id);
    (void)snprintf(ret->members[0].id, sizeof ret->members[0].id, "%s", s->host->node_id);
    ret->members[0].role = KVS_ROLE_VOTER;
    ret->members[0].online = 1;
}

static int stand_in_init(const struct kvs_host *host, const void *conf, void **ret_self,
                         struct kvs_error *err)
{
    struct stand_in *s = kvs_calloc(host, &MEMORY, sizeof *s);

    (void)conf;
    if (s == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    s->host = host;
    *ret_self = s;
    return 0;
}

static int stand_in_start(void *self, struct kvs_error *err)
{
    struct stand_in *s = self;

    if (s->fsm.apply == NULL) {
        return kvs_err(err, KVS_ESTATE, "nobody bound a state machine in init");
    }
    s->started = 1;
    if (s->fsm.role_changed != NULL) {
        s->fsm.role_changed(s->fsm.arg, KVS_CONSENSUS_LEADER, 1, s->host->node_id);
    }
    return 0;
}

static void stand_in_stop(void *self)
{
    struct stand_in *s = self;

    s->started = 0;
}

static void stand_in_fini(void *self)
{
    struct stand_in *s = self;

    kvs_free(s->host, &MEMORY, s, sizeof *s);
}

static const struct kvs_consensus_ops ops = {
    .size = sizeof ops,
    .bind = stand_in_bind,
    .propose = stand_in_propose,
    .barrier = stand_in_barrier,
    .snapshot = stand_in_barrier,
    .member_add = stand_in_member_add,
    .member_remove = stand_in_member,
    .transfer = stand_in_member,
    .status = stand_in_status,
};

const struct kvs_plugin stand_in_consensus = {
    .size = sizeof stand_in_consensus,
    .abi_major = KVS_ABI_MAJOR,
    .abi_minor = KVS_ABI_MINOR,
    .kind = KVS_KIND_CONSENSUS,
    .name = "stand-in",
    .version = "1.0.0",
    .summary = "one voter that keeps nothing",
    .ops = &ops,
    .init = stand_in_init,
    .start = stand_in_start,
    .stop = stand_in_stop,
    .fini = stand_in_fini,
};
