// Tables of a rotary embedding whose columns are shared out among axes: text and time, height, width.
#pragma once

#include <cstdint>
#include <span>

#include "reference/formats/tensor.hpp"

namespace norma {

struct RopeTables {
  Tensor cos, sin;  ///< [tokens, head / 2], fp32
};

/// Axis a has axes[a] columns of a head, in order; its pair j turns by ids[token, a] theta^(-2j / axes[a]). Each value
/// is the real one, rounded correctly. `ids`: one position an axis, token after token. Errors: ProgramError, one
/// sentence, for axes that are odd or do not sum to the head, and ids that do not fit them.
RopeTables rope_tables(std::span<const std::int64_t> axes, std::int64_t head, std::span<const std::int64_t> ids,
                       double theta = 10000);

}  // namespace norma
