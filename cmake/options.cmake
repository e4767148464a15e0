# Options, and the one target that carries the language level and the flags that change numbers.
option(NORMA_DEVELOPER "Build tests and benchmarks, warnings are errors" ${PROJECT_IS_TOP_LEVEL})
set(NORMA_CUDA "AUTO" CACHE STRING "CUDA kernels: ON, OFF or AUTO (on where nvcc is found)")
set(NORMA_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize takes them: 'address,undefined' or 'thread'")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(norma_flags INTERFACE)
target_compile_features(norma_flags INTERFACE cxx_std_20)
# Contraction changes results, so it is never the compiler's choice; an implementation that wants it calls fma.
# Not for those who link an installed norma: their kernels are what is tested, as they build them.
target_compile_options(norma_flags INTERFACE $<BUILD_INTERFACE:-ffp-contract=off;-fno-fast-math;-fno-math-errno>)
target_include_directories(norma_flags INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/norma>)
if(NORMA_DEVELOPER)
  target_compile_options(norma_flags INTERFACE
    $<BUILD_INTERFACE:-Wall;-Wextra;-Wpedantic;-Wswitch;-Wshadow;-Wconversion;-Werror>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC bug 105329: -Wrestrict warns of std::string's own operator+.
  target_compile_options(norma_flags INTERFACE $<BUILD_INTERFACE:-Wno-restrict>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  # libstdc++ 12's stable_sort uses std::get_temporary_buffer, which C++17 deprecates; clang warns at every use.
  target_compile_options(norma_flags INTERFACE $<BUILD_INTERFACE:-Wno-deprecated-declarations>)
endif()
if(NORMA_SANITIZE)
  target_compile_options(norma_flags INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${NORMA_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(norma_flags INTERFACE $<BUILD_INTERFACE:-fsanitize=${NORMA_SANITIZE}>)
  # Function multiversioning resolves symbols before a sanitizer's runtime is up.
  target_compile_definitions(norma_flags INTERFACE $<BUILD_INTERFACE:NORMA_NO_CLONES>)
endif()
find_program(NORMA_CCACHE ccache)
if(NORMA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${NORMA_CCACHE})
endif()
