#include "rasterize_cuda.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "cuda/launch.cuh"
#include "cuda/raster_launch.h"
#include "raster_output.h"

namespace fgsbir {
namespace cuda {

RasterTask make_raster_task(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out) {
    check_settings(params);
    const OutputTable table(params, format);
    const PixelWriter writer = table.writer(out, 0, 1);
    const auto address = reinterpret_cast<std::uintptr_t>(out);
    const auto element = static_cast<std::uintptr_t>(writer.element);
    if (address % element != 0) refuse_raster("out is not aligned to its elements");

    RasterTask task{};
    task.sketches = sketches;
    task.out = out;
    task.height = params.height;
    task.width = params.width;
    task.reach = 0.5F + 0.5F * params.line_width;
    std::copy_n(writer.scale, 3, task.scale);
    std::copy_n(writer.shift, 3, task.shift);
    task.flip = params.dark ? ~0U : 0U;
    task.aligned = address % 16 == 0 && static_cast<std::uintptr_t>(params.width) * element % 16 == 0 ? 1 : 0;
    return task;
}

unsigned lay_out_tiles(RasterTask& task, int tile_height) {
    task.tile_height = std::min(tile_height, task.height);
    task.tiles_across = (task.width + kTileWidth - 1) / kTileWidth;
    task.tiles_down = (task.height + task.tile_height - 1) / task.tile_height;
    const std::int64_t of_image = std::int64_t{task.tiles_across} * task.tiles_down;
    const std::int64_t most = std::numeric_limits<std::int32_t>::max() / of_image;
    if (task.sketches.num_sketches > most) {
        throw std::invalid_argument("rasterize_cuda: " + std::to_string(task.sketches.num_sketches) +
                                    " sketches, expected at most " + std::to_string(most) +
                                    " of this image size; draw them in several calls");
    }
    return static_cast<unsigned>(task.sketches.num_sketches * of_image);
}

int choose_tile_height(const RasterTask& task, RasterStyle style, int multiprocessors) {
    constexpr int kLeast = 16, kTilesEach = 4;
    int height = style == RasterStyle::bresenham ? kBitTileHeight : kSoftTileHeight;
    const auto tiles = [&] {
        const std::int64_t across = (task.width + kTileWidth - 1) / kTileWidth, down = (task.height + height - 1) / height;
        return task.sketches.num_sketches * across * down;
    };
    while (height > kLeast && tiles() < std::int64_t{kTilesEach} * multiprocessors) height /= 2;
    return height;
}

}  // namespace cuda

void rasterize_cuda(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out, void* stream) {
    cuda::RasterTask task = cuda::make_raster_task(sketches, params, format, out);
    if (sketches.num_sketches == 0) return;
    int device = 0, multiprocessors = 0;
    cuda::check(cudaGetDevice(&device), "rasterize_cuda");
    cuda::check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "rasterize_cuda");
    const unsigned blocks = cuda::lay_out_tiles(task, cuda::choose_tile_height(task, params.style, multiprocessors));
    cuda::launch_raster(task, params.style, format, blocks, static_cast<cudaStream_t>(stream));
}

}  // namespace fgsbir
