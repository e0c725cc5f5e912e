/* SPDX-License-Identifier: MIT
 *
 * Text of durations, sizes and numbers, percent-encoding, nearest words; see kvs/support.h. */
#include <inttypes.h>
#include <stdio.h>

#include "kvs/support.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: the printers take the first that divides the value. */
static const struct unit DURATIONS[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0},
};

static const struct unit SIZES[] = {
    {"TiB", 1ULL << 40}, {"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}, {"", 1},
    {NULL, 0},
};

int kvs_u64_parse(struct kvs_slice text, uint64_t *ret_v)
{
    uint64_t v = 0;

    if (text.len == 0) {
        return KVS_EINVAL;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)(unsigned char)text.ptr[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
            return KVS_EINVAL;
        }
        v = v * 10 + digit;
    }
    *ret_v = v;
    return 0;
}

static int unit_parse(struct kvs_slice text, const struct unit *units, uint64_t *ret_v)
{
    size_t digits = 0;
    struct kvs_slice name;
    uint64_t v;

    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    if (kvs_u64_parse(kvs_slice(text.ptr, digits), &v) != 0) {
        return KVS_EINVAL;
    }
    name = kvs_slice(text.ptr + digits, text.len - digits);
    for (; units->name != NULL; units++) {
        if (kvs_slice_eq_str(name, units->name)) {
            if (v > UINT64_MAX / units->factor) {
                return KVS_EINVAL;
            }
            *ret_v = v * units->factor;
            return 0;
        }
    }
    return KVS_EINVAL;
}

static const char *unit_text(uint64_t v, const struct unit *units, const char *zero, char buf[32])
{
    if (v == 0) {
        return zero;
    }
    while (v % units->factor != 0) {
        units++;
    }
    (void)snprintf(buf, 32, "%" PRIu64 "%s", v / units->factor, units->name);
    return buf;
}

int kvs_duration_parse(struct kvs_slice text, uint64_t *ret_ms)
{
    return unit_parse(text, DURATIONS, ret_ms);
}

int kvs_bytes_parse(struct kvs_slice text, uint64_t *ret_bytes)
{
    return unit_parse(text, SIZES, ret_bytes);
}

const char *kvs_duration_text(uint64_t ms, char buf[32])
{
    return unit_text(ms, DURATIONS, "0ms", buf);
}

const char *kvs_bytes_text(uint64_t bytes, char buf[32])
{
    return unit_text(bytes, SIZES, "0", buf);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int kvs_percent_decode(struct kvs_slice text, int plus, char *dst, size_t dst_size, size_t *ret_len)
{
    size_t o = 0;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == '%') {
            int high = i + 2 < text.len ? hex_value(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;

            if (high < 0 || low < 0) {
                return KVS_EINVAL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (o == dst_size) {
            return KVS_EINVAL;
        }
        dst[o++] = c;
    }
    *ret_len = o;
    return 0;
}

static int is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void kvs_percent_encode(struct kvs_buf *b, struct kvs_slice bytes)
{
    static const char HEX[] = "0123456789ABCDEF";

    for (size_t i = 0; i < bytes.len; i++) {
        unsigned char c = (unsigned char)bytes.ptr[i];

        if (is_unreserved(c)) {
            kvs_buf_append(b, &bytes.ptr[i], 1);
        } else {
            char out[3] = {'%', HEX[c >> 4], HEX[c & 15]};

            kvs_buf_append(b, out, 3);
        }
    }
}

#define NEAREST_WORD_MAX 64u

/* Edit distance with swaps of neighbours as one step (optimal string alignment). */
static unsigned edit_distance(struct kvs_slice a, struct kvs_slice b)
{
    unsigned rows[3][NEAREST_WORD_MAX + 1];

    for (unsigned j = 0; j <= b.len; j++) {
        rows[0][j] = j;
    }
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

        now[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned best = last[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);

            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] && a.ptr[i - 2] == b.ptr[j - 1] &&
                before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            now[j] = best;
        }
    }
    return rows[a.len % 3][b.len];
}

const char *kvs_nearest(struct kvs_slice given, const char *const *words)
{
    const char *best = NULL;
    unsigned best_distance = 0;

    if (given.len == 0 || given.len > NEAREST_WORD_MAX) {
        return NULL;
    }
    for (; *words != NULL; words++) {
        struct kvs_slice word = kvs_slice_str(*words);
        unsigned d, limit;

        if (word.len > NEAREST_WORD_MAX) {
            continue;
        }
        d = edit_distance(given, word);
        limit = (unsigned)(given.len > word.len ? given.len : word.len) / 3 + 1;
        if (d <= limit && d < word.len && (best == NULL || d < best_distance)) {
            best = *words;
            best_distance = d;
        }
    }
    return best;
}
