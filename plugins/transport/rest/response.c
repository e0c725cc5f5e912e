/* SPDX-License-Identifier: MIT
 *
 * The answer; see rest_private.h. The body stays where the service put it until it is sent: the
 * exchange, and with it the arena, is freed only when libmicrohttpd says the request is completed.
 */
#include <stdlib.h>
#include <zlib.h>

#include "rest_private.h"

#define GZIP_LEVEL    1
#define GZIP_SIZE_MAX (8u << 20) /* larger bodies would hold the loop for too long */

/* "gzip" as a word of Accept-Encoding without q=0. */
static int wants_gzip(struct exchange *x)
{
    struct kvs_slice v = x->req.header(&x->req, "Accept-Encoding", 0);
    const char *end = v.ptr == NULL ? NULL : v.ptr + v.len;

    for (const char *p = v.ptr; p != NULL && end - p >= 4; p++) {
        if (memcmp(p, "gzip", 4) == 0) {
            p += 4;
            return !(end - p >= 4 && memcmp(p, ";q=0", 4) == 0 &&
                     (end - p == 4 || (p[4] != '.' || p[5] == '0')));
        }
    }
    return 0;
}

static int is_text(const char *type)
{
    return type != NULL && (strncmp(type, "application/json", 16) == 0 ||
                            strncmp(type, "application/x-ndjson", 20) == 0 ||
                            strncmp(type, "text/plain; version", 19) == 0);
}

/* Replace the body by its compressed form in the arena if that is wanted and smaller. */
static void maybe_gzip(struct exchange *x)
{
    struct kvs_response *r = &x->req.response;
    uint64_t size_min = x->server->rest->conf->gzip_size_min;
    z_stream z;
    char *out;
    uLong bound;

    if (size_min == 0 || r->body.len < size_min || r->body.len > GZIP_SIZE_MAX ||
        r->status != 200 || !is_text(r->content_type) || !wants_gzip(x)) {
        return;
    }
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return;
    }
    bound = deflateBound(&z, (uLong)r->body.len);
    out = kvs_arena_alloc(&x->req.arena, bound);
    if (out != NULL) {
        uintptr_t in = (uintptr_t)r->body.ptr; /* zlib's next_in is not const in this version */

        z.next_in = (Bytef *)in; /* NOLINT(performance-no-int-to-ptr) */
        z.avail_in = (uInt)r->body.len;
        z.next_out = (Bytef *)out;
        z.avail_out = (uInt)bound;
        if (deflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out < r->body.len &&
            r->header_count + 2 <= KVS_RESPONSE_HEADER_MAX) {
            r->body = kvs_slice(out, z.total_out);
            kvs_response_header(&x->req, "Content-Encoding", "gzip");
            kvs_response_header(&x->req, "Vary", "Accept-Encoding");
        }
    }
    (void)deflateEnd(&z);
}

enum MHD_Result response_send(struct exchange *x)
{
    struct kvs_response *r = &x->req.response;
    struct MHD_Response *m;
    enum MHD_Result ok;
    uintptr_t body;

    maybe_gzip(x);
    body = (uintptr_t)r->body.ptr; /* only read: MHD's parameter is not const */
    m = MHD_create_response_from_buffer(r->body.len, (void *)body, /* NOLINT */
                                        MHD_RESPMEM_PERSISTENT);
    if (m == NULL) {
        return MHD_NO;
    }
    ok = MHD_add_response_header(m, "KVS-Request-Id", x->req.id);
    if (r->content_type != NULL && r->body.len > 0) {
        ok &= MHD_add_response_header(m, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    }
    for (uint32_t i = 0; i < r->header_count; i++) {
        ok &= MHD_add_response_header(m, r->headers[i].name, r->headers[i].value);
    }
    if (atomic_load_explicit(&x->server->rest->draining, memory_order_relaxed) != 0) {
        ok &= MHD_add_response_header(m, MHD_HTTP_HEADER_CONNECTION, "close");
    }
    ok = ok == MHD_YES ? MHD_queue_response(x->mhd, r->status, m) : MHD_NO;
    MHD_destroy_response(m);
    return ok;
}
