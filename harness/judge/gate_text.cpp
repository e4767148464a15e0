// A gate's result for machines and people: JUnit XML, Markdown, GitHub annotations.
#include <fmt/core.h>

#include <array>

#include "harness/judge/gate.hpp"

namespace norma {

namespace {

constexpr std::array kStatuses = {GateStatus::crashed, GateStatus::failed, GateStatus::vacuous, GateStatus::worse,
                                  GateStatus::missing, GateStatus::waived, GateStatus::added,   GateStatus::better,
                                  GateStatus::skipped, GateStatus::ok};

std::int64_t count(const GateResult& result, GateStatus status) {
  std::int64_t n = 0;
  for (const GateCase& found : result.cases) n += found.status == status ? 1 : 0;
  return n;
}

/// Each character that `special` names, replaced.
template <class Replace>
std::string escape(std::string_view text, Replace special) {
  std::string escaped;
  for (const char c : text) {
    const std::string_view instead = special(c);
    if (instead.empty()) {
      escaped += c;
    } else {
      escaped += instead;
    }
  }
  return escaped;
}

std::string xml(std::string_view text) {
  return escape(text, [](char c) -> std::string_view {
    switch (c) {
      case '&': return "&amp;";
      case '<': return "&lt;";
      case '>': return "&gt;";
      case '"': return "&quot;";
      case '\n': return "&#10;";
      case '\t': return "&#9;";
      default: break;
    }
    // XML 1.0 has no other control characters.
    return static_cast<unsigned char>(c) < 0x20 ? "?" : "";
  });
}

std::string cell(std::string_view text) {
  return escape(text, [](char c) -> std::string_view {
    if (c == '|') return "\\|";
    if (c == '<') return "&lt;";
    return c == '\n' ? " " : "";
  });
}

// GitHub's rules for workflow commands: properties escape more than messages.
std::string message(std::string_view text) {
  return escape(text, [](char c) -> std::string_view {
    if (c == '%') return "%25";
    if (c == '\r') return "%0D";
    return c == '\n' ? "%0A" : "";
  });
}
std::string property(std::string_view text) {
  return escape(text, [](char c) -> std::string_view {
    if (c == '%') return "%25";
    if (c == '\r') return "%0D";
    if (c == '\n') return "%0A";
    if (c == ':') return "%3A";
    return c == ',' ? "%2C" : "";
  });
}

std::string joined(const GateCase& found, std::string_view separator) {
  std::string text;
  const auto say = [&](const std::string& part) { text += (text.empty() ? "" : std::string(separator)) + part; };
  for (const Finding& finding : found.findings) {
    say(finding.waived.empty() ? finding.text : fmt::format("{} (waived {})", finding.text, finding.waived));
  }
  for (const std::string& note : found.notes) say(note);
  return text;
}

std::string where(const GateCase& found) {
  return found.key.context == "{}" ? found.key.impl : fmt::format("{} on {}", found.key.impl, found.key.context);
}

}  // namespace

std::string junit_xml(const GateResult& result) {
  std::int64_t failures = 0, errors = 0, skipped = 0;
  std::string cases;
  for (const GateCase& found : result.cases) {
    cases += fmt::format("    <testcase classname=\"{}\" name=\"{}\">", xml(where(found)), xml(found.key.case_line));
    const std::string text = joined(found, "; ");
    if (found.fails && found.status == GateStatus::crashed) {
      ++errors;
      cases += fmt::format("<error message=\"{}\">{}</error>", xml(text), xml(found.repro));
    } else if (found.fails) {
      ++failures;
      cases += fmt::format("<failure type=\"{}\" message=\"{}\">{}</failure>", name_of(found.status), xml(text),
                           xml(found.repro));
    } else if (found.status == GateStatus::skipped || found.status == GateStatus::missing) {
      ++skipped;
      cases += fmt::format("<skipped message=\"{}\"/>", xml(text));
    } else if (!text.empty()) {
      cases += fmt::format("<system-out>{}: {}</system-out>", name_of(found.status), xml(text));
    }
    cases += "</testcase>\n";
  }
  // What is wrong with the gate itself must fail in a viewer too.
  const bool gate_fails = failures + errors == 0 && result.exit_code != 0;
  if (gate_fails || !result.notes.empty()) {
    std::string notes;
    for (const std::string& note : result.notes) notes += note + "\n";
    cases += "    <testcase classname=\"gate\" name=\"gate\">";
    if (gate_fails) {
      ++failures;
      cases += fmt::format("<failure type=\"failed\" message=\"{}\"/>", xml(notes));
    } else {
      cases += fmt::format("<system-out>{}</system-out>", xml(notes));
    }
    cases += "</testcase>\n";
  }
  const std::size_t tests = result.cases.size() + (gate_fails || !result.notes.empty() ? 1 : 0);
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n"
      "  <testsuite name=\"norma gate\" tests=\"{}\" failures=\"{}\" errors=\"{}\" "
      "skipped=\"{}\">\n{}"
      "  </testsuite>\n</testsuites>\n",
      tests, failures, errors, skipped, cases);
}

std::string markdown(const GateResult& result) {
  std::string text = fmt::format("## norma gate: {}\n\n", result.exit_code == 0 ? "passed" : "failed");
  std::string summary;
  for (const GateStatus status : kStatuses) {
    if (const std::int64_t n = count(result, status); n != 0) {
      summary += fmt::format("{}{} {}", summary.empty() ? "" : ", ", n, name_of(status));
    }
  }
  text += fmt::format("{} cases: {}\n", result.cases.size(), summary.empty() ? "none" : summary);
  std::string rows;
  for (const GateStatus status : kStatuses) {
    if (status == GateStatus::ok) continue;
    for (const GateCase& found : result.cases) {
      if (found.status != status) continue;
      rows += fmt::format("| {} | {} | {} | {} |\n", name_of(status), cell(found.key.case_line), cell(where(found)),
                          cell(joined(found, "; ")));
    }
  }
  if (!rows.empty()) text += "\n| status | case | implementation | what |\n|---|---|---|---|\n" + rows;
  if (!result.notes.empty()) text += "\n";
  for (const std::string& note : result.notes) text += fmt::format("- {}\n", cell(note));
  return text;
}

std::string annotations(const GateResult& result) {
  std::string text;
  const auto say = [&](std::string_view level, const std::string& title, const std::string& what) {
    text += fmt::format("::{} title={}::{}\n", level, property(title), message(what));
  };
  for (const GateCase& found : result.cases) {
    const std::string title = fmt::format("norma {}", name_of(found.status));
    const std::string what = fmt::format("{} [{}]: {}", found.key.case_line, where(found), joined(found, "; "));
    if (found.fails) {
      say("error", title, found.repro.empty() ? what : what + "\n" + found.repro);
      continue;
    }
    switch (found.status) {
      case GateStatus::ok: break;
      case GateStatus::better:
      case GateStatus::skipped: say("notice", title, what); break;
      case GateStatus::crashed:
      case GateStatus::failed:
      case GateStatus::vacuous:
      case GateStatus::worse:
      case GateStatus::missing:
      case GateStatus::waived:
      case GateStatus::added: say("warning", title, what); break;
    }
  }
  for (const std::string& note : result.notes) say(result.exit_code == 0 ? "warning" : "error", "norma gate", note);
  return text;
}

}  // namespace norma
