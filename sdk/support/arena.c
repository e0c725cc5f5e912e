/* SPDX-License-Identifier: MIT
 *
 * Request-scoped memory: bump allocation in chunks that double, freed together; see kvs/method.h.
 */
#include <stdarg.h>
#include <stdio.h>

#include "kvs/method.h"

#define CHUNK_MIN 2048u
#define CHUNK_MAX (1u << 20)
#define ALIGN     16u

static const struct kvs_mem_tag tag = {"request.arena"};

struct chunk {
    struct chunk *next;
    size_t size; /* bytes, this head included */
};

KVS_STATIC_ASSERT(sizeof(struct chunk) % ALIGN == 0, "chunk data stays aligned");

void kvs_arena_init(struct kvs_arena *arena, const struct kvs_host *host, void *first, size_t size)
{
    arena->host = host;
    arena->pos = first;
    arena->end = first == NULL ? NULL : (char *)first + size;
    arena->chunks = NULL;
}

void kvs_arena_fini(struct kvs_arena *arena)
{
    struct chunk *c = arena->chunks;

    while (c != NULL) {
        struct chunk *next = c->next;

        kvs_free(arena->host, &tag, c, c->size);
        c = next;
    }
    arena->chunks = NULL;
    arena->pos = NULL;
    arena->end = NULL;
}

static int arena_grow(struct kvs_arena *arena, size_t n)
{
    const struct chunk *last = arena->chunks;
    size_t size = last == NULL ? CHUNK_MIN : last->size * 2;
    struct chunk *c;

    size = size > CHUNK_MAX ? CHUNK_MAX : size;
    if (size < n + sizeof *c) {
        size = n + sizeof *c;
    }
    c = kvs_alloc(arena->host, &tag, size);
    if (c == NULL) {
        return 0;
    }
    c->next = arena->chunks;
    c->size = size;
    arena->chunks = c;
    arena->pos = (char *)(c + 1);
    arena->end = (char *)c + size;
    return 1;
}

void *kvs_arena_alloc(struct kvs_arena *arena, size_t n)
{
    uintptr_t gap = (ALIGN - ((uintptr_t)arena->pos & (ALIGN - 1))) & (ALIGN - 1);
    char *p;

    if (n > SIZE_MAX / 2) {
        return NULL;
    }
    if (arena->pos == NULL || (size_t)(arena->end - arena->pos) < n + gap) {
        if (!arena_grow(arena, n)) {
            return NULL;
        }
        gap = 0;
    }
    p = arena->pos + gap;
    arena->pos = p + n;
    return p;
}

char *kvs_arena_strdup(struct kvs_arena *arena, struct kvs_slice s)
{
    char *p = kvs_arena_alloc(arena, s.len + 1);

    if (p != NULL) {
        if (s.len > 0) {
            memcpy(p, s.ptr, s.len);
        }
        p[s.len] = '\0';
    }
    return p;
}

char *kvs_arena_printf(struct kvs_arena *arena, const char *fmt, ...)
{
    va_list args;
    char *p;
    int n;

    va_start(args, fmt);
    n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    p = n < 0 ? NULL : kvs_arena_alloc(arena, (size_t)n + 1);
    if (p != NULL) {
        va_start(args, fmt);
        (void)vsnprintf(p, (size_t)n + 1, fmt, args);
        va_end(args);
    }
    return p;
}
