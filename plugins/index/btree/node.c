/* SPDX-License-Identifier: MIT
 *
 * Search and change inside one node; see node.h. */
#include "node.h"

static struct kvs_slice key_of(const struct kvs_index_conf *conf, const void *entry)
{
    return conf->key_of(conf->arg, entry);
}

/* Four bytes behind the prefix, big-endian, zero-padded: order of heads never contradicts order of
 * keys. */
static uint32_t head_of(struct kvs_slice key, uint32_t skip)
{
    uint8_t b[4] = {0, 0, 0, 0};
    size_t n = key.len > skip ? key.len - skip : 0;

    if (n > 0) {
        memcpy(b, key.ptr + skip, n < 4 ? n : 4);
    }
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* -1: below every key of the node, 1: above every key, 0: shares the prefix. */
static int compare_common(const struct head *h, struct kvs_slice key)
{
    size_t n = key.len < h->skip ? key.len : h->skip;
    int c = n == 0 ? 0 : memcmp(key.ptr, h->common, n);

    if (c != 0) {
        return c < 0 ? -1 : 1;
    }
    return key.len < h->skip ? -1 : 0;
}

static uint32_t lower_bound(const uint32_t *heads, uint32_t count, uint32_t head)
{
    const uint32_t *at = heads;

    while (count > 1) {
        uint32_t half = count / 2;

        at += half & (0u - (uint32_t)(at[half - 1] < head)); /* no branch to mispredict */
        count -= half;
    }
    return (uint32_t)(at - heads) + (count == 1 && *at < head ? 1 : 0);
}

uint32_t node_search(const struct kvs_index_conf *conf, const struct head *h, const uint32_t *heads,
                     void *const *entries, struct kvs_slice key, int *ret_exact)
{
    uint32_t head, low, high;
    int c;

    /* The search jumps about in the heads: have their cache lines come at the same time. */
    for (uint32_t i = 0; i < LEAF_CAP; i += 16) {
        __builtin_prefetch(&heads[i]);
    }
    *ret_exact = 0;
    c = compare_common(h, key);
    if (c != 0) {
        return c < 0 ? 0 : h->count;
    }
    head = head_of(key, h->skip);
    low = lower_bound(heads, h->count, head);
    /* Equal heads: the entries decide. Usually there is one or none. */
    high = low;
    while (high < h->count && heads[high] == head) {
        high++;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        c = kvs_slice_cmp(key_of(conf, entries[middle]), key);
        if (c == 0) {
            *ret_exact = 1;
            return middle;
        }
        if (c < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void node_rehead(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads,
                 void *const *entries)
{
    struct kvs_slice first, last;
    uint32_t skip = 0;

    if (h->count == 0) {
        h->skip = 0;
        return;
    }
    first = key_of(conf, entries[0]);
    last = key_of(conf, entries[h->count - 1]);
    while (skip < COMMON_MAX && skip < first.len && skip < last.len &&
           first.ptr[skip] == last.ptr[skip]) {
        skip++; /* keys are sorted: what first and last share, all share */
    }
    if (h->count == 1 && skip > 0) {
        skip--; /* a lone key is not all prefix: its neighbours to come differ at the end */
    }
    h->skip = (uint8_t)skip;
    if (skip > 0) {
        memcpy(h->common, first.ptr, skip);
    }
    for (uint32_t i = 0; i < h->count; i++) {
        heads[i] = head_of(key_of(conf, entries[i]), skip);
    }
}

void node_insert(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads, void **entries,
                 uint32_t at, void *entry)
{
    struct kvs_slice key = key_of(conf, entry);
    uint32_t behind = (uint32_t)h->count - at;

    memmove(&heads[at + 1], &heads[at], behind * sizeof *heads);
    memmove(&entries[at + 1], &entries[at], behind * sizeof *entries);
    entries[at] = entry;
    heads[at] = head_of(key, h->skip);
    h->count++;
    if (h->count == 1 || compare_common(h, key) != 0) {
        node_rehead(conf, h, heads, entries);
    }
}

void node_remove(struct head *h, uint32_t *heads, void **entries, uint32_t at)
{
    uint32_t behind = (uint32_t)h->count - at - 1;

    memmove(&heads[at], &heads[at + 1], behind * sizeof *heads);
    memmove(&entries[at], &entries[at + 1], behind * sizeof *entries);
    h->count--;
}

void node_set(const struct kvs_index_conf *conf, struct head *h, uint32_t *heads, void **entries,
              uint32_t at, void *entry)
{
    struct kvs_slice key = key_of(conf, entry);

    entries[at] = entry;
    heads[at] = head_of(key, h->skip);
    if (compare_common(h, key) != 0) {
        node_rehead(conf, h, heads, entries);
    }
}
