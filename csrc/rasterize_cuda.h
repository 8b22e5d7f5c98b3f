// Vector sketches in device memory to pixels in device memory.
#pragma once

#include "cuda/error.h"
#include "rasterize.h"

namespace fgsbir {

// As rasterize(), with every pointer of `sketches` and `out` in the current device's memory. `stream` is a cudaStream_t, or
// nullptr for the default stream. Returns as soon as the work is in the stream: one kernel launch, no other allocation or copy.
//
// Bresenham images are bit for bit rasterize()'s, antialiased ones within one level of 255; float formats hold the same function
// of the ink. The result is the same from run to run and for any number of sketches in the batch.
//
// The host cannot look at the data without waiting for the device, so offsets are clamped to their arrays and segments with a
// coordinate that is not finite or beyond kMaxCoordinate are left out, where rasterize() throws. check_sketches_cuda() looks.
// `params.threads` is not used. `out` must be aligned to its element; where it is aligned to 16 bytes and the width is a multiple
// of 16 (bytes), 8 (halves) or 4 (floats), all stores are 16 bytes wide.
//
// Throws std::invalid_argument on bad settings, cuda::Error (cuda/error.h) when CUDA refuses.
void rasterize_cuda(const SketchBatchView& sketches, const RasterParams& params, PixelFormat format, void* out, void* stream);

// What rasterize() checks of a batch, looked at on the device; waits for the stream. Throws std::invalid_argument that names the
// first fault of the first of: sketch_offsets, stroke_offsets, points. Throws cuda::Error.
void check_sketches_cuda(const SketchBatchView& sketches, void* stream);

}  // namespace fgsbir
