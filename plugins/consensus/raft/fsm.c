/* SPDX-License-Identifier: MIT
 *
 * consensus-raft: between the library's state machine and the service's.
 *
 * One log entry holds the operations that were waiting when it was made; its length must be a
 * multiple of 8, or the library's segment files lose what follows it. Little-endian:
 *
 *   entry     u32 magic, u32 count, then count operations
 *   operation u32 len, u32 zero, len bytes, zeros up to a multiple of 8
 *   snapshot  u64 magic, u64 len, len bytes of the service */
#include <inttypes.h>

#include "raft_private.h"

#define ENTRY_MAGIC    0x3153504fu           /* "OPS1" */
#define SNAPSHOT_MAGIC 0x31544152504e5356ull /* "VSNPRAT1" */
#define SNAPSHOT_HEAD  16u
#define SNAPSHOT_PAUSE 256u /* entries until a snapshot that failed is tried again */

static size_t pad8(size_t n)
{
    return (n + 7u) & ~(size_t)7u;
}

size_t raft_op_size(size_t len)
{
    return 8 + pad8(len);
}

size_t raft_entry_begin(uint8_t *entry, uint32_t count)
{
    kvs_put_u32(entry, ENTRY_MAGIC);
    kvs_put_u32(entry + 4, count);
    return RAFT_ENTRY_HEAD_SIZE;
}

size_t raft_entry_add(uint8_t *entry, size_t at, struct kvs_slice op)
{
    kvs_put_u32(entry + at, (uint32_t)op.len);
    kvs_put_u32(entry + at + 4, 0);
    memcpy(entry + at + 8, op.ptr, op.len);
    memset(entry + at + 8 + op.len, 0, pad8(op.len) - op.len);
    return at + raft_op_size(op.len);
}

/* True if the whole entry makes sense: nothing of a damaged one is applied. */
static int entry_valid(const uint8_t *entry, size_t len)
{
    size_t at = RAFT_ENTRY_HEAD_SIZE;

    if (len < at || kvs_get_u32(entry) != ENTRY_MAGIC) {
        return 0;
    }
    for (uint32_t i = kvs_get_u32(entry + 4); i > 0; i--) {
        size_t op;

        if (len - at < 8) {
            return 0;
        }
        op = raft_op_size(kvs_get_u32(entry + at));
        if (op > len - at) {
            return 0;
        }
        at += op;
    }
    return at == len;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct raft_plugin *self = fsm->data;
    const uint8_t *entry = buf->base;
    uint64_t index = self->raft.last_applied + 1; /* the library counts after this returns */
    size_t at = RAFT_ENTRY_HEAD_SIZE;
    uint32_t count;

    if (self->shim.dead) {
        return RAFT_SHUTDOWN;
    }
    if (!entry_valid(entry, buf->len)) {
        char why[96];

        (void)snprintf(why, sizeof why, "log entry %" PRIu64 " is damaged or of a newer version",
                       index);
        raft_shim_fail(&self->shim, why);
        return RAFT_MALFORMED;
    }
    count = kvs_get_u32(entry + 4);
    for (uint32_t i = 0; i < count; i++) {
        size_t len = kvs_get_u32(entry + at);
        uint64_t value = 0;

        self->fsm.apply(self->fsm.arg, index, kvs_slice(entry + at + 8, len), &value);
        if (i < RAFT_BATCH_OPS_MAX) {
            self->results[i] = value;
        }
        at += raft_op_size(len);
    }
    self->fsm_changed = 1;
    self->applied_bytes += buf->len;
    if (self->applied_bytes >= self->conf->snapshot_bytes) {
        self->raft.snapshot.threshold = 1; /* the library looks at it when this run is applied */
    }
    *result = self->results;
    return 0;
}

/* How many of the last applied entries may stay in memory and on disk. */
static unsigned trailing_count(const struct raft_plugin *self)
{
    const struct raft_log *l = &self->raft.log;
    unsigned n = 0;
    size_t bytes = 0;

    for (raft_index i = self->raft.last_applied;
         n < (unsigned)self->conf->snapshot_trailing && i > l->offset && l->size > 0; i--) {
        bytes += l->entries[(l->front + (size_t)(i - 1 - l->offset)) % l->size].buf.len;
        if (bytes > RAFT_TRAILING_BYTES_MAX) {
            break;
        }
        n++;
    }
    return n == 0 ? 1 : n; /* 0 would mean: replace the log */
}

static int snapshot_later(struct raft_plugin *self, const char *why)
{
    struct raft *r = &self->raft;

    KVS_LOG(self->host, KVS_LOG_WARN, "snapshot_failed", "error='%s' retrying=later", why);
    r->snapshot.threshold =
        (unsigned)(r->last_applied - r->log.snapshot.last_index) + SNAPSHOT_PAUSE;
    return RAFT_BUSY; /* the one answer that the library survives */
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_plugin *self = fsm->data;
    struct kvs_slice bytes = {NULL, 0};
    int rc;

    if (!raft_shim_snapshot_allowed(&self->shim)) {
        return RAFT_BUSY;
    }
    rc = self->fsm.snapshot(self->fsm.arg, &bytes, &self->snapshot.free, &self->snapshot.arg);
    if (rc != 0) {
        return snapshot_later(self, kvs_code_text(rc));
    }
    if (bytes.len > RAFT_SNAPSHOT_BYTES_MAX) {
        self->snapshot.free(self->snapshot.arg);
        return snapshot_later(self, "the state is too large");
    }
    kvs_put_u64(self->snapshot.head, SNAPSHOT_MAGIC);
    kvs_put_u64(self->snapshot.head + 8, bytes.len);
    self->snapshot.bufs[0] = (struct raft_buffer){self->snapshot.head, SNAPSHOT_HEAD};
    /* The library only reads what it is given here. */
    self->snapshot.bufs[1] = (struct raft_buffer){(void *)(uintptr_t)bytes.ptr, bytes.len};
    self->snapshot.index = self->raft.last_applied;
    self->snapshot_size = bytes.len;
    self->applied_bytes = 0;
    self->raft.snapshot.threshold = (unsigned)self->conf->snapshot_threshold;
    self->raft.snapshot.trailing = trailing_count(self);
    *bufs = self->snapshot.bufs;
    *n_bufs = bytes.len == 0 ? 1 : 2;
    return 0;
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct raft_plugin *self = fsm->data;

    if (self->snapshot.free != NULL) {
        self->snapshot.free(self->snapshot.arg);
    }
    self->snapshot.free = NULL;
    *bufs = NULL;
    *n_bufs = 0;
    if (self->raft.log.snapshot.last_index < self->snapshot.index && !self->closing) {
        (void)snapshot_later(self, "it could not be written");
    } else {
        KVS_LOG(self->host, KVS_LOG_INFO, "snapshot", "index=%" PRIu64 " bytes=%" PRIu64,
                (uint64_t)self->snapshot.index, self->snapshot_size);
    }
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct raft_plugin *self = fsm->data;
    const uint8_t *bytes = buf->base;
    struct kvs_error err = {0};

    if (buf->len < SNAPSHOT_HEAD || kvs_get_u64(bytes) != SNAPSHOT_MAGIC ||
        kvs_get_u64(bytes + 8) != buf->len - SNAPSHOT_HEAD) {
        (void)kvs_err(&err, KVS_EFORMAT, "its head is damaged or of a newer version");
    } else if (self->fsm.restore(self->fsm.arg,
                                 kvs_slice(bytes + SNAPSHOT_HEAD, buf->len - SNAPSHOT_HEAD),
                                 &err) == 0) {
        self->snapshot_size = buf->len - SNAPSHOT_HEAD;
        self->applied_bytes = 0;
        self->fsm_changed = 1;
        raft_free(buf->base); /* ours once we accept it */
        return 0;
    }
    if (!self->shim.dead) {
        char why[160];

        (void)snprintf(why, sizeof why, "restore the snapshot: %.120s", err.msg);
        raft_shim_fail(&self->shim, why);
    }
    return RAFT_MALFORMED;
}

void raft_fsm_init(struct raft_plugin *self)
{
    self->raft_fsm = (struct raft_fsm){
        .version = 2,
        .data = self,
        .apply = fsm_apply,
        .snapshot = fsm_snapshot,
        .restore = fsm_restore,
        .snapshot_finalize = fsm_snapshot_finalize,
    };
}
