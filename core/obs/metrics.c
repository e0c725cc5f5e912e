/* SPDX-License-Identifier: MIT
 *
 * Series and their text; see metrics.h. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "obs/metrics.h"

#define BUCKETS    20u
#define CELL_WORDS 24u /* count, sum, BUCKETS: rounded up to whole cache lines */

static const double SECONDS_LE[BUCKETS] = {1e-6,   2.5e-6, 5e-6, 1e-5,   2.5e-5, 5e-5, 1e-4,
                                           2.5e-4, 5e-4,   1e-3, 2.5e-3, 5e-3,   1e-2, 2.5e-2,
                                           5e-2,   0.1,    0.5,  1,      10,     60};

struct cell {
    _Alignas(64) _Atomic int64_t word[CELL_WORDS]; /* [0] value or count, [1] sum, then buckets */
};

struct kvs_metric_ref {
    struct kvs_metric_ref *next;
    const struct kvs_metric *def;
    char *labels;
    struct cell *cells; /* [KVS__METRIC_SLOTS] */
};

static struct kvs_metric_ref *series; /* guarded by: series_lock */
static pthread_mutex_t series_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint next_slot;
static _Thread_local uint32_t slot_plus_one;

static uint32_t slot(void)
{
    if (KVS_UNLIKELY(slot_plus_one == 0)) {
        slot_plus_one =
            atomic_fetch_add_explicit(&next_slot, 1, memory_order_relaxed) % KVS__METRIC_SLOTS + 1;
    }
    return slot_plus_one - 1;
}

static uint64_t bucket_limit(const struct kvs_metric *def, uint32_t i)
{
    if (strcmp(def->unit, "seconds") == 0) {
        return (uint64_t)(SECONDS_LE[i] * 1e9 + 0.5);
    }
    return 64ULL << i;
}

struct kvs_metric_ref *kvs__metric(const struct kvs_metric *def, const char *labels)
{
    struct kvs_metric_ref *ref;

    (void)pthread_mutex_lock(&series_lock);
    for (ref = series; ref != NULL; ref = ref->next) {
        if (ref->def == def && strcmp(ref->labels, labels) == 0) {
            goto out;
        }
    }
    ref = calloc(1, sizeof *ref);
    if (ref == NULL) {
        goto out;
    }
    ref->def = def;
    ref->labels = strdup(labels);
    ref->cells = aligned_alloc(64, KVS__METRIC_SLOTS * sizeof *ref->cells);
    if (ref->labels == NULL || ref->cells == NULL) {
        free(ref->labels);
        free(ref->cells);
        free(ref);
        ref = NULL;
        goto out;
    }
    memset(ref->cells, 0, KVS__METRIC_SLOTS * sizeof *ref->cells);
    ref->next = series;
    series = ref;
out:
    (void)pthread_mutex_unlock(&series_lock);
    return ref;
}

static void word_add(struct kvs_metric_ref *ref, uint32_t word, int64_t delta)
{
    (void)atomic_fetch_add_explicit(&ref->cells[slot()].word[word], delta, memory_order_relaxed);
}

void kvs__metric_add(struct kvs_metric_ref *ref, int64_t delta)
{
    if (ref != NULL) {
        word_add(ref, 0, delta);
    }
}

void kvs__metric_set(struct kvs_metric_ref *ref, int64_t value)
{
    if (ref != NULL) {
        atomic_store_explicit(&ref->cells[0].word[0], value, memory_order_relaxed);
    }
}

void kvs__metric_observe(struct kvs_metric_ref *ref, uint64_t value)
{
    uint32_t i = 0;

    if (ref == NULL) {
        return;
    }
    while (i < BUCKETS && value > bucket_limit(ref->def, i)) {
        i++;
    }
    word_add(ref, 0, 1);
    word_add(ref, 1, (int64_t)value);
    if (i < BUCKETS) {
        word_add(ref, 2 + i, 1);
    }
}

void kvs__metric_free(struct kvs_metric_ref *ref)
{
    if (ref == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&series_lock);
    for (struct kvs_metric_ref **at = &series; *at != NULL; at = &(*at)->next) {
        if (*at == ref) {
            *at = ref->next;
            break;
        }
    }
    (void)pthread_mutex_unlock(&series_lock);
    free(ref->labels);
    free(ref->cells);
    free(ref);
}

void kvs__metrics_fini(void)
{
    while (series != NULL) {
        kvs__metric_free(series);
    }
}

/* ---- text ------------------------------------------------------------------------------------ */

static int64_t sum_word(const struct kvs_metric_ref *ref, uint32_t word)
{
    int64_t sum = 0;

    for (uint32_t i = 0; i < KVS__METRIC_SLOTS; i++) {
        sum += atomic_load_explicit(&ref->cells[i].word[word], memory_order_relaxed);
    }
    return sum;
}

static void render_head(struct kvs_buf *b, const char *name, const char *type, const char *help)
{
    kvs_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_histogram(struct kvs_buf *b, const struct kvs_metric_ref *ref)
{
    const char *name = ref->def->name, *labels = ref->labels;
    const char *comma = labels[0] == '\0' ? "" : ",";
    int in_seconds = strcmp(ref->def->unit, "seconds") == 0;
    int64_t running = 0;

    for (uint32_t i = 0; i < BUCKETS; i++) {
        running += sum_word(ref, 2 + i);
        if (in_seconds) {
            kvs_buf_printf(b, "%s_bucket{%s%sle=\"%g\"} %" PRId64 "\n", name, labels, comma,
                           SECONDS_LE[i], running);
        } else {
            kvs_buf_printf(b, "%s_bucket{%s%sle=\"%" PRIu64 "\"} %" PRId64 "\n", name, labels,
                           comma, bucket_limit(ref->def, i), running);
        }
    }
    kvs_buf_printf(b, "%s_bucket{%s%sle=\"+Inf\"} %" PRId64 "\n", name, labels, comma,
                   sum_word(ref, 0));
    if (in_seconds) {
        kvs_buf_printf(b, "%s_sum{%s} %.9f\n", name, labels, (double)sum_word(ref, 1) / 1e9);
    } else {
        kvs_buf_printf(b, "%s_sum{%s} %" PRId64 "\n", name, labels, sum_word(ref, 1));
    }
    kvs_buf_printf(b, "%s_count{%s} %" PRId64 "\n", name, labels, sum_word(ref, 0));
}

static void render_series(struct kvs_buf *b, const struct kvs_metric_ref *ref)
{
    if (ref->def->type == KVS_METRIC_HISTOGRAM) {
        render_histogram(b, ref);
    } else if (ref->labels[0] == '\0') {
        kvs_buf_printf(b, "%s %" PRId64 "\n", ref->def->name, sum_word(ref, 0));
    } else {
        kvs_buf_printf(b, "%s{%s} %" PRId64 "\n", ref->def->name, ref->labels, sum_word(ref, 0));
    }
}

/* All series of one name stand together under one head, as the format wants. */
static void render_all(struct kvs_buf *b)
{
    static const char *const TYPES[] = {"untyped", "counter", "gauge", "histogram"};

    for (const struct kvs_metric_ref *ref = series; ref != NULL; ref = ref->next) {
        const struct kvs_metric_ref *before = series;

        while (before != ref && strcmp(before->def->name, ref->def->name) != 0) {
            before = before->next;
        }
        if (before != ref) {
            continue; /* shown with the first of its name */
        }
        render_head(b, ref->def->name, TYPES[ref->def->type & 3], ref->def->help);
        for (const struct kvs_metric_ref *same = ref; same != NULL; same = same->next) {
            if (strcmp(same->def->name, ref->def->name) == 0) {
                render_series(b, same);
            }
        }
    }
}

static void render_memory(void *arg, const char *name, int64_t bytes)
{
    kvs_buf_printf(arg, "kvs_memory_bytes{tag=\"%s\"} %" PRId64 "\n", name, bytes);
}

static void render_process(struct kvs_buf *b)
{
    struct rusage usage;
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0;

    if (f != NULL) {
        if (fscanf(f, "%*d %ld", &pages) != 1) {
            pages = 0;
        }
        (void)fclose(f);
    }
    (void)getrusage(RUSAGE_SELF, &usage);
    render_head(b, "process_resident_memory_bytes", "gauge", "Memory the process holds.");
    kvs_buf_printf(b, "process_resident_memory_bytes %ld\n", pages * sysconf(_SC_PAGESIZE));
    render_head(b, "process_cpu_seconds_total", "counter", "Processor time used, user and system.");
    kvs_buf_printf(b, "process_cpu_seconds_total %.3f\n",
                   (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

void kvs__metrics_render(struct kvs_buf *b)
{
    (void)pthread_mutex_lock(&series_lock);
    render_all(b);
    (void)pthread_mutex_unlock(&series_lock);
    render_head(b, "kvs_memory_bytes", "gauge", "Bytes held under each named account.");
    kvs__mem_each(render_memory, b);
    render_process(b);
}
