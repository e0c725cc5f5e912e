/* SPDX-License-Identifier: MIT
 *
 * What the parts of the consensus simulator share: one process, one thread, one seed.
 *
 *   clock.c      fake time, chance, the queue of events
 *   disk.c       struct raft_io over a simulated disk and network of one node
 *   raft_sim.c   the cluster, what happens to it, and what must hold
 *
 * Each seed runs in a process of its own, so nothing is ever freed. */
#ifndef KVS_SIM_H
#define KVS_SIM_H

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "shim.h"

#define NODES_MAX 5

struct node;

/* ---- clock.c -----------------------------------------------------------------------------------
 */

extern raft_time sim_now; /* ms */

void sim_seed(uint64_t seed);
/* Evenly from [low, high]. */
int sim_range(int low, int high);
bool sim_chance(int percent);
/* Call fn(arg) in `delay` ms. With a node: only if that has not crashed in between. */
void sim_at(raft_time delay, struct node *node, void (*fn)(void *arg), void *arg);
/* Run the next event; false if it would be later than `end`. */
bool sim_step(raft_time end);

/* Allocated, zeroed, or the process ends. */
void *sim_alloc(size_t size);

/* ---- disk.c ------------------------------------------------------------------------------------
 */

struct stored {
    raft_term term;
    unsigned short type;
    size_t len;
    void *bytes;
};

/* What survives a crash. */
struct disk {
    raft_term term;
    raft_id vote;
    bool bootstrapped, has_snapshot;
    raft_index first; /* of entries[0] */
    size_t count, cap;
    struct stored *entries;
    struct {
        raft_index index, conf_index;
        raft_term term;
        struct raft_configuration conf;
        void *bytes;
        size_t len;
    } snapshot;
};

struct disk_op;

struct node {
    raft_id id;
    bool up;
    uint64_t incarnation;
    struct disk disk;
    struct disk_op *ops, **ops_tail; /* under way, in order */
    raft_time disk_free_at;
    int fail_percent; /* of operations of the disk */

    struct raft *raft;
    struct raft_io *io;
    struct raft_fsm fsm;
    struct raft_shim shim;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    unsigned tick_ms;

    uint64_t op_count, state; /* of the state machine: how many, and a hash of them in order */
};

struct network {
    bool cut[NODES_MAX + 1][NODES_MAX + 1];
    raft_time last[NODES_MAX + 1]
                  [NODES_MAX + 1]; /* arrival of the last message: links keep order */
    int delay_max, loss_percent;
};

extern struct network net;
extern const char *const sim_address[NODES_MAX + 1];

void node_io_init(struct node *n);
/* What is under way is lost, but for a prefix of it. */
void node_disk_crash(struct node *n);

/* raft_sim.c: after every entry into the library; `n` may have to stop. */
void node_stepped(struct node *n);
struct node *node_of(raft_id id);

#endif
