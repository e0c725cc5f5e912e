/* SPDX-License-Identifier: MIT
 *
 * Reading JSON without a tree; see kvs/support.h. */
#include <string.h>

#include "kvs/method.h"
#include "kvs/support.h"

enum { PLAIN = 0, QUOTE = 1, ESCAPE = 2, CONTROL = 3, HIGH = 4 };

/* What a byte means inside a string. */
static uint8_t class_of(unsigned char c)
{
    return c == '"' ? QUOTE : c == '\\' ? ESCAPE : c < 0x20 ? CONTROL : c >= 0x80 ? HIGH : PLAIN;
}

#define EACH_BYTE(b) (0x0101010101010101ull * (b))
#define IS_ZERO(w)   (((w)-EACH_BYTE(1)) & ~(w)&EACH_BYTE(0x80u))

/* Past the bytes at p that mean nothing special, eight at a time. */
static const char *skip_plain(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t w;

        memcpy(&w, p, 8);
        if ((((w - EACH_BYTE(0x20u)) & ~w) | w | IS_ZERO(w ^ EACH_BYTE(0x22u)) |
             IS_ZERO(w ^ EACH_BYTE(0x5cu))) &
            EACH_BYTE(0x80u)) {
            break;
        }
        p += 8;
    }
    return p;
}

static int wrong(struct kvs_json_reader *r, const char *what)
{
    if (r->wrong == NULL) {
        r->wrong = what;
    }
    return -1;
}

static void skip_space(struct kvs_json_reader *r)
{
    const char *p = r->at;

    while (p < r->end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) {
        p++;
    }
    r->at = p;
}

/* ---- strings -----------------------------------------------------------------------------------
 */

static int hex4(const char *p, uint32_t *ret)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)p[i];
        uint32_t digit = c >= '0' && c <= '9'   ? c - 48u
                         : c >= 'a' && c <= 'f' ? c - 87u
                         : c >= 'A' && c <= 'F' ? c - 55u
                                                : 16u;

        if (digit == 16) {
            return -1;
        }
        v = v << 4 | digit;
    }
    *ret = v;
    return 0;
}

static size_t utf8_put(uint32_t c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The code point behind \u at p; *ret_used bytes after the backslash. -1: not one. */
static int unicode_escape(const char *p, const char *end, uint32_t *ret_c, size_t *ret_used)
{
    uint32_t low;

    if (end - p < 5 || hex4(p + 1, ret_c) != 0) {
        return -1;
    }
    *ret_used = 5;
    if (*ret_c < 0xd800 || *ret_c > 0xdfff) {
        return 0;
    }
    /* A surrogate stands in a pair, or it is no text (RFC 8259, section 8.2). */
    if (*ret_c > 0xdbff || end - p < 11 || p[5] != '\\' || p[6] != 'u' || hex4(p + 7, &low) != 0 ||
        low < 0xdc00 || low > 0xdfff) {
        return -1;
    }
    *ret_c = 0x10000 + ((*ret_c - 0xd800) << 10) + (low - 0xdc00);
    *ret_used = 11;
    return 0;
}

/* Decode the escape whose letter is at p into to. Bytes used after the backslash, 0: not one. */
static size_t escape_decode(const char *p, const char *end, char *to, size_t *ret_len)
{
    static const char FROM[] = "\"\\/bfnrt", TO[] = "\"\\/\b\f\n\r\t";
    const char *found = p < end && *p != '\0' ? strchr(FROM, *p) : NULL;
    uint32_t c;
    size_t used;

    if (found != NULL) {
        *to = TO[found - FROM];
        *ret_len = 1;
        return 1;
    }
    if (p == end || *p != 'u' || unicode_escape(p, end, &c, &used) != 0) {
        return 0;
    }
    *ret_len = utf8_put(c, to);
    return used;
}

/* From the first escape at r->at on; `from` is the first byte of the string. */
static int string_slow(struct kvs_json_reader *r, const char *from, const char *close,
                       struct kvs_slice *ret)
{
    /* Decoded text is never longer than its source. */
    char *to = kvs_arena_alloc(r->arena, (size_t)(close - from) + 1);
    size_t n = 0;

    if (to == NULL) {
        return wrong(r, "out of memory");
    }
    for (const char *p = from; p < close;) {
        const char *esc = memchr(p, '\\', (size_t)(close - p));
        size_t plain = (size_t)((esc == NULL ? close : esc) - p), len, used;

        memcpy(to + n, p, plain);
        n += plain;
        p += plain;
        if (p < close) {
            used = escape_decode(p + 1, close, to + n, &len);
            if (used == 0) {
                r->at = p;
                return wrong(r, "not an escape");
            }
            n += len;
            p += 1 + used;
        }
    }
    *ret = kvs_slice(to, n);
    return 0;
}

/* Behind the opening quote. */
static int read_string(struct kvs_json_reader *r, struct kvs_slice *ret)
{
    const char *from = r->at, *p = from;
    int escapes = 0, high = 0;

    for (p = skip_plain(p, r->end); p < r->end; p++) {
        uint8_t c = class_of((unsigned char)*p);

        if (KVS_LIKELY(c == PLAIN)) {
            continue;
        }
        if (c == QUOTE) {
            break;
        }
        if (c == CONTROL) {
            r->at = p;
            return wrong(r, "a control character in a string must be escaped");
        }
        high |= c == HIGH;
        escapes |= c == ESCAPE;
        p += c == ESCAPE && p + 1 < r->end; /* an escaped quote does not end the string */
    }
    if (p >= r->end) {
        r->at = r->end;
        return wrong(r, "the string does not end");
    }
    *ret = kvs_slice(from, (size_t)(p - from));
    if (high && !kvs_utf8_valid(*ret)) {
        return wrong(r, "the string is not UTF-8");
    }
    if (escapes && string_slow(r, from, p, ret) != 0) {
        return -1;
    }
    r->at = p + 1;
    return 0;
}

/* ---- other values ------------------------------------------------------------------------------
 */

static const char *digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }
    return p;
}

static int read_number(struct kvs_json_reader *r, struct kvs_slice *ret)
{
    const char *from = r->at, *p = from + (*from == '-'), *at = p;

    p = digits(p, r->end);
    if (p == at || (*at == '0' && p > at + 1)) {
        return wrong(r, "not a number");
    }
    if (p < r->end && *p == '.') {
        at = p + 1;
        p = digits(at, r->end);
        if (p == at) {
            return wrong(r, "not a number: digits are missing behind the point");
        }
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        at = p + 1;
        at += at < r->end && (*at == '+' || *at == '-');
        p = digits(at, r->end);
        if (p == at) {
            return wrong(r, "not a number: the exponent has no digits");
        }
    }
    *ret = kvs_slice(from, (size_t)(p - from));
    r->at = p;
    return 0;
}

static int read_word(struct kvs_json_reader *r, const char *word, uint32_t type,
                     struct kvs_json_value *v)
{
    size_t n = strlen(word);

    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) {
        return wrong(r, "not a JSON value");
    }
    v->type = type;
    r->at += n;
    return 0;
}

void kvs_json_begin(struct kvs_json_reader *r, struct kvs_slice text, struct kvs_arena *arena)
{
    *r = (struct kvs_json_reader){
        .begin = text.ptr, .at = text.ptr, .end = text.ptr + text.len, .arena = arena};
}

int kvs_json_read(struct kvs_json_reader *r, struct kvs_json_value *v)
{
    *v = (struct kvs_json_value){.type = KVS_JSON_NULL};
    skip_space(r);
    if (r->wrong != NULL || r->at >= r->end) {
        return wrong(r, "a value is missing");
    }
    switch (*r->at) {
    case '"':
        v->type = KVS_JSON_STRING;
        r->at++;
        return read_string(r, &v->text);
    case '{':
        v->type = KVS_JSON_OBJECT;
        r->at++;
        return 0;
    case '[':
        v->type = KVS_JSON_ARRAY;
        r->at++;
        return 0;
    case 't':
        return read_word(r, "true", KVS_JSON_TRUE, v);
    case 'f':
        return read_word(r, "false", KVS_JSON_FALSE, v);
    case 'n':
        return read_word(r, "null", KVS_JSON_NULL, v);
    default:
        if (*r->at != '-' && (*r->at < '0' || *r->at > '9')) {
            return wrong(r, "not a JSON value");
        }
        v->type = KVS_JSON_NUMBER;
        return read_number(r, &v->text);
    }
}

/* 1: an element follows; 0: the container ended; -1. */
static int next(struct kvs_json_reader *r, uint32_t *count, char close)
{
    skip_space(r);
    if (r->wrong != NULL || r->at >= r->end) {
        return wrong(r, close == ']' ? "the array does not end" : "the object does not end");
    }
    if (*r->at == close) {
        r->at++;
        return 0;
    }
    if (*count > 0) {
        if (*r->at != ',') {
            return wrong(r, close == ']' ? "',' or ']' is missing" : "',' or '}' is missing");
        }
        r->at++;
        skip_space(r);
    }
    (*count)++;
    return 1;
}

int kvs_json_element(struct kvs_json_reader *r, uint32_t *count)
{
    return next(r, count, ']');
}

int kvs_json_member(struct kvs_json_reader *r, uint32_t *count, struct kvs_slice *ret_name)
{
    int more = next(r, count, '}');

    if (more <= 0) {
        return more;
    }
    if (r->at >= r->end || *r->at != '"') {
        return wrong(r, "a member begins with its name in quotes");
    }
    r->at++;
    if (read_string(r, ret_name) != 0) {
        return -1;
    }
    skip_space(r);
    if (r->at >= r->end || *r->at != ':') {
        return wrong(r, "':' is missing");
    }
    r->at++;
    return 1;
}

int kvs_json_skip(struct kvs_json_reader *r, const struct kvs_json_value *v)
{
    uint32_t counts[KVS_JSON_DEPTH_MAX], depth = 0;
    uint8_t is_object[KVS_JSON_DEPTH_MAX];
    struct kvs_json_value inner = *v;
    struct kvs_slice name;

    for (;;) {
        int more;

        if (inner.type == KVS_JSON_OBJECT || inner.type == KVS_JSON_ARRAY) {
            if (depth == KVS_JSON_DEPTH_MAX) {
                return wrong(r, "nested too deeply");
            }
            is_object[depth] = inner.type == KVS_JSON_OBJECT;
            counts[depth++] = 0;
        }
        do {
            if (depth == 0) {
                return 0;
            }
            more = is_object[depth - 1] ? kvs_json_member(r, &counts[depth - 1], &name)
                                        : kvs_json_element(r, &counts[depth - 1]);
            depth -= more == 0;
        } while (more == 0);
        if (more < 0 || kvs_json_read(r, &inner) != 0) {
            return -1;
        }
    }
}

int kvs_json_end(struct kvs_json_reader *r)
{
    skip_space(r);
    return r->wrong != NULL ? -1 : r->at == r->end ? 0 : wrong(r, "something follows the value");
}

void kvs_json_place(const struct kvs_json_reader *r, uint64_t *ret_line, uint64_t *ret_column)
{
    const char *line = r->begin;

    *ret_line = 1;
    for (const char *p = r->begin; p < r->at; p++) {
        if (*p == '\n') {
            (*ret_line)++;
            line = p + 1;
        }
    }
    *ret_column = (uint64_t)(r->at - line) + 1;
}
