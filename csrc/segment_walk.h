// The visible part of an integer segment, exactly, for CPU and CUDA. All functions have internal linkage (see csrc/simd).
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FGSBIR_HOST_DEVICE __host__ __device__
#else
#define FGSBIR_HOST_DEVICE
#endif

namespace fgsbir {

// The walk that the papers draw with goes along the longer axis (y where both are equal). With M = |major|, m = |minor| it starts
// at D = 2m - M and at each of the M + 1 pixels: draws; if D >= 0, steps the minor axis and takes 2M off D; adds 2m to D and steps
// the major axis. So the pixel of major step k lies at minor step j(k) = floor((2mk + M) / 2M), and a walk can begin anywhere as
// if it had come there.
//
// Int is std::int64_t for coordinates up to 1e9, whose lengths have products of 63 bits, or int for coordinates within
// +-kSmallCoordinate, where 32 bits are faster.
template <typename Int>
struct SegmentWalkOf {
    bool x_is_major;
    int major, minor;            // coordinates of the first visible pixel
    int major_step, minor_step;  // +1 or -1
    int count;                   // visible pixels, at least 1
    Int decision;                // D after the first visible pixel was drawn and before its step
    Int twice_major, twice_minor;
};
using SegmentWalk = SegmentWalkOf<std::int64_t>;
constexpr int kSmallCoordinate = 8191;  // lengths of at most 16382, and twice one times another stays below 2^30

namespace walk_detail {

// One axis: `length` unit steps from `start` in the direction `sign`.
template <typename Int>
struct Axis {
    Int start, length;
    int sign;
};

template <typename Int>
FGSBIR_HOST_DEVICE static inline Axis<Int> axis(Int from, Int to) {
    return {from, to < from ? from - to : to - from, to < from ? -1 : 1};
}
template <typename Int>
FGSBIR_HOST_DEVICE static inline Int least(Int a, Int b) {
    return a < b ? a : b;
}
template <typename Int>
FGSBIR_HOST_DEVICE static inline Int most(Int a, Int b) {
    return a < b ? b : a;
}

// First and last step (possibly an empty range) whose coordinate lies in [low, high].
template <typename Int>
FGSBIR_HOST_DEVICE static inline Int first_inside(const Axis<Int>& a, Int low, Int high) {
    return most(Int{0}, a.sign > 0 ? low - a.start : a.start - high);
}
template <typename Int>
FGSBIR_HOST_DEVICE static inline Int last_inside(const Axis<Int>& a, Int low, Int high) {
    return least(a.length, a.sign > 0 ? high - a.start : a.start - low);
}

}  // namespace walk_detail

// The walk from (x0, y0) to (x1, y1) cut to the pixels with x in [left, right] and y in [top, bottom]; false when none is left.
template <typename Int>
FGSBIR_HOST_DEVICE static inline bool clip_segment(int x0, int y0, int x1, int y1, int left, int top, int right, int bottom,
                                                   SegmentWalkOf<Int>& walk) {
    using namespace walk_detail;
    const Axis<Int> x = axis<Int>(x0, x1), y = axis<Int>(y0, y1);
    walk.x_is_major = x.length > y.length;
    const Axis<Int> major = walk.x_is_major ? x : y, minor = walk.x_is_major ? y : x;
    const Int major_low = walk.x_is_major ? left : top, major_high = walk.x_is_major ? right : bottom;
    const Int minor_low = walk.x_is_major ? top : left, minor_high = walk.x_is_major ? bottom : right;
    const Int twice_major = 2 * major.length, twice_minor = 2 * minor.length;

    Int first = first_inside(major, major_low, major_high), last = last_inside(major, major_low, major_high);
    const Int minor_first = first_inside(minor, minor_low, minor_high), minor_last = last_inside(minor, minor_low, minor_high);
    if (minor_first > minor_last) return false;
    if (minor_first > 0) {  // smallest k with j(k) >= minor_first; a positive numerator, rounded up
        first = most(first, (twice_major * minor_first - major.length + twice_minor - 1) / twice_minor);
    }
    if (minor_last < minor.length) {  // largest k with j(k) <= minor_last
        last = least(last, (twice_major * (minor_last + 1) - major.length - 1) / twice_minor);
    }
    if (first > last) return false;

    const Int j = first == 0 ? 0 : (twice_minor * first + major.length) / twice_major;  // most begin inside: no division
    walk.decision = twice_minor * (first + 1) - major.length - twice_major * j;
    walk.major = static_cast<int>(major.start + major.sign * first);
    walk.minor = static_cast<int>(minor.start + minor.sign * j);
    walk.major_step = major.sign;
    walk.minor_step = minor.sign;
    walk.count = static_cast<int>(last - first + 1);
    walk.twice_major = twice_major;
    walk.twice_minor = twice_minor;
    return true;
}

}  // namespace fgsbir
