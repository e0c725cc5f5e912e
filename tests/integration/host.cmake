# SPDX-License-Identifier: MIT
# Scripts around one real process; see tests/lib/server.sh.
if(TARGET consensus-raft AND TARGET service-storage AND TARGET transport-rest)
  foreach(script a01_configuration a02_directory b02_items b03_lists b04_batches)
    add_test(NAME ${script}
      COMMAND bash ${KVS_AREA_DIR}/${script}.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
    set_tests_properties(${script} PROPERTIES LABELS "integration;short" TIMEOUT 180)
  endforeach()
  add_executable(crash_writer ${KVS_AREA_DIR}/crash_writer.c)
  set_target_properties(crash_writer PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(crash_writer PRIVATE _DEFAULT_SOURCE)
  target_link_libraries(crash_writer PRIVATE kvs-flags Threads::Threads)
  add_test(NAME d01_kill
    COMMAND bash ${KVS_AREA_DIR}/d01_kill.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  set_tests_properties(d01_kill PROPERTIES LABELS integration TIMEOUT 300)
endif()
