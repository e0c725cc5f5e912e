/* SPDX-License-Identifier: MIT
 *
 * Codes and messages; see kvs/error.h. */
#include <errno.h>
#include <stdio.h>

#include "kvs/error.h"

static void msg_cut_mark(char *msg, size_t size)
{
    memcpy(msg + size - 4, "...", 4);
}

KVS_PRINTF(3, 0)
static void msg_format(char *msg, size_t size, const char *fmt, va_list args)
{
    int n = vsnprintf(msg, size, fmt, args);

    if (n < 0) {
        msg[0] = '\0';
    } else if ((size_t)n >= size) {
        msg_cut_mark(msg, size);
    }
}

/* Append ": text" to the message, marking a cut. */
static void msg_append(char *msg, size_t size, const char *text)
{
    size_t len = strlen(msg);
    int n = snprintf(msg + len, size - len, ": %s", text);

    if (n < 0 || (size_t)n >= size - len) {
        msg_cut_mark(msg, size);
    }
}

int kvs_err(struct kvs_error *err, int code, const char *fmt, ...)
{
    va_list args;

    if (err == NULL) {
        return code;
    }
    err->code = code;
    err->os_errno = 0;
    va_start(args, fmt);
    msg_format(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    return code;
}

static int code_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
        return KVS_ENOSPC;
    case ENOENT:
        return KVS_ENOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return KVS_EACCES;
    case ENOMEM:
        return KVS_ENOMEM;
    case EEXIST:
        return KVS_EEXIST;
    case EADDRINUSE:
        return KVS_EADDRINUSE;
    default:
        return KVS_EIO;
    }
}

int kvs_err_os(struct kvs_error *err, int os_errno, const char *fmt, ...)
{
    int code = code_of_errno(os_errno);
    va_list args;
    char text[96];

    if (err == NULL) {
        return code;
    }
    err->code = code;
    err->os_errno = os_errno;
    va_start(args, fmt);
    msg_format(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    if (strerror_r(os_errno, text, sizeof text) != 0) {
        (void)snprintf(text, sizeof text, "errno %d", os_errno);
    }
    msg_append(err->msg, sizeof err->msg, text);
    return code;
}

int kvs_err_wrap(struct kvs_error *err, const char *fmt, ...)
{
    char inner[KVS_ERROR_MSG_SIZE];
    va_list args;

    if (err == NULL) {
        return KVS_EIO;
    }
    memcpy(inner, err->msg, sizeof inner);
    va_start(args, fmt);
    msg_format(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    msg_append(err->msg, sizeof err->msg, inner);
    return err->code;
}

const char *kvs_code_name(int code)
{
    switch (code) {
    case KVS_OK:
        return "KVS_OK";
#define CODE_CASE(name, value, text)                                                               \
    case (value):                                                                                  \
        return "KVS_" #name;
        KVS_CODES(CODE_CASE)
#undef CODE_CASE
    default:
        return "KVS_E?";
    }
}

const char *kvs_code_text(int code)
{
    switch (code) {
    case KVS_OK:
        return "no error";
#define CODE_CASE(name, value, text)                                                               \
    case (value):                                                                                  \
        return text;
        KVS_CODES(CODE_CASE)
#undef CODE_CASE
    default:
        return "unknown error";
    }
}
