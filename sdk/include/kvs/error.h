/* SPDX-License-Identifier: MIT
 *
 * One error model for core, plugins and tools: a negative code, and a caller-owned detail.
 *
 * A function that can fail returns 0 or a negative KVS_E* and, given a struct kvs_error, fills it
 * with a sentence for the operator: lower case, no full stop, what failed first, values in single
 * quotes. On the way up each layer may prepend its part with kvs_err_wrap(). Whoever handles the
 * error logs it, once. "Not found" of a look-up is an output, not a code. */
#ifndef KVS_ERROR_H
#define KVS_ERROR_H

#include <stdarg.h>

#include "kvs/base.h"

/* name, value, text. Values are never reused; append only. */
#define KVS_CODES(X)                                                                               \
    X(EINVAL, -1, "invalid argument")                                                              \
    X(ENOMEM, -2, "out of memory")                                                                 \
    X(EIO, -3, "input/output error")                                                               \
    X(ENOSPC, -4, "no space left")                                                                 \
    X(ECORRUPT, -5, "damaged data")                                                                \
    X(ENOTFOUND, -6, "not found")                                                                  \
    X(EEXIST, -7, "exists already")                                                                \
    X(ECONFLICT, -8, "conflicts with the present state")                                           \
    X(EPRECONDITION, -9, "precondition not met")                                                   \
    X(ETOOBIG, -10, "too large")                                                                   \
    X(ETOOMANY, -11, "too many")                                                                   \
    X(ETIMEDOUT, -12, "timed out")                                                                 \
    X(ECANCELED, -13, "canceled")                                                                  \
    X(EBUSY, -14, "busy, try again")                                                               \
    X(ENOTLEADER, -15, "not the leader")                                                           \
    X(ENOREPLICAS, -16, "not enough in-sync replicas")                                             \
    X(EACCES, -17, "not permitted")                                                                \
    X(ENOTSUP, -18, "not supported")                                                               \
    X(EABI, -19, "incompatible plugin")                                                            \
    X(EFORMAT, -20, "format is newer or foreign")                                                  \
    X(ELOCKED, -21, "locked by another process")                                                   \
    X(ESTATE, -22, "not in the right state")                                                       \
    X(EADDRINUSE, -23, "address in use")                                                           \
    X(EFAILED, -24, "failed earlier and stopped for good")                                         \
    X(EREUSED, -25, "idempotency key reused with another request")

enum kvs_code {
    KVS_OK = 0,
#define KVS_CODE_ENUM(name, value, text) KVS_##name = (value),
    KVS_CODES(KVS_CODE_ENUM)
#undef KVS_CODE_ENUM
};

#define KVS_ERROR_MSG_SIZE 248

struct kvs_error {
    int32_t code;                 /* enum kvs_code; 0: nothing was reported */
    int32_t os_errno;             /* errno behind it, or 0 */
    char msg[KVS_ERROR_MSG_SIZE]; /* NUL-terminated, cut with "..." if it did not fit */
};

KVS_STATIC_ASSERT(sizeof(struct kvs_error) == 256, "ABI");

/* The functions below are in the support library (libkvs-support.a), which every plugin links
 * statically: no symbol of the core is involved. */

/* Fill *err (which may be NULL) and return code. */
int kvs_err(struct kvs_error *err, int code, const char *fmt, ...) KVS_PRINTF(3, 4);

/* The same, from errno: appends ": <strerror>" and keeps os_errno. The code follows the errno:
 * ENOSPC and EDQUOT give KVS_ENOSPC, ENOENT KVS_ENOTFOUND, EACCES and EPERM KVS_EACCES, ENOMEM
 * KVS_ENOMEM, EEXIST KVS_EEXIST, EADDRINUSE KVS_EADDRINUSE, others KVS_EIO. */
int kvs_err_os(struct kvs_error *err, int os_errno, const char *fmt, ...) KVS_PRINTF(3, 4);

/* Prepend "<context>: " to what *err says. Returns err->code, or KVS_EIO if err is NULL. */
int kvs_err_wrap(struct kvs_error *err, const char *fmt, ...) KVS_PRINTF(2, 3);

/* "KVS_EIO" and "input/output error"; for unknown codes "KVS_E?" and "unknown error". Static. */
const char *kvs_code_name(int code);
const char *kvs_code_text(int code);

#endif
