# SPDX-License-Identifier: MIT
#
#   kvs_fuzz(DECODER LINK ... [INCLUDE ...])
#
# fuzz_<decoder>.c as a libFuzzer program in a KVS_FUZZ build; else as a program that runs its corpus
# and a few thousand mutations of it under ctest (label fuzz), with any compiler.
add_custom_target(fuzzers)
function(kvs_fuzz decoder)
  cmake_parse_arguments(F "" "" "LINK;INCLUDE" ${ARGN})
  if(KVS_FUZZ)
    set(program fuzz_${decoder})
    add_executable(${program} ${KVS_AREA_DIR}/fuzz_${decoder}.c)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzzers ${program})
  else()
    set(program replay_${decoder})
    add_executable(${program} ${KVS_AREA_DIR}/fuzz_${decoder}.c ${KVS_AREA_DIR}/replay_main.c)
    add_test(NAME fuzz_${decoder} COMMAND ${program} ${KVS_AREA_DIR}/corpus/${decoder})
    set_tests_properties(fuzz_${decoder} PROPERTIES LABELS fuzz TIMEOUT 120)
  endif()
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${program} PRIVATE ${KVS_AREA_DIR} ${F_INCLUDE})
  target_link_libraries(${program} PRIVATE ${F_LINK} kvs-mock kvs::sdk kvs-flags)
endfunction()

# Plugins export one name each; to link two of them into one program, theirs are told apart.
add_library(fuzz-btree OBJECT ${CMAKE_SOURCE_DIR}/plugins/index/btree/btree.c
  ${CMAKE_SOURCE_DIR}/plugins/index/btree/node.c)
target_compile_definitions(fuzz-btree PRIVATE kvs_plugin_entry=fuzz_btree_entry)
add_library(fuzz-lz4 OBJECT ${CMAKE_SOURCE_DIR}/plugins/compression/lz4/lz4.c)
target_compile_definitions(fuzz-lz4 PRIVATE kvs_plugin_entry=fuzz_lz4_entry)
pkg_check_modules(LZ4 REQUIRED IMPORTED_TARGET liblz4)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)

add_library(fuzz-world STATIC ${KVS_AREA_DIR}/fuzz_world.c)
target_include_directories(fuzz-world PUBLIC ${KVS_AREA_DIR})
add_library(fuzz-service STATIC ${KVS_AREA_DIR}/fuzz_service.c)
target_include_directories(fuzz-service PUBLIC ${KVS_AREA_DIR})
foreach(part fuzz-btree fuzz-lz4 fuzz-world fuzz-service)
  target_link_libraries(${part} PRIVATE kvs-flags PUBLIC kvs::sdk)
endforeach()
target_link_libraries(fuzz-lz4 PUBLIC PkgConfig::LZ4)
target_link_libraries(fuzz-world PUBLIC storage-engine kvs-mock fuzz-btree fuzz-lz4
  $<TARGET_OBJECTS:fuzz-btree> $<TARGET_OBJECTS:fuzz-lz4>)
target_link_libraries(fuzz-service PUBLIC fuzz-world PkgConfig::SODIUM kvshash)

set(wal ${CMAKE_SOURCE_DIR}/plugins/persistence/wal)
kvs_fuzz(config LINK kvs-core)
kvs_fuzz(target LINK service-storage-objects storage-engine kvs-core)
kvs_fuzz(operations LINK fuzz-service service-storage-objects)
kvs_fuzz(cursor LINK fuzz-service service-storage-objects)
kvs_fuzz(log_batch LINK fuzz-world)
kvs_fuzz(snapshot LINK fuzz-world persistence-wal-objects INCLUDE ${wal})
kvs_fuzz(journal LINK fuzz-world persistence-wal-objects INCLUDE ${wal})
kvs_fuzz(command LINK service-metadata-objects
  INCLUDE ${CMAKE_SOURCE_DIR}/plugins/service/metadata)

# Writes the binary seeds of the corpus again, when a format changes.
add_executable(fuzz-make-corpus EXCLUDE_FROM_ALL ${KVS_AREA_DIR}/make_corpus.c)
set_target_properties(fuzz-make-corpus PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(fuzz-make-corpus PRIVATE ${wal})
target_link_libraries(fuzz-make-corpus PRIVATE fuzz-world persistence-wal-objects kvs-mock kvs-flags)
