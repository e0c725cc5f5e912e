/* SPDX-License-Identifier: MIT
 *
 * Kind `service`: what a server does. A service registers methods (method.h) and nothing else: it
 * knows no transport, opens no socket and no file, and takes time and randomness from the host. */
#ifndef KVS_SERVICE_H
#define KVS_SERVICE_H

#include "kvs/method.h"
#include "kvs/plugin.h"

struct kvs_service_ops {
    uint32_t size;
    uint32_t method_count;
    const struct kvs_method *methods; /* [method_count]; static */
    const struct kvs_schema *schemas; /* ends with a row whose name is NULL; may be NULL */
    /* Shutdown, first step: finish or refuse what is pending (complete every request), flush, then
     * call done(arg) from any thread, once. Loops still turn. May be NULL: nothing to flush. */
    void (*drain)(void *self, void (*done)(void *arg), void *arg);
    /* --- end of 1.0 --- */
};

#endif
