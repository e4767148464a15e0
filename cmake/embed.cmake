# norma_embed: files become strings in the program, so that an installed norma needs no folder of assets.
#
#   include(${PROJECT_SOURCE_DIR}/cmake/embed.cmake)
#   norma_embed(norma_reports page_assets assets/page.html chart_js=${NORMA_CHART_JS})
#
# gives the target a header "embedded/page_assets.hpp" with
#   namespace norma::embedded { extern const std::string_view page_html; extern const std::string_view chart_js; }
# A string is called after its file, or as NAME=FILE says.

if(CMAKE_SCRIPT_MODE_FILE)
  # The second half: cmake -D OUTPUT=... -D HEADER=... -P embed.cmake -- NAME=FILE...
  set(text "#include \"${HEADER}\"\n\nnamespace norma::embedded {\nnamespace {\n")
  set(views "")
  set(after_dashes FALSE)
  math(EXPR last "${CMAKE_ARGC} - 1")
  foreach(i RANGE ${last})
    if(NOT after_dashes)
      if(CMAKE_ARGV${i} STREQUAL "--")
        set(after_dashes TRUE)
      endif()
      continue()
    endif()
    string(REGEX MATCH "^([^=]+)=(.*)$" ignored "${CMAKE_ARGV${i}}")
    set(name ${CMAKE_MATCH_1})
    file(READ "${CMAKE_MATCH_2}" hex HEX)
    # A literal may be too long for a compiler; an array of characters never is.
    string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
    string(APPEND text "constexpr char ${name}_bytes[] = {${bytes}0};\n")
    string(APPEND views "extern const std::string_view ${name};\n"
      "constinit const std::string_view ${name}{${name}_bytes, sizeof ${name}_bytes - 1};\n")
  endforeach()
  file(WRITE "${OUTPUT}" "${text}}  // namespace\n${views}}  // namespace norma::embedded\n")
  return()
endif()

set(NORMA_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

function(norma_embed target group)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/embedded)
  set(declarations "")
  set(pairs "")
  set(files "")
  foreach(argument IN LISTS ARGN)
    if(argument MATCHES "^([A-Za-z_0-9]+)=(.+)$")
      set(name ${CMAKE_MATCH_1})
      set(path ${CMAKE_MATCH_2})
    else()
      get_filename_component(name ${argument} NAME)
      string(MAKE_C_IDENTIFIER ${name} name)
      set(path ${argument})
    endif()
    get_filename_component(path ${path} ABSOLUTE)
    string(APPEND declarations "extern const std::string_view ${name};\n")
    list(APPEND pairs "${name}=${path}")
    list(APPEND files ${path})
  endforeach()
  file(CONFIGURE OUTPUT ${folder}/${group}.hpp @ONLY CONTENT
    "#pragma once\n\n#include <string_view>\n\nnamespace norma::embedded {\n@declarations@}  // namespace norma::embedded\n")
  add_custom_command(OUTPUT ${folder}/${group}.cpp
    COMMAND ${CMAKE_COMMAND} -D OUTPUT=${folder}/${group}.cpp -D HEADER=embedded/${group}.hpp
            -P ${NORMA_EMBED_SCRIPT} -- ${pairs}
    DEPENDS ${files} ${NORMA_EMBED_SCRIPT}
    COMMENT "Embedding ${group}"
    VERBATIM)
  target_sources(${target} PRIVATE ${folder}/${group}.cpp)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR})
endfunction()
