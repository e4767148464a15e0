// Reads and writes safetensors files; refuses every malformed one in one clear sentence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

#include "reference/formats/tensor.hpp"

namespace norma {

/// A file that cannot be read or written; the message names the file, the tensor and what is wrong.
struct SafetensorsError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Metadata = std::map<std::string, std::string, std::less<>>;

/// A tensor as the header lists it; any dtype may be listed.
struct SafetensorsEntry {
  std::string dtype;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes of the data section
};

/// A file whose header was read and found whole: every byte of data belongs to one tensor.
struct SafetensorsFile {
  std::filesystem::path path;
  Metadata metadata;
  std::map<std::string, SafetensorsEntry, std::less<>> entries;
  std::uint64_t data_begin = 0;  ///< where the data section begins
};

/// Source of the layout: https://github.com/huggingface/safetensors (README, "Format"). Stricter
/// here: a tensor begins at a multiple of its dtype's size, and the header is at most 100 MB.
SafetensorsFile open_safetensors(const std::filesystem::path& path);

/// One tensor. Formats that safetensors lacks are U8 with metadata format.NAME=e4m3fnuz|tf32|...; a
/// format of more than one byte then has a last axis of its bytes. Refuses empty tensors and dtypes
/// that are no format.
Tensor read_tensor(const SafetensorsFile& file, std::string_view name);

/// A file in memory.
struct TensorFile {
  Tensors tensors;
  Metadata metadata;
};
/// All tensors; refuses a file with one that read_tensor refuses.
TensorFile read_safetensors(const std::filesystem::path& path);

/// Writes the whole file or nothing: to a temporary file beside it, which then takes its name. A
/// device or pipe is written to directly. The same tensors give the same bytes.
void write_safetensors(const std::filesystem::path& path, const Tensors& tensors,
                       const Metadata& metadata = {});

/// SHA-256 over dtype, shape and bytes ("BF16 4x8\n" and then the data): what identifies an input.
std::string content_hash(const Tensor& tensor);

}  // namespace norma
