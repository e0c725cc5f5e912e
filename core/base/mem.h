/* SPDX-License-Identifier: MIT
 *
 * Memory with named accounts: what host->alloc does.
 *
 * Each thread counts for itself, so that an allocation costs no shared cache line; readers add the
 * threads up. Sizes come back at free, so there are no headers. KVS_FAULT_ALLOC=n in the
 * environment makes the n-th allocation fail (tests). */
#ifndef KVS_CORE_MEM_H
#define KVS_CORE_MEM_H

#include "kvs/host.h"

void *kvs__mem_alloc(const struct kvs_mem_tag *tag, size_t size);
void *kvs__mem_realloc(const struct kvs_mem_tag *tag, void *ptr, size_t old_size, size_t new_size);
void kvs__mem_free(const struct kvs_mem_tag *tag, void *ptr, size_t size);

/* A host table with the memory calls only, for the core's own buffers. */
const struct kvs_host *kvs__mem_host(void);
extern const struct kvs_mem_tag kvs__mem_core; /* the core's account */

/* Calls fn for every account in use: bytes held now. Any thread; figures of running threads may be
 * a moment old. */
void kvs__mem_each(void (*fn)(void *arg, const char *name, int64_t bytes), void *arg);

#endif
