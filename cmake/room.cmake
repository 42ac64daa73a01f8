# A room is one folder under src/: a static library of its *.cc files and one test program of its *_test.cc files.
# kite_room(NAME [DIR dir] DEPS room... [LIBS target...] [TEST_LIBS target...])
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

# Headers of libraries that most files include are parsed once for all. Sources still include what they use: a build
# with CMAKE_DISABLE_PRECOMPILE_HEADERS=ON shows what one forgot.
set(kite_headers
  <algorithm> <array> <atomic> <bit> <chrono> <condition_variable> <coroutine> <cstdint> <cstring> <deque> <expected>
  <filesystem> <functional> <map> <memory> <mutex> <optional> <set> <span> <string> <string_view> <thread>
  <unordered_map> <utility> <variant> <vector> <fmt/format.h> <nlohmann/json.hpp>)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/headers/empty.cc CONTENT "")  # kept as it is while it is the same
add_library(kite_headers OBJECT ${CMAKE_BINARY_DIR}/headers/empty.cc)
target_link_libraries(kite_headers PRIVATE kite_flags nlohmann_json::nlohmann_json)
target_precompile_headers(kite_headers PRIVATE ${kite_headers})
if(KITE_TESTS)
  add_library(kite_test_headers OBJECT ${CMAKE_BINARY_DIR}/headers/empty.cc)
  target_link_libraries(kite_test_headers PRIVATE kite_flags kite_test_flags nlohmann_json::nlohmann_json GTest::gtest)
  target_precompile_headers(kite_test_headers PRIVATE ${kite_headers} <gtest/gtest.h>)
  set_target_properties(kite_test_headers PROPERTIES POSITION_INDEPENDENT_CODE OFF)  # tests are programs: PIE
  target_compile_options(kite_test_headers PRIVATE -fPIE)
endif()

function(kite_room name)
  cmake_parse_arguments(ROOM "" "DIR" "DEPS;LIBS;TEST_LIBS" ${ARGN})
  if(NOT ROOM_DIR)
    set(ROOM_DIR ${name})
  endif()
  set(dir ${CMAKE_SOURCE_DIR}/src/${ROOM_DIR})
  if(ROOM_DIR STREQUAL "accel")
    file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  else()
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cc)
  endif()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(deps)
  foreach(dep IN LISTS ROOM_DEPS)
    list(APPEND deps kite_${dep})
  endforeach()
  if(sources)
    add_library(kite_${name} STATIC ${sources})
    target_link_libraries(kite_${name} PUBLIC kite_flags ${deps} ${ROOM_LIBS})
    target_precompile_headers(kite_${name} REUSE_FROM kite_headers)
  else()
    add_library(kite_${name} INTERFACE)
    target_link_libraries(kite_${name} INTERFACE kite_flags ${deps} ${ROOM_LIBS})
  endif()
  if(KITE_TESTS AND tests)
    add_executable(kite_${name}_test ${tests})
    target_link_libraries(kite_${name}_test PRIVATE kite_${name} kite_test_flags GTest::gtest_main ${ROOM_TEST_LIBS})
    target_precompile_headers(kite_${name}_test REUSE_FROM kite_test_headers)
    gtest_discover_tests(kite_${name}_test TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
                         PROPERTIES TIMEOUT 300)
  endif()
endfunction()
