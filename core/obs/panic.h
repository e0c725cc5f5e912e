/* SPDX-License-Identifier: MIT
 *
 * The end of a process with a bug: expression, place, thread, stack, build, then abort. */
#ifndef KVS_CORE_PANIC_H
#define KVS_CORE_PANIC_H

#include "kvs/base.h"

void kvs__panic(const char *file, int line, const char *what) KVS_NORETURN;
/* Report SIGSEGV, SIGBUS, SIGFPE and SIGILL the same way. Main thread, once. */
void kvs__panic_install(void);
/* The build id of the executable as hex text, "" if there is none. Static. */
const char *kvs__build_id(void);

#define KVS__ASSERT(cond)                                                                          \
    do {                                                                                           \
        if (KVS_UNLIKELY(!(cond))) {                                                               \
            kvs__panic(__FILE__, __LINE__, #cond);                                                 \
        }                                                                                          \
    } while (0)

#endif
