/* SPDX-License-Identifier: MIT
 *
 * Accounts and per-thread counts; see mem.h. An account's number is found by hashing the tag's
 * address in a table that only grows. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"

#define TAG_MAX 256u /* power of two; accounts in the whole process */

struct counts {
    struct counts *next;
    _Atomic int64_t bytes[TAG_MAX]; /* written by one thread, read by any */
};

static _Atomic(const struct kvs_mem_tag *) tags[TAG_MAX];
static _Atomic(struct counts *) all_counts; /* of every thread that ever was: few */
static _Thread_local struct counts *mine;
static atomic_llong fault_countdown = -1;
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

static void fault_arm(void)
{
    const char *n = getenv("KVS_FAULT_ALLOC");

    if (n != NULL) {
        atomic_store_explicit(&fault_countdown, atoll(n), memory_order_relaxed);
    }
}

static int fault_due(void)
{
    (void)pthread_once(&fault_once, fault_arm);
    if (atomic_load_explicit(&fault_countdown, memory_order_relaxed) < 0) {
        return 0;
    }
    return atomic_fetch_sub_explicit(&fault_countdown, 1, memory_order_relaxed) == 1;
}

static struct counts *counts_of_thread(void)
{
    struct counts *c = mine;

    if (KVS_LIKELY(c != NULL)) {
        return c;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->next = atomic_load_explicit(&all_counts, memory_order_relaxed);
    /* Release: pairs with the acquire in kvs__mem_each. */
    while (!atomic_compare_exchange_weak_explicit(&all_counts, &c->next, c, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    mine = c;
    return c;
}

static uint32_t tag_number(const struct kvs_mem_tag *tag)
{
    uint32_t i = (uint32_t)(((uintptr_t)tag >> 3) * 0x9e3779b97f4a7c15u >> 56) % TAG_MAX;

    for (uint32_t probes = 0; probes < TAG_MAX; probes++, i = (i + 1) % TAG_MAX) {
        const struct kvs_mem_tag *at = atomic_load_explicit(&tags[i], memory_order_acquire);

        if (at == NULL && atomic_compare_exchange_strong_explicit(
                              &tags[i], &at, tag, memory_order_acq_rel, memory_order_acquire)) {
            return i;
        }
        if (at == tag) {
            return i;
        }
    }
    return 0; /* table full: counted under another name rather than lost */
}

static void count(const struct kvs_mem_tag *tag, int64_t delta)
{
    struct counts *c = counts_of_thread();

    if (c != NULL) {
        _Atomic int64_t *cell = &c->bytes[tag_number(tag)];

        atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + delta,
                              memory_order_relaxed);
    }
}

void *kvs__mem_alloc(const struct kvs_mem_tag *tag, size_t size)
{
    void *p = KVS_UNLIKELY(fault_due()) ? NULL : malloc(size);

    if (p != NULL) {
        count(tag, (int64_t)size);
    }
    return p;
}

void *kvs__mem_realloc(const struct kvs_mem_tag *tag, void *ptr, size_t old_size, size_t new_size)
{
    void *p = KVS_UNLIKELY(fault_due()) ? NULL : realloc(ptr, new_size);

    if (p != NULL) {
        count(tag, (int64_t)new_size - (int64_t)old_size);
    }
    return p;
}

void kvs__mem_free(const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    if (ptr != NULL) {
        count(tag, -(int64_t)size);
        free(ptr);
    }
}

static int64_t sum_of(uint32_t i)
{
    int64_t sum = 0;

    for (struct counts *c = atomic_load_explicit(&all_counts, memory_order_acquire); c != NULL;
         c = c->next) {
        sum += atomic_load_explicit(&c->bytes[i], memory_order_relaxed);
    }
    return sum;
}

static const struct kvs_mem_tag *tag_at(uint32_t i)
{
    return atomic_load_explicit(&tags[i], memory_order_acquire);
}

/* The support library is linked into every plugin, so that a name may come with several tags. */
void kvs__mem_each(void (*fn)(void *arg, const char *name, int64_t bytes), void *arg)
{
    for (uint32_t i = 0; i < TAG_MAX; i++) {
        const struct kvs_mem_tag *tag = tag_at(i);
        int64_t sum = 0;
        uint32_t first = 0;

        if (tag == NULL) {
            continue;
        }
        while (tag_at(first) == NULL || strcmp(tag_at(first)->name, tag->name) != 0) {
            first++;
        }
        for (uint32_t k = i; k < TAG_MAX && first == i; k++) {
            const struct kvs_mem_tag *same = tag_at(k);

            sum += same != NULL && strcmp(same->name, tag->name) == 0 ? sum_of(k) : 0;
        }
        if (first == i) {
            fn(arg, tag->name, sum);
        }
    }
}

static void *host_alloc(void *ctx, const struct kvs_mem_tag *tag, size_t size)
{
    (void)ctx;
    return kvs__mem_alloc(tag, size);
}

static void *host_realloc(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                          size_t new_size)
{
    (void)ctx;
    return kvs__mem_realloc(tag, ptr, old_size, new_size);
}

static void host_free(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    (void)ctx;
    kvs__mem_free(tag, ptr, size);
}

const struct kvs_mem_tag kvs__mem_core = {"core"};

const struct kvs_host *kvs__mem_host(void)
{
    static const struct kvs_host host = {
        .size = sizeof host,
        .alloc = host_alloc,
        .realloc = host_realloc,
        .free = host_free,
    };

    return &host;
}
