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
/// The GPU that cuda.* run on, and how they were compiled: device, capability, driver, runtime, compiler, flags, code; and
/// the problem, where nothing can run there.
nlohmann::ordered_json gpu_facts();

}  // namespace norma
