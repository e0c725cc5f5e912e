# SPDX-License-Identifier: MIT
add_test(NAME b01_template
  COMMAND bash ${KVS_AREA_DIR}/b01_template.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
set_tests_properties(b01_template PROPERTIES LABELS integration TIMEOUT 240
  ENVIRONMENT "CMAKE=${CMAKE_COMMAND};CC=${CMAKE_C_COMPILER};KVS_SANITIZE=${KVS_SANITIZE}")
