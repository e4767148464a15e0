// Programs as text. docs/program_text.md has the grammar; print and parse are inverse.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "reference/program/builder.hpp"
#include "reference/program/program.hpp"

namespace norma {

namespace {

constexpr std::string_view kReduceNames[] = {"sum", "mean", "amax", "moments", "largest"};
constexpr std::pair<Axis, std::string_view> kAxisNames[] = {
    {Axis::rows, "rows"}, {Axis::cols, "cols"}, {Axis::channels, "channels"}, {Axis::pairs, "pairs"}};
constexpr Pairing kPairings[] = {Pairing::interleaved, Pairing::half};
constexpr ViewKind kViews[] = {ViewKind::rows,  ViewKind::groups,  ViewKind::channels,
                               ViewKind::batch, ViewKind::columns, ViewKind::tokens,   ViewKind::blocks};

std::string number_text(double value) {
  char text[40];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, error == std::errc() ? end : text};
}

std::string format_text(const std::optional<FormatRef>& format) {
  if (!format) return "exact";
  if (format->symbol != 0) return std::string(1, format->symbol);
  return std::string(name_of(format->id));
}

std::string rounding_text(const Rounding& rounding) {
  std::string text = format_text(rounding.format);
  if (rounding.overflow != Overflow::ieee) text += "/" + std::string(name_of(rounding.overflow));
  return text;
}

const std::string& operand_text(const Program& program, const Operand& o) {
  return program.nodes[static_cast<std::size_t>(o.node)].names[static_cast<std::size_t>(o.port)];
}

std::string step_text(const Program& program, const Node& node) {
  if (node.kind == NodeKind::input) return "input " + format_text(node.rounding.format);
  if (node.kind == NodeKind::constant) return "const " + number_text(node.constant);
  std::string text;
  if (node.kind == NodeKind::reduce) {
    const Reduction& r = node.reduction;
    text = std::string(kReduceNames[static_cast<std::size_t>(r.kind)]) + " " + rounding_text(node.rounding) + " ";
    const std::string& of = operand_text(program, node.operands[0]);
    text += r.term == Term::square ? "square(" + of + ")" : of;
    if (!is_maximum(r.kind)) text += "  order=" + text_of(r.order);
    if (r.term_format) text += " term=" + format_text(r.term_format);
    if (r.contract) text += " contract=fma";
    return text;
  }
  text = std::string(row_of(node.op).name) + " " + rounding_text(node.rounding) + " ";
  for (std::size_t i = 0; i < node.operands.size(); ++i)
    text += (i == 0 ? "" : ", ") + operand_text(program, node.operands[i]);
  if (node.rounding.within_ulp != 0) text += "  within=" + std::to_string(node.rounding.within_ulp);
  return text;
}

/// One line of text, cut into words: names, numbers, symbols.
struct Word {
  enum Kind { name, number, symbol, end } kind = end;
  std::string text;
};

class Parser {
 public:
  Parser(std::string_view text, const Binding& binding) : text_(text), binding_(binding) {}

  Program parse() {
    int number = 0;
    std::size_t from = 0;
    while (from <= text_.size()) {
      auto to = text_.find('\n', from);
      if (to == std::string_view::npos) to = text_.size();
      line_ = ++number;
      std::string_view line = text_.substr(from, to - from);
      line = line.substr(0, line.find('#'));
      cut(line);
      if (peek().kind != Word::end) statement();
      from = to + 1;
    }
    if (program_.norm.empty()) throw ProgramError("a program begins with a line 'norm NAME'");
    const bool puts_out = std::ranges::any_of(stages_of(program_), [](const Program* stage) {
      return std::ranges::any_of(stage->outputs, [](const ProgramOutput& o) { return !o.passed; });
    });
    if (!puts_out) throw ProgramError("a program needs a line 'out y = ...' or another output");
    put_in_order(program_);
    return std::move(program_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw ProgramError("line " + std::to_string(line_) + ": " + why);
  }

  void cut(std::string_view line) {
    words_.clear();
    at_ = 0;
    std::size_t i = 0;
    const auto is_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.'; };
    while (i < line.size()) {
      const char c = line[i];
      if (std::isspace(static_cast<unsigned char>(c)) != 0) {
        ++i;
        continue;
      }
      std::size_t j = i;
      if (std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '.') {
        while (j < line.size() && (is_name(line[j]) || ((line[j] == '+' || line[j] == '-') && j > i &&
                                                       (std::tolower(line[j - 1]) == 'e' || std::tolower(line[j - 1]) == 'p') &&
                                                       exponent_follows(line.substr(i, j - i)))))
          ++j;
        words_.push_back({Word::number, std::string(line.substr(i, j - i))});
      } else if (is_name(c)) {
        while (j < line.size() && is_name(line[j])) ++j;
        words_.push_back({Word::name, std::string(line.substr(i, j - i))});
      } else {
        words_.push_back({Word::symbol, std::string(1, c)});
        j = i + 1;
      }
      i = j;
    }
    words_.push_back({});
  }

  /// In 0x1e+3 the e is a digit; in 1e+3 and 0x1p+3 an exponent begins.
  static bool exponent_follows(std::string_view so_far) {
    const bool hex = so_far.size() > 1 && so_far[0] == '0' && std::tolower(so_far[1]) == 'x';
    return hex == (std::tolower(so_far.back()) == 'p');
  }

  const Word& peek(std::size_t ahead = 0) const { return words_[std::min(at_ + ahead, words_.size() - 1)]; }
  Word take() {
    Word w = peek();
    if (at_ + 1 < words_.size()) ++at_;
    return w;
  }
  bool accept(std::string_view symbol) {
    if (peek().text != symbol || peek().kind == Word::end) return false;
    take();
    return true;
  }
  void expect(std::string_view symbol) {
    if (!accept(symbol))
      refuse("expected '" + std::string(symbol) + "' before '" + (peek().kind == Word::end ? "end of line" : peek().text) + "'");
  }
  std::string take_name(std::string_view what) {
    if (peek().kind != Word::name)
      refuse("expected " + std::string(what) + ", found '" + (peek().kind == Word::end ? "end of line" : peek().text) + "'");
    return take().text;
  }

  void statement() {
    if (peek().text == "norm" && peek(1).kind == Word::name && peek(2).kind == Word::end) {
      take();
      program_.norm = take().text;
      return;
    }
    if (program_.norm.empty()) refuse("a program begins with 'norm NAME'");
    if (peek().text == "view" && peek(1).kind == Word::name) {
      take();
      declare_view();
      return;
    }
    if (peek().text == "in" && peek(1).text != "=") {
      take();
      while (peek().kind != Word::end) declare_input();
      return;
    }
    if (peek().text == "stage" && peek(1).kind == Word::end) {
      begin_stage();
      return;
    }
    const bool is_passed = peek().text == "pass" && peek(1).kind == Word::name;
    if (is_passed && peek(2).text != "=") {
      take();
      while (peek().kind != Word::end) {
        const std::string name = take_name("a value");
        give_out({.name = name, .value = known_value(name), .passed = true});
      }
      return;
    }
    const bool is_output = is_passed || (peek().text == "out" && peek(1).kind == Word::name);
    if (is_output) take();
    std::vector<std::string> names{take_name("a name")};
    while (accept(",")) names.push_back(take_name("a name"));
    expect("=");
    Operand value;
    if (is_output && names.size() == 1 && peek().kind == Word::name && peek(1).kind == Word::end) {
      value = known_value(take().text);  // an output that is another value
    } else {
      value = step(names);
    }
    if (peek().kind != Word::end) refuse("'" + peek().text + "' is left over at the end of the line");
    if (is_output) give_out({.name = names[0], .value = value, .passed = is_passed});
  }

  void give_out(ProgramOutput output) {
    if (program_.find_output(output.name) || (!output.passed && stage_of(program_, output.name) != nullptr))
      refuse("output '" + output.name + "' is given twice");
    program_.outputs.push_back(std::move(output));
  }

  void begin_stage() {
    if (program_.outputs.empty()) refuse("the stage before this line neither puts out nor passes anything");
    put_in_order(program_);
    Program next{.norm = program_.norm, .nodes = {}, .outputs = {}, .view = {}, .stages = std::move(program_.stages)};
    program_.stages.clear();
    next.stages.push_back(std::move(program_));
    program_ = std::move(next);
  }

  void declare_view() {
    if (!program_.nodes.empty()) refuse("the view is said before the inputs");
    const std::string name = take_name("a view");
    const auto* kind = std::ranges::find(kViews, name, [](ViewKind k) { return name_of(k); });
    if (kind == std::end(kViews)) refuse("unknown view '" + name + "'; known: rows groups channels batch columns tokens blocks");
    program_.view = {.kind = *kind};
    if (*kind == ViewKind::blocks) {
      expect("(");
      const double columns = parse_number();
      if (!(columns >= 1 && columns <= 1 << 20) || columns != static_cast<double>(static_cast<int>(columns)))
        refuse("blocks(N) takes a whole number of columns, 1 to 1048576");
      program_.view.block = static_cast<int>(columns);
      expect(")");
    }
    if (accept("channels_last")) program_.view.channels_last = true;
    for (const Pairing pairing : kPairings)
      if (accept(name_of(pairing))) program_.view.pairing = pairing;
    if (program_.view.pairing != Pairing::none && peek().kind == Word::number) {
      const double columns = parse_number();
      if (!(columns >= 2 && columns <= 1 << 30 && std::fmod(columns, 2) == 0))
        refuse("the rotary columns must be an even number of columns");
      program_.view.rotary = static_cast<std::int64_t>(columns);
    }
    if (program_.view.channels_last && *kind != ViewKind::groups)
      refuse("channels_last orders the columns of a group; with " + name + " it means nothing");
    if (program_.view.pairing != Pairing::none && *kind != ViewKind::rows)
      refuse("pairs are columns of x's last axis: write 'view rows " + std::string(name_of(program_.view.pairing)) + "'");
    if (peek().kind != Word::end) refuse("'" + peek().text + "' is left over at the end of the line");
  }

  void declare_input() {
    const std::string name = take_name("an input's name");
    Node node;
    node.names = {name};
    if (!accept(":")) {
      node.kind = NodeKind::attribute;
      push(std::move(node));
      return;
    }
    const std::string word = take_name("a format");
    node.kind = NodeKind::input;
    node.rounding.format = parse_format(word);
    if (!node.rounding.format) refuse("input '" + name + "' needs a format, not 'exact'");
    if (accept("[")) {
      while (!accept("]")) {
        const std::string axis = take_name("an axis");
        const auto* known = std::ranges::find(kAxisNames, axis, [](const auto& a) { return a.second; });
        if (known == std::end(kAxisNames)) refuse("unknown axis '" + axis + "'; known: rows cols channels pairs");
        node.axes = node.axes | Axes{static_cast<std::uint8_t>(known->first)};
        accept(",");
      }
    } else {
      const auto axes = standard_axes(name, program_.view);
      if (!axes) refuse("input '" + name + "' needs its axes: " + name + ":" + word + "[rows,cols]");
      node.axes = *axes;
    }
    if (node.axes.has(Axis::channels) && node.axes != kChannels)
      refuse("input '" + name + "' has channels beside other axes; a value of each channel is " + name + ":" + word +
             "[channels]");
    if (node.axes.has(Axis::pairs) && node.axes != kPairs)
      refuse("input '" + name + "' has pairs beside other axes; a value of each pair is " + name + ":" + word + "[pairs]");
    if (node.axes == kPairs && program_.view.pairing == Pairing::none)
      refuse("input '" + name + "' has a value for each pair; write 'view rows half' or 'view rows interleaved' before it");
    if (node.axes == kChannels && (program_.view.kind == ViewKind::rows || program_.view.kind == ViewKind::blocks))
      refuse("input '" + name + "' has a value for each channel; write 'view groups', channels, batch, columns or tokens before it");
    if (const auto from = source_of(program_, program_.stages.size(), name)) {
      const Program& stage = program_.stages[*from];
      const auto& passed = stage.nodes[static_cast<std::size_t>(stage.find_output(name)->value.node)].rounding.format;
      if (passed && passed->id != node.rounding.format->id)
        refuse("input '" + name + "' is declared " + std::string(name_of(node.rounding.format->id)) + " but stage " +
               std::to_string(*from + 1) + " passes " + std::string(name_of(passed->id)));
    } else if (binding_.has(name) && binding_.format(name).id != node.rounding.format->id)
      refuse("input '" + name + "' is declared " + std::string(name_of(node.rounding.format->id)) +
             " but the tensor is " + std::string(name_of(binding_.format(name).id)));
    push(std::move(node));
  }

  std::optional<FormatRef> parse_format(const std::string& word) const {
    if (word == "exact") return std::nullopt;
    if (word == "T") return binding_.format("x");
    if (word == "W") {
      if (!binding_.has("weight")) refuse("W is the weight's format, but there is no weight");
      return binding_.format("weight");
    }
    const auto id = find_format(word);
    if (!id) {
      std::string known = "T W exact";
      for (const Format& f : all_formats()) known += " " + std::string(f.name);
      refuse("unknown format '" + word + "'; known: " + known);
    }
    return FormatRef{*id, 0};
  }

  Rounding parse_rounding() {
    Rounding rounding{.format = parse_format(take_name("a format"))};
    if (accept("/")) {
      const std::string policy = take_name("an overflow policy");
      const auto found = find_overflow(policy);
      if (!found) refuse("unknown overflow policy '" + policy + "'; known: ieee saturate_finite saturate nan");
      rounding.overflow = *found;
    }
    return rounding;
  }

  Operand push(Node node) {
    for (const std::string& name : node.names)
      if (program_.find_value(name)) refuse("the name '" + name + "' is given to two values");
    program_.nodes.push_back(std::move(node));
    return {static_cast<int>(program_.nodes.size()) - 1, 0};
  }

  Operand known_value(const std::string& name) {
    if (const auto found = program_.find_value(name)) return *found;
    if (name == "N") {
      Node node;
      node.kind = NodeKind::count;
      node.names = {"N"};
      return push(std::move(node));
    }
    std::string known;
    for (const Node& n : program_.nodes)
      for (const std::string& s : n.names) known += " " + s;
    refuse("unknown value '" + name + "'; known so far:" + known + " N");
  }

  Operand step(const std::vector<std::string>& names) {
    const std::string op = take_name("an operation");
    if (op == "const") {
      const bool negative = accept("-");
      Node node;
      node.kind = NodeKind::constant;
      node.names = names;
      node.constant = parse_number() * (negative ? -1 : 1);
      return push(std::move(node));
    }
    const auto* reduce = std::find(std::begin(kReduceNames), std::end(kReduceNames), op);
    if (reduce != std::end(kReduceNames)) {
      Node node;
      node.kind = NodeKind::reduce;
      node.names = names;
      node.rounding = parse_rounding();
      step_rounding_ = node.rounding;
      base_ = names[0];
      temporaries_ = 0;
      node.reduction.kind = static_cast<ReduceKind>(reduce - std::begin(kReduceNames));
      if (peek().text == "square" && peek(1).text == "(") {
        take();
        take();
        node.reduction.term = Term::square;
        node.operands = {expression()};
        expect(")");
      } else {
        node.operands = {expression()};
      }
      const std::size_t ports = node.reduction.kind == ReduceKind::moments ? 2 : 1;
      if (names.size() != ports)
        refuse(op + " gives " + std::to_string(ports) + " value(s), " + std::to_string(names.size()) + " named");
      reduce_options(node);
      node.axes = {static_cast<std::uint8_t>(axes_of(node.operands[0]).mask & kRows.mask)};
      if (!axes_of(node.operands[0]).has(Axis::cols)) refuse(op + " needs a value with columns");
      return push(std::move(node));
    }
    const auto found = find_op(op);
    if (!found) {
      std::string known = "const";
      for (const auto& name : kReduceNames) known += " " + std::string(name);
      for (const OpRow& row : all_ops()) known += " " + std::string(row.name);
      refuse("unknown operation '" + op + "'; known: " + known);
    }
    if (names.size() != 1) refuse(op + " gives one value");
    Rounding rounding = parse_rounding();
    step_rounding_ = rounding;
    base_ = names[0];
    temporaries_ = 0;
    std::vector<Operand> operands{expression()};
    while (accept(",")) operands.push_back(expression());
    if (peek().text == "within" && peek(1).text == "=") {
      take();
      take();
      rounding.within_ulp = static_cast<int>(parse_number());
      if (rounding.within_ulp < 0 || rounding.within_ulp > 64) refuse("within= takes 0 to 64 ulp");
    }
    return map(*found, {names[0]}, rounding, operands);
  }

  void reduce_options(Node& node) {
    const ReduceKind kind = node.reduction.kind;
    node.reduction.order = Order{.kind = kind == ReduceKind::moments ? OrderKind::welford : OrderKind::sequential};
    if (!node.rounding.format) node.reduction.order = Order{.kind = OrderKind::exact};
    while (peek().kind == Word::name && peek(1).text == "=") {
      const std::string key = take().text;
      take();
      if (key == "order") {
        std::string text = take_name("an order");
        if (accept("(")) {
          text += "(";
          while (peek().kind != Word::end && peek().text != ")") text += take().text;
          expect(")");
          text += ")";
        }
        try {
          node.reduction.order = parse_order(text);
        } catch (const ProgramError& e) {
          refuse(e.what());
        }
      } else if (key == "term") {
        node.reduction.term_format = parse_format(take_name("a format"));
      } else if (key == "contract") {
        if (take_name("fma") != "fma") refuse("contract= takes fma");
        node.reduction.contract = true;
      } else {
        refuse("unknown option '" + key + "='; known: order= term= contract=");
      }
    }
    const OrderKind order = node.reduction.order.kind;
    const bool for_moments = gives_moments(order);
    if (!is_maximum(kind) && order != OrderKind::exact && for_moments != (kind == ReduceKind::moments))
      refuse("order " + text_of(node.reduction.order) + (for_moments ? " is for moments only" : " does not give moments"));
  }

  Operand map(Op op, std::vector<std::string> names, const Rounding& rounding, std::vector<Operand> operands) {
    const OpRow& row = row_of(op);
    if (operands.size() != static_cast<std::size_t>(row.arity))
      refuse(std::string(row.name) + " takes " + std::to_string(row.arity) + " operand(s), " +
             std::to_string(operands.size()) + " given");
    Node node;
    node.kind = NodeKind::map;
    node.names = std::move(names);
    node.op = op;
    node.rounding = rounding;
    for (const Operand& o : operands) node.axes = node.axes | axes_of(o);
    node.operands = std::move(operands);
    return push(std::move(node));
  }

  Axes axes_of(const Operand& o) const { return program_.nodes[static_cast<std::size_t>(o.node)].axes; }

  /// A step written inside another one is a step of its own, rounded as the outer one is.
  Operand inner(Op op, std::vector<Operand> operands) {
    Rounding rounding = step_rounding_;
    rounding.within_ulp = 0;
    return map(op, {base_ + "." + std::to_string(++temporaries_)}, rounding, std::move(operands));
  }

  Operand expression() {
    Operand left = product();
    while (peek().text == "+" || peek().text == "-") {
      const bool plus = take().text == "+";
      const Operand right = product();
      left = inner(plus ? Op::add : Op::sub, {left, right});
    }
    return left;
  }
  Operand product() {
    Operand left = factor();
    while (peek().text == "*" || peek().text == "/") {
      const bool times = take().text == "*";
      const Operand right = factor();
      left = inner(times ? Op::mul : Op::div, {left, right});
    }
    return left;
  }
  Operand factor() {
    if (accept("(")) {
      const Operand inside = expression();
      expect(")");
      return inside;
    }
    if (accept("-")) return inner(Op::neg, {factor()});
    if (peek().kind == Word::number) {
      Node node;
      node.kind = NodeKind::constant;
      node.names = {base_ + ".c" + std::to_string(++temporaries_)};
      node.constant = parse_number();
      return push(std::move(node));
    }
    const std::string name = take_name("a value");
    if (!accept("(")) return known_value(name);
    const auto op = find_op(name);
    if (!op) refuse("unknown operation '" + name + "'");
    std::vector<Operand> operands{expression()};
    while (accept(",")) operands.push_back(expression());
    expect(")");
    return inner(*op, std::move(operands));
  }

  double parse_number() {
    if (peek().kind != Word::number && peek().text != "inf") refuse("expected a number, found '" + peek().text + "'");
    std::string text = take().text;
    const bool hex = text.starts_with("0x") || text.starts_with("0X");
    double value = 0;
    const char* begin = text.data() + (hex ? 2 : 0);
    const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value,
                                              hex ? std::chars_format::hex : std::chars_format::general);
    if (error != std::errc() || end != text.data() + text.size()) refuse("'" + text + "' is not a number");
    return value;
  }

  std::string_view text_;
  const Binding& binding_;
  Program program_;
  std::vector<Word> words_;
  std::size_t at_ = 0;
  int line_ = 0;
  Rounding step_rounding_;
  std::string base_;
  int temporaries_ = 0;
};

}  // namespace

namespace {

std::string print_stage(const Program& program) {
  std::string text;
  if (program.view != View{}) {
    text += "view " + std::string(name_of(program.view.kind));
    if (program.view.kind == ViewKind::blocks) text += "(" + std::to_string(program.view.block) + ")";
    if (program.view.channels_last) text += " channels_last";
    if (program.view.pairing != Pairing::none) text += " " + std::string(name_of(program.view.pairing));
    if (program.view.rotary != 0) text += " " + std::to_string(program.view.rotary);
    text += "\n";
  }
  text += "in  ";
  for (const Node& node : program.nodes) {
    if (node.kind == NodeKind::attribute) text += " " + node.names[0];
    if (node.kind != NodeKind::input) continue;
    text += " " + node.names[0] + ":" + format_text(node.rounding.format);
    if (standard_axes(node.names[0], program.view) == node.axes) continue;
    std::string axes;
    for (const auto& [axis, name] : kAxisNames)
      if (node.axes.has(axis)) axes += (axes.empty() ? "" : ",") + std::string(name);
    text += "[" + axes + "]";
  }
  text += "\n";
  std::size_t width = 0;
  for (const Node& node : program.nodes)
    if (node.kind == NodeKind::map || node.kind == NodeKind::reduce || node.kind == NodeKind::constant) {
      const ProgramOutput* output = program.find_output(node.names[0]);
      std::size_t w = node.names[0].size() + (output == nullptr ? 0 : output->passed ? 5 : 4);
      if (node.names.size() == 2) w += 2 + node.names[1].size();
      width = std::max(width, w);
    }
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    const Node& node = program.nodes[i];
    if (node.kind != NodeKind::map && node.kind != NodeKind::reduce && node.kind != NodeKind::constant) continue;
    std::string left = node.names[0];
    if (node.names.size() == 2) left += ", " + node.names[1];
    const ProgramOutput* output = program.find_output(node.names[0]);
    if (output != nullptr && node.names.size() == 1 && output->value == Operand{static_cast<int>(i), 0})
      left = (output->passed ? "pass " : "out ") + left;
    left.resize(std::max(width, left.size()), ' ');
    text += left + " = " + step_text(program, node) + "\n";
  }
  for (const ProgramOutput& output : program.outputs) {
    const Node& node = program.nodes[static_cast<std::size_t>(output.value.node)];
    const bool in_place = node.names.size() == 1 && node.names[0] == output.name && node.kind != NodeKind::input;
    if (in_place) continue;
    const std::string& value = operand_text(program, output.value);
    text += (output.passed ? "pass " : "out ") + output.name;
    text += output.passed && output.name == value ? "\n" : " = " + value + "\n";
  }
  return text;
}

}  // namespace

std::string print_program(const Program& program) {
  std::string text = "norm " + program.norm + "\n";
  for (const Program& stage : program.stages) text += print_stage(stage) + "stage\n";
  return text + print_stage(program);
}

std::string print_step(const Program& program, int node) {
  return step_text(program, program.nodes[static_cast<std::size_t>(node)]);
}

Program parse_program(std::string_view text, const Binding& binding) { return Parser(text, binding).parse(); }

}  // namespace norma
