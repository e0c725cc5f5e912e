/* SPDX-License-Identifier: MIT
 *
 * The safety shim; see shim.h and the rules in README.md. */
#include "shim.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NOT_WRITTEN ((raft_index)-1)

struct raft_shim_append {
    struct raft_io_append req; /* what the disk sees */
    struct raft_io_append *up; /* what the library gave */
    raft_io_append_cb cb;
    raft_term term; /* when it was submitted */
    struct raft_shim *shim;
    struct raft_shim_append *next; /* in `stuck` */
};

struct raft_shim_dropped {
    struct raft_shim_dropped *next;
    struct raft_io_send *req;
    raft_io_send_cb cb;
    int status;
};

static struct raft_shim *shim_of(struct raft_io *io)
{
    struct raft *r = io->data;

    return r->data;
}

/* ---- the library's state -----------------------------------------------------------------------
 */

static size_t log_count(const struct raft_log *l)
{
    return l->front <= l->back ? l->back - l->front : l->size - l->front + l->back;
}

raft_index raft_shim_last_index(const struct raft *r)
{
    size_t n = log_count(&r->log);

    return n == 0 && r->log.snapshot.last_index > r->log.offset ? r->log.snapshot.last_index
                                                                : r->log.offset + n;
}

raft_term raft_shim_log_term(const struct raft *r, raft_index index)
{
    const struct raft_log *l = &r->log;

    if (index != 0 && index == l->snapshot.last_index) {
        return l->snapshot.last_term;
    }
    if (index <= l->offset || index > l->offset + log_count(l)) {
        return 0;
    }
    return l->entries[(l->front + (size_t)(index - 1 - l->offset)) % l->size].term;
}

/* The library writes, or is about to write, a snapshot. */
static bool snapshot_busy(const struct raft *r)
{
    return r->snapshot.pending.term != 0 || r->snapshot.put.data != NULL;
}

static bool installing(const struct raft *r)
{
    return r->snapshot.put.data != NULL && r->last_stored == 0;
}

bool raft_shim_snapshot_allowed(const struct raft_shim *s)
{
    return !s->dead && s->raft->configuration_uncommitted_index == 0;
}

bool raft_shim_leading(const struct raft_shim *s)
{
    return !s->dead && s->raft->state == RAFT_LEADER && s->was_leader && !s->barrier_due &&
           s->own_index != NOT_WRITTEN && s->raft->last_applied >= s->own_index;
}

void raft_shim_fail(struct raft_shim *s, const char *why)
{
    if (!s->dead) {
        s->dead = true;
        (void)snprintf(s->why, sizeof s->why, "%s", why);
    }
}

void raft_shim_message_free(struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES && m->append_entries.entries != NULL) {
        if (m->append_entries.n_entries > 0) {
            raft_free(m->append_entries.entries[0].batch);
        }
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
}

/* ---- sending -----------------------------------------------------------------------------------
 */

void raft_shim_drop_send(struct raft_shim *s, struct raft_io_send *req, raft_io_send_cb cb,
                         int status)
{
    struct raft_shim_dropped *d;

    if (cb == NULL) {
        return;
    }
    req->cb = cb;
    d = raft_malloc(sizeof *d);
    if (d == NULL) {
        raft_shim_fail(s, "out of memory"); /* the request is lost with the library */
        return;
    }
    *d = (struct raft_shim_dropped){.req = req, .cb = cb, .status = status};
    *s->drop_tail = d;
    s->drop_tail = &d->next;
}

static void flush_dropped(struct raft_shim *s)
{
    struct raft_shim_dropped *d = s->dropped;

    s->dropped = NULL;
    s->drop_tail = &s->dropped;
    while (d != NULL) {
        struct raft_shim_dropped *next = d->next;

        d->cb(d->req, d->status);
        raft_free(d);
        d = next;
    }
}

/* The library puts all that a follower lacks into one message. Cut it; what is left out is asked
 * for again when the follower rejects the next one. */
static void cut_entries(struct raft_shim *s, struct raft_append_entries *ae)
{
    size_t bytes = 0;
    unsigned n = 0;

    while (n < ae->n_entries) {
        bytes += ae->entries[n].buf.len;
        if (n > 0 && bytes > s->message_bytes_max) {
            break;
        }
        n++;
    }
    if (n < ae->n_entries) {
        ae->n_entries = n;
        if (ae->leader_commit > ae->prev_log_index + n) {
            ae->leader_commit = ae->prev_log_index + n;
        }
        s->used[11]++;
    }
}

/* What the library wants to say, and what may be said. False: nothing. */
static bool amend(struct raft_shim *s, struct raft_message *m)
{
    const struct raft *r = s->raft;

    if (m->server_id == 0 || s->dead) {
        return false; /* an answer to a leader that is not known any more */
    }
    switch (m->type) {
    case RAFT_IO_APPEND_ENTRIES:
        if (s->message_bytes_max != 0) {
            cut_entries(s, &m->append_entries);
        }
        break;
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        /* Rule 1: never acknowledge what was not checked against this leader's log. */
        if (m->append_entries_result.rejected == 0 && s->suppress_acks) {
            s->used[1]++;
            return false;
        }
        if (m->append_entries_result.rejected == 0 && s->in_append_entries &&
            m->append_entries_result.last_log_index > s->append_entries_end) {
            s->used[1]++;
            m->append_entries_result.last_log_index = s->append_entries_end;
        }
        break;
    case RAFT_IO_REQUEST_VOTE_RESULT:
        /* Rule 7: the library echoes the term that was asked about, so that a candidate behind it
         * never learns. */
        if (m->request_vote_result.pre_vote == raft_tribool_true &&
            !m->request_vote_result.vote_granted && r->current_term > m->request_vote_result.term) {
            s->used[7]++;
            m->request_vote_result.term = r->current_term;
        }
        break;
    default:
        break;
    }
    return true;
}

static int shim_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                     raft_io_send_cb cb)
{
    struct raft_shim *s = shim_of(io);
    struct raft_message copy = *m;

    if (!amend(s, &copy) || s->below.send(io, req, &copy, cb) != 0) {
        /* The library frees twice if send fails at once. */
        raft_shim_drop_send(s, req, cb, RAFT_NOCONNECTION);
    }
    return 0;
}

/* ---- the disk: rule 4, fail-stop ---------------------------------------------------------------
 */

static void append_done(struct raft_shim_append *a, int status)
{
    struct raft_shim *s = a->shim;
    struct raft_io_append *up = a->up;
    raft_io_append_cb cb = a->cb;

    /* Rule 1: entries of an older term are no answer to the present leader. */
    s->suppress_acks = a->term != s->raft->current_term;
    raft_free(a);
    cb(up, status);
    s->suppress_acks = false;
}

static void shim_append_cb(struct raft_io_append *req, int status)
{
    struct raft_shim_append *a = req->data;
    struct raft_shim *s = a->shim;

    s->appends_in_flight--;
    if (s->raft->state == RAFT_UNAVAILABLE) {
        /* Closing. Its path for failures would truncate beyond the end of the log; with success it
         * only releases the entries. */
        append_done(a, 0);
        return;
    }
    if (status != 0) {
        char why[160];

        (void)snprintf(why, sizeof why, "append to the log failed: %.100s", s->io->errmsg);
        raft_shim_fail(s, why);
    }
    if (s->dead) {
        a->next = s->stuck;
        s->stuck = a;
        return;
    }
    append_done(a, 0);
    raft_shim_step(s);
}

static int shim_append(struct raft_io *io, struct raft_io_append *req,
                       const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct raft_shim *s = shim_of(io);
    struct raft_shim_append *a = s->dead ? NULL : raft_malloc(sizeof *a);
    int rv;

    if (a == NULL) {
        raft_shim_fail(s, "out of memory");
        return RAFT_NOMEM;
    }
    *a = (struct raft_shim_append){
        .up = req, .cb = cb, .term = s->raft->current_term, .shim = s, .req = {.data = a}};
    req->cb = cb;
    s->appends_in_flight++;
    rv = s->below.append(io, &a->req, entries, n, shim_append_cb);
    if (rv != 0) {
        char why[160];

        (void)snprintf(why, sizeof why, "append to the log failed: %.100s", io->errmsg);
        s->appends_in_flight--;
        raft_free(a);
        raft_shim_fail(s, why);
    }
    return rv;
}

/* The library has forgotten its log when it writes a snapshot of the leader, and goes on without
 * either if that fails. */
static void shim_put_cb(struct raft_io_snapshot_put *req, int status)
{
    struct raft_shim *s = req->data;

    if (s->raft->state == RAFT_UNAVAILABLE) {
        s->put_cb(s->put_up, status);
        return;
    }
    if (status != 0) {
        char why[160];

        (void)snprintf(why, sizeof why, "writing the leader's snapshot failed: %.100s",
                       s->io->errmsg);
        raft_shim_fail(s, why);
    }
    if (s->dead) {
        s->put_stuck = true;
        return;
    }
    s->put_cb(s->put_up, 0);
    raft_shim_step(s);
}

static int shim_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                    const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct raft_shim *s = shim_of(io);
    int rv;

    if (trailing > 0) {
        return s->below.snapshot_put(io, trailing, req, snapshot, cb); /* our own: may fail */
    }
    req->cb = cb;
    s->put = (struct raft_io_snapshot_put){.data = s};
    s->put_up = req;
    s->put_cb = cb;
    rv = s->dead ? RAFT_IOERR : s->below.snapshot_put(io, trailing, &s->put, snapshot, shim_put_cb);
    if (rv != 0) {
        raft_shim_fail(s, "writing the leader's snapshot failed");
    }
    return rv;
}

static int shim_truncate(struct raft_io *io, raft_index index)
{
    struct raft_shim *s = shim_of(io);
    int rv;

    if (s->raft->snapshot.put.data != NULL) {
        /* Rule 5; shim_recv drops such messages, so this is the second line. */
        raft_shim_fail(s, "the log would be truncated under a snapshot that is being written");
    }
    if (s->dead) {
        return RAFT_IOERR;
    }
    rv = s->below.truncate(io, index);
    if (rv != 0) {
        raft_shim_fail(s, "truncating the log failed");
    }
    return rv;
}

static int shim_set_term(struct raft_io *io, raft_term term)
{
    struct raft_shim *s = shim_of(io);
    int rv = s->dead ? RAFT_IOERR : s->below.set_term(io, term);

    if (rv != 0) {
        raft_shim_fail(s, "writing the term failed");
    }
    return rv;
}

static int shim_set_vote(struct raft_io *io, raft_id id)
{
    struct raft_shim *s = shim_of(io);
    int rv = s->dead ? RAFT_IOERR : s->below.set_vote(io, id);

    if (rv != 0) {
        raft_shim_fail(s, "writing the vote failed");
    }
    return rv;
}

/* ---- receiving ---------------------------------------------------------------------------------
 */

static void deliver(struct raft_shim *s, struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES) {
        s->in_append_entries = true;
        s->append_entries_end = m->append_entries.prev_log_index + m->append_entries.n_entries;
    }
    s->recv(s->io, m);
    s->in_append_entries = false;
}

/* The first entry of the message that disagrees with ours: what the library would truncate from.
 * 0: none. */
static raft_index conflict_at(const struct raft *r, const struct raft_append_entries *ae)
{
    for (unsigned i = 0; i < ae->n_entries; i++) {
        raft_index index = ae->prev_log_index + 1 + i;
        raft_term term = raft_shim_log_term(r, index);

        if (term == 0) {
            return 0;
        }
        if (term != ae->entries[i].term) {
            return index;
        }
    }
    return 0;
}

/* True if the message may go to the library. */
static bool admit_append_entries(struct raft_shim *s, struct raft_append_entries *ae)
{
    const struct raft *r = s->raft;
    raft_index end = ae->prev_log_index + ae->n_entries, conflict;

    /* Raft, figure 2: commit no further than the last entry this message vouches for. */
    if (ae->leader_commit > end) {
        ae->leader_commit = end;
    }
    if (r->state == RAFT_LEADER || ae->term < r->current_term) {
        return true;
    }
    conflict = conflict_at(r, ae);
    if (conflict != 0 && snapshot_busy(r)) {
        s->used[5]++; /* rule 5: it is sent again, and then the snapshot is written */
        return false;
    }
    if (conflict != 0 && r->configuration_uncommitted_index >= conflict &&
        (r->configuration_index <= r->log.offset ||
         raft_shim_log_term(r, r->configuration_index) == 0)) {
        s->used[9]++;
        raft_shim_fail(s, "a membership change must be undone whose predecessor is compacted");
        return false;
    }
    return true;
}

static bool admit(struct raft_shim *s, struct raft_message *m)
{
    struct raft *r = s->raft;

    switch (m->type) {
    case RAFT_IO_APPEND_ENTRIES:
        return admit_append_entries(s, &m->append_entries);
    case RAFT_IO_TIMEOUT_NOW:
        if (s->appends_in_flight > 0 || installing(r)) {
            s->used[3]++;
            return false;
        }
        return true;
    case RAFT_IO_REQUEST_VOTE:
        if (installing(r)) {
            s->used[3]++;
            return false;
        }
        return true;
    default:
        return true;
    }
}

/* Rule 2: an acknowledgement counted before our own term is on our disk could commit entries of
 * older terms, which a later leader may still overwrite. */
static bool hold_ack(struct raft_shim *s, const struct raft_message *m)
{
    const struct raft_append_entries_result *res = &m->append_entries_result;
    uint32_t i = 0;

    if (m->type != RAFT_IO_APPEND_ENTRIES_RESULT || s->raft->state != RAFT_LEADER ||
        res->rejected != 0 || res->term != s->raft->current_term ||
        (s->was_leader && s->own_index != NOT_WRITTEN && s->raft->last_stored >= s->own_index)) {
        return false;
    }
    s->used[2]++;
    while (i < s->held_ack_count && s->held_acks[i].server_id != m->server_id) {
        i++;
    }
    if (i == RAFT_SHIM_PEER_MAX) {
        return true; /* dropped: a later one says more */
    }
    s->held_ack_count += i == s->held_ack_count;
    s->held_acks[i] = *m;
    s->held_acks[i].server_address = "";
    return true;
}

static void shim_recv(struct raft_io *io, struct raft_message *m)
{
    struct raft_shim *s = shim_of(io);

    if (s->dead || !admit(s, m)) {
        raft_shim_message_free(m);
        return;
    }
    if (hold_ack(s, m)) {
        return;
    }
    if (m->type == RAFT_IO_INSTALL_SNAPSHOT && snapshot_busy(s->raft)) {
        /* Rule 6: the library would forget it, and the leader waits long before it tries again. */
        s->used[6]++;
        if (s->has_held_snapshot) {
            raft_shim_message_free(&s->held_snapshot);
        }
        s->held_snapshot = *m;
        s->held_snapshot.server_address = "";
        s->has_held_snapshot = true;
        return;
    }
    deliver(s, m);
    raft_shim_step(s);
}

static void shim_tick(struct raft_io *io)
{
    struct raft_shim *s = shim_of(io);
    struct raft *r = s->raft;

    if (s->dead) {
        return;
    }
    if (s->has_held_snapshot && !snapshot_busy(r)) {
        struct raft_message m = s->held_snapshot;

        s->has_held_snapshot = false;
        deliver(s, &m);
        raft_shim_step(s);
    }
    if (!s->dead && r->state == RAFT_FOLLOWER && (s->appends_in_flight > 0 || installing(r))) {
        s->used[3]++; /* rule 3: no candidate while its log is on the way to the disk */
        r->election_timer_start = io->time(io);
    }
    if (!s->dead) {
        s->tick(io);
    }
    raft_shim_step(s);
}

static int shim_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                      raft_io_recv_cb recv)
{
    struct raft_shim *s = shim_of(io);

    s->tick = tick;
    s->recv = recv;
    return s->below.start(io, msecs, shim_tick, shim_recv);
}

/* Rule 12: raft_uv says that it is closed once for the segment's work in the pool and again for the
 * segment's handles, in either order. The second time the library would free all once more. */
static void shim_closed(struct raft_io *io)
{
    struct raft_shim *s = shim_of(io);
    raft_io_close_cb cb = s->close;

    s->close = NULL;
    if (cb != NULL) {
        cb(io);
    }
}

static void shim_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct raft_shim *s = shim_of(io);

    s->close = cb;
    s->below.close(io, shim_closed);
}

/* ---- between calls -----------------------------------------------------------------------------
 */

static void barrier_cb(struct raft_barrier *req, int status)
{
    struct raft_shim *s = req->data;

    (void)status;
    s->barrier_busy = false;
}

static void step_leader(struct raft_shim *s)
{
    struct raft *r = s->raft;

    if (r->state != RAFT_LEADER) {
        s->was_leader = false;
        s->barrier_due = false;
        s->held_ack_count = 0;
        return;
    }
    if (!s->was_leader) {
        s->was_leader = true;
        s->barrier_due = true;
        s->own_index = NOT_WRITTEN;
    }
    if (s->barrier_due && !s->barrier_busy && r->transfer == NULL) {
        s->barrier.data = s;
        s->barrier_busy = true;
        if (raft_barrier(r, &s->barrier, barrier_cb) == 0) {
            s->own_index = s->barrier.index;
            s->barrier_due = false;
        } else {
            s->barrier_busy = false; /* no memory: again at the next tick */
        }
    }
    while (s->held_ack_count > 0 && !s->dead && r->state == RAFT_LEADER &&
           s->own_index != NOT_WRITTEN && r->last_stored >= s->own_index) {
        struct raft_message m = s->held_acks[--s->held_ack_count];

        if (m.append_entries_result.term == r->current_term) {
            deliver(s, &m);
        }
    }
}

void raft_shim_step(struct raft_shim *s)
{
    if (s->stepping) {
        return;
    }
    s->stepping = true;
    if (!s->dead && s->tick != NULL) {
        if (s->raft->state == RAFT_UNAVAILABLE) {
            char why[160];

            (void)snprintf(why, sizeof why, "the consensus library stopped: %.100s",
                           s->raft->errmsg);
            raft_shim_fail(s, why);
        } else {
            step_leader(s);
        }
    }
    flush_dropped(s);
    s->stepping = false;
}

void raft_shim_init(struct raft_shim *s, struct raft *raft, struct raft_io *io)
{
    memset(s, 0, sizeof *s);
    s->raft = raft;
    s->io = io;
    s->below = *io;
    s->drop_tail = &s->dropped;
    raft->data = s;
    io->start = shim_start;
    io->close = shim_close;
    io->snapshot_put = shim_put;
    io->send = shim_send;
    io->append = shim_append;
    io->truncate = shim_truncate;
    io->set_term = shim_set_term;
    io->set_vote = shim_set_vote;
}

void raft_shim_close(struct raft_shim *s)
{
    raft_shim_fail(s, "closed");
    while (s->stuck != NULL) {
        struct raft_shim_append *a = s->stuck;

        s->stuck = a->next;
        append_done(a, 0);
    }
    if (s->put_stuck) {
        s->put_stuck = false;
        s->put_cb(s->put_up, RAFT_CANCELED);
    }
    if (s->has_held_snapshot) {
        raft_shim_message_free(&s->held_snapshot);
        s->has_held_snapshot = false;
    }
    s->held_ack_count = 0;
    flush_dropped(s);
}
