// From a case to its tensors: every default written out, then every bit made or read.
#pragma once

#include <string>
#include <string_view>

#include "harness/cases/case.hpp"

namespace norma {

/// The case with every default written out, so that the line alone repeats the check, and with one
/// spelling:
///   eps and the path's attributes, then the norm's; numbers in their shortest form
///   profile of the path
///   TENSOR.format and TENSOR.input of each tensor that takes part: those the norm or the path
///   requires, and those a TENSOR.* key names; TENSOR.shape only where it is not the usual one
///   of those the norm takes beside x
///   families with their version (normal/1); files with the hash of the tensor
///   (file:PATH#TENSOR@sha256-12 digits), a path's file with the hash of its text; seed (0); the
///   shape a file gives
///
/// `eps_default`: what the path or implementation uses when nothing is said; empty: the path's, or
/// the norm's. Inverse: expand_defaults(e) == e == parse_case(print_case(e)) for every expanded e.
/// Errors: CaseError for an unknown family or version, a shape or attribute that the norm refuses,
/// a file that disagrees or has changed; SafetensorsError for a file that cannot be read.
Case expand_defaults(const Case& c, std::string_view eps_default = {});

/// The tensors of a case. Depends on nothing but the case and the files it names; `threads` changes
/// no bit. Takes any case; one that expand_defaults has not seen is expanded first.
Tensors make_inputs(const Case& c, int threads = 1);

/// "file:PATH#TENSOR@sha256-HEX" taken apart. Without "#TENSOR" the tensor has the input's own
/// name.
struct FileInput {
  std::string path;
  std::string tensor;
  std::string hash;  ///< leading hexadecimal digits; empty: not given
};
FileInput parse_file_input(std::string_view value, std::string_view input);

/// The program text that path=file:PATH@sha256-HEX names. CaseError if the file cannot be read or
/// has changed.
std::string read_path_file(std::string_view value);

}  // namespace norma
