/* SPDX-License-Identifier: MIT
 *
 * Writing JSON text straight into a buffer, for answers on the hot path; see kvs/support.h. Runs of
 * bytes that need no escape are copied whole. */
#include "kvs/support.h"

static const char HEX[] = "0123456789abcdef";

/* Does this byte of a UTF-8 text need an escape in a JSON string (RFC 8259, section 7)? */
static int needs_escape(unsigned char c)
{
    return c < 0x20 || c == '"' || c == '\\' || c == 0x7f;
}

static size_t escape(unsigned char c, char out[6])
{
    static const char SHORT[][2] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                    {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

    out[0] = '\\';
    for (size_t i = 0; i < KVS_ARRAY_COUNT(SHORT); i++) {
        if ((unsigned char)SHORT[i][0] == c) {
            out[1] = SHORT[i][1];
            return 2;
        }
    }
    out[1] = 'u';
    out[2] = '0';
    out[3] = '0';
    out[4] = HEX[c >> 4];
    out[5] = HEX[c & 15];
    return 6;
}

void kvs_json_str(struct kvs_buf *b, struct kvs_slice text)
{
    size_t from = 0;

    kvs_buf_append(b, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];

        if (KVS_UNLIKELY(needs_escape(c))) {
            char out[6];

            kvs_buf_append(b, text.ptr + from, i - from);
            kvs_buf_append(b, out, escape(c, out));
            from = i + 1;
        }
    }
    if (from < text.len) {
        kvs_buf_append(b, text.ptr + from, text.len - from);
    }
    kvs_buf_append(b, "\"", 1);
}

void kvs_json_u64(struct kvs_buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    kvs_buf_append(b, digits + at, sizeof digits - at);
}

/* Length of the UTF-8 sequence at p of at most n bytes, 0 if it is none (RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF). */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char c = p[0];
    unsigned char low = 0x80, high = 0xbf;
    size_t len;

    if (c >= 0xc2 && c <= 0xdf) {
        len = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        len = 3;
        low = c == 0xe0 ? 0xa0 : 0x80;
        high = c == 0xed ? 0x9f : 0xbf;
    } else if (c >= 0xf0 && c <= 0xf4) {
        len = 4;
        low = c == 0xf0 ? 0x90 : 0x80;
        high = c == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (n < len || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }
    return len;
}

int kvs_utf8_valid(struct kvs_slice text)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    size_t i = 0;

    while (i < text.len) {
        uint64_t word;
        size_t len;

        if (text.len - i >= 8) {
            memcpy(&word, p + i, 8);
            if ((word & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        len = utf8_sequence(p + i, text.len - i);
        if (len == 0) {
            return 0;
        }
        i += len;
    }
    return 1;
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void kvs_base64(struct kvs_buf *b, struct kvs_slice bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.ptr;
    size_t len = bytes.len;
    char *at;

    if (len == 0 || len > SIZE_MAX / 2) {
        b->failed |= len != 0;
        return;
    }
    at = kvs_buf_reserve(b, (len + 2) / 3 * 4);
    if (at == NULL) {
        return;
    }
    b->len += (len + 2) / 3 * 4;
    for (; len >= 3; len -= 3, p += 3) {
        *at++ = BASE64[p[0] >> 2];
        *at++ = BASE64[(p[0] & 3) << 4 | p[1] >> 4];
        *at++ = BASE64[(p[1] & 15) << 2 | p[2] >> 6];
        *at++ = BASE64[p[2] & 63];
    }
    if (len > 0) {
        unsigned char second = len == 2 ? p[1] : 0;

        *at++ = BASE64[p[0] >> 2];
        *at++ = BASE64[(p[0] & 3) << 4 | second >> 4];
        *at++ = len == 2 ? BASE64[(second & 15) << 2] : '=';
        *at++ = '=';
    }
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int kvs_base64_decode(struct kvs_slice text, void *dst, size_t dst_size, size_t *ret_len)
{
    unsigned char *out = (unsigned char *)dst;
    size_t pad = 0, len;

    if (text.len % 4 != 0) {
        return KVS_EINVAL;
    }
    while (pad < 2 && pad < text.len && text.ptr[text.len - 1 - pad] == '=') {
        pad++;
    }
    len = text.len / 4 * 3 - pad;
    if (len > dst_size) {
        return KVS_EINVAL;
    }
    for (size_t i = 0, o = 0; i < text.len; i += 4) {
        uint32_t word = 0;
        size_t digits = i + 4 == text.len ? 4 - pad : 4;

        for (size_t k = 0; k < 4; k++) {
            int v = k < digits ? base64_value(text.ptr[i + k]) : 0;

            if (v < 0) {
                return KVS_EINVAL;
            }
            word = word << 6 | (uint32_t)v;
        }
        /* Bits behind the last byte must be zero: one text per byte string. */
        if ((digits == 3 && (word & 0xff) != 0) || (digits == 2 && (word & 0xffff) != 0)) {
            return KVS_EINVAL;
        }
        for (size_t k = 0; k + 1 < digits; k++) {
            out[o++] = (unsigned char)(word >> (16 - 8 * k));
        }
    }
    *ret_len = len;
    return 0;
}

void kvs_json_bytes_member(struct kvs_buf *b, const char *name, struct kvs_slice bytes)
{
    kvs_buf_append(b, "\"", 1);
    kvs_buf_append_str(b, name);
    if (kvs_utf8_valid(bytes)) {
        kvs_buf_append(b, "\":", 2);
        kvs_json_str(b, bytes);
    } else {
        kvs_buf_append(b, "_base64\":\"", 10);
        kvs_base64(b, bytes);
        kvs_buf_append(b, "\"", 1);
    }
}
