/* SPDX-License-Identifier: MIT
 *
 * Kind `consensus`: a replicated log that drives one deterministic state machine.
 *
 * The service binds a state machine in its init; the plugin restores it in its own start (before
 * that returns, the state machine holds everything that was committed and applied before), then
 * applies committed entries in log order. All state machine callbacks run on one thread, the
 * plugin's, never two at a time; they must not block and must not call the plugin.
 *
 * Determinism. apply() may look at nothing but the state and the entry: no clock, no random, no
 * host. Whoever proposes puts such values into the entry.
 *
 * Outcomes. A proposal's callback with rc 0: committed and applied. KVS_ENOTLEADER: not accepted
 * here, not applied. KVS_EBUSY: too much waiting, not applied. KVS_EFAILED: this member's disk
 * failed. KVS_ETIMEDOUT or KVS_ECANCELED: unknown, it may still be applied later; entries carry ids
 * to make a retry harmless.
 *
 * Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), chapters 3, 4, 6; barrier in
 * place of ReadIndex. */
#ifndef KVS_CONSENSUS_H
#define KVS_CONSENSUS_H

#include "kvs/plugin.h"

#define KVS_CONSENSUS_ENTRY_SIZE_MAX (1u << 20) /* bytes of one proposal */
#define KVS_CONSENSUS_MEMBER_MAX     9u

enum kvs_consensus_role {
    KVS_ROLE_SPARE = 0,   /* gets no log */
    KVS_ROLE_STANDBY = 1, /* gets the log, does not vote */
    KVS_ROLE_VOTER = 2,
};

enum kvs_consensus_state {
    KVS_CONSENSUS_STOPPED = 0,
    KVS_CONSENSUS_FOLLOWER = 1,
    KVS_CONSENSUS_CANDIDATE = 2,
    KVS_CONSENSUS_LEADER = 3,
    KVS_CONSENSUS_FAILED = 4, /* fail-stop: this member needs a restart */
};

struct kvs_fsm {
    void *arg;
    /* Apply one committed entry. *ret_result: any word, handed to the proposer's callback on this
     * node (0 elsewhere). Must succeed: an entry that makes no sense is a rejected command,
     * recorded in the result, the same on every member. */
    void (*apply)(void *arg, uint64_t index, struct kvs_slice entry, uint64_t *ret_result);
    /* The whole state as bytes. *ret_free(*ret_arg) releases them when the plugin has written them,
     * maybe on another thread. KVS_ENOMEM. */
    int (*snapshot)(void *arg, struct kvs_slice *ret_bytes, void (**ret_free)(void *),
                    void **ret_arg);
    /* Replace the state. KVS_ECORRUPT, KVS_EFORMAT, KVS_ENOMEM: fail-stop. */
    int (*restore)(void *arg, struct kvs_slice bytes, struct kvs_error *err);
    /* After every change of state, term or leader, and once after start. leader_id "" if unknown.
     */
    void (*role_changed)(void *arg, uint32_t state, uint64_t term, const char *leader_id);
    /* After each run of applies, when no more are waiting: the moment to publish. May be NULL. */
    void (*applied)(void *arg, uint64_t index);
};

/* One proposal or barrier; the caller owns it and `entry` until cb. */
struct kvs_proposal {
    struct kvs_task task;   /* the plugin's until cb */
    struct kvs_slice entry; /* 1..KVS_CONSENSUS_ENTRY_SIZE_MAX bytes; empty for barrier */
    uint64_t timeout_ms;    /* 0: 10 s */
    uint64_t result;        /* from apply */
    uint64_t index;         /* log index of the entry that held it */
    int32_t rc;
    uint32_t loop; /* the plugin's: where cb runs */
    uint64_t plugin_data[6];
    void (*cb)(struct kvs_proposal *p,
               int rc); /* on the loop that proposed, never inside the call */
};

struct kvs_member {
    char id[64];          /* node id: "metadata-1" */
    char address[128];    /* host:port of its consensus listener */
    uint32_t role;        /* enum kvs_consensus_role */
    uint32_t online;      /* leader only: heard from within the election time-out */
    uint64_t match_index; /* leader only, else 0 */
};

struct kvs_consensus_status {
    uint32_t state; /* enum kvs_consensus_state */
    uint32_t member_count;
    uint64_t term, last_index, commit_index, applied_index, snapshot_index;
    uint64_t log_bytes, snapshot_bytes;
    char id[64], leader_id[64];
    char failure[128]; /* why state is FAILED */
    struct kvs_member members[KVS_CONSENSUS_MEMBER_MAX];
};

struct kvs_consensus_ops {
    uint32_t size;
    uint32_t reserved;
    /* Before start, once. *fsm is copied. */
    int (*bind)(void *self, const struct kvs_fsm *fsm, struct kvs_error *err);
    /* On a loop. 0, or an immediate refusal: KVS_EINVAL (empty, too large), KVS_ESTATE (not started
     * or stopping), KVS_EBUSY. */
    int (*propose)(void *self, struct kvs_proposal *p);
    /* Completes with rc 0 when everything committed before the call is applied here; only on the
     * leader. */
    int (*barrier)(void *self, struct kvs_proposal *p);
    /* Take a snapshot now and compact the log. */
    int (*snapshot)(void *self, struct kvs_proposal *p);
    /* Membership, on the leader, one change at a time (KVS_EBUSY). add: as STANDBY, then raised to
     * `role` once it has caught up. KVS_EEXIST, KVS_ENOTFOUND, KVS_ECONFLICT (would lose the
     * quorum). */
    int (*member_add)(void *self, const char *id, const char *address, uint32_t role,
                      struct kvs_proposal *p);
    int (*member_remove)(void *self, const char *id, struct kvs_proposal *p);
    int (*transfer)(void *self, const char *id, struct kvs_proposal *p); /* id "": any */
    void (*status)(void *self, struct kvs_consensus_status *ret_status); /* any thread */
    /* --- end of 1.0 --- */
};

#endif
