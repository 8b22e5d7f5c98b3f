// Pens: canvases of the two styles with the memory behind them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "rasterize.h"
#include "simd/raster_kernels.h"

namespace fgsbir {

// Both pens: stroke() draws n >= 1 points as a polyline, write() gives the image so far, reset() makes the canvas blank again.
// A pen may be set up anew for another size; it is blank then.

class BitPen {
  public:
    void set_up(const RasterParams& params, const RasterKernels& kernels) {
        if (canvas_.width != params.width || canvas_.height != params.height) {
            const std::int64_t stride = (params.width + 63) / 64 + 1, count = (params.height + 2) * stride + 2;
            const auto words = static_cast<std::size_t>(count);
            memory_.assign(words, 0);
            grown_.assign(words, 0);
            origin_ = 1 + stride;
            canvas_ = {memory_.data() + origin_, static_cast<std::ptrdiff_t>(stride), params.width, params.height, params.height, -1};
            top_ = params.height;
            bottom_ = -1;
        }
        kernels_ = &kernels;
    }

    void stroke(const float* points, std::int64_t n) { kernels_->draw_lines(canvas_, points, n); }

    void write(const PixelWriter& writer) {
        grow();
        // The dilation reaches one row further than the lines.
        const int top = std::max(0, top_ - 1), bottom = std::min(canvas_.height - 1, bottom_ + 1);
        const bool blank = top_ > bottom_;
        kernels_->write_bits(canvas_, grown_.data() + origin_, blank ? 0 : top, blank ? -1 : bottom, writer);
    }

    void reset() {
        include(canvas_.top, canvas_.bottom);
        if (top_ <= bottom_) {
            std::fill(canvas_.bits + top_ * canvas_.stride, canvas_.bits + (bottom_ + 1) * canvas_.stride, std::uint64_t{0});
        }
        top_ = canvas_.top = canvas_.height;
        bottom_ = canvas_.bottom = -1;
    }

    std::size_t bytes() const { return 8 * (memory_.capacity() + grown_.capacity()); }

  private:
    void include(int top, int bottom) {
        top_ = std::min(top_, top);
        bottom_ = std::max(bottom_, bottom);
    }

    // Dilates the rows drawn on since the last time, and those between them and the rows dilated before, which may hold old bits.
    void grow() {
        if (canvas_.top > canvas_.bottom) return;
        int first = canvas_.top, last = canvas_.bottom;
        if (top_ <= bottom_) {
            if (first > bottom_) first = bottom_ + 1;
            if (last < top_) last = top_ - 1;
        }
        include(canvas_.top, canvas_.bottom);
        canvas_.top = canvas_.height;
        canvas_.bottom = -1;
        first = std::max(0, first - 1);
        last = std::min(canvas_.height - 1, last + 1);
        kernels_->dilate(canvas_, grown_.data() + origin_, first * canvas_.stride, (last + 1) * canvas_.stride);
    }

    std::vector<std::uint64_t> memory_, grown_;
    std::ptrdiff_t origin_ = 0;   // word of pixel (0, 0) in both
    BitCanvas canvas_{};          // its top and bottom: the rows drawn on since the last write
    int top_ = 0, bottom_ = -1;   // the rows drawn on before
    const RasterKernels* kernels_ = nullptr;
};

class SoftPen {
  public:
    void set_up(const RasterParams& params, const RasterKernels& kernels) {
        if (canvas_.width != params.width || canvas_.height != params.height) {
            const std::int64_t stride = (params.width + 63) / 64 * 64 + 64;
            memory_.assign(static_cast<std::size_t>(stride * (params.height + 3)), 0);
            canvas_ = {memory_.data(), static_cast<std::ptrdiff_t>(stride), params.width, params.height, params.height, -1, 0.0F};
        }
        canvas_.reach = 0.5F + 0.5F * params.line_width;
        kernels_ = &kernels;
    }

    void stroke(const float* points, std::int64_t n) { kernels_->draw_soft(canvas_, points, n); }
    void write(const PixelWriter& writer) { kernels_->write_soft(canvas_, writer, false); }
    void write_and_reset(const PixelWriter& writer) { kernels_->write_soft(canvas_, writer, true); }

    void reset() {
        if (canvas_.top <= canvas_.bottom) {
            std::fill(canvas_.ink + canvas_.top * canvas_.stride, canvas_.ink + (canvas_.bottom + 1) * canvas_.stride, std::uint8_t{0});
        }
        canvas_.top = canvas_.height;
        canvas_.bottom = -1;
    }

    std::size_t bytes() const { return memory_.capacity(); }

  private:
    std::vector<std::uint8_t> memory_;
    SoftCanvas canvas_{};
    const RasterKernels* kernels_ = nullptr;
};

}  // namespace fgsbir
