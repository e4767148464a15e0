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
    if (count_ == 0) return f;
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
    squares += exact.h * exact.h;
    radii += exact.r * exact.r;
    if (!std::isfinite(value) || !(exact.r < kInfinity) || !(local.r < kInfinity)) continue;
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

}  // namespace

BlockTrace trace_block(const Graph& path, const Tensors& inputs, const TraceOptions& options) {
  check_inputs(path, inputs, true);
  BlockTrace trace;
  RealTensors truths;
  Tensors stored;
  for (const GraphInput& input : path.inputs)
    truths[input.value.name] = exactly(inputs.find(input.value.name)->second);
  std::map<std::string, std::size_t> last_use;
  for (std::size_t i = 0; i < path.sites.size(); ++i)
    for (const Argument& argument : path.sites[i].arguments) last_use[argument.value] = i;
  const auto is_output = [&](const std::string& name) { return std::ranges::find(path.outputs, name) != path.outputs.end(); };
  const auto value = [&](const std::string& name) -> const Tensor& {
    const auto made = stored.find(name);
    return made != stored.end() ? made->second : inputs.find(name)->second;
  };
  const EmulateOptions bits{.threads = options.real.threads};

  for (std::size_t i = 0; i < path.sites.size(); ++i) {
    const Site& site = path.sites[i];
    std::vector<const Tensor*> given;
    std::vector<RealTensor> exact, real;
    bool changed = false;  // an operand is not what it should be
    for (const Argument& argument : site.arguments) {
      given.push_back(&value(argument.value));
      exact.push_back(exactly(*given.back()));
      real.push_back(truths.at(argument.value));
      changed = changed || stored.contains(argument.value);
    }
    std::vector<Tensor> results = emulate_site(site, given, bits);
    std::vector<RealTensor> truth = evaluate_site(site, real, options.real);
    if (!site.moves_only()) {
      const std::vector<RealTensor> meant = changed ? evaluate_site(site, exact, options.real) : truth;
      for (std::size_t k = 0; k < results.size(); ++k) {
        std::optional<std::int64_t> differing;
        if (options.recorded != nullptr)
          if (const auto found = options.recorded->find(site.results[k].name); found != options.recorded->end()) {
            if (found->second.shape != results[k].shape || found->second.format != results[k].format)
              throw ProgramError("the recorded " + site.results[k].name + " must be " +
                                 std::string(name_of(results[k].format)) + " " + shape_text(results[k].shape) + ", got " +
                                 std::string(name_of(found->second.format)) + " " + shape_text(found->second.shape));
            differing = differing_codes(results[k], found->second);
            results[k] = found->second;
          }
        trace.sites.push_back(compare(site, site.results[k], results[k], truth[k], meant[k]));
        trace.sites.back().differing = differing;
        if (options.progress) options.progress(trace.sites.back());
      }
    }
    for (std::size_t k = 0; k < results.size(); ++k) {
      const std::string& name = site.results[k].name;
      stored[name] = std::move(results[k]);
      truths[name] = std::move(truth[k]);
    }
    for (const Argument& argument : site.arguments)
      if (last_use[argument.value] == i && !is_output(argument.value)) {
        stored.erase(argument.value);
        truths.erase(argument.value);
      }
  }
  for (const std::string& output : path.outputs) {
    trace.outputs[output] = std::move(stored.at(output));
    trace.meant[output] = std::move(truths.at(output));
  }
  if (options.canonical != nullptr)
    trace.definition_gap =
        definition_gap(*options.canonical,
                       evaluate_graph(*options.canonical, inputs, options.real, [](const std::string&) { return false; }),
                       path, trace.meant);
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
  std::ranges::stable_sort(sites, std::greater{}, [](const SiteTrace* site) { return site->added.relative_l2; });
  return sites;
}

const SiteTrace* first_beyond(const BlockTrace& trace, double limit) {
  for (const SiteTrace& site : trace.sites)
    if (site.nan != 0 || site.infinite != 0 || site.leaving.relative_l2 > limit) return &site;
  return nullptr;
}

}  // namespace norma
