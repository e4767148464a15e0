# What is installed: the program, the libraries with their headers, and what find_package(norma) reads.
include(CMakePackageConfigHelpers)

set(norma_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/norma")
get_property(norma_libraries GLOBAL PROPERTY NORMA_LIBRARIES)

if(TARGET norma)
  install(TARGETS norma RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
set_target_properties(norma_flags PROPERTIES EXPORT_NAME flags)
install(TARGETS norma_flags ${norma_libraries} EXPORT normaTargets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}/norma")
install(EXPORT normaTargets NAMESPACE norma:: DESTINATION "${norma_package_dir}")

# A consumer writes #include <norma/verify.hpp>; the headers under it keep their places in the tree.
target_include_directories(norma_flags INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(FILES harness/verify.hpp DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/norma")
install(DIRECTORY reference impls harness DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/norma"
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.def" PATTERN "norma_plugin.h" PATTERN "harness/verify.hpp" EXCLUDE)

configure_package_config_file(cmake/normaConfig.cmake.in "${PROJECT_BINARY_DIR}/normaConfig.cmake"
  INSTALL_DESTINATION "${norma_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/normaConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(
  FILES "${PROJECT_BINARY_DIR}/normaConfig.cmake" "${PROJECT_BINARY_DIR}/normaConfigVersion.cmake"
    cmake/dependencies.cmake
  DESTINATION "${norma_package_dir}")

if(NORMA_DEVELOPER AND NOT NORMA_SANITIZE)
  # Installs into the build folder, then builds and runs a project that knows nothing but the installed files.
  add_test(NAME consumer
    COMMAND "${CMAKE_COMMAND}" "-Dbuild=${PROJECT_BINARY_DIR}" "-Dsource=${PROJECT_SOURCE_DIR}/tests/consumer"
      "-Dcompiler=${CMAKE_CXX_COMPILER}" "-Dgenerator=${CMAKE_GENERATOR}" "-Dmake_program=${CMAKE_MAKE_PROGRAM}"
      "-Dprefix_path=${CMAKE_PREFIX_PATH}"
      -P "${PROJECT_SOURCE_DIR}/tests/consumer/install_and_test.cmake")
  set_tests_properties(consumer PROPERTIES LABELS cases TIMEOUT 600)
endif()
