/* SPDX-License-Identifier: MIT
 *
 * Tagged memory of the fake host. Every block is known, so that a crash can forget them all and a
 * test ends with an error if any is left. Sizes given at free are checked. Each block is one
 * malloc, so that sanitizers see it. */
#include <stdio.h>
#include <stdlib.h>

#include "mock_private.h"

#define BLOCK_MAGIC 0x4b564d42u /* "KVMB" */

struct block {
    struct block *next, *prev;
    size_t size;
    uint32_t tag, magic; /* BLOCK_MAGIC, right before what the plugin got */
};

KVS_STATIC_ASSERT(sizeof(struct block) % 16 == 0, "what follows is aligned");

static uint32_t tag_index(struct kvs_mock *m, const char *name)
{
    for (uint32_t i = 0; i < m->tag_count; i++) {
        if (strcmp(m->tags[i].name, name) == 0) {
            return i;
        }
    }
    if (m->tag_count == KVS_ARRAY_COUNT(m->tags)) {
        mock_stop_test("too many memory tags");
    }
    m->tags[m->tag_count].name = name;
    m->tags[m->tag_count].bytes = 0;
    return m->tag_count++;
}

static void *mock_alloc(void *ctx, const struct kvs_mem_tag *tag, size_t size)
{
    struct kvs_mock *m = ctx;
    struct block *b;

    if (size == 0) {
        mock_stop_test("alloc(0)");
    }
    if (mock_fault(m, &m->fail_alloc) || size > PTRDIFF_MAX - sizeof *b) {
        return NULL;
    }
    b = malloc(sizeof *b + size);
    if (b == NULL) {
        return NULL;
    }
    memset(b + 1, 0xa5, size); /* nobody may rely on zeros */
    b->size = size;
    b->tag = tag_index(m, tag->name);
    b->magic = BLOCK_MAGIC;
    b->prev = NULL;
    b->next = m->blocks;
    if (b->next != NULL) {
        b->next->prev = b;
    }
    m->blocks = b;
    m->tags[b->tag].bytes += size;
    return b + 1;
}

static void mock_free_block(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t size)
{
    struct kvs_mock *m = ctx;
    struct block *b = (struct block *)ptr - 1;

    if (b->magic != BLOCK_MAGIC) {
        mock_stop_test("free of what was not allocated here, or written to before its start");
    }
    if (b->size != size || strcmp(m->tags[b->tag].name, tag->name) != 0) {
        (void)fprintf(stderr, "mock: free of %zu bytes of '%s' that were %zu of '%s'\n", size,
                      tag->name, b->size, m->tags[b->tag].name);
        mock_stop_test("memory given back wrongly");
    }
    if (b->prev != NULL) {
        b->prev->next = b->next;
    } else {
        m->blocks = b->next;
    }
    if (b->next != NULL) {
        b->next->prev = b->prev;
    }
    m->tags[b->tag].bytes -= size;
    b->magic = 0;
    free(b);
}

static void *mock_realloc(void *ctx, const struct kvs_mem_tag *tag, void *ptr, size_t old_size,
                          size_t new_size)
{
    void *fresh = mock_alloc(ctx, tag, new_size);

    if (fresh != NULL && ptr != NULL) {
        memcpy(fresh, ptr, old_size < new_size ? old_size : new_size);
        mock_free_block(ctx, tag, ptr, old_size);
    }
    return fresh;
}

void mock_memory_fill(struct kvs_mock *m)
{
    m->host.alloc = mock_alloc;
    m->host.realloc = mock_realloc;
    m->host.free = mock_free_block;
}

void mock_memory_forget(struct kvs_mock *m)
{
    while (m->blocks != NULL) {
        struct block *next = m->blocks->next;

        free(m->blocks);
        m->blocks = next;
    }
    m->tag_count = 0;
}

uint32_t mock_memory_held(struct kvs_mock *m)
{
    uint32_t held = 0;

    for (uint32_t i = 0; i < m->tag_count; i++) {
        if (m->tags[i].bytes != 0) {
            (void)fprintf(stderr, "mock: %llu bytes of '%s' are still held\n",
                          (unsigned long long)m->tags[i].bytes, m->tags[i].name);
            held++;
        }
    }
    return held;
}

uint64_t kvs_mock_memory(struct kvs_mock *m, const char *tag)
{
    for (uint32_t i = 0; i < m->tag_count; i++) {
        if (strcmp(m->tags[i].name, tag) == 0) {
            return m->tags[i].bytes;
        }
    }
    return UINT64_MAX;
}

void kvs_mock_fail_alloc(struct kvs_mock *m, uint64_t nth, int once)
{
    m->fail_alloc = (struct fault){nth, once, KVS_ENOMEM};
    m->fired = 0;
}
