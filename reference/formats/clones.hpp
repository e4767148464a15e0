// NORMA_CLONES: compile a plain loop for several vector widths and pick one at run time. The loops compute
// the same bits at every width: each lane is independent, nothing is contracted (-ffp-contract=off).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(NORMA_NO_CLONES)
#define NORMA_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NORMA_CLONES
#endif

// The same with a fused multiply-add where there is one; elsewhere std::fma is a call, slower and as exact.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(NORMA_NO_CLONES)
#define NORMA_FMA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NORMA_FMA_CLONES
#endif

// Before a loop none of whose iterations reads what another one writes.
#if defined(__clang__)
#define NORMA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define NORMA_INDEPENDENT _Pragma("GCC ivdep")
#else
#define NORMA_INDEPENDENT
#endif
