/* SPDX-License-Identifier: MIT
 *
 * Broken on purpose: propose applies at once and calls back before it returns, so a caller that
 * holds a lock, or has not yet noted what it proposed, is caught out. */
#include <stdio.h>

#include "kvs/consensus.h"

static const struct kvs_mem_tag MEMORY = {"broken"};

struct broken {
    const struct kvs_host *host;
    struct kvs_fsm fsm;
    uint64_t index;
    uint32_t started;
};

static int broken_bind(void *self, const struct kvs_fsm *fsm, struct kvs_error *err)
{
    struct broken *b = self;

    (void)err;
    b->fsm = *fsm;
    return 0;
}

static int broken_propose(void *self, struct kvs_proposal *p)
{
    struct broken *b = self;

    if (!b->started) {
        return KVS_ESTATE;
    }
    if (p->entry.len == 0 || p->entry.len > KVS_CONSENSUS_ENTRY_SIZE_MAX) {
        return KVS_EINVAL;
    }
    p->index = ++b->index;
    b->fsm.apply(b->fsm.arg, p->index, p->entry, &p->result);
    p->cb(p, 0); /* the defect */
    return 0;
}

static int broken_refuse(void *self, struct kvs_proposal *p)
{
    (void)self;
    (void)p;
    return KVS_ENOTSUP;
}

static int broken_member_add(void *self, const char *id, const char *address, uint32_t role,
                             struct kvs_proposal *p)
{
    (void)id;
    (void)address;
    (void)role;
    return broken_refuse(self, p);
}

static int broken_member(void *self, const char *id, struct kvs_proposal *p)
{
    (void)id;
    return broken_refuse(self, p);
}

static void broken_status(void *self, struct kvs_consensus_status *ret)
{
    const struct broken *b = self;

    memset(ret, 0, sizeof *ret);
    ret->state = b->started ? KVS_CONSENSUS_LEADER : KVS_CONSENSUS_STOPPED;
    ret->member_count = 1;
    ret->members[0].role = KVS_ROLE_VOTER;
    (void)snprintf(ret->id, sizeof ret->id, "one");
    (void)snprintf(ret->leader_id, sizeof ret->leader_id, "one");
}

static int broken_init(const struct kvs_host *host, const void *conf, void **ret_self,
                       struct kvs_error *err)
{
    struct broken *b = kvs_calloc(host, &MEMORY, sizeof *b);

    (void)conf;
    if (b == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    b->host = host;
    *ret_self = b;
    return 0;
}

static int broken_start(void *self, struct kvs_error *err)
{
    struct broken *b = self;

    (void)err;
    b->started = 1;
    b->fsm.role_changed(b->fsm.arg, KVS_CONSENSUS_LEADER, 1, "one");
    return 0;
}

static void broken_stop(void *self)
{
    struct broken *b = self;

    b->started = 0;
}

static void broken_fini(void *self)
{
    struct broken *b = self;

    kvs_free(b->host, &MEMORY, b, sizeof *b);
}

static const struct kvs_consensus_ops ops = {
    .size = sizeof ops,
    .bind = broken_bind,
    .propose = broken_propose,
    .barrier = broken_refuse,
    .snapshot = broken_refuse,
    .member_add = broken_member_add,
    .member_remove = broken_member,
    .transfer = broken_member,
    .status = broken_status,
};

KVS_PLUGIN(.kind = KVS_KIND_CONSENSUS, .name = "broken", .version = "1",
           .summary = "calls back too early", .ops = &ops, .init = broken_init,
           .start = broken_start, .stop = broken_stop, .fini = broken_fini);
