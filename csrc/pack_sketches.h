// Sketches as Python programs hold them, packed for the rasteriser: scaled and rounded in double precision on the way.
#pragma once

#include <cstdint>
#include <vector>

#include "bindings.h"
#include "rasterize.h"

namespace fgsbir::bindings {

// What happens to a coordinate: multiplied by the scale, then rounded half to even if asked for, then float32.
struct PointMap {
    double scale_x = 1.0, scale_y = 1.0;
    bool round = false;

    bool changes_nothing() const { return scale_x == 1.0 && scale_y == 1.0; }  // the rasteriser rounds float32 points itself
};

class PackedSketches {
  public:
    explicit PackedSketches(const PointMap& map) : map_(map) {}

    // A sequence of sketches. A sketch is an object with `points` [P, 2] and `offsets` [S + 1], or a sequence of strokes; a stroke is
    // an array [n, 2 or more] or a sequence of (x, y) pairs. Throws py::value_error naming sketch, stroke and point.
    void add_all(const py::handle& sketches);
    // One stroke: an array [n, 2 or more] or a sequence of (x, y) pairs.
    void add_stroke(const py::handle& stroke);
    // Points [P, 2] float32 of a batch that is packed already.
    void add_points(const float* points, std::int64_t count);

    // Valid until the next addition.
    SketchBatchView view() const;
    const float* points() const { return points_.data(); }

  private:
    void add_sketch(const py::handle& sketch);
    void add_array(const py::array& array);
    template <typename T>
    void add_rows(const T* rows, std::int64_t count, std::int64_t columns);
    float* room_for(std::int64_t count);  // for [count, 2] more
    void put(float* target, double x, double y) const;
    void end_stroke();
    std::string place() const;

    PointMap map_;
    std::vector<float> points_;
    std::vector<std::int64_t> stroke_offsets_{0}, sketch_offsets_{0};
};

}  // namespace fgsbir::bindings
