# SPDX-License-Identifier: MIT
if(TARGET persistence-wal-objects)
  kvs_test(NAME test_wal_io LABEL fault SOURCES ${KVS_AREA_DIR}/test_wal_io.c
    LINK persistence-wal-objects)
  target_include_directories(test_wal_io PRIVATE ${CMAKE_SOURCE_DIR}/plugins/persistence/wal)
endif()
