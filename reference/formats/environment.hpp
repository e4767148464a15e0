// Is this machine, as this program was built and started, the one the bounds assume? And which CPU is it.
#pragma once

#include <string>

namespace norma {

/// Empty if arithmetic here is IEEE 754 binary32 and binary64, rounded to nearest after each operation:
/// to nearest, subnormals kept on input and output, nothing contracted or reassociated, no excess precision,
/// Inf and NaN honoured. Else one sentence that says what is wrong and what to do about it. Looks at the
/// calling thread and at code compiled with the flags of this library.
std::string floating_point_fault();

/// "Intel(R) Xeon(R) ..." as the CPU names itself; the architecture where it does not.
std::string cpu_model();

/// The vector extensions that code may pick at run time, widest last: "x86-64 sse4.2 avx avx2 fma avx512f".
std::string cpu_extensions();

}  // namespace norma
