/* SPDX-License-Identifier: MIT
 *
 * The safety shim: libraft 0.15 is correct only with these rules between it and its I/O.
 *
 * It sits over struct raft_io by replacing function pointers, so it sees every message, append and
 * term change, and since struct raft is public in 0.15 it sees the state too. It knows nothing of
 * libuv or of kvs: the plugin puts it over raft_uv, the simulator (tests/sim/raft_sim.c) over a
 * simulated disk and network. README.md lists the rules; the code names them by number.
 *
 * Use, all on one thread: fill *io; raft_shim_init; raft_init; ...; raft_shim_step after every call
 * into the library that does not come through the shim (raft_start, raft_apply, ..); raft_close;
 * raft_shim_close. When `dead` is set the library is cut off from disk and network for good: what
 * it says after that has no effect, and the owner closes it. */
#ifndef KVS_RAFT_SHIM_H
#define KVS_RAFT_SHIM_H

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

#define RAFT_SHIM_PEER_MAX 16u

struct raft_shim_append;
struct raft_shim_dropped;

struct raft_shim {
    struct raft *raft;
    struct raft_io *io;
    struct raft_io below; /* the functions that were replaced */
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb close; /* NULL once called, rule 12 */

    bool dead;     /* rule 4: something failed that the library would not survive */
    char why[160]; /* for the operator */

    /* Limit of one AppendEntries message, bytes; 0: none. The library knows no limit. */
    size_t message_bytes_max;

    /* Leadership, rule 2. */
    bool was_leader;
    bool barrier_due, barrier_busy;
    raft_index own_index; /* of the first entry of our term; (raft_index)-1: not written yet */
    struct raft_barrier barrier;
    struct raft_message held_acks[RAFT_SHIM_PEER_MAX];
    uint32_t held_ack_count;

    /* The message or completion that the library is working on, rule 1. */
    bool in_append_entries, suppress_acks, stepping;
    raft_index append_entries_end;

    uint32_t appends_in_flight;           /* rule 3 */
    struct raft_shim_append *stuck;       /* completions that came after death */
    struct raft_shim_dropped *dropped;    /* sends to be completed soon */
    struct raft_shim_dropped **drop_tail; /* end of that list */

    /* The snapshot of the leader that is being written, rule 4. */
    struct raft_io_snapshot_put put;     /* what the disk sees */
    struct raft_io_snapshot_put *put_up; /* what the library gave */
    raft_io_snapshot_put_cb put_cb;
    bool put_stuck; /* it ended after death, or with an error: the library waits for ever */

    struct raft_message held_snapshot; /* rule 6 */
    bool has_held_snapshot;

    /* How often a rule changed the course, by rule number. */
    unsigned long long used[12];
};

/* Replace what the shim watches in *io, which must be complete. raft->data is the shim's. */
void raft_shim_init(struct raft_shim *s, struct raft *raft, struct raft_io *io);

/* Work that must not happen inside the library: the barrier of a new leader, held messages, failed
 * sends. Call after every entry into the library. */
void raft_shim_step(struct raft_shim *s);

/* After raft_close() was called: give back what is held. Further calls are harmless. */
void raft_shim_close(struct raft_shim *s);

/* True on a leader whose own term is committed: it may answer for the cluster. */
bool raft_shim_leading(const struct raft_shim *s);

/* Rule 8: true if the state machine may be snapshotted now; else it answers RAFT_BUSY. */
bool raft_shim_snapshot_allowed(const struct raft_shim *s);

/* Complete a send with `status` in the next step: io->send must never fail by itself. cb may be
 * NULL. */
void raft_shim_drop_send(struct raft_shim *s, struct raft_io_send *req, raft_io_send_cb cb,
                         int status);

/* Stop for good; `why` is copied. Safe inside the library. */
void raft_shim_fail(struct raft_shim *s, const char *why);

/* Free what a received message owns. */
void raft_shim_message_free(struct raft_message *m);

/* Term of the entry at index in the log in memory, 0 if it is not there. */
raft_term raft_shim_log_term(const struct raft *r, raft_index index);
/* Index of the last entry in memory, or of the snapshot. */
raft_index raft_shim_last_index(const struct raft *r);

#endif
