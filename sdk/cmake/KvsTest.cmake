# SPDX-License-Identifier: MIT
#
#   kvs_test(NAME test_btree LABEL unit SOURCES test_btree.c LINK index-btree-objects [ARGS ...]
#            [TIMEOUT s])
#
# A cmocka program that runs under ctest with that label, with the fake host linked in.
# Every folder of tests/ collects its *.cmake files, one per area, so that areas do not share a list.
include_guard(GLOBAL)

function(kvs_test)
  cmake_parse_arguments(T "" "NAME;LABEL;TIMEOUT" "SOURCES;LINK;ARGS" ${ARGN})
  add_executable(${T_NAME} ${T_SOURCES})
  set_target_properties(${T_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${T_NAME} PRIVATE ${T_LINK} kvs-mock kvs::sdk kvs-flags cmocka)
  target_include_directories(${T_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib)
  add_test(NAME ${T_NAME} COMMAND ${T_NAME} ${T_ARGS})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 60)
  endif()
  set_tests_properties(${T_NAME} PROPERTIES LABELS ${T_LABEL} TIMEOUT ${T_TIMEOUT})
endfunction()

#   kvs_contract_test(KIND index NAME btree SOURCES test_index.c [LIBS ...])
#
# The contract test of a kind, run on one plugin file. The program is built once per kind.
function(kvs_contract_test)
  cmake_parse_arguments(T "" "KIND;NAME" "SOURCES;LIBS" ${ARGN})
  set(program test_${T_KIND})
  if(NOT TARGET ${program})
    add_executable(${program} ${T_SOURCES})
    set_target_properties(${program} PROPERTIES
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(${program} PRIVATE ${T_LIBS} kvs-mock kvs::sdk kvs-flags cmocka
      ${CMAKE_DL_LIBS})
    target_include_directories(${program} PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib)
  endif()
  add_test(NAME contract_${T_KIND}_${T_NAME}
    COMMAND ${program} $<TARGET_FILE:${T_KIND}-${T_NAME}>)
  set_tests_properties(contract_${T_KIND}_${T_NAME} PROPERTIES LABELS contract TIMEOUT 120)
endfunction()

#   kvs_plugin_check(KIND service NAME storage [WITH index-btree ..] [ARGS --set a=b] [TIMEOUT s]
#                    [FAILS text])
#
# Runs kvs-plugin-check on a plugin of this build, if it and those of WITH are built. FAILS: the
# check must fail, and a line with FAIL must hold this text.
function(kvs_plugin_check)
  cmake_parse_arguments(T "" "KIND;NAME;FAILS;TIMEOUT" "WITH;ARGS" ${ARGN})
  set(command $<TARGET_FILE:kvs-plugin-check> --kind ${T_KIND} ${T_ARGS})
  foreach(target ${T_KIND}-${T_NAME} ${T_WITH})
    if(NOT TARGET ${target})
      return()
    endif()
  endforeach()
  foreach(neighbour ${T_WITH})
    list(APPEND command --with $<TARGET_FILE:${neighbour}>)
  endforeach()
  list(APPEND command $<TARGET_FILE:${T_KIND}-${T_NAME}>)
  if(T_FAILS)
    list(PREPEND command bash ${CMAKE_SOURCE_DIR}/tests/lib/must_fail.sh ${T_FAILS})
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  set(name check_${T_KIND}_${T_NAME})
  add_test(NAME ${name} COMMAND ${command})
  set_tests_properties(${name} PROPERTIES LABELS contract TIMEOUT ${T_TIMEOUT})
endfunction()
