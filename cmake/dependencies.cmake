# What norma needs from outside, each found or named as missing, as imported targets:
#
#   mpfr::mpfr  Boost::headers  norma_boost::context  random123::random123  TBB::tbb  fmt::fmt
#   nlohmann_json::nlohmann_json  CLI11::CLI11  nettle::nettle  Threads::Threads
#   with NORMA_DEVELOPER also Catch2::Catch2WithMain and catch_discover_tests()
#
# and NORMA_CHART_JS, the path of the minified Chart.js that pages carry inside them.
# The installed normaConfig.cmake includes this file too; there a missing package means norma is not found.

set(norma_missing "")

# norma_needs(<what> <Debian and Ubuntu package> <condition>...)
macro(norma_needs what package)
  if(NOT (${ARGN}))
    list(APPEND norma_missing
      "norma needs ${what}: './run build' installs it, or: apt-get install ${package}.")
  endif()
endmacro()

# norma_header(<target> <header that the consumer includes>): a package that is a folder of headers.
# Written out because neither Debian's Random123 nor every Boost has a CMake package.
function(norma_header target header)
  string(MAKE_C_IDENTIFIER "NORMA_${header}_DIR" variable)
  string(TOUPPER "${variable}" variable)
  find_path(${variable} NAMES "${header}")
  mark_as_advanced(${variable})
  if(${variable} AND NOT TARGET ${target})
    add_library(${target} INTERFACE IMPORTED)
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${${variable}}")
  endif()
endfunction()

# MPFR has no CMake package, and its .pc file names the wrong folders when the package was unpacked elsewhere.
find_path(NORMA_MPFR_INCLUDE_DIR NAMES mpfr.h)
find_path(NORMA_GMP_INCLUDE_DIR NAMES gmp.h)
find_library(NORMA_MPFR_LIBRARY NAMES mpfr)
find_library(NORMA_GMP_LIBRARY NAMES gmp)
mark_as_advanced(NORMA_MPFR_INCLUDE_DIR NORMA_GMP_INCLUDE_DIR NORMA_MPFR_LIBRARY NORMA_GMP_LIBRARY)
set(norma_mpfr_version "0")
if(NORMA_MPFR_INCLUDE_DIR)
  file(STRINGS "${NORMA_MPFR_INCLUDE_DIR}/mpfr.h" norma_mpfr_line
    REGEX "^#define[ \t]+MPFR_VERSION_STRING[ \t]")
  string(REGEX MATCH "[0-9]+(\\.[0-9]+)+" norma_mpfr_version "${norma_mpfr_line}")
endif()
norma_needs("MPFR 4.1 or later (mpfr.h and libmpfr)" libmpfr-dev
  NORMA_MPFR_LIBRARY AND norma_mpfr_version VERSION_GREATER_EQUAL 4.1)
norma_needs("GMP (gmp.h and libgmp)" libgmp-dev
  NORMA_GMP_LIBRARY AND NORMA_GMP_INCLUDE_DIR)
if(NOT norma_missing AND NOT TARGET mpfr::mpfr)
  add_library(mpfr::mpfr INTERFACE IMPORTED)
  set_target_properties(mpfr::mpfr PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${NORMA_MPFR_INCLUDE_DIR};${NORMA_GMP_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${NORMA_MPFR_LIBRARY};${NORMA_GMP_LIBRARY}")
endif()

norma_header(Boost::headers boost/multiprecision/cpp_bin_float.hpp)
norma_needs("Boost.Multiprecision (boost/multiprecision/cpp_bin_float.hpp)" libboost-dev
  TARGET Boost::headers)

norma_header(random123::random123 Random123/philox.h)
norma_needs("Random123 (Random123/philox.h)" librandom123-dev
  TARGET random123::random123)

find_library(NORMA_BOOST_CONTEXT_LIBRARY NAMES boost_context)
mark_as_advanced(NORMA_BOOST_CONTEXT_LIBRARY)
norma_needs("Boost.Context (libboost_context)" libboost-context-dev
  NORMA_BOOST_CONTEXT_LIBRARY)
if(NORMA_BOOST_CONTEXT_LIBRARY AND NOT TARGET norma_boost::context)
  add_library(norma_boost::context INTERFACE IMPORTED)
  set_target_properties(norma_boost::context PROPERTIES INTERFACE_LINK_LIBRARIES "${NORMA_BOOST_CONTEXT_LIBRARY}")
endif()

find_package(TBB CONFIG QUIET)
norma_needs("oneTBB (TBBConfig.cmake)" libtbb-dev
  TARGET TBB::tbb)

find_package(fmt 9 CONFIG QUIET)
norma_needs("fmt 9 or later (fmt-config.cmake)" libfmt-dev
  TARGET fmt::fmt)

find_package(nlohmann_json 3.11 CONFIG QUIET)
norma_needs("nlohmann-json 3.11 or later (nlohmann_jsonConfig.cmake)" nlohmann-json3-dev
  TARGET nlohmann_json::nlohmann_json)

find_package(CLI11 2.1 CONFIG QUIET)
norma_needs("CLI11 2.1 or later (CLI11Config.cmake)" libcli11-dev
  TARGET CLI11::CLI11)

# No CMake package either. Version 4 changed the signature of sha256_digest.
find_path(NORMA_NETTLE_INCLUDE_DIR NAMES nettle/sha2.h)
find_library(NORMA_NETTLE_LIBRARY NAMES nettle)
mark_as_advanced(NORMA_NETTLE_INCLUDE_DIR NORMA_NETTLE_LIBRARY)
set(norma_nettle_version "")
if(NORMA_NETTLE_INCLUDE_DIR)
  file(STRINGS "${NORMA_NETTLE_INCLUDE_DIR}/nettle/version.h" norma_nettle_line
    REGEX "^#define[ \t]+NETTLE_VERSION_MAJOR[ \t]")
  string(REGEX MATCH "[0-9]+$" norma_nettle_version "${norma_nettle_line}")
endif()
norma_needs("Nettle 3 (nettle/sha2.h and libnettle)" nettle-dev
  NORMA_NETTLE_LIBRARY AND norma_nettle_version EQUAL 3)
if(NORMA_NETTLE_LIBRARY AND NORMA_NETTLE_INCLUDE_DIR AND NOT TARGET nettle::nettle)
  add_library(nettle::nettle INTERFACE IMPORTED)
  set_target_properties(nettle::nettle PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${NORMA_NETTLE_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${NORMA_NETTLE_LIBRARY}")
endif()

set(THREADS_PREFER_PTHREAD_FLAG TRUE)
find_package(Threads QUIET)
norma_needs("POSIX threads (pthread.h)" libc6-dev
  TARGET Threads::Threads)

# An installed norma loads OpenBLAS when it needs it (reference/certified/products/blas.cpp), carries its own copy of Chart.js and
# has no tests, so only a build asks for these three.
if(NOT CMAKE_FIND_PACKAGE_NAME)
  # Unpacked without root the library has only its folder, not the link that the package's installation makes.
  find_library(NORMA_OPENBLAS_LIBRARY NAMES openblas libopenblas.so.0 PATH_SUFFIXES openblas-pthread
    DOC "OpenBLAS, tried where libopenblas.so.0 is not on the loader's path")
  mark_as_advanced(NORMA_OPENBLAS_LIBRARY)
  norma_needs("OpenBLAS (libopenblas.so.0)" libopenblas0-pthread
    NORMA_OPENBLAS_LIBRARY)

  # A library under audit (impls/library/onednn_library.cpp loads it): without it its implementations refuse each call.
  find_path(NORMA_ONEDNN_INCLUDE_DIR NAMES oneapi/dnnl/dnnl.h DOC "oneDNN's headers (optional: libdnnl-dev)")
  find_library(NORMA_ONEDNN_LIBRARY NAMES dnnl DOC "oneDNN (optional: libdnnl-dev)")
  mark_as_advanced(NORMA_ONEDNN_INCLUDE_DIR NORMA_ONEDNN_LIBRARY)
  if(NOT NORMA_ONEDNN_INCLUDE_DIR OR NOT NORMA_ONEDNN_LIBRARY)
    message(STATUS "norma: without oneDNN (optional: apt-get install libdnnl-dev)")
  endif()

  set(norma_chart_folders "")
  file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" norma_prefixes)
  foreach(norma_prefix IN LISTS CMAKE_PREFIX_PATH norma_prefixes CMAKE_SYSTEM_PREFIX_PATH)
    list(APPEND norma_chart_folders
      "${norma_prefix}/share/javascript/chart.js" "${norma_prefix}/share/nodejs/chart.js/dist")
  endforeach()
  # Version 3 calls the minified file chart.min.js; version 4 has chart.umd.js in its place.
  find_file(NORMA_CHART_JS NAMES chart.min.js chart.umd.js
    PATHS ${norma_chart_folders} NO_DEFAULT_PATH
    DOC "Minified Chart.js, written into each HTML page")
  norma_needs("Chart.js 3 or later (share/javascript/chart.js/chart.min.js)" libjs-chart.js
    NORMA_CHART_JS)

  if(NORMA_DEVELOPER)
    find_package(Catch2 3 CONFIG QUIET)
    norma_needs("Catch2 3 or later for its tests (Catch2Config.cmake, on Debian 12 from backports)" catch2
      TARGET Catch2::Catch2WithMain)
    if(TARGET Catch2::Catch2WithMain)
      include(Catch)
    endif()
  endif()
endif()

if(norma_missing)
  list(JOIN norma_missing "\n" norma_missing_text)
  if(CMAKE_FIND_PACKAGE_NAME)
    set(${CMAKE_FIND_PACKAGE_NAME}_FOUND FALSE)
    set(${CMAKE_FIND_PACKAGE_NAME}_NOT_FOUND_MESSAGE "${norma_missing_text}")
  else()
    message(FATAL_ERROR "${norma_missing_text}")
  endif()
endif()
