// The safetensors file format.
#include "harness/inputs/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include "harness/inputs/content_hash.hpp"

namespace norma {

namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::string_view kFormatKey = "format.";

template <typename... Args>
[[noreturn]] void refuse(const fs::path& path, fmt::format_string<Args...> text, Args&&... args) {
  throw SafetensorsError(
      fmt::format("{}: {}", path.string(), fmt::format(text, std::forward<Args>(args)...)));
}

// ---- reading ----

/// Bytes of the dtypes whose size is known; 0 for others, which are listed and never used.
std::uint64_t dtype_bytes(std::string_view dtype) {
  if (const auto format = find_safetensors_format(dtype))
    return static_cast<std::uint64_t>(format_of(*format).storage_bytes());
  constexpr std::array<std::pair<std::string_view, std::uint64_t>, 12> kOthers{{{"BOOL", 1},
                                                                                {"U8", 1},
                                                                                {"I8", 1},
                                                                                {"F8_E8M0", 1},
                                                                                {"I16", 2},
                                                                                {"U16", 2},
                                                                                {"I32", 4},
                                                                                {"U32", 4},
                                                                                {"I64", 8},
                                                                                {"U64", 8},
                                                                                {"C64", 8},
                                                                                {"F64", 8}}};
  const auto at = std::ranges::find(kOthers, dtype, [](const auto& row) { return row.first; });
  return at == kOthers.end() ? 0 : at->second;
}

std::string usable_dtypes() {
  std::string text;
  for (const Format& f : all_formats())
    if (!f.safetensors.empty()) text.append(f.safetensors).append(", ");
  return text + "or U8 with metadata format.NAME";
}

std::ifstream open_stream(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) refuse(path, "no such file");
  if (fs::is_directory(status)) refuse(path, "is a folder, not a safetensors file");
  if (!fs::is_regular_file(status)) refuse(path, "is not a regular file");
  std::ifstream stream(path, std::ios::binary);
  if (!stream) refuse(path, "cannot be opened: {}", std::strerror(errno));
  return stream;
}

/// Parses with what nlohmann::json leaves out: keys given twice, and a nesting that no header
/// needs.
Json parse_header(const fs::path& path, const std::string& text) {
  std::vector<std::set<std::string>> keys;
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 4) refuse(path, "the header nests deeper than a safetensors header does");
    switch (event) {
      case Json::parse_event_t::object_start: keys.emplace_back(); break;
      case Json::parse_event_t::object_end: keys.pop_back(); break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(parsed.get<std::string>()).second)
          refuse(path, "the header has the key '{}' twice", parsed.get<std::string>());
        break;
      case Json::parse_event_t::array_start:
      case Json::parse_event_t::array_end:
      case Json::parse_event_t::value: break;
    }
    return true;
  };
  try {
    return Json::parse(text, on_event);
  } catch (const Json::exception&) {
    refuse(path, "the header is not JSON");
  }
}

Metadata read_metadata(const fs::path& path, const Json& json) {
  if (!json.is_object()) refuse(path, "{} is not an object", kMetadataKey);
  Metadata metadata;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) refuse(path, "the metadata '{}' is not a string", key);
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

/// a * b, or nothing beyond int64.
std::optional<std::int64_t> product(std::int64_t a, std::int64_t b) {
  if (a != 0 && b > std::numeric_limits<std::int64_t>::max() / a) return std::nullopt;
  return a * b;
}

SafetensorsEntry read_entry(const fs::path& path, const std::string& name, const Json& json) {
  const auto field = [&](const char* key) -> const Json& {
    if (!json.is_object() || !json.contains(key)) refuse(path, "tensor '{}' has no {}", name, key);
    return json.at(key);
  };
  SafetensorsEntry entry;
  if (!field("dtype").is_string())
    refuse(path, "tensor '{}' has a dtype that is not a string", name);
  entry.dtype = field("dtype").get<std::string>();
  const Json& shape = field("shape");
  if (!shape.is_array()) refuse(path, "tensor '{}' has a shape that is not a list", name);
  // Zeros last: 0 x 2^40 x 2^40 is no shape either.
  std::int64_t size = 1;
  bool empty = false;
  for (const Json& side : shape) {
    const bool fits = side.is_number_integer() &&
                      (!side.is_number_unsigned() ||
                       side.get<std::uint64_t>() <= std::numeric_limits<std::int64_t>::max());
    if (!fits || side.get<std::int64_t>() < 0)
      refuse(path, "tensor '{}' has a shape with {}, which is not a size", name,
             side.dump(-1, ' ', true));
    const auto count = side.get<std::int64_t>();
    entry.shape.push_back(count);
    empty = empty || count == 0;
    const auto more = product(size, std::max<std::int64_t>(count, 1));
    if (!more)
      refuse(path, "tensor '{}' has the shape {}, whose size overflows", name, shape.dump());
    size = *more;
  }
  const Json& offsets = field("data_offsets");
  const bool pair = offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                    offsets[1].is_number_unsigned();
  if (!pair) refuse(path, "tensor '{}' has data_offsets that are not [begin, end]", name);
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  if (entry.begin > entry.end)
    refuse(path, "tensor '{}' ends at {}, before it begins at {}", name, entry.end, entry.begin);
  if (const std::uint64_t each = dtype_bytes(entry.dtype); each != 0) {
    const auto bytes = product(size, static_cast<std::int64_t>(each));
    if (!bytes)
      refuse(path, "tensor '{}' has the shape {}, whose size overflows", name, shape.dump());
    const std::uint64_t wanted = empty ? 0 : static_cast<std::uint64_t>(*bytes);
    if (entry.end - entry.begin != wanted)
      refuse(path, "tensor '{}' ({} {}) needs {} bytes, but its data_offsets span {}", name,
             entry.dtype, shape_text(entry.shape), wanted, entry.end - entry.begin);
    if (entry.begin % each != 0)
      refuse(path, "tensor '{}' begins at {}, which is not a multiple of {} bytes ({})", name,
             entry.begin, each, entry.dtype);
  }
  return entry;
}

/// Every byte of the data section belongs to exactly one tensor.
void check_layout(const SafetensorsFile& file, std::uint64_t data_bytes) {
  using Row = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Row*> rows;
  for (const Row& row : file.entries) rows.push_back(&row);
  std::ranges::sort(rows, {},
                    [](const Row* r) { return std::pair(r->second.begin, r->second.end); });
  std::uint64_t reached = 0;
  std::string before;
  for (const Row* row : rows) {
    const auto& [name, entry] = *row;
    if (entry.end > data_bytes)
      refuse(file.path,
             "tensor '{}' ends at byte {} of the data, but the file holds {}: truncated?", name,
             entry.end, data_bytes);
    if (entry.begin < reached)
      refuse(file.path, "tensor '{}' begins at {} and overlaps '{}', which ends at {}", name,
             entry.begin, before, reached);
    if (entry.begin > reached)
      refuse(file.path, "{} bytes before tensor '{}' belong to no tensor", entry.begin - reached,
             name);
    reached = entry.end;
    before = name;
  }
  if (reached < data_bytes)
    refuse(file.path, "the last {} bytes belong to no tensor", data_bytes - reached);
}

/// The format a listed tensor holds, and its shape as a tensor of it.
std::pair<FormatId, Shape> interpret(const SafetensorsFile& file, std::string_view name,
                                     const SafetensorsEntry& entry) {
  const auto said = file.metadata.find(fmt::format("{}{}", kFormatKey, name));
  const auto plain = find_safetensors_format(entry.dtype);
  if (said == file.metadata.end()) {
    if (plain) return {*plain, entry.shape};
    refuse(file.path, "tensor '{}' has dtype {}, which is not a number format here; usable: {}",
           name, entry.dtype, usable_dtypes());
  }
  const auto format = find_format(said->second);
  if (!format) {
    std::string known;
    for (const Format& f : all_formats()) known.append(known.empty() ? "" : ", ").append(f.name);
    refuse(file.path, "the metadata {}={} names an unknown format; known: {}", said->first,
           said->second, known);
  }
  if (plain == format) return {*format, entry.shape};
  if (entry.dtype != "U8")
    refuse(file.path,
           "the metadata {}={} contradicts dtype {}; only U8 takes its format from there",
           said->first, said->second, entry.dtype);
  Shape shape = entry.shape;
  if (const int bytes = format_of(*format).storage_bytes(); bytes > 1) {
    if (shape.empty() || shape.back() != bytes)
      refuse(file.path,
             "tensor '{}' holds {} as U8, so its last axis must be the {} bytes of a value; its "
             "shape is {}",
             name, said->second, bytes, shape_text(shape));
    shape.pop_back();
  }
  return {*format, shape};
}

/// Bits below a left-aligned code are no part of it and must be 0.
void check_padding(const SafetensorsFile& file, std::string_view name, const Tensor& tensor) {
  const Format& f = format_of(tensor.format);
  if (f.storage_shift() == 0) return;
  const auto stride = static_cast<std::size_t>(f.storage_bytes());
  const std::uint64_t below = (std::uint64_t{1} << f.storage_shift()) - 1;
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    std::uint64_t stored = 0;
    std::memcpy(&stored, tensor.bytes.data() + static_cast<std::size_t>(i) * stride, stride);
    if ((stored & below) != 0)
      refuse(file.path, "tensor '{}' is {}, but element {} has bits below its last place", name,
             f.name, i);
  }
}

// ---- writing ----

struct Stored {
  std::string dtype;
  Shape shape;
};

Stored stored_form(const Tensor& tensor) {
  const Format& f = format_of(tensor.format);
  if (!f.safetensors.empty()) return {std::string(f.safetensors), tensor.shape};
  Shape shape = tensor.shape;
  if (f.storage_bytes() > 1) shape.push_back(f.storage_bytes());
  return {"U8", shape};
}

/// Wide formats first, then by name: each tensor then begins at a multiple of its size.
std::vector<const Tensors::value_type*> write_order(const Tensors& tensors) {
  std::vector<const Tensors::value_type*> order;
  for (const auto& row : tensors) order.push_back(&row);
  std::ranges::stable_sort(order, std::greater<>{}, [](const auto* row) {
    return format_of(row->second.format).storage_bytes();
  });
  return order;
}

std::string header_text(const fs::path& path, const Tensors& tensors, const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  Metadata said = metadata;
  for (const auto& [name, tensor] : tensors)
    if (format_of(tensor.format).safetensors.empty())
      said.insert_or_assign(fmt::format("{}{}", kFormatKey, name),
                            std::string(name_of(tensor.format)));
  if (!said.empty()) header[std::string(kMetadataKey)] = said;
  std::uint64_t at = 0;
  for (const auto* row : write_order(tensors)) {
    const auto& [name, tensor] = *row;
    const auto wanted =
        static_cast<std::uint64_t>(tensor.size() * format_of(tensor.format).storage_bytes());
    if (name == kMetadataKey) refuse(path, "a tensor cannot be called {}", name);
    if (tensor.bytes.size() != wanted)
      refuse(path, "tensor '{}' has {} bytes, but its shape {} needs {}", name, tensor.bytes.size(),
             shape_text(tensor.shape), wanted);
    const Stored stored = stored_form(tensor);
    header[name] = {
        {"dtype", stored.dtype}, {"shape", stored.shape}, {"data_offsets", {at, at + wanted}}};
    at += wanted;
  }
  try {
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  } catch (const Json::exception&) {
    refuse(path, "a tensor name or metadata value is not UTF-8");
  }
}

/// An open file that is closed, and removed unless kept.
struct OutputFile {
  int descriptor = -1;
  fs::path name;
  bool remove = false;

  OutputFile(fs::path file, int flags, bool temporary)
      : descriptor(::open(file.c_str(), flags | O_CLOEXEC, 0666)),
        name(std::move(file)),
        remove(temporary) {}
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (descriptor < 0) return;
    ::close(descriptor);
    std::error_code ignored;
    if (remove) fs::remove(name, ignored);
  }
  bool write(const void* bytes, std::size_t count) const {
    const char* at = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t written = ::write(descriptor, at, count);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      at += written;
      count -= static_cast<std::size_t>(written);
    }
    return true;
  }
};

}  // namespace

SafetensorsFile open_safetensors(const fs::path& path) {
  std::ifstream stream = open_stream(path);
  std::error_code error;
  const std::uint64_t bytes = fs::file_size(path, error);
  if (error) refuse(path, "cannot be read: {}", error.message());
  if (bytes < kLengthBytes)
    refuse(path, "has {} bytes; a safetensors file begins with 8 bytes of header length", bytes);
  std::array<unsigned char, kLengthBytes> raw{};
  stream.read(reinterpret_cast<char*>(raw.data()), kLengthBytes);
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) length = (length << 8) | raw[i];
  if (length > bytes - kLengthBytes)
    refuse(path,
           "the header is said to have {} bytes, but only {} follow: truncated, or not a "
           "safetensors file",
           length, bytes - kLengthBytes);
  if (length > kLongestHeader)
    refuse(path, "the header has {} bytes; at most 100 MB are read", length);
  std::string text(static_cast<std::size_t>(length), '\0');
  stream.read(text.data(), static_cast<std::streamsize>(length));
  if (!stream) refuse(path, "cannot be read");
  if (!text.starts_with('{')) refuse(path, "the header is not a JSON object");

  const Json header = parse_header(path, text);
  if (!header.is_object()) refuse(path, "the header is not a JSON object");
  SafetensorsFile file{
      .path = path, .metadata = {}, .entries = {}, .data_begin = kLengthBytes + length};
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadataKey)
      file.metadata = read_metadata(path, value);
    else
      file.entries.emplace(name, read_entry(path, name, value));
  }
  check_layout(file, bytes - file.data_begin);
  return file;
}

Tensor read_tensor(const SafetensorsFile& file, std::string_view name) {
  const auto at = file.entries.find(name);
  if (at == file.entries.end()) {
    std::string known;
    for (const auto& [each, entry] : file.entries)
      known.append(known.empty() ? "" : ", ").append(each);
    refuse(file.path, "has no tensor '{}'; it has: {}", name, known.empty() ? "none" : known);
  }
  const SafetensorsEntry& entry = at->second;
  auto [format, shape] = interpret(file, name, entry);
  if (entry.begin == entry.end)
    refuse(file.path, "tensor '{}' is empty (shape {})", name, shape_text(entry.shape));
  Tensor tensor{.format = format, .shape = std::move(shape), .bytes = {}};
  tensor.bytes.resize(static_cast<std::size_t>(entry.end - entry.begin));
  std::ifstream stream = open_stream(file.path);
  stream.seekg(static_cast<std::streamoff>(file.data_begin + entry.begin));
  stream.read(reinterpret_cast<char*>(tensor.bytes.data()),
              static_cast<std::streamsize>(tensor.bytes.size()));
  if (!stream)
    refuse(file.path, "tensor '{}' cannot be read; the file has changed since its header was",
           name);
  check_padding(file, name, tensor);
  return tensor;
}

TensorFile read_safetensors(const fs::path& path) {
  const SafetensorsFile file = open_safetensors(path);
  TensorFile result{.tensors = {}, .metadata = file.metadata};
  for (const auto& [name, entry] : file.entries)
    result.tensors.emplace(name, read_tensor(file, name));
  return result;
}

void write_safetensors(const fs::path& path, const Tensors& tensors, const Metadata& metadata) {
  const std::string header = header_text(path, tensors, metadata);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) refuse(path, "is a folder; name a file to write");
  const bool direct = fs::exists(status) && !fs::is_regular_file(status);
  // A link keeps pointing where it points: the file behind it is replaced.
  const fs::path target = fs::exists(status) ? fs::canonical(path, error) : path;
  const fs::path place =
      direct ? target : fs::path(fmt::format("{}.tmp-{}", target.string(), ::getpid()));
  OutputFile out(place, direct ? O_WRONLY : O_WRONLY | O_CREAT | O_TRUNC, !direct);
  if (out.descriptor < 0) refuse(path, "cannot be written: {}", std::strerror(errno));

  std::array<unsigned char, kLengthBytes> length{};
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  bool good = out.write(length.data(), length.size()) && out.write(header.data(), header.size());
  for (const auto* row : write_order(tensors))
    good = good && out.write(row->second.bytes.data(), row->second.bytes.size());
  if (!good) refuse(path, "cannot be written: {}", std::strerror(errno));
  if (direct) return;
  fs::rename(place, target, error);
  if (error) refuse(path, "cannot be written: {}", error.message());
  out.remove = false;
}

std::string content_hash(const Tensor& tensor) {
  const Stored stored = stored_form(tensor);
  const std::string_view format = name_of(tensor.format);
  const std::string title = stored.dtype == "U8"
                                ? fmt::format("{} {}\n", format, shape_text(tensor.shape))
                                : fmt::format("{} {}\n", stored.dtype, shape_text(tensor.shape));
  Sha256 hash;
  hash.add(std::as_bytes(std::span(title)));
  hash.add(tensor.bytes);
  return hash.hex();
}

}  // namespace norma
