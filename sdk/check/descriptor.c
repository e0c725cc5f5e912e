/* SPDX-License-Identifier: MIT
 *
 * The file and its descriptor: what kvsd looks at before it runs a line of the plugin. */
#include <dlfcn.h>
#include <stdio.h>

#include "check.h"
#include "kvs/compression.h"
#include "kvs/consensus.h"
#include "kvs/index.h"
#include "kvs/persistence.h"
#include "kvs/service.h"
#include "kvs/transport.h"

#define NAME_SIZE_MAX 32u

const char *const check_kind_names[KVS_KIND_COUNT + 1] = {
    "", "transport", "compression", "persistence", "index", "consensus", "service", NULL};

const struct kvs_plugin *check_open(const char *path, struct kvs_error *err)
{
    char real[4096];
    kvs_plugin_entry_fn entry;
    void *module, *symbol;

    /* Without a '/' dlopen would search the system's folders. */
    (void)snprintf(real, sizeof real, "%s%s", strchr(path, '/') == NULL ? "./" : "", path);
    module = dlopen(real, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) {
        (void)kvs_err(err, KVS_EABI, "cannot load: %s", dlerror());
        return NULL;
    }
    symbol = dlsym(module, KVS_PLUGIN_ENTRY_NAME);
    if (symbol == NULL) {
        (void)kvs_err(err, KVS_EABI, "it exports no '%s'", KVS_PLUGIN_ENTRY_NAME);
        return NULL;
    }
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from object to function pointer */
    if (entry() == NULL || entry() != entry()) {
        (void)kvs_err(err, KVS_EABI, "'%s' does not return one constant descriptor",
                      KVS_PLUGIN_ENTRY_NAME);
        return NULL;
    }
    return entry();
}

/* ---- file --------------------------------------------------------------------------------------
 */

struct symbols {
    uint32_t entry, others;
    char list[256];
};

static void on_symbol(void *arg, const char *name)
{
    struct symbols *s = arg;
    size_t n = strlen(s->list);

    if (strcmp(name, KVS_PLUGIN_ENTRY_NAME) == 0) {
        s->entry++;
        return;
    }
    s->others++;
    (void)snprintf(s->list + n, sizeof s->list - n, "%s'%s'", n == 0 ? "" : ", ", name);
}

static void file_symbols(void)
{
    struct symbols s = {0};

    CHECK(check_symbols(check.path, on_symbol, &s) == 0,
          "'%s' is not a 64-bit ELF shared object with dynamic symbols", check.path);
    CHECK(s.entry == 1, "it exports no '%s': is KVS_PLUGIN(..) missing?", KVS_PLUGIN_ENTRY_NAME);
    CHECK(s.others == 0,
          "it also exports %s: build with -fvisibility=hidden -Wl,--exclude-libs,ALL", s.list);
}

static void file_loads(void)
{
    struct kvs_error err;

    CHECK(check_open(check.path, &err) != NULL, "%s", err.msg);
}

const struct check_case check_file_cases[] = {
    {"exports kvs_plugin_entry and nothing else", file_symbols},
    {"loads with every symbol bound", file_loads},
    {NULL, NULL},
};

/* ---- descriptor --------------------------------------------------------------------------------
 */

static void descriptor_abi(void)
{
    const struct kvs_plugin *p = check.plugin;

    CHECK(p->size >= offsetof(struct kvs_plugin, kind), "size is %u: too small for a descriptor",
          p->size);
    CHECK(p->abi_major == KVS_ABI_MAJOR && p->abi_minor <= KVS_ABI_MINOR,
          "built for plugin ABI %u.%u, this SDK has %u.%u", p->abi_major, p->abi_minor,
          KVS_ABI_MAJOR, KVS_ABI_MINOR);
    CHECK(p->size == sizeof(struct kvs_plugin), "size is %u, a descriptor of ABI 1.0 has %zu",
          p->size, sizeof(struct kvs_plugin));
}

static void descriptor_name(void)
{
    const struct kvs_plugin *p = check.plugin;
    const char *base = strrchr(check.path, '/');
    char file[128];

    CHECK(p->kind != KVS_KIND_NONE && p->kind < KVS_KIND_COUNT, "kind is %u: there is none such",
          p->kind);
    CHECK(p->name != NULL && p->name[0] >= 'a' && p->name[0] <= 'z' &&
              strlen(p->name) <= NAME_SIZE_MAX &&
              p->name[strspn(p->name, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0',
          "name '%s' is not [a-z][a-z0-9-]{0,31}", p->name == NULL ? "" : p->name);
    CHECK(p->version != NULL && p->version[0] != '\0', "it has no version");
    CHECK(p->summary != NULL && p->summary[0] != '\0' && strchr(p->summary, '\n') == NULL,
          "its summary is not one line");
    (void)snprintf(file, sizeof file, "%s-%s.so", check_kind_names[p->kind], p->name);
    CHECK(strcmp(base == NULL ? check.path : base + 1, file) == 0,
          "it says it is %s: rename the file", file);
}

static void descriptor_functions(void)
{
    const struct kvs_plugin *p = check.plugin;

    CHECK(p->init != NULL, "init is NULL");
    CHECK(p->fini != NULL, "fini is NULL");
    CHECK(p->ops != NULL, "ops is NULL");
    CHECK(p->start == NULL || p->stop != NULL, "it has start but no stop");
}

static void descriptor_needs(void)
{
    const uint32_t *needs = check.plugin->needs;
    uint32_t seen = 0, n = 0;

    for (; needs != NULL && *needs != 0; needs++) {
        CHECK(n++ < KVS_KIND_COUNT, "needs does not end with 0");
        CHECK(*needs < KVS_KIND_COUNT, "needs kind %u: there is none such", *needs);
        CHECK(*needs != check.plugin->kind, "needs its own kind");
        CHECK((seen & 1u << *needs) == 0, "needs a kind twice");
        seen |= 1u << *needs;
    }
}

/* What an ops table must hold: its size, and for each function its place. */
struct ops_rule {
    size_t size;
    struct {
        const char *name;
        size_t offset;
    } required[12];
};

#define AT(type, field)                                                                            \
    {                                                                                              \
#field, offsetof(struct type, field)                                                       \
    }

static const struct ops_rule OPS_RULES[KVS_KIND_COUNT] = {
    [KVS_KIND_TRANSPORT] = {sizeof(struct kvs_transport_ops),
                            {AT(kvs_transport_ops, endpoint), AT(kvs_transport_ops, drain)}},
    [KVS_KIND_COMPRESSION] = {sizeof(struct kvs_compression_ops),
                              {AT(kvs_compression_ops, bound), AT(kvs_compression_ops, compress),
                               AT(kvs_compression_ops, decompress)}},
    [KVS_KIND_PERSISTENCE] =
        {sizeof(struct kvs_persistence_ops),
         {AT(kvs_persistence_ops, recover), AT(kvs_persistence_ops, append),
          AT(kvs_persistence_ops, snapshot_begin), AT(kvs_persistence_ops, snapshot_block),
          AT(kvs_persistence_ops, snapshot_commit), AT(kvs_persistence_ops, snapshot_abort),
          AT(kvs_persistence_ops, stream_drop), AT(kvs_persistence_ops, blob_put),
          AT(kvs_persistence_ops, blob_get), AT(kvs_persistence_ops, status)}},
    [KVS_KIND_INDEX] = {sizeof(struct kvs_index_ops),
                        {AT(kvs_index_ops, map_new), AT(kvs_index_ops, map_free),
                         AT(kvs_index_ops, get), AT(kvs_index_ops, put), AT(kvs_index_ops, del),
                         AT(kvs_index_ops, count), AT(kvs_index_ops, memory),
                         AT(kvs_index_ops, each)}},
    [KVS_KIND_CONSENSUS] = {sizeof(struct kvs_consensus_ops),
                            {AT(kvs_consensus_ops, bind), AT(kvs_consensus_ops, propose),
                             AT(kvs_consensus_ops, barrier), AT(kvs_consensus_ops, snapshot),
                             AT(kvs_consensus_ops, member_add),
                             AT(kvs_consensus_ops, member_remove), AT(kvs_consensus_ops, transfer),
                             AT(kvs_consensus_ops, status)}},
    [KVS_KIND_SERVICE] = {sizeof(struct kvs_service_ops), {AT(kvs_service_ops, methods)}},
};

static void descriptor_ops(void)
{
    const struct ops_rule *rule = &OPS_RULES[check.plugin->kind];
    uint32_t size;

    memcpy(&size, check.plugin->ops, sizeof size);
    CHECK(size == rule->size, "ops->size is %u, the %s ops of ABI 1.0 have %zu", size,
          check_kind_names[check.plugin->kind], rule->size);
    for (size_t i = 0; i < KVS_ARRAY_COUNT(rule->required) && rule->required[i].name != NULL; i++) {
        const void *pointer;

        memcpy(&pointer, (const char *)check.plugin->ops + rule->required[i].offset,
               sizeof pointer);
        CHECK(pointer != NULL, "ops->%s is NULL", rule->required[i].name);
    }
}

/* The check function sees the defaults and finds nothing wrong with them. */
static void descriptor_check(void)
{
    void *conf = check_conf(check.plugin, check.sets, check.set_count);
    struct kvs_error err = {0};
    int rc = check.plugin->check == NULL ? 0 : check.plugin->check(conf, &err);

    CHECK(rc == 0, "check refuses the default options: %s", err.msg);
}

const struct check_case check_descriptor_cases[] = {
    {"size and ABI are those of this SDK", descriptor_abi},
    {"kind, name, version, summary, and the file is named so", descriptor_name},
    {"init, fini and ops exist, stop goes with start", descriptor_functions},
    {"needs names kinds and ends", descriptor_needs},
    {"the option table is sane", check_options_sane},
    {"ops has its size and its functions", descriptor_ops},
    {"the default options pass", descriptor_check},
    {NULL, NULL},
};
