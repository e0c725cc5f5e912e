/* SPDX-License-Identifier: MIT
 *
 * Shared objects through libltdl; see host_private.h.
 *
 * libltdl binds lazily and reports "file not found" for every failure. So a loader of our own
 * stands in front: it binds everything at once (RTLD_NOW) and keeps the linker's own words. Nothing
 * is ever unloaded: plugins may leave threads and thread-local data behind. Main thread only. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <ltdl.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/host_private.h"

#define DIR_MAX   16u
#define CACHE_MAX 128u

const char *const kvs__kind_names[KVS_KIND_COUNT + 1] = {
    "", "transport", "compression", "persistence", "index", "consensus", "service", NULL};

static char dirs[DIR_MAX][1024];
static const char *dir_list[DIR_MAX + 1];
static char why[KVS_ERROR_MSG_SIZE];

static struct {
    char path[1200];
    const struct kvs_plugin *plugin;
} cache[CACHE_MAX];
static uint32_t cache_n;

static lt_module now_open(lt_user_data data, const char *path, lt_dladvise advise)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    (void)data;
    (void)advise;
    if (module == NULL) {
        (void)snprintf(why, sizeof why, "%s", dlerror());
    }
    return module;
}

static int now_close(lt_user_data data, lt_module module)
{
    (void)data;
    (void)module;
    return 0; /* resident */
}

static void *now_symbol(lt_user_data data, lt_module module, const char *name)
{
    (void)data;
    return dlsym(module, name);
}

static int loader_init(void)
{
    static lt_dlvtable table;
    static int done;

    if (done) {
        return 0;
    }
    if (lt_dlinit() != 0) {
        return KVS_EIO;
    }
    table.name = "kvs-now";
    table.module_open = now_open;
    table.module_close = now_close;
    table.find_sym = now_symbol;
    table.priority = LT_DLLOADER_PREPEND;
    done = lt_dlloader_add(&table) == 0;
    return done ? 0 : KVS_EIO;
}

static void add_dir(uint32_t *n, const char *path)
{
    if (*n < DIR_MAX && path != NULL && path[0] != '\0') {
        (void)snprintf(dirs[*n], sizeof dirs[*n], "%s", path);
        dir_list[*n] = dirs[*n];
        (*n)++;
    }
}

const char *const *kvs__loader_dirs(const struct kvs_str_list *configured)
{
    char exe[900], path[1024];
    ssize_t len;
    uint32_t n = 0;

    if (dir_list[0] != NULL && configured == NULL) {
        return dir_list;
    }
    memset(dir_list, 0, sizeof dir_list);
    for (uint64_t i = 0; configured != NULL && i < configured->count; i++) {
        add_dir(&n, configured->items[i]);
    }
    len = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (len > 0) {
        exe[len] = '\0';
        *strrchr(exe, '/') = '\0';
        (void)snprintf(path, sizeof path, "%s/../lib/kvs/plugins", exe);
        if (access(path, R_OK) == 0) {
            add_dir(&n, path); /* a build tree, or an installation that was moved */
        }
    }
    add_dir(&n, KVS_PLUGIN_INSTALL_DIR);
    return dir_list;
}

/* ---- one file ----------------------------------------------------------------------------------
 */

static int descriptor_check(const struct kvs_plugin *p, const char *path, struct kvs_error *err)
{
    const char *base = strrchr(path, '/') + 1;
    char file[128];

    if (p == NULL || p->size < offsetof(struct kvs_plugin, kind)) {
        return kvs_err(err, KVS_EABI, "'%s' is not a kvs plugin: its descriptor is too small",
                       path);
    }
    if (p->abi_major != KVS_ABI_MAJOR || p->abi_minor > KVS_ABI_MINOR) {
        return kvs_err(err, KVS_EABI,
                       "'%s' was built for plugin ABI %u.%u, this host has %u.%u. Rebuild it", path,
                       p->abi_major, p->abi_minor, KVS_ABI_MAJOR, KVS_ABI_MINOR);
    }
    if (!KVS_HAS(p, fini) || p->kind == KVS_KIND_NONE || p->kind >= KVS_KIND_COUNT ||
        p->name == NULL || p->version == NULL || p->summary == NULL || p->ops == NULL ||
        p->init == NULL || p->fini == NULL) {
        return kvs_err(err, KVS_EABI, "'%s' has an incomplete descriptor", path);
    }
    (void)snprintf(file, sizeof file, "%s-%s.so", kvs__kind_names[p->kind], p->name);
    if (strcmp(base, file) != 0) {
        return kvs_err(err, KVS_EABI, "'%s' says it is %s: rename the file", path, file);
    }
    return 0;
}

static int open_file(const char *path, const struct kvs_plugin **ret_plugin, const char **ret_path,
                     struct kvs_error *err)
{
    kvs_plugin_entry_fn entry;
    lt_dlhandle handle;
    void *symbol;
    int rc;

    for (uint32_t i = 0; i < cache_n; i++) {
        if (strcmp(cache[i].path, path) == 0) {
            *ret_plugin = cache[i].plugin;
            *ret_path = cache[i].path;
            return 0;
        }
    }
    if (cache_n == CACHE_MAX || loader_init() != 0) {
        return kvs_err(err, KVS_EIO, "libltdl: %s", lt_dlerror());
    }
    why[0] = '\0';
    handle = lt_dlopen(path);
    if (handle == NULL || why[0] != '\0') {
        /* Also if ltdl's own loader, which binds lazily, took what ours refused. */
        return kvs_err(err, KVS_EABI, "cannot load: %s", why[0] != '\0' ? why : lt_dlerror());
    }
    symbol = lt_dlsym(handle, KVS_PLUGIN_ENTRY_NAME);
    if (symbol == NULL) {
        return kvs_err(err, KVS_EABI, "'%s' is not a kvs plugin: it exports no '%s'", path,
                       KVS_PLUGIN_ENTRY_NAME);
    }
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from object to function pointer */
    *ret_plugin = entry();
    rc = descriptor_check(*ret_plugin, path, err);
    if (rc != 0) {
        return rc;
    }
    (void)snprintf(cache[cache_n].path, sizeof cache[cache_n].path, "%s", path);
    cache[cache_n].plugin = *ret_plugin;
    *ret_path = cache[cache_n].path;
    cache_n++;
    return 0;
}

/* Names of this kind that exist, "lz4, zlib", for the message. */
static void available(const char *kind, char *text, size_t size)
{
    size_t n = 0, prefix = strlen(kind);

    text[0] = '\0';
    for (const char *const *dir = dir_list; *dir != NULL; dir++) {
        DIR *d = opendir(*dir);
        struct dirent *e;

        while (d != NULL && (e = readdir(d)) != NULL) {
            const char *dot = strrchr(e->d_name, '.');

            if (dot != NULL && strcmp(dot, ".so") == 0 && strncmp(e->d_name, kind, prefix) == 0 &&
                e->d_name[prefix] == '-' && n < size - 64) {
                n += (size_t)snprintf(text + n, size - n, "%s%.*s", n == 0 ? "" : ", ",
                                      (int)(dot - e->d_name) - (int)prefix - 1,
                                      e->d_name + prefix + 1);
            }
        }
        if (d != NULL) {
            (void)closedir(d);
        }
    }
}

int kvs__loader_open(const char *kind, const char *name, const struct kvs_plugin **ret_plugin,
                     const char **ret_path, struct kvs_error *err)
{
    char path[1200], words[256];

    if (name[0] == '\0' || strlen(name) > 32 ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0') {
        return kvs_err(err, KVS_EINVAL, "a plugin's name is a word of a-z, 0-9 and -");
    }
    for (const char *const *dir = kvs__loader_dirs(NULL); *dir != NULL; dir++) {
        (void)snprintf(path, sizeof path, "%s/%s-%s.so", *dir, kind, name);
        if (access(path, F_OK) == 0) {
            return open_file(path, ret_plugin, ret_path, err);
        }
    }
    available(kind, words, sizeof words);
    return kvs_err(err, KVS_ENOTFOUND, "no file '%s-%s.so' in '%s'%s. Plugins of this kind: %s",
                   kind, name, dir_list[0],
                   dir_list[1] != NULL ? " and the other plugin directories" : "",
                   words[0] == '\0' ? "none" : words);
}

void kvs__loader_each(void (*fn)(void *arg, const char *file, const struct kvs_plugin *plugin,
                                 const char *why_not),
                      void *arg)
{
    for (const char *const *dir = kvs__loader_dirs(NULL); *dir != NULL; dir++) {
        struct dirent **entries;
        int n = scandir(*dir, &entries, NULL, alphasort);

        for (int i = 0; i < n; i++) {
            const char *dot = strrchr(entries[i]->d_name, '.');
            const struct kvs_plugin *plugin;
            const char *real;
            struct kvs_error err;
            char path[1400];

            (void)snprintf(path, sizeof path, "%s/%s", *dir, entries[i]->d_name);
            if (dot != NULL && strcmp(dot, ".so") == 0) {
                int rc = open_file(path, &plugin, &real, &err);

                fn(arg, path, rc == 0 ? plugin : NULL, err.msg);
            }
            free(entries[i]);
        }
        if (n >= 0) {
            free(entries);
        }
    }
}
