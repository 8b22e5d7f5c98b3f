// What the bindings share: they check arrays, let go of the interpreter lock and call the core; no logic of their own.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

namespace fgsbir::bindings {

namespace py = pybind11;

inline std::string shape_text(const py::array& array) {
    std::string text = "[";
    for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
    return text + "]";
}

[[noreturn]] inline void refuse(const char* name, const py::array& array, const std::string& expected) {
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

// Throws unless all places [count] are rows.
void check_places(const std::int64_t* places, std::int64_t count, std::int64_t rows);

void define_rasterize(py::module_& module);
void define_device(py::module_& module);
#ifdef FGSBIR_HAS_CUDA
void define_adapt_cuda(py::module_& module);
void define_cuda_work(py::module_& module);
void define_rasterize_cuda(py::module_& module);
#endif
void define_adapt(py::module_& module);
void define_half(py::module_& module);
void define_search(py::module_& module);

}  // namespace fgsbir::bindings
