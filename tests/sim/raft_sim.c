/* SPDX-License-Identifier: MIT
 *
 * The consensus library, with or without our safety shim, under any schedule.
 *
 *   raft_sim [--nodes 3|5] [--seeds FROM-TO] [--no-shim] [--must-fail] [--time MS] [-v]
 *
 * Some seconds of proposals, crashes, restarts, cut links, slow and failing disks and changes of
 * leader; then all is healed. What must hold, at every moment:
 *
 *   election safety       at most one leader in a term
 *   state machine safety  no two nodes apply different operations at one index, and after the same
 *                         number of operations all have the same state
 * and in the end:
 *   durability            every acknowledged operation was applied, exactly once
 *   liveness              every node is up and has caught up, and operations go through again
 *
 * (Ongaro, "Consensus: Bridging Theory and Practice", figure 3.2.) Each seed is a process. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim.h"

#define SETTLE_MS  12000
#define BEHIND_MAX 40 /* entries that a node may be behind in the end */
#define OPS_MAX    65536

struct proposal {
    struct raft_apply req;
    uint64_t op;
};

static struct {
    int nodes;
    uint64_t first, last;
    raft_time time;
    bool shim, must_fail, verbose;
} options = {3, 1, 100, 30000, true, false, false};

static struct node nodes[NODES_MAX + 1];
static uint64_t op_at_index[4 * OPS_MAX], state_at_count[OPS_MAX], op_at_count[OPS_MAX];
static raft_id leader_of_term[OPS_MAX];
static bool acked[OPS_MAX];
static uint64_t op_next = 1, acked_count, acked_after_heal, crash_count;
static unsigned long long rules_used[13];
static bool healed;
static bool stop_wanted[NODES_MAX + 1];

static void violation(const char *rule, const struct node *n)
{
    (void)printf("%s violated by node %d at %llu ms\n", rule, n == NULL ? 0 : (int)n->id, sim_now);
    (void)fflush(stdout);
    _exit(10);
}

struct node *node_of(raft_id id)
{
    return &nodes[id];
}

/* ---- the state machine -------------------------------------------------------------------------
 */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct node *n = fsm->data;
    raft_index index = n->raft->last_applied + 1;
    uint64_t op;

    memcpy(&op, buf->base, sizeof op);
    *result = NULL;
    if (index < 4 * OPS_MAX) {
        if (op_at_index[index] != 0 && op_at_index[index] != op) {
            violation("state machine safety (index)", n);
        }
        op_at_index[index] = op;
    }
    n->state = (n->state ^ op) * 1099511628211ull;
    n->op_count++;
    if (n->op_count < OPS_MAX) {
        if (state_at_count[n->op_count] != 0 && state_at_count[n->op_count] != n->state) {
            violation("state machine safety (state)", n);
        }
        state_at_count[n->op_count] = n->state;
        op_at_count[n->op_count] = op;
    }
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct node *n = fsm->data;
    uint64_t *bytes;

    if (options.shim && !raft_shim_snapshot_allowed(&n->shim)) {
        return RAFT_BUSY;
    }
    bytes = raft_malloc(2 * sizeof *bytes);
    *bufs = raft_malloc(sizeof **bufs);
    if (bytes == NULL || *bufs == NULL) {
        return RAFT_NOMEM;
    }
    bytes[0] = n->op_count;
    bytes[1] = n->state;
    (*bufs)[0] = (struct raft_buffer){bytes, 2 * sizeof *bytes};
    *n_bufs = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct node *n = fsm->data;
    uint64_t bytes[2];

    memcpy(bytes, buf->base, sizeof bytes);
    n->op_count = bytes[0];
    n->state = bytes[1];
    if (n->op_count < OPS_MAX && n->op_count > 0 && state_at_count[n->op_count] != n->state) {
        violation("state machine safety (snapshot)", n);
    }
    raft_free(buf->base);
    return 0;
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

static void node_start(void *arg);

static void node_crash(struct node *n)
{
    if (!n->up) {
        return;
    }
    if (options.verbose) {
        (void)printf("%llu crash of %d %s\n", sim_now, (int)n->id, options.shim ? n->shim.why : "");
    }
    crash_count++;
    for (size_t i = 0; i < sizeof n->shim.used / sizeof n->shim.used[0]; i++) {
        rules_used[i] += n->shim.used[i];
    }
    n->up = false;
    n->incarnation++;
    node_disk_crash(n);
    sim_at((raft_time)sim_range(20, 1500), NULL, node_start, n);
}

static void node_start(void *arg)
{
    struct node *n = arg;
    struct raft_configuration members;

    n->up = true;
    n->raft = sim_alloc(sizeof *n->raft);
    n->op_count = 0;
    n->state = 0;
    n->fail_percent = 0;
    n->fsm = (struct raft_fsm){.version = 2,
                               .data = n,
                               .apply = fsm_apply,
                               .snapshot = fsm_snapshot,
                               .restore = fsm_restore};
    node_io_init(n);
    if (options.shim) {
        raft_shim_init(&n->shim, n->raft, n->io);
        n->shim.message_bytes_max = 512;
    }
    if (raft_init(n->raft, n->io, &n->fsm, n->id, sim_address[n->id]) != 0) {
        exit(2);
    }
    raft_set_election_timeout(n->raft, 300);
    raft_set_heartbeat_timeout(n->raft, 30);
    raft_set_install_snapshot_timeout(n->raft, 1000);
    raft_set_snapshot_threshold(n->raft, 30);
    raft_set_snapshot_trailing(n->raft, 8);
    raft_set_pre_vote(n->raft, true);
    raft_configuration_init(&members);
    for (int i = 1; i <= options.nodes; i++) {
        (void)raft_configuration_add(&members, (raft_id)i, sim_address[i], RAFT_VOTER);
    }
    (void)raft_bootstrap(n->raft, &members);
    raft_configuration_close(&members);
    if (raft_start(n->raft) != 0) {
        violation("a restart", n);
    }
    node_stepped(n);
}

static void look_at_leader(struct node *n)
{
    raft_term term = n->raft->current_term;

    if (n->raft->state != RAFT_LEADER || term >= OPS_MAX) {
        return;
    }
    if (leader_of_term[term] != 0 && leader_of_term[term] != n->id) {
        violation("election safety", n);
    }
    leader_of_term[term] = n->id;
}

void node_stepped(struct node *n)
{
    if (!n->up) {
        return;
    }
    look_at_leader(n);
    if (options.shim) {
        raft_shim_step(&n->shim);
        stop_wanted[n->id] |= n->shim.dead;
    }
    stop_wanted[n->id] |= n->raft->state == RAFT_UNAVAILABLE;
}

/* ---- what happens ------------------------------------------------------------------------------
 */

static struct node *some_leader(void)
{
    int from = sim_range(1, options.nodes);

    for (int i = 0; i < options.nodes; i++) {
        struct node *n = &nodes[1 + (from + i) % options.nodes];

        if (n->up && n->raft->state == RAFT_LEADER) {
            return n;
        }
    }
    return NULL;
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct proposal *p = req->data;

    (void)result;
    if (status == 0) {
        acked[p->op] = true;
        acked_count++;
        acked_after_heal += healed;
    }
    free(p);
}

static void propose(void)
{
    struct node *n = some_leader();
    struct raft_buffer buf;
    struct proposal *p;

    if (n == NULL || op_next == OPS_MAX ||
        raft_shim_last_index(n->raft) - n->raft->commit_index > 8) {
        return; /* the plugin keeps few entries outstanding too */
    }
    p = sim_alloc(sizeof *p);
    p->op = op_next++;
    p->req.data = p;
    buf.len = 8;
    buf.base = raft_malloc(8);
    memcpy(buf.base, &p->op, 8);
    if (raft_apply(n->raft, &p->req, &buf, 1, on_applied) != 0) {
        raft_free(buf.base);
        free(p);
    }
    node_stepped(n);
}

static void propose_again(void *arg)
{
    propose();
    sim_at((raft_time)sim_range(1, healed ? 100 : 40), NULL, propose_again, arg);
}

static void transfer(void)
{
    struct node *n = some_leader();
    struct raft_transfer *req = sim_alloc(sizeof *req);

    if (n == NULL || raft_transfer(n->raft, req, 0, NULL) != 0) {
        free(req);
        return;
    }
    node_stepped(n);
}

static void cut(int a, int b)
{
    if (a != b) {
        net.cut[a][b] = true;
        net.cut[b][a] |= sim_chance(66); /* some cuts are one-way */
    }
}

static void trouble(void *arg)
{
    int what = sim_range(0, 11), a = sim_range(1, options.nodes), b = sim_range(1, options.nodes);
    struct node *leader = some_leader();

    if (healed) {
        return;
    }
    if (what <= 2) {
        node_crash(sim_chance(50) && leader != NULL ? leader : &nodes[a]);
    } else if (what <= 5) {
        cut(a, b);
    } else if (what == 6) {
        for (int i = 1; i <= options.nodes; i++) {
            net.cut[a][i] = net.cut[i][a] = i != a;
        }
    } else if (what == 7) {
        transfer();
    } else if (what == 8 && options.shim && nodes[a].fail_percent == 0) {
        nodes[a].fail_percent = 20; /* the library alone does not survive this */
    } else {
        memset(net.cut, 0, sizeof net.cut);
    }
    sim_at((raft_time)sim_range(50, *(const int *)arg), NULL, trouble, arg);
}

static void heal(void *arg)
{
    (void)arg;
    healed = true;
    memset(net.cut, 0, sizeof net.cut);
    net.delay_max = 5;
    net.loss_percent = 0;
    for (int i = 1; i <= options.nodes; i++) {
        nodes[i].fail_percent = nodes[i].fail_percent == 100 ? 100 : 0;
    }
}

/* ---- in the end --------------------------------------------------------------------------------
 */

static const struct node *furthest(void)
{
    const struct node *best = NULL;

    for (int i = 1; i <= options.nodes; i++) {
        if (!nodes[i].up) {
            violation("liveness (a node is down)", &nodes[i]);
        }
        if (best == NULL || nodes[i].raft->last_applied > best->raft->last_applied) {
            best = &nodes[i];
        }
    }
    return best;
}

static void look_at_end(void)
{
    static bool seen[OPS_MAX];
    const struct node *best = furthest();

    for (int i = 1; i <= options.nodes; i++) {
        if (nodes[i].raft->last_applied + BEHIND_MAX < best->raft->last_applied) {
            violation("liveness (behind)", &nodes[i]);
        }
    }
    if (acked_after_heal == 0) {
        violation("liveness (nothing goes through)", NULL);
    }
    for (uint64_t k = 1; k <= best->op_count && k < OPS_MAX; k++) {
        if (seen[op_at_count[k]]) {
            violation("durability (applied twice)", best);
        }
        seen[op_at_count[k]] = true;
    }
    for (uint64_t op = 1; op < op_next; op++) {
        if (acked[op] && !seen[op]) {
            violation("durability (acknowledged and lost)", best);
        }
    }
}

static int run_seed(uint64_t seed)
{
    int pause_max;

    sim_seed(seed);
    net.delay_max = sim_range(5, 60);
    net.loss_percent = sim_range(0, 10);
    pause_max = sim_range(150, 900);
    for (int i = 1; i <= options.nodes; i++) {
        nodes[i].id = (raft_id)i;
        node_start(&nodes[i]);
    }
    sim_at(500, NULL, propose_again, NULL);
    sim_at(800, NULL, trouble, &pause_max);
    sim_at(options.time, NULL, heal, NULL);
    while (sim_step(options.time + SETTLE_MS)) {
        for (int i = 1; i <= options.nodes; i++) {
            if (stop_wanted[i]) {
                stop_wanted[i] = false;
                node_crash(&nodes[i]);
            }
        }
    }
    look_at_end();
    if (options.verbose) {
        (void)printf("seed %llu: %llu proposed, %llu acknowledged, %llu crashes, term %llu, rules",
                     (unsigned long long)seed, (unsigned long long)op_next - 1,
                     (unsigned long long)acked_count, (unsigned long long)crash_count,
                     nodes[1].raft->current_term);
        for (size_t i = 1; i < sizeof rules_used / sizeof rules_used[0]; i++) {
            (void)printf(" %zu:%llu", i, rules_used[i]);
        }
        (void)printf("\n");
    }
    return 0;
}

/* ---- seeds -------------------------------------------------------------------------------------
 */

/* True if the seed held. */
static bool try_seed(uint64_t seed)
{
    int status = 0;
    pid_t child;

    (void)fflush(stdout);
    child = fork();
    if (child == 0) {
        (void)alarm(60);
        status = run_seed(seed);
        (void)fflush(stdout);
        _exit(status);
    }
    (void)waitpid(child, &status, 0);
    if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    }
    if (WIFSIGNALED(status)) {
        (void)printf("the library ended with signal %d\n", WTERMSIG(status));
    }
    (void)printf("  seed %llu of %d nodes: raft_sim --nodes %d --seeds %llu-%llu%s -v\n",
                 (unsigned long long)seed, options.nodes, options.nodes, (unsigned long long)seed,
                 (unsigned long long)seed, options.shim ? "" : " --no-shim");
    return false;
}

static int usage(void)
{
    (void)fputs("usage: raft_sim [--nodes 3|5] [--seeds FROM-TO] [--no-shim] [--must-fail]\n"
                "                [--time MS] [-v]\n"
                "  --no-shim    the library as it is\n"
                "  --must-fail  succeed if and only if at least one seed fails\n",
                stderr);
    return 2;
}

static int parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char *end;

        if (strcmp(argv[i], "--no-shim") == 0) {
            options.shim = false;
        } else if (strcmp(argv[i], "--must-fail") == 0) {
            options.must_fail = true;
        } else if (strcmp(argv[i], "-v") == 0) {
            options.verbose = true;
        } else if (strcmp(argv[i], "--nodes") == 0) {
            options.nodes = atoi(value);
            i++;
        } else if (strcmp(argv[i], "--time") == 0) {
            options.time = (raft_time)strtoull(value, NULL, 10);
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            options.first = options.last = strtoull(value, &end, 10);
            options.last = *end == '-' ? strtoull(end + 1, NULL, 10) : options.last;
            i++;
        } else {
            return -1;
        }
    }
    return options.nodes == 3 || options.nodes == 5 ? 0 : -1;
}

int main(int argc, char **argv)
{
    uint64_t failed = 0;

    if (parse(argc, argv) != 0) {
        return usage();
    }
    for (uint64_t seed = options.first; seed <= options.last; seed++) {
        failed += !try_seed(seed);
    }
    (void)printf("%llu seeds, %d nodes, %s the shim: %llu failed\n",
                 (unsigned long long)(options.last - options.first + 1), options.nodes,
                 options.shim ? "with" : "without", (unsigned long long)failed);
    return (failed > 0) == options.must_fail ? 0 : 1;
}
