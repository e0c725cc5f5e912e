/* SPDX-License-Identifier: MIT
 *
 * Answers that are remembered for a while, so that a client may repeat a request whose answer it
 * did not get. They are records of the log: they survive crashes and travel with the data. */
#include "partition_private.h"

static struct kvs_slice answer_key(void *arg, const void *entry)
{
    const struct answer *a = entry;

    (void)arg;
    return kvs_slice(a->data, a->key_len);
}

int answers_init(struct partition *p)
{
    struct kvs_index_conf conf = {.key_of = answer_key, .tag = &storage_other};

    return p->conf.index->map_new(p->conf.index_self, &conf, &p->answers);
}

struct answer *answer_find(struct partition *p, struct kvs_slice key)
{
    return p->conf.index->get(p->answers, key);
}

static size_t answer_size(const struct answer *a)
{
    return sizeof *a + a->key_len + a->results_len;
}

static void unlink_answer(struct partition *p, struct answer *a)
{
    *(a->older != NULL ? &a->older->newer : &p->answer_oldest) = a->newer;
    *(a->newer != NULL ? &a->newer->older : &p->answer_newest) = a->older;
    p->answer_count--;
}

void answer_remove(struct partition *p, struct answer *a)
{
    (void)p->conf.index->del(p->answers, kvs_slice(a->data, a->key_len));
    unlink_answer(p, a);
    kvs_free(p->host, &storage_other, a, answer_size(a));
}

/* Only committed ones may go: a pending one is named by the ring. */
void answers_trim(struct partition *p, uint64_t now_ms)
{
    while (p->answer_oldest != NULL && p->answer_oldest->offset < p->hw &&
           (p->answer_count > p->conf.idempotency_count_max ||
            p->answer_oldest->time_ms + p->conf.idempotency_window_ms < now_ms)) {
        answer_remove(p, p->answer_oldest);
    }
}

struct answer *answer_add(struct partition *p, struct kvs_slice key, uint64_t hash,
                          uint64_t time_ms, uint64_t offset, struct kvs_slice results)
{
    size_t size = sizeof(struct answer) + key.len + results.len;
    struct answer *a = kvs_alloc(p->host, &storage_other, size);
    void *old = NULL;

    if (a == NULL) {
        return NULL;
    }
    memset(a, 0, sizeof *a);
    a->hash = hash;
    a->time_ms = time_ms;
    a->offset = offset;
    a->key_len = (uint32_t)key.len;
    a->results_len = (uint32_t)results.len;
    memcpy(a->data, key.ptr, key.len);
    memcpy(a->data + key.len, results.ptr, results.len);
    if (p->conf.index->put(p->answers, a, &old) != 0) {
        kvs_free(p->host, &storage_other, a, size);
        return NULL;
    }
    if (old != NULL) { /* a replay over a snapshot that holds it already */
        unlink_answer(p, old);
        kvs_free(p->host, &storage_other, old, answer_size(old));
    }
    a->older = p->answer_newest;
    *(a->older != NULL ? &a->older->newer : &p->answer_oldest) = a;
    p->answer_newest = a;
    p->answer_count++;
    return a;
}

void answers_free(struct partition *p)
{
    while (p->answer_oldest != NULL) {
        struct answer *next = p->answer_oldest->newer;

        kvs_free(p->host, &storage_other, p->answer_oldest, answer_size(p->answer_oldest));
        p->answer_oldest = next;
    }
    if (p->answers != NULL) {
        p->conf.index->map_free(p->answers);
    }
}

/* Per operation: u8 result, varint epoch, varint offset. */
void answer_results(struct kvs_buf *b, const struct write_batch *wb)
{
    for (uint32_t i = 0; i < wb->count; i++) {
        char *room = kvs_buf_reserve(b, 21);
        char *at = room;

        if (room == NULL) {
            return;
        }
        *at++ = (char)wb->ops[i].result;
        at += kvs_varint_put(at, wb->ops[i].version.epoch);
        at += kvs_varint_put(at, wb->ops[i].version.offset);
        b->len += (size_t)(at - room);
    }
}

int answer_give(const struct answer *a, struct write_batch *wb)
{
    struct kvs_slice s = {a->data + a->key_len, a->results_len};

    if (a->hash != wb->idempotency_hash) {
        return KVS_EREUSED;
    }
    for (uint32_t i = 0; i < wb->count; i++) {
        uint64_t epoch = 0, offset = 0;
        size_t n;

        if (s.len < 1) {
            return KVS_EREUSED;
        }
        wb->ops[i].result = (uint8_t)s.ptr[0];
        s.ptr++;
        s.len--;
        n = kvs_varint_get(s, &epoch);
        s.ptr += n;
        s.len -= n;
        n = kvs_varint_get(s, &offset);
        s.ptr += n;
        s.len -= n;
        wb->ops[i].version.epoch = (uint32_t)epoch;
        wb->ops[i].version.offset = offset;
    }
    wb->replayed = 1;
    return 0;
}
