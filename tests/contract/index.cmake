# SPDX-License-Identifier: MIT
foreach(name btree hash)
  if(TARGET index-${name})
    kvs_contract_test(KIND index NAME ${name} SOURCES ${KVS_AREA_DIR}/test_index.c)
  endif()
endforeach()
