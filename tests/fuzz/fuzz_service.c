/* SPDX-License-Identifier: MIT
 *
 * See fuzz_service.h. */
#include "fuzz_service.h"

#include <stdlib.h>

#include <sodium.h>

static const struct storage_conf CONF = {.idempotency_window_ms = 600000,
                                         .idempotency_keys_max = 1000};

void fuzz_service_open(struct fuzz_service *f)
{
    memset(f, 0, sizeof *f);
    fuzz_world_open(&f->world);
    FUZZ_CHECK(sodium_init() >= 0, "libsodium does not start");
    f->s = calloc(1, sizeof *f->s);
    FUZZ_CHECK(f->s != NULL, "out of memory");
    f->s->host = f->world.host;
    f->s->conf = &CONF;
    f->s->persistence = f->world.persistence;
    f->s->persistence_self = f->world.persistence_self;
    atomic_store(&f->s->recovered, 1);
    for (uint32_t i = 0; i < STORAGE_LOOP_MAX; i++) {
        f->s->loops[i].svc = f->s;
        f->s->loops[i].index = i;
    }
    memcpy(f->secondaries, FUZZ_SECONDARIES, sizeof f->secondaries);
    f->table = (struct table){.id = 1,
                              .partition_count = 3,
                              .secondary_count = FUZZ_SECONDARY_COUNT,
                              .acks = 2,
                              .ordered = 1,
                              .name = "t",
                              .seed = 7,
                              .limits = {.max_value_bytes = 1 << 20},
                              .compression = "lz4",
                              .index = "btree",
                              .secondaries = f->secondaries,
                              .leader_epochs = f->epochs};
    f->tables[0] = &f->table;
    f->map = (struct map){.version = 1, .table_count = 1, .tables = f->tables};
    FUZZ_CHECK(table_parts_new(f->s, &f->table, NULL) == 0, "no partitions");
    f->s->loops[0].map = &f->map;
}

static void on_closed(void *arg)
{
    int *left = arg;

    --*left;
}

void fuzz_service_close(struct fuzz_service *f)
{
    int left = 3;

    kvs_mock_enter(f->world.mock, 0);
    (void)kvs_mock_run(f->world.mock, 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct partition *p = f->table.parts[i]->partition;

        FUZZ_CHECK(partition_verify(p) == 0, "indexes differ from the items");
        partition_close(p, on_closed, &left);
    }
    (void)kvs_mock_run(f->world.mock, 10);
    FUZZ_CHECK(left == 0, "a partition does not come to rest");
    table_parts_free(f->s, &f->table);
    free(f->s);
    fuzz_world_close(&f->world);
}

const struct kvs_mock_answer *fuzz_ask(struct fuzz_service *f, const char *method,
                                       const char *const *params, struct kvs_slice body,
                                       const char *content_type)
{
    const struct kvs_mock_answer *answer;

    for (uint32_t i = 0; i < STORAGE_METHOD_COUNT; i++) {
        if (strcmp(STORAGE_METHODS[i].name, method) == 0) {
            answer = kvs_mock_request(f->world.mock, &STORAGE_METHODS[i], f->s, params, body,
                                      content_type);
            FUZZ_CHECK(answer->status >= 200 && answer->status != 500, "an answer of no sense");
            return answer;
        }
    }
    fuzz_fail("there is no such method");
}
