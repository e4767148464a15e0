# cmake -Dbuild=DIR -Dsource=DIR -Dcompiler=CXX -Dgenerator=NAME [-Dmake_program=FILE] [-Dprefix_path=LIST] -P install_and_test.cmake
cmake_policy(SET CMP0007 NEW)  # lists keep empty elements
function(step)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " text)
    message(FATAL_ERROR "failed (${status}): ${text}")
  endif()
endfunction()

set(prefix "${build}/install-test")
set(consumer "${build}/consumer-test")
file(REMOVE_RECURSE "${prefix}" "${consumer}")
step("${CMAKE_COMMAND}" --install "${build}" --prefix "${prefix}")
# A machine need not have make: the consumer is built with what built norma.
step("${CMAKE_COMMAND}" -G "${generator}" "-DCMAKE_MAKE_PROGRAM=${make_program}" -S "${source}" -B "${consumer}" "-DCMAKE_CXX_COMPILER=${compiler}" -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_PREFIX_PATH=${prefix};${prefix_path}")
step("${CMAKE_COMMAND}" --build "${consumer}")
step("${CMAKE_CTEST_COMMAND}" --test-dir "${consumer}" --output-on-failure --no-tests=error)
