// Two truths a site: of the whole block up to it, and of the site alone on what it was really given.
#include "harness/trace/trace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "impls/emulate/graph.hpp"
#include "reference/formats/format.hpp"

namespace norma {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string kind_of(const Site& site) {
  constexpr const char* kNames[] = {"program", "linear", "attention", "convolution", "rearrangement"};
  return kNames[site.what.index()];
}

/// One ulp of a format at a real number; the least subnormal's below the normal range.
double ulp_at(FormatId format, double x) {
  const Format& f = format_of(format);
  const int exponent = x == 0 ? f.emin : std::max(std::ilogb(x), f.emin);
  return std::ldexp(1.0, exponent - f.mantissa_bits());
}

/// Sums for one kind of error, element after element; rows are the last axis.
class Figures {
 public:
  explicit Figures(std::int64_t cols) : cols_(cols), column_(static_cast<std::size_t>(cols), 0.0) {}

  void add(std::int64_t at, double e, double t, double ulp) {
    squares_ += e * e;
    truth_ += t * t;
    product_ += e * t;
    column_[static_cast<std::size_t>(at % cols_)] += e;
    const double ulps = std::fabs(e) / ulp;
    ulp_squares_ += ulps * ulps;
    if (ulps > max_ulp_ || worst_ < 0) max_ulp_ = ulps, worst_ = at;
    ++count_;
  }

  ErrorFigures finish() const {
    ErrorFigures f;
    if (count_ == 0) {
      f.relative_l2 = f.rms_ulp = f.max_ulp = f.gain = std::numeric_limits<double>::quiet_NaN();
      return f;
    }
    f.max_ulp = max_ulp_, f.worst = worst_;
    f.relative_l2 = truth_ > 0 ? std::sqrt(squares_ / truth_) : squares_ > 0 ? kInfinity : 0;
    f.rms_ulp = std::sqrt(ulp_squares_ / static_cast<double>(count_));
    f.gain = truth_ > 0 ? product_ / truth_ : 0;
    const double rows = static_cast<double>(count_) / static_cast<double>(cols_);
    if (rows >= 2 && squares_ > 0) {
      // e = m + noise in every row: R |mean|^2 has the expectation R |m|^2 + |noise|^2 / R.
      double mean = 0;
      for (const double sum : column_) mean += (sum / rows) * (sum / rows);
      const double common = (rows * rows * mean - squares_) / (rows - 1);
      f.coherent = std::sqrt(std::clamp(common / squares_, 0.0, 1.0));
    }
    return f;
  }

 private:
  std::int64_t cols_, count_ = 0;
  double squares_ = 0, truth_ = 0, product_ = 0, ulp_squares_ = 0;
  double max_ulp_ = 0;
  std::int64_t worst_ = -1;
  std::vector<double> column_;
};

/// x - y of balls' midpoints, to binary64.
double difference(const Ball& x, const Ball& y) { return (x.h - y.h) + (x.l - y.l); }

/// Neither open nor what NaN and Inf give.
bool is_known(const Ball& b) { return b.r < kInfinity && std::isfinite(b.h); }

SiteTrace compare(const Site& site, const GraphValue& result, const Tensor& got, const RealTensor& truth,
                  const RealTensor& meant) {
  SiteTrace t;
  t.name = result.name;
  t.kind = kind_of(site);
  if (const auto* program = std::get_if<ProgramSite>(&site.what)) t.path = program->path;
  t.shape = result.shape;
  t.format = got.format;
  t.elements = got.size();
  const double largest = max_finite(got.format);
  const std::int64_t cols = std::max<std::int64_t>(1, got.cols());
  Figures entering(cols), added(cols), leaving(cols);
  double squares = 0, radii = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double value = got.value(i);
    if (std::isnan(value)) ++t.nan;
    if (std::isinf(value)) ++t.infinite;
    const Ball exact = truth.at(i), local = meant.at(i);
    if (std::fabs(value) == largest && std::fabs(exact.h) > largest) ++t.clipped;
    const bool open = !is_known(exact) || !is_known(local);
    if (open) ++t.open;
    if (is_known(exact)) squares += exact.h * exact.h;
    radii += exact.r * exact.r;
    if (open || !std::isfinite(value)) continue;
    const double ulp = ulp_at(got.format, exact.h);
    const Ball stored{value, 0, 0};
    entering.add(i, difference(local, exact), exact.h, ulp);
    added.add(i, difference(stored, local), exact.h, ulp);
    leaving.add(i, difference(stored, exact), exact.h, ulp);
  }
  t.truth_norm = std::sqrt(squares);
  t.uncertainty = squares > 0 ? std::sqrt(radii / squares) : radii > 0 ? kInfinity : 0;
  t.entering = entering.finish(), t.added = added.finish(), t.leaving = leaving.finish();
  return t;
}

std::int64_t differing_codes(const Tensor& a, const Tensor& b) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const bool both_nan = std::isnan(a.value(i)) && std::isnan(b.value(i));
    if (a.code(i) != b.code(i) && !both_nan) ++count;
  }
  return count;
}

double relative_distance(const RealTensor& x, const RealTensor& y) {
  double squares = 0, norm = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const Ball a = x.at(i);
    const double d = difference(a, y.at(i));
    squares += d * d;
    norm += a.h * a.h;
  }
  return norm > 0 ? std::sqrt(squares / norm) : squares > 0 ? kInfinity : 0;
}

/// A value three times over.
struct Traced {
  Tensor stored;     ///< what the path, or the implementation, stored
  RealTensor truth;  ///< of everything up to it
  RealTensor alone;  ///< of its block alone, on what the block was given; in a stack only
};

class Tracer {
 public:
  Tracer(const Graph& path, const Tensors& inputs, const TraceOptions& options)
      : path_(path), inputs_(inputs), options_(options), bits_{.threads = options.real.threads} {
    check_inputs(path, inputs, true);
    for (std::size_t i = 0; i < path.sites.size(); ++i)
      for (const Argument& argument : path.sites[i].arguments) last_use_[argument.value] = i;
    for (int k = 0; k + 1 < options.blocks; ++k)
      for (const Stream& stream : options.streams) handed_on_[std::to_string(k) + "." + stream.output] = {k, &stream};
    if (options.blocks > 1)
      for (const Stream& stream : options.streams) handed_on_[stream.output] = {options.blocks - 1, &stream};
  }

  BlockTrace run() {
    for (std::size_t i = 0; i < path_.sites.size(); ++i) {
      trace(path_.sites[i]);
      forget_after(i);
    }
    for (const std::string& output : path_.outputs) {
      Traced& value = made_.at(output);
      trace_.outputs[output] = std::move(value.stored);
      if (!carried_from_) trace_.meant[output] = std::move(value.truth);
    }
    if (carried_from_) trace_.definition_gap = std::numeric_limits<double>::quiet_NaN();
    return std::move(trace_);
  }

 private:
  bool stack() const { return options_.blocks > 1; }

  void trace(const Site& site) {
    std::vector<const Tensor*> given;
    std::vector<RealTensor> exact, real, alone;
    bool changed = false;  // an operand is not what it should be
    for (const Argument& argument : site.arguments) {
      const auto made = made_.find(argument.value);
      given.push_back(made != made_.end() ? &made->second.stored : &inputs_.find(argument.value)->second);
      exact.push_back(exactly(*given.back()));
      real.push_back(made != made_.end() ? made->second.truth : exact.back());
      alone.push_back(made != made_.end() && stack() ? made->second.alone : exact.back());
      changed = changed || made != made_.end();
    }
    std::vector<Tensor> results = emulate_site(site, given, bits_);
    const std::vector<RealTensor> truth = evaluate_site(site, real, options_.real);
    // The same as the truth in the first block, where the block is given what it should be.
    const bool first = site.name().starts_with("0.");
    const std::vector<RealTensor> of_block = stack() && !first ? evaluate_site(site, alone, options_.real) : truth;
    if (!site.moves_only()) {
      const std::vector<RealTensor> meant = changed ? evaluate_site(site, exact, options_.real) : truth;
      for (std::size_t k = 0; k < results.size(); ++k) {
        const GraphValue& result = site.results[k];
        const std::optional<std::int64_t> differing = take_recorded(result, results[k]);
        trace_.sites.push_back(compare(site, result, results[k], truth[k], meant[k]));
        trace_.sites.back().differing = differing;
        if (options_.progress) options_.progress(trace_.sites.back());
      }
    }
    for (std::size_t k = 0; k < results.size(); ++k) {
      const std::string& name = site.results[k].name;
      Traced& value = made_[name] = {.stored = std::move(results[k]), .truth = truth[k], .alone = of_block[k]};
      if (const auto end = handed_on_.find(name); end != handed_on_.end())
        hand_on(site, site.results[k], value, end->second);
    }
  }

  /// What an implementation stored takes the place of what was emulated. How many bits differ; none if it has no such
  /// value.
  std::optional<std::int64_t> take_recorded(const GraphValue& result, Tensor& value) const {
    if (options_.recorded == nullptr) return std::nullopt;
    const auto found = options_.recorded->find(result.name);
    if (found == options_.recorded->end()) return std::nullopt;
    if (found->second.shape != value.shape || found->second.format != value.format)
      throw ProgramError("the recorded " + result.name + " must be " + std::string(name_of(value.format)) + " " +
                         shape_text(value.shape) + ", got " + std::string(name_of(found->second.format)) + " " +
                         shape_text(found->second.shape));
    const std::int64_t differing = differing_codes(value, found->second);
    value = found->second;
    return differing;
  }

  struct End {
    int block;
    const Stream* stream;
  };

  /// The last value of a block: its step, and what the next block begins with.
  void hand_on(const Site& site, const GraphValue& result, Traced& value, const End& end) {
    trace_.steps.push_back({.block = end.block,
                            .stream = end.stream->output,
                            .figures = compare(site, result, value.stored, value.truth, value.alone),
                            .carried = carried_from_ && *carried_from_ <= end.block});
    if (end.block + 1 == options_.blocks) return;
    if (!(trace_.steps.back().figures.uncertainty <= kCarriedRadius) && trace_.steps.back().figures.open == 0) {
      value.truth = midpoints(value.truth);
      if (!carried_from_) carried_from_ = end.block + 1;
    }
    value.alone = exactly(value.stored);  // of a value that stays in made_ until its last use
  }

  void forget_after(std::size_t site) {
    for (const Argument& argument : path_.sites[site].arguments)
      if (last_use_.at(argument.value) == site &&
          std::ranges::find(path_.outputs, argument.value) == path_.outputs.end())
        made_.erase(argument.value);
  }

  const Graph& path_;
  const Tensors& inputs_;
  const TraceOptions& options_;
  EmulateOptions bits_;
  std::map<std::string, std::size_t> last_use_;
  std::map<std::string, End> handed_on_;
  std::map<std::string, Traced> made_;  // its nodes stay where they are
  std::optional<int> carried_from_;     // the first block whose truth begins with midpoints
  BlockTrace trace_;
};

}  // namespace

BlockTrace trace_block(const Graph& path, const Tensors& inputs, const TraceOptions& options) {
  BlockTrace trace = Tracer(path, inputs, options).run();
  if (options.canonical != nullptr && !trace.meant.empty())
    trace.definition_gap = definition_gap(
        *options.canonical,
        evaluate_graph(*options.canonical, inputs, options.real, [](const std::string&) { return false; }), path,
        trace.meant);
  return trace;
}

double definition_gap(const Graph& canonical, const RealTensors& truths, const Graph& path, const RealTensors& meant) {
  double gap = 0;
  for (std::size_t k = 0; k < path.outputs.size(); ++k)
    gap = std::max(gap, relative_distance(truths.at(canonical.outputs.at(k)), meant.at(path.outputs[k])));
  return gap;
}

std::vector<const SiteTrace*> ranked(const BlockTrace& trace) {
  std::vector<const SiteTrace*> sites;
  for (const SiteTrace& site : trace.sites) sites.push_back(&site);
  std::ranges::stable_sort(sites, std::greater{}, [](const SiteTrace* site) {
    return std::isnan(site->added.relative_l2) ? -1 : site->added.relative_l2;  // nothing compared: last
  });
  return sites;
}

const SiteTrace* first_beyond(const BlockTrace& trace, double limit) {
  for (const SiteTrace& site : trace.sites)
    if (site.nan != 0 || site.infinite != 0 || site.leaving.relative_l2 > limit) return &site;
  return nullptr;
}

const SiteTrace* first_special(const BlockTrace& trace) {
  const auto found = std::ranges::find_if(
      trace.sites, [](const SiteTrace& site) { return site.nan != 0 || site.infinite != 0 || site.clipped != 0; });
  return found == trace.sites.end() ? nullptr : &*found;
}

}  // namespace norma
