/* SPDX-License-Identifier: MIT
 *
 * Instances of plugins: from the configuration to running, and back; see host_private.h.
 *
 *   loaded -> checked -> inited -> started -> stopped -> finished        (failed from any)
 *
 * Start order is by kind, so that what a plugin needs runs before it, and within a kind as
 * configured: compression, index, persistence, consensus, service, transport. Stop order is the
 * reverse. */
#include <stdlib.h>

#include "base/mem.h"
#include "host/host_private.h"
#include "obs/log.h"
#include "obs/panic.h"

static struct kvs__instance *instances[KVS__INSTANCE_MAX];
static uint32_t instance_n;

static const uint32_t KIND_RANK[KVS_KIND_COUNT] = {
    [KVS_KIND_COMPRESSION] = 1, [KVS_KIND_INDEX] = 2,   [KVS_KIND_PERSISTENCE] = 3,
    [KVS_KIND_CONSENSUS] = 4,   [KVS_KIND_SERVICE] = 5, [KVS_KIND_TRANSPORT] = 6,
};

struct kvs__instance *kvs__instance(uint32_t i)
{
    return i < instance_n ? instances[i] : NULL;
}

uint32_t kvs__instance_count(void)
{
    return instance_n;
}

const char *kvs__instance_state_name(enum kvs__instance_state state)
{
    static const char *const NAMES[] = {"loaded",  "checked",  "inited", "started",
                                        "stopped", "finished", "failed"};

    return NAMES[state];
}

static void state_set(struct kvs__instance *i, enum kvs__instance_state to)
{
    static const uint32_t ALLOWED[] = {
        [KVS__LOADED] = 1u << KVS__CHECKED | 1u << KVS__FAILED,
        [KVS__CHECKED] = 1u << KVS__INITED | 1u << KVS__FAILED,
        [KVS__INITED] = 1u << KVS__STARTED | 1u << KVS__FINISHED | 1u << KVS__FAILED,
        [KVS__STARTED] = 1u << KVS__STOPPED,
        [KVS__STOPPED] = 1u << KVS__FINISHED,
        [KVS__FINISHED] = 0,
        [KVS__FAILED] = 1u << KVS__FINISHED,
    };

    KVS__ASSERT((ALLOWED[i->state] & (1u << to)) != 0);
    KVS__LOG(KVS_LOG_DEBUG, "host", "lifecycle", "plugin=%s from=%s to=%s", i->component,
             kvs__instance_state_name(i->state), kvs__instance_state_name(to));
    i->state = to;
}

/* ---- loading -----------------------------------------------------------------------------------
 */

static void insert_in_order(struct kvs__instance *i)
{
    uint32_t at = instance_n++;

    while (at > 0 && KIND_RANK[instances[at - 1]->plugin->kind] > KIND_RANK[i->plugin->kind]) {
        instances[at] = instances[at - 1];
        at--;
    }
    instances[at] = i;
}

/* What a plugin's check says may begin with an option's name: "segment_size: ..". Then the place of
 * that option is shown. */
static void complain_check(struct kvs__conf *c, const struct kvs__instance *i,
                           const struct kvs_error *err)
{
    size_t n = strcspn(err->msg, ":");
    char option[128], path[256];

    for (const struct kvs_opt *o = i->plugin->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (strlen(o->name) == n && memcmp(o->name, err->msg, n) == 0) {
            const struct kvs__node *at = kvs__conf_opt_node(i->node, o->name);

            (void)snprintf(option, sizeof option, "%s", o->name);
            (void)snprintf(path, sizeof path, "%s.%s", i->conf_path, option);
            kvs__conf_error(c, at == NULL ? i->node : at, at == NULL, path, "%s",
                            err->msg + n + (err->msg[n] == ':') + (err->msg[n + 1] == ' '));
            return;
        }
    }
    kvs__conf_error(c, i->node, 1, i->conf_path, "%s", err->msg);
}

static void load_one(struct kvs__conf *c, const char *kind, struct kvs__node *node)
{
    struct kvs__instance *i = kvs__conf_alloc(c, sizeof *i);
    struct kvs_error err = {0};
    uint32_t errors;

    (void)snprintf(i->conf_path, sizeof i->conf_path, "plugins.%s.%.40s", kind, node->key);
    (void)snprintf(i->component, sizeof i->component, "%s.%.40s", kind, node->key);
    i->node = node;
    if (kvs__loader_open(kind, node->key, &i->plugin, &i->path, &err) != 0) {
        kvs__conf_error(c, node, 1, i->conf_path, "%s", err.msg);
        return;
    }
    if (instance_n == KVS__INSTANCE_MAX) {
        kvs__conf_error(c, node, 1, i->conf_path, "more than %u plugins", KVS__INSTANCE_MAX);
        return;
    }
    i->conf = kvs__conf_alloc(c, i->plugin->conf_size + 1);
    errors = kvs__conf_errors(c);
    kvs__conf_apply(c, node, i->conf_path, i->plugin->opts, i->conf);
    if (kvs__conf_errors(c) == errors && i->plugin->check != NULL &&
        i->plugin->check(i->conf, &err) != 0) {
        complain_check(c, i, &err);
    }
    insert_in_order(i);
    state_set(i, KVS__CHECKED);
}

static int kind_present(uint32_t kind)
{
    for (uint32_t i = 0; i < instance_n; i++) {
        if (instances[i]->plugin->kind == kind) {
            return 1;
        }
    }
    return 0;
}

static void check_needs(struct kvs__conf *c)
{
    for (uint32_t i = 0; i < instance_n; i++) {
        const struct kvs__instance *in = instances[i];

        for (const uint32_t *need = in->plugin->needs; need != NULL && *need != 0; need++) {
            if (*need < KVS_KIND_COUNT && !kind_present(*need)) {
                kvs__conf_error(c, in->node, 1, in->conf_path,
                                "needs a plugin of kind '%s'. Add one under plugins.%s",
                                kvs__kind_names[*need], kvs__kind_names[*need]);
            }
        }
    }
}

void kvs__instances_load(struct kvs__conf *c)
{
    static const char *const SECTIONS[] = {"node", "plugins", NULL};
    struct kvs__node *root = kvs__conf_root(c), *plugins = kvs__node_get(root, "plugins");

    instance_n = 0;
    for (struct kvs__node *s = root->child; s != NULL; s = s->next) {
        const char *near = kvs_nearest(kvs_slice_str(s->key), SECTIONS);

        if (strcmp(s->key, "node") != 0 && strcmp(s->key, "plugins") != 0) {
            kvs__conf_error(c, s, 1, s->key, "unknown section%s%s%s",
                            near == NULL ? ". There are 'node' and 'plugins'" : ". Did you mean '",
                            near == NULL ? "" : near, near == NULL ? "" : "'?");
        }
    }
    if (plugins == NULL || plugins->kind != KVS__NODE_MAP) {
        kvs__conf_error(c, plugins, 0, "plugins", "nothing to load: a map of kinds is expected");
        return;
    }
    for (struct kvs__node *kind = plugins->child; kind != NULL; kind = kind->next) {
        const char *near = kvs_nearest(kvs_slice_str(kind->key), kvs__kind_names + 1);
        uint32_t k = 1;

        while (k < KVS_KIND_COUNT && strcmp(kvs__kind_names[k], kind->key) != 0) {
            k++;
        }
        if (k == KVS_KIND_COUNT) {
            kvs__conf_error(c, kind, 1, "plugins", "'%s' is no plugin kind%s%s%s", kind->key,
                            near == NULL ? "" : ". Did you mean '", near == NULL ? "" : near,
                            near == NULL ? "" : "'?");
        } else if (kind->kind != KVS__NODE_MAP && kind->kind != KVS__NODE_NULL) {
            kvs__conf_error(c, kind, 0, "plugins",
                            "%s: a map of plugin names is expected: {name: {}}", kind->key);
        } else {
            for (struct kvs__node *p = kind->child; p != NULL; p = p->next) {
                load_one(c, kind->key, p);
            }
        }
    }
    if (kvs__conf_errors(c) == 0) {
        check_needs(c);
    }
}

/* ---- lifecycle ---------------------------------------------------------------------------------
 */

int kvs__instances_init(struct kvs_error *err)
{
    for (uint32_t n = 0; n < instance_n; n++) {
        struct kvs__instance *i = instances[n];
        int rc = i->plugin->init(&i->host, i->conf, &i->self, err);

        if (rc != 0) {
            state_set(i, KVS__FAILED);
            (void)kvs_err_wrap(err, "%s", i->component);
            return rc;
        }
        state_set(i, KVS__INITED);
        KVS__LOG(KVS_LOG_INFO, "host", "plugin_loaded", "plugin=%s version=%s abi=%u.%u path='%s'",
                 i->component, i->plugin->version, i->plugin->abi_major, i->plugin->abi_minor,
                 i->path);
        if (i->plugin->kind == KVS_KIND_SERVICE) {
            rc = kvs__router_add(i->plugin->ops, i->self, err);
            if (rc != 0) {
                (void)kvs_err_wrap(err, "%s", i->component);
                return rc;
            }
        }
    }
    return 0;
}

int kvs__instances_start(struct kvs_error *err)
{
    for (uint32_t n = 0; n < instance_n; n++) {
        struct kvs__instance *i = instances[n];
        int rc = i->plugin->start == NULL ? 0 : i->plugin->start(i->self, err);

        if (rc != 0) {
            (void)kvs_err_wrap(err, "start %s", i->component);
            return rc;
        }
        state_set(i, KVS__STARTED);
    }
    return 0;
}

void kvs__instances_stop(void)
{
    for (uint32_t n = instance_n; n > 0; n--) {
        struct kvs__instance *i = instances[n - 1];

        if (i->state == KVS__STARTED) {
            if (i->plugin->stop != NULL) {
                i->plugin->stop(i->self);
            }
            state_set(i, KVS__STOPPED);
        }
    }
}

void kvs__instances_fini(void)
{
    for (uint32_t n = instance_n; n > 0; n--) {
        struct kvs__instance *i = instances[n - 1];

        if (i->state == KVS__INITED || i->state == KVS__STOPPED) {
            i->plugin->fini(i->self);
            state_set(i, KVS__FINISHED);
        }
    }
    instance_n = 0;
}

/* ---- reload ------------------------------------------------------------------------------------
 */

static int same_option(const struct kvs_opt *o, const void *a, const void *b)
{
    struct kvs_opt plain = *o;
    struct kvs_buf ta, tb;
    int same;

    plain.flags &= ~KVS_OPT_SECRET; /* compare what it is, not how it is shown */
    kvs_buf_init(&ta, kvs__mem_host(), &kvs__mem_core);
    kvs_buf_init(&tb, kvs__mem_host(), &kvs__mem_core);
    kvs__conf_opt_text(&ta, &plain, a);
    kvs__conf_opt_text(&tb, &plain, b);
    same = kvs_slice_eq(kvs_buf_slice(&ta), kvs_buf_slice(&tb));
    kvs_buf_fini(&ta);
    kvs_buf_fini(&tb);
    return same;
}

static void reload_one(struct kvs__conf *fresh, struct kvs__instance *i)
{
    const struct kvs_opt *opts = i->plugin->opts;
    struct kvs__node *node;
    struct kvs_error err = {0};
    char kind[32];
    uint32_t changed = 0, later = 0;
    void *conf;

    (void)snprintf(kind, sizeof kind, "%s", kvs__kind_names[i->plugin->kind]);
    node = kvs__node_get(kvs__node_get(kvs__node_get(kvs__conf_root(fresh), "plugins"), kind),
                         i->plugin->name);
    conf = kvs__conf_alloc(fresh, i->plugin->conf_size + 1);
    kvs__conf_apply(fresh, node, i->conf_path, opts, conf);
    if (kvs__conf_errors(fresh) != 0) {
        return;
    }
    for (const struct kvs_opt *o = opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (!same_option(o, i->conf, conf)) {
            changed += (o->flags & KVS_OPT_RELOAD) != 0;
            if ((o->flags & KVS_OPT_RELOAD) == 0) {
                later++;
                KVS__LOG(KVS_LOG_WARN, "host", "needs_restart", "option=%s.%s", i->conf_path,
                         o->name);
            }
        }
    }
    if (later > 0 || i->plugin->reload == NULL || !KVS_HAS(i->plugin, reload)) {
        return;
    }
    /* Without a changed option too: certificates on disk may have been renewed. */
    if (i->plugin->reload(i->self, conf, &err) != 0) {
        KVS__LOG(KVS_LOG_ERROR, "host", "reload_failed", "plugin=%s error='%s'", i->component,
                 err.msg);
        return;
    }
    i->conf = conf;
    i->node = node;
    KVS__LOG(KVS_LOG_INFO, "host", "reloaded", "plugin=%s options_changed=%u", i->component,
             changed);
}

void kvs__instances_reload(struct kvs__conf *fresh)
{
    for (uint32_t n = 0; n < instance_n; n++) {
        if (instances[n]->state == KVS__STARTED) {
            reload_one(fresh, instances[n]);
        }
    }
}
