# SPDX-License-Identifier: MIT
add_executable(bench_index ${KVS_AREA_DIR}/bench_index.c)
set_target_properties(bench_index PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(bench_index PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib)
target_link_libraries(bench_index PRIVATE kvs::sdk kvs-flags ${CMAKE_DL_LIBS})
