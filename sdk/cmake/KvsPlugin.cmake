# SPDX-License-Identifier: MIT
#
#   kvs_plugin(KIND index NAME btree SOURCES btree.c [LIBS ...] [OUTPUT_DIRECTORY dir] [NO_INSTALL])
#
# Builds <kind>-<name>.so: hidden symbols, bound at load time, every symbol resolved at link time. The
# objects are also the target <kind>-<name>-objects, so that unit tests can link what the .so hides.
# Works inside the kvs tree and, after find_package(kvs), out of it.
include_guard(GLOBAL)

function(kvs_plugin)
  cmake_parse_arguments(P "NO_INSTALL" "KIND;NAME;OUTPUT_DIRECTORY" "SOURCES;LIBS" ${ARGN})
  set(kinds transport compression persistence index consensus service)
  if(NOT P_KIND IN_LIST kinds)
    message(FATAL_ERROR "kvs_plugin: KIND '${P_KIND}' is none of ${kinds}")
  endif()
  set(name ${P_KIND}-${P_NAME})
  string(TOUPPER "KVS_PLUGIN_${P_KIND}_${P_NAME}" switch)
  string(REPLACE "-" "_" switch ${switch})
  option(${switch} "build the plugin ${name}" ON)
  if(NOT ${switch})
    return()
  endif()

  add_library(${name}-objects OBJECT ${P_SOURCES})
  target_link_libraries(${name}-objects PUBLIC kvs::sdk ${P_LIBS})
  set_target_properties(${name}-objects PROPERTIES
    C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
  if(TARGET kvs-flags)
    target_link_libraries(${name}-objects PRIVATE kvs-flags)
  endif()

  add_library(${name} MODULE)
  target_link_libraries(${name} PRIVATE ${name}-objects)
  set_target_properties(${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name})
  target_link_options(${name} PRIVATE -Wl,-z,now -Wl,--exclude-libs,ALL)
  if(NOT (CMAKE_C_COMPILER_ID STREQUAL "Clang" AND KVS_SANITIZE))
    target_link_options(${name} PRIVATE -Wl,-z,defs)
  endif()
  if(P_OUTPUT_DIRECTORY)
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${P_OUTPUT_DIRECTORY})
  elseif(KVS_PLUGIN_OUTPUT_DIRECTORY)
    set_target_properties(${name} PROPERTIES
      LIBRARY_OUTPUT_DIRECTORY ${KVS_PLUGIN_OUTPUT_DIRECTORY})
  endif()
  if(DEFINED CMAKE_INSTALL_LIBDIR AND NOT P_NO_INSTALL)
    install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/kvs/plugins)
  endif()
endfunction()
