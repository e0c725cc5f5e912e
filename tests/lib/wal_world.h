/* SPDX-License-Identifier: MIT
 *
 * journal_world.h for persistence-wal with segments so small that a test has many. */
#ifndef KVS_TESTS_WAL_WORLD_H
#define KVS_TESTS_WAL_WORLD_H

#include "journal_world.h"
#include "wal_private.h"

#define SEGMENT_SIZE 4096u

const struct kvs_plugin *kvs_plugin_entry(void);

static const struct wal_conf WAL_ALWAYS = {WAL_SYNC_ALWAYS, 100, SEGMENT_SIZE, 60000};

static inline struct world *wal_new(const struct wal_conf *conf, uint64_t seed, uint32_t loops)
{
    struct world *w = world_new(kvs_plugin_entry(), conf, seed, loops);

    world_start(w);
    world_recover(w);
    return w;
}

static inline void wal_again(struct world *w)
{
    world_start(w);
    world_recover(w);
}

static inline void wal_end(struct world *w)
{
    world_stop(w);
    world_free(w);
}

/* How many files' names begin so. */
static inline uint32_t file_count(struct world *w, const char *prefix)
{
    uint32_t n = 0;

    for (const char *const *f = kvs_mock_files(w->mock); *f != NULL; f++) {
        n += strncmp(*f, prefix, strlen(prefix)) == 0;
    }
    return n;
}

/* The last file whose name begins so; must exist. */
static inline uint8_t *file_last(struct world *w, const char *prefix, const char *suffix,
                                 char ret_path[128], size_t *ret_len)
{
    ret_path[0] = '\0';
    for (const char *const *f = kvs_mock_files(w->mock); *f != NULL; f++) {
        size_t n = strlen(*f), m = strlen(suffix);

        if (strncmp(*f, prefix, strlen(prefix)) == 0 && n >= m && strcmp(*f + n - m, suffix) == 0) {
            (void)snprintf(ret_path, 128, "%s", *f);
        }
    }
    assert_true(ret_path[0] != '\0');
    return kvs_mock_file(w->mock, ret_path, ret_len);
}

static inline uint8_t *segment_last(struct world *w, char ret_path[128], size_t *ret_len)
{
    return file_last(w, "journal/", ".seg", ret_path, ret_len);
}

#endif
