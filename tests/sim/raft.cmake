# SPDX-License-Identifier: MIT
if(TARGET consensus-raft)
  add_executable(raft_sim ${KVS_AREA_DIR}/raft_sim.c ${KVS_AREA_DIR}/disk.c ${KVS_AREA_DIR}/clock.c
    ${CMAKE_SOURCE_DIR}/plugins/consensus/raft/shim.c)
  set_target_properties(raft_sim PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(raft_sim PRIVATE ${CMAKE_SOURCE_DIR}/plugins/consensus/raft)
  target_link_libraries(raft_sim PRIVATE kvs-flags PkgConfig::RAFT)
  foreach(nodes 3 5)
    add_test(NAME raft_sim_${nodes} COMMAND raft_sim --nodes ${nodes} --seeds 1-1000)
    add_test(NAME raft_sim_${nodes}_no_shim
      COMMAND raft_sim --nodes ${nodes} --seeds 1-1000 --no-shim --must-fail)
    set_tests_properties(raft_sim_${nodes} raft_sim_${nodes}_no_shim PROPERTIES
      LABELS sim TIMEOUT 600)
  endforeach()
endif()
