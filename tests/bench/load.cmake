# SPDX-License-Identifier: MIT
pkg_check_modules(MHD REQUIRED IMPORTED_TARGET libmicrohttpd)
add_executable(load ${KVS_AREA_DIR}/load.c)
add_executable(mhd_bare ${KVS_AREA_DIR}/mhd_bare.c)
target_link_libraries(mhd_bare PRIVATE PkgConfig::MHD)
foreach(program load mhd_bare)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${program} PRIVATE kvs-flags)
endforeach()
