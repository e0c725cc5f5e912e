/* SPDX-License-Identifier: MIT
 *
 * Writing a snapshot while the partition works: slice by slice between requests, in this process.
 *
 * The offset is the high watermark at the beginning: what is below is in the snapshot, the rest
 * comes from the journal. An ordered table is walked by key, each slice finding its place again. An
 * unordered one cannot be: the pointers of its items are listed at the beginning, and versions that
 * die meanwhile are kept until the end. Two blocks are under way at most: the walk waits for the
 * disk. */
#include "partition_private.h"

#define BLOCK_SIZE (256u << 10)
#define BLOCKS     2u

struct block {
    struct kvs_snapshot_step step; /* first */
    struct snapshot_run *run;
    struct kvs_buf buf;
    uint32_t busy;
};

struct snapshot_run {
    struct partition *p;
    struct kvs_snapshot *snapshot;
    struct block blocks[BLOCKS];
    struct block *filling; /* the one that is written into, or NULL */
    struct kvs_task next_slice;
    struct kvs_buf key; /* the walk has come so far */
    uint64_t offset, answer_after;
    uint32_t slice_items, items_done, finished, posted;
    int32_t rc;
    struct item **list; /* unordered: [list_count] */
    uint64_t list_count, list_at;
    struct item **dead; /* [dead_count], of dead_cap */
    uint64_t dead_count, dead_cap;
    void (*done)(void *arg, int rc);
    void *arg;
};

static void slice(struct snapshot_run *run);

static void run_end(struct snapshot_run *run)
{
    struct partition *p = run->p;
    void (*done)(void *arg, int rc) = run->done;
    void *arg = run->arg;
    int rc = run->rc;

    p->snapshot = NULL;
    for (uint64_t i = 0; i < run->dead_count; i++) {
        kvs_free(p->host, &storage_items, run->dead[i], item_size(run->dead[i]));
    }
    kvs_free(p->host, &storage_other, run->dead, run->dead_cap * sizeof(struct item *));
    kvs_free(p->host, &storage_other, run->list, run->list_count * sizeof(struct item *));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        kvs_buf_fini(&run->blocks[i].buf);
    }
    kvs_buf_fini(&run->key);
    kvs_free(p->host, &storage_other, run, sizeof *run);
    done(arg, rc);
    close_check(p);
}

int snapshot_keeps(struct partition *p, struct item *it)
{
    struct snapshot_run *run = p->snapshot;

    if (run->list == NULL || run->items_done) {
        return 0;
    }
    if (run->dead_count == run->dead_cap) {
        uint64_t cap = run->dead_cap == 0 ? 256 : run->dead_cap * 2;
        struct item **grown = kvs_alloc(p->host, &storage_other, cap * sizeof *grown);

        if (grown == NULL) {
            run->rc = KVS_ENOMEM; /* the walk ends here: nobody looks at this item again */
            return 0;
        }
        if (run->dead_count > 0) {
            memcpy(grown, run->dead, run->dead_count * sizeof *grown);
        }
        kvs_free(p->host, &storage_other, run->dead, run->dead_cap * sizeof *run->dead);
        run->dead = grown;
        run->dead_cap = cap;
    }
    run->dead[run->dead_count++] = it;
    return 1;
}

/* ---- blocks ------------------------------------------------------------------------------------
 */

/* The block to write into; NULL while both are on their way. */
static struct block *block_filling(struct snapshot_run *run)
{
    for (uint32_t i = 0; run->filling == NULL && i < BLOCKS; i++) {
        if (!run->blocks[i].busy) {
            run->filling = &run->blocks[i];
        }
    }
    return run->filling;
}

static uint32_t blocks_busy(const struct snapshot_run *run)
{
    return run->blocks[0].busy + run->blocks[1].busy;
}

static void on_block(struct kvs_snapshot_step *step, int rc)
{
    struct block *b = (struct block *)step;
    struct snapshot_run *run = b->run;

    b->busy = 0;
    kvs_buf_clear(&b->buf);
    run->rc = run->rc != 0 ? run->rc : rc;
    if (!run->posted) {
        slice(run);
    }
}

static void block_send(struct snapshot_run *run, struct block *b)
{
    const struct partition_conf *conf = &run->p->conf;

    b->busy = 1;
    run->filling = NULL;
    b->step = (struct kvs_snapshot_step){.block = kvs_buf_slice(&b->buf), .cb = on_block};
    conf->persistence->snapshot_block(conf->persistence_self, run->snapshot, &b->step);
}

static void put_version(struct kvs_buf *b, uint32_t epoch, uint64_t offset)
{
    char *room = kvs_buf_reserve(b, 20);

    if (room != NULL) {
        size_t n = kvs_varint_put(room, epoch);

        b->len += n + kvs_varint_put(room + n, offset);
    }
}

static void put_item(struct snapshot_run *run, struct kvs_buf *b, const struct item *it)
{
    struct record r = {.kind = RECORD_PUT};
    struct item_parts parts;

    item_parts(it, &parts);
    r.key = parts.key;
    r.partition_key = parts.partition_key;
    r.value = parts.value;
    r.indexes = parts.indexes;
    r.expires_at_ms = parts.expires_at_ms;
    r.content_type = parts.content_type;
    if ((it->flags & ITEM_TYPE_INLINE) == 0 && run->p->type_count > 0) {
        r.content_type = kvs_slice_str(run->p->types[it->type]);
    }
    put_version(b, it->epoch, it->offset);
    record_put(b, &r);
}

/* ---- walking -----------------------------------------------------------------------------------
 */

static void walk_ordered(struct snapshot_run *run, struct kvs_buf *b)
{
    struct partition *p = run->p;
    struct kvs_index_cursor c;
    struct kvs_slice last = {NULL, 0};

    p->conf.index->seek(p->index, kvs_buf_slice(&run->key), KVS_INDEX_GT, &c);
    for (uint32_t n = 0; n < run->slice_items && c.entry != NULL && b->len < BLOCK_SIZE; n++) {
        const struct item *it = version_visible(p, c.entry, READ_COMMITTED);

        if (it != NULL) {
            put_item(run, b, it);
        }
        last = item_key(c.entry);
        p->conf.index->next(&c);
    }
    if (c.entry == NULL) {
        run->items_done = 1;
    } else if (last.len > 0) {
        kvs_buf_clear(&run->key);
        kvs_buf_append(&run->key, last.ptr, last.len);
    }
}

static void walk_list(struct snapshot_run *run, struct kvs_buf *b)
{
    for (uint32_t n = 0;
         n < run->slice_items && run->list_at < run->list_count && b->len < BLOCK_SIZE; n++) {
        if (run->list[run->list_at] != NULL) {
            put_item(run, b, run->list[run->list_at]);
        }
        run->list_at++;
    }
    run->items_done = run->list_at == run->list_count;
}

/* Few and small: in one piece. */
static void put_answers(struct snapshot_run *run, struct kvs_buf *b)
{
    for (const struct answer *a = run->p->answer_oldest; a != NULL; a = a->newer) {
        struct record r = {.kind = RECORD_ANSWER,
                           .key = kvs_slice(a->data, a->key_len),
                           .hash = a->hash,
                           .time_ms = a->time_ms,
                           .answers = kvs_slice(a->data + a->key_len, a->results_len)};

        if (a->offset < run->offset && a->offset >= run->answer_after) {
            if (b->len > BLOCK_SIZE * 4) {
                run->answer_after = a->offset;
                return;
            }
            put_version(b, run->p->conf.leader_epoch, a->offset);
            record_put(b, &r);
        }
    }
    run->finished = 1;
}

static void on_committed(struct kvs_snapshot_step *step, int rc)
{
    struct block *b = (struct block *)step;
    struct snapshot_run *run = b->run;
    struct partition *p = run->p;

    b->busy = 0;
    if (rc == 0) {
        p->snapshot_offset = run->offset;
        p->journaled_bytes = 0;
    } else {
        p->conf.persistence->snapshot_abort(p->conf.persistence_self, run->snapshot);
    }
    run->rc = rc;
    run_end(run);
}

static void commit(struct snapshot_run *run)
{
    struct block *b = &run->blocks[0];
    const struct partition_conf *conf = &run->p->conf;

    b->busy = 1;
    b->step = (struct kvs_snapshot_step){.cb = on_committed};
    conf->persistence->snapshot_commit(conf->persistence_self, run->snapshot, &b->step);
}

static void on_next_slice(struct kvs_task *task)
{
    struct snapshot_run *run = KVS_CONTAINER_OF(task, struct snapshot_run, next_slice);

    run->posted = 0;
    slice(run);
}

static void slice_again(struct snapshot_run *run)
{
    const struct kvs_host *host = run->p->host;

    run->posted = 1;
    run->next_slice.run = on_next_slice;
    host->post(host->ctx, host->loop_current(host->ctx), &run->next_slice);
}

static void fail(struct snapshot_run *run)
{
    const struct partition_conf *conf = &run->p->conf;

    if (blocks_busy(run) == 0) { /* else the last block's callback comes here again */
        conf->persistence->snapshot_abort(conf->persistence_self, run->snapshot);
        run_end(run);
    }
}

/* One slice of the walk; the next follows from a later round, or when a block is free again. */
static void slice(struct snapshot_run *run)
{
    struct block *b = block_filling(run);

    if (run->p->closing && run->rc == 0) {
        run->rc = KVS_ECANCELED;
    }
    if (run->rc != 0) {
        fail(run);
        return;
    }
    if (run->finished) {
        if (blocks_busy(run) == 0) {
            commit(run);
        }
        return;
    }
    if (b == NULL) {
        return; /* on_block goes on */
    }
    if (run->items_done) {
        put_answers(run, &b->buf);
    } else if (run->list != NULL) {
        walk_list(run, &b->buf);
    } else {
        walk_ordered(run, &b->buf);
    }
    if (b->buf.failed || run->key.failed) {
        run->rc = KVS_ENOMEM;
    } else if (b->buf.len >= BLOCK_SIZE || (run->finished && b->buf.len > 0)) {
        block_send(run, b);
    }
    slice_again(run);
}

/* ---- beginning ---------------------------------------------------------------------------------
 */

static int list_visit(void *arg, void *entry)
{
    struct snapshot_run *run = arg;
    struct item *it = version_visible(run->p, entry, READ_COMMITTED);

    if (it != NULL) {
        run->list[run->list_at++] = it;
    }
    return 0;
}

/* Pointers of all committed versions. They stay valid: snapshot_keeps. */
static int list_items(struct snapshot_run *run)
{
    struct partition *p = run->p;
    uint64_t cap = p->conf.index->count(p->index);

    run->list = kvs_alloc(p->host, &storage_other, (cap + 1) * sizeof *run->list);
    if (run->list == NULL) {
        return KVS_ENOMEM;
    }
    run->list_count = cap + 1; /* of the allocation, until the end is known */
    (void)p->conf.index->each(p->index, list_visit, run);
    while (run->list_at < run->list_count) {
        run->list[run->list_at++] = NULL;
    }
    run->list_at = 0;
    return 0;
}

int partition_snapshot_begin(struct partition *p, uint32_t slice_items,
                             void (*done)(void *arg, int rc), void *arg)
{
    struct kvs_snapshot_info info = {.stream = p->conf.stream,
                                     .offset = p->hw,
                                     .item_count = p->item_count,
                                     .leader_epoch = p->conf.leader_epoch};
    struct snapshot_run *run;
    struct kvs_error err = {0};
    int rc;

    if (p->snapshot != NULL || p->closing) {
        return KVS_EBUSY;
    }
    run = kvs_calloc(p->host, &storage_other, sizeof *run);
    if (run == NULL) {
        return KVS_ENOMEM;
    }
    run->p = p;
    run->offset = p->hw;
    run->slice_items = slice_items;
    run->done = done;
    run->arg = arg;
    kvs_buf_init(&run->key, p->host, &storage_other);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        run->blocks[i].run = run;
        kvs_buf_init(&run->blocks[i].buf, p->host, &storage_batches);
    }
    rc = p->conf.index->seek == NULL ? list_items(run) : 0;
    rc = rc != 0 ? rc
                 : p->conf.persistence->snapshot_begin(p->conf.persistence_self, &info,
                                                       p->conf.codec_name, &run->snapshot, &err);
    if (rc != 0) {
        kvs_free(p->host, &storage_other, run->list, run->list_count * sizeof *run->list);
        kvs_free(p->host, &storage_other, run, sizeof *run);
        return rc;
    }
    p->snapshot = run;
    slice_again(run);
    return 0;
}

uint64_t partition_snapshot_offset(const struct partition *p)
{
    return p->snapshot_offset;
}
