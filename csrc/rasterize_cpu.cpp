#include "rasterize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"

namespace fgsbir {
namespace {

// ---------------------------------------------------------------------------------------------------------------------------
// Checks

void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument("rasterize: " + message);
}

void check_offsets(const std::int64_t* offsets, std::int64_t count, std::int64_t end, const char* name) {
    require(offsets[0] == 0, std::string(name) + "[0] is " + std::to_string(offsets[0]) + ", expected 0");
    for (std::int64_t i = 0; i < count; ++i) {
        require(offsets[i] <= offsets[i + 1], std::string(name) + " falls at index " + std::to_string(i + 1) +
                                                  "; offsets must never decrease");
    }
    require(offsets[count] == end, std::string(name) + " ends at " + std::to_string(offsets[count]) + ", expected " +
                                       std::to_string(end) + ", the number of items it indexes");
}

void check(const SketchBatchView& sketches, const RasterParams& params) {
    require(params.height >= 1 && params.height <= kMaxSide && params.width >= 1 && params.width <= kMaxSide,
            "image is " + std::to_string(params.height) + "x" + std::to_string(params.width) + ", expected sides of 1 to " +
                std::to_string(kMaxSide) + " pixels");
    require(params.style == RasterStyle::bresenham || params.style == RasterStyle::antialias,
            "style is " + std::to_string(static_cast<int>(params.style)) + ", expected 0 (bresenham) or 1 (antialias)");
    require(params.threads >= 1, "threads is " + std::to_string(params.threads) + ", expected 1 or more");
    if (params.style == RasterStyle::antialias) {
        require(params.line_width > 0.0F && params.line_width <= kMaxLineWidth,
                "line_width is " + std::to_string(params.line_width) + ", expected more than 0 and at most 10000 pixels");
    }
    check_offsets(sketches.sketch_offsets, sketches.num_sketches, sketches.num_strokes, "sketch_offsets");
    check_offsets(sketches.stroke_offsets, sketches.num_strokes, sketches.num_points, "stroke_offsets");
    for (std::int64_t i = 0; i < 2 * sketches.num_points; ++i) {
        // NaN fails this comparison too.
        require(std::abs(sketches.points[i]) <= kMaxCoordinate,
                "points[" + std::to_string(i / 2) + "] is not finite or beyond 1e9 pixels; check and recentre the sketch first");
    }
}

void check_normalisation(const RasterParams& params) {
    for (std::size_t c = 0; c < 3; ++c) {
        require(std::isfinite(params.mean[c]) && std::isfinite(params.stddev[c]) && params.stddev[c] > 0.0F,
                "mean and stddev of channel " + std::to_string(c) + " are " + std::to_string(params.mean[c]) + " and " +
                    std::to_string(params.stddev[c]) + ", expected finite numbers and stddev above 0");
    }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Where ink values go. A sink takes one row of ink for the columns [x0, x1) and knows what an untouched pixel looks like.

class ByteSink {
  public:
    ByteSink(const RasterParams& params, std::uint8_t* out)
        : width_(static_cast<std::size_t>(params.width)),
          plane_(width_ * static_cast<std::size_t>(params.height)),
          flip_(params.dark ? 255 : 0),
          out_(out) {}

    void select(std::int64_t sketch) { image_ = out_ + static_cast<std::size_t>(sketch) * plane_; }

    void row(int y, int x0, int x1, const std::uint8_t* ink) const {
        std::uint8_t* target = image_ + static_cast<std::size_t>(y) * width_;
        std::fill(target, target + x0, flip_);
        for (int x = x0; x < x1; ++x) target[x] = static_cast<std::uint8_t>(ink[x] ^ flip_);  // v ^ 255 is 255 - v
        std::fill(target + x1, target + width_, flip_);
    }

    void blank_rows(int y0, int y1) const {
        std::fill(image_ + static_cast<std::size_t>(y0) * width_, image_ + static_cast<std::size_t>(y1) * width_, flip_);
    }

  private:
    std::size_t width_, plane_;
    std::uint8_t flip_;
    std::uint8_t* out_;
    std::uint8_t* image_ = nullptr;
};

class FloatSink {
  public:
    FloatSink(const RasterParams& params, float* out)
        : width_(static_cast<std::size_t>(params.width)),
          plane_(width_ * static_cast<std::size_t>(params.height)),
          out_(out) {
        for (std::size_t c = 0; c < 3; ++c) {
            for (std::size_t v = 0; v < 256; ++v) {
                const auto byte = static_cast<float>(params.dark ? 255 - v : v);
                table_[c][v] = (byte / 255.0F - params.mean[c]) / params.stddev[c];
            }
        }
    }

    void select(std::int64_t sketch) { image_ = out_ + static_cast<std::size_t>(sketch) * 3 * plane_; }

    void row(int y, int x0, int x1, const std::uint8_t* ink) const {
        for (std::size_t c = 0; c < 3; ++c) {
            float* target = image_ + c * plane_ + static_cast<std::size_t>(y) * width_;
            std::fill(target, target + x0, table_[c][0]);
            for (int x = x0; x < x1; ++x) target[x] = table_[c][ink[x]];
            std::fill(target + x1, target + width_, table_[c][0]);
        }
    }

    void blank_rows(int y0, int y1) const {
        for (std::size_t c = 0; c < 3; ++c) {
            float* target = image_ + c * plane_;
            std::fill(target + static_cast<std::size_t>(y0) * width_, target + static_cast<std::size_t>(y1) * width_,
                      table_[c][0]);
        }
    }

  private:
    std::size_t width_, plane_;
    std::array<std::array<float, 256>, 3> table_{};
    float* out_;
    float* image_ = nullptr;
};

// ---------------------------------------------------------------------------------------------------------------------------
// Drawing. A pen draws segments on its own canvas, remembers the box it touched, and hands that box over row by row.

// Pixels [x0, x1) x [y0, y1) that may hold ink.
struct Box {
    int x0 = std::numeric_limits<int>::max(), y0 = std::numeric_limits<int>::max(), x1 = 0, y1 = 0;

    void include(int left, int top, int right, int bottom) {  // right and bottom are still inside
        x0 = std::min(x0, left);
        y0 = std::min(y0, top);
        x1 = std::max(x1, right + 1);
        y1 = std::max(y1, bottom + 1);
    }
    bool empty() const { return x1 <= x0; }
};

// One axis of an integer segment: `length` unit steps from `start` in the direction `sign`.
struct Axis {
    std::int64_t start, length;
    int sign;

    Axis(std::int64_t from, std::int64_t to) : start(from), length(std::abs(to - from)), sign(to < from ? -1 : 1) {}

    std::int64_t at(std::int64_t step) const { return start + sign * step; }

    // First and last step (possibly an empty range) whose coordinate lies in [1, side - 1].
    std::int64_t first_inside(int side) const { return std::max<std::int64_t>(0, sign > 0 ? 1 - start : start - (side - 1)); }
    std::int64_t last_inside(int side) const { return std::min(length, sign > 0 ? side - 1 - start : start - 1); }
};

// The papers' integer segments and cross dilation (METHODS: direction-dependent Bresenham; row 0 and column 0 never drawn).
class BresenhamPen {
  public:
    explicit BresenhamPen(const RasterParams& params)
        : width_(params.width),
          height_(params.height),
          stride_(params.width + 2),
          mask_(static_cast<std::size_t>(stride_) * static_cast<std::size_t>(height_ + 2)),
          ink_(static_cast<std::size_t>(width_)) {}

    // Both ends are drawn. llrint rounds half to even in the default rounding mode.
    void segment(const float* from, const float* to) {
        const Axis x(std::llrint(from[0]), std::llrint(to[0]));
        const Axis y(std::llrint(from[1]), std::llrint(to[1]));
        if (x.length > y.length) {
            walk(x, width_, 1, y, height_, stride_, true);
        } else {
            walk(y, height_, stride_, x, width_, 1, false);
        }
    }

    template <typename Sink>
    void hand_over(const Sink& sink) {
        if (box_.empty()) {
            sink.blank_rows(0, height_);
            return;
        }
        // The dilation reaches one pixel further.
        const int x0 = std::max(0, box_.x0 - 1), x1 = std::min(width_, box_.x1 + 1);
        const int y0 = std::max(0, box_.y0 - 1), y1 = std::min(height_, box_.y1 + 1);
        sink.blank_rows(0, y0);
        for (int y = y0; y < y1; ++y) {
            const std::uint8_t* centre = mask_.data() + offset(0, y);
            const std::uint8_t *up = centre - stride_, *down = centre + stride_;
            for (int x = x0; x < x1; ++x) {
                ink_[static_cast<std::size_t>(x)] =
                    static_cast<std::uint8_t>(centre[x] | centre[x - 1] | centre[x + 1] | up[x] | down[x]);
            }
            sink.row(y, x0, x1, ink_.data());
        }
        sink.blank_rows(y1, height_);
        for (int y = box_.y0; y < box_.y1; ++y) std::fill_n(mask_.data() + offset(box_.x0, y), box_.x1 - box_.x0, std::uint8_t{0});
        box_ = Box{};
    }

  private:
    // The canvas has a frame of one zero pixel, which is what the dilation sees outside.
    std::ptrdiff_t offset(std::int64_t x, std::int64_t y) const { return (y + 1) * stride_ + (x + 1); }

    // The plain walk with M = major.length, m = minor.length starts at D = 2m - M and at each of the M + 1 pixels: draws; if
    // D >= 0, steps the minor axis and takes 2M off D; adds 2m to D and steps the major axis. So the pixel of major step k lies
    // at minor step j(k) = floor((2mk + M) / 2M), which lets the walk begin at the first visible pixel as if it had come there.
    void walk(const Axis& major, int major_side, std::ptrdiff_t major_stride, const Axis& minor, int minor_side,
              std::ptrdiff_t minor_stride, bool major_is_x) {
        const std::int64_t twice_major = 2 * major.length, twice_minor = 2 * minor.length;
        std::int64_t first = major.first_inside(major_side), last = major.last_inside(major_side);
        const std::int64_t minor_first = minor.first_inside(minor_side), minor_last = minor.last_inside(minor_side);
        if (minor_first > minor_last) return;
        if (minor_first > 0) {  // smallest k with j(k) >= minor_first; a positive numerator, rounded up
            first = std::max(first, (twice_major * minor_first - major.length + twice_minor - 1) / twice_minor);
        }
        if (minor_last < minor.length) {  // largest k with j(k) <= minor_last
            last = std::min(last, (twice_major * (minor_last + 1) - major.length - 1) / twice_minor);
        }
        if (first > last) return;

        std::int64_t j = major.length == 0 ? 0 : (twice_minor * first + major.length) / twice_major;
        std::int64_t decision = twice_minor * (first + 1) - major.length - twice_major * j;
        const std::int64_t major_start = major.at(first), minor_start = minor.at(j);
        std::uint8_t* pixel = mask_.data() + (major_is_x ? offset(major_start, minor_start) : offset(minor_start, major_start));
        const std::ptrdiff_t major_step = major.sign * major_stride, minor_step = minor.sign * minor_stride;
        for (std::int64_t k = first;; ++k) {
            *pixel = 255;
            if (k == last) break;  // before stepping on, so that the pointer never leaves the canvas
            if (decision >= 0) {
                pixel += minor_step;
                decision -= twice_major;
                ++j;
            }
            decision += twice_minor;
            pixel += major_step;
        }
        const int a0 = static_cast<int>(major_start), a1 = static_cast<int>(major.at(last));
        const int b0 = static_cast<int>(minor_start), b1 = static_cast<int>(minor.at(j));
        if (major_is_x) {
            box_.include(std::min(a0, a1), std::min(b0, b1), std::max(a0, a1), std::max(b0, b1));
        } else {
            box_.include(std::min(b0, b1), std::min(a0, a1), std::max(b0, b1), std::max(a0, a1));
        }
    }

    int width_, height_;
    std::ptrdiff_t stride_;
    std::vector<std::uint8_t> mask_;  // [H + 2, W + 2], 0 or 255
    std::vector<std::uint8_t> ink_;   // [W], one row
    Box box_;
};

// Coverage falls with distance, so the canvas keeps the smallest squared distance and takes one root a pixel at the end.
class AntialiasPen {
  public:
    explicit AntialiasPen(const RasterParams& params)
        : width_(params.width),
          height_(params.height),
          reach_(0.5 + 0.5 * static_cast<double>(params.line_width)),
          squared_(static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_), kFar),
          ink_(static_cast<std::size_t>(width_)) {}

    void segment(const float* from, const float* to) {
        double x0 = from[0], y0 = from[1], x1 = to[0], y1 = to[1];
        if (!clip(x0, y0, x1, y1)) return;
        const int left = first_pixel(std::min(x0, x1) - reach_), right = last_pixel(std::max(x0, x1) + reach_, width_);
        const int top = first_pixel(std::min(y0, y1) - reach_), bottom = last_pixel(std::max(y0, y1) + reach_, height_);
        if (left > right || top > bottom) return;
        box_.include(left, top, right, bottom);

        const double dx = x1 - x0, dy = y1 - y0, squared_length = dx * dx + dy * dy;
        // Shorter than a millionth of a pixel is a dot; dividing by it would overflow.
        const double inverse = squared_length > 1e-12 ? 1.0 / squared_length : 0.0;
        const bool slanted = std::abs(dy) > 1e-6 * std::abs(dx);
        const double half_span = slanted ? reach_ * std::sqrt(squared_length) / std::abs(dy) : 0.0;
        const auto fx = static_cast<float>(x0), fdx = static_cast<float>(dx), fdy = static_cast<float>(dy);
        const auto along_x = static_cast<float>(dx * inverse);
        for (int y = top; y <= bottom; ++y) {
            int x_from = left, x_to = right;
            if (slanted) {  // the row's part of the strip of half-width `reach` around the line, a little widened for rounding
                const double centre = x0 + (y - y0) * dx / dy;
                x_from = static_cast<int>(std::clamp<double>(std::ceil(centre - half_span - kSlack), left, right + 1));
                x_to = static_cast<int>(std::clamp<double>(std::floor(centre + half_span + kSlack), left - 1, right));
            }
            const auto py = static_cast<float>(y - y0);
            const auto along_y = static_cast<float>((y - y0) * dy * inverse);
            float* row = squared_.data() + static_cast<std::ptrdiff_t>(y) * width_;
            for (int x = x_from; x <= x_to; ++x) {
                const float px = static_cast<float>(x) - fx;
                float t = px * along_x + along_y;  // where on the segment the nearest point lies, 0 = start, 1 = end
                t = t < 0.0F ? 0.0F : t;
                t = t > 1.0F ? 1.0F : t;
                const float ex = px - t * fdx, ey = py - t * fdy;
                const float squared = ex * ex + ey * ey;
                row[x] = squared < row[x] ? squared : row[x];
            }
        }
    }

    template <typename Sink>
    void hand_over(const Sink& sink) {
        if (box_.empty()) {
            sink.blank_rows(0, height_);
            return;
        }
        const auto reach = static_cast<float>(reach_);
        sink.blank_rows(0, box_.y0);
        for (int y = box_.y0; y < box_.y1; ++y) {
            float* row = squared_.data() + static_cast<std::ptrdiff_t>(y) * width_;
            for (int x = box_.x0; x < box_.x1; ++x) {
                float coverage = reach - std::sqrt(row[x]);
                coverage = coverage < 0.0F ? 0.0F : coverage;
                coverage = coverage > 1.0F ? 1.0F : coverage;
                ink_[static_cast<std::size_t>(x)] = static_cast<std::uint8_t>(static_cast<int>(coverage * 255.0F + 0.5F));
            }
            sink.row(y, box_.x0, box_.x1, ink_.data());
            std::fill(row + box_.x0, row + box_.x1, kFar);
        }
        sink.blank_rows(box_.y1, height_);
        box_ = Box{};
    }

  private:
    static constexpr float kFar = 1e30F;
    static constexpr double kSlack = 1e-3;

    static int first_pixel(double low) { return static_cast<int>(std::max(0.0, std::ceil(low - kSlack))); }
    static int last_pixel(double high, int side) { return static_cast<int>(std::min(side - 1.0, std::floor(high + kSlack))); }

    // Cuts the segment to the canvas grown by its reach and one pixel (Liang-Barsky). What is cut off is too far away to cover any
    // pixel, and what is left is short enough for float32. False when nothing is left.
    bool clip(double& x0, double& y0, double& x1, double& y1) const {
        const double low = -(reach_ + 1.0), high_x = width_ - 1 - low, high_y = height_ - 1 - low;
        const double dx = x1 - x0, dy = y1 - y0;
        const double distance[4] = {x0 - low, high_x - x0, y0 - low, high_y - y0}, towards[4] = {-dx, dx, -dy, dy};
        double enter = 0.0, leave = 1.0;
        for (int edge = 0; edge < 4; ++edge) {
            if (towards[edge] == 0.0) {
                if (distance[edge] < 0.0) return false;
                continue;
            }
            const double t = distance[edge] / towards[edge];
            if (towards[edge] < 0.0) {
                enter = std::max(enter, t);
            } else {
                leave = std::min(leave, t);
            }
        }
        if (enter > leave) return false;
        if (leave < 1.0) {
            x1 = x0 + leave * dx;
            y1 = y0 + leave * dy;
        }
        if (enter > 0.0) {
            x0 += enter * dx;
            y0 += enter * dy;
        }
        return true;
    }

    int width_, height_;
    double reach_;  // distance at which coverage ends, pixels
    std::vector<float> squared_;  // [H, W], squared distance to the nearest segment so far
    std::vector<std::uint8_t> ink_;  // [W], one row
    Box box_;
};

template <typename Pen, typename Sink>
void draw_all(const SketchBatchView& sketches, const RasterParams& params, const Sink& prototype) {
    run_workers(sketches.num_sketches, params.threads, [&](ItemQueue& queue) {
        Pen pen(params);
        Sink sink = prototype;
        for (std::int64_t sketch = 0; queue.take(sketch);) {
            for (std::int64_t s = sketches.sketch_offsets[sketch]; s < sketches.sketch_offsets[sketch + 1]; ++s) {
                const std::int64_t begin = sketches.stroke_offsets[s], end = sketches.stroke_offsets[s + 1];
                const float* point = sketches.points + 2 * begin;
                if (end - begin == 1) pen.segment(point, point);  // a dot
                for (std::int64_t i = begin + 1; i < end; ++i, point += 2) pen.segment(point, point + 2);
            }
            sink.select(sketch);
            pen.hand_over(sink);
        }
    });
}

template <typename Sink>
void draw_all(const SketchBatchView& sketches, const RasterParams& params, const Sink& sink) {
    if (params.style == RasterStyle::bresenham) {
        draw_all<BresenhamPen>(sketches, params, sink);
    } else {
        draw_all<AntialiasPen>(sketches, params, sink);
    }
}

}  // namespace

void rasterize(const SketchBatchView& sketches, const RasterParams& params, std::uint8_t* out) {
    check(sketches, params);
    draw_all(sketches, params, ByteSink(params, out));
}

void rasterize(const SketchBatchView& sketches, const RasterParams& params, float* out) {
    check(sketches, params);
    check_normalisation(params);
    draw_all(sketches, params, FloatSink(params, out));
}

}  // namespace fgsbir
