/* SPDX-License-Identifier: MIT
 *
 * Memory accounts of the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"

/* As a library linked into two plugins brings them. */
static const struct kvs_mem_tag ONE = {"test.same"}, OTHER = {"test.same"};

struct seen {
    int times;
    int64_t bytes;
};

static void see(void *arg, const char *name, int64_t bytes)
{
    struct seen *s = arg;

    if (strcmp(name, "test.same") == 0) {
        s->times++;
        s->bytes = bytes;
    }
}

/* Two tags of one name are one account: the metric of a name is a single series. */
static void test_mem__two_tags_of_one_name__are_one_account(void **state)
{
    struct seen s = {0, 0};
    void *a = kvs__mem_alloc(&ONE, 100), *b = kvs__mem_alloc(&OTHER, 23);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    kvs__mem_each(see, &s);
    assert_int_equal(s.times, 1);
    assert_int_equal(s.bytes, 123);
    kvs__mem_free(&OTHER, a, 100); /* given back by the other plugin */
    kvs__mem_free(&OTHER, b, 23);
    kvs__mem_each(see, &s);
    assert_int_equal(s.times, 2);
    assert_int_equal(s.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mem__two_tags_of_one_name__are_one_account),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
