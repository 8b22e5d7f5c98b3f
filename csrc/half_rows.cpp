#include "half_rows.h"

#include "simd/half_kernels.h"
#include "simd/isa.h"

namespace fgsbir {
namespace {

constexpr std::int64_t kAhead = 4, kLine = 32;  // rows; halves in a line of the cache

auto* widening() {
    auto* widen = &baseline::widen_half;
#ifdef FGSBIR_SIMD_X86
    if (isa() == Isa::avx2) widen = &avx2::widen_half;
    if (isa() == Isa::avx512) widen = &avx512::widen_half;
#endif
    return widen;
}

}  // namespace

void widen_halves(const std::uint16_t* from, std::int64_t count, float* out) { widening()(from, out, count); }

void gather_half(const std::uint16_t* rows, std::int64_t width, const std::int64_t* places, std::int64_t count, float* out) {
    auto* widen = widening();
    for (std::int64_t i = 0; i < count; ++i) {
        if (i + kAhead < count) {  // rows lie anywhere: no processor foresees where the next one is
            const std::uint16_t* next = rows + places[i + kAhead] * width;
            for (std::int64_t l = 0; l < width; l += kLine) __builtin_prefetch(next + l);
        }
        widen(rows + places[i] * width, out + i * width, width);
    }
}

}  // namespace fgsbir
