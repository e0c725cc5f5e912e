/* SPDX-License-Identifier: MIT
 *
 * A fake host for unit tests of plugins (libkvs-mock.a): one thread, fake clock, seeded random,
 * memory disk, faults. The same seed and the same calls give the same run, byte for byte.
 *
 *   struct kvs_mock *m = kvs_mock_new(&(struct kvs_mock_conf){.seed = 1, .loop_count = 2});
 *   const struct kvs_host *host = kvs_mock_host(m);
 *   ... plugin->init(host, conf, &self, &err) ...
 *   kvs_mock_run(m, 1000);          runs tasks, timers and queues for 1,000 ms of fake time
 *   kvs_mock_crash(m, 7);           power cut: unsynced bytes survive, vanish or are garbled, by
 *                                   seed
 *   kvs_mock_free(m);               aborts the test if tagged memory, a timer, a queue or an open
 *                                   file is left
 *
 * A use that kvsd would answer with a race, a deadlock or a crash (a timer stopped from another
 * loop, run_on from a loop, a request completed twice, a size at free that is not the one at alloc)
 * aborts the test with a sentence. Differences to kvsd: sdk/mock/README.md.
 *
 * Queues (host->queue_submit) run their work as events on the same thread, in order per queue;
 * posted tasks of one loop run in order; deferred tasks run when the loop's round ends.
 * loop_current is the loop whose event runs; between events it is what kvs_mock_enter set
 * (KVS_LOOP_NONE at first). */
#ifndef KVS_MOCK_H
#define KVS_MOCK_H

#include "kvs/host.h"
#include "kvs/method.h"
#include "kvs/plugin.h"

struct kvs_mock;

struct kvs_mock_conf {
    uint64_t seed;
    uint32_t loop_count; /* 0: 1 */
    uint32_t log_level;  /* enum kvs_log_level; lines go to stderr if KVS_MOCK_LOG is in the
                            environment */
    uint64_t start_ms;   /* wall clock at start; 0: 1700000000000 */
    const char *node_id; /* NULL: "mock-1" */
};

struct kvs_mock *kvs_mock_new(const struct kvs_mock_conf *conf);
void kvs_mock_free(struct kvs_mock *m);
const struct kvs_host *kvs_mock_host(struct kvs_mock *m);

/* Be on that loop's thread (KVS_LOOP_NONE: on none) until the next call. */
void kvs_mock_enter(struct kvs_mock *m, uint32_t loop);
/* Run everything that is due within the next `ms` of fake time; 0: only what needs no time to pass.
 * Returns how many events ran. */
uint64_t kvs_mock_run(struct kvs_mock *m, uint64_t ms);
/* Run until *flag is nonzero; aborts the test if nothing is left to run first. */
void kvs_mock_run_until(struct kvs_mock *m, const int *flag);
/* Move the wall clock only (a jump). */
void kvs_mock_wall_jump(struct kvs_mock *m, int64_t ms);

/* Another plugin, found by host->find and host->each. */
void kvs_mock_add(struct kvs_mock *m, uint32_t kind, const char *name, const void *ops, void *self);
/* Answer host->call to `method` (peer NULL): fill call->status and call->reply (static bytes). */
void kvs_mock_on_call(struct kvs_mock *m, const char *method,
                      void (*fn)(void *arg, struct kvs_call *call), void *arg);

/* Make a request to a method of a service, as a transport would, on loop 0: parameters as name,
 * value pairs ending with NULL. Parameters and body are checked as kvsd checks them (a refusal is
 * an answer, the handler is not called). Runs the mock until it completes. The result is a copy,
 * valid until the next one: the request's memory and body are given back already. */
struct kvs_mock_answer {
    uint32_t status;
    const char *content_type;
    struct kvs_slice body;
    const struct kvs_header *headers; /* [header_count] */
    uint32_t header_count;
};
const struct kvs_mock_answer *kvs_mock_request(struct kvs_mock *m, const struct kvs_method *method,
                                               void *service, const char *const *params,
                                               struct kvs_slice body, const char *content_type);

/* Faults. Countdowns: 1 is the next one; 0 disarms. `once` 0: all from there on fail.
 * Each returns nothing; kvs_mock_fault_fired tells whether the armed fault has happened.
 * Allocations are those of the host table: memory, timers, queues, metrics. */
void kvs_mock_fail_alloc(struct kvs_mock *m, uint64_t nth, int once);
void kvs_mock_fail_io(struct kvs_mock *m, uint64_t nth, int once, int code); /* any fs call */
void kvs_mock_fail_sync(struct kvs_mock *m, uint64_t nth, int once);
void kvs_mock_disk_limit(struct kvs_mock *m, uint64_t bytes); /* 0: none; beyond: KVS_ENOSPC */
void kvs_mock_fail_point(struct kvs_mock *m, const char *point, int code); /* host->fault */
int kvs_mock_fault_fired(struct kvs_mock *m);

/* Disk. crash: forget what was not synced, each unsynced 512-byte sector kept, dropped or garbled
 * by seed; renames and new names not followed by sync_dir may be undone, names in a directory that
 * is lost are lost. The mock's tasks, timers and queues are dropped too, as in a dead process;
 * tagged memory is forgotten, faults are disarmed (the disk limit stays). Not from inside an
 * event. */
void kvs_mock_crash(struct kvs_mock *m, uint64_t seed);
/* Bytes of a file, for tests that damage it: pointer into the memory disk, valid until the next fs
 * call, or NULL if there is no such file. Damage survives a crash. */
uint8_t *kvs_mock_file(struct kvs_mock *m, const char *path, size_t *ret_len);
/* Names of all files, sorted, ends with NULL; valid until the next fs call. */
const char *const *kvs_mock_files(struct kvs_mock *m);

/* Bytes held under a tag name now; (uint64_t)-1 if the tag was never used. */
uint64_t kvs_mock_memory(struct kvs_mock *m, const char *tag);
/* Value of a metric (sum over labels), 0 if never used. */
int64_t kvs_mock_metric(struct kvs_mock *m, const char *name);
/* Last reason given to ready_set for the condition, NULL if it is ok or was never set. */
const char *kvs_mock_not_ready(struct kvs_mock *m, const char *condition);

#endif
