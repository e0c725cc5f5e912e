# SPDX-License-Identifier: MIT
if(TARGET service-metadata-objects)
  kvs_test(NAME test_metadata_state LABEL unit SOURCES ${KVS_AREA_DIR}/test_metadata_state.c
    LINK service-metadata-objects)
  target_include_directories(test_metadata_state PRIVATE
    ${CMAKE_SOURCE_DIR}/plugins/service/metadata)
endif()
