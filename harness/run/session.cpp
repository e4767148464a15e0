// What checks share.
#include "harness/run/session.hpp"

#include <fmt/core.h>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <atomic>

#include "harness/inputs/content_hash.hpp"
#include "harness/inputs/inputs.hpp"
#include "harness/inputs/safetensors.hpp"
#include "impls/cast_paths/block_path.hpp"
#include "impls/cast_paths/cast_path.hpp"
#include "impls/cpu/cpu.hpp"
#include "impls/cuda/cuda.hpp"
#include "impls/library/command.hpp"
#include "impls/library/onednn.hpp"
#include "impls/recorded/recorded.hpp"
#include "reference/blocks/block.hpp"
#include "reference/certified/programs/program_enclosure.hpp"
#include "reference/exact/program_truth.hpp"

namespace norma {

namespace {

constexpr std::int64_t kHeldElements = std::int64_t{1} << 22;  // 160 MiB of enclosures

/// The part of a case that its tensors depend on.
std::string inputs_key(const Case& expanded) {
  if (find_block(expanded.norm) != nullptr) {  // its attributes and its path say which tensors there are
    return print_case(expanded);
  }
  Case only = expanded;
  for (auto it = only.keys.begin(); it != only.keys.end();) {
    const bool about_tensors =
        it->first == "input" || it->first == "seed" || it->first == "eps" || it->first.find('.') != std::string::npos;
    it = about_tensors ? std::next(it) : only.keys.erase(it);
  }
  return print_case(only);
}

std::string attributes_key(const Case& expanded) {
  const CaseAttributes attributes = attributes_of(expanded);
  std::string key;
  for (const auto& [name, value] : attributes.numbers) key += fmt::format(" {}={:a}", name, value);
  for (const auto& [name, value] : attributes.words) key += fmt::format(" {}={}", name, value);
  return key;
}

/// Quick enclosures come from a tier below MPFR. Asked of one row: which of them it is changes no result.
bool is_fast(const TruthSource& truth) {
  std::vector<double> mid(static_cast<std::size_t>(truth.cols())), radius(mid.size()), magnitude(mid.size());
  return truth.enclose_quick(0, {.mid = mid, .radius = radius, .magnitude = magnitude}) != Tier::exact;
}

std::unique_ptr<Implementation> make_recorded(const std::string& impl) {
  const FileInput file = parse_file_input(impl, "y");
  const SafetensorsFile opened = open_safetensors(file.path);
  Tensors outputs;
  outputs["y"] = read_tensor(opened, file.tensor);
  // Other outputs stand beside y under the same prefix; where the inputs stand there too, as NAME_out.
  const auto dot = file.tensor.rfind('.');
  const std::string prefix = dot == std::string::npos ? "" : file.tensor.substr(0, dot + 1);
  const std::string suffix = opened.entries.contains(prefix + "x") ? "_out" : "";
  for (const std::string other : {"residual", "scale", "running_mean", "running_var"})
    if (opened.entries.contains(prefix + other + suffix)) outputs[other] = read_tensor(opened, prefix + other + suffix);
  for (const std::string gradient : {"dweight", "dbias", "dscale", "dshift", "dgate", "dresidual"})
    if (opened.entries.contains(prefix + gradient)) outputs[gradient] = read_tensor(opened, prefix + gradient);
  return std::make_unique<RecordedOutput>(impl, "", std::move(outputs));
}

std::unique_ptr<Implementation> make_command(const std::string& command, double timeout_s) {
  return std::make_unique<CommandImplementation>(
      command,
      CommandFiles{.write = [](const std::string& path, const Tensors& t) { write_safetensors(path, t); },
                   .read = [](const std::string& path) { return read_safetensors(path).tensors; }},
      timeout_s);
}

}  // namespace

std::string hash_of(const Tensors& tensors) {
  Sha256 sha;
  for (const auto& [name, tensor] : tensors) {
    const std::string line = name + " " + content_hash(tensor) + "\n";
    sha.add(std::as_bytes(std::span(line)));
  }
  return sha.hex();
}

SharedTruth::SharedTruth(std::shared_ptr<const CaseInputs> inputs, std::unique_ptr<TruthSource> source)
    : inputs_(std::move(inputs)), source_(std::move(source)) {
  const std::int64_t size = source_->rows() * source_->cols();
  fast_ = size > 0 && is_fast(*source_);
  if (fast_ || size > kHeldElements) return;
  enclosures_.resize(static_cast<std::size_t>(size));
  const auto cols = static_cast<std::size_t>(source_->cols());
  // Isolated: a thread that waits here for its rows must not pick up another check, which could wait for this truth.
  oneapi::tbb::this_task_arena::isolate([&] {
    oneapi::tbb::parallel_for(std::int64_t{0}, source_->rows(), [&](std::int64_t row) {
      source_->enclose_row(row, std::span(enclosures_).subspan(static_cast<std::size_t>(row) * cols, cols));
    });
  });
}

std::pair<std::span<const Enclosure>, std::shared_ptr<const std::vector<Enclosure>>> SharedTruth::held(
    std::int64_t row) const {
  const auto cols = static_cast<std::size_t>(source_->cols());
  if (!enclosures_.empty())
    return {std::span(enclosures_).subspan(static_cast<std::size_t>(row) * cols, cols), nullptr};
  Slot& slot = slots_[static_cast<std::size_t>(row) % slots_.size()];
  {
    const std::lock_guard lock(mutex_);
    if (slot.row == row) return {*slot.enclosures, slot.enclosures};
  }
  auto made = std::make_shared<std::vector<Enclosure>>(cols);
  source_->enclose_row(row, *made);
  const std::lock_guard lock(mutex_);
  slot = {.row = row, .enclosures = made};
  return {*made, made};
}

void SharedTruth::enclose_row(std::int64_t row, std::span<Enclosure> out) const {
  if (fast_) {
    source_->enclose_row(row, out);
    return;
  }
  const auto [enclosures, keep] = held(row);
  std::copy(enclosures.begin(), enclosures.end(), out.begin());
}

Enclosure SharedTruth::enclose(std::int64_t row, std::int64_t col) const {
  if (fast_) return source_->enclose(row, col);
  const auto [enclosures, keep] = held(row);
  return enclosures[static_cast<std::size_t>(col)];
}

Tier SharedTruth::enclose_quick(std::int64_t row, const QuickRow& out) const {
  if (fast_) return source_->enclose_quick(row, out);
  const auto [enclosures, keep] = held(row);
  return quick_from(enclosures, out);
}

std::shared_ptr<const CaseInputs> Session::inputs(const Case& expanded) {
  return inputs_.get(inputs_key(expanded), [&] {
    auto made = std::make_shared<CaseInputs>();
    made->tensors = make_inputs(expanded);
    made->hash = hash_of(made->tensors);
    return made;
  });
}

NormCall norm_call(const Case& expanded, const Tensors& tensors) {
  CaseAttributes attributes = attributes_of(expanded);
  return {.inputs = &tensors, .numbers = std::move(attributes.numbers), .words = std::move(attributes.words)};
}

std::shared_ptr<const TruthSource> Session::truth(const Case& expanded, const std::string& output) {
  const std::string key = inputs_key(expanded) + attributes_key(expanded) + " -> " + output;
  return truths_.get(key, [&]() -> std::shared_ptr<const TruthSource> {
    const auto made = inputs(expanded);
    const NormCall call = norm_call(expanded, made->tensors);
    return std::make_shared<SharedTruth>(made, truth_of(norm_of(expanded), call, output, kind_));
  });
}

std::shared_ptr<const TruthSource> Session::erasure(const Case& expanded, const Program& program,
                                                    const std::string& output) {
  const Program erased = erase_roundings(program);
  const std::string key =
      inputs_key(expanded) + attributes_key(expanded) + "\n" + print_program(erased) + " -> " + output;
  return truths_.get(key, [&]() -> std::shared_ptr<const TruthSource> {
    // The evaluator refers to its program, so both live in one object.
    struct Erasure final : TruthSource {
      Program program;
      std::shared_ptr<const CaseInputs> inputs;
      std::unique_ptr<TruthSource> source;
      std::int64_t rows() const override { return source->rows(); }
      std::int64_t cols() const override { return source->cols(); }
      void enclose_row(std::int64_t row, std::span<Enclosure> out) const override { source->enclose_row(row, out); }
      Enclosure enclose(std::int64_t row, std::int64_t col) const override { return source->enclose(row, col); }
      Tier enclose_quick(std::int64_t row, const QuickRow& out) const override {
        return source->enclose_quick(row, out);
      }
      Comparison compare(std::int64_t row, std::int64_t col, double hi, double lo) const override {
        return source->compare(row, col, hi, lo);
      }
    };
    auto owned = std::make_unique<Erasure>();
    owned->program = erased;
    owned->inputs = inputs(expanded);
    const auto source = kind_ == TruthKind::fast ? certified_program_truth : program_truth;
    owned->source = source(owned->program, owned->inputs->tensors, attributes_of(expanded).numbers, output);
    auto held_inputs = owned->inputs;
    return std::make_shared<SharedTruth>(held_inputs, std::move(owned));
  });
}

std::span<Implementation* const> builtin_implementations() {
  static const std::vector<Implementation*> all = [] {
    std::vector<Implementation*> list;
    for (const auto kernels : {cpu_implementations(), onednn_implementations(), cuda_implementations()})
      list.insert(list.end(), kernels.begin(), kernels.end());
    return list;
  }();
  return all;
}

std::shared_ptr<Implementation> Session::implementation(const std::string& impl) {
  if (impl.starts_with("path:")) {
    const std::string name = impl.substr(5);
    if (find_cast_path(name) == nullptr && find_block_path(name) == nullptr && !name.starts_with("file:"))
      throw CaseError(fmt::format("unknown path '{}'; 'norma list paths' prints the known ones", name));
    return nullptr;
  }
  const std::lock_guard lock(mutex_);
  auto& known = implementations_[impl];
  if (known) return known;
  if (impl.starts_with("file:")) return known = make_recorded(impl);
  if (impl.starts_with("cmd:")) return known = make_command(impl.substr(4), timeout_s_);
  for (Implementation* builtin : builtin_implementations())
    if (builtin->name() == impl) return known = std::shared_ptr<Implementation>(builtin, [](Implementation*) {});
  implementations_.erase(impl);
  std::string alike;
  for (const Implementation* builtin : builtin_implementations())
    if (!impl.empty() && builtin->name().find(impl) != std::string::npos)
      alike.append(alike.empty() ? " there are " : ", ").append(builtin->name());
  throw CaseError(
      fmt::format("unknown implementation '{}';{}{} 'norma list impls' prints the known ones, path:NAME, "
                  "file:OUT.safetensors#y and cmd:COMMAND make others",
                  impl, alike, alike.empty() ? "" : ";"));
}

}  // namespace norma
