// The raster kernels: one for each style and format.
//
// A block of 256 threads owns one tile of one image, up to 256 columns wide, from a blank canvas in shared memory to the last
// store. It reads its sketch's points and offsets (8 bytes a point, from L2 after the first tile of a sketch), finds the segments
// that touch the tile (raster_task.cuh), draws them with shared-memory atomics, waits, and writes each output byte once. There is
// no workspace, no global atomic and no second launch; the order of drawing cannot matter, since pixels are combined by OR or
// MAX: the result is the same from run to run.
//
// Why these tiles. At B = 4096, 256x256 bytes, an H200 (132 SMs, 4.8 TB/s, 1.7 GHz) at full write bandwidth takes 56 us for 268
// MB, that is 3,100 cycles of an SM for each image; half of that bandwidth leaves 6,200. By count of instructions, an average
// chair sketch (103 segments, 1,284 pixels) costs a block about 1,000 warp instructions to find and cut segments, 4,000 to draw
// (four warps for some 60 divergent steps of about 15), and 4,096 groups of 16 bytes times about 40 to dilate, expand and store:
// 5,000. Together about 10,000 warp instructions, 2,500 cycles at four a cycle: the stores should be the longer side, if enough
// blocks are resident to hide the latency of four dependent loads at their start. So a tile of a full batch is the whole 256x256
// image (10 KiB of bits; registers allow six blocks an SM), and nothing is looked at twice. Antialiasing keeps a word for each
// pixel, so its tiles are 256x32 (33 KiB, six blocks an SM on H200, four on Orin).
//
// A single sketch wants the opposite: one SM stores 64 bytes a cycle at best, 12,000 cycles (9 us on Orin) for 3x256x256 floats.
// With few images tiles are halved in height until every SM has four, or 16 rows are left; each of them looks through all points
// again, which is a load and a comparison for each. These are estimates from counts, not measurements.
//
// Limits: 2^31 - 1 tiles in a batch. Sides up to 32768; sketches of any number of points.
#include "cuda/raster_bits.cuh"
#include "cuda/raster_launch.h"
#include "cuda/raster_soft.cuh"
#include "cuda/raster_write.cuh"

namespace fgsbir::cuda {
namespace {

// Registers enough for six blocks on a multiprocessor, which is all that Orin can hold of them and three quarters of what H200
// can.
constexpr int kBlocksResident = 6;

template <typename Pen, typename Format>
__global__ void __launch_bounds__(kRasterThreads, kBlocksResident) raster_kernel(const __grid_constant__ RasterTask task) {
    FGSBIR_SHARED(SegmentScan, scan);
    FGSBIR_DYNAMIC_SHARED(unsigned, canvas);
    const Tile tile = tile_of_block(task);
    const Pen pen(task, tile, canvas);
    pen.clear();
    draw_sketch(task.sketches, tile.sketch, scan, pen);
    write_tile<Format>(task, tile, pen);
}

template <typename Pen>
void launch_as(const RasterTask& task, PixelFormat format, unsigned blocks, cudaStream_t stream) {
    const std::size_t shared = Pen::shared_bytes(task.tile_height);
    const auto start = [&](void (*kernel)(RasterTask)) {
        launch("rasterize_cuda", kernel, dim3(blocks), dim3(kRasterThreads), shared, stream, task);
    };
    if (format == PixelFormat::bytes) {
        start(raster_kernel<Pen, ByteFormat>);
    } else if (format == PixelFormat::floats) {
        start(raster_kernel<Pen, FloatFormat>);
    } else {
        start(raster_kernel<Pen, HalfFormat>);
    }
}

}  // namespace

void launch_raster(const RasterTask& task, RasterStyle style, PixelFormat format, unsigned blocks, cudaStream_t stream) {
    if (style == RasterStyle::bresenham) {
        launch_as<BitPen>(task, format, blocks, stream);
    } else {
        launch_as<SoftPen>(task, format, blocks, stream);
    }
}

}  // namespace fgsbir::cuda
