# norma_library and norma_test: a folder's CMakeLists.txt is a list of names and nothing else.

# norma_library(NAME SOURCES a.cpp ... LINK norma::x ...) -> target norma_NAME, alias norma::NAME
function(norma_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(norma_${name} STATIC ${arg_SOURCES})
  add_library(norma::${name} ALIAS norma_${name})
  set_target_properties(norma_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(norma_${name} PUBLIC norma_flags ${arg_LINK} PRIVATE ${arg_PRIVATE_LINK})
  set_property(GLOBAL APPEND PROPERTY NORMA_LIBRARIES norma_${name})
endfunction()

# norma_test(FILE.cpp LABEL unit LINK norma::x ...) -> one executable, one CTest entry a test case
function(norma_test source)
  cmake_parse_arguments(arg "" "LABEL;TIMEOUT" "LINK;SOURCES" ${ARGN})
  string(REGEX REPLACE "\\.cpp$" "" name ${source})
  string(REPLACE "/" "_" name ${name})
  add_executable(${name} ${source} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE norma_flags ${arg_LINK} Catch2::Catch2WithMain)
  target_compile_definitions(${name} PRIVATE
    NORMA_SOURCE_DIR="${PROJECT_SOURCE_DIR}" NORMA_BINARY="${PROJECT_BINARY_DIR}/bin/norma")
  if(NOT arg_LABEL)
    set(arg_LABEL unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  # One CTest entry a file: thousands of process starts would cost more than the tests.
  add_test(NAME ${name} COMMAND ${name} "~[nightly]" WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT})
  file(STRINGS ${source} nightly_cases REGEX "\\[nightly\\]")
  if(nightly_cases)
    add_test(NAME ${name}_nightly COMMAND ${name} "[nightly]" WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name}_nightly PROPERTIES LABELS nightly TIMEOUT 36000)
  endif()
endfunction()
