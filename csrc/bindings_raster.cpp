// _native.rasterize.
#include "bindings.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "rasterize.h"

namespace fgsbir::bindings {
namespace {

void rasterize(const py::array& points, const py::array& stroke_offsets, const py::array& sketch_offsets, py::array out, int style,
               float line_width, bool dark, const std::array<float, 3>& mean, const std::array<float, 3>& stddev, int threads) {
    fgsbir::SketchBatchView sketches{};
    sketches.points = input<float>("points", points, 2, "float32 [P, 2]");
    if (points.shape(1) != 2) refuse("points", points, "C-contiguous float32 [P, 2]");
    sketches.stroke_offsets = input<std::int64_t>("stroke_offsets", stroke_offsets, 1, "int64 [S + 1]");
    sketches.sketch_offsets = input<std::int64_t>("sketch_offsets", sketch_offsets, 1, "int64 [B + 1]");
    if (stroke_offsets.size() == 0) refuse("stroke_offsets", stroke_offsets, "at least one element");
    if (sketch_offsets.size() == 0) refuse("sketch_offsets", sketch_offsets, "at least one element");
    sketches.num_points = points.shape(0);
    sketches.num_strokes = stroke_offsets.size() - 1;
    sketches.num_sketches = sketch_offsets.size() - 1;

    const bool bytes = has_layout<std::uint8_t>(out, 3);
    const bool floats = has_layout<float>(out, 4) && out.shape(1) == 3;
    if ((!bytes && !floats) || out.shape(0) != sketches.num_sketches) {
        refuse("out", out, "C-contiguous uint8 [B, H, W] or float32 [B, 3, H, W] with B = " + std::to_string(sketches.num_sketches));
    }
    const py::ssize_t height = out.shape(bytes ? 1 : 2), width = out.shape(bytes ? 2 : 3);
    if (height > fgsbir::kMaxSide || width > fgsbir::kMaxSide) {
        refuse("out", out, "sides of at most " + std::to_string(fgsbir::kMaxSide) + " pixels");
    }
    fgsbir::RasterParams params;
    params.height = static_cast<int>(height);
    params.width = static_cast<int>(width);
    params.style = static_cast<fgsbir::RasterStyle>(style);
    params.line_width = line_width;
    params.dark = dark;
    params.mean = mean;
    params.stddev = stddev;
    params.threads = threads;
    void* pixels = out.mutable_data();
    const py::gil_scoped_release release;
    if (bytes) {
        fgsbir::rasterize(sketches, params, static_cast<std::uint8_t*>(pixels));
    } else {
        fgsbir::rasterize(sketches, params, static_cast<float*>(pixels));
    }
}

}  // namespace

void define_rasterize(py::module_& module) {
    module.def("rasterize", &rasterize, py::arg("points"), py::arg("stroke_offsets"), py::arg("sketch_offsets"), py::arg("out"),
               py::arg("style"), py::arg("line_width"), py::arg("dark"), py::arg("mean"), py::arg("std"), py::arg("threads"),
               R"(Draw a batch of vector sketches into ``out``, in place.

points float32 [P, 2] in pixels (x right, y down; pixel (i, j) has its centre at x=i, y=j); stroke_offsets int64 [S+1] into
points; sketch_offsets int64 [B+1] into strokes; out uint8 [B, H, W] or float32 [B, 3, H, W], C-contiguous.
style 0 is bresenham (bit-exact with the papers), 1 is antialias: clamp(1/2 + line_width/2 - distance, 0, 1), rounded half up to
0..255. dark writes 255 - v. Float output is (v/255 - mean) / std. The result does not depend on ``threads``.
Raises ValueError on a wrong dtype, shape, layout, offset, a coordinate that is not finite or beyond 1e9, or a bad setting.)");
}

}  // namespace fgsbir::bindings
