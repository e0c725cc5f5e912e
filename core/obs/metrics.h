/* SPDX-License-Identifier: MIT
 *
 * Metrics in Prometheus text format 0.0.4.
 *
 * A series is a set of cells, one per thread slot, each on cache lines of its own: adding costs one
 * relaxed load and store. Histograms have fixed buckets, 1 us to 60 s for seconds (observed in ns)
 * and 64 B to 64 MiB for bytes. */
#ifndef KVS_CORE_METRICS_H
#define KVS_CORE_METRICS_H

#include "kvs/host.h"
#include "kvs/support.h"

#define KVS__METRIC_SLOTS 16u /* threads that count without sharing; more share, atomically */

/* The same definition and labels give the same series. NULL: out of memory; the calls below accept
 * it. */
struct kvs_metric_ref *kvs__metric(const struct kvs_metric *def, const char *labels);
void kvs__metric_add(struct kvs_metric_ref *ref, int64_t delta);
void kvs__metric_set(struct kvs_metric_ref *ref, int64_t value);
void kvs__metric_observe(struct kvs_metric_ref *ref, uint64_t value);
void kvs__metric_free(struct kvs_metric_ref *ref);

/* All series, process figures and memory accounts. */
void kvs__metrics_render(struct kvs_buf *b);
void kvs__metrics_fini(void);

#endif
