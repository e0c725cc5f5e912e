# SPDX-License-Identifier: MIT
if(TARGET storage-engine AND TARGET index-btree AND TARGET index-hash AND TARGET compression-lz4)
  set(lib ${CMAKE_SOURCE_DIR}/tests/lib)
  add_library(partition-world STATIC ${lib}/partition_world.c ${lib}/fake_journal.c)
  target_include_directories(partition-world PUBLIC ${lib})
  target_link_libraries(partition-world PUBLIC storage-engine kvs-mock kvs::sdk ${CMAKE_DL_LIBS}
    PRIVATE kvs-flags)
  target_compile_definitions(partition-world PRIVATE
    KVS_BTREE_SO="$<TARGET_FILE:index-btree>" KVS_HASH_SO="$<TARGET_FILE:index-hash>"
    KVS_LZ4_SO="$<TARGET_FILE:compression-lz4>")
  add_dependencies(partition-world index-btree index-hash compression-lz4)
  foreach(test partition partition_recovery)
    kvs_test(NAME test_${test} LABEL unit SOURCES ${KVS_AREA_DIR}/test_${test}.c
      LINK partition-world TIMEOUT 120)
  endforeach()
endif()
