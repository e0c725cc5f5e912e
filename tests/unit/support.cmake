# SPDX-License-Identifier: MIT
kvs_test(NAME test_support LABEL unit SOURCES ${KVS_AREA_DIR}/test_support.c)
