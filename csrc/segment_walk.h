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
struct SegmentWalk {
    bool x_is_major;
    int major, minor;            // coordinates of the first visible pixel
    int major_step, minor_step;  // +1 or -1
    int count;                   // visible pixels, at least 1
    std::int64_t decision;       // D after the first visible pixel was drawn and before its step
    std::int64_t twice_major, twice_minor;
};

namespace walk_detail {

// One axis: `length` unit steps from `start` in the direction `sign`.
struct Axis {
    std::int64_t start, length;
    int sign;
};

FGSBIR_HOST_DEVICE static inline Axis axis(std::int64_t from, std::int64_t to) {
    return {from, to < from ? from - to : to - from, to < from ? -1 : 1};
}
FGSBIR_HOST_DEVICE static inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FGSBIR_HOST_DEVICE static inline std::int64_t most(std::int64_t a, std::int64_t b) { return a < b ? b : a; }

// First and last step (possibly an empty range) whose coordinate lies in [low, high].
FGSBIR_HOST_DEVICE static inline std::int64_t first_inside(const Axis& a, std::int64_t low, std::int64_t high) {
    return most(0, a.sign > 0 ? low - a.start : a.start - high);
}
FGSBIR_HOST_DEVICE static inline std::int64_t last_inside(const Axis& a, std::int64_t low, std::int64_t high) {
    return least(a.length, a.sign > 0 ? high - a.start : a.start - low);
}

}  // namespace walk_detail

// The walk from (x0, y0) to (x1, y1) cut to the pixels with x in [left, right] and y in [top, bottom]; false when none is left.
// Coordinates up to 1e9, so that products of two lengths fit into 64 bits.
FGSBIR_HOST_DEVICE static inline bool clip_segment(std::int64_t x0, std::int64_t y0, std::int64_t x1, std::int64_t y1, int left,
                                                   int top, int right, int bottom, SegmentWalk& walk) {
    using namespace walk_detail;
    const Axis x = axis(x0, x1), y = axis(y0, y1);
    walk.x_is_major = x.length > y.length;
    const Axis major = walk.x_is_major ? x : y, minor = walk.x_is_major ? y : x;
    const std::int64_t major_low = walk.x_is_major ? left : top, major_high = walk.x_is_major ? right : bottom;
    const std::int64_t minor_low = walk.x_is_major ? top : left, minor_high = walk.x_is_major ? bottom : right;
    const std::int64_t twice_major = 2 * major.length, twice_minor = 2 * minor.length;

    std::int64_t first = first_inside(major, major_low, major_high), last = last_inside(major, major_low, major_high);
    const std::int64_t minor_first = first_inside(minor, minor_low, minor_high);
    const std::int64_t minor_last = last_inside(minor, minor_low, minor_high);
    if (minor_first > minor_last) return false;
    if (minor_first > 0) {  // smallest k with j(k) >= minor_first; a positive numerator, rounded up
        first = most(first, (twice_major * minor_first - major.length + twice_minor - 1) / twice_minor);
    }
    if (minor_last < minor.length) {  // largest k with j(k) <= minor_last
        last = least(last, (twice_major * (minor_last + 1) - major.length - 1) / twice_minor);
    }
    if (first > last) return false;

    const std::int64_t j = major.length == 0 ? 0 : (twice_minor * first + major.length) / twice_major;
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
