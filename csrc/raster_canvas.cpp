#include <array>
#include <cmath>

#include "raster_output.h"
#include "raster_pens.h"
#include "rasterize.h"

namespace fgsbir {

struct Canvas::State {
    RasterParams params;
    BitPen bits;
    SoftPen soft;
    bool started = false;            // whether `last` is a point
    std::array<float, 2> last{};     // where the pen stands

    bool lines() const { return params.style == RasterStyle::bresenham; }
    void stroke(const float* points, std::int64_t n) {
        if (lines()) {
            bits.stroke(points, n);
        } else {
            soft.stroke(points, n);
        }
    }
};

Canvas::Canvas(const RasterParams& params) {
    check_settings(params);
    state_ = std::make_unique<State>();
    state_->params = params;
    if (state_->lines()) {
        state_->bits.set_up(params, raster_kernels());
    } else {
        state_->soft.set_up(params, raster_kernels());
    }
}

Canvas::Canvas(Canvas&&) noexcept = default;
Canvas& Canvas::operator=(Canvas&&) noexcept = default;
Canvas::~Canvas() = default;

const RasterParams& Canvas::params() const { return state_->params; }

void Canvas::add(const float* points, std::int64_t num_points, bool continues) {
    check_points(points, num_points);
    if (num_points <= 0) return;
    State& s = *state_;
    if (continues && s.started) {
        const float join[4] = {s.last[0], s.last[1], points[0], points[1]};
        s.stroke(join, 2);
        if (num_points > 1) s.stroke(points, num_points);
    } else {
        s.stroke(points, num_points);
    }
    s.last = {points[2 * num_points - 2], points[2 * num_points - 1]};
    s.started = true;
}

void Canvas::write(PixelFormat format, void* out) {
    const OutputTable table(state_->params, format);
    if (state_->lines()) {
        state_->bits.write(table.writer(out, 0, 1));
    } else {
        state_->soft.write(table.writer(out, 0, 1));
    }
}

void Canvas::clear() {
    if (state_->lines()) {
        state_->bits.reset();
    } else {
        state_->soft.reset();
    }
    state_->started = false;
}

}  // namespace fgsbir
