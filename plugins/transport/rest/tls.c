/* SPDX-License-Identifier: MIT
 *
 * TLS: certificate and key from PEM files, renewed on SIGHUP; client certificates checked against
 * an authority of the operator's. See rest_private.h.
 *
 * libmicrohttpd asks for the certificate at each handshake (MHD_OPTION_HTTPS_CERT_CALLBACK); the
 * answer is the pair loaded last. Old pairs are kept until the end, for handshakes under way: a
 * renewal is rare and a pair is small. */
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "rest_private.h"

#define CHAIN_MAX 8u

struct pair {
    struct pair *older;
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned chain_len;
    gnutls_privkey_t key;
};

struct tls {
    const struct kvs_host *host;
    const struct rest_conf *conf;
    _Atomic(struct pair *) current;
    char *client_ca; /* PEM text, or NULL */
    struct MHD_OptionItem options[4];
};

/* The callback of libmicrohttpd has no argument of ours: one listener certificate per process. */
static _Atomic(struct tls *) the_tls;

int tls_check(const struct rest_conf *conf, struct kvs_error *err)
{
    int cert = conf->tls_certificate[0] != '\0', key = conf->tls_key[0] != '\0';

    if (cert != key) {
        return kvs_err(err, KVS_EINVAL, "%s: tls.certificate and tls.key go together",
                       cert ? "tls.certificate" : "tls.key");
    }
    if (conf->tls_client_ca[0] != '\0' && !cert) {
        return kvs_err(err, KVS_EINVAL, "tls.client_ca: needs tls.certificate and tls.key");
    }
    return 0;
}

static void pair_free(struct tls *tls, struct pair *p)
{
    while (p != NULL) {
        struct pair *older = p->older;

        for (unsigned i = 0; i < p->chain_len; i++) {
            gnutls_pcert_deinit(&p->chain[i]);
        }
        if (p->key != NULL) {
            gnutls_privkey_deinit(p->key);
        }
        kvs_free(tls->host, &rest_memory, p, sizeof *p);
        p = older;
    }
}

static int pair_load(struct tls *tls, struct pair **ret_pair, struct kvs_error *err)
{
    struct pair *p = kvs_calloc(tls->host, &rest_memory, sizeof *p);
    gnutls_datum_t data = {NULL, 0};
    int rc;

    if (p == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    rc = gnutls_load_file(tls->conf->tls_certificate, &data);
    if (rc == 0) {
        p->chain_len = CHAIN_MAX;
        rc = gnutls_pcert_list_import_x509_raw(p->chain, &p->chain_len, &data, GNUTLS_X509_FMT_PEM,
                                               0);
        p->chain_len = rc < 0 ? 0 : p->chain_len;
        gnutls_free(data.data);
    }
    if (rc < 0) {
        pair_free(tls, p);
        return kvs_err(err, KVS_EIO, "tls.certificate '%s': %s", tls->conf->tls_certificate,
                       gnutls_strerror(rc));
    }
    rc = gnutls_load_file(tls->conf->tls_key, &data);
    if (rc == 0) {
        rc = gnutls_privkey_init(&p->key);
        rc = rc < 0 ? rc
                    : gnutls_privkey_import_x509_raw(p->key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
        gnutls_free(data.data);
    }
    if (rc < 0) {
        pair_free(tls, p);
        return kvs_err(err, KVS_EIO, "tls.key '%s': %s", tls->conf->tls_key, gnutls_strerror(rc));
    }
    *ret_pair = p;
    return 0;
}

static int give_pair(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_count,
                     const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                     gnutls_pcert_st **ret_chain, unsigned int *ret_len, gnutls_privkey_t *ret_key)
{
    struct tls *tls = atomic_load_explicit(&the_tls, memory_order_acquire);
    struct pair *p = tls == NULL ? NULL : atomic_load_explicit(&tls->current, memory_order_acquire);

    (void)session;
    (void)ca_names;
    (void)ca_count;
    (void)algorithms;
    (void)algorithm_count;
    if (p == NULL) {
        return -1;
    }
    *ret_chain = p->chain;
    *ret_len = p->chain_len;
    *ret_key = p->key;
    return 0;
}

static int client_ca_load(struct tls *tls, struct kvs_error *err)
{
    gnutls_datum_t data = {NULL, 0};
    int rc;

    if (tls->conf->tls_client_ca[0] == '\0') {
        return 0;
    }
    rc = gnutls_load_file(tls->conf->tls_client_ca, &data);
    if (rc < 0) {
        return kvs_err(err, KVS_EIO, "tls.client_ca '%s': %s", tls->conf->tls_client_ca,
                       gnutls_strerror(rc));
    }
    tls->client_ca = (char *)data.data; /* NUL-terminated by gnutls */
    return 0;
}

int tls_new(const struct kvs_host *host, const struct rest_conf *conf, struct tls **ret_tls,
            struct kvs_error *err)
{
    struct tls *tls;
    struct pair *pair = NULL;
    size_t n = 0;
    int rc;

    *ret_tls = NULL;
    if (conf->tls_certificate[0] == '\0') {
        return 0;
    }
    tls = kvs_calloc(host, &rest_memory, sizeof *tls);
    if (tls == NULL) {
        return kvs_err(err, KVS_ENOMEM, "out of memory");
    }
    tls->host = host;
    tls->conf = conf;
    rc = client_ca_load(tls, err);
    rc = rc != 0 ? rc : pair_load(tls, &pair, err);
    if (rc != 0) {
        tls_free(tls);
        return rc;
    }
    atomic_store_explicit(&tls->current, pair, memory_order_release);
    atomic_store_explicit(&the_tls, tls, memory_order_release);
    {
        int (*callback)(gnutls_session_t, const gnutls_datum_t *, int,
                        const gnutls_pk_algorithm_t *, int, gnutls_pcert_st **, unsigned int *,
                        gnutls_privkey_t *) = give_pair;
        void *as_data;

        memcpy(&as_data, &callback, sizeof as_data);
        tls->options[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, as_data};
    }
    if (tls->client_ca != NULL) {
        tls->options[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0, tls->client_ca};
    }
    tls->options[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    *ret_tls = tls;
    return 0;
}

int tls_reload(struct tls *tls, struct kvs_error *err)
{
    struct pair *fresh = NULL;
    int rc = pair_load(tls, &fresh, err);

    if (rc == 0) {
        fresh->older = atomic_load_explicit(&tls->current, memory_order_relaxed);
        atomic_store_explicit(&tls->current, fresh, memory_order_release);
    }
    return rc;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL) {
        return;
    }
    atomic_store_explicit(&the_tls, NULL, memory_order_release);
    pair_free(tls, atomic_load_explicit(&tls->current, memory_order_relaxed));
    gnutls_free(tls->client_ca);
    kvs_free(tls->host, &rest_memory, tls, sizeof *tls);
}

const struct MHD_OptionItem *tls_options(struct tls *tls)
{
    return tls->options;
}

int tls_client_ok(struct tls *tls, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info;
    unsigned status = 1;

    if (tls->client_ca == NULL) {
        return 1;
    }
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    return info != NULL && gnutls_certificate_verify_peers2(info->tls_session, &status) == 0 &&
           status == 0;
}
