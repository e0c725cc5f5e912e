/* SPDX-License-Identifier: MIT
 *
 * Cursors: where the next page begins, as opaque text that cannot be made up.
 *
 *   u8 format (1), u64 hash of the query, u32 table, u32 secondary index, position, 16 bytes
 * BLAKE2b keyed with the cluster's secret; base64url. Valid on every node and across restarts,
 * because all nodes know the secret and a position names a key, not a place in memory. */
#include <sodium.h>

#include "storage.h"

#define FORMAT          1u
#define HEAD            17u
#define MAC             16u
#define SIZE_MAX_CURSOR (HEAD + 4096u + MAC)

static void sign(const struct storage *s, const uint8_t *bytes, size_t len, uint8_t mac[MAC])
{
    (void)crypto_generichash(mac, MAC, bytes, len, s->secret, sizeof s->secret);
}

const char *cursor_make(struct storage *s, struct kvs_arena *arena, const struct cursor *c)
{
    size_t len = HEAD + c->position.len + MAC;
    size_t text_len = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    uint8_t *bytes = kvs_arena_alloc(arena, len);
    char *text = kvs_arena_alloc(arena, text_len);

    if (bytes == NULL || text == NULL) {
        return NULL;
    }
    bytes[0] = FORMAT;
    kvs_put_u64(bytes + 1, c->query);
    kvs_put_u32(bytes + 9, c->table_id);
    kvs_put_u32(bytes + 13, c->secondary_id);
    memcpy(bytes + HEAD, c->position.ptr, c->position.len);
    sign(s, bytes, len - MAC, bytes + len - MAC);
    return sodium_bin2base64(text, text_len, bytes, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

int cursor_read(struct storage *s, struct kvs_arena *arena, struct kvs_slice text,
                struct cursor *ret_c)
{
    uint8_t *bytes = kvs_arena_alloc(arena, text.len + 1), mac[MAC];
    size_t len = 0;

    if (bytes == NULL) {
        return KVS_ENOMEM;
    }
    if (text.len > SIZE_MAX_CURSOR * 4 / 3 + 4 ||
        sodium_base642bin(bytes, text.len + 1, text.ptr, text.len, NULL, &len, NULL,
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
        len < HEAD + MAC || bytes[0] != FORMAT) {
        return KVS_EINVAL;
    }
    sign(s, bytes, len - MAC, mac);
    if (sodium_memcmp(mac, bytes + len - MAC, MAC) != 0) {
        return KVS_EINVAL;
    }
    ret_c->query = kvs_get_u64(bytes + 1);
    ret_c->table_id = kvs_get_u32(bytes + 9);
    ret_c->secondary_id = kvs_get_u32(bytes + 13);
    ret_c->position = kvs_slice(bytes + HEAD, len - HEAD - MAC);
    return 0;
}
