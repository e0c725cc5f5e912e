/* SPDX-License-Identifier: MIT
 *
 * The support library: codes, numbers, JSON text, percent-encoding, checksums, batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kvs/batch.h"
#include "kvs/mock.h"
#include "kvs/support.h"

static const struct kvs_mem_tag TAG = {"test"};

static int make_host(void **state)
{
    *state = kvs_mock_new(&(struct kvs_mock_conf){.seed = 1});
    return *state == NULL;
}

static int free_host(void **state)
{
    kvs_mock_free(*state);
    return 0;
}

/* A wrapped error reads from the outside in, and a message too long for its buffer says so. */
static void test_error__wrapped_and_cut__reads_well(void **state)
{
    struct kvs_error err;
    char longer[400];

    (void)state;
    assert_int_equal(kvs_err(&err, KVS_EIO, "read '%s'", "7.seg"), KVS_EIO);
    assert_int_equal(kvs_err_wrap(&err, "load segment %d", 7), KVS_EIO);
    assert_string_equal(err.msg, "load segment 7: read '7.seg'");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)kvs_err(&err, KVS_EINVAL, "%s", longer);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_string_equal(err.msg + sizeof err.msg - 4, "...");
    assert_int_equal(kvs_err(NULL, KVS_ENOSPC, "ignored"), KVS_ENOSPC);
}

/* Published check values of CRC-32C (RFC 3720, B.4), and every split gives the same sum. */
static void test_crc32c__known_vectors_and_splits__agree(void **state)
{
    static uint8_t bytes[4096];
    uint32_t whole;

    (void)state;
    assert_int_equal(kvs_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(kvs_crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_int_equal(kvs_crc32c(0, bytes, 32), 0x62a8ab43u);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 131 + (i >> 5));
    }
    whole = kvs_crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut += 7) {
        uint32_t part = kvs_crc32c(0, bytes, cut);

        assert_int_equal(kvs_crc32c(part, bytes + cut, sizeof bytes - cut), whole);
    }
}

/* Durations and sizes: units are required where they matter, overflow is refused, text round-trips.
 */
static void test_units__parse_and_print__round_trip(void **state)
{
    static const char *const BAD[] = {"",    "5", "s", "1.5s", "-1s", "99999999999999999999s",
                                      "5 s", NULL};
    uint64_t v;
    char buf[32];

    (void)state;
    assert_int_equal(kvs_duration_parse(kvs_slice_str("24h"), &v), 0);
    assert_int_equal(v, 86400000);
    assert_string_equal(kvs_duration_text(v, buf), "1d");
    assert_string_equal(kvs_duration_text(1500, buf), "1500ms");
    for (size_t i = 0; BAD[i] != NULL; i++) {
        assert_int_equal(kvs_duration_parse(kvs_slice_str(BAD[i]), &v), KVS_EINVAL);
    }
    assert_int_equal(kvs_bytes_parse(kvs_slice_str("64MiB"), &v), 0);
    assert_int_equal(v, 64u << 20);
    assert_string_equal(kvs_bytes_text(v, buf), "64MiB");
    assert_int_equal(kvs_bytes_parse(kvs_slice_str("64MB"), &v), KVS_EINVAL);
    assert_int_equal(kvs_u64_parse(kvs_slice_str("18446744073709551615"), &v), 0);
    assert_int_equal(kvs_u64_parse(kvs_slice_str("18446744073709551616"), &v), KVS_EINVAL);
}

/* Percent-decoding gives any byte, NUL too; broken escapes are refused at every place. */
static void test_percent__any_byte__round_trips(void **state)
{
    struct kvs_buf b;
    char all[256], out[256];
    size_t len;

    kvs_buf_init(&b, kvs_mock_host(*state), &TAG);
    for (int i = 0; i < 256; i++) {
        all[i] = (char)i;
    }
    kvs_percent_encode(&b, kvs_slice(all, sizeof all));
    assert_int_equal(kvs_percent_decode(kvs_buf_slice(&b), 0, out, sizeof out, &len), 0);
    assert_int_equal(len, 256);
    assert_memory_equal(all, out, 256);
    assert_int_equal(kvs_percent_decode(kvs_slice_str("a%4"), 0, out, sizeof out, &len),
                     KVS_EINVAL);
    assert_int_equal(kvs_percent_decode(kvs_slice_str("%"), 0, out, sizeof out, &len), KVS_EINVAL);
    assert_int_equal(kvs_percent_decode(kvs_slice_str("%zz"), 0, out, sizeof out, &len),
                     KVS_EINVAL);
    assert_int_equal(kvs_percent_decode(kvs_slice_str("a+b%2B"), 1, out, sizeof out, &len), 0);
    assert_memory_equal(out, "a b+", 4);
    assert_int_equal(kvs_percent_decode(kvs_slice_str("abc"), 0, out, 2, &len), KVS_EINVAL);
    kvs_buf_fini(&b);
}

/* JSON strings escape what RFC 8259 wants escaped; bytes that are no UTF-8 become base64. */
static void test_json__odd_bytes__escaped_or_base64(void **state)
{
    struct kvs_buf b;

    kvs_buf_init(&b, kvs_mock_host(*state), &TAG);
    kvs_json_str(&b, kvs_slice("a\"\\\n\x01z", 6));
    kvs_buf_append(&b, "", 1);
    assert_string_equal(b.ptr, "\"a\\\"\\\\\\n\\u0001z\"");
    kvs_buf_clear(&b);
    kvs_json_bytes_member(&b, "key", kvs_slice("\xff\x00", 2));
    kvs_buf_append(&b, "", 1);
    assert_string_equal(b.ptr, "\"key_base64\":\"/wA=\"");
    kvs_buf_fini(&b);
    assert_true(kvs_utf8_valid(kvs_slice_str("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80")));
    assert_false(kvs_utf8_valid(kvs_slice_str("\xc0\x80")));
    assert_false(kvs_utf8_valid(kvs_slice_str("\xed\xa0\x80")));
    assert_false(kvs_utf8_valid(kvs_slice_str("\xf4\x90\x80\x80")));
    assert_false(kvs_utf8_valid(kvs_slice_str("\xe2\x82")));
}

/* Every length of bytes survives base64; text that is not canonical is refused. */
static void test_base64__all_lengths__round_trip(void **state)
{
    struct kvs_buf b;
    char bytes[32], out[32];
    size_t len;

    kvs_buf_init(&b, kvs_mock_host(*state), &TAG);
    for (size_t n = 1; n <= sizeof bytes; n++) {
        memset(bytes, (int)(n * 37), n);
        kvs_buf_clear(&b);
        kvs_base64(&b, kvs_slice(bytes, n));
        assert_int_equal(kvs_base64_decode(kvs_buf_slice(&b), out, sizeof out, &len), 0);
        assert_int_equal(len, n);
        assert_memory_equal(bytes, out, n);
    }
    kvs_buf_fini(&b);
    assert_int_equal(kvs_base64_decode(kvs_slice_str("/wB="), out, sizeof out, &len), KVS_EINVAL);
    assert_int_equal(kvs_base64_decode(kvs_slice_str("/w="), out, sizeof out, &len), KVS_EINVAL);
    assert_int_equal(kvs_base64_decode(kvs_slice_str("=AAA"), out, sizeof out, &len), KVS_EINVAL);
    assert_int_equal(kvs_base64_decode(kvs_slice_str("AAAA"), out, 2, &len), KVS_EINVAL);
}

/* A sealed batch opens; with any one bit flipped it does not. */
static void test_batch__any_flipped_bit__is_refused(void **state)
{
    uint8_t buf[KVS_BATCH_HEADER_SIZE + 20];
    struct kvs_batch_header h = {.total_size = sizeof buf, .count = 3, .raw_size = 20, .stream = 7};
    struct kvs_batch_header got;
    struct kvs_slice payload;
    struct kvs_error err;

    (void)state;
    memset(buf, 0x5a, sizeof buf);
    kvs_batch_seal(buf, &h);
    assert_int_equal(kvs_batch_open(kvs_slice(buf, sizeof buf), &got, &payload, &err), 0);
    assert_int_equal(got.stream, 7);
    assert_int_equal(payload.len, 20);
    for (size_t bit = 0; bit < sizeof buf * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(kvs_batch_open(kvs_slice(buf, sizeof buf), &got, &payload, &err),
                         KVS_ECORRUPT);
        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    for (size_t len = 0; len < sizeof buf; len++) {
        assert_int_equal(kvs_batch_open(kvs_slice(buf, len), &got, &payload, &err), KVS_ECORRUPT);
    }
}

/* Variable-length numbers round-trip at their edges; cut and overlong ones give nothing. */
static void test_varint__edges__round_trip(void **state)
{
    static const uint64_t EDGES[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX};
    uint8_t buf[10];
    uint64_t v;

    (void)state;
    for (size_t i = 0; i < KVS_ARRAY_COUNT(EDGES); i++) {
        size_t n = kvs_varint_put(buf, EDGES[i]);

        assert_int_equal(kvs_varint_get(kvs_slice(buf, n), &v), n);
        assert_true(v == EDGES[i]);
        assert_int_equal(kvs_varint_get(kvs_slice(buf, n - 1), &v), 0);
    }
    memset(buf, 0xff, sizeof buf);
    assert_int_equal(kvs_varint_get(kvs_slice(buf, sizeof buf), &v), 0);
}

/* A near word is suggested, a far one is not. */
static void test_nearest__typo__finds_the_word(void **state)
{
    static const char *const WORDS[] = {"listen", "idle_timeout", "limit", NULL};

    (void)state;
    assert_string_equal(kvs_nearest(kvs_slice_str("lsiten"), WORDS), "listen");
    assert_string_equal(kvs_nearest(kvs_slice_str("limits"), WORDS), "limit");
    assert_null(kvs_nearest(kvs_slice_str("replication"), WORDS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error__wrapped_and_cut__reads_well),
        cmocka_unit_test(test_crc32c__known_vectors_and_splits__agree),
        cmocka_unit_test(test_units__parse_and_print__round_trip),
        cmocka_unit_test_setup_teardown(test_percent__any_byte__round_trips, make_host, free_host),
        cmocka_unit_test_setup_teardown(test_json__odd_bytes__escaped_or_base64, make_host,
                                        free_host),
        cmocka_unit_test_setup_teardown(test_base64__all_lengths__round_trip, make_host, free_host),
        cmocka_unit_test(test_batch__any_flipped_bit__is_refused),
        cmocka_unit_test(test_varint__edges__round_trip),
        cmocka_unit_test(test_nearest__typo__finds_the_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
