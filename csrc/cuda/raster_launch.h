// What the raster kernels are given. Plain C++, shared by the host code and the kernels.
#pragma once

#include <cstdint>

#include "rasterize.h"

struct CUstream_st;

namespace fgsbir::cuda {

constexpr int kRasterThreads = 256;
constexpr int kTileWidth = 256;      // pixels; rows of a bitmap are whole words
constexpr int kBitTileHeight = 256;  // at most: 10 KiB of shared memory
constexpr int kSoftTileHeight = 32;  // at most: 33 KiB of shared memory

struct RasterTask {
    SketchBatchView sketches;  // device pointers
    void* out;
    int height, width;             // of an image, pixels
    int tile_height;               // a tile is kTileWidth x tile_height, cut at the image's border
    int tiles_across, tiles_down;  // of an image
    float reach;                   // distance at which coverage ends, pixels
    float scale[3], shift[3];      // byte * scale + shift is what float formats hold
    unsigned flip;                 // 0, or 0xffffffff for dark ink
    int aligned;                   // 1: every row of every tile and plane starts at a multiple of 16 bytes and ends at one
};

// Fills in the tile fields for tiles of at most `tile_height` rows. Returns the number of blocks; throws std::invalid_argument for
// more than 2^31 - 1.
unsigned lay_out_tiles(RasterTask& task, int tile_height);

// Tiles as high as the style allows; lower ones where they would keep fewer than four of them on each multiprocessor.
int choose_tile_height(const RasterTask& task, RasterStyle style, int multiprocessors);

// Checks the settings and fills in all but the tiles.
RasterTask make_raster_task(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out);

// One kernel on the current device. Throws Error.
void launch_raster(const RasterTask& task, RasterStyle style, PixelFormat format, unsigned blocks, CUstream_st* stream);

}  // namespace fgsbir::cuda
