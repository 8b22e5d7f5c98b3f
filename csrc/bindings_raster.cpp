// _native.rasterize, rasterize_prefixes and Canvas.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <vector>

#include "bindings.h"
#include "pack_sketches.h"
#include "rasterize.h"

namespace fgsbir::bindings {
namespace {

// (style, line_width, dark, mean, std)
using Settings = std::tuple<int, float, bool, std::array<float, 3>, std::array<float, 3>>;

RasterParams params_of(const Settings& settings, int threads) {
    RasterParams params;
    params.style = static_cast<RasterStyle>(std::get<0>(settings));
    params.line_width = std::get<1>(settings);
    params.dark = std::get<2>(settings);
    params.mean = std::get<3>(settings);
    params.stddev = std::get<4>(settings);
    params.threads = threads;
    return params;
}

struct Output {
    PixelFormat format;
    void* pixels;
};

// The format of an array of `count` images; sets height and width.
Output output(py::array& out, std::int64_t count, RasterParams& params) {
    const bool halves = out.dtype().kind() == 'f' && out.itemsize() == 2 && (out.flags() & py::array::c_style) != 0 && out.ndim() == 4;
    const bool bytes = has_layout<std::uint8_t>(out, 3);
    const bool planes = (halves || has_layout<float>(out, 4)) && out.shape(1) == 3;
    if ((!bytes && !planes) || out.shape(0) != count) {
        refuse("out", out, "C-contiguous uint8 [N, H, W] or float32 or float16 [N, 3, H, W] with N = " + std::to_string(count));
    }
    const py::ssize_t height = out.shape(bytes ? 1 : 2), width = out.shape(bytes ? 2 : 3);
    if (height > kMaxSide || width > kMaxSide) refuse("out", out, "sides of at most " + std::to_string(kMaxSide) + " pixels");
    params.height = static_cast<int>(height);
    params.width = static_cast<int>(width);
    return {bytes ? PixelFormat::bytes : halves ? PixelFormat::halves : PixelFormat::floats, out.mutable_data()};
}

// A batch in C++ terms. Holds what the view points at: the caller's arrays, or a packed copy.
class Batch {
  public:
    // `sketches` is a tuple (points float32 [P, 2], stroke_offsets int64 [S + 1], sketch_offsets int64 [B + 1]), or a list as
    // PackedSketches::add_all takes it.
    Batch(const py::object& sketches, const PointMap& map) : packed_(map) {
        if (!PyTuple_CheckExact(sketches.ptr())) {
            packed_.add_all(sketches);
            view_ = packed_.view();
            return;
        }
        const auto arrays = sketches.cast<std::tuple<py::array, py::array, py::array>>();
        points_ = std::get<0>(arrays);
        strokes_ = std::get<1>(arrays);
        ends_ = std::get<2>(arrays);
        view_.points = input<float>("points", points_, 2, "float32 [P, 2]");
        if (points_.shape(1) != 2) refuse("points", points_, "C-contiguous float32 [P, 2]");
        view_.stroke_offsets = input<std::int64_t>("stroke_offsets", strokes_, 1, "int64 [S + 1]");
        view_.sketch_offsets = input<std::int64_t>("sketch_offsets", ends_, 1, "int64 [B + 1]");
        if (strokes_.size() == 0) refuse("stroke_offsets", strokes_, "at least one element");
        if (ends_.size() == 0) refuse("sketch_offsets", ends_, "at least one element");
        view_.num_points = points_.shape(0);
        view_.num_strokes = strokes_.size() - 1;
        view_.num_sketches = ends_.size() - 1;
        if (!map.changes_nothing()) {
            packed_.add_points(view_.points, view_.num_points);
            view_.points = packed_.points();
        }
    }
    const SketchBatchView& view() const { return view_; }

  private:
    PackedSketches packed_;
    py::array points_, strokes_, ends_;
    SketchBatchView view_{};
};

PointMap map_of(const std::array<double, 2>& scale, const Settings& settings) {
    return {scale[0], scale[1], std::get<0>(settings) == static_cast<int>(RasterStyle::bresenham)};
}

void rasterize(const py::object& sketches, py::array out, const Settings& settings, const std::array<double, 2>& scale, int threads) {
    const Batch batch(sketches, map_of(scale, settings));
    RasterParams params = params_of(settings, threads);
    const Output target = output(out, batch.view().num_sketches, params);
    const py::gil_scoped_release release;
    fgsbir::rasterize(batch.view(), params, target.format, target.pixels);
}

// floor(i P / count) points for i = 1..count, at least two but never more than there are (METHODS D.1, variant c).
std::vector<std::int64_t> even_prefixes(const SketchBatchView& sketches, std::int64_t count) {
    std::vector<std::int64_t> points;
    points.reserve(static_cast<std::size_t>(sketches.num_sketches * count));
    for (std::int64_t b = 0; b < sketches.num_sketches; ++b) {
        const std::int64_t all =
            sketches.stroke_offsets[sketches.sketch_offsets[b + 1]] - sketches.stroke_offsets[sketches.sketch_offsets[b]];
        for (std::int64_t i = 1; i <= count; ++i) points.push_back(std::min(all, std::max<std::int64_t>(2, i * all / count)));
    }
    return points;
}

void rasterize_prefixes(const py::object& sketches, const py::object& prefixes, py::array out, const Settings& settings,
                        const std::array<double, 2>& scale, int threads) {
    const Batch batch(sketches, map_of(scale, settings));
    std::vector<std::int64_t> points, offsets;
    if (py::isinstance<py::int_>(prefixes)) {
        const auto count = prefixes.cast<std::int64_t>();
        if (count < 1) throw py::value_error("prefixes is " + std::to_string(count) + ", expected at least one");
        points = even_prefixes(batch.view(), count);
        for (std::int64_t b = 0; b <= batch.view().num_sketches; ++b) offsets.push_back(b * count);
    } else {
        offsets.push_back(0);
        for (const py::handle& own : prefixes) {
            for (const py::handle& value : own) points.push_back(value.cast<std::int64_t>());
            offsets.push_back(static_cast<std::int64_t>(points.size()));
        }
        if (static_cast<std::int64_t>(offsets.size()) != batch.view().num_sketches + 1) {
            throw py::value_error("got prefixes of " + std::to_string(offsets.size() - 1) + " sketches, expected " +
                                  std::to_string(batch.view().num_sketches));
        }
    }
    const PrefixView view{points.data(), offsets.data(), static_cast<std::int64_t>(points.size())};
    RasterParams params = params_of(settings, threads);
    const Output target = output(out, view.num_prefixes, params);
    const py::gil_scoped_release release;
    fgsbir::rasterize_prefixes(batch.view(), view, params, target.format, target.pixels);
}

// A canvas and what happens to the points that come to it.
struct ScaledCanvas {
    Canvas canvas;
    PointMap map;
};

ScaledCanvas make_canvas(int height, int width, const Settings& settings, const std::array<double, 2>& scale) {
    RasterParams params = params_of(settings, 1);
    params.height = height;
    params.width = width;
    return {Canvas(params), map_of(scale, settings)};
}

void canvas_add(ScaledCanvas& own, const py::object& points, bool continues) {
    PackedSketches packed(own.map);
    packed.add_stroke(points);
    const SketchBatchView stroke = packed.view();
    own.canvas.add(stroke.points, stroke.num_points, continues);
}

void canvas_write(ScaledCanvas& own, py::array out) {
    Canvas& canvas = own.canvas;
    RasterParams wanted = canvas.params();
    const Output target = output(out, 1, wanted);
    if (wanted.height != canvas.params().height || wanted.width != canvas.params().width) {
        refuse("out", out, "images of " + std::to_string(canvas.params().height) + "x" + std::to_string(canvas.params().width));
    }
    canvas.write(target.format, target.pixels);
}

}  // namespace

void define_rasterize(py::module_& module) {
    module.def("rasterize", &rasterize, py::arg("sketches"), py::arg("out"), py::arg("settings"), py::arg("scale"), py::arg("threads"),
               R"(Draw a batch of vector sketches into ``out``, in place.

sketches is a tuple (points float32 [P, 2], stroke_offsets int64 [S+1] into points, sketch_offsets int64 [B+1] into strokes), or a
list of B sketches, each an object with ``points`` [P, 2] and ``offsets`` [S+1] or a sequence of strokes, each an array [n, 2] or a
sequence of (x, y) pairs. Points are multiplied by scale (x, y) in float64, and rounded there in style 0; then they are pixels (x
right, y down; pixel (i, j) has its centre at x=i, y=j). out is uint8 [B, H, W], or float32 or float16 [B, 3, H, W], C-contiguous.
settings is (style, line_width, dark, mean, std): style 0 is bresenham (bit-exact with the papers), 1 is antialias: clamp(1/2 +
line_width/2 - distance, 0, 1), rounded half up to 0..255. dark writes 255 - v. Float output is (v/255 - mean) / std, as v * (1 /
255 std) - mean / std in float32. The result does not depend on ``threads``.
Raises ValueError on a wrong dtype, shape, layout, offset, a coordinate that is not finite or beyond 1e9, or a bad setting.)");
    module.def("rasterize_prefixes", &rasterize_prefixes, py::arg("sketches"), py::arg("prefixes"), py::arg("out"),
               py::arg("settings"), py::arg("scale"), py::arg("threads"),
               R"(Draw growing beginnings of sketches, each segment once.

prefixes is a number n (the images show floor(i P / n) points, i = 1..n, at least two where there are two) or a sequence of B
sequences of point counts that never fall. out holds one image for each, in order. All else as in rasterize.)");
    py::class_<ScaledCanvas>(module, "Canvas", "One canvas that strokes are added to. Not for use from several threads at once.")
        .def(py::init(&make_canvas), py::arg("height"), py::arg("width"), py::arg("settings"), py::arg("scale"))
        .def("add", &canvas_add, py::arg("points"), py::arg("continues"),
             "Draw a stroke: an array [n, 2] or a sequence of (x, y) pairs, scaled as in rasterize.")
        .def("write", &canvas_write, py::arg("out"), "Write the image so far into out [1, H, W] or [1, 3, H, W].")
        .def("clear", [](ScaledCanvas& own) { own.canvas.clear(); }, "Make the canvas blank.");
}

}  // namespace fgsbir::bindings
