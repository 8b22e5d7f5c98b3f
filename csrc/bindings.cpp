// fgsbir_edge._native: checks arrays, lets go of the interpreter lock, calls the core. No logic of its own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string>

#include "adapt.h"
#include "rasterize.h"

namespace py = pybind11;

namespace {

std::string shape_text(const py::array& array) {
    std::string text = "[";
    for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
    return text + "]";
}

[[noreturn]] void refuse(const char* name, const py::array& array, const std::string& expected) {
    throw py::value_error(std::string(name) + " is " + py::str(array.dtype()).cast<std::string>() + " " + shape_text(array) +
                          ", expected " + expected);
}

// Never copies or casts: a silent copy would hide a cost, and for an output it would lose the result.
template <typename T>
bool has_layout(const py::array& array, py::ssize_t ndim) {
    return py::isinstance<py::array_t<T>>(array) && array.ndim() == ndim && (array.flags() & py::array::c_style) != 0;
}

template <typename T>
const T* input(const char* name, const py::array& array, py::ssize_t ndim, const std::string& expected) {
    if (!has_layout<T>(array, ndim)) refuse(name, array, "C-contiguous " + expected);
    return static_cast<const T*>(array.data());
}

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

template <typename Real>
py::tuple adapt_as(const py::array& outputs, const py::array& gram, const py::array& triplets, const py::array& moves,
                   const py::array& step_sizes, double margin, double sharpness, const std::string& dtype) {
    fgsbir::AdaptProblem<Real> problem{};
    problem.outputs = input<Real>("outputs", outputs, 2, dtype + " [m, D]");
    problem.items = outputs.shape(0);
    problem.width = outputs.shape(1);
    const std::string m = std::to_string(problem.items);
    problem.gram = input<Real>("gram", gram, 2, dtype + " [m, m] with m = " + m);
    if (gram.shape(0) != problem.items || gram.shape(1) != problem.items) refuse("gram", gram, "[m, m] with m = " + m);
    problem.triplets = input<std::int32_t>("triplets", triplets, 2, "int32 [t, 3]");
    if (triplets.shape(1) != 3) refuse("triplets", triplets, "int32 [t, 3]");
    problem.moves = input<std::uint8_t>("moves", moves, 1, "uint8 [m] with m = " + m);
    if (moves.size() != problem.items) refuse("moves", moves, "uint8 [m] with m = " + m);
    problem.step_sizes = input<Real>("step_sizes", step_sizes, 1, dtype + " [T]");
    problem.num_triplets = triplets.shape(0);
    problem.num_steps = step_sizes.size();
    problem.margin = static_cast<Real>(margin);
    problem.sharpness = static_cast<Real>(sharpness);

    py::array_t<Real> coefficients({problem.items, problem.width}), moved({problem.items, problem.width});
    py::array_t<double> losses(problem.num_steps + 1);
    {
        Real *a = coefficients.mutable_data(), *u = moved.mutable_data();
        double* l = losses.mutable_data();
        const py::gil_scoped_release release;
        fgsbir::adapt(problem, a, u, l);
    }
    return py::make_tuple(coefficients, moved, losses);
}

py::tuple adapt(const py::array& outputs, const py::array& gram, const py::array& triplets, const py::array& moves,
                const py::array& step_sizes, double margin, double sharpness) {
    if (py::isinstance<py::array_t<double>>(outputs)) {
        return adapt_as<double>(outputs, gram, triplets, moves, step_sizes, margin, sharpness, "float64");
    }
    return adapt_as<float>(outputs, gram, triplets, moves, step_sizes, margin, sharpness, "float32");
}

const char* vector_instructions() {
#if defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__)
    return "avx2";
#elif defined(__SSE2__) || defined(_M_X64)
    return "sse2";
#elif defined(__ARM_NEON)
    return "neon";
#else
    return "none";
#endif
}

py::dict build_info() {
    py::dict info;
    info["version"] = FGSBIR_VERSION;
    info["compiler"] = FGSBIR_COMPILER;
    info["simd"] = vector_instructions();
    info["cuda"] = false;  // whether this module holds device code; there is none yet
    info["cuda_toolkit"] = FGSBIR_CUDA_TOOLKIT;
    return info;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Native core of fgsbir_edge: rasteriser and inner loop. All functions release the interpreter lock.";
    module.def("rasterize", &rasterize, py::arg("points"), py::arg("stroke_offsets"), py::arg("sketch_offsets"), py::arg("out"),
               py::arg("style"), py::arg("line_width"), py::arg("dark"), py::arg("mean"), py::arg("std"), py::arg("threads"),
               R"(Draw a batch of vector sketches into ``out``, in place.

points float32 [P, 2] in pixels (x right, y down; pixel (i, j) has its centre at x=i, y=j); stroke_offsets int64 [S+1] into
points; sketch_offsets int64 [B+1] into strokes; out uint8 [B, H, W] or float32 [B, 3, H, W], C-contiguous.
style 0 is bresenham (bit-exact with the papers), 1 is antialias: clamp(1/2 + line_width/2 - distance, 0, 1), rounded half up to
0..255. dark writes 255 - v. Float output is (v/255 - mean) / std. The result does not depend on ``threads``.
Raises ValueError on a wrong dtype, shape, layout, offset, a coordinate that is not finite or beyond 1e9, or a bad setting.)");
    module.def("adapt", &adapt, py::arg("outputs"), py::arg("gram"), py::arg("triplets"), py::arg("moves"), py::arg("step_sizes"),
               py::arg("margin"), py::arg("sharpness"),
               R"(Gradient descent on a triplet loss in the span of the support features.

outputs [m, D] (W X^T + b, a row per support item), gram [m, m] (X X^T + 1), step_sizes [T]: all float32 or all float64;
triplets int32 [t, 3] (anchor, positive, negative); moves uint8 [m] (1 = the row moves with the head).
L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)) with b = sharpness (0 = hinge) and d the Euclidean distance of
the L2-normalised outputs, floored at 1e-6. Each step: U -= alpha_t gram dL/dU, A -= alpha_t dL/dU on the moving rows.
Returns (coefficients [m, D], outputs [m, D], losses float64 [T+1]: before each step and after the last). Deterministic.
NaN in the input shows in the losses. Raises ValueError on a wrong dtype, shape, layout, index or setting.)");
    module.def("build_info", &build_info,
               "What this module was built with: version, compiler, simd, cuda (device code inside), cuda_toolkit ('' or its version).");
}
