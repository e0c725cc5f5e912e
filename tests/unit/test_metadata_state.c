/* SPDX-License-Identifier: MIT
 *
 * The metadata state machine: determinism, validation, saving and loading, hostile input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kvs/mock.h"
#include "state.h"

struct fixture {
    struct kvs_mock *mock;
    struct meta_state s;
    uint64_t index;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->mock = kvs_mock_new(&(struct kvs_mock_conf){.seed = 3});
    state_init(&f->s, kvs_mock_host(f->mock));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    state_fini(&f->s);
    kvs_mock_free(f->mock);
    free(f);
    return 0;
}

static int apply(struct fixture *f, const char *command)
{
    uint64_t value;

    return state_apply(&f->s, ++f->index, kvs_slice_str(command), &value);
}

static void add_node(struct fixture *f, int i)
{
    char text[300];

    (void)snprintf(
        text, sizeof text,
        "{\"op\":\"node.register\",\"id\":\"n%d\",\"rack\":\"r%d\",\"incarnation\":\"%d\","
        "\"endpoints\":[\"http://127.0.0.1:%d\"],\"now\":5}",
        i, i % 2, i, 9000 + i);
    assert_int_equal(apply(f, text), 0);
}

static int create(struct fixture *f, const char *body)
{
    char text[2000];

    (void)snprintf(text, sizeof text,
                   "{\"op\":\"table.create\",\"seed\":\"00000000000000ab\",\"now\":7,\"body\":%s}",
                   body);
    return apply(f, text);
}

/* Every replica sits on a node of its own, racks differ where they can, leaders spread. */
static void test_state__create_table__places_replicas_evenly(void **state)
{
    struct fixture *f = *state;
    uint32_t leads[4] = {0};
    struct meta_table *t;

    for (int i = 0; i < 4; i++) {
        add_node(f, i);
    }
    assert_int_equal(create(f, "{\"name\":\"t\",\"partitions\":8,\"replication_factor\":2}"), 0);
    t = state_table(&f->s, "t");
    assert_non_null(t);
    for (uint32_t i = 0; i < 8; i++) {
        struct meta_partition *p = &t->partitions[i];

        assert_int_equal(p->replica_count, 2);
        assert_int_equal(p->isr_count, 2);
        assert_int_equal(p->leader, p->replicas[0]);
        assert_string_not_equal(f->s.nodes[p->replicas[0]].rack, f->s.nodes[p->replicas[1]].rack);
        leads[p->leader]++;
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(leads[i], 2);
    }
}

/* What a table may not be is refused, by a code that tells why, and changes nothing. */
static void test_state__bad_tables__are_refused(void **state)
{
    static const struct {
        const char *body;
        int code;
    } CASES[] = {
        {"{}", KVS_EINVAL},
        {"{\"name\":\"T\"}", KVS_EINVAL},
        {"{\"name\":\"9t\"}", KVS_EINVAL},
        {"{\"name\":\"t\",\"partitions\":0}", KVS_EINVAL},
        {"{\"name\":\"t\",\"partitions\":4097}", KVS_EINVAL},
        {"{\"name\":\"t\",\"partitions\":\"many\"}", KVS_EINVAL},
        {"{\"name\":\"t\",\"replication_factor\":1,\"min_in_sync_replicas\":2}", KVS_EINVAL},
        {"{\"name\":\"t\",\"replication_factor\":3,\"min_in_sync_replicas\":2}", KVS_ENOREPLICAS},
        {"{\"name\":\"t\",\"ttl\":\"soon\"}", KVS_EINVAL},
        {"{\"name\":\"t\",\"acks\":\"most\"}", KVS_EINVAL},
        {"{\"name\":\"t\",\"max_value_bytes\":16777217}", KVS_EINVAL},
        {"{\"name\":\"t\",\"partition\":3}", KVS_EINVAL},
        {"{\"name\":\"t\",\"indexes\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", KVS_ECONFLICT},
        {"{\"name\":\"t\",\"indexes\":[{\"name\":\"a\",\"path\":\"b\"}]}", KVS_EINVAL},
        {"{\"name\":\"t\",\"indexes\":[{\"name\":\"a\",\"type\":\"date\"}]}", KVS_EINVAL},
        {"[]", KVS_EINVAL},
    };
    struct fixture *f = *state;
    uint64_t version;

    add_node(f, 0);
    version = f->s.version;
    for (size_t i = 0; i < KVS_ARRAY_COUNT(CASES); i++) {
        assert_int_equal(create(f, CASES[i].body), CASES[i].code);
    }
    assert_int_equal(f->s.table_count, 0);
    assert_int_equal(f->s.version, version);
    assert_int_equal(create(f, "{\"name\":\"t\"}"), 0);
    assert_int_equal(create(f, "{\"name\":\"t\"}"), KVS_EEXIST);
}

/* The messages name the member and the nearest known word. */
static void test_spec__unknown_member__names_the_nearest(void **state)
{
    json_t *body = json_loads("{\"name\":\"t\",\"replication_facto\":3}", 0, NULL);
    struct meta_spec spec;
    char name[KVS_TABLE_NAME_SIZE_MAX + 1];
    uint32_t next = 1;
    const char *member;
    struct kvs_error err;

    (void)state;
    spec_defaults(&spec, 1);
    assert_int_equal(spec_parse(body, SPEC_CREATE, &spec, name, &next, &member, &err), KVS_EINVAL);
    assert_string_equal(
        err.msg, "member 'replication_facto' is not known. Did you mean 'replication_factor'?");
    json_decref(body);
}

/* Indexes keep their id while they stay the same; a number is never given twice. */
static void test_state__alter_indexes__ids_are_never_reused(void **state)
{
    struct fixture *f = *state;
    struct meta_table *t;

    add_node(f, 0);
    assert_int_equal(create(f, "{\"name\":\"t\",\"indexes\":[{\"name\":\"a\"},{\"name\":\"b\"}]}"),
                     0);
    t = state_table(&f->s, "t");
    assert_int_equal(t->spec.indexes[1].id, 2);
    assert_int_equal(apply(f, "{\"op\":\"table.alter\",\"name\":\"t\",\"body\":"
                              "{\"drop_indexes\":[\"a\"],\"add_indexes\":[{\"name\":\"c\"}]}}"),
                     0);
    assert_int_equal(t->spec.index_count, 2);
    assert_string_equal(t->spec.indexes[0].name, "b");
    assert_int_equal(t->spec.indexes[0].id, 2);
    assert_int_equal(t->spec.indexes[1].id, 3);
    assert_int_equal(apply(f, "{\"op\":\"table.alter\",\"name\":\"t\",\"body\":{\"indexes\":"
                              "[{\"name\":\"c\"},{\"name\":\"b\",\"type\":\"number\"}]}}"),
                     0);
    assert_int_equal(t->spec.indexes[0].id, 3);
    assert_true(t->spec.indexes[1].id > 3);
    assert_int_equal(
        apply(f, "{\"op\":\"table.alter\",\"name\":\"t\",\"body\":{\"partitions\":9}}"),
        KVS_EINVAL);
    assert_int_equal(apply(f, "{\"op\":\"table.alter\",\"name\":\"x\",\"body\":{}}"),
                     KVS_ENOTFOUND);
}

/* R7, R9: a node that registers anew gets a new epoch and its partitions a new leader epoch; the
 * same incarnation may retry without effect; a fenced node leads nothing. */
static void test_state__node_life__elections_bump_epochs(void **state)
{
    struct fixture *f = *state;
    struct meta_partition *p;

    add_node(f, 0);
    assert_int_equal(create(f, "{\"name\":\"t\",\"partitions\":1}"), 0);
    p = &state_table(&f->s, "t")->partitions[0];
    assert_int_equal(p->leader_epoch, 1);
    add_node(f, 0);
    assert_int_equal(p->leader_epoch, 1);
    assert_int_equal(apply(f,
                           "{\"op\":\"node.register\",\"id\":\"n0\",\"rack\":\"\",\"incarnation\":"
                           "\"77\",\"endpoints\":[],\"now\":9}"),
                     0);
    assert_int_equal(p->leader_epoch, 2);
    assert_int_equal(p->leader, 0);
    assert_int_equal(apply(f, "{\"op\":\"node.state\",\"id\":\"n0\",\"state\":1}"), 0);
    assert_int_equal(p->leader, -1);
    assert_int_equal(p->leader_epoch, 3);
    assert_int_equal(apply(f, "{\"op\":\"node.state\",\"id\":\"n0\",\"state\":0}"), 0);
    assert_int_equal(p->leader, 0);
    assert_int_equal(p->leader_epoch, 4);
    assert_int_equal(apply(f, "{\"op\":\"node.state\",\"id\":\"nx\",\"state\":0}"), KVS_ENOTFOUND);
}

/* Two machines fed the same log, one of them saved and loaded half-way, are equal byte by byte. */
static void test_state__same_log__same_bytes(void **state)
{
    static const char *const LOG[] = {
        "{\"op\":\"cluster.init\",\"cluster_id\":\"c1\",\"secret\":"
        "\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}",
        "{\"op\":\"node.register\",\"id\":\"a\",\"rack\":\"r\",\"incarnation\":\"1\",\"endpoints\":"
        "[],"
        "\"now\":1}",
        "{\"op\":\"table.create\",\"seed\":\"1\",\"now\":2,\"body\":{\"name\":\"zz\",\"ttl\":"
        "\"5m\","
        "\"indexes\":[{\"name\":\"i\",\"path\":\"/x\",\"type\":\"number\"}]}}",
        "{\"op\":\"table.create\",\"seed\":\"2\",\"now\":3,\"body\":{\"name\":\"aa\",\"max_items\":"
        "5}}",
        "garbage",
        "{\"op\":\"setting.set\",\"values\":{\"lease\":\"1s\",\"default_partitions\":3}}",
        "{\"op\":\"table.drop\",\"name\":\"zz\"}",
        "{\"op\":\"table.create\",\"seed\":\"3\",\"now\":4,\"body\":{\"name\":\"bb\"}}",
        "{\"op\":\"setting.set\",\"values\":{\"lease\":null}}",
    };
    struct fixture *f = *state;
    struct meta_state other;
    struct kvs_error err;
    char *one, *two;

    state_init(&other, f->s.host);
    for (uint64_t i = 0; i < KVS_ARRAY_COUNT(LOG); i++) {
        uint64_t a, b;

        assert_int_equal(state_apply(&f->s, i, kvs_slice_str(LOG[i]), &a),
                         state_apply(&other, i, kvs_slice_str(LOG[i]), &b));
        assert_true(a == b);
        one = state_save(&other);
        assert_int_equal(state_load(&other, kvs_slice_str(one), &err), 0);
        free(one);
    }
    one = state_save(&f->s);
    two = state_save(&other);
    assert_string_equal(one, two);
    assert_int_equal(state_table(&f->s, "bb")->spec.partitions, 3);
    free(one);
    free(two);
    state_fini(&other);
}

/* A damaged or foreign snapshot is refused whole, and the state stays as it was. */
static void test_state__damaged_snapshot__is_refused(void **state)
{
    struct fixture *f = *state;
    struct kvs_error err;
    char *text, *again;
    size_t len, refused = 0;

    add_node(f, 0);
    assert_int_equal(create(f, "{\"name\":\"t\",\"partitions\":2,\"indexes\":[{\"name\":\"i\"}]}"),
                     0);
    text = state_save(&f->s);
    len = strlen(text);
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_not_equal(state_load(&f->s, kvs_slice(text, cut), &err), 0);
    }
    for (size_t i = 0; i < len; i++) {
        struct meta_state copy;

        text[i] ^= 1;
        state_init(&copy, f->s.host);
        refused += state_load(&copy, kvs_slice(text, len), &err) != 0;
        state_fini(&copy);
        text[i] ^= 1;
    }
    assert_true(refused > len / 3); /* the log's checksums find the rest; here: nothing crashes */
    again = state_save(&f->s);
    assert_string_equal(text, again);
    assert_int_equal(state_load(&f->s, kvs_slice_str("{\"format\":99}"), &err), KVS_EFORMAT);
    free(text);
    free(again);
}

/* A copy is whole, and what happens to the original afterwards does not reach it. */
static void test_state__copy__is_independent(void **state)
{
    struct fixture *f = *state;
    struct meta_state copy;
    char *before, *after;

    add_node(f, 0);
    assert_int_equal(create(f, "{\"name\":\"t\"}"), 0);
    assert_int_equal(state_copy(&f->s, &copy), 0);
    before = state_save(&f->s);
    assert_int_equal(apply(f, "{\"op\":\"table.drop\",\"name\":\"t\"}"), 0);
    add_node(f, 1);
    after = state_save(&copy);
    assert_string_equal(before, after);
    free(before);
    free(after);
    state_fini(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_state__create_table__places_replicas_evenly, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_state__bad_tables__are_refused, setup, teardown),
        cmocka_unit_test(test_spec__unknown_member__names_the_nearest),
        cmocka_unit_test_setup_teardown(test_state__alter_indexes__ids_are_never_reused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_state__node_life__elections_bump_epochs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_state__same_log__same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state__damaged_snapshot__is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state__copy__is_independent, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
