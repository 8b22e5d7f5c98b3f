#include "raster_output.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "simd/isa.h"

namespace fgsbir {
namespace {

// Larger outputs are written around the cache: nobody could read all of them from it, and below this it is no faster.
constexpr std::int64_t kStreamBytes = 16 << 20;

std::uint32_t bits_of(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// To float16, nearest even. Values too large become infinite, values too small lose bits as float16 does.
std::uint32_t half_bits(float value) {
    const std::uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7FFFFFFFU;
    if (magnitude >= 0x47800000U) return sign | 0x7C00U;  // 65536 and beyond
    if (magnitude < 0x38800000U) {                        // below 2^-14: whole multiples of 2^-24
        return sign | static_cast<std::uint32_t>(std::lrint(std::ldexp(std::abs(static_cast<double>(value)), 24)));
    }
    const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U);
    return sign | ((rounded - 0x38000000U) >> 13);
}

}  // namespace

const RasterKernels& raster_kernels() {
#ifdef FGSBIR_SIMD_X86
    if (isa() == Isa::avx512) return avx512::raster_kernels;
    if (isa() == Isa::avx2) return avx2::raster_kernels;
#endif
    return baseline::raster_kernels;
}

void refuse_raster(const std::string& what) { throw std::invalid_argument("rasterize: " + what); }

void check_settings(const RasterParams& p) {
    if (!(p.height >= 1 && p.height <= kMaxSide && p.width >= 1 && p.width <= kMaxSide)) {
        refuse_raster("image is " + std::to_string(p.height) + "x" + std::to_string(p.width) + ", expected sides of 1 to " +
                      std::to_string(kMaxSide) + " pixels");
    }
    if (p.style != RasterStyle::bresenham && p.style != RasterStyle::antialias) {
        refuse_raster("style is " + std::to_string(static_cast<int>(p.style)) + ", expected 0 (bresenham) or 1 (antialias)");
    }
    if (p.threads < 1) refuse_raster("threads is " + std::to_string(p.threads) + ", expected 1 or more");
    if (p.style == RasterStyle::antialias && !(p.line_width > 0.0F && p.line_width <= kMaxLineWidth)) {
        refuse_raster("line_width is " + std::to_string(p.line_width) + ", expected more than 0 and at most 10000 pixels");
    }
}

void check_points(const float* points, std::int64_t num_points) {
    bool good = true;
    for (std::int64_t i = 0; i < 2 * num_points; ++i) good &= std::abs(points[i]) <= kMaxCoordinate;  // false for NaN
    if (good) return;
    std::int64_t bad = 0;
    while (std::abs(points[bad]) <= kMaxCoordinate) ++bad;
    refuse_raster("points[" + std::to_string(bad / 2) + "] is not finite or beyond 1e9 pixels; check and recentre the sketch first");
}

OutputTable::OutputTable(const RasterParams& params, PixelFormat format)
    : plane_(static_cast<std::int64_t>(params.height) * params.width), dark_(params.dark) {
    if (format != PixelFormat::bytes && format != PixelFormat::floats && format != PixelFormat::halves) {
        refuse_raster("format is " + std::to_string(static_cast<int>(format)) + ", expected 0 (bytes), 1 (floats) or 2 (halves)");
    }
    planes_ = format == PixelFormat::bytes ? 1 : 3;
    element_ = format == PixelFormat::bytes ? 1 : format == PixelFormat::floats ? 4 : 2;
    row_bytes_ = static_cast<std::int64_t>(params.width) * element_;
    table_.resize(static_cast<std::size_t>(planes_) * 256);
    // Only float16 coverage is looked up for every value; lines need blank and full ink, other coverage is computed.
    const bool all = params.style == RasterStyle::antialias && format == PixelFormat::halves;
    for (std::size_t c = 0; c < static_cast<std::size_t>(planes_); ++c) {
        if (format != PixelFormat::bytes) {
            const double mean = static_cast<double>(params.mean[c]), stddev = static_cast<double>(params.stddev[c]);
            if (!(std::isfinite(mean) && std::isfinite(stddev) && stddev > 0.0)) {
                refuse_raster("mean and stddev of channel " + std::to_string(c) + " are " + std::to_string(mean) + " and " +
                              std::to_string(stddev) + ", expected finite numbers and stddev above 0");
            }
            scale_[c] = static_cast<float>(1.0 / (255.0 * stddev));
            shift_[c] = static_cast<float>(-mean / stddev);
        }
        for (std::uint32_t ink = 0; ink < 256; ink += all ? 1 : 255) {
            const std::uint32_t byte = params.dark ? 255 - ink : ink;
            const float value = static_cast<float>(byte) * scale_[c] + shift_[c];
            table_[256 * c + ink] =
                format == PixelFormat::bytes ? byte : format == PixelFormat::floats ? bits_of(value) : half_bits(value);
        }
    }
}

PixelWriter OutputTable::writer(void* out, std::int64_t index, std::int64_t count) const {
    const std::int64_t image_bytes = plane_ * planes_ * element_;
    const bool aligned = reinterpret_cast<std::uintptr_t>(out) % 64 == 0 && row_bytes_ % 64 == 0;
    PixelWriter w{};
    w.image = static_cast<std::uint8_t*>(out) + index * image_bytes;
    w.plane = plane_;
    w.planes = planes_;
    w.element = element_;
    w.stream = aligned && count * image_bytes >= kStreamBytes;
    w.table = table_.data();
    w.scale = scale_.data();
    w.shift = shift_.data();
    w.dark = dark_;
    return w;
}

}  // namespace fgsbir
