# SPDX-License-Identifier: MIT
# One deliberately broken plugin per kind, and some broken files: what kvs-plugin-check must refuse,
# and what it must say. The defect of each is named at the top of its source.
function(broken_plugin kind name text)
  kvs_plugin(KIND ${kind} NAME ${name} SOURCES ${KVS_AREA_DIR}/broken/${kind}_${name}.c NO_INSTALL
    OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/broken)
  kvs_plugin_check(KIND ${kind} NAME ${name} FAILS ${text})
endfunction()

broken_plugin(compression broken "another length than the block's is damage")
broken_plugin(index broken "put does not hand out the entry it replaced")
broken_plugin(persistence broken "all that was acknowledged comes back")
broken_plugin(consensus broken "a callback runs inside the call")
broken_plugin(service broken "'{key}' is not declared as path parameter 0")
broken_plugin(transport broken "connecting to its endpoint 'http://127.0.0.1:1'")

broken_plugin(service leaky "48 bytes of 'leaky' are still held")
broken_plugin(service loud "it also exports 'loud_helper'")
broken_plugin(service future "built for plugin ABI 1.99, this SDK has 1.0")
broken_plugin(service unbound "undefined symbol: nobody_defines_this")
target_link_options(service-unbound PRIVATE -Wl,-z,undefs)
