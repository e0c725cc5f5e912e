# SPDX-License-Identifier: MIT
kvs_test(NAME test_mem LABEL unit SOURCES ${KVS_AREA_DIR}/test_mem.c LINK kvs-core)
