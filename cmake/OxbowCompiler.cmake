# SPDX-License-Identifier: Apache-2.0
# Language, warnings, sanitizers, ccache and the precompiled headers.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(OXBOW_CCACHE ccache)
if(OXBOW_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # The sloppiness is what ccache's manual asks for with precompiled headers; the base directory lets several
  # checkouts share one cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime"
      "CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}" "CCACHE_NOHASHDIR=1" "${OXBOW_CCACHE}")
endif()

add_library(oxbow_options INTERFACE)
target_include_directories(oxbow_options INTERFACE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
target_compile_definitions(oxbow_options INTERFACE OXBOW_VERSION="${PROJECT_VERSION}")
target_compile_options(oxbow_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wnon-virtual-dtor
  -Woverloaded-virtual -Wimplicit-fallthrough -Wcast-align -Wformat=2 -Wunused -Wextra-semi
  -Wno-missing-field-initializers
  "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
target_link_options(oxbow_options INTERFACE -Wl,--as-needed)
if(OXBOW_WERROR)
  target_compile_options(oxbow_options INTERFACE -Werror)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # What g++ 12 gets wrong at -O2 is off: -Wnull-dereference in coroutine frames, -Wmismatched-new-delete for a
  # promise's templated operator new, the warnings about memory ranges where strings are concatenated. The sanitizer
  # builds look for these faults, and clang's -Wnull-dereference, which goes by the source only and is exact.
  target_compile_options(oxbow_options INTERFACE
    -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Wsuggest-override
    -Wno-restrict -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread
    -Wno-mismatched-new-delete -fpch-preprocess)
  if(OXBOW_SANITIZE)
    # Instrumentation hides initialisations from the optimiser.
    target_compile_options(oxbow_options INTERFACE -Wno-maybe-uninitialized)
  endif()
else()
  target_compile_options(oxbow_options INTERFACE -Wnull-dereference "SHELL:-Xclang -fno-pch-timestamp")
endif()

if(OXBOW_SANITIZE)
  target_compile_options(oxbow_options INTERFACE
    "-fsanitize=${OXBOW_SANITIZE}" -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(oxbow_options INTERFACE "-fsanitize=${OXBOW_SANITIZE}")
endif()

# oxbow_use_pch(TARGET [TEST]): share the precompiled standard headers, with TEST also GoogleTest's.
function(oxbow_use_pch target)
  set(pch oxbow_pch)
  if("TEST" IN_LIST ARGN)
    set(pch oxbow_test_pch)
  endif()
  if(OXBOW_PCH)
    target_precompile_headers(${target} REUSE_FROM ${pch})
  endif()
endfunction()
