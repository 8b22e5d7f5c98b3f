// What the rasteriser writes: checks of its settings, and ink values as output elements.
#pragma once

#include <cstdint>
#include <vector>

#include "rasterize.h"
#include "simd/raster_kernels.h"

namespace fgsbir {

// The kernels for this processor.
const RasterKernels& raster_kernels();

// Throw std::invalid_argument.
void check_settings(const RasterParams& params);
void check_points(const float* points, std::int64_t num_points);
[[noreturn]] void refuse_raster(const std::string& what);

// Ink to elements of one format. Holds what PixelWriter points at.
class OutputTable {
  public:
    // Throws std::invalid_argument on an unknown format, or on mean and stddev that are not finite or not above 0.
    OutputTable(const RasterParams& params, PixelFormat format);

    // A writer for image `index` of the array `out` of `count` images.
    PixelWriter writer(void* out, std::int64_t index, std::int64_t count) const;

  private:
    std::vector<std::uint32_t> table_;  // [planes, 256]
    std::array<float, 3> scale_{}, shift_{};
    std::int64_t plane_, row_bytes_;
    int planes_, element_;
    bool dark_;
};

}  // namespace fgsbir
