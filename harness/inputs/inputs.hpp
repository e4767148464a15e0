// From a case to its tensors: every default written out, then every bit made or read.
#pragma once

#include <string_view>

#include "harness/cases/case.hpp"

namespace norma {

/// The case with every default written out, so that the line alone repeats the check, and with one spelling:
///   eps and the path's attributes, then the norm's; numbers in their shortest form
///   profile of the path
///   TENSOR.format and TENSOR.input of each tensor that takes part: those the norm or the path requires, and
///   those a TENSOR.* key names; TENSOR.shape only where the norm leaves it open
///   families with their version (normal/1); files with the hash of the tensor
///   (file:PATH#TENSOR@sha256-12 digits); seed (0); the shape a file gives
/// `eps_default` is what the path or implementation uses when nothing is said; empty: the path's, or the norm's.
/// expand_defaults(expand_defaults(c)) == expand_defaults(c) == parse_case(print_case(expand_defaults(c))).
/// CaseError: an unknown family or version, a shape that does not fit, a tensor file that does not agree.
/// SafetensorsError: a file that cannot be read.
Case expand_defaults(const Case& c, std::string_view eps_default = {});

/// The tensors of a case. Depends on nothing but the case and the files it names; `threads` changes no bit.
/// Takes any case; one that expand_defaults has not seen is expanded first.
Tensors make_inputs(const Case& c, int threads = 1);

/// "file:PATH#TENSOR@sha256-HEX" taken apart. Without "#TENSOR" the tensor has the input's own name.
struct FileInput {
  std::string path;
  std::string tensor;
  std::string hash;  ///< leading hexadecimal digits; empty: not given
};
FileInput parse_file_input(std::string_view value, std::string_view input);

}  // namespace norma
