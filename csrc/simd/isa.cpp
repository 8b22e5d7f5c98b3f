#include "simd/isa.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fgsbir {
namespace {

Isa best() {
#ifdef FGSBIR_SIMD_X86
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
          __builtin_cpu_supports("bmi2"))) {
        return Isa::baseline;
    }
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return wide ? Isa::avx512 : Isa::avx2;
#else
    return Isa::baseline;
#endif
}

Isa chosen() {
    const char* wish = std::getenv("FGSBIR_SIMD");
    if (wish != nullptr && std::strcmp(wish, "baseline") == 0) return Isa::baseline;
    if (wish != nullptr && std::strcmp(wish, "avx2") == 0) return std::min(best(), Isa::avx2);
    return best();
}

}  // namespace

Isa isa() {
    static const Isa set = chosen();
    return set;
}

const char* isa_name(Isa set) {
    if (set == Isa::avx512) return "avx512";
    if (set == Isa::avx2) return "avx2";
#if defined(__SSE2__) || defined(_M_X64)
    return "sse2";
#elif defined(__ARM_NEON)
    return "neon";
#else
    return "none";
#endif
}

}  // namespace fgsbir
