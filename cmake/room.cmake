# A room is one folder under src/: a static library of its *.cc files and one test program of its *_test.cc files.
# kite_room(NAME [DIR dir] DEPS room... [LIBS target...] [TEST_LIBS target...] [GROUND] [OPTIMISED_TESTS file...])
add_library(kite_flags INTERFACE)
target_compile_options(kite_flags INTERFACE
  -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual
  -Wimplicit-fallthrough -Wextra-semi -Wunused -Wvla -Wformat=2 -fno-strict-aliasing -mcx16)
if(KITE_WERROR)
  target_compile_options(kite_flags INTERFACE -Werror)
endif()
if(KITE_SANITIZE)
  target_compile_options(kite_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined
                                              -fno-omit-frame-pointer)
  target_link_options(kite_flags INTERFACE -fsanitize=address,undefined)
endif()
if(KITE_FUZZ)
  target_compile_options(kite_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(kite_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(KITE_COVERAGE)
  target_compile_options(kite_flags INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(kite_flags INTERFACE -fprofile-instr-generate)
endif()
target_include_directories(kite_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(kite_flags INTERFACE fmt::fmt Threads::Threads)

# What only test programs get: they take longer to optimise than they run. What they test is optimised.
add_library(kite_test_flags INTERFACE)
target_compile_options(kite_test_flags INTERFACE -O0)
if(KITE_SANITIZE AND KITE_FUZZ)
  target_compile_options(kite_test_flags INTERFACE -fno-sanitize=fuzzer-no-link)
endif()

if(KITE_BATCHES)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  target_compile_options(kite_flags INTERFACE -Wno-shadow)  # by what another source of the batch declares
endif()
# kite_batched(LIST NAME): with KITE_BATCHES, the sources in LIST become fewer that include them.
function(kite_batched list name)
  if(NOT KITE_BATCHES OR NOT ${list})
    return()
  endif()
  execute_process(COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/batches.py ${CMAKE_SOURCE_DIR}/src
                          ${CMAKE_BINARY_DIR}/batches/${name} 12 ${${list}}
                  OUTPUT_VARIABLE batches OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" batches "${batches}")
  set(${list} ${batches} PARENT_SCOPE)
endfunction()

# Headers that most files include are parsed once for all: those of libraries, and above the ground floor (GROUND) those
# of the ground floor, too, whose templates cost more than most sources. So a room sees no header of a room that it may
# not use. Sources still include what they use: a build with CMAKE_DISABLE_PRECOMPILE_HEADERS=ON shows what one forgot.
set(kite_library_headers
  <algorithm> <array> <atomic> <bit> <chrono> <condition_variable> <coroutine> <cstdint> <cstring> <deque> <expected>
  <filesystem> <functional> <map> <memory> <mutex> <optional> <set> <span> <string> <string_view> <thread>
  <unordered_map> <utility> <variant> <vector> <fmt/format.h> <nlohmann/json.hpp>)
set(kite_ground_headers
  support/fd.h support/log.h metrics/metrics.h async/executor.h async/task.h memory/doorbell.h memory/guest_memory.h
  object/live_property.h object/object_type.h state/codec.h)
list(TRANSFORM kite_ground_headers PREPEND ${CMAKE_SOURCE_DIR}/src/)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/headers/empty.cc CONTENT "")  # kept as it is while it is the same
# kite_precompiled(NAME header...): kite_headers_NAME for rooms, kite_headers_NAME_test for their test programs.
function(kite_precompiled name)
  add_library(kite_headers_${name} OBJECT ${CMAKE_BINARY_DIR}/headers/empty.cc)
  target_link_libraries(kite_headers_${name} PRIVATE kite_flags nlohmann_json::nlohmann_json)
  target_precompile_headers(kite_headers_${name} PRIVATE ${ARGN})
  if(KITE_TESTS)
    add_library(kite_headers_${name}_test OBJECT ${CMAKE_BINARY_DIR}/headers/empty.cc)
    target_link_libraries(kite_headers_${name}_test
                          PRIVATE kite_flags kite_test_flags nlohmann_json::nlohmann_json GTest::gtest)
    target_precompile_headers(kite_headers_${name}_test PRIVATE ${ARGN} <gtest/gtest.h>)
    set_target_properties(kite_headers_${name}_test PROPERTIES POSITION_INDEPENDENT_CODE OFF)  # tests are programs: PIE
    target_compile_options(kite_headers_${name}_test PRIVATE -fPIE)
  endif()
endfunction()
kite_precompiled(ground ${kite_library_headers})
kite_precompiled(above ${kite_library_headers} ${kite_ground_headers})

function(kite_room name)
  cmake_parse_arguments(ROOM "GROUND" "DIR" "DEPS;LIBS;TEST_LIBS;OPTIMISED_TESTS" ${ARGN})
  if(NOT ROOM_DIR)
    set(ROOM_DIR ${name})
  endif()
  set(dir ${CMAKE_SOURCE_DIR}/src/${ROOM_DIR})
  set(headers kite_headers_above)
  if(ROOM_GROUND)
    set(headers kite_headers_ground)
  endif()
  if(ROOM_DIR STREQUAL "accel")
    file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  else()
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cc)
  endif()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  kite_batched(sources ${name})
  list(TRANSFORM ROOM_OPTIMISED_TESTS PREPEND ${dir}/)
  if(ROOM_OPTIMISED_TESTS)
    list(REMOVE_ITEM tests ${ROOM_OPTIMISED_TESTS})
  endif()
  kite_batched(tests ${name}_test)
  set(deps)
  foreach(dep IN LISTS ROOM_DEPS)
    list(APPEND deps kite_${dep})
  endforeach()
  if(sources)
    add_library(kite_${name} STATIC ${sources})
    target_link_libraries(kite_${name} PUBLIC kite_flags ${deps} ${ROOM_LIBS})
    target_precompile_headers(kite_${name} REUSE_FROM ${headers})
  else()
    add_library(kite_${name} INTERFACE)
    target_link_libraries(kite_${name} INTERFACE kite_flags ${deps} ${ROOM_LIBS})
  endif()
  if(KITE_TESTS AND tests)
    add_executable(kite_${name}_test ${tests} ${ROOM_OPTIMISED_TESTS})
    target_link_libraries(kite_${name}_test PRIVATE kite_${name} kite_test_flags GTest::gtest_main ${ROOM_TEST_LIBS})
    set_source_files_properties(${ROOM_OPTIMISED_TESTS} PROPERTIES COMPILE_OPTIONS -O1 SKIP_PRECOMPILE_HEADERS ON)
    target_precompile_headers(kite_${name}_test REUSE_FROM ${headers}_test)
    gtest_discover_tests(kite_${name}_test TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
                         PROPERTIES TIMEOUT 300)
  endif()
endfunction()
