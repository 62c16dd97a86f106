# SPDX-License-Identifier: Apache-2.0
# One static library per folder of src/, found by globbing.

# oxbow_glob_sources(OUT DIR): the layer's sources without tests, fuzz targets and main.cpp.
function(oxbow_glob_sources out dir)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${dir}/*.cpp")
  list(FILTER sources EXCLUDE REGEX "(_test|_fuzz|/main)\\.cpp$")
  set(${out} "${sources}" PARENT_SCOPE)
endfunction()

# oxbow_add_layer(NAME [DEPENDS layer...]): the library oxbow_NAME from src/NAME. A layer of headers only, or one
# that is still empty, becomes an interface library.
function(oxbow_add_layer name)
  cmake_parse_arguments(arg "" "" "DEPENDS" ${ARGN})
  oxbow_glob_sources(sources "${PROJECT_SOURCE_DIR}/src/${name}")
  list(TRANSFORM arg_DEPENDS PREPEND "oxbow_")
  if(sources)
    add_library(oxbow_${name} STATIC ${sources})
    target_link_libraries(oxbow_${name} PUBLIC oxbow_deps ${arg_DEPENDS})
    oxbow_use_pch(oxbow_${name})
  else()
    add_library(oxbow_${name} INTERFACE)
    target_link_libraries(oxbow_${name} INTERFACE oxbow_deps ${arg_DEPENDS})
  endif()
endfunction()

# oxbow_add_canary_core(TARGET LAYERS layer...): the same sources a second time with OXBOW_CANARIES=1, built only
# when something links to it. Never link it together with the layers themselves.
function(oxbow_add_canary_core target)
  cmake_parse_arguments(arg "" "" "LAYERS" ${ARGN})
  set(all_sources "")
  foreach(layer IN LISTS arg_LAYERS)
    oxbow_glob_sources(sources "${PROJECT_SOURCE_DIR}/src/${layer}")
    list(APPEND all_sources ${sources})
  endforeach()
  if(all_sources)
    add_library(${target} STATIC EXCLUDE_FROM_ALL ${all_sources})
    target_compile_definitions(${target} PUBLIC OXBOW_CANARIES=1)
    target_link_libraries(${target} PUBLIC oxbow_deps)
    oxbow_use_pch(${target})
  endif()
endfunction()

# oxbow_add_links(PROGRAM name...): links of those names beside the program, where it is built and where it is installed.
function(oxbow_add_links program)
  foreach(name IN LISTS ARGN)
    file(CREATE_LINK ${program} "${PROJECT_BINARY_DIR}/${name}" SYMBOLIC)
    install(FILES "${PROJECT_BINARY_DIR}/${name}" DESTINATION "${CMAKE_INSTALL_BINDIR}")
  endforeach()
endfunction()
