#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "harness/inputs/safetensors.hpp"

namespace norma {

namespace {

using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

struct Folder {
  // In memory where that is possible: thousands of small files are slow on a disk.
  fs::path path =
      (fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) /
      ("norma_safetensors_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const { return (path / name).string(); }
};

std::string with_length(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

void write_bytes(const std::string& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}
std::string read_bytes(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// What reading a file of this header and data says, without the file's name.
std::string refusal_of_bytes(const std::string& bytes) {
  const Folder folder;
  const std::string file = folder.file("t.safetensors");
  write_bytes(file, bytes);
  try {
    read_safetensors(file);
  } catch (const SafetensorsError& error) {
    const std::string text = error.what();
    CHECK(text.starts_with(file + ": "));
    return text.substr(file.size() + 2);
  }
  return "accepted";
}
std::string refusal(const std::string& header, const std::string& data) {
  return refusal_of_bytes(with_length(header, data));
}

Tensor filled(FormatId format, Shape shape) {
  Tensor t = Tensor::zeros(format, std::move(shape));
  for (std::int64_t i = 0; i < t.size(); ++i)
    t.set_code(i, static_cast<std::uint64_t>(i * 37) & (format_of(format).sign_code() - 1));
  return t;
}

const std::string kData(16, 'a');

}  // namespace

TEST_CASE("every format and shape survives a safetensors file", "[safetensors]") {
  const Folder folder;
  const std::string file = folder.file("all.safetensors");
  Tensors tensors;
  for (const Format& f : all_formats()) {
    tensors.emplace("m." + std::string(f.name), filled(f.id, {3, 5}));
    tensors.emplace("s." + std::string(f.name), filled(f.id, {}));
  }
  const Metadata metadata{{"eps", "1e-6"}, {"path", "ünïcode \"quoted\""}};
  write_safetensors(file, tensors, metadata);
  const TensorFile back = read_safetensors(file);
  REQUIRE(back.tensors.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    CAPTURE(name);
    CHECK(back.tensors.at(name).format == tensor.format);
    CHECK(back.tensors.at(name).shape == tensor.shape);
    CHECK(back.tensors.at(name).bytes == tensor.bytes);
  }
  CHECK(back.metadata.at("path") == metadata.at("path"));
  CHECK(back.metadata.at("format.m.e4m3fnuz") == "e4m3fnuz");
  const std::string bytes = read_bytes(file);
  CHECK(static_cast<unsigned char>(bytes[0]) % 8 == 0);
  write_safetensors(file, tensors, metadata);
  CHECK(read_bytes(file) == bytes);
}

TEST_CASE("files of other writers are read: real captures", "[safetensors]") {
  const std::string folder = NORMA_SOURCE_DIR "/tests/golden/captures/";
  const SafetensorsFile file = open_safetensors(folder + "torch_ops.fp8.safetensors");
  CHECK(read_tensor(file, "cast.e4m3fn").format == FormatId::e4m3fn);
  CHECK(read_tensor(file, "cast.x").format == FormatId::fp32);
  CHECK(read_tensor(open_safetensors(folder + "smollm2_135m.bf16.safetensors"),
                    "layers.0.input_layernorm.x")
            .shape == Shape{52, 576});
}

TEST_CASE("a malformed header is refused with what is wrong", "[safetensors]") {
  const std::string good = R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
  CHECK(refusal(good, kData) == "accepted");
  CHECK(refusal_of_bytes("") ==
        "has 0 bytes; a safetensors file begins with 8 bytes of header length");
  CHECK_THAT(refusal_of_bytes(with_length(good, "").substr(0, 20)),
             ContainsSubstring("is said to have 55 bytes, but only 12 follow"));
  CHECK_THAT(refusal_of_bytes(std::string(8, '\xff') + "{}"),
             ContainsSubstring("18446744073709551615 bytes, but only 2 follow"));
  CHECK_THAT(refusal(good, kData.substr(1)),
             ContainsSubstring(
                 "tensor 'x' ends at byte 16 of the data, but the file holds 15: truncated?"));
  CHECK(refusal(good, kData + "b") == "the last 1 bytes belong to no tensor");
  CHECK(refusal("[1,2]", "") == "the header is not a JSON object");
  CHECK(refusal("", "") == "the header is not a JSON object");
  CHECK(refusal("{\"x\":", "") == "the header is not JSON");
  CHECK(refusal("{} {}", "") == "the header is not JSON");
  CHECK(refusal("{\"\xff\":1}", "") == "the header is not JSON");
  CHECK(refusal("{\"x\":[[[[[[[[1]]]]]]]]}", "") ==
        "the header nests deeper than a safetensors header does");
  CHECK(refusal(R"({"x":1})", "") == "tensor 'x' has no dtype");
  CHECK(refusal(R"({"x":{"dtype":"F32","shape":[4]}})", kData) == "tensor 'x' has no data_offsets");
  CHECK(refusal(R"({"x":{"dtype":7,"shape":[4],"data_offsets":[0,16]}})", kData) ==
        "tensor 'x' has a dtype that is not a string");
  CHECK(refusal(R"({"__metadata__":{"a":1}})", "") == "the metadata 'a' is not a string");
  CHECK(
      refusal(
          R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
          kData) == "the header has the key 'x' twice");
  CHECK(refusal(R"({"x":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
                kData) == "the header has the key 'dtype' twice");
}

TEST_CASE("offsets and shapes that do not add up are refused", "[safetensors]") {
  const auto pair = [](const char* a, const char* b) {
    return refusal(std::string(R"({"x":{"dtype":)") + a + R"(},"y":{"dtype":)" + b + "}}", kData);
  };
  CHECK(pair(R"("F32","shape":[2],"data_offsets":[0,8])",
             R"("F32","shape":[2],"data_offsets":[8,16])") == "accepted");
  CHECK(pair(R"("F32","shape":[3],"data_offsets":[0,12])",
             R"("F32","shape":[2],"data_offsets":[8,16])") ==
        "tensor 'y' begins at 8 and overlaps 'x', which ends at 12");
  CHECK(pair(R"("F32","shape":[1],"data_offsets":[0,4])",
             R"("F32","shape":[2],"data_offsets":[8,16])") ==
        "4 bytes before tensor 'y' belong to no tensor");
  CHECK(pair(R"("F8_E5M2","shape":[2],"data_offsets":[0,2])",
             R"("F32","shape":[3],"data_offsets":[2,14])") ==
        "tensor 'y' begins at 2, which is not a multiple of 4 bytes (F32)");
  const auto one = [](const char* rest) {
    return refusal(std::string(R"({"x":{"dtype":)") + rest + "}}", kData);
  };
  CHECK(one(R"("F32","shape":[5],"data_offsets":[0,16])") ==
        "tensor 'x' (F32 5) needs 20 bytes, but its data_offsets span 16");
  CHECK(one(R"("F32","shape":[4],"data_offsets":[16,0])") ==
        "tensor 'x' ends at 0, before it begins at 16");
  CHECK(one(R"("F32","shape":[4],"data_offsets":[-16,0])") ==
        "tensor 'x' has data_offsets that are not [begin, end]");
  CHECK(one(R"("F32","shape":[4],"data_offsets":[0,16,32])") ==
        "tensor 'x' has data_offsets that are not [begin, end]");
  CHECK(one(R"("F32","shape":[4],"data_offsets":[0,1e1])") ==
        "tensor 'x' has data_offsets that are not [begin, end]");
  CHECK(one(R"("F32","shape":[-4],"data_offsets":[0,16])") ==
        "tensor 'x' has a shape with -4, which is not a size");
  CHECK(one(R"("F32","shape":[4.0],"data_offsets":[0,16])") ==
        "tensor 'x' has a shape with 4.0, which is not a size");
  CHECK(one(R"("F32","shape":4,"data_offsets":[0,16])") ==
        "tensor 'x' has a shape that is not a list");
  CHECK(one(R"("F32","shape":[4294967296,4294967296],"data_offsets":[0,16])") ==
        "tensor 'x' has the shape [4294967296,4294967296], whose size overflows");
  CHECK(one(R"("F64","shape":[4611686018427387904],"data_offsets":[0,16])") ==
        "tensor 'x' has the shape [4611686018427387904], whose size overflows");
  CHECK(one(R"("F32","shape":[18446744073709551615],"data_offsets":[0,16])") ==
        "tensor 'x' has a shape with 18446744073709551615, which is not a size");
  CHECK(refusal(R"({"x":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}})", "") ==
        "tensor 'x' is empty (shape 0x4)");
}

TEST_CASE("dtypes that are no number format are listed but not used", "[safetensors]") {
  const Folder folder;
  const std::string file = folder.file("t.safetensors");
  write_bytes(
      file,
      with_length(
          R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"n":{"dtype":"F33","shape":[3],"data_offsets":[12,16]},)"
          R"("w":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
          kData));
  const SafetensorsFile opened = open_safetensors(file);
  CHECK(opened.entries.at("i").dtype == "I64");
  CHECK(read_tensor(opened, "w").size() == 1);
  CHECK_THROWS_WITH(
      read_tensor(opened, "i"),
      ContainsSubstring(
          "tensor 'i' has dtype I64, which is not a number format here; usable: F64, F32, "));
  CHECK_THROWS_WITH(read_tensor(opened, "n"), ContainsSubstring("tensor 'n' has dtype F33"));
  CHECK_THROWS_WITH(read_tensor(opened, "v"),
                    ContainsSubstring("has no tensor 'v'; it has: i, n, w"));
}

TEST_CASE("formats in metadata are checked", "[safetensors]") {
  const auto with = [](const char* format, const char* dtype, const char* shape) {
    return refusal(std::string(R"({"__metadata__":{"format.x":")") + format +
                       R"("},"x":{"dtype":")" + dtype + R"(","shape":)" + shape +
                       R"(,"data_offsets":[0,16]}})",
                   std::string(16, '\0'));
  };
  CHECK(with("e4m3fnuz", "U8", "[2,8]") == "accepted");
  CHECK(with("tf32", "U8", "[2,2,4]") == "accepted");
  CHECK(with("fp32", "F32", "[4]") == "accepted");
  CHECK_THAT(with("e9m9", "U8", "[16]"),
             ContainsSubstring("format.x=e9m9 names an unknown format; known: fp64, fp32"));
  CHECK_THAT(with("bf16", "F16", "[8]"), ContainsSubstring("format.x=bf16 contradicts dtype F16"));
  CHECK_THAT(with("tf32", "U8", "[16]"),
             ContainsSubstring("its last axis must be the 4 bytes of a value; its shape is 16"));
  CHECK_THAT(
      refusal(
          R"({"__metadata__":{"format.x":"tf32"},"x":{"dtype":"U8","shape":[4,4],"data_offsets":[0,16]}})",
          kData),
      ContainsSubstring("tensor 'x' is tf32, but element 0 has bits below its last place"));
}

TEST_CASE("paths that are no file are refused", "[safetensors]") {
  const Folder folder;
  CHECK_THROWS_WITH(open_safetensors("/nowhere/a.safetensors"),
                    "/nowhere/a.safetensors: no such file");
  CHECK_THROWS_WITH(open_safetensors(folder.path),
                    folder.path.string() + ": is a folder, not a safetensors file");
  CHECK_THROWS_WITH(open_safetensors("/dev/null"), "/dev/null: is not a regular file");
  const std::string large = folder.file("large.safetensors");
  std::string length(8, '\0');
  length[3] = 0x7f;  // a header of 0x7f000000 bytes, in a file that has as many (a hole on disk)
  write_bytes(large, length);
  fs::resize_file(large, 0x7f000008);
  CHECK_THROWS_WITH(open_safetensors(large),
                    large + ": the header has 2130706432 bytes; at most 100 MB are read");
}

TEST_CASE("a mutated file is refused or read, and nothing else happens", "[safetensors]") {
  const Folder folder;
  const std::string file = folder.file("t.safetensors");
  write_safetensors(file,
                    {{"x", filled(FormatId::bf16, {2, 4})},
                     {"w", filled(FormatId::tf32, {4})},
                     {"q", filled(FormatId::e4m3fnuz, {3})}},
                    {{"eps", "1e-6"}});
  const std::string good = read_bytes(file);
  const std::string spice = "{}[]\",:0123456789-+.eE_xUF\\u \xff\x7f";
  std::mt19937_64 random(1);
  int accepted = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = good;
    for (std::uint64_t edits = 1 + random() % 3; edits > 0 && !bytes.empty(); --edits) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = spice[random() % spice.size()]; break;
        case 1: bytes.erase(at, 1 + random() % 4); break;
        case 2: bytes.insert(at, 1, spice[random() % spice.size()]); break;
        default: bytes.resize(at); break;
      }
    }
    // A length that fits the changed header lets the mutation through to the parser half of the
    // time.
    if (round % 2 == 0 && bytes.size() > 8) {
      const std::size_t header = std::min<std::size_t>(bytes.size() - 8, good.size() - 8 - 36);
      for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header >> (8 * i));
    }
    write_bytes(file, bytes);
    try {
      const TensorFile back = read_safetensors(file);
      for (const auto& [name, tensor] : back.tensors)
        REQUIRE(tensor.bytes.size() ==
                static_cast<std::size_t>(tensor.size() * format_of(tensor.format).storage_bytes()));
      ++accepted;
    } catch (const SafetensorsError& error) {
      REQUIRE(std::string_view(error.what()).starts_with(file));
    }
  }
  CHECK(accepted > 0);
  CHECK(accepted < 5000);
}

TEST_CASE("a file is written whole or not at all", "[safetensors]") {
  const Folder folder;
  const std::string file = folder.file("out.safetensors");
  const Tensors tensors{{"y", filled(FormatId::fp32, {64, 64})}};
  write_bytes(file, "before");

  // The size limit stands for a full disk: write() fails half way.
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string said;
  try {
    write_safetensors(file, tensors);
  } catch (const SafetensorsError& error) {
    said = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(said == file + ": cannot be written: File too large");
  CHECK(read_bytes(file) == "before");

  write_safetensors(file, tensors);
  CHECK(read_safetensors(file).tensors.at("y").bytes == tensors.at("y").bytes);
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator{}) == 1);

  CHECK_THROWS_WITH(write_safetensors("/nowhere/y.safetensors", tensors),
                    "/nowhere/y.safetensors: cannot be written: No such file or directory");
  CHECK_THROWS_WITH(write_safetensors(folder.path, tensors),
                    ContainsSubstring("is a folder; name a file to write"));
  if (fs::exists("/dev/full")) {
    CHECK_THROWS_WITH(write_safetensors("/dev/full", tensors),
                      "/dev/full: cannot be written: No space left on device");
    CHECK(fs::is_character_file("/dev/full"));
  }
  CHECK_THROWS_WITH(write_safetensors(file, {{"__metadata__", filled(FormatId::fp32, {1})}}),
                    ContainsSubstring("cannot be called __metadata__"));
  CHECK_THROWS_WITH(write_safetensors(file, {{"\xff", filled(FormatId::fp32, {1})}}),
                    ContainsSubstring("not UTF-8"));
  Tensor torn = filled(FormatId::fp32, {4});
  torn.bytes.pop_back();
  CHECK_THROWS_WITH(write_safetensors(file, {{"y", torn}}),
                    ContainsSubstring("tensor 'y' has 15 bytes, but its shape 4 needs 16"));

  const std::string link = folder.file("link.safetensors");
  fs::create_symlink(file, link);
  write_safetensors(link, {{"z", filled(FormatId::fp16, {2})}});
  CHECK(fs::is_symlink(link));
  CHECK(read_safetensors(file).tensors.contains("z"));
}

}  // namespace norma
