// What checks share: tensors and truths made once for all implementations of the same inputs, external commands
// started once.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/cases/case.hpp"
#include "impls/implementation.hpp"
#include "reference/exact/enclosure.hpp"
#include "reference/norms/norm.hpp"

namespace norma {

/// Values by key, each made once however many threads ask; the least recently used leave first.
template <class Value>
class SharedCache {
 public:
  explicit SharedCache(std::size_t limit) : limit_(limit) {}

  std::shared_ptr<const Value> get(const std::string& key, const std::function<std::shared_ptr<const Value>()>& make) {
    std::shared_ptr<Slot> slot;
    {
      const std::lock_guard lock(mutex_);
      auto& entry = slots_[key];
      if (!entry) entry = std::make_shared<Slot>();
      entry->used = ++clock_;
      slot = entry;
      while (slots_.size() > limit_) {
        auto oldest = slots_.begin();
        for (auto it = slots_.begin(); it != slots_.end(); ++it)
          if (it->second->used < oldest->second->used) oldest = it;
        slots_.erase(oldest);
      }
    }
    std::call_once(slot->once, [&] { slot->value = make(); });  // a throw leaves the slot to the next caller
    return slot->value;
  }

 private:
  struct Slot {
    std::once_flag once;
    std::shared_ptr<const Value> value;
    std::uint64_t used = 0;
  };
  std::size_t limit_;
  std::mutex mutex_;
  std::uint64_t clock_ = 0;
  std::map<std::string, std::shared_ptr<Slot>> slots_;
};

/// The tensors of a case with the hash that records carry.
struct CaseInputs {
  Tensors tensors;
  std::string hash;  ///< SHA-256 over names, dtypes, shapes and bytes
};
std::string hash_of(const Tensors& tensors);

/// A truth that keeps the tensors it speaks of alive. One without fast tiers costs a hundred times what reading does: its
/// enclosures are held in memory, up to a limit of elements, beyond it those of the last rows.
class SharedTruth final : public TruthSource {
 public:
  SharedTruth(std::shared_ptr<const CaseInputs> inputs, std::unique_ptr<TruthSource> source);
  std::int64_t rows() const override { return source_->rows(); }
  std::int64_t cols() const override { return source_->cols(); }
  void enclose_row(std::int64_t row, std::span<Enclosure> out) const override;
  Enclosure enclose(std::int64_t row, std::int64_t col) const override;
  Tier enclose_quick(std::int64_t row, const QuickRow& out) const override;
  Comparison compare(std::int64_t row, std::int64_t col, double m_hi, double m_lo) const override {
    return source_->compare(row, col, m_hi, m_lo);
  }

 private:
  struct Slot {
    std::int64_t row = -1;
    std::shared_ptr<const std::vector<Enclosure>> enclosures;
  };
  /// The row's enclosures, and what keeps them.
  std::pair<std::span<const Enclosure>, std::shared_ptr<const std::vector<Enclosure>>> held(std::int64_t row) const;

  std::shared_ptr<const CaseInputs> inputs_;
  std::unique_ptr<TruthSource> source_;
  bool fast_ = false;                  ///< nothing is held
  std::vector<Enclosure> enclosures_;  ///< all of them, or empty: too many
  mutable std::mutex mutex_;
  mutable std::array<Slot, 8> slots_;
};

class Session {
 public:
  /// timeout_s: seconds that a cmd: implementation has for one answer.
  explicit Session(TruthKind truth = TruthKind::fast, double timeout_s = 60) : kind_(truth), timeout_s_(timeout_s) {}
  TruthKind truth_kind() const { return kind_; }
  /// The expanded case's tensors.
  std::shared_ptr<const CaseInputs> inputs(const Case& expanded);
  /// The canonical norm's output.
  std::shared_ptr<const TruthSource> truth(const Case& expanded, const std::string& output);
  /// The output of a program's erasure.
  std::shared_ptr<const TruthSource> erasure(const Case& expanded, const Program& program, const std::string& output);
  /// IMPL as the command line writes it: NAME, path:NAME, file:OUT.safetensors#y, cmd:COMMAND. The emulated path
  /// has no implementation object (null): its output is the ideal. Throws CaseError for an unknown one.
  std::shared_ptr<Implementation> implementation(const std::string& impl);

 private:
  SharedCache<CaseInputs> inputs_{6};
  SharedCache<TruthSource> truths_{48};
  TruthKind kind_;
  double timeout_s_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Implementation>> implementations_;
};

/// Built-in implementations, in the order that `norma list impls` prints.
std::span<Implementation* const> builtin_implementations();

/// The call that a case makes of its norm.
NormCall norm_call(const Case& expanded, const Tensors& tensors);

}  // namespace norma
