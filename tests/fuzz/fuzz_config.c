/* SPDX-License-Identifier: MIT
 *
 * YAML configuration: the input up to its first NUL is one document, what follows is a --set over
 * it. Whatever it says, options are filled within their bounds, and every problem can be shown. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct conf {
    uint32_t yes, color;
    int64_t number;
    uint64_t bytes, duration_ms;
    const char *text, *secret;
    struct kvs_str_list list;
};

static const char *const COLORS[] = {"red", "green", NULL};

#define AT(field) offsetof(struct conf, field)

static const struct kvs_opt OPTIONS[] = {
    {"yes", KVS_OPT_BOOL, 0, "false", 0, 0, AT(yes), NULL, "A truth."},
    {"color", KVS_OPT_ENUM, 0, "green", 0, 0, AT(color), COLORS, "A color."},
    {"nested.number", KVS_OPT_INT, 0, "7", -10, 10, AT(number), NULL, "A number."},
    {"nested.bytes", KVS_OPT_BYTES, 0, "4KiB", 1, 1 << 20, AT(bytes), NULL, "A size."},
    {"nested.deep.duration", KVS_OPT_DURATION, 0, "1s", 1, 60000, AT(duration_ms), NULL, "A time."},
    {"text", KVS_OPT_STR, KVS_OPT_REQUIRED, NULL, 1, 20, AT(text), NULL, "A text."},
    {"secret", KVS_OPT_STR, KVS_OPT_SECRET, NULL, 0, 0, AT(secret), NULL, "A secret."},
    {"list", KVS_OPT_LIST, 0, NULL, 0, 0, AT(list), NULL, "Words."},
    KVS_OPTS_END,
};

/* libfyaml 0.7.12 loses 4 KiB on some broken documents. A configuration is read once. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml";
}

static void check(int holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

static void check_bounds(const struct conf *c)
{
    check(c->yes <= 1 && c->color <= 1, "a choice is out of bounds");
    check(c->number >= -10 && c->number <= 10, "a number is out of bounds");
    check(c->bytes >= 1 && c->bytes <= 1 << 20, "a size is out of bounds");
    check(c->duration_ms >= 1 && c->duration_ms <= 60000, "a duration is out of bounds");
    check(c->text != NULL && strlen(c->text) >= 1 && strlen(c->text) <= 20, "a text is too long");
    for (uint64_t i = 0; i < c->list.count; i++) {
        check(c->list.items[i] != NULL, "a word is missing");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size == 0 ? NULL : memchr(data, 0, size);
    size_t len = nul == NULL ? size : (size_t)(nul - data);
    char *document = malloc(len + 3), *set = malloc(size - len + 1), *shown = NULL;
    const char *sets[2];
    size_t shown_len = 0;
    struct conf conf = {0};
    struct kvs__conf *c;
    struct kvs_buf text;
    FILE *to = open_memstream(&shown, &shown_len);

    check(document != NULL && set != NULL && to != NULL, "out of memory");
    (void)snprintf(document, len + 3, "a=%.*s", (int)len, (const char *)data);
    memcpy(set, nul == NULL ? data : nul, size - len);
    set[size - len] = '\0';
    sets[0] = document;
    sets[1] = nul == NULL ? set : set + 1;
    c = kvs__conf_load(NULL, sets, nul == NULL ? 1 : 2);
    check(c != NULL, "no configuration");
    kvs__conf_apply(c, kvs__node_get(kvs__conf_root(c), "a"), "a", OPTIONS, &conf);
    if (kvs__conf_errors(c) == 0) {
        check_bounds(&conf);
    }
    kvs__conf_errors_print(c, to);
    kvs_buf_init(&text, kvs__mem_host(), &kvs__mem_core);
    if (kvs__conf_errors(c) == 0) {
        kvs__conf_print(&text, kvs__node_get(kvs__conf_root(c), "a"), "a", OPTIONS, &conf);
    }
    kvs_buf_fini(&text);
    kvs__conf_free(c);
    (void)fclose(to);
    free(shown);
    free(document);
    free(set);
    return 0;
}
