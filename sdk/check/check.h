/* SPDX-License-Identifier: MIT
 *
 * kvs-plugin-check: what its files share. README.md has the design.
 *
 *   main.c        command line, order of the suites
 *   run.c         one check in a process of its own, and the line about it
 *   descriptor.c  the file and its descriptor; elf.c its symbols
 *   options.c     from an option table to a filled structure
 *   world.c       a host for one check, with the plugin's neighbours; live.c adds threads, sockets
 *                 and a directory; stand_in.c is a consensus plugin for services
 *   <kind>.c      the contract of that kind; methods.c the method tables of services */
#ifndef KVS_CHECK_H
#define KVS_CHECK_H

#include "kvs/mock.h"
#include "kvs/plugin.h"

#define CHECK_NEIGHBOUR_MAX 16u
#define CHECK_SET_MAX       64u

/* One check: `run` returns, or ends the process by check_fail or check_skip. */
struct check_case {
    const char *name; /* what holds if it passes */
    void (*run)(void);
};

/* What is being checked. Set by main, constant during a check. */
struct check_target {
    const char *path;
    const struct kvs_plugin *plugin;
    const char *sets[CHECK_SET_MAX]; /* "listen=127.0.0.1:0" */
    uint32_t set_count;
    const struct kvs_plugin *with[CHECK_NEIGHBOUR_MAX];
    uint32_t with_count;
};

extern struct check_target check;

/* ---- saying what is wrong ----------------------------------------------------------------------
 */

KVS_NORETURN void check_fail(const char *file, int line, const char *fmt, ...) KVS_PRINTF(3, 4);
KVS_NORETURN void check_skip(const char *fmt, ...) KVS_PRINTF(1, 2);

/* A sentence of the contract, broken if cond is false. */
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            check_fail(__FILE__, __LINE__, __VA_ARGS__);                                           \
        }                                                                                          \
    } while (0)

/* `what` returns code. */
#define CHECK_CODE(rc, code, what)                                                                 \
    do {                                                                                           \
        int check_rc_ = (rc);                                                                      \
        CHECK(check_rc_ == (code), "%s returns %s, not %s", what, check_code(check_rc_),           \
              check_code(code));                                                                   \
    } while (0)

/* "0" or "KVS_EIO". */
const char *check_code(int rc);

/* ---- run.c -------------------------------------------------------------------------------------
 */

struct check_counts {
    uint32_t passed, failed, skipped;
};

/* Run one check in a child, print its line, count it. Returns 1 if it did not fail. */
int check_run(const struct check_case *c, const char *group, struct check_counts *counts);
/* Up to the row whose name is NULL; those whose name holds `only` (NULL: all). */
void check_run_all(const struct check_case *cases, const char *group, const char *only,
                   struct check_counts *counts);

/* A directory of the running check's own; removed after it. */
extern char check_dir[64];

/* ---- descriptor.c, elf.c, options.c ------------------------------------------------------------
 */

extern const char *const check_kind_names[KVS_KIND_COUNT + 1]; /* ends with NULL */

extern const struct check_case check_file_cases[];       /* before the file is loaded here */
extern const struct check_case check_descriptor_cases[]; /* check.plugin is set */

/* The descriptor of a file, or NULL with the reason in err. */
const struct kvs_plugin *check_open(const char *path, struct kvs_error *err);

/* Names of the defined dynamic symbols of an ELF file, without those that begin with '_'. Calls fn
 * for each; KVS_EINVAL if the file cannot be read as ELF. */
int check_symbols(const char *path, void (*fn)(void *arg, const char *name), void *arg);

/* The plugin's configuration: defaults, then sets[set_count]. Zeroed memory of conf_size bytes
 * (NULL if that is 0); never freed, the child ends. Fails the check if it cannot be. */
void *check_conf(const struct kvs_plugin *plugin, const char *const *sets, uint32_t set_count);
/* Set one field; NULL, or what is wrong with the text. */
const char *check_option_set(const struct kvs_opt *opt, const char *text, void *conf);
void check_options_sane(void);
const struct kvs_opt *check_option(const struct kvs_plugin *plugin, const char *name);

/* ---- world.c, live.c, stand_in.c ---------------------------------------------------------------
 */

struct world {
    struct kvs_mock *mock;
    const struct kvs_host *host;
    void *self; /* the plugin's, after world_init */
    void *with_self[CHECK_NEIGHBOUR_MAX];
    uint32_t with_inited, with_started, started;
    uint32_t live;
};

/* A fake host with the neighbours of --with inited; live != 0: real clock, threads may post,
 * descriptors can be watched, data_dir exists. */
void world_open(struct world *w, uint64_t seed, uint32_t loop_count, int live);
/* init of the plugin, which must succeed. */
void world_init(struct world *w, const void *conf);
/* Start the neighbours, then the plugin: all must succeed. */
void world_start(struct world *w);
/* Stop what was started, run loops dry, fini what was inited; nothing may be left. */
void world_close(struct world *w);

/* Everything that is ready on a live world, waiting at most ms. */
void live_pump(struct kvs_mock *m, uint32_t ms);
/* Pump until *flag is nonzero; 0 if ms went by first. */
int live_wait(struct kvs_mock *m, const volatile int *flag, uint32_t ms);
const struct kvs_host *live_open(struct kvs_mock *m);
void live_close(void);
/* For what other threads may touch too. */
void live_lock(void);
void live_unlock(void);
/* Called for host->route and host->dispatch. */
extern int (*live_route)(struct kvs_request *req);
extern void (*live_dispatch)(struct kvs_request *req);

/* A consensus plugin of one voter without a log, for services that need one. */
extern const struct kvs_plugin stand_in_consensus;

/* ---- suites ------------------------------------------------------------------------------------
 */

extern const struct check_case check_compression_cases[], check_index_cases[],
    check_persistence_cases[], check_service_cases[], check_transport_cases[],
    check_consensus_cases[];

void check_methods(void);
void check_schemas(void);

/* Checks every kind has: init and fini, with failing allocations, several instances. */
void check_life(void);
void check_life_out_of_memory(void);
void check_life_two_instances(void);

/* A sequence that depends on the seed only. */
uint64_t check_random(uint64_t *seed);
/* malloc that ends the check if there is none. */
void *check_alloc(size_t size);

#endif
