# SPDX-License-Identifier: Apache-2.0
# Libraries from Debian 12; scripts/packages.txt names their packages.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(libxxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(libisal REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(libzstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(zlib REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(gnutls REQUIRED IMPORTED_TARGET gnutls)
pkg_check_modules(fuse3 REQUIRED IMPORTED_TARGET fuse3)
# With the macros that the library itself was built with: they are part of its ABI.
pkg_check_modules(httplib REQUIRED IMPORTED_TARGET cpp-httplib)

add_library(oxbow_deps INTERFACE)
target_link_libraries(oxbow_deps INTERFACE
  oxbow_options Threads::Threads fmt::fmt spdlog::spdlog CLI11::CLI11 nlohmann_json::nlohmann_json
  PkgConfig::liburing PkgConfig::libxxhash PkgConfig::libisal PkgConfig::libzstd PkgConfig::zlib
  PkgConfig::gnutls)

set(oxbow_std_headers
  <algorithm> <array> <atomic> <bit> <chrono> <condition_variable> <coroutine> <cstddef> <cstdint> <cstring>
  <expected> <filesystem> <functional> <limits> <map> <memory> <mutex> <optional> <span> <string> <string_view>
  <system_error> <thread> <type_traits> <unordered_map> <utility> <variant> <vector>)

file(WRITE "${PROJECT_BINARY_DIR}/pch_anchor.cpp.in" "// Gives the precompiled header a target to belong to.\n")
configure_file("${PROJECT_BINARY_DIR}/pch_anchor.cpp.in" "${PROJECT_BINARY_DIR}/pch_anchor.cpp" COPYONLY)

add_library(oxbow_pch OBJECT "${PROJECT_BINARY_DIR}/pch_anchor.cpp")
target_link_libraries(oxbow_pch PRIVATE oxbow_deps)
target_precompile_headers(oxbow_pch PRIVATE ${oxbow_std_headers})

if(OXBOW_BUILD_TESTS)
  find_package(GTest)
  if(NOT GTest_FOUND)
    # The program can be built where only its own packages are installed.
    message(STATUS "GoogleTest not found: no tests are built")
    set(OXBOW_BUILD_TESTS OFF)
  endif()
endif()
if(OXBOW_BUILD_TESTS)
  pkg_check_modules(libnbd IMPORTED_TARGET libnbd)
  find_package(rapidcheck)
  add_library(oxbow_test_pch OBJECT "${PROJECT_BINARY_DIR}/pch_anchor.cpp")
  target_link_libraries(oxbow_test_pch PRIVATE oxbow_deps GTest::gtest GTest::gmock)
  target_precompile_headers(oxbow_test_pch PRIVATE ${oxbow_std_headers} <gmock/gmock.h> <gtest/gtest.h>)
endif()
if(OXBOW_BUILD_BENCH)
  find_package(benchmark QUIET)
endif()
