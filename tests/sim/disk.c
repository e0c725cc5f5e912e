/* SPDX-License-Identifier: MIT
 *
 * struct raft_io of one node: a disk whose writes take time, fail now and then and are lost by a
 * crash, and links that keep the order of messages, delay them, lose them and are cut. */
#include <string.h>

#include "sim.h"

enum kind { OP_APPEND, OP_TRUNCATE, OP_PUT, OP_GET, OP_WORK };

struct disk_op {
    enum kind kind;
    void *req;
    const struct raft_entry *entries;
    unsigned n, trailing;
    raft_index index;
    const struct raft_snapshot *snapshot;
    struct disk_op *next;
};

struct network net;
const char *const sim_address[NODES_MAX + 1] = {"", "n1", "n2", "n3", "n4", "n5"};

static struct node *self_of(const struct raft_io *io)
{
    return io->impl;
}

static void *copy_of(const void *bytes, size_t len)
{
    void *copy = raft_malloc(len == 0 ? 8 : len);

    if (copy == NULL) {
        exit(2);
    }
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    return copy;
}

static void conf_copy(struct raft_configuration *to, const struct raft_configuration *from)
{
    raft_configuration_init(to);
    for (unsigned i = 0; i < from->n; i++) {
        (void)raft_configuration_add(to, from->servers[i].id, from->servers[i].address,
                                     from->servers[i].role);
    }
}

/* Entries in one batch, as the library wants to own them. */
static struct raft_entry *entries_make(const struct stored *from, size_t n)
{
    struct raft_entry *entries = raft_calloc(n, sizeof *entries);
    size_t total = 0, at = 0;
    char *batch;

    for (size_t i = 0; i < n; i++) {
        total += from[i].len;
    }
    batch = raft_malloc(total == 0 ? 8 : total);
    if (entries == NULL || batch == NULL) {
        exit(2);
    }
    for (size_t i = 0; i < n; i++) {
        entries[i].term = from[i].term;
        entries[i].type = from[i].type;
        entries[i].buf.base = batch + at;
        entries[i].buf.len = from[i].len;
        entries[i].batch = batch;
        memcpy(batch + at, from[i].bytes, from[i].len);
        at += from[i].len;
    }
    return entries;
}

/* ---- the disk ----------------------------------------------------------------------------------
 */

static void store(struct disk *d, raft_term term, unsigned short type, const void *bytes,
                  size_t len)
{
    if (d->count == d->cap) {
        d->cap = d->cap == 0 ? 64 : 2 * d->cap;
        d->entries = realloc(d->entries, d->cap * sizeof *d->entries);
        if (d->entries == NULL) {
            exit(2);
        }
    }
    d->entries[d->count++] = (struct stored){term, type, len, copy_of(bytes, len)};
}

static void append_now(struct disk *d, const struct disk_op *op)
{
    if (d->count == 0) {
        d->first = d->has_snapshot ? d->snapshot.index + 1 : 1;
    }
    for (unsigned i = 0; i < op->n; i++) {
        store(d, op->entries[i].term, op->entries[i].type, op->entries[i].buf.base,
              op->entries[i].buf.len);
    }
}

static void truncate_now(struct disk *d, raft_index index)
{
    if (d->count > 0 && index < d->first + d->count) {
        d->count = index <= d->first ? 0 : (size_t)(index - d->first);
    }
}

static void put_now(struct disk *d, const struct disk_op *op)
{
    const struct raft_snapshot *s = op->snapshot;
    size_t len = 0, drop;

    for (unsigned i = 0; i < s->n_bufs; i++) {
        len += s->bufs[i].len;
    }
    d->has_snapshot = true;
    d->snapshot.index = s->index;
    d->snapshot.term = s->term;
    d->snapshot.conf_index = s->configuration_index;
    conf_copy(&d->snapshot.conf, &s->configuration);
    d->snapshot.bytes = sim_alloc(len);
    d->snapshot.len = 0;
    for (unsigned i = 0; i < s->n_bufs; i++) {
        memcpy((char *)d->snapshot.bytes + d->snapshot.len, s->bufs[i].base, s->bufs[i].len);
        d->snapshot.len += s->bufs[i].len;
    }
    if (op->trailing == 0) {
        d->count = 0; /* an installed snapshot replaces the log */
    } else if (s->index > op->trailing && d->first < s->index - op->trailing + 1) {
        drop = (size_t)(s->index - op->trailing + 1 - d->first);
        drop = drop < d->count ? drop : d->count;
        memmove(d->entries, d->entries + drop, (d->count - drop) * sizeof *d->entries);
        d->count -= drop;
        d->first += drop;
    }
}

static void make_durable(struct disk *d, const struct disk_op *op)
{
    if (op->kind == OP_APPEND) {
        append_now(d, op);
    } else if (op->kind == OP_TRUNCATE) {
        truncate_now(d, op->index);
    } else if (op->kind == OP_PUT) {
        put_now(d, op);
    }
}

void node_disk_crash(struct node *n)
{
    int keep = n->fail_percent == 100 ? 0 : sim_range(0, 3);

    for (struct disk_op *op = n->ops; op != NULL && keep > 0; op = op->next, keep--) {
        make_durable(&n->disk, op);
    }
    n->ops = NULL;
}

static struct raft_snapshot *snapshot_load(const struct disk *d)
{
    struct raft_snapshot *s = raft_calloc(1, sizeof *s);

    if (s == NULL) {
        exit(2);
    }
    s->index = d->snapshot.index;
    s->term = d->snapshot.term;
    s->configuration_index = d->snapshot.conf_index;
    conf_copy(&s->configuration, &d->snapshot.conf);
    s->n_bufs = 1;
    s->bufs = raft_calloc(1, sizeof *s->bufs);
    if (s->bufs == NULL) {
        exit(2);
    }
    s->bufs[0].len = d->snapshot.len;
    s->bufs[0].base = copy_of(d->snapshot.bytes, d->snapshot.len);
    return s;
}

static void op_done(struct node *n, struct disk_op *op, int status)
{
    if (op->kind == OP_APPEND) {
        struct raft_io_append *req = op->req;

        req->cb(req, status);
    } else if (op->kind == OP_PUT) {
        struct raft_io_snapshot_put *req = op->req;

        req->cb(req, status);
    } else if (op->kind == OP_GET) {
        struct raft_io_snapshot_get *req = op->req;
        bool there = n->disk.has_snapshot && status == 0;

        req->cb(req, there ? snapshot_load(&n->disk) : NULL, there ? 0 : RAFT_NOTFOUND);
    } else if (op->kind == OP_WORK) {
        struct raft_io_async_work *req = op->req;

        req->cb(req, req->work(req));
    }
}

static void op_run(void *arg)
{
    struct node *n = arg;
    struct disk_op *op = n->ops;
    bool fails = op->kind <= OP_PUT && sim_chance(n->fail_percent);

    n->ops = op->next;
    if (n->ops == NULL) {
        n->ops_tail = &n->ops;
    }
    if (fails) {
        n->fail_percent = 100; /* what follows a hole in the log must not be written */
    } else {
        make_durable(&n->disk, op);
    }
    op_done(n, op, fails ? RAFT_IOERR : 0);
}

static struct disk_op *op_new(struct raft_io *io, enum kind kind, void *req)
{
    struct node *n = self_of(io);
    struct disk_op *op = sim_alloc(sizeof *op);
    raft_time from = n->disk_free_at > sim_now ? n->disk_free_at : sim_now;

    op->kind = kind;
    op->req = req;
    *n->ops_tail = op;
    n->ops_tail = &op->next;
    n->disk_free_at = from + (raft_time)sim_range(1, kind == OP_PUT ? 60 : 15);
    sim_at(n->disk_free_at - sim_now, n, op_run, n);
    return op;
}

/* ---- struct raft_io ----------------------------------------------------------------------------
 */

static int io_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io;
    (void)id;
    (void)address;
    return 0;
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    cb(io);
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *vote,
                   struct raft_snapshot **snapshot, raft_index *start, struct raft_entry *entries[],
                   size_t *n)
{
    const struct disk *d = &self_of(io)->disk;

    *term = d->term;
    *vote = d->vote;
    *snapshot = d->has_snapshot ? snapshot_load(d) : NULL;
    *start = d->count > 0 ? d->first : d->has_snapshot ? d->snapshot.index + 1 : 1;
    *n = d->count;
    *entries = d->count > 0 ? entries_make(d->entries, d->count) : NULL;
    return 0;
}

static void on_tick(void *arg)
{
    struct node *n = arg;

    sim_at(n->tick_ms, n, on_tick, n);
    n->tick(n->io);
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct node *n = self_of(io);

    n->tick = tick;
    n->recv = recv;
    n->tick_ms = msecs;
    sim_at(msecs, n, on_tick, n);
    return 0;
}

static int io_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
    struct disk *d = &self_of(io)->disk;
    struct raft_buffer buf;

    if (d->bootstrapped) {
        return RAFT_CANTBOOTSTRAP;
    }
    if (raft_configuration_encode(conf, &buf) != 0) {
        exit(2);
    }
    d->bootstrapped = true;
    d->term = 1;
    d->first = 1;
    store(d, 1, RAFT_CHANGE, buf.base, buf.len);
    return 0;
}

static int io_recover(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io;
    (void)conf;
    return RAFT_INVALID;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    self_of(io)->disk.term = term;
    self_of(io)->disk.vote = 0;
    return 0;
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    self_of(io)->disk.vote = id;
    return 0;
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct disk_op *op = op_new(io, OP_APPEND, req);

    req->cb = cb;
    op->entries = entries;
    op->n = n;
    return 0;
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    op_new(io, OP_TRUNCATE, NULL)->index = index;
    return 0;
}

static int io_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                  const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct disk_op *op = op_new(io, OP_PUT, req);

    req->cb = cb;
    op->trailing = trailing;
    op->snapshot = snapshot;
    return 0;
}

static int io_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    req->cb = cb;
    (void)op_new(io, OP_GET, req);
    return 0;
}

static int io_work(struct raft_io *io, struct raft_io_async_work *req, raft_io_async_work_cb cb)
{
    req->cb = cb;
    (void)op_new(io, OP_WORK, req);
    return 0;
}

static raft_time io_time(struct raft_io *io)
{
    (void)io;
    return sim_now;
}

static int io_random(struct raft_io *io, int min, int max)
{
    (void)io;
    return sim_range(min, max - 1);
}

/* ---- the network -------------------------------------------------------------------------------
 */

struct letter {
    struct raft_message m;
    raft_id from, to;
};

static void message_copy(struct raft_message *to, const struct raft_message *from)
{
    *to = *from;
    if (from->type == RAFT_IO_APPEND_ENTRIES) {
        const struct raft_append_entries *ae = &from->append_entries;
        struct stored *s = sim_alloc(ae->n_entries * sizeof *s);

        for (unsigned i = 0; i < ae->n_entries; i++) {
            s[i] = (struct stored){ae->entries[i].term, ae->entries[i].type, ae->entries[i].buf.len,
                                   ae->entries[i].buf.base};
        }
        to->append_entries.entries = ae->n_entries > 0 ? entries_make(s, ae->n_entries) : NULL;
        free(s);
    } else if (from->type == RAFT_IO_INSTALL_SNAPSHOT) {
        const struct raft_install_snapshot *is = &from->install_snapshot;

        conf_copy(&to->install_snapshot.conf, &is->conf);
        to->install_snapshot.data.base = copy_of(is->data.base, is->data.len);
    }
}

static void arrive(void *arg)
{
    struct letter *l = arg;
    struct node *n = node_of(l->to);

    if (n->up && !net.cut[l->from][l->to]) {
        n->recv(n->io, &l->m);
        node_stepped(n);
    } else {
        raft_shim_message_free(&l->m);
    }
    free(l);
}

static void sent(void *arg)
{
    struct raft_io_send *req = arg;

    req->cb(req, 0);
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                   raft_io_send_cb cb)
{
    struct node *n = self_of(io);
    raft_time *last = &net.last[n->id][m->server_id];
    struct letter *l;
    raft_time at;

    req->cb = cb;
    if (cb != NULL) {
        sim_at(0, n, sent, req);
    }
    if (net.cut[n->id][m->server_id] || sim_chance(net.loss_percent)) {
        return 0;
    }
    l = sim_alloc(sizeof *l);
    message_copy(&l->m, m);
    l->from = n->id;
    l->to = m->server_id;
    l->m.server_id = n->id;
    l->m.server_address = sim_address[n->id];
    at = sim_now + (raft_time)sim_range(1, net.delay_max);
    *last = at > *last ? at : *last;
    sim_at(*last - sim_now, NULL, arrive, l);
    return 0;
}

void node_io_init(struct node *n)
{
    n->io = sim_alloc(sizeof *n->io);
    *n->io = (struct raft_io){
        .version = 2,
        .impl = n,
        .init = io_init,
        .close = io_close,
        .load = io_load,
        .start = io_start,
        .bootstrap = io_bootstrap,
        .recover = io_recover,
        .set_term = io_set_term,
        .set_vote = io_set_vote,
        .send = io_send,
        .append = io_append,
        .truncate = io_truncate,
        .snapshot_put = io_put,
        .snapshot_get = io_get,
        .time = io_time,
        .random = io_random,
        .async_work = io_work,
    };
    n->ops = NULL;
    n->ops_tail = &n->ops;
    n->disk_free_at = sim_now;
}
