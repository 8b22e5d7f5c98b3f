// _native.gather_half.
#include "bindings.h"
#include "half_rows.h"

namespace fgsbir::bindings {

void check_places(const std::int64_t* places, std::int64_t count, std::int64_t rows) {
    for (std::int64_t i = 0; i < count; ++i) {
        if (places[i] >= 0 && places[i] < rows) continue;
        throw py::value_error("places[" + std::to_string(i) + "] is " + std::to_string(places[i]) + ", but there are " +
                              std::to_string(rows) + " rows");
    }
}

namespace {

py::array_t<float> gather_half_rows(const py::array& rows, const py::array& places) {
    const auto* from = input<std::uint16_t>("rows", rows, 2, "uint16 [N, C], the bits of float16");
    const auto* which = input<std::int64_t>("places", places, 1, "int64 [n]");
    const std::int64_t count = places.size(), width = rows.shape(1);
    check_places(which, count, rows.shape(0));
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
