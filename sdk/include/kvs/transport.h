/* SPDX-License-Identifier: MIT
 *
 * Kind `transport`: listens, turns wire requests into struct kvs_request, sends the answers, and
 * calls peers. It knows no service: host->route and host->dispatch find the method.
 *
 * One listener per loop (SO_REUSEPORT), opened in start, so that a request is handled by the loop
 * that accepted it. */
#ifndef KVS_TRANSPORT_H
#define KVS_TRANSPORT_H

#include "kvs/method.h"
#include "kvs/plugin.h"

#define KVS_TRANSPORT_CAP_CALL   1u /* call() exists */
#define KVS_TRANSPORT_CAP_STREAM 2u /* reserved for streams between peers */

struct kvs_transport_ops {
    uint32_t size;
    uint32_t reserved;
    /* The i-th address it listens on after start, as "http://127.0.0.1:9200" in buf; returns its
     * length, 0 if there is no i-th. For the ready line and endpoints.json. */
    size_t (*endpoint)(void *self, uint32_t i, char *buf, size_t buf_size);
    /* Shutdown, first step: accept no more connections, let what is under way finish, answer later
     * requests on open connections with 503 and Connection: close. Main thread; returns at once. */
    void (*drain)(void *self);
    /* Call a method on a peer; as host->call. NULL without KVS_TRANSPORT_CAP_CALL. */
    int (*call)(void *self, struct kvs_call *call, struct kvs_error *err);
    /* --- end of 1.0 --- */
};

#endif
