/* SPDX-License-Identifier: MIT
 *
 * Contract of kind `compression`; see kvs/compression.h. Every destination lies between guards. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "kvs/compression.h"

#define GUARD        64u
#define GUARD_BYTE   0x5a
#define THREAD_COUNT 4u
#define SMALL        300u

enum shape { SHAPE_ZEROS, SHAPE_TEXT, SHAPE_RANDOM, SHAPE_MIXED, SHAPE_COUNT };

static const char *const SHAPE_NAMES[] = {"zeros", "text", "random bytes", "text and random bytes"};

static const struct kvs_compression_ops *ops;
static struct world world;

static void open_world(void)
{
    ops = check.plugin->ops;
    world_open(&world, 1, 1, 0);
    world_init(&world, check_conf(check.plugin, check.sets, check.set_count));
    if (check.plugin->start != NULL) {
        world_start(&world);
    }
}

/* size bytes with guards around them; freed by guarded_free, which looks at the guards. */
static uint8_t *guarded_new(size_t size)
{
    uint8_t *p = check_alloc(size + 2 * (size_t)GUARD);

    memset(p, GUARD_BYTE, size + 2 * (size_t)GUARD);
    return p + GUARD;
}

static void guarded_free(uint8_t *p, size_t size, const char *what)
{
    for (size_t i = 0; i < GUARD; i++) {
        CHECK(p[-(ptrdiff_t)GUARD + (ptrdiff_t)i] == GUARD_BYTE, "%s writes before its buffer",
              what);
        CHECK(p[size + i] == GUARD_BYTE, "%s writes beyond its buffer of %zu bytes", what, size);
    }
    free(p - GUARD);
}

static uint8_t *make_data(size_t len, enum shape shape, uint64_t seed)
{
    static const char TEXT[] =
        "{\"name\":\"package\",\"section\":\"libs\",\"installed_size\":12345}";
    uint8_t *p = check_alloc(len);

    for (size_t i = 0; i < len; i++) {
        int random = shape == SHAPE_RANDOM || (shape == SHAPE_MIXED && i / 1000 % 2 == 0);

        p[i] = random                 ? (uint8_t)check_random(&seed)
               : shape == SHAPE_ZEROS ? 0
                                      : (uint8_t)TEXT[i % (sizeof TEXT - 1)];
    }
    return p;
}

/* Compressed bytes in a buffer of their own, exactly as long. */
static uint8_t *compress_all(const uint8_t *data, size_t len, size_t *ret_len)
{
    size_t bound = ops->bound(world.self, len), n = 0;
    uint8_t *dst = guarded_new(bound), *exact;

    CHECK_CODE(ops->compress(world.self, kvs_slice(data, len), dst, bound, &n), 0,
               "compress into bound() bytes");
    CHECK(n <= bound, "%zu bytes become %zu, above bound() = %zu", len, n, bound);
    exact = check_alloc(n);
    memcpy(exact, dst, n);
    guarded_free(dst, bound, "compress");
    *ret_len = n;
    return exact;
}

static void round_trip(size_t len, enum shape shape)
{
    uint8_t *data = make_data(len, shape, len + 7), *packed, *out = guarded_new(len);
    size_t packed_len;

    packed = compress_all(data, len, &packed_len);
    CHECK_CODE(ops->decompress(world.self, kvs_slice(packed, packed_len), out, len), 0,
               "decompress of what compress wrote");
    CHECK(len == 0 || memcmp(out, data, len) == 0, "%zu bytes of %s come back changed", len,
          SHAPE_NAMES[shape]);
    guarded_free(out, len, "decompress");
    free(packed);
    free(data);
}

static void check_id(void)
{
    open_world();
    CHECK(ops->id >= 1 && ops->id <= 255, "id is %u, not 1 to 255", ops->id);
    world_close(&world);
}

static void check_round_trip(void)
{
    static const size_t SIZES[] = {0,    1,    2,     3,     7,     8,      15,     16,
                                   63,   64,   100,   255,   256,   1000,   4095,   4096,
                                   4097, 9999, 65535, 65536, 65537, 131072, 200001, 1u << 20};

    open_world();
    for (uint32_t shape = 0; shape < SHAPE_COUNT; shape++) {
        for (size_t i = 0; i < KVS_ARRAY_COUNT(SIZES); i++) {
            round_trip(SIZES[i], shape);
        }
    }
    world_close(&world);
}

static void check_largest_block(void)
{
    open_world();
    round_trip(KVS_COMPRESSION_BLOCK_MAX, SHAPE_TEXT);
    world_close(&world);
}

static void check_above_largest(void)
{
    size_t len = (size_t)KVS_COMPRESSION_BLOCK_MAX + 1, n;
    uint8_t *data, *dst;

    open_world();
    data = calloc(1, len);
    dst = check_alloc(len + 4096);
    CHECK(data != NULL, "out of memory");
    CHECK_CODE(ops->compress(world.self, kvs_slice(data, len), dst, len + 4096, &n), KVS_ETOOBIG,
               "compress of a block above KVS_COMPRESSION_BLOCK_MAX");
    free(dst);
    free(data);
    world_close(&world);
}

/* A destination of any size from 0 to enough: it fits and comes back, or KVS_ETOOBIG. */
static void check_small_destination(void)
{
    open_world();
    for (uint32_t shape = 0; shape < SHAPE_COUNT; shape++) {
        uint8_t *data = make_data(SMALL, shape, 5), out[SMALL];
        size_t bound = ops->bound(world.self, SMALL);

        for (size_t room = 0; room <= bound; room++) {
            uint8_t *dst = guarded_new(room);
            size_t n = 0;
            int rc = ops->compress(world.self, kvs_slice(data, SMALL), dst, room, &n);

            CHECK(rc == 0 || rc == KVS_ETOOBIG, "compress into %zu bytes returns %s", room,
                  check_code(rc));
            CHECK(rc != 0 || n <= room, "compress into %zu bytes claims %zu", room, n);
            CHECK(rc != 0 || (ops->decompress(world.self, kvs_slice(dst, n), out, SMALL) == 0 &&
                              memcmp(out, data, SMALL) == 0),
                  "compress into %zu bytes returns 0, but the block does not come back", room);
            CHECK(rc == 0 || room < bound, "compress into bound() bytes returns KVS_ETOOBIG");
            guarded_free(dst, room, "compress");
        }
        free(data);
    }
    world_close(&world);
}

/* How callers ask "did it shrink": room for one byte less than the input. */
static void check_not_shrunk(void)
{
    static const size_t SIZES[] = {1, 100, 4096, 65536};

    open_world();
    for (size_t i = 0; i < KVS_ARRAY_COUNT(SIZES); i++) {
        uint8_t *data = make_data(SIZES[i], SHAPE_RANDOM, i), *dst = guarded_new(SIZES[i] - 1);
        size_t n = 0;

        CHECK_CODE(ops->compress(world.self, kvs_slice(data, SIZES[i]), dst, SIZES[i] - 1, &n),
                   KVS_ETOOBIG, "compress of random bytes into one byte less");
        guarded_free(dst, SIZES[i] - 1, "compress");
        free(data);
    }
    world_close(&world);
}

/* ---- damage ------------------------------------------------------------------------------------
 */

static void decompress_damaged(const uint8_t *packed, size_t packed_len, size_t len, int must_fail,
                               const char *what)
{
    uint8_t *src = check_alloc(packed_len), *out = guarded_new(len);
    int rc;

    memcpy(src, packed, packed_len); /* exactly as long: sanitizers see reads beyond */
    rc = ops->decompress(world.self, kvs_slice(src, packed_len), out, len);
    CHECK(rc == KVS_ECORRUPT || (rc == 0 && !must_fail), "decompress of %s returns %s", what,
          check_code(rc));
    guarded_free(out, len, "decompress");
    free(src);
}

static void check_cut_or_longer(void)
{
    open_world();
    for (uint32_t shape = 0; shape < SHAPE_COUNT; shape++) {
        uint8_t *data = make_data(SMALL, shape, 9), *packed, longer[SMALL * 2 + 64];
        size_t n;

        packed = compress_all(data, SMALL, &n);
        for (size_t cut = 0; cut < n; cut++) {
            decompress_damaged(packed, cut, SMALL, 1, "a block that was cut");
        }
        CHECK(n < sizeof longer, "%u bytes become %zu", SMALL, n);
        memcpy(longer, packed, n);
        longer[n] = 0;
        decompress_damaged(longer, n + 1, SMALL, 1, "a block with a byte behind it");
        free(packed);
        free(data);
    }
    world_close(&world);
}

static void check_other_length(void)
{
    static const size_t SIZES[] = {1, 2, 100, 4096};

    open_world();
    for (size_t i = 0; i < KVS_ARRAY_COUNT(SIZES); i++) {
        size_t len = SIZES[i], n;
        uint8_t *data = make_data(len, SHAPE_TEXT, i), *packed = compress_all(data, len, &n);

        decompress_damaged(packed, n, 0, 1, "a block as if it were empty");
        decompress_damaged(packed, n, len - 1, 1, "a block as if it were one byte shorter");
        decompress_damaged(packed, n, len + 1, 1, "a block as if it were one byte longer");
        decompress_damaged(packed, n, len * 3, 1, "a block as if it were three times as long");
        free(packed);
        free(data);
    }
    world_close(&world);
}

static void check_bit_flips(void)
{
    open_world();
    for (uint32_t shape = 0; shape < SHAPE_COUNT; shape++) {
        uint8_t *data = make_data(SMALL, shape, 3), *packed;
        size_t n;

        packed = compress_all(data, SMALL, &n);
        for (size_t bit = 0; bit < n * 8; bit++) {
            packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            decompress_damaged(packed, n, SMALL, 0, "a block with a flipped bit");
            packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        free(packed);
        free(data);
    }
    world_close(&world);
}

static void check_random_input(void)
{
    uint64_t seed = 77;

    open_world();
    for (uint32_t i = 0; i < 20000; i++) {
        size_t len = check_random(&seed) % 200;
        uint8_t *junk = make_data(len, SHAPE_RANDOM, i);

        decompress_damaged(junk, len, check_random(&seed) % 500, 0, "random bytes");
        free(junk);
    }
    world_close(&world);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static void *thread_run(void *arg)
{
    const uint32_t *number = arg;

    for (uint32_t i = 0; i < 40; i++) {
        round_trip(1000 + *number * 7919u + i, i % SHAPE_COUNT);
    }
    return NULL;
}

static void check_threads(void)
{
    pthread_t threads[THREAD_COUNT];
    uint32_t numbers[THREAD_COUNT];

    open_world();
    for (uint32_t i = 0; i < THREAD_COUNT; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, thread_run, &numbers[i]) == 0, "no thread");
    }
    for (uint32_t i = 0; i < THREAD_COUNT; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    world_close(&world);
}

const struct check_case check_compression_cases[] = {
    {"its id fits a byte and is not 0", check_id},
    {"round trip of every size and shape", check_round_trip},
    {"round trip of the largest block", check_largest_block},
    {"a larger block is refused", check_above_largest},
    {"a destination too small is refused, nothing beyond is written", check_small_destination},
    {"random bytes do not shrink", check_not_shrunk},
    {"a block that was cut or has more behind it is damage", check_cut_or_longer},
    {"another length than the block's is damage", check_other_length},
    {"a flipped bit touches nothing outside", check_bit_flips},
    {"random input touches nothing outside", check_random_input},
    {"four threads at once", check_threads},
    {NULL, NULL},
};
