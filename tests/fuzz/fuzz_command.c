/* SPDX-License-Identifier: MIT
 *
 * The metadata state machine: each line is one command, applied to two machines; the last line is
 * also read as a snapshot. Both machines end equal, and what a machine saves it loads again to the
 * same bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "kvs/mock.h"
#include "state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}

static void check_round_trip(const struct meta_state *s)
{
    struct meta_state other;
    char *text = state_save(s), *again;

    check(text != NULL, "a state cannot be saved");
    state_init(&other, s->host);
    check(state_load(&other, kvs_slice_str(text), NULL) == 0, "a saved state does not load");
    again = state_save(&other);
    check(again != NULL && strcmp(text, again) == 0, "a loaded state differs from the saved one");
    state_fini(&other);
    free(again);
    free(text);
}

static void check_equal(const struct meta_state *a, const struct meta_state *b)
{
    char *left = state_save(a), *right = state_save(b);

    check(left != NULL && right != NULL && strcmp(left, right) == 0, "two machines differ");
    free(left);
    free(right);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kvs_slice rest = {(const char *)data, size}, line = {"", 0};
    struct kvs_mock *mock = kvs_mock_new(&(struct kvs_mock_conf){.seed = 1});
    struct meta_state a, b;
    uint64_t index = 1;

    state_init(&a, kvs_mock_host(mock));
    state_init(&b, kvs_mock_host(mock));
    while (rest.len > 0) {
        const char *eol = memchr(rest.ptr, '\n', rest.len);
        size_t n = eol == NULL ? rest.len : (size_t)(eol - rest.ptr);
        uint64_t value_a = 0, value_b = 0;

        line = kvs_slice(rest.ptr, n);
        check(state_apply(&a, index, line, &value_a) == state_apply(&b, index, line, &value_b) &&
                  value_a == value_b,
              "two machines disagree");
        index++;
        n += eol != NULL;
        rest.ptr += n;
        rest.len -= n;
    }
    check_equal(&a, &b);
    check_round_trip(&a);
    if (state_load(&b, line, NULL) == 0) {
        check_round_trip(&b);
    }
    state_fini(&a);
    state_fini(&b);
    kvs_mock_free(mock);
    return 0;
}
