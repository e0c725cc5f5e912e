/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `consensus` with one voter, on a live world: the plugin may run a thread and
 * keep files below data_dir. The state machine is a sum over the entries in order, so that a lost,
 * doubled or exchanged entry shows. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/batch.h"
#include "kvs/consensus.h"
#include "kvs/support.h"

#define WAIT_MS        20000u
#define PROPOSAL_COUNT 200u
#define STATE_SIZE     16u

static const struct kvs_consensus_ops *ops;

/* The state machine; on the plugin's thread, read under live_lock. */
static struct {
    uint64_t count, sum;
    uint64_t last_index;
    uint32_t restores, snapshots, freed;
    int leading;
    int inside; /* callbacks never overlap */
} fsm;

struct proposal {
    struct kvs_proposal p;
    char entry[32];
    int done, rc, in_call;
    uint32_t number;
};

static struct {
    struct world world;
    void *conf;
    struct proposal all[PROPOSAL_COUNT];
    int answered; /* proposals whose callback ran */
    uint64_t last_index;
} c;

/* ---- state machine -----------------------------------------------------------------------------
 */

static uint64_t sum_next(uint64_t sum, struct kvs_slice entry)
{
    return sum * 31 + kvs_crc32c(0, entry.ptr, entry.len);
}

static void enter(void)
{
    live_lock();
    CHECK(!fsm.inside, "two callbacks of the state machine at once");
    fsm.inside = 1;
    live_unlock();
}

static void leave(void)
{
    live_lock();
    fsm.inside = 0;
    live_unlock();
}

static void on_apply(void *arg, uint64_t index, struct kvs_slice entry, uint64_t *ret_result)
{
    CHECK(arg == &fsm, "apply gets another arg than the one bound");
    enter();
    live_lock();
    /* Entries proposed together may travel as one entry of the log: the index may repeat. */
    CHECK(index >= fsm.last_index, "apply goes back from index %llu to %llu",
          (unsigned long long)fsm.last_index, (unsigned long long)index);
    fsm.last_index = index;
    fsm.count++;
    fsm.sum = sum_next(fsm.sum, entry);
    *ret_result = fsm.sum;
    live_unlock();
    leave();
}

static void on_free(void *arg)
{
    live_lock();
    fsm.freed++;
    live_unlock();
    free(arg);
}

static int on_snapshot(void *arg, struct kvs_slice *ret_bytes, void (**ret_free)(void *),
                       void **ret_arg)
{
    uint8_t *bytes = malloc(STATE_SIZE);

    (void)arg;
    if (bytes == NULL) {
        return KVS_ENOMEM;
    }
    enter();
    live_lock();
    kvs_put_u64(bytes, fsm.count);
    kvs_put_u64(bytes + 8, fsm.sum);
    fsm.snapshots++;
    live_unlock();
    leave();
    *ret_bytes = kvs_slice(bytes, STATE_SIZE);
    *ret_free = on_free;
    *ret_arg = bytes;
    return 0;
}

static int on_restore(void *arg, struct kvs_slice bytes, struct kvs_error *err)
{
    (void)arg;
    if (bytes.len != STATE_SIZE) {
        return kvs_err(err, KVS_ECORRUPT, "a snapshot of %zu bytes comes back with %zu",
                       (size_t)STATE_SIZE, bytes.len);
    }
    enter();
    live_lock();
    fsm.count = kvs_get_u64(bytes.ptr);
    fsm.sum = kvs_get_u64(bytes.ptr + 8);
    fsm.restores++;
    live_unlock();
    leave();
    return 0;
}

static void on_role(void *arg, uint32_t state, uint64_t term, const char *leader_id)
{
    (void)arg;
    (void)term;
    CHECK(leader_id != NULL, "role_changed with leader_id NULL; unknown is \"\"");
    live_lock();
    fsm.leading = state == KVS_CONSENSUS_LEADER;
    live_unlock();
}

static void on_applied(void *arg, uint64_t index)
{
    (void)arg;
    (void)index;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void open_and_start(void)
{
    struct kvs_fsm bound = {&fsm, on_apply, on_snapshot, on_restore, on_role, on_applied};
    struct kvs_error err = {0};
    int rc;

    ops = check.plugin->ops;
    memset(&fsm, 0, sizeof fsm);
    c.conf = check_conf(check.plugin, check.sets, check.set_count);
    world_open(&c.world, 1, 2, 1);
    world_init(&c.world, c.conf);
    rc = ops->bind(c.world.self, &bound, &err);
    CHECK(rc == 0, "bind returns %s: %s", check_code(rc), err.msg);
    world_start(&c.world);
}

static void wait_leading(void)
{
    struct kvs_consensus_status status;

    CHECK(live_wait(c.world.mock, &fsm.leading, WAIT_MS),
          "one voter alone does not become leader within 20 s, or role_changed does not say so");
    ops->status(c.world.self, &status);
    CHECK(status.state == KVS_CONSENSUS_LEADER, "role_changed says leader, status says %u",
          status.state);
    CHECK(status.member_count == 1 && status.members[0].role == KVS_ROLE_VOTER,
          "status does not show one voter");
    CHECK(strcmp(status.leader_id, status.id) == 0 && status.id[0] != '\0',
          "status: id '%s', leader_id '%s'", status.id, status.leader_id);
}

static void close_world(void)
{
    world_close(&c.world);
    CHECK(fsm.freed == fsm.snapshots, "%u snapshots were taken, %u given back", fsm.snapshots,
          fsm.freed);
}

/* ---- proposals ---------------------------------------------------------------------------------
 */

static void on_done(struct kvs_proposal *p, int rc)
{
    struct proposal *q = KVS_CONTAINER_OF(p, struct proposal, p);

    CHECK(!q->in_call, "a callback runs inside the call");
    CHECK(q->done == 0, "a callback runs twice");
    CHECK(c.world.host->loop_current(c.world.host->ctx) == q->number % 2,
          "a callback runs on another loop than the call");
    q->rc = rc;
    q->done = 1;
    c.answered++;
}

static int call(struct proposal *q, int (*fn)(void *self, struct kvs_proposal *p))
{
    int rc;

    q->p.cb = on_done;
    kvs_mock_enter(c.world.mock, q->number % 2);
    q->in_call = 1;
    rc = fn(c.world.self, &q->p);
    q->in_call = 0;
    kvs_mock_enter(c.world.mock, KVS_LOOP_NONE);
    return rc;
}

static struct proposal *propose(uint32_t i)
{
    struct proposal *q = &c.all[i];

    memset(q, 0, sizeof *q);
    q->number = i;
    q->p.entry = kvs_slice(q->entry, (size_t)snprintf(q->entry, sizeof q->entry, "entry %u", i));
    CHECK_CODE(call(q, ops->propose), 0, "propose");
    return q;
}

static void wait_done(struct proposal *q, const char *what)
{
    CHECK(live_wait(c.world.mock, &q->done, WAIT_MS), "%s is not answered within 20 s", what);
    CHECK_CODE(q->rc, 0, what);
}

/* Proposes all, waits for all, and looks at what became of them. */
static void propose_all(void)
{
    uint64_t before;

    live_lock();
    before = fsm.count;
    live_unlock();
    for (uint32_t i = 0; i < PROPOSAL_COUNT; i++) {
        (void)propose(i);
    }
    for (uint32_t i = 0; i < PROPOSAL_COUNT; i++) {
        wait_done(&c.all[i], "a proposal");
        CHECK(c.all[i].p.result != 0, "the word of apply does not reach the proposer");
        CHECK(c.all[i].p.index != 0, "a proposal that was applied has no index");
    }
    live_lock();
    CHECK(fsm.count == before + PROPOSAL_COUNT, "%u proposals are applied %llu times",
          PROPOSAL_COUNT, (unsigned long long)(fsm.count - before));
    live_unlock();
}

static void one_voter_leads(void)
{
    open_and_start();
    wait_leading();
    close_world();
}

static void proposals(void)
{
    open_and_start();
    wait_leading();
    propose_all();
    close_world();
}

/* Those of one loop, made one after the other, are applied in that order. */
static void proposals_in_order(void)
{
    uint64_t sum = 0;

    open_and_start();
    wait_leading();
    for (uint32_t i = 0; i < 20; i++) {
        struct proposal *q = propose(i);

        wait_done(q, "a proposal");
        sum = sum_next(sum, q->p.entry);
        CHECK(q->p.result == sum, "after proposal %u the state is not that of 0 to %u in order", i,
              i);
        CHECK(i == 0 || q->p.index > c.all[i - 1].p.index, "a later proposal has no later index");
    }
    close_world();
}

static void bad_entries(void)
{
    struct proposal q = {.number = 0};
    size_t size = (size_t)KVS_CONSENSUS_ENTRY_SIZE_MAX + 1;
    char *large = check_alloc(size);

    memset(large, 'x', size);
    open_and_start();
    wait_leading();
    CHECK_CODE(call(&q, ops->propose), KVS_EINVAL, "propose of nothing");
    q.p.entry = kvs_slice(large, size);
    CHECK_CODE(call(&q, ops->propose), KVS_EINVAL, "propose of more than the largest entry");
    q.p.entry.len = size - 1;
    CHECK_CODE(call(&q, ops->propose), 0, "propose of the largest entry");
    wait_done(&q, "the largest entry");
    CHECK(c.answered == 1, "a refused proposal fires its callback");
    close_world();
    free(large);
}

static void barriers(void)
{
    struct proposal q = {.number = 1};

    open_and_start();
    wait_leading();
    propose_all();
    CHECK_CODE(call(&q, ops->barrier), 0, "barrier");
    wait_done(&q, "barrier");
    live_lock();
    CHECK(fsm.count == PROPOSAL_COUNT, "after a barrier %llu of %u entries are applied",
          (unsigned long long)fsm.count, PROPOSAL_COUNT);
    live_unlock();
    close_world();
}

/* ---- restart -----------------------------------------------------------------------------------
 */

static void restart(void)
{
    uint64_t count = fsm.count, sum = fsm.sum;

    close_world();
    open_and_start();
    live_lock(); /* before start returned */
    CHECK(fsm.count == count && fsm.sum == sum,
          "after start the state machine holds %llu entries, %llu were applied before",
          (unsigned long long)fsm.count, (unsigned long long)count);
    live_unlock();
    wait_leading();
}

static void restart_from_log(void)
{
    open_and_start();
    wait_leading();
    propose_all();
    restart();
    propose_all();
    restart();
    close_world();
}

static void restart_from_snapshot(void)
{
    struct proposal q = {.number = 0};

    open_and_start();
    wait_leading();
    propose_all();
    CHECK_CODE(call(&q, ops->snapshot), 0, "snapshot");
    wait_done(&q, "snapshot");
    CHECK(fsm.snapshots > 0, "snapshot is answered, but the state machine was not asked for it");
    propose_all();
    restart();
    CHECK(fsm.restores > 0, "after a snapshot a restart does not restore it");
    propose_all();
    restart();
    close_world();
}

/* Stopped with proposals under way: each callback still fires, once. */
static void stop_answers(void)
{
    open_and_start();
    wait_leading();
    c.answered = 0;
    for (uint32_t i = 0; i < PROPOSAL_COUNT; i++) {
        (void)propose(i);
    }
    close_world();
    CHECK(c.answered == (int)PROPOSAL_COUNT, "stop leaves %d of %u proposals without an answer",
          (int)PROPOSAL_COUNT - c.answered, PROPOSAL_COUNT);
    for (uint32_t i = 0; i < PROPOSAL_COUNT; i++) {
        CHECK(c.all[i].rc == 0 || c.all[i].rc == KVS_ECANCELED || c.all[i].rc == KVS_ENOTLEADER,
              "a proposal ends with %s when the plugin stops", check_code(c.all[i].rc));
    }
}

static void before_start(void)
{
    struct proposal q = {.number = 0};
    struct kvs_consensus_status status;

    ops = check.plugin->ops;
    world_open(&c.world, 1, 2, 1);
    world_init(&c.world, check_conf(check.plugin, check.sets, check.set_count));
    q.p.entry = kvs_slice_str("x");
    CHECK_CODE(call(&q, ops->propose), KVS_ESTATE, "propose before start");
    ops->status(c.world.self, &status);
    CHECK(status.state == KVS_CONSENSUS_STOPPED, "status before start says %u", status.state);
    world_close(&c.world);
    CHECK(q.done == 0, "a refused proposal fires its callback");
}

const struct check_case check_consensus_cases[] = {
    {"a proposal before start is refused", before_start},
    {"one voter becomes leader and says so", one_voter_leads},
    {"proposals are applied and answered once", proposals},
    {"proposals one after another are applied in order", proposals_in_order},
    {"an empty or too large entry is refused", bad_entries},
    {"a barrier ends when all before it is applied", barriers},
    {"restart: the log gives the state back", restart_from_log},
    {"restart: snapshot and log give the state back", restart_from_snapshot},
    {"stop answers what is under way", stop_answers},
    {NULL, NULL},
};
