// Canvases to output elements, with wide stores. Included by raster_kernels.cpp alone.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "simd/raster_kernels.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

#if defined(__AVX512BW__)
constexpr int kStoreBytes = 64;
#elif defined(__AVX2__)
constexpr int kStoreBytes = 32;
#else
constexpr int kStoreBytes = 16;
#endif

constexpr int kBlock = 64;  // pixels handled at once

template <typename T>
struct Store {
    typedef T Vector __attribute__((vector_size(kStoreBytes)));
    static constexpr int lanes = kStoreBytes / static_cast<int>(sizeof(T));
};

// To an address that is a multiple of kStoreBytes when `stream` is set, to any address otherwise.
template <typename V>
inline void put(void* target, const V& value, bool stream) {
#if defined(__AVX512BW__)
    if (stream) return _mm512_stream_si512(static_cast<__m512i*>(target), (__m512i)value);
#elif defined(__AVX2__)
    if (stream) return _mm256_stream_si256(static_cast<__m256i*>(target), (__m256i)value);
#elif defined(__SSE2__)
    if (stream) return _mm_stream_si128(static_cast<__m128i*>(target), (__m128i)value);
#else
    (void)stream;
#endif
    __builtin_memcpy(target, &value, sizeof value);
}

inline void finish_stores(bool stream) {
#if defined(__SSE2__)
    if (stream) _mm_sfence();
#else
    (void)stream;
#endif
}

// Two values of an element, one for each state of a bit.
template <typename T>
struct Shades {
    typename Store<T>::Vector off, on;
    T off_element;

    Shades(std::uint32_t off_value, std::uint32_t on_value)
        : off(typename Store<T>::Vector{} + static_cast<T>(off_value)),
          on(typename Store<T>::Vector{} + static_cast<T>(on_value)),
          off_element(static_cast<T>(off_value)) {}
};

// The lowest `lanes` bits as elements. An element's lane l is on where bit l is set.
#if defined(__AVX512BW__)
inline auto spread(std::uint64_t bits, const Shades<std::uint8_t>& s) {
    return (Store<std::uint8_t>::Vector)_mm512_mask_blend_epi8(bits, (__m512i)s.off, (__m512i)s.on);
}
inline auto spread(std::uint64_t bits, const Shades<std::uint16_t>& s) {
    return (Store<std::uint16_t>::Vector)_mm512_mask_blend_epi16(static_cast<__mmask32>(bits), (__m512i)s.off, (__m512i)s.on);
}
inline auto spread(std::uint64_t bits, const Shades<std::uint32_t>& s) {
    return (Store<std::uint32_t>::Vector)_mm512_mask_blend_epi32(static_cast<__mmask16>(bits), (__m512i)s.off, (__m512i)s.on);
}
#else
template <typename T>
inline auto select(typename Store<T>::Vector bits, typename Store<T>::Vector bit_of_lane, const Shades<T>& s) {
    const auto chosen = (typename Store<T>::Vector)((bits & bit_of_lane) == bit_of_lane);
    return s.off ^ (chosen & (s.on ^ s.off));
}
template <typename T>
inline auto bit_of_lane() {
    typename Store<T>::Vector bits;
    for (int l = 0; l < Store<T>::lanes; ++l) bits[l] = static_cast<T>(1U << (l % (8 * static_cast<int>(sizeof(T)))));
    return bits;
}
inline auto spread(std::uint64_t bits, const Shades<std::uint8_t>& s) {  // each byte of bits goes to eight lanes
    typedef std::uint64_t Eights __attribute__((vector_size(kStoreBytes)));
    Eights bytes;
    for (int l = 0; l < kStoreBytes / 8; ++l) bytes[l] = (bits >> (8 * l) & 255) * 0x0101010101010101U;
    return select<std::uint8_t>((Store<std::uint8_t>::Vector)bytes, bit_of_lane<std::uint8_t>(), s);
}
inline auto spread(std::uint64_t bits, const Shades<std::uint16_t>& s) {
    return select<std::uint16_t>(Store<std::uint16_t>::Vector{} + static_cast<std::uint16_t>(bits), bit_of_lane<std::uint16_t>(), s);
}
inline auto spread(std::uint64_t bits, const Shades<std::uint32_t>& s) {
    return select<std::uint32_t>(Store<std::uint32_t>::Vector{} + static_cast<std::uint32_t>(bits), bit_of_lane<std::uint32_t>(), s);
}
#endif

template <typename T>
inline void spread_block(std::uint64_t bits, T* target, const Shades<T>& shades, bool stream) {
    constexpr int lanes = Store<T>::lanes;
    for (int x = 0; x < kBlock; x += lanes) put(target + x, spread(bits >> x, shades), stream);
}

template <typename T>
void fill(T* target, std::int64_t count, const Shades<T>& shades, bool stream) {
    constexpr int lanes = Store<T>::lanes;
    if (sizeof(T) == 1 && !stream) {  // the library's own fill need not fetch the lines it overwrites
        if (count > 0) __builtin_memset(target, static_cast<int>(shades.off_element), static_cast<std::size_t>(count));
        return;
    }
    std::int64_t x = 0;
    for (; x + lanes <= count; x += lanes) put(target + x, shades.off, stream);
    for (; x < count; ++x) target[x] = shades.off_element;
}

template <typename T>
void write_bits_as(const BitCanvas& canvas, const std::uint64_t* grown, int top, int bottom, const PixelWriter& w) {
    const std::int64_t width = canvas.width;
    for (int p = 0; p < w.planes; ++p) {
        const Shades<T> shades(w.table[256 * p], w.table[256 * p + 255]);
        T* plane = static_cast<T*>(w.image) + p * w.plane;
        if (top > bottom) {
            fill(plane, w.plane, shades, w.stream);
            continue;
        }
        fill(plane, top * width, shades, w.stream);
        for (std::int64_t y = top; y <= bottom; ++y) {
            const std::uint64_t* row = grown + y * canvas.stride;
            T* target = plane + y * width;
            std::int64_t x = 0;
            for (; x + kBlock <= width; x += kBlock) spread_block(row[x / kBlock], target + x, shades, w.stream);
            if (x < width) {
                T rest[kBlock];
                spread_block(row[x / kBlock], rest, shades, false);
                __builtin_memcpy(target + x, rest, static_cast<std::size_t>(width - x) * sizeof(T));
            }
        }
        fill(plane + (bottom + 1) * width, (canvas.height - 1 - bottom) * width, shades, w.stream);
    }
    finish_stores(w.stream);
}

void write_bits(const BitCanvas& canvas, const std::uint64_t* grown, int top, int bottom, const PixelWriter& writer) {
    if (writer.element == 1) {
        write_bits_as<std::uint8_t>(canvas, grown, top, bottom, writer);
    } else if (writer.element == 2) {
        write_bits_as<std::uint16_t>(canvas, grown, top, bottom, writer);
    } else {
        write_bits_as<std::uint32_t>(canvas, grown, top, bottom, writer);
    }
}

// ---- coverage ----

typedef std::uint64_t Block __attribute__((vector_size(kBlock)));

inline bool is_blank(const std::uint8_t* ink) {
#if defined(__AVX512BW__)
    const __m512i all = _mm512_loadu_si512(ink);
    return _mm512_test_epi32_mask(all, all) == 0;
#else
    std::uint64_t words[kBlock / 8], any = 0;
    __builtin_memcpy(words, ink, kBlock);
    for (std::uint64_t word : words) any |= word;
    return any == 0;
#endif
}

inline std::uint8_t flip_of(const PixelWriter& w) { return w.dark ? 255 : 0; }  // v ^ 255 is 255 - v

inline void convert_block(const std::uint8_t* ink, std::uint8_t* target, const PixelWriter& w, int, bool stream) {
    typedef Store<std::uint8_t>::Vector V;
    const V flip = V{} + flip_of(w);
    for (int x = 0; x < kBlock; x += kStoreBytes) {
        V value;
        __builtin_memcpy(&value, ink + x, sizeof value);
        put(target + x, value ^ flip, stream);
    }
}

// The same product and sum as the table's, without its lookups.
inline void convert_block(const std::uint8_t* ink, std::uint32_t* target, const PixelWriter& w, int plane, bool stream) {
    constexpr int lanes = Store<std::uint32_t>::lanes;
    typedef float Floats __attribute__((vector_size(kStoreBytes)));
    typedef std::int32_t Ints __attribute__((vector_size(kStoreBytes)));
    typedef std::uint8_t Bytes __attribute__((vector_size(lanes)));
    const Bytes flip = Bytes{} + flip_of(w);
    for (int x = 0; x < kBlock; x += lanes) {
        Bytes value;
        __builtin_memcpy(&value, ink + x, sizeof value);
        const Ints level = __builtin_convertvector(value ^ flip, Ints);
        put(target + x, __builtin_convertvector(level, Floats) * w.scale[plane] + w.shift[plane], stream);
    }
}

#if defined(__F16C__)
// float32 as below, rounded to nearest even: the table's values.
inline void convert_block(const std::uint8_t* ink, std::uint16_t* target, const PixelWriter& w, int plane, bool stream) {
    std::uint32_t singles[kBlock];
    convert_block(ink, singles, w, plane, false);
    constexpr int lanes = Store<std::uint16_t>::lanes;
    for (int x = 0; x < kBlock; x += lanes) {
        float from[lanes];
        __builtin_memcpy(from, singles + x, sizeof from);
#if defined(__AVX512BW__)
        const __m256i low = _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
        const __m256i high = _mm512_cvtps_ph(_mm512_loadu_ps(from + 16), _MM_FROUND_TO_NEAREST_INT);
        put(target + x, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), stream);
#else
        const __m128i low = _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
        const __m128i high = _mm256_cvtps_ph(_mm256_loadu_ps(from + 8), _MM_FROUND_TO_NEAREST_INT);
        put(target + x, _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), stream);
#endif
    }
}
#else
inline void convert_block(const std::uint8_t* ink, std::uint16_t* target, const PixelWriter& w, int plane, bool stream) {
    std::uint16_t values[kBlock];
    for (int x = 0; x < kBlock; ++x) values[x] = static_cast<std::uint16_t>(w.table[256 * plane + ink[x]]);
    constexpr int lanes = Store<std::uint16_t>::lanes;
    for (int x = 0; x < kBlock; x += lanes) {
        Store<std::uint16_t>::Vector value;
        __builtin_memcpy(&value, values + x, sizeof value);
        put(target + x, value, stream);
    }
}
#endif

template <typename T>
void write_soft_as(SoftCanvas& canvas, const PixelWriter& w, bool clear) {
    const std::int64_t width = canvas.width;
    for (int p = 0; p < w.planes; ++p) {
        const Shades<T> shades(w.table[256 * p], 0);
        T* plane = static_cast<T*>(w.image) + p * w.plane;
        const bool last = p + 1 == w.planes;
        if (canvas.top > canvas.bottom) {
            fill(plane, w.plane, shades, w.stream);
            continue;
        }
        fill(plane, canvas.top * width, shades, w.stream);
        for (std::int64_t y = canvas.top; y <= canvas.bottom; ++y) {
            std::uint8_t* ink = canvas.ink + y * canvas.stride;
            T* target = plane + y * width;
            for (std::int64_t x = 0; x < width; x += kBlock) {
                const bool whole = x + kBlock <= width;
                if (whole && is_blank(ink + x)) {
                    for (int i = 0; i < kBlock; i += Store<T>::lanes) put(target + x + i, shades.off, w.stream);
                    continue;
                }
                if (whole) {
                    convert_block(ink + x, target + x, w, p, w.stream);
                } else {
                    T rest[kBlock];
                    convert_block(ink + x, rest, w, p, false);
                    __builtin_memcpy(target + x, rest, static_cast<std::size_t>(width - x) * sizeof(T));
                }
                if (clear && last) __builtin_memset(ink + x, 0, kBlock);
            }
        }
        fill(plane + (canvas.bottom + 1) * width, (canvas.height - 1 - canvas.bottom) * width, shades, w.stream);
    }
    finish_stores(w.stream);
    if (clear) {
        canvas.top = canvas.height;
        canvas.bottom = -1;
    }
}

void write_soft(SoftCanvas& canvas, const PixelWriter& writer, bool clear) {
    if (writer.element == 1) {
        write_soft_as<std::uint8_t>(canvas, writer, clear);
    } else if (writer.element == 2) {
        write_soft_as<std::uint16_t>(canvas, writer, clear);
    } else {
        write_soft_as<std::uint32_t>(canvas, writer, clear);
    }
}

}  // namespace
}  // namespace fgsbir::FGSBIR_ISA
