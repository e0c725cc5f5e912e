/* SPDX-License-Identifier: MIT
 *
 * Configuration as text for people: --print-config and --help-plugin; see conf.h. */
#include <inttypes.h>

#include "conf/conf.h"

static void put_quoted(struct kvs_buf *b, const char *text)
{
    /* Plain where YAML reads it back the same, quoted otherwise. */
    if (text[0] != '\0' &&
        text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                          "0123456789_-./:@")] == '\0' &&
        strcmp(text, "null") != 0 && text[0] != '-' && text[0] != ':' && text[0] != '@') {
        kvs_buf_append_str(b, text);
    } else {
        kvs_json_str(b, kvs_slice_str(text));
    }
}

void kvs__conf_opt_text(struct kvs_buf *b, const struct kvs_opt *opt, const void *conf)
{
    const char *field = (const char *)conf + opt->offset;
    struct kvs_str_list list;
    const char *text;
    char tmp[32];
    uint64_t v = 0;
    uint32_t w;

    if ((opt->flags & KVS_OPT_SECRET) != 0) {
        kvs_buf_append_str(b, "***");
        return;
    }
    memcpy(&w, field, sizeof w);
    if (opt->type == KVS_OPT_INT || opt->type == KVS_OPT_BYTES || opt->type == KVS_OPT_DURATION) {
        memcpy(&v, field, sizeof v);
    }
    switch (opt->type) {
    case KVS_OPT_BOOL:
        kvs_buf_append_str(b, w != 0 ? "true" : "false");
        break;
    case KVS_OPT_ENUM:
        kvs_buf_append_str(b, opt->choices[w]);
        break;
    case KVS_OPT_INT:
        kvs_buf_printf(b, "%" PRId64, (int64_t)v);
        break;
    case KVS_OPT_BYTES:
        kvs_buf_append_str(b, kvs_bytes_text(v, tmp));
        break;
    case KVS_OPT_DURATION:
        kvs_buf_append_str(b, kvs_duration_text(v, tmp));
        break;
    case KVS_OPT_LIST:
        memcpy(&list, field, sizeof list);
        kvs_buf_append_str(b, "[");
        for (uint64_t i = 0; i < list.count; i++) {
            kvs_buf_append_str(b, i == 0 ? "" : ", ");
            put_quoted(b, list.items[i]);
        }
        kvs_buf_append_str(b, "]");
        break;
    default:
        memcpy(&text, field, sizeof text);
        put_quoted(b, text == NULL ? "" : text);
    }
}

const char *kvs__conf_origin(const struct kvs__node *node)
{
    static char text[512];

    if (node == NULL) {
        return "default";
    }
    if (node->source == NULL || !node->source->is_file) {
        return "--set";
    }
    (void)snprintf(text, sizeof text, "%s:%u:%u", node->source->name, node->line, node->col);
    return text;
}

void kvs__conf_print(struct kvs_buf *b, const struct kvs__node *node, const char *path,
                     const struct kvs_opt *opts, const void *conf)
{
    for (const struct kvs_opt *o = opts; o != NULL && o->type != KVS_OPT_END; o++) {
        size_t start = b->len;

        kvs_buf_printf(b, "%s.%s: ", path, o->name);
        kvs__conf_opt_text(b, o, conf);
        do {
            kvs_buf_append_str(b, " ");
        } while (!b->failed && b->len - start < 64);
        kvs_buf_printf(b, "# %s\n", kvs__conf_origin(kvs__conf_opt_node(node, o->name)));
    }
}

void kvs__conf_help(FILE *to, const struct kvs_opt *opts)
{
    static const char *const TYPES[] = {"",         "true | false", "number", "size",
                                        "duration", "text",         "",       "list"};
    char a[32], z[32];

    for (const struct kvs_opt *o = opts; o != NULL && o->type != KVS_OPT_END; o++) {
        (void)fprintf(to, "  %s: ", o->name);
        if (o->type == KVS_OPT_ENUM) {
            for (uint32_t i = 0; o->choices[i] != NULL; i++) {
                (void)fprintf(to, "%s%s", i == 0 ? "" : " | ", o->choices[i]);
            }
        } else {
            (void)fputs(TYPES[o->type & 7], to);
        }
        if (o->min != 0 || o->max != 0) {
            if (o->type == KVS_OPT_BYTES) {
                (void)fprintf(to, ", %s to %s", kvs_bytes_text((uint64_t)o->min, a),
                              kvs_bytes_text((uint64_t)o->max, z));
            } else if (o->type == KVS_OPT_DURATION) {
                (void)fprintf(to, ", %s to %s", kvs_duration_text((uint64_t)o->min, a),
                              kvs_duration_text((uint64_t)o->max, z));
            } else {
                (void)fprintf(to, ", %" PRId64 " to %" PRId64, o->min, o->max);
            }
        }
        if ((o->flags & KVS_OPT_REQUIRED) != 0) {
            (void)fputs(", required", to);
        } else if (o->fallback != NULL) {
            (void)fprintf(to, ", default %s", o->fallback);
        }
        (void)fprintf(to, "%s\n      %s\n",
                      (o->flags & KVS_OPT_RELOAD) != 0 ? ", SIGHUP applies a change" : "", o->help);
    }
}
