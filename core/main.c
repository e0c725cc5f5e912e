/* SPDX-License-Identifier: MIT
 *
 * kvsd: the command line. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/host.h"
#include "kvs/plugin.h"

#define SET_MAX 256u

enum { OPT_CHECK = 256, OPT_PRINT, OPT_LIST, OPT_HELP_PLUGIN };

struct command {
    struct kvs__run_args args;
    const char *sets[SET_MAX];
    int verb;
    const char *plugin;
};

/* The C library's argp looks for this symbol and prints it for --version. */
KVS_EXPORT const char *argp_program_version = "kvsd " KVS_VERSION " (plugin ABI 1.0)";

/* jemalloc looks for this one: what requests took and gave back returns to the system after a
 * second, also when no more requests come. With the default it is kept: 16 bytes for each of a
 * million items that came in batches. */
KVS_EXPORT const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

static const struct argp_option OPTIONS[] = {
    {"config", 'c', "FILE", 0, "run the composition in FILE (and conf.d/*.yaml beside it)", 0},
    {"set", 's', "PATH=VALUE", 0, "override a setting; may be repeated", 0},
    {"check", OPT_CHECK, "FILE", 0,
     "check FILE and the options of every plugin it names, then exit", 0},
    {"print-config", OPT_PRINT, NULL, 0, "print every setting with its origin, then exit", 0},
    {"list-plugins", OPT_LIST, NULL, 0, "print the plugins that can be loaded, then exit", 0},
    {"help-plugin", OPT_HELP_PLUGIN, "NAME", 0, "print the options of a plugin, then exit", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct command *c = state->input;

    switch (key) {
    case 'c':
        c->args.conf_path = arg;
        break;
    case 's':
        if (c->args.set_count == SET_MAX) {
            argp_error(state, "more than %u --set", SET_MAX);
        }
        c->sets[c->args.set_count++] = arg;
        break;
    case OPT_CHECK:
        c->verb = key;
        c->args.conf_path = arg;
        break;
    case OPT_HELP_PLUGIN:
        c->verb = key;
        c->plugin = arg;
        break;
    case OPT_PRINT:
    case OPT_LIST:
        c->verb = key;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", arg);
        break;
    case ARGP_KEY_END:
        if (c->args.conf_path == NULL && c->verb != OPT_LIST && c->verb != OPT_HELP_PLUGIN) {
            argp_error(state, "which configuration? Try: kvsd -c /etc/kvs/standalone.yaml");
        }
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const char doc[] =
        "The kvs host: loads the plugins its configuration names and runs them.\v"
        "Examples:\n"
        "  kvsd -c /etc/kvs/standalone.yaml\n"
        "  kvsd -c etc/standalone.yaml --set node.data_dir=/tmp/kvs "
        "--set plugins.transport.rest.listen=127.0.0.1:0\n"
        "  kvsd --check /etc/kvs/storage.yaml\n"
        "  kvsd -c etc/standalone.yaml --print-config\n"
        "  kvsd --help-plugin persistence-wal\n\n"
        "SIGHUP applies changed settings where that is possible, SIGTERM stops in order.\n"
        "Exit status: 0 orderly stop, 1 failure, 2 wrong configuration or command line.";
    static const struct argp argp = {OPTIONS, parse, NULL, doc, NULL, NULL, NULL};
    static struct command c;

    argp_err_exit_status = 2;
    c.args.sets = c.sets;
    if (argp_parse(&argp, argc, argv, 0, NULL, &c) != 0) {
        return 2;
    }
    switch (c.verb) {
    case OPT_CHECK:
        return kvs__check(&c.args);
    case OPT_PRINT:
        return kvs__print_config(&c.args);
    case OPT_LIST:
        return kvs__list_plugins(&c.args);
    case OPT_HELP_PLUGIN:
        return kvs__help_plugin(&c.args, c.plugin);
    default:
        return kvs__run(&c.args);
    }
}
