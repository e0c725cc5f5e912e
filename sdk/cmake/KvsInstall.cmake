# SPDX-License-Identifier: MIT
# What a plugin author gets from `cmake --install`: headers, static libraries, kvs_plugin(), the
# CMake package kvs, kvs.pc, the template. Nothing installed names the prefix, so it may be moved.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvs)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/install)

install(DIRECTORY include/kvs DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS kvs-support kvshash kvs-mock EXPORT kvs-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT kvs-targets NAMESPACE kvs:: DESTINATION ${package_dir})
install(DIRECTORY template/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kvs/template)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/kvs)

set(KVS_INSTALL_PLUGINDIR ${CMAKE_INSTALL_LIBDIR}/kvs/plugins)
configure_package_config_file(cmake/kvs-config.cmake.in ${generated}/kvs-config.cmake
  INSTALL_DESTINATION ${package_dir}
  PATH_VARS KVS_INSTALL_PLUGINDIR)
write_basic_package_version_file(${generated}/kvs-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${generated}/kvs-config.cmake ${generated}/kvs-config-version.cmake
  cmake/KvsPlugin.cmake DESTINATION ${package_dir})

file(RELATIVE_PATH pc_to_prefix /prefix/${pkgconfig_dir} /prefix)
string(REGEX REPLACE "/$" "" pc_to_prefix ${pc_to_prefix})
configure_file(cmake/kvs.pc.in ${generated}/kvs.pc @ONLY)
install(FILES ${generated}/kvs.pc DESTINATION ${pkgconfig_dir})
