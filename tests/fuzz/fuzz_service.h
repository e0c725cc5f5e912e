/* SPDX-License-Identifier: MIT
 *
 * service-storage with one table "t" of three partitions, as far as requests need it. */
#ifndef KVS_TESTS_FUZZ_SERVICE_H
#define KVS_TESTS_FUZZ_SERVICE_H

#include "fuzz_world.h"
#include "storage.h"

struct fuzz_service {
    struct fuzz_world world;
    struct storage *s;
    struct table table;
    struct map map;
    struct table *tables[1];
    uint32_t epochs[3];
    struct secondary_def secondaries[FUZZ_SECONDARY_COUNT];
};

void fuzz_service_open(struct fuzz_service *f);
void fuzz_service_close(struct fuzz_service *f);
const struct kvs_mock_answer *fuzz_ask(struct fuzz_service *f, const char *method,
                                       const char *const *params, struct kvs_slice body,
                                       const char *content_type);

#endif
