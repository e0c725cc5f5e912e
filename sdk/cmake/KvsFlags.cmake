# SPDX-License-Identifier: MIT
# One list of compiler flags for all of kvs: the interface target kvs-flags.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")

add_library(kvs-flags INTERFACE)
target_compile_definitions(kvs-flags INTERFACE _POSIX_C_SOURCE=200809L)
target_compile_options(kvs-flags INTERFACE
  -fno-omit-frame-pointer -fstack-protector-strong
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes
  -Wmissing-prototypes -Wold-style-definition -Wvla -Wformat=2 -Wundef -Wpointer-arith -Wcast-qual
  -Wcast-align -Wwrite-strings -Wdouble-promotion -Wimplicit-fallthrough -Wnull-dereference)
if(KVS_WERROR)
  target_compile_options(kvs-flags INTERFACE -Werror)
endif()
if(KVS_SANITIZE STREQUAL "asan")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
  add_compile_definitions(KVS_ASAN=1)
elseif(KVS_SANITIZE STREQUAL "tsan")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
  add_compile_definitions(KVS_TSAN=1)
elseif(NOT KVS_SANITIZE STREQUAL "")
  message(FATAL_ERROR "KVS_SANITIZE is '${KVS_SANITIZE}': use asan, tsan or nothing")
endif()
if(KVS_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
add_link_options(-Wl,--build-id)
