/* SPDX-License-Identifier: MIT
 *
 * Cursors. As text: none but our own is accepted. As the bytes behind the signature, signed by us:
 * what a cursor of another version or a bug might say; a list and a query must cope. The first byte
 * chooses list or query and its order. */
#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>

#include "fuzz_service.h"

#define VARIANT sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define HEAD    17u
#define MAC     16u

static void fill(struct fuzz_service *f)
{
    static const char BODY[] =
        "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\",\"indexes\":{\"tag\":\"x\",\"size\":1}},"
        "{\"op\":\"put\",\"key\":\"b\",\"value\":\"2\",\"indexes\":{\"tag\":[\"x\",\"y\"]}},"
        "{\"op\":\"put\",\"key\":\"c\",\"value\":\"{\\\"color\\\":\\\"red\\\"}\","
        "\"content_type\":\"application/json\",\"indexes\":{\"tag\":\"\",\"size\":-2.5}},"
        "{\"op\":\"put\",\"key\":\"d\",\"value\":\"4\",\"indexes\":{\"tag\":\"z\",\"size\":1}}]";

    (void)fuzz_ask(f, "items.batch", (const char *[]){"table", "t", NULL}, kvs_slice_str(BODY),
                   "application/json");
}

static const struct kvs_mock_answer *page(struct fuzz_service *f, unsigned how, const char *cursor)
{
    const char *list[] = {"table", "t", "limit", "1", NULL, NULL, NULL};
    const char *query[] = {"table", "t",   "index", (how & 4) != 0 ? "size" : "tag",
                           "order", "asc", "limit", "1",
                           NULL,    NULL,  NULL};

    if ((how & 2) != 0) {
        query[5] = "desc";
    }
    if (cursor != NULL) {
        list[4] = query[8] = "cursor";
        list[5] = query[9] = cursor;
    }
    return fuzz_ask(f, (how & 1) != 0 ? "items.query" : "items.list", (how & 1) != 0 ? query : list,
                    kvs_slice("", 0), NULL);
}

/* The cursor of a first page, as bytes. */
static size_t first_cursor(struct fuzz_service *f, unsigned how, uint8_t *to, size_t size)
{
    const struct kvs_mock_answer *answer = page(f, how, NULL);
    char text[4096], *at, *end;
    size_t len = 0;

    FUZZ_CHECK(answer->status == 200 && answer->body.len < sizeof text, "no first page");
    memcpy(text, answer->body.ptr, answer->body.len);
    text[answer->body.len] = '\0';
    at = strstr(text, "\"next\":\"");
    FUZZ_CHECK(at != NULL, "a first page has no next");
    at += 8;
    end = strchr(at, '"');
    FUZZ_CHECK(end != NULL && sodium_base642bin(to, size, at, (size_t)(end - at), NULL, &len, NULL,
                                                VARIANT) == 0,
               "a cursor is not base64");
    return len;
}

/* Put `position` into the cursor and sign it again. */
static void signed_page(struct fuzz_service *f, unsigned how, const uint8_t *position, size_t len)
{
    uint8_t bytes[8192];
    char text[12000];
    size_t n = first_cursor(f, how, bytes, sizeof bytes);

    len = len < 4000 ? len : 4000;
    FUZZ_CHECK(n > HEAD + MAC, "a cursor is too short");
    memcpy(bytes + HEAD, position, len);
    (void)crypto_generichash(bytes + HEAD + len, MAC, bytes, HEAD + len, f->s->secret,
                             sizeof f->s->secret);
    (void)sodium_bin2base64(text, sizeof text, bytes, HEAD + len + MAC, VARIANT);
    FUZZ_CHECK(page(f, how, text)->status == 200, "a signed cursor is refused");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_service f;
    char *text;

    if (size == 0) {
        return 0;
    }
    text = malloc(size);
    FUZZ_CHECK(text != NULL, "out of memory");
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    fuzz_service_open(&f);
    fill(&f);
    FUZZ_CHECK(page(&f, data[0], text)->status == 400, "a made-up cursor is accepted");
    signed_page(&f, data[0], data + 1, size - 1);
    fuzz_service_close(&f);
    free(text);
    return 0;
}
