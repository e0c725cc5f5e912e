# SPDX-License-Identifier: MIT
# Scripts around one real process; see tests/lib/server.sh.
if(TARGET consensus-raft AND TARGET service-storage AND TARGET transport-rest)
  foreach(script a01_configuration a02_directory b02_items b03_lists b04_batches)
    add_test(NAME ${script}
      COMMAND bash ${KVS_AREA_DIR}/${script}.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
    set_tests_properties(${script} PROPERTIES LABELS "integration;short" TIMEOUT 180)
  endforeach()
endif()
