# SPDX-License-Identifier: MIT
if(TARGET persistence-wal-objects)
  foreach(name test_wal test_wal_space test_wal_snapshot test_wal_damage test_wal_crash)
    kvs_test(NAME ${name} LABEL unit SOURCES ${KVS_AREA_DIR}/${name}.c LINK persistence-wal-objects)
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/plugins/persistence/wal)
  endforeach()
endif()
