// Bresenham style: a tile as a bitmap in shared memory, and its dilation by the 3x3 cross.
#pragma once

#include "cuda/raster_task.cuh"
#include "segment_walk.h"

namespace fgsbir::cuda {

constexpr int kBitStride = kTileWidth / 32 + 2;  // words of a row: the tile's, and one on either side for the pixels next to it
constexpr int kWalkAlone = 32;                   // pixels that one lane walks; longer segments are shared by the warp

class BitPen {
  public:
    // `words` [(height + 2) * kBitStride] of shared memory; row 0 and the last row are the pixels above and below the tile.
    __device__ BitPen(const RasterTask& task, const Tile& tile, unsigned* words)
        : words_(words),
          left_(tile.left),
          top_(tile.top),
          rows_(tile.height + 2),
          // Row 0 and column 0 of the image are never drawn; one pixel around the tile is needed by the dilation.
          first_x_(max(1, tile.left - 1)),
          last_x_(min(task.width - 1, tile.left + tile.width)),
          first_y_(max(1, tile.top - 1)),
          last_y_(min(task.height - 1, tile.top + tile.height)) {}

    static std::size_t shared_bytes(int tile_height) {
        return static_cast<std::size_t>(tile_height + 2) * kBitStride * sizeof(unsigned);
    }

    __device__ void clear() const {
        for (int i = static_cast<int>(threadIdx.x); i < rows_ * kBitStride; i += kRasterThreads) words_[i] = 0;
    }

    __device__ bool may_touch(const Segment& s) const {
        const int x0 = __float2int_rn(s.x0), x1 = __float2int_rn(s.x1), y0 = __float2int_rn(s.y0), y1 = __float2int_rn(s.y1);
        return max(x0, x1) >= first_x_ && min(x0, x1) <= last_x_ && max(y0, y1) >= first_y_ && min(y0, y1) <= last_y_;
    }

    // All lanes call; those with `mine` have a segment. A lane walks a short segment alone. Long ones are taken one after the
    // other by the whole warp, each lane computing where its pixels lie: otherwise 31 lanes would wait for the longest walk.
    __device__ void draw(const Segment& s, bool mine) const {
        const float reach = fmaxf(fmaxf(fabsf(s.x0), fabsf(s.x1)), fmaxf(fabsf(s.y0), fabsf(s.y1)));
        const bool is_near = reach <= static_cast<float>(kSmallCoordinate);
        SegmentWalkOf<int> walk{};
        if (mine && is_near) {
            if (!cut(s, walk)) walk.count = 0;
        }
        if (mine && !is_near) draw_far(*this, s);
        const bool is_long = walk.count > kWalkAlone;
        if (!is_long) follow(walk);
        for (unsigned left = __ballot_sync(kAllLanes, is_long); left != 0; left &= left - 1) {
            share(walk, __ffs(static_cast<int>(left)) - 1);
        }
    }

    // 32 pixels of the tile's row after the dilation, columns 32 * (word - 1) on.
    __device__ unsigned dilated(int row, int word) const {
        const unsigned* centre = words_ + (row + 1) * kBitStride + word;
        const unsigned c = centre[0];
        return c | c << 1 | centre[-1] >> 31 | c >> 1 | centre[1] << 31 | centre[-kBitStride] | centre[kBitStride];
    }

    // Ink of N = 4, 8 or 16 pixels of a row from column x on, all in the tile; byte i of the words is pixel i.
    template <int N>
    __device__ void inks(int row, int x, unsigned (&words)[N / 4]) const {
        const int word = x / 32 + 1, shift = x % 32;
        unsigned bits = dilated(row, word) >> shift;
        if (shift + N > 32) bits |= dilated(row, word + 1) << (32 - shift);
        for (int i = 0; i < N / 4; ++i) words[i] = ((bits >> (4 * i) & 15U) * 0x00204081U & 0x01010101U) * 255U;
    }

    __device__ unsigned ink(int row, int x) const { return (dilated(row, x / 32 + 1) >> (x % 32) & 1U) * 255U; }

  private:
    __device__ void plot(int x, int y) const {
        const int column = x - left_ + 32;
        atomicOr(&words_[(y - top_ + 1) * kBitStride + column / 32], 1U << (column % 32));
    }

    template <typename Int>
    __device__ bool cut(const Segment& s, SegmentWalkOf<Int>& walk) const {
        return clip_segment(__float2int_rn(s.x0), __float2int_rn(s.y0), __float2int_rn(s.x1), __float2int_rn(s.y1), first_x_,
                            first_y_, last_x_, last_y_, walk);
    }

    template <typename Int>
    __device__ void follow(SegmentWalkOf<Int> walk) const {
        for (; walk.count > 0; --walk.count) {
            plot(walk.x_is_major ? walk.major : walk.minor, walk.x_is_major ? walk.minor : walk.major);
            if (walk.decision >= 0) {
                walk.minor += walk.minor_step;
                walk.decision -= walk.twice_major;
            }
            walk.decision += walk.twice_minor;
            walk.major += walk.major_step;
        }
    }

    // Rare, and kept apart so that its 64-bit numbers take no registers from the rest.
    __device__ __attribute__((noinline)) static void draw_far(BitPen pen, Segment s) {
        SegmentWalk walk{};
        if (pen.cut(s, walk)) pen.follow(walk);
    }

    // Pixel k of a walk lies floor((decision + 2m (k - 1) + 2M) / 2M) minor steps from its first.
    __device__ void share(const SegmentWalkOf<int>& own, int source) const {
        const bool x_is_major = __shfl_sync(kAllLanes, static_cast<int>(own.x_is_major), source) != 0;
        const int major = __shfl_sync(kAllLanes, own.major, source), minor = __shfl_sync(kAllLanes, own.minor, source);
        const int major_step = __shfl_sync(kAllLanes, own.major_step, source);
        const int minor_step = __shfl_sync(kAllLanes, own.minor_step, source);
        const int count = __shfl_sync(kAllLanes, own.count, source);
        const int twice_major = __shfl_sync(kAllLanes, own.twice_major, source);
        const int twice_minor = __shfl_sync(kAllLanes, own.twice_minor, source);
        const int start = __shfl_sync(kAllLanes, own.decision, source) - twice_minor + twice_major;
        for (int k = static_cast<int>(threadIdx.x % 32); k < count; k += 32) {  // at most 258 times 32764
            const int steps =
                static_cast<int>(static_cast<unsigned>(start + twice_minor * k) / static_cast<unsigned>(twice_major));
            const int a = major + major_step * k, b = minor + minor_step * steps;
            plot(x_is_major ? a : b, x_is_major ? b : a);
        }
    }

    unsigned* words_;
    int left_, top_, rows_;
    int first_x_, last_x_, first_y_, last_y_;  // pixels that may be drawn
};

}  // namespace fgsbir::cuda
