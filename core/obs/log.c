/* SPDX-License-Identifier: MIT
 *
 * Formatting and levels; see log.h. The component table only grows and is read without a lock. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "obs/log.h"

#define COMPONENT_MAX      64u
#define COMPONENT_NAME_MAX 48u

struct component {
    char name[COMPONENT_NAME_MAX];
    uint32_t level;
    uint32_t own; /* set for this component, not by "all" */
};

static struct component components[COMPONENT_MAX];
static atomic_uint component_count;
static pthread_mutex_t components_lock = PTHREAD_MUTEX_INITIALIZER; /* writers only */
static uint32_t level_all = KVS_LOG_INFO;
static enum kvs__log_format format_now = KVS__LOG_LOGFMT;

static const char *const LEVELS[] = {"error", "warn", "info", "debug"};

void kvs__log_format_set(enum kvs__log_format format)
{
    if (format == KVS__LOG_AUTO) {
        format = isatty(STDERR_FILENO) ? KVS__LOG_HUMAN : KVS__LOG_LOGFMT;
    }
    format_now = format;
}

static struct component *component_find(const char *name)
{
    uint32_t n = atomic_load_explicit(&component_count, memory_order_acquire);

    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(components[i].name, name) == 0) {
            return &components[i];
        }
    }
    return NULL;
}

static struct component *component_get(const char *name)
{
    struct component *c = component_find(name);
    uint32_t n;

    if (c != NULL) {
        return c;
    }
    (void)pthread_mutex_lock(&components_lock);
    c = component_find(name);
    if (c == NULL) {
        n = atomic_load_explicit(&component_count, memory_order_relaxed);
        c = &components[n < COMPONENT_MAX ? n : COMPONENT_MAX - 1];
        if (n < COMPONENT_MAX) {
            (void)snprintf(c->name, sizeof c->name, "%s", name);
            c->level = level_all;
            atomic_store_explicit(&component_count, n + 1, memory_order_release);
        }
    }
    (void)pthread_mutex_unlock(&components_lock);
    return c;
}

const uint32_t *kvs__log_level(const char *component)
{
    return &component_get(component)->level;
}

void kvs__log_level_set_all(uint32_t level)
{
    uint32_t n;

    (void)pthread_mutex_lock(&components_lock);
    level_all = level;
    n = atomic_load_explicit(&component_count, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        if (!components[i].own) {
            __atomic_store_n(&components[i].level, level, __ATOMIC_RELAXED);
        }
    }
    (void)pthread_mutex_unlock(&components_lock);
}

void kvs__log_level_set(const char *component, uint32_t level)
{
    struct component *c = component_get(component);

    c->own = 1;
    __atomic_store_n(&c->level, level, __ATOMIC_RELAXED);
}

/* ---- one line -------------------------------------------------------------------------------- */

struct line {
    char text[KVS__LOG_LINE_MAX];
    size_t len;
};

static void put(struct line *l, const char *text, size_t n)
{
    size_t room = sizeof l->text - 5 - l->len; /* "..." and the newline always fit */

    if (n > room) {
        n = room;
    }
    memcpy(l->text + l->len, text, n);
    l->len += n;
}

static void put_str(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

static void put_json(struct line *l, const char *text, size_t n)
{
    put(l, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        char esc[8];

        if (c == '"' || c == '\\') {
            esc[0] = '\\';
            esc[1] = (char)c;
            put(l, esc, 2);
        } else if (c < 0x20 || c >= 0x7f) {
            (void)snprintf(esc, sizeof esc, "\\u%04x", c);
            put(l, esc, 6);
        } else {
            put(l, (const char *)&text[i], 1);
        }
    }
    put(l, "\"", 1);
}

static int is_number(const char *text, size_t n)
{
    size_t i = n > 0 && text[0] == '-' ? 1 : 0;

    if (i == n || n > 18 || (text[i] == '0' && n > i + 1)) {
        return 0;
    }
    while (i < n && text[i] >= '0' && text[i] <= '9') {
        i++;
    }
    return i == n;
}

/* Turn "a=1 b='two words'" into JSON members. */
static void put_members(struct line *l, const char *p)
{
    while (*p != '\0') {
        const char *key = p, *value;
        size_t key_len, value_len;

        p += strcspn(p, "= ");
        key_len = (size_t)(p - key);
        value = *p == '=' ? p + 1 : p;
        if (*value == '\'' && *p == '=') {
            value++;
            value_len = strcspn(value, "'");
            p = value + value_len + (value[value_len] == '\'');
        } else {
            value_len = strcspn(value, " ");
            p = value + value_len;
        }
        p += strspn(p, " ");
        put_str(l, ",");
        put_json(l, key, key_len);
        put_str(l, ":");
        if (is_number(value, value_len)) {
            put(l, value, value_len);
        } else {
            put_json(l, value, value_len);
        }
    }
}

static void put_time(struct line *l, int date)
{
    struct timespec now;
    struct tm tm;
    char text[48];

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (date) {
        (void)gmtime_r(&now.tv_sec, &tm);
    } else {
        (void)localtime_r(&now.tv_sec, &tm);
    }
    (void)strftime(text, sizeof text, date ? "%Y-%m-%dT%H:%M:%S" : "%H:%M:%S", &tm);
    put_str(l, text);
    (void)snprintf(text, sizeof text, ".%03ld%s", now.tv_nsec / 1000000, date ? "Z" : "");
    put_str(l, text);
}

static void compose_human(struct line *l, uint32_t level, const char *component, const char *event,
                          const char *pairs)
{
    static const char *const COLOURS[] = {"\033[31m", "\033[33m", "\033[32m", "\033[90m"};
    char text[160];

    put_time(l, 0);
    (void)snprintf(text, sizeof text, " %s%-5s\033[0m %-20s \033[1m%s\033[0m", COLOURS[level],
                   LEVELS[level], component, event);
    put_str(l, text);
    if (pairs[0] != '\0') {
        put_str(l, "  ");
        put_str(l, pairs);
    }
}

static void compose(struct line *l, uint32_t level, const char *component, const char *event,
                    const char *pairs)
{
    if (format_now == KVS__LOG_HUMAN) {
        compose_human(l, level, component, event, pairs);
    } else if (format_now == KVS__LOG_JSON) {
        put_str(l, "{\"time\":\"");
        put_time(l, 1);
        put_str(l, "\",\"level\":\"");
        put_str(l, LEVELS[level]);
        put_str(l, "\",\"component\":");
        put_json(l, component, strlen(component));
        put_str(l, ",\"event\":");
        put_json(l, event, strlen(event));
        put_members(l, pairs);
        put_str(l, "}");
    } else {
        put_str(l, "time=");
        put_time(l, 1);
        put_str(l, " level=");
        put_str(l, LEVELS[level]);
        put_str(l, " component=");
        put_str(l, component);
        put_str(l, " event=");
        put_str(l, event);
        if (pairs[0] != '\0') {
            put_str(l, " ");
            put_str(l, pairs);
        }
    }
}

KVS_PRINTF(4, 0)
void kvs__log_v(uint32_t level, const char *component, const char *event, const char *fmt,
                va_list args)
{
    struct line l;
    char pairs[KVS__LOG_LINE_MAX];

    level = level > KVS_LOG_DEBUG ? KVS_LOG_DEBUG : level;
    if (vsnprintf(pairs, sizeof pairs, fmt, args) < 0) {
        pairs[0] = '\0';
    }
    for (char *p = pairs; *p != '\0'; p++) {
        if (*p == '\n' || *p == '\r') {
            *p = ' '; /* one event, one line */
        }
    }
    l.len = 0;
    compose(&l, level, component, event, pairs);
    if (l.len + 5 >= sizeof l.text) {
        memcpy(l.text + l.len, "...", 3);
        l.len += 3;
    }
    l.text[l.len++] = '\n';
    if (write(STDERR_FILENO, l.text, l.len) < 0) {
        return; /* nowhere left to complain */
    }
}

void kvs__log(uint32_t level, const char *component, const char *event, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    kvs__log_v(level, component, event, fmt, args);
    va_end(args);
}
