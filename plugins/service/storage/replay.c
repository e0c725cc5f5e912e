/* SPDX-License-Identifier: MIT
 *
 * Recovery: the newest snapshot, then the batches behind it. What is replayed is committed.
 *
 * A snapshot is fuzzy: it may hold versions newer than its offset. Replaying the log over it passes
 * through states that never were, and ends in the right one, because each of those versions comes
 * again.
 *
 * Snapshot blocks are sequences of (varint epoch, varint offset, record): a PUT per item, an ANSWER
 * per remembered answer. */
#include "partition_private.h"

static int damaged(struct kvs_error *err, const char *what)
{
    return kvs_err(err, KVS_ECORRUPT, "%s", what);
}

/* Make `fresh` the committed version of its key. */
static int install(struct partition *p, struct item *fresh, struct kvs_error *err)
{
    const char *detail = "";
    int rc = secondaries_add(p, fresh, &detail);

    if (rc == KVS_EINVAL) {
        rc = 0; /* it was accepted before an index asked for more */
    }
    if (rc == 0) {
        rc = version_apply(p, fresh);
        if (rc != 0) {
            secondaries_remove(p, fresh);
        }
    }
    if (rc != 0) {
        kvs_free(p->host, &storage_items, fresh, item_size(fresh));
        return kvs_err(err, rc, "recover: out of memory");
    }
    commit_to(p, p->leo);
    return 0;
}

static int replay_put(struct partition *p, const struct record *r, uint32_t epoch, uint64_t offset,
                      struct kvs_error *err)
{
    struct item_parts parts = {.key = r->key,
                               .partition_key = r->partition_key,
                               .value = r->value,
                               .content_type = r->content_type,
                               .indexes = r->indexes,
                               .expires_at_ms = r->expires_at_ms,
                               .offset = offset,
                               .epoch = epoch};
    struct item *fresh = item_make(p, &parts);

    return fresh == NULL ? kvs_err(err, KVS_ENOMEM, "recover: out of memory")
                         : install(p, fresh, err);
}

static int replay_other(struct partition *p, const struct record *r, uint32_t epoch,
                        uint64_t offset, struct kvs_error *err)
{
    struct item *it = p->conf.index->get(p->index, r->key);
    struct item_parts parts = {.key = r->key, .tombstone = 1};
    struct item *fresh;

    if (it == NULL) {
        return 0; /* deleted again further on: the fuzzy snapshot did not see it */
    }
    if (r->kind == RECORD_TOUCH) {
        item_parts(it, &parts);
        if ((it->flags & ITEM_TYPE_INLINE) == 0 && p->type_count > 0) {
            parts.content_type = kvs_slice_str(p->types[it->type]);
        }
        parts.expires_at_ms = r->expires_at_ms;
    }
    parts.offset = offset;
    parts.epoch = epoch;
    fresh = item_make(p, &parts);
    return fresh == NULL ? kvs_err(err, KVS_ENOMEM, "recover: out of memory")
                         : install(p, fresh, err);
}

static int replay_record(struct partition *p, const struct record *r, uint32_t epoch,
                         uint64_t offset, struct kvs_error *err)
{
    switch (r->kind) {
    case RECORD_PUT:
        return replay_put(p, r, epoch, offset, err);
    case RECORD_ANSWER:
        return answer_add(p, r->key, r->hash, r->time_ms, offset, r->answers) == NULL
                   ? kvs_err(err, KVS_ENOMEM, "recover: out of memory")
                   : 0;
    default:
        return replay_other(p, r, epoch, offset, err);
    }
}

/* version_apply notes each version at leo and commits it at once; during recovery leo and hw only
 * serve as that scratch position, and are set right when a batch or snapshot is done. */
static void position(struct partition *p, uint64_t offset)
{
    p->leo = p->hw = offset;
}

/* A version's own offset must lie below hw, or it would count as pending while it is replayed. */
#define REPLAY_POSITION (UINT64_MAX / 2)

int partition_recover_begin(struct partition *p, const struct kvs_snapshot_info *info,
                            struct kvs_error *err)
{
    if (p->conf.index->count(p->index) != 0) {
        return kvs_err(err, KVS_ESTATE, "recover: two snapshots for one partition");
    }
    p->snapshot_offset = info->offset;
    return 0;
}

int partition_recover_block(struct partition *p, struct kvs_slice raw, struct kvs_error *err)
{
    while (raw.len > 0) {
        uint64_t epoch, offset;
        struct record r;
        size_t n = kvs_varint_get(raw, &epoch);
        int rc;

        raw.ptr += n;
        raw.len -= n;
        if (n == 0 || epoch > UINT32_MAX) {
            return damaged(err, "a snapshot block holds a broken version");
        }
        n = kvs_varint_get(raw, &offset);
        raw.ptr += n;
        raw.len -= n;
        if (n == 0 || offset >= REPLAY_POSITION || record_take(&raw, &r) != 0 ||
            (r.kind != RECORD_PUT && r.kind != RECORD_ANSWER)) {
            return damaged(err, "a snapshot block holds a broken record");
        }
        p->recover_end = offset >= p->recover_end ? offset + 1 : p->recover_end;
        position(p, REPLAY_POSITION);
        rc = replay_record(p, &r, (uint32_t)epoch, offset, err);
        position(p, 0);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

int partition_recover_end(struct partition *p, struct kvs_error *err)
{
    (void)err;
    position(p, p->snapshot_offset);
    return 0;
}

static int replay_records(struct partition *p, const struct kvs_batch_header *h,
                          struct kvs_slice raw, struct kvs_error *err)
{
    uint64_t first = p->leo;
    int rc = 0;

    for (uint32_t i = 0; i < h->count && rc == 0; i++) {
        struct record r;

        if (record_take(&raw, &r) != 0) {
            return damaged(err, "a batch holds a broken record");
        }
        if (h->base_offset + i >= first) {
            position(p, REPLAY_POSITION);
            rc = replay_record(p, &r, h->leader_epoch, h->base_offset + i, err);
            position(p, first);
        }
    }
    if (rc == 0 && raw.len != 0) {
        return damaged(err, "a batch holds more than its records");
    }
    return rc;
}

/* The batch's records in plain; *ret_owned is what to free (raw_size + 1 bytes), or NULL. */
static int unpack(struct partition *p, const struct kvs_batch_header *h, struct kvs_slice *payload,
                  char **ret_owned, struct kvs_error *err)
{
    const struct kvs_compression_ops *codec;
    void *self = NULL;

    *ret_owned = NULL;
    if (h->codec == KVS_CODEC_NONE) {
        return 0;
    }
    codec = p->conf.codec_by_id == NULL ? NULL : p->conf.codec_by_id(p->host, h->codec, &self);
    if (codec == NULL) {
        return kvs_err(err, KVS_ENOTFOUND,
                       "a batch was compressed with codec %u, whose plugin is not loaded: add it "
                       "under plugins.compression",
                       (unsigned)h->codec);
    }
    *ret_owned = kvs_alloc(p->host, &storage_batches, (size_t)h->raw_size + 1);
    if (*ret_owned == NULL) {
        return kvs_err(err, KVS_ENOMEM, "recover: out of memory");
    }
    if (codec->decompress(self, *payload, *ret_owned, h->raw_size) != 0) {
        return damaged(err, "a batch does not decompress");
    }
    *payload = kvs_slice(*ret_owned, h->raw_size);
    return 0;
}

int partition_recover_batch(struct partition *p, const struct kvs_batch_header *h,
                            struct kvs_slice payload, struct kvs_error *err)
{
    char *owned;
    int rc;

    if (h->base_offset > p->leo) {
        return kvs_err(err, KVS_ECORRUPT,
                       "records %llu to %llu of a partition are missing from the journal",
                       (unsigned long long)p->leo, (unsigned long long)h->base_offset - 1);
    }
    if (h->base_offset + h->count <= p->leo) {
        return 0;
    }
    if (h->base_offset + h->count >= REPLAY_POSITION) {
        return damaged(err, "a batch has an offset out of bounds");
    }
    rc = unpack(p, h, &payload, &owned, err);
    rc = rc != 0 ? rc : replay_records(p, h, payload, err);
    kvs_free(p->host, &storage_batches, owned, (size_t)h->raw_size + 1);
    if (rc == 0) {
        position(p, h->base_offset + h->count);
        p->journaled_bytes += h->total_size;
    }
    return rc;
}

int partition_recover_finish(struct partition *p, struct kvs_error *err)
{
    if (p->recover_end > p->leo) {
        return kvs_err(err, KVS_ECORRUPT,
                       "a snapshot holds record %llu of partition %016llx, but the journal ends at "
                       "record %llu. Restore the journal, or this node's data from a backup or a "
                       "replica",
                       (unsigned long long)p->recover_end - 1, (unsigned long long)p->conf.stream,
                       (unsigned long long)p->leo);
    }
    return 0;
}
