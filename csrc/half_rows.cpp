#include "half_rows.h"

#include "simd/half_kernels.h"
#include "simd/isa.h"

namespace fgsbir {

void gather_half(const std::uint16_t* rows, std::int64_t width, const std::int64_t* places, std::int64_t count, float* out) {
    auto* widen = &baseline::widen_half;
#ifdef FGSBIR_SIMD_X86
    if (isa() == Isa::avx2) widen = &avx2::widen_half;
    if (isa() == Isa::avx512) widen = &avx512::widen_half;
#endif
    for (std::int64_t i = 0; i < count; ++i) widen(rows + places[i] * width, out + i * width, width);
}

}  // namespace fgsbir
