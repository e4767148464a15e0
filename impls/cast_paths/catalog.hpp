// The records that the files of this folder define, declared from the one list, catalog.def.
#pragma once

#include "impls/cast_paths/cast_path.hpp"

namespace norma::cast_paths {
#define NORMA_CAST_PATH(identifier) extern const CastPath identifier;
#include "impls/cast_paths/catalog.def"
#undef NORMA_CAST_PATH
}  // namespace norma::cast_paths
