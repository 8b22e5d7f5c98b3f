// _native.gather_half.
#include "bindings.h"
#include "half_rows.h"

namespace fgsbir::bindings {
namespace {

py::array_t<float> gather_half_rows(const py::array& rows, const py::array& places) {
    const auto* from = input<std::uint16_t>("rows", rows, 2, "uint16 [N, C], the bits of float16");
    const auto* which = input<std::int64_t>("places", places, 1, "int64 [n]");
    const std::int64_t count = places.size(), width = rows.shape(1);
    for (std::int64_t i = 0; i < count; ++i) {
        if (which[i] >= 0 && which[i] < rows.shape(0)) continue;
        throw py::value_error("places[" + std::to_string(i) + "] is " + std::to_string(which[i]) + ", but there are " +
                              std::to_string(rows.shape(0)) + " rows");
    }
    py::array_t<float> out({count, width});
    float* to = out.mutable_data();
    const py::gil_scoped_release release;
    gather_half(from, width, which, count, to);
    return out;
}

}  // namespace

void define_half(py::module_& module) {
    module.def("gather_half", &gather_half_rows, py::arg("rows"), py::arg("places"),
               R"(Rows of float16 as float32: rows uint16 [N, C] (the bits), places int64 [n] -> float32 [n, C].

Exact. Raises ValueError on a wrong dtype, shape or layout, or a place that is no row.)");
}

}  // namespace fgsbir::bindings
