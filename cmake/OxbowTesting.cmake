# SPDX-License-Identifier: Apache-2.0
# Helpers that add tests, test tools, benchmarks and fuzz targets.

set(OXBOW_RESULTS_DIR "${PROJECT_BINARY_DIR}/test-results")

# Sets what all tests share: the environment, the exit status that means "skipped", labels and a time limit.
function(oxbow_set_test_properties test)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  # Tests that run at the same time serve devices of the same names.
  set(run_directory "${PROJECT_BINARY_DIR}/run/${test}")
  file(MAKE_DIRECTORY "${run_directory}")
  set(environment "XDG_RUNTIME_DIR=${run_directory}" "OXBOW_SOURCE_DIR=${PROJECT_SOURCE_DIR}" "OXBOW_BUILD_DIR=${PROJECT_BINARY_DIR}" ${arg_ENVIRONMENT})
  if(OXBOW_SANITIZE)
    list(APPEND environment "UBSAN_OPTIONS=print_stacktrace=1" "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1"
         "OXBOW_SANITIZE=${OXBOW_SANITIZE}")
  endif()
  if(TARGET oxbow)
    list(APPEND environment "OXBOW=$<TARGET_FILE:oxbow>")
  endif()
  set_tests_properties(${test} PROPERTIES
    ENVIRONMENT "${environment}" SKIP_RETURN_CODE 77 TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}")
  if(arg_SERIAL)
    set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# oxbow_add_gtest(NAME SOURCES file... [LIBS lib...] [SHARDS n] [LABELS l...] [TIMEOUT s] [ENVIRONMENT K=V...] [SERIAL])
# A GoogleTest program NAME, run by CTest in n parallel parts named NAME.1 … NAME.n; each leaves its results as XML.
function(oxbow_add_gtest name)
  cmake_parse_arguments(arg "SERIAL" "SHARDS;TIMEOUT" "SOURCES;LIBS;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_SHARDS)
    set(arg_SHARDS 1)
  endif()
  set(serial "")
  if(arg_SERIAL)
    set(serial SERIAL)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} oxbow_deps GTest::gtest GTest::gmock GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  oxbow_use_pch(${name} TEST)
  math(EXPR last "${arg_SHARDS} - 1")
  foreach(index RANGE ${last})
    math(EXPR number "${index} + 1")
    set(test "${name}.${number}")
    add_test(NAME ${test} COMMAND ${name} "--gtest_output=xml:${OXBOW_RESULTS_DIR}/${test}.xml")
    oxbow_set_test_properties(${test} ${serial} TIMEOUT "${arg_TIMEOUT}" LABELS ${arg_LABELS}
      ENVIRONMENT ${arg_ENVIRONMENT} "GTEST_TOTAL_SHARDS=${arg_SHARDS}" "GTEST_SHARD_INDEX=${index}")
  endforeach()
endfunction()

# oxbow_add_script_test(NAME COMMAND program args... [LABELS l...] [TIMEOUT s] [ENVIRONMENT K=V...] [SERIAL])
# A test that is a command: status 0 passes, 77 after a line "SKIP: reason" is skipped, all else fails. It finds
# $OXBOW, $OXBOW_SOURCE_DIR and $OXBOW_BUILD_DIR in its environment.
function(oxbow_add_script_test name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "COMMAND;LABELS;ENVIRONMENT" ${ARGN})
  set(serial "")
  if(arg_SERIAL)
    set(serial SERIAL)
  endif()
  add_test(NAME ${name} COMMAND ${arg_COMMAND} WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}")
  oxbow_set_test_properties(${name} ${serial} TIMEOUT "${arg_TIMEOUT}" LABELS ${arg_LABELS}
    ENVIRONMENT ${arg_ENVIRONMENT})
endfunction()

# oxbow_add_tool(NAME SOURCES file... [LIBS lib...]): a program without GoogleTest that tests or people run.
function(oxbow_add_tool name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} oxbow_deps)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  oxbow_use_pch(${name})
endfunction()

# oxbow_add_bench(NAME SOURCES file... [LIBS lib...]): a Google Benchmark program; it has its main from the library.
function(oxbow_add_bench name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  if(TARGET benchmark::benchmark)
    oxbow_add_tool(${name} SOURCES ${arg_SOURCES} LIBS ${arg_LIBS} benchmark::benchmark benchmark::benchmark_main)
  endif()
endfunction()

# oxbow_add_fuzz(NAME SOURCES file... [LIBS lib...]): a libFuzzer program; without LIBS it links every layer. CTest runs
# it for a fixed number of inputs from a fixed seed, beginning with those in fuzz/corpus/NAME if there are any.
function(oxbow_add_fuzz name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  if(NOT arg_LIBS)
    set(arg_LIBS oxbow_cli)
  endif()
  oxbow_add_tool(${name} SOURCES ${arg_SOURCES} LIBS ${arg_LIBS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set(corpus "${PROJECT_SOURCE_DIR}/fuzz/corpus/${name}")
  if(NOT EXISTS "${corpus}")
    set(corpus "")
  endif()
  set(found "${CMAKE_CURRENT_BINARY_DIR}/${name}-corpus")
  file(MAKE_DIRECTORY "${found}")
  add_test(NAME fuzz.${name} COMMAND ${name} -runs=200000 -max_total_time=120 -seed=1 -timeout=10
    "-artifact_prefix=${found}-" "${found}" ${corpus})
  oxbow_set_test_properties(fuzz.${name} LABELS fuzz)
endfunction()

# The one unit test program, from every src/**/*_test.cpp.
function(oxbow_add_unit_tests)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/*_test.cpp")
  if(sources)
    oxbow_add_gtest(oxbow-unit-tests SOURCES ${sources} LIBS oxbow_cli SHARDS 8 LABELS unit)
  endif()
endfunction()

# Adds every subfolder of the current folder that has a CMakeLists.txt.
function(oxbow_add_subfolders)
  file(GLOB lists CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*/CMakeLists.txt")
  foreach(list IN LISTS lists)
    cmake_path(GET list PARENT_PATH folder)
    add_subdirectory("${folder}")
  endforeach()
endfunction()
