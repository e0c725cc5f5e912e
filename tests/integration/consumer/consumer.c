/* SPDX-License-Identifier: MIT
 *
 * A unit test of the template on the fake host, as sdk/README.md describes it. */
#include <stdio.h>

#include "kvs/hashing.h"
#include "kvs/mock.h"
#include "kvs/service.h"

const struct kvs_plugin *kvs_plugin_entry(void);

int main(void)
{
    const struct kvs_plugin *plugin = kvs_plugin_entry();
    const struct kvs_service_ops *ops = plugin->ops;
    struct kvs_mock *m = kvs_mock_new(&(struct kvs_mock_conf){.seed = 1});
    const struct kvs_mock_answer *answer;
    struct kvs_error err;
    uint32_t status;
    void *self;

    if (plugin->init(kvs_mock_host(m), NULL, &self, &err) != 0) {
        (void)fprintf(stderr, "init: %s\n", err.msg);
        return 1;
    }
    answer = kvs_mock_request(m, &ops->methods[0], self, NULL, kvs_slice(NULL, 0), NULL);
    status = answer->status;
    plugin->fini(self);
    kvs_mock_free(m);
    return status == 200 && kvs_hash_bucket(kvs_slice_str("key"), 7, 16) < 16 ? 0 : 1;
}
