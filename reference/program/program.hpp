// A computation as data: named inputs, steps with one rounding each, outputs. Nothing here computes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "reference/formats/format.hpp"

namespace norma {

/// A program or binding that cannot be built; the message is one sentence for the user.
struct ProgramError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Op : std::uint8_t {
#define NORMA_OP(name, ...) name,
#include "reference/program/ops.def"
#undef NORMA_OP
};

struct OpRow {
  Op op;
  std::string_view name;
  int arity;
  std::string_view onnx;  ///< empty: ONNX has no such operator
  std::string_view meaning;
};
std::span<const OpRow> all_ops();
const OpRow& row_of(Op op);
std::optional<Op> find_op(std::string_view name);
/// Of an algebraic number other than 0 (erf: as far as is known) they are not algebraic.
constexpr bool is_transcendental(Op op) {
  return op == Op::exp || op == Op::tanh || op == Op::erf || op == Op::sin || op == Op::cos;
}

/// A format as a program writes it: concrete, with the letter it was bound from. 'T' is x's format, 'W' the
/// weight's, 0 a format the code names itself. Equality looks at the format only.
struct FormatRef {
  FormatId id = FormatId::fp32;
  char symbol = 0;
  bool operator==(const FormatRef& other) const { return id == other.id; }
};

/// How a step's exact result becomes a value. No format: the result stays exact.
struct Rounding {
  std::optional<FormatRef> format;
  Overflow overflow = Overflow::ieee;
  /// 0: correctly rounded. k: any value of the format within k ulp of the exact result (CUDA rsqrtf: 2).
  int within_ulp = 0;
  bool operator==(const Rounding&) const = default;
};

/// Axes are named and ordered; values broadcast by name. A value of `channels` is one for each channel of x: the view
/// tells which one a row and column take. A value of `pairs` is one for each pair of columns, or for each rotary column,
/// and for x's other axes as arrays broadcast (layout.hpp).
enum class Axis : std::uint8_t { rows = 1, cols = 2, channels = 4, pairs = 8 };
struct Axes {
  std::uint8_t mask = 0;
  constexpr bool has(Axis a) const { return (mask & static_cast<std::uint8_t>(a)) != 0; }
  constexpr Axes operator|(Axes o) const { return {static_cast<std::uint8_t>(mask | o.mask)}; }
  constexpr bool operator==(const Axes&) const = default;
};
inline constexpr Axes kScalar{0};
inline constexpr Axes kRows{static_cast<std::uint8_t>(Axis::rows)};
inline constexpr Axes kCols{static_cast<std::uint8_t>(Axis::cols)};
inline constexpr Axes kRowsCols{kRows.mask | kCols.mask};
inline constexpr Axes kChannels{static_cast<std::uint8_t>(Axis::channels)};
inline constexpr Axes kPairs{static_cast<std::uint8_t>(Axis::pairs)};

/// How a tensor is seen as rows and columns (layout.hpp); decisions 0009 and 0010.
enum class ViewKind : std::uint8_t {
  rows,      ///< a row is x's last axis
  groups,    ///< x = [N, C, ...]: a row is one group of C / groups channels of a sample, with all their positions
  channels,  ///< a row is one channel of a sample: as many groups as channels
  batch,     ///< a row is one channel of all samples: column n * positions + s
  columns,   ///< x = [..., C]: a row is one column of x, its columns are x's rows
  tokens,    ///< x = [N, ..., C]: a row is one column of one sample, its columns are the sample's rows
  blocks,    ///< a row is a run of `block` elements of x's last axis
};
/// Which columns a rotary embedding turns together; decision 0014.
enum class Pairing : std::uint8_t {
  none,
  interleaved,  ///< columns 2k and 2k + 1
  half,         ///< columns k and k + rotary / 2
};
struct View {
  ViewKind kind = ViewKind::rows;
  bool channels_last = false;  ///< a group's columns are position * (C / groups) + channel, as NHWC code walks them
  Pairing pairing = Pairing::none;
  std::int64_t rotary = 0;     ///< the first columns, that are pairs; 0: all of a row
  int block = 0;               ///< of view blocks
  bool operator==(const View&) const = default;
};
std::string_view name_of(ViewKind kind);
std::string_view name_of(Pairing pairing);

/// The order in which a Reduce adds its terms. The list is closed; each is defined beside its emulation
/// (impls/emulate/orders.hpp). Parameters not used by a kind are 0.
enum class OrderKind : std::uint8_t {
  exact,           ///< the exact sum, rounded once
  sequential,      ///< ((t0 + t1) + t2) + ...
  pairwise,        ///< (leaf): halves, recursively; leaves of `leaf` terms sequentially
  lanes,           ///< (n): term i into accumulator i mod n; accumulators then added in order
  lanes_tree,      ///< (n): as lanes; accumulators then by halves (n a power of two)
  blocked,         ///< (size, vec=f): blocks, the first one of f terms, sequentially; then the block sums sequentially
  warp,            ///< (threads, vec=v): thread-strided vectors, then a shuffle tree over the threads
  block,           ///< (threads, vec=v): as warp within each warp of 32, then a tree over the warps
  torch_cpu,       ///< (lanes): torch's row sum, 4 cascaded vector accumulators
  torch_cpu_half,  ///< (lanes): the same on 16-bit rows: two half-vectors of a 2*lanes load are added first
  torch_norm,      ///< (lanes): torch.linalg.vector_norm over a contiguous axis: one vector accumulator
  torch_columns,   ///< (lanes, vec=run): every run of terms begins at lane 0; lanes by halves at the end
  torch_columns_half,  ///< (lanes, vec=run): the same on 16-bit rows: two half-vectors are added first
  torch_runs,          ///< (lanes, vec=run): 16-bit batch norm: whole loads of 2 * lanes of each run into lanes, the
                       ///< rest of all runs one after the other; lanes in order
  torch_runs_loads,    ///< torch_runs, where only the whole loads contract
  torch_reduce,        ///< (lanes, vec=h): torch's vec::reduce_all: h accumulators of whole loads, h added, lanes by halves
  torch_reduce_rest,   ///< torch_reduce, where only what is left after whole loads contracts
  torch_images,        ///< (lanes, vec=run): every run by torch_reduce_rest in fp32, then runs one after the other
  torch_cpu_runs,      ///< (lanes, vec=run): every run by torch_cpu, then runs one after the other
  torch_norm_fours,    ///< torch_norm, where whole fours of what is left do not contract
  torch_vectors,       ///< (lanes, vec=h): every vector by halves, vectors in order; h = 2: of whole loads of two only
  torch_outer,         ///< (columns): torch's sum over the rows of a matrix of so many columns: whole groups of 32 in one
                       ///< cascade a column, the others in four (of fewer than 8 columns: groups of 4)
  through_fp32,        ///< as sequential, every sum rounded to fp32 first
  ort_rows,            ///< (lanes, vec=v): whole vectors into lanes, lanes by halves, then the rest one by one; whole groups
                       ///< of v of the rest do not contract
  welford,         ///< moments only: sequential Welford, true division
  welford_mul,     ///< moments only: sequential Welford, multiplying by the rounded reciprocal of the count
  welford_warp,    ///< (threads, vec=v): thread-strided Welford, Chan merges in a shuffle tree
  torch_moments,   ///< (lanes, vec=h): torch's RowwiseMoments: chunks of 16 loads of h vectors, cascaded Chan
                   ///< merges (h = 1 for fp32 rows, 2 for 16-bit rows)
  torch_moments_fp16,      ///< the same of fp16 rows, whose scalar tail contracts too
  torch_moments_2_6,       ///< torch_moments as torch up to 2.6 merges
  torch_moments_2_6_fp16,  ///< torch_moments_fp16 as torch up to 2.6 merges
  torch_cuda_moments,      ///< (threads, vec=v): torch's layer_norm on CUDA: times 1/count; a tree in each warp, then
                           ///< over the warps, means weighted by their counts
  apex_moments,            ///< (threads, vec=v): apex: true division; neighbouring lanes first, then the warps
  ort_moments,             ///< (threads, vec=v): ONNX Runtime's form of apex_moments: lanes by halves
  welford_block,           ///< (threads, vec=v): torch's WelfordOps and BlockReduce: true division, lanes by halves
};
/// Moments have their own orders, which stand last in the list.
constexpr bool gives_moments(OrderKind kind) { return kind >= OrderKind::welford; }

struct Order {
  OrderKind kind = OrderKind::sequential;
  int count = 0;  ///< leaf, lanes, block size or threads
  int vec = 0;    ///< elements a thread loads at a time (warp, block, welford_warp)
  bool operator==(const Order&) const = default;
};
std::string text_of(const Order& order);   ///< "warp(32,vec=8)"
Order parse_order(std::string_view text);  ///< throws ProgramError naming the known orders

struct OrderRow {
  OrderKind kind;
  std::string_view name;
  std::string_view count;  ///< what the first parameter counts; empty: none
  bool vec;                ///< takes vec=
  std::string_view meaning;
};
std::span<const OrderRow> all_orders();

enum class ReduceKind : std::uint8_t { sum, mean, amax, moments, largest };
/// A maximum has no order and rounds nothing.
constexpr bool is_maximum(ReduceKind kind) { return kind == ReduceKind::amax || kind == ReduceKind::largest; }
enum class Term : std::uint8_t { value, square };

/// What is accumulated over the columns of a row.
///   sum      t0 + t1 + ...                 mean   sum, then one true division by the count
///   amax     the largest |t|, 0 for none; NaN if one is NaN
///   largest  the largest t, -Inf for none; NaN if one is NaN
///   moments  port 0: mean; port 1: biased variance (m2 / count)
/// Every addition is rounded to the node's format (its accumulator). `term_format`: the square is rounded to
/// it before it is added; none: it is exact, i.e. with `contract` one fused multiply-add, else the
/// accumulator's format. A value is rounded to the accumulator's format before it is added; with `contract` it is not,
/// wherever the order contracts: a product kept in fp64 and the sum it enters are then one fused multiply-add.
struct Reduction {
  ReduceKind kind = ReduceKind::sum;
  Term term = Term::value;
  Order order;
  bool contract = false;                 ///< squares, values: added unrounded (fma); in moments: every a*b+c is one fma
  std::optional<FormatRef> term_format;  ///< default: the accumulator's format
  bool operator==(const Reduction&) const = default;
};

enum class NodeKind : std::uint8_t { input, attribute, constant, count, map, reduce };

struct Operand {
  int node = -1;
  int port = 0;
  bool operator==(const Operand&) const = default;
};

/// One value of a program (a moments Reduce gives two, by port).
struct Node {
  NodeKind kind = NodeKind::input;
  std::vector<std::string> names;  ///< one per port; unique in the program
  Axes axes;
  Rounding rounding;               ///< input: its format; attribute, constant, count: exact
  double constant = 0;             ///< constant: its exact value
  Op op = Op::cast;
  std::vector<Operand> operands;
  Reduction reduction;
  bool operator==(const Node&) const = default;
};

struct ProgramOutput {
  std::string name;  ///< y, residual, scale, ...
  Operand value;
  bool passed = false;  ///< to later stages only: no output of the whole
  bool operator==(const ProgramOutput&) const = default;
};

/// Nodes stand in an order of evaluation: operands before their users.
///
/// A program may have stages before it, each in its own view (decision 0010). An input of a stage is the last earlier
/// output of its name, passed on or not, where there is one, and a given tensor else. What a program is said to have or
/// do is meant of one stage; the functions below it speak of the whole.
struct Program {
  std::string norm;
  std::vector<Node> nodes;
  std::vector<ProgramOutput> outputs;
  View view{};
  std::vector<Program> stages{};  ///< in order, without stages of their own
  bool operator==(const Program&) const = default;

  const ProgramOutput* find_output(std::string_view name) const;
  std::optional<Operand> find_value(std::string_view name) const;
};

/// All stages in order, the program's own last.
std::vector<const Program*> stages_of(const Program& program);
/// The stage that gives an output of the whole; null: there is none of that name.
const Program* stage_of(const Program& program, std::string_view output);
/// The stage whose output an input of stage `reader` is, as an index into stages_of; empty: a given tensor.
std::optional<std::size_t> source_of(const Program& program, std::size_t reader, std::string_view input);

/// The program with every rounding removed: the function over the reals that the code means. Orders become
/// exact, contraction and approximation vanish; nodes keep their places and names. All stages.
Program erase_roundings(const Program& program);

/// True if the node's rounding can change a value (so that an error budget can name it): not for a cast to a
/// wider format, a sign change, or a maximum of values the format holds.
bool rounds(const Program& program, int node);

/// The order a program is kept in: inputs and attributes, the count, then the steps; output y first.
void put_in_order(Program& program);

/// What a builder or a text is bound to: x's format is T.
struct Binding {
  FormatId x = FormatId::fp32;
  std::map<std::string, FormatId, std::less<>> formats;  ///< of the other input tensors present
  std::map<std::string, double, std::less<>> attributes;
  std::int64_t cols = 0;
  std::string profile;                                   ///< empty: the path's default
  std::vector<std::int64_t> shape{};                     ///< x's; empty: not known

  bool has(std::string_view input) const { return input == "x" || formats.contains(input); }
  FormatRef format(std::string_view input) const;        ///< T for x, W for weight
};

/// Text form; parse and print are inverse (parse(print(p), binding) == p for the binding p was built with).
/// Grammar and an example: design in docs/program_text.md.
std::string print_program(const Program& program);
/// One step as its line has it, without the name: "mul fp32 x, r".
std::string print_step(const Program& program, int node);
Program parse_program(std::string_view text, const Binding& binding);

}  // namespace norma
