// Which vector instructions this processor has. The hot loops are compiled once for each set and chosen at run time.
#pragma once

namespace fgsbir {

// baseline: what the compiler may assume anyway (SSE2 on x86-64, NEON on AArch64).
// avx2: AVX2, FMA, F16C, BMI1/2. avx512: AVX-512 F, BW, DQ, VL besides.
enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

// The best set that this build holds code for and this processor has. The environment variable FGSBIR_SIMD (baseline, avx2 or
// avx512), read once, lowers it; a set that is not there, or another word, leaves it as it is.
Isa isa();

// "avx512", "avx2", or the baseline's own name: "sse2", "neon" or "none".
const char* isa_name(Isa set);

}  // namespace fgsbir
