// Antialias style: a tile's ink in shared memory, blended by the larger value.
#pragma once

#include "cuda/raster_task.cuh"

namespace fgsbir::cuda {

// Words of a row: one a pixel, and four more so that the lanes that draw a steep line, a row each, meet different banks.
constexpr int kSoftStride = kTileWidth + 4;
constexpr float kNear = 1024.0F;        // pixels from the tile up to which float32 is exact enough without clipping
constexpr float kStripSlack = 0.0625F;  // strips are this much wider than needed; coverage out there is zero all the same

class SoftPen {
  public:
    // `ink` [height * kSoftStride] of shared memory.
    __device__ SoftPen(const RasterTask& task, const Tile& tile, unsigned* ink)
        : ink_(ink), left_(tile.left), top_(tile.top), width_(tile.width), height_(tile.height), reach_(task.reach) {}

    static std::size_t shared_bytes(int tile_height) {
        return static_cast<std::size_t>(tile_height) * kSoftStride * sizeof(unsigned);
    }

    __device__ void clear() const {
        for (int i = static_cast<int>(threadIdx.x); i < height_ * kSoftStride; i += kRasterThreads) ink_[i] = 0;
    }

    __device__ bool may_touch(const Segment& s) const {
        const float margin = reach_ + 1.0F;
        const float left = static_cast<float>(left_) - margin, right = static_cast<float>(left_ + width_) + margin;
        const float top = static_cast<float>(top_) - margin, bottom = static_cast<float>(top_ + height_) + margin;
        return fmaxf(s.x0, s.x1) >= left && fminf(s.x0, s.x1) <= right && fmaxf(s.y0, s.y1) >= top && fminf(s.y0, s.y1) <= bottom;
    }

    // All lanes call; those with `mine` have a segment. Each lane prepares its own; then half a warp takes one segment at a time,
    // a lane for each step along the longer axis.
    __device__ void draw(const Segment& s, bool mine) const {
        const Strip own = mine ? strip_of(s) : Strip{};
        const unsigned there = __ballot_sync(kAllLanes, own.steps != 0 && own.limits != 0);
        const int lane = static_cast<int>(threadIdx.x % 32);
        for (unsigned left = there; left != 0;) {
            const int one = __ffs(static_cast<int>(left)) - 1;
            left &= left - 1;
            const int other = left != 0 ? __ffs(static_cast<int>(left)) - 1 : -1;
            left &= left - 1;  // 0 stays 0
            const int source = lane < 16 ? one : other;
            const Strip strip = from_lane(own, max(source, 0));
            if (source >= 0) paint(strip, lane % 16);
        }
    }

    template <int N>
    __device__ void inks(int row, int x, unsigned (&words)[N / 4]) const {
        const unsigned* ink = ink_ + row * kSoftStride + x;
        for (int i = 0; i < N / 4; ++i) {
            unsigned four[4];
            if (x % 4 == 0) {
                const uint4 v = *reinterpret_cast<const uint4*>(ink + 4 * i);
                four[0] = v.x, four[1] = v.y, four[2] = v.z, four[3] = v.w;
            } else {
                for (int j = 0; j < 4; ++j) four[j] = ink[4 * i + j];
            }
            words[i] = four[0] | four[1] << 8 | four[2] << 16 | four[3] << 24;
        }
    }

    __device__ unsigned ink(int row, int x) const { return ink_[row * kSoftStride + x]; }

  private:
    // A segment as it is painted, relative to the tile's first pixel. Default: nothing to paint.
    struct Strip {
        float x = 0, y = 0, dx = 0, dy = 0;  // start and extent
        float inverse = 0;                   // 1 / (dx^2 + dy^2); 0 for a dot
        float slope = 0, half = 0;           // of the strip's pixels on the shorter axis: centre per step, half the width
        int steps = 0, limits = 0;           // ranges on the longer and the shorter axis

        __device__ bool x_is_major() const { return fabsf(dx) > fabsf(dy); }
    };

    // Pixels first to last of a tile as one number; 0 is an empty range.
    __device__ static int range(int first, int last) { return first <= last ? first << 16 | (last + 1) : 0; }
    __device__ static int first_of(int range) { return range >> 16; }
    __device__ static int end_of(int range) { return range & 0xffff; }

    __device__ static Strip from_lane(const Strip& own, int source) {
        Strip s;
        s.x = __shfl_sync(kAllLanes, own.x, source);
        s.y = __shfl_sync(kAllLanes, own.y, source);
        s.dx = __shfl_sync(kAllLanes, own.dx, source);
        s.dy = __shfl_sync(kAllLanes, own.dy, source);
        s.inverse = __shfl_sync(kAllLanes, own.inverse, source);
        s.slope = __shfl_sync(kAllLanes, own.slope, source);
        s.half = __shfl_sync(kAllLanes, own.half, source);
        s.steps = __shfl_sync(kAllLanes, own.steps, source);
        s.limits = __shfl_sync(kAllLanes, own.limits, source);
        return s;
    }

    __device__ Strip strip_of(const Segment& s) const {
        Strip strip;
        float x1, y1;
        const float far = fmaxf(fmaxf(fabsf(s.x0 - static_cast<float>(left_)), fabsf(s.x1 - static_cast<float>(left_))),
                                fmaxf(fabsf(s.y0 - static_cast<float>(top_)), fabsf(s.y1 - static_cast<float>(top_))));
        if (far <= kNear) {
            strip.x = __fsub_rn(s.x0, static_cast<float>(left_));
            strip.y = __fsub_rn(s.y0, static_cast<float>(top_));
            x1 = __fsub_rn(s.x1, static_cast<float>(left_));
            y1 = __fsub_rn(s.y1, static_cast<float>(top_));
        } else {
            const Segment cut = clipped(*this, s);
            strip.x = cut.x0;
            strip.y = cut.y0;
            x1 = cut.x1;
            y1 = cut.y1;
        }
        strip.dx = __fsub_rn(x1, strip.x);
        strip.dy = __fsub_rn(y1, strip.y);
        const float squared = __fadd_rn(__fmul_rn(strip.dx, strip.dx), __fmul_rn(strip.dy, strip.dy));
        // Shorter than a millionth of a pixel is a dot; dividing by it would overflow.
        if (squared > 1e-12F) strip.inverse = __fdiv_rn(1.0F, squared);
        const bool x_is_major = strip.x_is_major();
        const float major = x_is_major ? strip.dx : strip.dy, minor = x_is_major ? strip.dy : strip.dx;
        strip.slope = fabsf(major) < 1e-6F ? 0.0F : minor / major;
        strip.half = reach_ * sqrtf(1.0F + strip.slope * strip.slope) + kStripSlack;
        const int xs = range(first_pixel(fminf(strip.x, x1)), last_pixel(fmaxf(strip.x, x1), width_));
        const int ys = range(first_pixel(fminf(strip.y, y1)), last_pixel(fmaxf(strip.y, y1), height_));
        strip.steps = x_is_major ? xs : ys;
        strip.limits = x_is_major ? ys : xs;
        return strip;
    }

    // Of the pixels that the round pen can reach from there. The casts are of numbers within the tile.
    __device__ int first_pixel(float low) const {
        return static_cast<int>(fminf(fmaxf(ceilf(low - reach_ - kStripSlack), 0.0F), static_cast<float>(kTileWidth)));
    }
    __device__ int last_pixel(float high, int side) const {
        return static_cast<int>(fmaxf(fminf(floorf(high + reach_ + kStripSlack), static_cast<float>(side - 1)), -1.0F));
    }

    // Every 16th step from `lane` on. Rounded operations, none fused: the same bits on every GPU and on the emulator.
    __device__ void paint(const Strip& s, int lane) const {
        const float peak = __fadd_rn(__fmul_rn(255.0F, reach_), 0.5F);
        const bool x_is_major = s.x_is_major();
        const float major = x_is_major ? s.x : s.y, minor = x_is_major ? s.y : s.x;
        const int low = first_of(s.limits), end = end_of(s.limits);
        for (int a = first_of(s.steps) + lane; a < end_of(s.steps); a += 16) {
            const float centre = minor + (static_cast<float>(a) - major) * s.slope;
            const int from = static_cast<int>(fmaxf(ceilf(fminf(centre - s.half, 1e6F)), static_cast<float>(low)));
            const int to = static_cast<int>(fminf(floorf(fmaxf(centre + s.half, -1e6F)), static_cast<float>(end - 1)));
            for (int b = from; b <= to; ++b) {
                const int x = x_is_major ? a : b, y = x_is_major ? b : a;
                const float px = __fsub_rn(static_cast<float>(x), s.x), py = __fsub_rn(static_cast<float>(y), s.y);
                // Where on the segment the nearest point lies, 0 = start, 1 = end.
                const float t = __saturatef(__fmul_rn(__fadd_rn(__fmul_rn(px, s.dx), __fmul_rn(py, s.dy)), s.inverse));
                const float ex = __fsub_rn(px, __fmul_rn(t, s.dx)), ey = __fsub_rn(py, __fmul_rn(t, s.dy));
                const float distance = __fsqrt_rn(__fadd_rn(__fmul_rn(ex, ex), __fmul_rn(ey, ey)));
                const float level = __fsub_rn(peak, __fmul_rn(255.0F, distance));
                if (level >= 1.0F) atomicMax(&ink_[y * kSoftStride + x], static_cast<unsigned>(fminf(level, 255.0F)));
            }
        }
    }

    // The segment cut to the tile grown by its reach and one pixel (Liang-Barsky), relative to the tile. What is cut off is too
    // far away to cover any pixel, and what is left is short enough for float32; where nothing is left, a dot too far away. Rare,
    // and kept apart so that its 64-bit numbers take no registers from the rest.
    __device__ __attribute__((noinline)) static Segment clipped(SoftPen pen, Segment s) {
        const double x = static_cast<double>(s.x0) - pen.left_, dx = static_cast<double>(s.x1) - static_cast<double>(s.x0);
        const double y = static_cast<double>(s.y0) - pen.top_, dy = static_cast<double>(s.y1) - static_cast<double>(s.y0);
        const double low = -(static_cast<double>(pen.reach_) + 1.0), high_x = pen.width_ - 1 - low,
                     high_y = pen.height_ - 1 - low;
        double enter = 0.0, leave = 1.0;
        if (!cut(-dx, x - low, enter, leave) || !cut(dx, high_x - x, enter, leave) || !cut(-dy, y - low, enter, leave) ||
            !cut(dy, high_y - y, enter, leave) || enter > leave) {
            const float away = 4.0F * static_cast<float>(low);
            return {away, away, away, away};
        }
        return {static_cast<float>(x + enter * dx), static_cast<float>(y + enter * dy), static_cast<float>(x + leave * dx),
                static_cast<float>(y + leave * dy)};
    }

    // One edge: `towards` it goes per unit of t, `distance` is left at t = 0.
    __device__ static bool cut(double towards, double distance, double& enter, double& leave) {
        if (towards == 0.0) return distance >= 0.0;
        const double t = distance / towards;
        if (towards < 0.0) {
            enter = fmax(enter, t);
        } else {
            leave = fmin(leave, t);
        }
        return true;
    }

    unsigned* ink_;
    int left_, top_, width_, height_;
    float reach_;
};

}  // namespace fgsbir::cuda
