// What a run's figures mean, and where they were made.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace norma {

/// "0.1.0", and the commit it was built from ("unknown" outside a checkout).
std::string norma_version();
std::string norma_commit();
/// Compiler, flags, CPU, operating system, library versions: facts that explain a figure and change none.
nlohmann::ordered_json machine_facts();

}  // namespace norma
