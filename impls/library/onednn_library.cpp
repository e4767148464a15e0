// oneDNN's C API of versions 2 and 3, by dlopen.
//
// It is not linked: Debian's library brings an OpenCL loader and 40 MB of relocations, which would cost every start of
// norma 2.3 ms (measured on Debian 12), and a program without it must still run. It runs on one thread, since its sums
// are split over threads: the calling thread's OpenMP setting, or an arena of one for a library built on TBB.
#include "impls/library/onednn_library.hpp"

#include "impls/implementation.hpp"

#ifdef NORMA_HAVE_ONEDNN

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <oneapi/dnnl/dnnl_version.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_TBB
#include <oneapi/tbb/task_arena.h>
#endif

namespace norma {

namespace {

constexpr bool kHasGroups = DNNL_VERSION_MAJOR > 3 || (DNNL_VERSION_MAJOR == 3 && DNNL_VERSION_MINOR >= 3);
constexpr bool kHasRms = DNNL_VERSION_MAJOR > 3 || (DNNL_VERSION_MAJOR == 3 && DNNL_VERSION_MINOR >= 9);
constexpr unsigned kRmsFlag = 0x20;  // dnnl_rms_norm, which older headers do not have

// ---- the library ----

struct Api {
#define NORMA_ONEDNN_FUNCTIONS(X)            \
  X(dnnl_version)                            \
  X(dnnl_status2str)                         \
  X(dnnl_engine_create)                      \
  X(dnnl_stream_create)                      \
  X(dnnl_stream_wait)                        \
  X(dnnl_stream_destroy)                     \
  X(dnnl_memory_create)                      \
  X(dnnl_memory_destroy)                     \
  X(dnnl_primitive_attr_create)              \
  X(dnnl_primitive_attr_set_scratchpad_mode) \
  X(dnnl_primitive_attr_destroy)             \
  X(dnnl_memory_desc_get_size)               \
  X(dnnl_primitive_desc_query_md)            \
  X(dnnl_primitive_desc_query)               \
  X(dnnl_primitive_desc_destroy)             \
  X(dnnl_primitive_create)                   \
  X(dnnl_primitive_execute)                  \
  X(dnnl_primitive_destroy)
#if DNNL_VERSION_MAJOR >= 3
#define NORMA_ONEDNN_OF_VERSION(X)                          \
  X(dnnl_memory_desc_create_with_strides)                   \
  X(dnnl_memory_desc_destroy)                               \
  X(dnnl_layer_normalization_forward_primitive_desc_create) \
  X(dnnl_batch_normalization_forward_primitive_desc_create)
#else
#define NORMA_ONEDNN_OF_VERSION(X)              \
  X(dnnl_memory_desc_init_by_strides)           \
  X(dnnl_primitive_desc_create)                 \
  X(dnnl_layer_normalization_forward_desc_init) \
  X(dnnl_batch_normalization_forward_desc_init)
#endif
#if DNNL_VERSION_MAJOR > 3 || (DNNL_VERSION_MAJOR == 3 && DNNL_VERSION_MINOR >= 3)
#define NORMA_ONEDNN_GROUPS(X) X(dnnl_group_normalization_forward_primitive_desc_create)
#else
#define NORMA_ONEDNN_GROUPS(X)
#endif
#define NORMA_ONEDNN_ALL(X) NORMA_ONEDNN_FUNCTIONS(X) NORMA_ONEDNN_OF_VERSION(X) NORMA_ONEDNN_GROUPS(X)
#define NORMA_ONEDNN_POINTER(name) decltype(&::name) name = nullptr;
  NORMA_ONEDNN_ALL(NORMA_ONEDNN_POINTER)
#undef NORMA_ONEDNN_POINTER
  void (*omp_set_num_threads)(int) = nullptr;
  dnnl_engine_t engine = nullptr;  // never destroyed: the library outlives main's statics
  OneDnnState state;
};

std::string version_text(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

constexpr const char* kInstall = "apt-get install libdnnl-dev";

Api load() {
  Api api;
  const std::string major = std::to_string(DNNL_VERSION_MAJOR);
  const std::string minor = std::to_string(DNNL_VERSION_MINOR);
  void* handle = nullptr;
  std::string first_error;
  // The file that the headers came with; beside it Debian's names, 2: libdnnl.so.2, 3: libdnnl.so.3.MINOR.
  for (const std::string& name :
       {std::string(NORMA_ONEDNN_LIBRARY), "libdnnl.so." + major + "." + minor, "libdnnl.so." + major}) {
    handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    if (const char* error = dlerror(); first_error.empty() && error != nullptr) first_error = error;
  }
  if (handle == nullptr) {
    api.state.missing = "the library cannot be loaded: " + first_error + " (" + kInstall + ")";
    return api;
  }
  const char* absent = nullptr;
#define NORMA_ONEDNN_LOAD(name)                                         \
  api.name = reinterpret_cast<decltype(&::name)>(dlsym(handle, #name)); \
  if (api.name == nullptr) absent = #name;
  NORMA_ONEDNN_ALL(NORMA_ONEDNN_LOAD)
#undef NORMA_ONEDNN_LOAD
  if (absent != nullptr) {
    api.state.missing = std::string("the library that was loaded has no ") + absent;
    return api;
  }
  const dnnl_version_t* version = api.dnnl_version();
  const std::string text = version_text(version->major, version->minor, version->patch);
  if (version->major != DNNL_VERSION_MAJOR || version->minor < DNNL_VERSION_MINOR) {
    api.state.missing = "the library is " + text + ", and norma was built with the headers of " +
                        version_text(DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
    return api;
  }
#if DNNL_CPU_RUNTIME != DNNL_RUNTIME_SYCL && DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
  // Looked up among what the library itself loaded, so that it is its own OpenMP runtime's.
  api.omp_set_num_threads = reinterpret_cast<void (*)(int)>(dlsym(handle, "omp_set_num_threads"));
  if (api.omp_set_num_threads == nullptr) {
    api.state.missing = "its OpenMP runtime has no omp_set_num_threads, and norma runs it on one thread only";
    return api;
  }
#elif DNNL_CPU_RUNTIME == DNNL_RUNTIME_SYCL
  api.state.missing = "it was built on SYCL, and norma has no SYCL memory for it";
  return api;
#elif DNNL_CPU_THREADING_RUNTIME != DNNL_RUNTIME_SEQ && DNNL_CPU_THREADING_RUNTIME != DNNL_RUNTIME_TBB
  api.state.missing = "it was built on a thread pool of its caller's, and norma has none for it";
  return api;
#endif
  if (api.dnnl_engine_create(&api.engine, dnnl_cpu, 0) != dnnl_success) {
    api.state.missing = "it gives no CPU engine";
    return api;
  }
  api.state.version = text;
  return api;
}

const Api& api() {
  static const Api loaded = load();
  return loaded;
}

/// Does `work` where the library sees one thread.
template <typename Work>
void on_one_thread(const Work& work) {
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_TBB
  oneapi::tbb::task_arena arena(1);
  arena.execute(work);
#else
  if (api().omp_set_num_threads != nullptr) api().omp_set_num_threads(1);
  work();
#endif
}

// ---- its objects ----

/// Owns what `destroy` ends.
template <typename Handle>
class Owned {
 public:
  using Destroy = dnnl_status_t (*)(Handle);
  explicit Owned(Destroy destroy) : destroy_(destroy) {}
  ~Owned() {
    if (handle_ != nullptr) destroy_(handle_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_ = nullptr;
  Destroy destroy_;
};

/// A description of row-major values.
class Description {
 public:
  Description(const Shape& dims, dnnl_data_type_t type) {
    dnnl_dims_t sides = {}, strides = {};
    std::copy(dims.begin(), dims.end(), sides);
    std::int64_t stride = 1;
    for (std::size_t i = dims.size(); i-- > 0; stride *= dims[i]) strides[i] = stride;
    const int count = static_cast<int>(dims.size());
#if DNNL_VERSION_MAJOR >= 3
    status_ = api().dnnl_memory_desc_create_with_strides(value_.out(), count, sides, type, strides);
#else
    status_ = api().dnnl_memory_desc_init_by_strides(&value_, count, sides, type, strides);
#endif
  }
  dnnl_status_t status() const { return status_; }
#if DNNL_VERSION_MAJOR >= 3
  const_dnnl_memory_desc_t get() const { return value_.get(); }

 private:
  Owned<dnnl_memory_desc_t> value_{api().dnnl_memory_desc_destroy};
#else
  const dnnl_memory_desc_t* get() const { return &value_; }

 private:
  dnnl_memory_desc_t value_ = {};
#endif
  dnnl_status_t status_ = dnnl_success;
};

std::optional<dnnl_data_type_t> type_of(FormatId format) {
  if (format == FormatId::fp32) return dnnl_f32;
  if (format == FormatId::bf16) return dnnl_bf16;
  if (format == FormatId::fp16) return dnnl_f16;
  return std::nullopt;
}

bool is_row(OneDnnKind kind) { return kind == OneDnnKind::layer || kind == OneDnnKind::rms; }

/// The kernel that the library takes for a call. Its scratch memory is ours, so that it lies between guards too.
class Kernel {
 public:
  explicit Kernel(const OneDnnCall& call);
  dnnl_status_t status() const { return status_; }
  const_dnnl_primitive_desc_t get() const { return description_.get(); }

 private:
  Owned<dnnl_primitive_attr_t> attributes_{api().dnnl_primitive_attr_destroy};
  Owned<dnnl_primitive_desc_t> description_{api().dnnl_primitive_desc_destroy};
  dnnl_status_t status_;
};

/// Batch statistics come out of training only; everything else is inference.
dnnl_prop_kind_t propagation(const OneDnnCall& call) {
  return call.kind == OneDnnKind::batch && call.mean == nullptr ? dnnl_forward_training : dnnl_forward_inference;
}

dnnl_status_t describe(const OneDnnCall& call, const_dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t* out) {
  const auto type = type_of(call.x->format);
  if (!type || call.dims.size() > DNNL_MAX_NDIMS) return dnnl_unimplemented;
  const Description data(call.dims, *type);
  if (data.status() != dnnl_success) return data.status();
  unsigned flags = dnnl_normalization_flags_none;
  if (call.weight != nullptr) flags |= dnnl_use_scale;
  if (call.bias != nullptr) flags |= dnnl_use_shift;
  if (call.mean != nullptr) flags |= dnnl_use_global_stats;
  if (call.kind == OneDnnKind::rms) flags |= kRmsFlag;
  const dnnl_prop_kind_t kind = propagation(call);
#if DNNL_VERSION_MAJOR >= 3
  if (is_row(call.kind))
    return api().dnnl_layer_normalization_forward_primitive_desc_create(out, api().engine, kind, data.get(), data.get(),
                                                                        nullptr, call.eps, flags, attributes);
  if (call.kind == OneDnnKind::batch)
    return api().dnnl_batch_normalization_forward_primitive_desc_create(out, api().engine, kind, data.get(), data.get(),
                                                                        call.eps, flags, attributes);
#if DNNL_VERSION_MAJOR > 3 || DNNL_VERSION_MINOR >= 3
  return api().dnnl_group_normalization_forward_primitive_desc_create(out, api().engine, kind, data.get(), data.get(),
                                                                      call.groups, call.eps, flags, attributes);
#else
  return dnnl_unimplemented;
#endif
#else
  if (is_row(call.kind)) {
    dnnl_layer_normalization_desc_t operation = {};
    const dnnl_status_t status =
        api().dnnl_layer_normalization_forward_desc_init(&operation, kind, data.get(), nullptr, call.eps, flags);
    return status != dnnl_success
               ? status
               : api().dnnl_primitive_desc_create(out, &operation, attributes, api().engine, nullptr);
  }
  if (call.kind == OneDnnKind::group) return dnnl_unimplemented;
  dnnl_batch_normalization_desc_t operation = {};
  const dnnl_status_t status =
      api().dnnl_batch_normalization_forward_desc_init(&operation, kind, data.get(), call.eps, flags);
  return status != dnnl_success ? status
                                : api().dnnl_primitive_desc_create(out, &operation, attributes, api().engine, nullptr);
#endif
}

Kernel::Kernel(const OneDnnCall& call) {
  status_ = api().dnnl_primitive_attr_create(attributes_.out());
  if (status_ == dnnl_success)
    status_ = api().dnnl_primitive_attr_set_scratchpad_mode(attributes_.get(), dnnl_scratchpad_mode_user);
  if (status_ == dnnl_success) status_ = describe(call, attributes_.get(), description_.out());
}

constexpr const char* kPrimitives[] = {"layer normalization", "RMSNorm (its layer normalization)",
                                       "batch normalization", "group normalization"};

[[noreturn]] void refuse(const OneDnnCall& call, dnnl_status_t status) {
  throw ImplSkipped("oneDNN " + api().state.version + " answers '" + api().dnnl_status2str(status) + "' to a forward " +
                    kPrimitives[static_cast<int>(call.kind)] + " of " + std::string(name_of(call.x->format)) + " " +
                    shape_text(call.dims) + " on this CPU");
}

/// A copy of a tensor's bytes on a cache line's bound between two guards: kernels store whole vectors, and one that
/// stores past an end is to be found out, not to take the process down.
class Guarded {
 public:
  explicit Guarded(const std::vector<std::byte>& bytes)
      : size_(bytes.size()), room_(kLine + 2 * kGuard + size_, kMark) {
    const auto address = reinterpret_cast<std::uintptr_t>(room_.data());
    begin_ = room_.data() + (kLine - address % kLine) % kLine + kGuard;
    std::copy(bytes.begin(), bytes.end(), begin_);
  }
  std::byte* data() { return begin_; }
  void copy_to(std::vector<std::byte>& bytes) const { std::copy(begin_, begin_ + size_, bytes.begin()); }
  bool is_whole() const {
    const auto marked = [](const std::byte* from, const std::byte* to) {
      return std::all_of(from, to, [](std::byte b) { return b == kMark; });
    };
    return marked(room_.data(), begin_) && marked(begin_ + size_, room_.data() + room_.size());
  }

 private:
  static constexpr std::size_t kLine = 64, kGuard = 4096;
  static constexpr std::byte kMark{0xA5};
  std::size_t size_;
  std::vector<std::byte> room_;
  std::byte* begin_;
};

/// The tensors that a primitive is run with.
class Arguments {
 public:
  Guarded& add(int slot, const Shape& dims, dnnl_data_type_t type, const std::vector<std::byte>& bytes) {
    Guarded& values = *values_.emplace_back(std::make_unique<Guarded>(bytes));
    const Description description(dims, type);
    auto& memory = memories_.emplace_back(std::make_unique<Owned<dnnl_memory_t>>(api().dnnl_memory_destroy));
    if (status_ == dnnl_success) status_ = description.status();
    if (status_ == dnnl_success)
      status_ = api().dnnl_memory_create(memory->out(), description.get(), api().engine, values.data());
    list_.push_back({slot, memory->get()});
    return values;
  }
  dnnl_status_t status() const { return status_; }
  const std::vector<dnnl_exec_arg_t>& list() const { return list_; }
  bool are_whole() const {
    return std::all_of(values_.begin(), values_.end(), [](const auto& v) { return v->is_whole(); });
  }

 private:
  std::vector<std::unique_ptr<Guarded>> values_;
  std::vector<std::unique_ptr<Owned<dnnl_memory_t>>> memories_;
  std::vector<dnnl_exec_arg_t> list_;
  dnnl_status_t status_ = dnnl_success;
};

dnnl_status_t execute(const OneDnnCall& call, Tensor& y) {
  const Kernel kernel(call);
  if (kernel.status() != dnnl_success) return kernel.status();
  Owned<dnnl_primitive_t> primitive(api().dnnl_primitive_destroy);
  if (const auto status = api().dnnl_primitive_create(primitive.out(), kernel.get()); status != dnnl_success)
    return status;
  Owned<dnnl_stream_t> stream(api().dnnl_stream_destroy);
  if (const auto status = api().dnnl_stream_create(stream.out(), api().engine, dnnl_stream_default_flags);
      status != dnnl_success)
    return status;
  const Shape channels{is_row(call.kind) ? call.dims.back() : call.dims.at(1)};
  const dnnl_data_type_t type = type_of(call.x->format).value();
  Arguments arguments;
  arguments.add(DNNL_ARG_SRC, call.dims, type, call.x->bytes);
  const Guarded& written = arguments.add(DNNL_ARG_DST, call.dims, type, y.bytes);
  if (call.weight != nullptr) arguments.add(DNNL_ARG_SCALE, channels, dnnl_f32, call.weight->bytes);
  if (call.bias != nullptr) arguments.add(DNNL_ARG_SHIFT, channels, dnnl_f32, call.bias->bytes);
  if (call.kind == OneDnnKind::batch) {
    const Tensor none = Tensor::zeros(FormatId::fp32, channels);  // where it writes what it finds
    arguments.add(DNNL_ARG_MEAN, channels, dnnl_f32, (call.mean != nullptr ? *call.mean : none).bytes);
    arguments.add(DNNL_ARG_VARIANCE, channels, dnnl_f32, (call.variance != nullptr ? *call.variance : none).bytes);
  }
  const auto scratch = static_cast<std::int64_t>(
      api().dnnl_memory_desc_get_size(api().dnnl_primitive_desc_query_md(kernel.get(), dnnl_query_scratchpad_md, 0)));
  if (scratch > 0)
    arguments.add(DNNL_ARG_SCRATCHPAD, {scratch}, dnnl_u8, std::vector<std::byte>(static_cast<std::size_t>(scratch)));
  if (arguments.status() != dnnl_success) return arguments.status();
  auto status = api().dnnl_primitive_execute(primitive.get(), stream.get(), static_cast<int>(arguments.list().size()),
                                             arguments.list().data());
  if (status == dnnl_success) status = api().dnnl_stream_wait(stream.get());
  if (!arguments.are_whole())
    throw ImplCrashed("oneDNN " + api().state.version + " wrote outside its tensors in a forward " +
                      kPrimitives[static_cast<int>(call.kind)] + " of " + std::string(name_of(call.x->format)) + " " +
                      shape_text(call.dims));
  written.copy_to(y.bytes);
  return status;
}

}  // namespace

const OneDnnState& onednn_state() { return api().state; }

bool onednn_has(OneDnnKind kind) {
  if (kind == OneDnnKind::group) return kHasGroups;
  return kind != OneDnnKind::rms || kHasRms;
}

std::optional<std::string> onednn_kernel(const OneDnnCall& call) {
  if (onednn_state().version.empty() || !onednn_has(call.kind)) return std::nullopt;
  std::optional<std::string> name;
  on_one_thread([&] {
    const Kernel kernel(call);
    if (kernel.status() != dnnl_success) return;
    const char* text = nullptr;
    if (api().dnnl_primitive_desc_query(kernel.get(), dnnl_query_impl_info_str, 0, static_cast<void*>(&text)) ==
            dnnl_success &&
        text != nullptr)
      name = text;
  });
  return name;
}

Tensor onednn_run(const OneDnnCall& call) {
  if (onednn_state().version.empty()) throw ImplSkipped("oneDNN is not here: " + onednn_state().missing);
  if (!onednn_has(call.kind))
    throw ImplSkipped(
        "oneDNN " + onednn_state().version + " has no " +
        (call.kind == OneDnnKind::group ? "group normalization; 3.3 brought it" : "RMSNorm; 3.9 brought it"));
  Tensor y = Tensor::zeros(call.x->format, call.x->shape);
  dnnl_status_t status = dnnl_success;
  on_one_thread([&] { status = execute(call, y); });
  if (status == dnnl_unimplemented || status == dnnl_invalid_arguments) refuse(call, status);
  if (status != dnnl_success)
    throw ImplCrashed("oneDNN " + onednn_state().version + " answers '" + api().dnnl_status2str(status) + "'");
  return y;
}

}  // namespace norma

#else

namespace norma {

const OneDnnState& onednn_state() {
  static const OneDnnState state{
      .version = {},
      .missing = "norma was built without its header dnnl.h (apt-get install libdnnl-dev, then configure anew)"};
  return state;
}

bool onednn_has(OneDnnKind) { return false; }

std::optional<std::string> onednn_kernel(const OneDnnCall&) { return std::nullopt; }

Tensor onednn_run(const OneDnnCall&) { throw ImplSkipped("oneDNN is not here: " + onednn_state().missing); }

}  // namespace norma

#endif
