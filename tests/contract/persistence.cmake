# SPDX-License-Identifier: MIT
foreach(name memory wal)
  if(TARGET persistence-${name})
    kvs_contract_test(KIND persistence NAME ${name} SOURCES ${KVS_AREA_DIR}/test_persistence.c)
  endif()
endforeach()
