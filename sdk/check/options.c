/* SPDX-License-Identifier: MIT
 *
 * From an option table to a filled structure, as kvsd does it, and what can be wrong with a table.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/support.h"

#define OPTION_MAX 256u

/* What options point to lives until the process ends; the chain tells leak checkers so. */
struct kept {
    struct kept *before;
    uint64_t reserved; /* what follows is aligned to 16 */
};

static struct kept *kept;

static void *keep(size_t size)
{
    struct kept *k = check_alloc(sizeof *k + size);

    memset(k, 0, sizeof *k + size);
    k->before = kept;
    kept = k;
    return k + 1;
}

static size_t field_size(uint32_t type)
{
    switch (type) {
    case KVS_OPT_BOOL:
    case KVS_OPT_ENUM:
        return sizeof(uint32_t);
    case KVS_OPT_LIST:
        return sizeof(struct kvs_str_list);
    default:
        return 8;
    }
}

static int out_of_bounds(const struct kvs_opt *opt, int64_t v)
{
    return (opt->min != 0 || opt->max != 0) && (v < opt->min || v > opt->max);
}

static const char *set_number(const struct kvs_opt *opt, const char *text, void *field)
{
    int negative = opt->type == KVS_OPT_INT && text[0] == '-';
    struct kvs_slice s = kvs_slice_str(text + negative);
    uint64_t v = 0;
    int64_t number;
    int rc = opt->type == KVS_OPT_BYTES      ? kvs_bytes_parse(s, &v)
             : opt->type == KVS_OPT_DURATION ? kvs_duration_parse(s, &v)
                                             : kvs_u64_parse(s, &v);

    if (rc != 0 || v > (uint64_t)INT64_MAX) {
        return opt->type == KVS_OPT_BYTES      ? "is not a size such as 64MiB"
               : opt->type == KVS_OPT_DURATION ? "is not a duration such as 500ms, 30s, 5m"
                                               : "is not a whole number";
    }
    number = negative ? -(int64_t)v : (int64_t)v;
    if (out_of_bounds(opt, number)) {
        return "is out of bounds";
    }
    memcpy(field, &number, sizeof number);
    return NULL;
}

static void set_list(const char *text, void *field)
{
    struct kvs_str_list list = {NULL, 1};
    const char **items = keep(sizeof *items);

    items[0] = text;
    list.items = items;
    memcpy(field, &list, sizeof list);
}

const char *check_option_set(const struct kvs_opt *opt, const char *text, void *conf)
{
    void *field = (char *)conf + opt->offset;
    uint32_t word = 0;

    switch (opt->type) {
    case KVS_OPT_BOOL:
        word = strcmp(text, "true") == 0;
        if (!word && strcmp(text, "false") != 0) {
            return "is neither true nor false";
        }
        memcpy(field, &word, sizeof word);
        return NULL;
    case KVS_OPT_ENUM:
        while (opt->choices[word] != NULL && strcmp(opt->choices[word], text) != 0) {
            word++;
        }
        if (opt->choices[word] == NULL) {
            return "is none of the choices";
        }
        memcpy(field, &word, sizeof word);
        return NULL;
    case KVS_OPT_STR:
        if (out_of_bounds(opt, (int64_t)strlen(text))) {
            return "has a length out of bounds";
        }
        memcpy(field, &text, sizeof text);
        return NULL;
    case KVS_OPT_LIST:
        set_list(text, field);
        return NULL;
    default:
        return set_number(opt, text, field);
    }
}

const struct kvs_opt *check_option(const struct kvs_plugin *plugin, const char *name)
{
    for (const struct kvs_opt *o = plugin->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        if (strcmp(o->name, name) == 0) {
            return o;
        }
    }
    return NULL;
}

/* The last "name=value" for this option, or NULL. */
static const char *given(const struct kvs_opt *o, const char *const *sets, uint32_t set_count)
{
    size_t n = strlen(o->name);

    while (set_count-- > 0) {
        if (strncmp(sets[set_count], o->name, n) == 0 && sets[set_count][n] == '=') {
            return sets[set_count] + n + 1;
        }
    }
    return NULL;
}

void *check_conf(const struct kvs_plugin *plugin, const char *const *sets, uint32_t set_count)
{
    void *conf = plugin->conf_size == 0 ? NULL : keep((size_t)plugin->conf_size);

    for (const struct kvs_opt *o = plugin->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        const char *text = given(o, sets, set_count), *wrong;

        if (text == NULL && (o->flags & KVS_OPT_REQUIRED) != 0) {
            check_fail(__FILE__, __LINE__, "option '%s' is required: give it with --set %s=VALUE",
                       o->name, o->name);
        }
        if (text == NULL) {
            text = o->fallback != NULL && o->type != KVS_OPT_LIST ? o->fallback
                   : o->type == KVS_OPT_STR                       ? ""
                                                                  : NULL;
            if (text != NULL && text[0] == '\0') {
                memcpy((char *)conf + o->offset, &text, sizeof text);
                continue;
            }
        }
        wrong = text == NULL ? NULL : check_option_set(o, text, conf);
        CHECK(wrong == NULL, "option '%s': '%s' %s", o->name, text, wrong);
    }
    return conf;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static int name_ok(const char *name)
{
    int part = 0;

    for (const char *p = name; *p != '\0'; p++) {
        if (*p == '.') {
            if (!part) {
                return 0;
            }
            part = 0;
        } else if (islower((unsigned char)*p) ||
                   (part && (isdigit((unsigned char)*p) || *p == '_'))) {
            part = 1;
        } else {
            return 0;
        }
    }
    return part;
}

static void option_sane(const struct kvs_opt *o, uint64_t conf_size)
{
    size_t size = field_size(o->type), align = size < 8 ? 4 : 8;
    const char *wrong;
    void *scratch;

    CHECK(o->name != NULL && name_ok(o->name), "option '%s': a name is lower case words and dots",
          o->name == NULL ? "" : o->name);
    CHECK(o->type <= KVS_OPT_LIST, "option '%s': unknown type %u", o->name, o->type);
    CHECK((o->flags & ~(KVS_OPT_REQUIRED | KVS_OPT_SECRET | KVS_OPT_RELOAD)) == 0,
          "option '%s': unknown flags", o->name);
    CHECK(o->help != NULL && o->help[0] != '\0', "option '%s': has no help", o->name);
    CHECK(o->offset <= conf_size && size <= conf_size - o->offset,
          "option '%s': its field lies outside of conf_size", o->name);
    CHECK(o->offset % align == 0, "option '%s': its field is not aligned", o->name);
    CHECK(o->min <= o->max || o->max == 0, "option '%s': min is above max", o->name);
    CHECK((o->flags & KVS_OPT_REQUIRED) == 0 || o->fallback == NULL,
          "option '%s': is required and has a default", o->name);
    CHECK(o->type != KVS_OPT_ENUM || (o->choices != NULL && o->choices[0] != NULL),
          "option '%s': has no choices", o->name);
    if (o->fallback == NULL || o->type == KVS_OPT_LIST) {
        return;
    }
    scratch = check_alloc((size_t)conf_size);
    wrong = check_option_set(o, o->fallback, scratch);
    CHECK(wrong == NULL, "option '%s': its default '%s' %s", o->name, o->fallback, wrong);
    free(scratch);
}

void check_options_sane(void)
{
    const struct kvs_plugin *p = check.plugin;
    uint32_t n = 0;

    CHECK(p->conf_size <= 1 << 20, "conf_size is %llu: an option structure of more than 1 MiB",
          (unsigned long long)p->conf_size);
    for (const struct kvs_opt *o = p->opts; o != NULL && o->type != KVS_OPT_END; o++) {
        CHECK(n++ < OPTION_MAX, "the option table has no KVS_OPTS_END row");
        option_sane(o, p->conf_size);
        for (const struct kvs_opt *k = p->opts; k != o; k++) {
            CHECK(strcmp(k->name, o->name) != 0, "option '%s' exists twice", o->name);
            CHECK(k->offset + field_size(k->type) <= o->offset ||
                      o->offset + field_size(o->type) <= k->offset,
                  "options '%s' and '%s' share bytes of the structure", k->name, o->name);
        }
    }
}
