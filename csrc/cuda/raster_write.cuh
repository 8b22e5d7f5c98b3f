// A finished tile to global memory: ink as output elements, 16 bytes a store.
#pragma once

#include <cuda_fp16.h>

#include "cuda/raster_task.cuh"

namespace fgsbir::cuda {

// Elements of a format: how many of them a 16-byte store holds, and how ink (a byte, or four in a word) becomes them.
struct ByteFormat {
    using Element = std::uint8_t;
    static constexpr int kPlanes = 1, kGroup = 16;

    __device__ static uint4 group(const RasterTask& task, int, const unsigned (&ink)[4]) {
        return make_uint4(ink[0] ^ task.flip, ink[1] ^ task.flip, ink[2] ^ task.flip, ink[3] ^ task.flip);  // v ^ 255 is 255 - v
    }
    __device__ static Element one(const RasterTask& task, int, unsigned ink) {
        return static_cast<Element>((ink ^ task.flip) & 255U);
    }
};

// byte * scale + shift, not fused: the CPU's bits.
__device__ inline float normalised(const RasterTask& task, int plane, unsigned ink) {
    return __fadd_rn(__fmul_rn(static_cast<float>((ink ^ task.flip) & 255U), task.scale[plane]), task.shift[plane]);
}

struct FloatFormat {
    using Element = float;
    static constexpr int kPlanes = 3, kGroup = 4;

    __device__ static uint4 group(const RasterTask& task, int plane, const unsigned (&ink)[1]) {
        const auto bits = [&](int i) { return __float_as_uint(normalised(task, plane, ink[0] >> (8 * i))); };
        return make_uint4(bits(0), bits(1), bits(2), bits(3));
    }
    __device__ static Element one(const RasterTask& task, int plane, unsigned ink) { return normalised(task, plane, ink); }
};

struct HalfFormat {
    using Element = std::uint16_t;
    static constexpr int kPlanes = 3, kGroup = 8;

    __device__ static uint4 group(const RasterTask& task, int plane, const unsigned (&ink)[2]) {
        const auto pair = [&](int i) {
            const unsigned low = one(task, plane, ink[i / 2] >> (16 * (i % 2)));
            const unsigned high = one(task, plane, ink[i / 2] >> (16 * (i % 2) + 8));
            return low | high << 16;
        };
        return make_uint4(pair(0), pair(1), pair(2), pair(3));
    }
    __device__ static Element one(const RasterTask& task, int plane, unsigned ink) {
        return __half_as_ushort(__float2half_rn(normalised(task, plane, ink)));
    }
};

// Writes every pixel of the tile once, in all planes. Neighbouring threads write neighbouring 16 bytes.
template <typename Format, typename Pen>
__device__ void write_tile(const RasterTask& task, const Tile& tile, const Pen& pen) {
    using Element = typename Format::Element;
    constexpr int kGroup = Format::kGroup;
    const auto width = static_cast<std::size_t>(task.width), plane = width * static_cast<std::size_t>(task.height);
    Element* const image = static_cast<Element*>(task.out) + static_cast<std::size_t>(tile.sketch) * Format::kPlanes * plane +
                           static_cast<std::size_t>(tile.top) * width + static_cast<std::size_t>(tile.left);
    const int thread = static_cast<int>(threadIdx.x);

    if (task.aligned != 0) {  // no group crosses the end of a row
        const int per_row = tile.width / kGroup;
        const int rows_on = kRasterThreads / per_row, columns_on = kRasterThreads % per_row;
        int row = thread / per_row, column = thread % per_row;
        while (row < tile.height) {
            unsigned ink[kGroup / 4];
            pen.template inks<kGroup>(row, column * kGroup, ink);
            Element* const target = image + static_cast<std::size_t>(row) * width + column * kGroup;
            for (int p = 0; p < Format::kPlanes; ++p) {
                *reinterpret_cast<uint4*>(target + static_cast<std::size_t>(p) * plane) = Format::group(task, p, ink);
            }
            row += rows_on;
            column += columns_on;
            if (column >= per_row) {
                column -= per_row;
                ++row;
            }
        }
        return;
    }

    // Rows start anywhere: groups are cut where memory is aligned, and the pieces at both ends of a row go out element by
    // element.
    const int per_row = (tile.width + kGroup - 1) / kGroup + 1;
    for (int p = 0; p < Format::kPlanes; ++p) {
        for (int i = thread; i < per_row * tile.height; i += kRasterThreads) {
            const int row = i / per_row;
            Element* const target = image + static_cast<std::size_t>(p) * plane + static_cast<std::size_t>(row) * width;
            const auto skew = static_cast<int>(reinterpret_cast<std::uintptr_t>(target) / sizeof(Element) % kGroup);
            const int from = i % per_row * kGroup - skew, first = max(from, 0), last = min(from + kGroup, tile.width);
            if (last - first == kGroup) {
                unsigned ink[kGroup / 4];
                pen.template inks<kGroup>(row, first, ink);
                *reinterpret_cast<uint4*>(target + first) = Format::group(task, p, ink);
            } else {
                for (int x = first; x < last; ++x) target[x] = Format::one(task, p, pen.ink(row, x));
            }
        }
    }
}

}  // namespace fgsbir::cuda
