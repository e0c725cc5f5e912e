/* SPDX-License-Identifier: MIT
 *
 * Batches of operations: the first byte says how the request is made (1 NDJSON, 2 atomic,
 * 4 idempotency key, 8 acks=none), the rest is its body. It is sent twice, over the same items: the
 * answer is a result per operation, or a problem, and is JSON. */
#include <jansson.h>

#include "fuzz_service.h"

static void check_json(const struct kvs_mock_answer *answer, int ndjson)
{
    struct kvs_slice rest = answer->body;

    while (rest.len > 0) {
        const char *eol = ndjson ? memchr(rest.ptr, '\n', rest.len) : NULL;
        size_t n = eol == NULL ? rest.len : (size_t)(eol - rest.ptr);
        json_t *v = json_loadb(rest.ptr, n, JSON_ALLOW_NUL, NULL);

        FUZZ_CHECK(v != NULL, "an answer is not JSON");
        json_decref(v);
        n += eol != NULL;
        rest.ptr += n;
        rest.len -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_service f;
    const char *params[11] = {"table", "t"};
    unsigned how = size == 0 ? 0 : data[0];
    uint32_t n = 2;

    if (size == 0) {
        return 0;
    }
    fuzz_service_open(&f);
    if ((how & 2) != 0) {
        params[n++] = "atomic";
        params[n++] = "true";
    }
    if ((how & 4) != 0) {
        params[n++] = "Idempotency-Key";
        params[n++] = "k";
    }
    if ((how & 8) != 0) {
        params[n++] = "acks";
        params[n++] = "none";
    }
    params[n] = NULL;
    for (int i = 0; i < 2; i++) {
        const struct kvs_mock_answer *answer =
            fuzz_ask(&f, "items.batch", params, kvs_slice(data + 1, size - 1),
                     (how & 1) != 0 ? "application/x-ndjson" : "application/json");

        check_json(answer, (how & 1) != 0 && answer->status == 200);
    }
    (void)fuzz_ask(&f, "items.list", (const char *[]){"table", "t", NULL}, kvs_slice("", 0), NULL);
    fuzz_service_close(&f);
    return 0;
}
