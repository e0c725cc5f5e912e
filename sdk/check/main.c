/* SPDX-License-Identifier: MIT
 *
 * kvs-plugin-check: the contract of a plugin's kind, run on one file.
 *
 *   1. the file: its symbols, and whether it loads (in a child: constructors may crash)
 *   2. the descriptor
 *   3. lifecycle, and the suite of the kind, if 1 and 2 hold */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

struct check_target check;

enum { OPT_KIND = 'k', OPT_ONLY = 'o', OPT_SET = 's', OPT_WITH = 'w' };

static struct {
    const char *kind, *only;
    const char *with[CHECK_NEIGHBOUR_MAX];
    uint32_t with_count;
} command;

static const struct argp_option OPTIONS[] = {
    {"kind", OPT_KIND, "KIND", 0, "fail unless the plugin is of this kind", 0},
    {"only", OPT_ONLY, "TEXT", 0,
     "of the checks that run the plugin, only those whose name holds TEXT", 0},
    {"set", OPT_SET, "NAME=VALUE", 0, "set an option of the plugin; may be repeated", 0},
    {"with", OPT_WITH, "FILE.so", 0, "a plugin it needs, with default options; may be repeated", 0},
    {0},
};

static const struct check_case LIFE_CASES[] = {
    {"init and fini leave nothing behind", check_life},
    {"init without memory says so and leaves nothing behind", check_life_out_of_memory},
    {"two instances in one process", check_life_two_instances},
    {NULL, NULL},
};

static const struct check_case *const SUITES[KVS_KIND_COUNT] = {
    [KVS_KIND_TRANSPORT] = check_transport_cases,
    [KVS_KIND_COMPRESSION] = check_compression_cases,
    [KVS_KIND_PERSISTENCE] = check_persistence_cases,
    [KVS_KIND_INDEX] = check_index_cases,
    [KVS_KIND_CONSENSUS] = check_consensus_cases,
    [KVS_KIND_SERVICE] = check_service_cases,
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case OPT_KIND:
        for (uint32_t i = 1; i < KVS_KIND_COUNT; i++) {
            command.kind = strcmp(arg, check_kind_names[i]) == 0 ? arg : command.kind;
        }
        if (command.kind == NULL) {
            argp_error(state, "there is no kind '%s'", arg);
        }
        break;
    case OPT_ONLY:
        command.only = arg;
        break;
    case OPT_SET:
        if (strchr(arg, '=') == NULL || check.set_count == CHECK_SET_MAX) {
            argp_error(state, "--set takes NAME=VALUE, at most %u times", CHECK_SET_MAX);
        }
        check.sets[check.set_count++] = arg;
        break;
    case OPT_WITH:
        if (command.with_count == CHECK_NEIGHBOUR_MAX - 1) {
            argp_error(state, "too many --with");
        }
        command.with[command.with_count++] = arg;
        break;
    case ARGP_KEY_ARG:
        if (check.path != NULL) {
            argp_error(state, "one FILE.so at a time");
        }
        check.path = arg;
        break;
    case ARGP_KEY_END:
        if (check.path == NULL) {
            argp_error(state, "which file? Try: kvs-plugin-check ./service-hello.so");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void open_neighbours(void)
{
    uint32_t kinds = 0;

    for (uint32_t i = 0; i < command.with_count; i++) {
        struct kvs_error err;
        const struct kvs_plugin *p = check_open(command.with[i], &err);

        if (p == NULL) {
            (void)fprintf(stderr, "kvs-plugin-check: --with %s: %s\n", command.with[i], err.msg);
            exit(2);
        }
        check.with[check.with_count++] = p;
        kinds |= 1u << p->kind;
    }
    for (const uint32_t *need = check.plugin->needs; need != NULL && *need != 0; need++) {
        if (*need == KVS_KIND_CONSENSUS && (kinds & 1u << *need) == 0) {
            check.with[check.with_count++] = &stand_in_consensus;
        }
    }
}

static void check_options_known(void)
{
    for (uint32_t i = 0; i < check.set_count; i++) {
        char name[128];

        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(check.sets[i], "="), check.sets[i]);
        if (check_option(check.plugin, name) == NULL) {
            (void)fprintf(stderr, "kvs-plugin-check: --set %s: the plugin has no such option\n",
                          check.sets[i]);
            exit(2);
        }
    }
}

/* 1 if the plugin may be run. */
static int check_static(struct check_counts *counts)
{
    struct kvs_error err;
    const char *kind;

    check_run_all(check_file_cases, "file", NULL, counts);
    if (counts->failed > 0) {
        return 0;
    }
    check.plugin = check_open(check.path, &err);
    if (check.plugin == NULL) {
        (void)printf("FAIL  file: loads again: %s\n", err.msg);
        counts->failed++;
        return 0;
    }
    /* One after another: each looks where the one before found firm ground. */
    for (const struct check_case *c = check_descriptor_cases; c->name != NULL; c++) {
        if (!check_run(c, "descriptor", counts)) {
            return 0;
        }
    }
    kind = check_kind_names[check.plugin->kind];
    if (command.kind != NULL && strcmp(command.kind, kind) != 0) {
        (void)printf("FAIL  descriptor: is of the kind asked for: it is a %s plugin\n", kind);
        counts->failed++;
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    static const char doc[] =
        "Checks a kvs plugin: its file, its descriptor, and the contract of its kind on a fake "
        "host. One line per check.\v"
        "Examples:\n"
        "  kvs-plugin-check build/service-hello.so\n"
        "  kvs-plugin-check --kind index build/index-skiplist.so\n"
        "  kvs-plugin-check --set level=9 build/compression-zlib.so\n"
        "  kvs-plugin-check --with index-btree.so --with persistence-wal.so service-storage.so\n"
        "  kvs-plugin-check --only 'round trip' build/compression-mine.so\n\n"
        "Each check is a process of its own: in a debugger, follow the child. KVS_MOCK_LOG=1 in "
        "the environment shows what the plugin logs.\n"
        "Exit status: 0 all passed, 1 a check failed, 2 wrong command line.";
    static const struct argp argp = {OPTIONS, parse, "FILE.so", doc, NULL, NULL, NULL};
    struct check_counts counts = {0};

    argp_err_exit_status = 2;
    if (argp_parse(&argp, argc, argv, 0, NULL, NULL) != 0) {
        return 2;
    }
    if (check_static(&counts)) {
        const char *kind = check_kind_names[check.plugin->kind];

        open_neighbours();
        check_options_known();
        check_run_all(LIFE_CASES, "life", command.only, &counts);
        check_run_all(SUITES[check.plugin->kind], kind, command.only, &counts);
    }
    (void)printf("%s: %u passed, %u failed, %u skipped\n", check.path, counts.passed, counts.failed,
                 counts.skipped);
    return counts.failed > 0 ? 1 : 0;
}
