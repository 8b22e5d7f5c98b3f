// The half-precision numbers that kernels use: storage and exact conversion, no arithmetic (emulator.h).
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
    std::uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }

// Round to nearest, ties to even; too large becomes infinity.
inline __half __float2half_rn(float value) {
    std::uint32_t f;
    std::memcpy(&f, &value, 4);
    const auto sign = static_cast<std::uint16_t>(f >> 16 & 0x8000U);
    f &= 0x7fffffffU;
    if (f > 0x7f800000U) return {static_cast<std::uint16_t>(sign | 0x7fffU)};  // NaN
    if (f >= 0x47800000U) return {static_cast<std::uint16_t>(sign | 0x7c00U)};
    // The value as significand * 2^shift of the half's last place, shift bits to be rounded away.
    const auto exponent = static_cast<int>(f >> 23);
    const std::uint32_t significand = exponent == 0 ? 0U : ((f & 0x7fffffU) | 0x800000U);
    const bool normal = exponent >= 113;
    const int shift = normal ? 13 : 126 - exponent;
    if (shift > 25) return {sign};
    const std::uint32_t kept = significand >> shift, rest = significand & ((1U << shift) - 1U), half = 1U << (shift - 1);
    const std::uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1U) != 0) ? 1U : 0U);
    // In a normal number the leading bit of `kept` adds one to the exponent field.
    const std::uint32_t base = normal ? static_cast<std::uint32_t>(exponent - 113) << 10 : 0U;
    return {static_cast<std::uint16_t>(sign | (base + rounded))};
}
inline __half __float2half(float value) { return __float2half_rn(value); }

inline float __half2float(__half value) {
    const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16, rest = value.bits & 0x7fffU;
    std::uint32_t f = rest << 13;
    if (rest >= 0x7c00U) {
        f |= 0x7f800000U;
    } else {
        // As if the exponents had the same bias, then put right by one exact product; subnormal halves come out normal.
        float scaled;
        std::memcpy(&scaled, &f, 4);
        scaled *= 0x1p112F;
        std::memcpy(&f, &scaled, 4);
    }
    f |= sign;
    float result;
    std::memcpy(&result, &f, 4);
    return result;
}
