// A block's tile, and how the block goes through the segments of its sketch.
#pragma once

#include <cstdint>

#include "cuda/launch.cuh"
#include "cuda/raster_launch.h"

namespace fgsbir::cuda {

// The block's part of one image.
struct Tile {
    int sketch;
    int left, top, width, height;
};

__device__ inline Tile tile_of_block(const RasterTask& task) {
    const int of_image = task.tiles_across * task.tiles_down;
    const int block = static_cast<int>(blockIdx.x), place = block % of_image;
    Tile tile;
    tile.sketch = block / of_image;
    tile.left = place % task.tiles_across * kTileWidth;
    tile.top = place / task.tiles_across * task.tile_height;
    tile.width = min(kTileWidth, task.width - tile.left);
    tile.height = min(task.tile_height, task.height - tile.top);
    return tile;
}

// Points of one segment; a dot has both the same.
struct Segment {
    float x0, y0, x1, y1;
};

__device__ inline Segment load_segment(const float* points, int from, int to) {
    return {__ldg(points + 2 * from), __ldg(points + 2 * from + 1), __ldg(points + 2 * to), __ldg(points + 2 * to + 1)};
}

// False for NaN too. Such segments are left out: nobody on the host has looked at them.
__device__ inline bool is_sound(const Segment& s) {
    return fabsf(s.x0) <= kMaxCoordinate && fabsf(s.y0) <= kMaxCoordinate && fabsf(s.x1) <= kMaxCoordinate &&
           fabsf(s.y1) <= kMaxCoordinate;
}

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kChunk = 2048;  // points looked at between two barriers

// Shared memory of draw_sketch.
struct SegmentScan {
    std::int64_t first_stroke, end_stroke, begin, end;  // of the sketch: strokes and points; here, since registers are dearer
    unsigned starts[kChunk / 32 + 1];                // bit i: point i of the chunk, or the one after its last, begins a stroke
    std::uint16_t waiting[kRasterThreads / 32][64];  // of each warp: twice the first point, plus 1 for a dot
};

__device__ inline std::int64_t clamped(std::int64_t value, std::int64_t low, std::int64_t high) {
    return value < low ? low : value > high ? high : value;
}

// Gives every segment of the sketch that may touch the tile to the pen, 32 at a time, one to a lane. Threads test segments
// against the tile in order of their points; each warp gathers those that pass with a ballot and draws when it has a full set, so
// that few lanes are idle however few segments pass. Begins before the pen's canvas may be drawn on, ends when it is complete. A
// batch's offsets are clamped to their arrays: whatever they hold, nothing outside is read.
template <typename Pen>
__device__ void draw_sketch(const SketchBatchView& batch, int sketch, SegmentScan& scan, const Pen& pen) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    std::uint16_t* const waiting = scan.waiting[thread / 32];
    if (thread == 0) {
        scan.first_stroke = clamped(__ldg(batch.sketch_offsets + sketch), 0, batch.num_strokes);
        scan.end_stroke = clamped(__ldg(batch.sketch_offsets + sketch + 1), scan.first_stroke, batch.num_strokes);
        scan.begin = clamped(__ldg(batch.stroke_offsets + scan.first_stroke), 0, batch.num_points);
        scan.end = clamped(__ldg(batch.stroke_offsets + scan.end_stroke), scan.begin, batch.num_points);
    }
    __syncthreads();

    for (std::int64_t chunk = scan.begin; chunk < scan.end; chunk += kChunk) {
        const bool is_last = scan.end - chunk <= kChunk;
        const int count = is_last ? static_cast<int>(scan.end - chunk) : kChunk;
        const float* const points = batch.points + 2 * chunk;
        for (int i = thread; i <= kChunk / 32; i += kRasterThreads) scan.starts[i] = 0;
        __syncthreads();
        for (std::int64_t s = scan.first_stroke + thread; s < scan.end_stroke; s += kRasterThreads) {
            const std::int64_t start = __ldg(batch.stroke_offsets + s) - chunk;
            if (start >= 0 && start <= count) atomicOr(&scan.starts[start / 32], 1U << (start % 32));
        }
        __syncthreads();
        const auto begins = [&](int i) { return (scan.starts[i / 32] >> (i % 32) & 1U) != 0; };

        int queued = 0;
        for (int base = thread - lane; base < count; base += kRasterThreads) {  // the same for all lanes
            const int i = base + lane;
            bool passes = false, dot = false;
            if (i < count) {
                const bool last = (is_last && i + 1 == count) || begins(i + 1);
                dot = last && begins(i);
                if (!last || dot) {
                    const Segment segment = load_segment(points, i, dot ? i : i + 1);
                    passes = is_sound(segment) && pen.may_touch(segment);
                }
            }
            const unsigned passing = __ballot_sync(kAllLanes, passes);
            if (passes) {
                waiting[queued + __popc(passing & ((1U << lane) - 1U))] = static_cast<std::uint16_t>(2 * i + (dot ? 1 : 0));
            }
            queued += __popc(passing);
            const bool is_end = base + kRasterThreads >= count;
            while (queued >= 32 || (is_end && queued > 0)) {
                __syncwarp();
                const int taken = min(queued, 32);
                queued -= taken;
                Segment segment{};
                if (lane < taken) {
                    const int entry = waiting[queued + lane];
                    segment = load_segment(points, entry / 2, entry / 2 + 1 - entry % 2);
                }
                pen.draw(segment, lane < taken);
                __syncwarp();
            }
        }
        __syncthreads();  // all are through with this chunk's strokes
    }
    __syncthreads();  // before the canvas is read; where there is no point, after it was cleared
}

}  // namespace fgsbir::cuda
