// _native.adapt.
#include "bindings.h"

#include <cstdint>

#include "adapt.h"

namespace fgsbir::bindings {
namespace {

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

}  // namespace

void define_adapt(py::module_& module) {
    module.def("adapt", &adapt, py::arg("outputs"), py::arg("gram"), py::arg("triplets"), py::arg("moves"), py::arg("step_sizes"),
               py::arg("margin"), py::arg("sharpness"),
               R"(Gradient descent on a triplet loss in the span of the support features.

outputs [m, D] (W X^T + b, a row per support item), gram [m, m] (X X^T + 1), step_sizes [T]: all float32 or all float64;
triplets int32 [t, 3] (anchor, positive, negative); moves uint8 [m] (1 = the row moves with the head).
L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)) with b = sharpness (0 = hinge) and d the Euclidean distance of
the L2-normalised outputs, floored at 1e-6. Each step: U -= alpha_t gram dL/dU, A -= alpha_t dL/dU on the moving rows.
Returns (coefficients [m, D], outputs [m, D], losses float64 [T+1]: before each step and after the last). Deterministic.
NaN in the input shows in the losses. Raises ValueError on a wrong dtype, shape, layout, index or setting.)");
}

}  // namespace fgsbir::bindings
