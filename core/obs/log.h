/* SPDX-License-Identifier: MIT
 *
 * The log: one line per event, written with one write(2) to standard error.
 *
 *   human   12:34:56.789 info  service.storage  recovered  items=12 ms=34       (on a terminal)
 *   logfmt  time=2026-11-24T12:34:56.789Z level=info component=service.storage event=recovered
 * items=12 json
 * {"time":"..","level":"info","component":"..","event":"recovered","items":12,"ms":34}
 *
 * Levels are kept per component and can change at any time (SIGHUP). */
#ifndef KVS_CORE_LOG_H
#define KVS_CORE_LOG_H

#include <stdarg.h>

#include "kvs/host.h"

enum kvs__log_format {
    KVS__LOG_AUTO = 0,
    KVS__LOG_HUMAN = 1,
    KVS__LOG_LOGFMT = 2,
    KVS__LOG_JSON = 3
};

#define KVS__LOG_LINE_MAX 4096 /* bytes; longer lines are cut with "..." */

/* Before any other thread exists. */
void kvs__log_format_set(enum kvs__log_format format);

/* A component's threshold; the same name gives the same pointer, valid for the life of the process.
 * Any thread. */
const uint32_t *kvs__log_level(const char *component);
/* Level of all components that have none of their own, and of one component. */
void kvs__log_level_set_all(uint32_t level);
void kvs__log_level_set(const char *component, uint32_t level);

/* fmt: key=value pairs separated by blanks; values with blanks in single quotes. Any thread. */
void kvs__log(uint32_t level, const char *component, const char *event, const char *fmt, ...)
    KVS_PRINTF(4, 5);
void kvs__log_v(uint32_t level, const char *component, const char *event, const char *fmt,
                va_list args);

#define KVS__LOG(level, component, event, ...)                                                     \
    do {                                                                                           \
        if (*kvs__log_level(component) + 1u > (uint32_t)(level)) {                                 \
            kvs__log((uint32_t)(level), (component), (event), __VA_ARGS__);                        \
        }                                                                                          \
    } while (0)

#endif
