// float16 to float32. Compiled once for each instruction set; those without an instruction for it do it on the bits.
#include "simd/half_kernels.h"

#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fgsbir::FGSBIR_ISA {
namespace {

float widened(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16, rest = half & 0x7FFFU;
    std::uint32_t bits = 0;
    if (rest >= 0x7C00U) {  // infinity, NaN
        bits = sign | 0x7F800000U | (rest & 0x3FFU) << 13 | (rest > 0x7C00U ? 0x400000U : 0U);
    } else if (rest >= 0x400U) {
        bits = sign | ((rest << 13) + (112U << 23));
    } else {  // below 2^-14: a whole number of 2^-24
        const float small = static_cast<float>(rest) * 0x1p-24F;
        std::memcpy(&bits, &small, sizeof bits);
        bits |= sign;
    }
    float value = 0.0F;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

void widen_half(const std::uint16_t* from, float* to, std::int64_t count) {
    std::int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
#elif defined(__aarch64__)
    for (; i + 4 <= count; i += 4) vst1q_f32(to + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + i))));
#endif
    for (; i < count; ++i) to[i] = widened(from[i]);
}

}  // namespace fgsbir::FGSBIR_ISA
