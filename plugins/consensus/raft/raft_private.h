/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: what its files share. README.md has the design.
 *
 *   raft.c      options, life, the loop thread
 *   propose.c   proposals: inbox, packing, time-outs, completion
 *   fsm.c       the library's state machine: packed entries, snapshots
 *   member.c    membership changes, leadership transfer, status
 *   data.c      the data directory: identity, first start
 *   shim.c      the safety rules, see shim.h
 *
 * Threads. `lock` guards the fields named so; all else belongs to the loop thread once it runs. */
#ifndef KVS_RAFT_PRIVATE_H
#define KVS_RAFT_PRIVATE_H

#include <pthread.h>
#include <raft.h>
#include <raft/uv.h>

#include "kvs/consensus.h"
#include "kvs/support.h"
#include "shim.h"

#define RAFT_BATCH_OPS_MAX       512u         /* operations in one log entry */
#define RAFT_BATCH_BYTES_MAX     (1u << 20)   /* of one log entry that holds several operations */
#define RAFT_BATCHES_OUTSTANDING 2u           /* more would starve the commit index */
#define RAFT_WAITING_MAX         16384u       /* proposals accepted and not completed */
#define RAFT_WAITING_BYTES_MAX   (64u << 20)  /* of their entries */
#define RAFT_SNAPSHOT_BYTES_MAX  (512u << 20) /* it travels as one message */
#define RAFT_TRAILING_BYTES_MAX  (16u << 20)  /* of log kept behind a snapshot */
#define RAFT_MESSAGE_BYTES_MAX   (4u << 20)   /* of entries in one message to a follower */
#define RAFT_TIMEOUT_DEFAULT_MS  10000u
#define RAFT_ADDRESS_SIZE        200u /* "id@host:port" in the log's configuration */

struct raft_conf {
    const char *listen;
    struct kvs_str_list members;
    uint64_t election_timeout_ms, heartbeat_timeout_ms;
    int64_t snapshot_threshold, snapshot_trailing;
    uint64_t snapshot_bytes;
};

enum raft_phase { PHASE_NEW, PHASE_STARTING, PHASE_RUNNING, PHASE_STOPPING, PHASE_STOPPED };

enum raft_op { OP_ENTRY, OP_BARRIER, OP_SNAPSHOT, OP_CHANGE, OP_TRANSFER };

/* A first-in first-out list of proposals, linked by task.next. */
struct raft_queue {
    struct kvs_proposal *head, **tail;
};

/* One log entry on its way: what each of its operations belongs to. */
struct raft_batch {
    struct raft_apply req;
    struct raft_plugin *self;
    uint32_t busy, count;
    struct kvs_proposal *ops[RAFT_BATCH_OPS_MAX]; /* NULL: timed out */
};

enum raft_change_kind { CHANGE_ADD, CHANGE_REMOVE };

/* A membership change or transfer, asked for by a proposal. */
struct raft_member_op {
    uint32_t kind, role;
    char id[64], address[128];
};

struct raft_plugin {
    const struct kvs_host *host;
    const struct raft_conf *conf;
    struct kvs_fsm fsm;
    uint32_t bound;
    char dir[512], id[64], address[RAFT_ADDRESS_SIZE];
    raft_id raft_id;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum raft_phase phase;              /* guarded by: lock */
    int start_rc;                       /* guarded by: lock */
    struct kvs_error start_err;         /* guarded by: lock */
    struct raft_queue inbox;            /* guarded by: lock */
    uint64_t waiting, waiting_bytes;    /* guarded by: lock */
    struct kvs_consensus_status status; /* guarded by: lock */

    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t round;
    uv_timer_t timer;
    struct raft raft;
    struct raft_io io;
    struct raft_uv_transport no_transport;
    struct raft_fsm raft_fsm;
    struct raft_shim shim;
    uint32_t io_inited, raft_inited, raft_started, closing;

    struct raft_queue entries, barriers, barriers_out, snapshots, done;
    struct raft_batch batches[RAFT_BATCHES_OUTSTANDING];
    uint64_t results[RAFT_BATCH_OPS_MAX];
    struct raft_barrier barrier;
    uint32_t barrier_busy, barrier_wanted;

    uint64_t applied_bytes; /* of entries since the last snapshot */
    uint32_t fsm_changed, failed;
    uint64_t snapshot_size;
    struct {
        struct raft_buffer bufs[2];
        uint8_t head[16];
        void (*free)(void *arg);
        void *arg;
        raft_index index;
    } snapshot;

    struct kvs_proposal *change; /* one at a time */
    struct raft_member_op *change_op;
    struct raft_change change_req;
    uint32_t change_step, change_waits;
    uint64_t change_retry_ns;
    struct kvs_proposal *transfer;
    struct raft_transfer transfer_req;
    uint32_t transfer_busy;
    raft_id transfer_id;

    uint32_t seen_state;
    uint64_t seen_term, ticks;
    char seen_leader[64];
};

extern const struct kvs_mem_tag raft_memory;

/* propose.c */
void raft_queue_init(struct raft_queue *q);
void raft_queue_push(struct raft_queue *q, struct kvs_proposal *p);
struct kvs_proposal *raft_queue_pop(struct raft_queue *q);
/* Hand a proposal to the loop thread. KVS_EINVAL, KVS_ESTATE, KVS_EBUSY. take_op may be NULL; it
 * is released with the proposal, or here on failure. */
int raft_submit(struct raft_plugin *self, struct kvs_proposal *p, enum raft_op op,
                struct raft_member_op *take_op);
/* The proposal is over; its callback is posted at the end of the round. */
void raft_complete(struct raft_plugin *self, struct kvs_proposal *p, int rc);
void raft_take_inbox(struct raft_plugin *self);
void raft_pump(struct raft_plugin *self);
void raft_expire(struct raft_plugin *self);
void raft_fail_all(struct raft_plugin *self, int rc);
void raft_post_done(struct raft_plugin *self);
int raft_code(const struct raft_plugin *self, int rv); /* of the library -> enum kvs_code */
uint64_t raft_deadline_ns(const struct kvs_proposal *p);
struct raft_member_op *raft_member_op(const struct kvs_proposal *p);

/* fsm.c */
void raft_fsm_init(struct raft_plugin *self);
/* Bytes that an operation of len bytes takes in an entry. */
size_t raft_op_size(size_t len);
#define RAFT_ENTRY_HEAD_SIZE 8u
size_t raft_entry_begin(uint8_t *entry, uint32_t count);
size_t raft_entry_add(uint8_t *entry, size_t at, struct kvs_slice op);

/* member.c */
/* The number of a node: a hash of its id, never 0. */
raft_id raft_id_of(const char *id);
/* Parts of "id@host:port"; KVS_EINVAL if it is something else. */
int raft_address_split(const char *address, char ret_id[64], char ret_host_port[128]);
void raft_member_begin(struct raft_plugin *self, struct kvs_proposal *p);
void raft_member_step(struct raft_plugin *self);
void raft_transfer_begin(struct raft_plugin *self, struct kvs_proposal *p);
void raft_status_update(struct raft_plugin *self, int all);
int raft_member_add_op(void *arg, const char *id, const char *address, uint32_t role,
                       struct kvs_proposal *p);
int raft_member_remove_op(void *arg, const char *id, struct kvs_proposal *p);
int raft_transfer_op(void *arg, const char *id, struct kvs_proposal *p);

/* data.c: before the library opens the directory */
int raft_data_open(struct raft_plugin *self, int *ret_first_start, struct kvs_error *err);
int raft_data_claim(struct raft_plugin *self, struct kvs_error *err);

#endif
