// Integer lines into a bit canvas, and their dilation. Included by raster_kernels.cpp alone.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "segment_walk.h"
#include "simd/raster_kernels.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

typedef std::uint64_t Word;

// ceil(2^32 / n) for n up to kQuickSide, so that a slope costs a multiplication.
constexpr int kQuickSide = 1024;
struct Reciprocals {
    Word of[kQuickSide + 1];
    constexpr Reciprocals() : of() {
        of[0] = 0;
        for (Word n = 1; n <= kQuickSide; ++n) of[n] = ((Word{1} << 32) + n - 1) / n;
    }
};
constexpr Reciprocals kReciprocals;

// Pixels first..last of a row.
inline void set_run(Word* row, Word first, Word last) {
    const Word head = ~Word{0} << (first & 63), tail = ~Word{0} >> (63 - (last & 63));
    Word *word = row + (first >> 6), *end = row + (last >> 6);
    if (word == end) {
        *word |= head & tail;
        return;
    }
    *word |= head;
    while (++word != end) *word = ~Word{0};
    *word |= tail;
}

// A segment whose ends both lie inside, on a canvas of at most kQuickSide pixels a side: the walk of segment_walk.h in fixed-point
// numbers of 32 fractional bits. j(k) = floor(km/M + 1/2); km/M is a multiple of 1/M, the product with the rounded-up reciprocal
// exceeds it by less than km 2^-32 <= 2^-12 < 1/2M, and so the floor is the same.
inline void quick_segment(Word* bits, std::ptrdiff_t stride, int x0, int y0, int x1, int y1) {
    const std::int64_t dx = x1 - x0, dy = y1 - y0;
    const std::int64_t left = dx >> 63, up = dy >> 63;  // 0 or -1
    const std::int64_t across = (dx ^ left) - left, down = (dy ^ up) - up;
    const std::ptrdiff_t step = (stride ^ up) - up;
    const std::int64_t slope = across * static_cast<std::int64_t>(kReciprocals.of[down]);
    Word* row = bits + y0 * stride;
    if (across <= down) {  // a pixel a row
        // Leftwards x0 - floor(v + 1/2) is floor(x0 + 1 - tiny - (v + 1/2)).
        std::int64_t x = (static_cast<std::int64_t>(x0) << 32) + (std::int64_t{1} << 31) + left;
        const std::int64_t move = (slope ^ left) - left;
        for (std::int64_t k = 0; k <= down; ++k) {
            row[x >> 38] |= Word{1} << ((x >> 32) & 63);
            row += step;
            x += move;
        }
        return;
    }
    // A run a row: the last step in row j < m is the largest k below M(2j + 1)/2m, a multiple of 1/2m. The product exceeds it by
    // less than 2^-12, so 2^-11 less lies between the right whole number and the next.
    std::int64_t position = slope / 2 - (std::int64_t{1} << 21), first = 0;
    for (std::int64_t j = 0; j <= down; ++j) {
        const std::int64_t last = j < down ? position >> 32 : across;
        const std::int64_t a = x0 + ((first ^ left) - left), b = x0 + ((last ^ left) - left);
        set_run(row, static_cast<Word>(left ? b : a), static_cast<Word>(left ? a : b));
        first = last + 1;
        position += slope;
        row += step;
    }
}

inline void include_rows(BitCanvas& canvas, int a, int b) {
    const int low = a < b ? a : b, high = a < b ? b : a;
    if (low < canvas.top) canvas.top = low;
    if (high > canvas.bottom) canvas.bottom = high;
}

// Any segment. Row 0 and column 0 are never drawn (METHODS D.1).
void clipped_segment(BitCanvas& canvas, int x0, int y0, int x1, int y1) {
    SegmentWalk walk;
    if (!clip_segment(x0, y0, x1, y1, 1, 1, canvas.width - 1, canvas.height - 1, walk)) return;
    int major = walk.major, minor = walk.minor;
    std::int64_t decision = walk.decision;
    const int minor_start = minor;
    for (int k = 0;; ++k) {
        const int x = walk.x_is_major ? major : minor, y = walk.x_is_major ? minor : major;
        canvas.bits[y * canvas.stride + (x >> 6)] |= Word{1} << (x & 63);
        if (k == walk.count - 1) break;
        if (decision >= 0) {
            minor += walk.minor_step;
            decision -= walk.twice_major;
        }
        decision += walk.twice_minor;
        major += walk.major_step;
    }
    if (walk.x_is_major) {
        include_rows(canvas, minor_start, minor);
    } else {
        include_rows(canvas, walk.major, major);
    }
}

constexpr int kPoints = 128;  // points rounded at a time

// What rounding a group of points finds out: the rows they lie in, and whether all lie where lines are drawn.
struct Group {
    int top, bottom;
    bool inside;
};

// [n, 2] to whole numbers, half to even in the default rounding mode; coordinates up to 1e9 fit.
inline Group round_points(const float* points, int n, const BitCanvas& canvas, int* rounded) {
    int low[2], high[2];
#if defined(__AVX2__)
    __m256i least = _mm256_set1_epi32(0x7FFFFFFF), most = _mm256_set1_epi32(-0x7FFFFFFF);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        const __m256i four = _mm256_cvtps_epi32(_mm256_loadu_ps(points + 2 * i));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded + 2 * i), four);
        least = _mm256_min_epi32(least, four);
        most = _mm256_max_epi32(most, four);
    }
    __m128i low2 = _mm_min_epi32(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
    __m128i high2 = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    low2 = _mm_min_epi32(low2, _mm_unpackhi_epi64(low2, low2));
    high2 = _mm_max_epi32(high2, _mm_unpackhi_epi64(high2, high2));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(low), low2);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(high), high2);
#else
    int i = 0;
    low[0] = low[1] = 0x7FFFFFFF;
    high[0] = high[1] = -0x7FFFFFFF;
#endif
    for (; i < n; ++i) {
        for (int axis = 0; axis < 2; ++axis) {
            const int value = static_cast<int>(__builtin_lrintf(points[2 * i + axis]));
            rounded[2 * i + axis] = value;
            low[axis] = value < low[axis] ? value : low[axis];
            high[axis] = value > high[axis] ? value : high[axis];
        }
    }
    return {low[1], high[1], low[0] >= 1 && high[0] < canvas.width && low[1] >= 1 && high[1] < canvas.height};
}

void draw_lines(BitCanvas& canvas, const float* points, std::int64_t n) {
    const bool small = canvas.width <= kQuickSide && canvas.height <= kQuickSide;
    int p[2 * kPoints];
    // Neighbouring groups share a point, so that every segment lies in one group.
    for (std::int64_t begin = 0; begin == 0 || begin + 1 < n; begin += kPoints - 1) {
        const int count = static_cast<int>(n - begin < kPoints ? n - begin : kPoints);
        const Group group = round_points(points + 2 * begin, count, canvas, p);
        if (group.inside && small) {
            include_rows(canvas, group.top, group.bottom);
            if (count == 1) quick_segment(canvas.bits, canvas.stride, p[0], p[1], p[0], p[1]);
            for (int i = 2; i < 2 * count; i += 2) quick_segment(canvas.bits, canvas.stride, p[i - 2], p[i - 1], p[i], p[i + 1]);
        } else {
            if (count == 1) clipped_segment(canvas, p[0], p[1], p[0], p[1]);
            for (int i = 2; i < 2 * count; i += 2) clipped_segment(canvas, p[i - 2], p[i - 1], p[i], p[i + 1]);
        }
    }
}

// Rows are contiguous with zero words between them, so the cross is five shifted reads of one long array of bits. Vectors of 32
// bytes: reads that are not aligned cost more as 64.
void dilate(const BitCanvas& canvas, Word* grown, std::ptrdiff_t begin, std::ptrdiff_t end) {
    typedef Word Four __attribute__((vector_size(32)));
    const Word *c = canvas.bits, *above = c - canvas.stride, *below = c + canvas.stride;
    const auto load = [](const Word* at) {
        Four words;
        __builtin_memcpy(&words, at, sizeof words);
        return words;
    };
    std::ptrdiff_t i = begin;
    for (; i + 4 <= end; i += 4) {
        const Four own = load(c + i);
        const Four cross = own | own << 1 | own >> 1 | load(c + i - 1) >> 63 | load(c + i + 1) << 63 | load(above + i) | load(below + i);
        __builtin_memcpy(grown + i, &cross, sizeof cross);
    }
    for (; i < end; ++i) grown[i] = c[i] | above[i] | below[i] | c[i] << 1 | c[i - 1] >> 63 | c[i] >> 1 | c[i + 1] << 63;
}

}  // namespace
}  // namespace fgsbir::FGSBIR_ISA
