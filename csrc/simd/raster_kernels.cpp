// Hot loops of rasterize_cpu.cpp, compiled once for each instruction set. Everything here has internal linkage, and no header with
// inline functions of external linkage may be included: the linker keeps one copy of those, from whichever set it likes.
//
// All sets give the same bytes: the arithmetic is the same, in the same order, without fused multiply-add (see CMakeLists.txt).
#include "simd/raster_kernels.h"

#include "segment_walk.h"
#include "simd/bit_lines.h"
#include "simd/pixel_rows.h"
#include "simd/soft_lines.h"

namespace fgsbir::FGSBIR_ISA {

extern const RasterKernels raster_kernels;
const RasterKernels raster_kernels = {draw_lines, dilate, write_bits, draw_soft, write_soft};

}  // namespace fgsbir::FGSBIR_ISA
