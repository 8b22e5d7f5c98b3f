// Coverage of round-capped segments into a soft canvas. Included by raster_kernels.cpp alone.
//
// A segment with round caps is a body, where the nearest point lies inside the segment and the distance is linear along a row, and
// a disc at each end. Both are blended by the larger value; discs of neighbouring segments are one and the same.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "simd/raster_kernels.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

// N pixels of a row, as many as this instruction set holds floats.
template <int N>
struct Lanes;

// blend(): levels, 255 * coverage + 1/2 before clamping to 0..255, to ink where the mask is set, blended into the pixels by the
// larger value. between(): the mask of 0 <= t <= end.
#if defined(__AVX512BW__)
constexpr int kLanes = 16;
typedef __mmask16 Mask;
constexpr Mask kEverywhere = 0xFFFF;
template <>
struct Lanes<16> {
    typedef float Floats __attribute__((vector_size(64)));
    typedef std::int32_t Ints __attribute__((vector_size(64)));
    static constexpr Floats count{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
};
inline void blend(std::uint8_t* pixels, Lanes<16>::Floats level, Mask mask) {
    const __m512i whole = _mm512_cvttps_epi32(_mm512_max_ps((__m512)level, _mm512_setzero_ps()));
    const __m128i ink = _mm512_maskz_cvtusepi32_epi8(mask, whole);
    __m128i* target = reinterpret_cast<__m128i*>(pixels);
    _mm_storeu_si128(target, _mm_max_epu8(ink, _mm_loadu_si128(target)));
}
inline Mask between(Lanes<16>::Floats t, float end) {
    const Mask begun = _mm512_cmp_ps_mask((__m512)t, _mm512_setzero_ps(), _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(begun, (__m512)t, _mm512_set1_ps(end), _CMP_LE_OQ);
}
inline Lanes<16>::Floats root(Lanes<16>::Floats x) { return (Lanes<16>::Floats)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX2__)
constexpr int kLanes = 8;
template <>
struct Lanes<8> {
    typedef float Floats __attribute__((vector_size(32)));
    typedef std::int32_t Ints __attribute__((vector_size(32)));
    static constexpr Floats count{0, 1, 2, 3, 4, 5, 6, 7};
};
typedef Lanes<8>::Ints Mask;
constexpr Mask kEverywhere = Mask{} - 1;
inline void blend(std::uint8_t* pixels, Lanes<8>::Floats level, Mask mask) {
    const __m256i whole = _mm256_and_si256(_mm256_cvttps_epi32((__m256)level), (__m256i)mask);
    const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const __m128i ink = _mm_packus_epi16(shorts, shorts);  // both stop at their limits
    __m128i* target = reinterpret_cast<__m128i*>(pixels);
    _mm_storel_epi64(target, _mm_max_epu8(ink, _mm_loadl_epi64(target)));
}
inline Mask between(Lanes<8>::Floats t, float end) { return (t >= 0.0F) & (t <= end); }
inline Lanes<8>::Floats root(Lanes<8>::Floats x) { return (Lanes<8>::Floats)_mm256_sqrt_ps((__m256)x); }
#else
constexpr int kLanes = 4;
template <>
struct Lanes<4> {
    typedef float Floats __attribute__((vector_size(16)));
    typedef std::int32_t Ints __attribute__((vector_size(16)));
    static constexpr Floats count{0, 1, 2, 3};
};
typedef Lanes<4>::Ints Mask;
constexpr Mask kEverywhere = Mask{} - 1;
inline Mask between(Lanes<4>::Floats t, float end) { return (t >= 0.0F) & (t <= end); }
#if defined(__SSE2__)
inline void blend(std::uint8_t* pixels, Lanes<4>::Floats level, Mask mask) {
    const __m128i whole = _mm_and_si128(_mm_cvttps_epi32((__m128)level), (__m128i)mask);
    const __m128i shorts = _mm_packs_epi32(whole, whole), ink = _mm_packus_epi16(shorts, shorts);  // both stop at their limits
    std::int32_t four;
    __builtin_memcpy(&four, pixels, 4);
    four = _mm_cvtsi128_si32(_mm_max_epu8(ink, _mm_cvtsi32_si128(four)));
    __builtin_memcpy(pixels, &four, 4);
}
inline Lanes<4>::Floats root(Lanes<4>::Floats x) { return (Lanes<4>::Floats)_mm_sqrt_ps((__m128)x); }
#elif defined(__ARM_NEON) && defined(__aarch64__)
inline void blend(std::uint8_t* pixels, Lanes<4>::Floats level, Mask mask) {
    const int32x4_t whole = vandq_s32(vcvtq_s32_f32((float32x4_t)level), (int32x4_t)mask);
    const uint16x4_t shorts = vqmovun_s32(whole);  // both stop at their limits
    const uint8x8_t ink = vqmovn_u16(vcombine_u16(shorts, shorts));
    std::uint32_t four;
    __builtin_memcpy(&four, pixels, 4);
    four = vget_lane_u32(vreinterpret_u32_u8(vmax_u8(ink, vreinterpret_u8_u32(vdup_n_u32(four)))), 0);
    __builtin_memcpy(pixels, &four, 4);
}
inline Lanes<4>::Floats root(Lanes<4>::Floats x) { return (Lanes<4>::Floats)vsqrtq_f32((float32x4_t)x); }
#else
inline void blend(std::uint8_t* pixels, Lanes<4>::Floats level, Mask mask) {
    for (int l = 0; l < 4; ++l) {
        const float value = level[l] < 0.0F ? 0.0F : level[l] > 255.5F ? 255.5F : level[l];
        const auto ink = static_cast<std::uint8_t>(static_cast<int>(value) & mask[l]);
        pixels[l] = ink > pixels[l] ? ink : pixels[l];
    }
}
inline Lanes<4>::Floats root(Lanes<4>::Floats x) {
    for (int l = 0; l < 4; ++l) x[l] = __builtin_sqrtf(x[l]);
    return x;
}
#endif
#endif

typedef Lanes<kLanes>::Floats Floats;
typedef Lanes<kLanes>::Ints Ints;

inline int floor_of(float value) {
#if defined(__SSE4_1__)
    return static_cast<int>(__builtin_floorf(value));
#else
    const int whole = static_cast<int>(value);
    return whole - (static_cast<float>(whole) > value);
#endif
}
inline int ceil_of(float value) {
#if defined(__SSE4_1__)
    return static_cast<int>(__builtin_ceilf(value));
#else
    const int whole = static_cast<int>(value);
    return whole + (static_cast<float>(whole) < value);
#endif
}
inline int least(int a, int b) { return a < b ? a : b; }
inline int most(int a, int b) { return a > b ? a : b; }

constexpr float kSlack = 1.0F / 64;  // ranges of pixels are this much wider than rounding could need, pixels

struct Range {
    int first, last;
};

// Whole numbers in [low, high] and [0, side - 1].
inline Range pixels_in(float low, float high, int side) {
    const float end = static_cast<float>(side);
    low = low > 0.0F ? low : 0.0F;
    high = high < end ? high : end;
    return {ceil_of(low - kSlack > 0.0F ? low - kSlack : 0.0F), least(floor_of(high + kSlack), side - 1)};
}

inline void include_rows(SoftCanvas& canvas, const Range& rows) {
    canvas.top = least(canvas.top, rows.first);
    canvas.bottom = most(canvas.bottom, rows.last);
}

#if defined(__AVX512BW__)
// A disc that fits into 4x4 pixels, in one go.
inline void small_disc(SoftCanvas& canvas, float cx, float cy, int left, int top) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i xs = _mm512_add_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(3)), _mm512_set1_epi32(left));
    const __m512i ys = _mm512_add_epi32(_mm512_srli_epi32(lane, 2), _mm512_set1_epi32(top));
    const Floats ex = (Floats)_mm512_cvtepi32_ps(xs) - cx, ey = (Floats)_mm512_cvtepi32_ps(ys) - cy;
    const Floats level = (255.0F * canvas.reach + 0.5F) - 255.0F * root(ex * ex + ey * ey);
    const __m128i ink = _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(_mm512_max_ps((__m512)level, _mm512_setzero_ps())));
    std::uint8_t* row = canvas.ink + top * canvas.stride + left;
    std::int32_t old[4];
    for (int y = 0; y < 4; ++y) __builtin_memcpy(&old[y], row + y * canvas.stride, 4);
    const __m128i grown = _mm_max_epu8(ink, _mm_setr_epi32(old[0], old[1], old[2], old[3]));
    alignas(16) std::int32_t out[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(out), grown);
    for (int y = 0; y < 4; ++y) __builtin_memcpy(row + y * canvas.stride, &out[y], 4);
}
#endif

void disc(SoftCanvas& canvas, float cx, float cy) {
    const Range xs = pixels_in(cx - canvas.reach, cx + canvas.reach, canvas.width);
    const Range ys = pixels_in(cy - canvas.reach, cy + canvas.reach, canvas.height);
    if (xs.first > xs.last || ys.first > ys.last) return;
    include_rows(canvas, ys);
#if defined(__AVX512BW__)
    if (xs.last - xs.first < 4 && ys.last - ys.first < 4) return small_disc(canvas, cx, cy, xs.first, ys.first);
#endif
    const float peak = 255.0F * canvas.reach + 0.5F;
    for (int x = xs.first; x <= xs.last; x += kLanes) {
        const Floats ex = (Lanes<kLanes>::count + static_cast<float>(x)) - cx;
        const Floats squares = ex * ex;
        std::uint8_t* pixels = canvas.ink + ys.first * canvas.stride + x;
        for (int y = ys.first; y <= ys.last; ++y, pixels += canvas.stride) {
            const float ey = static_cast<float>(y) - cy;
            blend(pixels, peak - 255.0F * root(squares + ey * ey), kEverywhere);
        }
    }
}

void body(SoftCanvas& canvas, float x0, float y0, float x1, float y1) {
    const double dx = static_cast<double>(x1) - static_cast<double>(x0), dy = static_cast<double>(y1) - static_cast<double>(y0);
    const double squared = dx * dx + dy * dy;
    if (squared < 1e-12) return;  // shorter than a millionth of a pixel: its disc is all of it
    const double length = __builtin_sqrt(squared), inverse = 1.0 / length;
    const auto tx = static_cast<float>(dx * inverse), ty = static_cast<float>(dy * inverse);  // along the segment
    const auto px = static_cast<float>(-255.0 * dy * inverse), py = static_cast<float>(255.0 * dx * inverse);  // across, in levels
    const auto end = static_cast<float>(length);
    const float reach = canvas.reach, peak = 255.0F * reach + 0.5F;
    const float out_x = reach * __builtin_fabsf(ty), out_y = reach * __builtin_fabsf(tx);

    const Range xs = pixels_in((x0 < x1 ? x0 : x1) - out_x, (x0 < x1 ? x1 : x0) + out_x, canvas.width);
    const Range box = pixels_in((y0 < y1 ? y0 : y1) - out_y, (y0 < y1 ? y1 : y0) + out_y, canvas.height);
    if (xs.first > xs.last || box.first > box.last) return;
    include_rows(canvas, box);

    // kLanes columns at a time; where there are more, each takes only the rows in which the strip of half-width `reach` around the line
    // crosses them. Nearly upright lines take the whole box.
    const bool one = xs.last - xs.first < kLanes, slanted = !one && __builtin_fabsf(tx) > 1e-3F;
    const float rise = slanted ? ty / tx : 0.0F, half = slanted ? reach / __builtin_fabsf(tx) : 0.0F;
    for (int x = xs.first; x <= xs.last; x += kLanes) {
        Range ys = box;
        if (slanted) {
            const float from = y0 + (static_cast<float>(x) - x0) * rise, to = from + static_cast<float>(kLanes - 1) * rise;
            const Range strip = pixels_in((from < to ? from : to) - half, (from < to ? to : from) + half, canvas.height);
            ys = {most(box.first, strip.first), least(box.last, strip.last)};
        }
        const Floats ex = (Lanes<kLanes>::count + static_cast<float>(x)) - x0;
        const Floats across = ex * px, along = ex * tx;
        std::uint8_t* pixels = canvas.ink + ys.first * canvas.stride + x;
        for (int y = ys.first; y <= ys.last; ++y, pixels += canvas.stride) {
            const float ey = static_cast<float>(y) - y0;
            const Floats offset = across + ey * py;
            const Floats distance = (Floats)((Ints)offset & 0x7FFFFFFF);
            blend(pixels, peak - distance, between(along + ey * ty, end));
        }
    }
}

// Cuts the segment to the canvas grown by its reach and one pixel (Liang-Barsky). What is cut off is too far away to cover any
// pixel, and what is left is short enough for float32. False when nothing is left.
bool clip(const SoftCanvas& canvas, float& x0, float& y0, float& x1, float& y1) {
    const double low = -(static_cast<double>(canvas.reach) + 1.0), high_x = canvas.width - 1 - low, high_y = canvas.height - 1 - low;
    const double ax = static_cast<double>(x0), ay = static_cast<double>(y0);
    const double dx = static_cast<double>(x1) - ax, dy = static_cast<double>(y1) - ay;
    const double distance[4] = {ax - low, high_x - ax, ay - low, high_y - ay}, towards[4] = {-dx, dx, -dy, dy};
    double enter = 0.0, leave = 1.0;
    for (int edge = 0; edge < 4; ++edge) {
        if (towards[edge] == 0.0) {
            if (distance[edge] < 0.0) return false;
            continue;
        }
        const double t = distance[edge] / towards[edge];
        if (towards[edge] < 0.0) {
            enter = enter > t ? enter : t;
        } else {
            leave = leave < t ? leave : t;
        }
    }
    if (enter > leave) return false;
    if (leave < 1.0) {
        x1 = static_cast<float>(ax + leave * dx);
        y1 = static_cast<float>(ay + leave * dy);
    }
    if (enter > 0.0) {
        x0 = static_cast<float>(ax + enter * dx);
        y0 = static_cast<float>(ay + enter * dy);
    }
    return true;
}

void draw_soft(SoftCanvas& canvas, const float* points, std::int64_t n) {
    const float margin = canvas.reach + 1.0F;
    const float high_x = static_cast<float>(canvas.width - 1) + margin, high_y = static_cast<float>(canvas.height - 1) + margin;
    const auto is_near = [&](const float* p) { return p[0] >= -margin && p[0] <= high_x && p[1] >= -margin && p[1] <= high_y; };
    bool near0 = is_near(points);
    for (std::int64_t i = 1; i < n; ++i) {
        const float* to = points + 2 * i;
        float ax = to[-2], ay = to[-1], bx = to[0], by = to[1];
        const bool near1 = is_near(to);
        if ((near0 && near1) || clip(canvas, ax, ay, bx, by)) {
            body(canvas, ax, ay, bx, by);
        }
        near0 = near1;
    }
    // Discs after all bodies: right after its own, each would wait for the bytes just written.
    for (std::int64_t i = 0; i < n; ++i) {
        const float* at = points + 2 * i;
        if (is_near(at)) disc(canvas, at[0], at[1]);
    }
}

}  // namespace
}  // namespace fgsbir::FGSBIR_ISA
