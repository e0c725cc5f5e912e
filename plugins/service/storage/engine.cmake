# SPDX-License-Identifier: MIT
# The partition engine as a library of its own, so that tests can link it without the service.
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
add_library(storage-engine STATIC partition.c item.c record.c secondary.c write.c commit.c
  snapshot.c idempotency.c replay.c)
target_include_directories(storage-engine PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(storage-engine PUBLIC kvs::sdk PkgConfig::JANSSON
  PRIVATE kvs-flags PkgConfig::XXHASH)
