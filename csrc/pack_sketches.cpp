#include "pack_sketches.h"

namespace fgsbir::bindings {
namespace {

// A list or tuple itself, or a list made of any other sequence.
py::object as_list(const py::handle& sequence, const std::string& message) {
    PyObject* list = PySequence_Fast(sequence.ptr(), "");
    if (list == nullptr) {
        PyErr_Clear();
        throw py::value_error(message);
    }
    return py::reinterpret_steal<py::object>(list);
}

}  // namespace

std::string PackedSketches::place() const {
    const std::int64_t stroke = static_cast<std::int64_t>(stroke_offsets_.size()) - 1 - sketch_offsets_.back();
    return "sketch " + std::to_string(sketch_offsets_.size() - 1) + ", stroke " + std::to_string(stroke);
}

float* PackedSketches::room_for(std::int64_t count) {
    const std::size_t before = points_.size();
    points_.resize(before + 2 * static_cast<std::size_t>(count));
    return points_.data() + before;
}

// To the nearest whole number, half to even, without a call: above 2^52 float64 holds whole numbers only. For |x| < 2^51; the
// rasteriser refuses anything near that.
inline double rounded(double x) {
    constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52
    return (x + kShift) - kShift;
}

inline void PackedSketches::put(float* target, double x, double y) const {
    x *= map_.scale_x;
    y *= map_.scale_y;
    target[0] = static_cast<float>(map_.round ? rounded(x) : x);
    target[1] = static_cast<float>(map_.round ? rounded(y) : y);
}

void PackedSketches::end_stroke() {
    const auto end = static_cast<std::int64_t>(points_.size() / 2);
    if (end > stroke_offsets_.back()) stroke_offsets_.push_back(end);  // a stroke without points leaves nothing
}

template <typename T>
void PackedSketches::add_rows(const T* rows, std::int64_t count, std::int64_t columns) {
    float* target = room_for(count);
    for (std::int64_t i = 0; i < count; ++i, rows += columns, target += 2) {
        put(target, static_cast<double>(rows[0]), static_cast<double>(rows[1]));
    }
}

void PackedSketches::add_points(const float* points, std::int64_t count) { add_rows(points, count, 2); }

void PackedSketches::add_array(const py::array& array) {
    if (array.ndim() != 2 || array.shape(1) < 2) {
        if (array.size() == 0) return;
        throw py::value_error(place() + " has shape " + shape_text(array) + ", expected [n, 2]: one row of x and y for each point");
    }
    const auto count = static_cast<std::int64_t>(array.shape(0)), columns = static_cast<std::int64_t>(array.shape(1));
    if (has_layout<double>(array, 2)) return add_rows(static_cast<const double*>(array.data()), count, columns);
    if (has_layout<float>(array, 2)) return add_rows(static_cast<const float*>(array.data()), count, columns);
    const char kind = array.dtype().kind();
    if (kind != 'f' && kind != 'i' && kind != 'u') {
        throw py::value_error(place() + " has dtype " + py::str(array.dtype()).cast<std::string>() + ", expected real numbers");
    }
    const auto copy = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(array);
    if (!copy) throw py::error_already_set();
    add_rows(copy.data(), count, columns);
}

void PackedSketches::add_stroke(const py::handle& stroke) {
    if (py::isinstance<py::array>(stroke)) {
        add_array(py::reinterpret_borrow<py::array>(stroke));
    } else {
        const py::object points = as_list(stroke, place() + " is no array and no sequence of (x, y) points");
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(points.ptr());
        float* target = room_for(count);
        for (Py_ssize_t i = 0; i < count; ++i, target += 2) {
            PyObject* item = PySequence_Fast_GET_ITEM(points.ptr(), i);
            if (PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) >= 2) {  // nearly always
                PyObject *x = PyTuple_GET_ITEM(item, 0), *y = PyTuple_GET_ITEM(item, 1);
                if (PyFloat_CheckExact(x) && PyFloat_CheckExact(y)) {
                    put(target, PyFloat_AS_DOUBLE(x), PyFloat_AS_DOUBLE(y));
                    continue;
                }
            }
            const auto wanted = [&] { return place() + ", point " + std::to_string(i) + ": expected a pair of numbers (x, y)"; };
            py::object pair;  // holds what is made of anything but a list or tuple
            if (!PyTuple_CheckExact(item) && !PyList_CheckExact(item)) {
                pair = as_list(item, wanted());
                item = pair.ptr();
            }
            if (PySequence_Fast_GET_SIZE(item) < 2) throw py::value_error(wanted());
            const double x = PyFloat_AsDouble(PySequence_Fast_GET_ITEM(item, 0)), y = PyFloat_AsDouble(PySequence_Fast_GET_ITEM(item, 1));
            if ((x == -1.0 || y == -1.0) && PyErr_Occurred() != nullptr) {
                PyErr_Clear();
                throw py::value_error(wanted());
            }
            put(target, x, y);
        }
    }
    end_stroke();
}

void PackedSketches::add_sketch(const py::handle& sketch) {
    if (!PyList_CheckExact(sketch.ptr()) && !PyTuple_CheckExact(sketch.ptr()) && py::hasattr(sketch, "offsets")) {
        const py::object points = sketch.attr("points"), offsets = sketch.attr("offsets");
        const auto cuts = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>::ensure(offsets);
        if (!cuts || cuts.ndim() != 1 || !py::isinstance<py::array>(points)) {
            PyErr_Clear();
            throw py::value_error(place() + ": expected arrays `points` [P, 2] and `offsets` [S + 1]");
        }
        const auto begin = static_cast<std::int64_t>(points_.size() / 2);
        add_array(py::reinterpret_borrow<py::array>(points));
        const auto end = static_cast<std::int64_t>(points_.size() / 2);
        for (py::ssize_t s = 1; s < cuts.size(); ++s) {
            const std::int64_t cut = begin + cuts.data()[s];
            if (cut < stroke_offsets_.back() || cut > end) throw py::value_error(place() + ": offsets do not cut the points into strokes");
            if (cut > stroke_offsets_.back()) stroke_offsets_.push_back(cut);
        }
        end_stroke();
    } else {
        const py::object strokes = as_list(sketch, "sketch " + std::to_string(sketch_offsets_.size() - 1) + " is no sequence of strokes");
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(strokes.ptr());
        for (Py_ssize_t s = 0; s < count; ++s) add_stroke(PySequence_Fast_GET_ITEM(strokes.ptr(), s));
    }
    sketch_offsets_.push_back(static_cast<std::int64_t>(stroke_offsets_.size()) - 1);
}

void PackedSketches::add_all(const py::handle& sketches) {
    const py::object list = as_list(sketches, "expected a sequence of sketches");
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(list.ptr());
    for (Py_ssize_t b = 0; b < count; ++b) add_sketch(PySequence_Fast_GET_ITEM(list.ptr(), b));
}

SketchBatchView PackedSketches::view() const {
    return {points_.data(),
            static_cast<std::int64_t>(points_.size() / 2),
            stroke_offsets_.data(),
            static_cast<std::int64_t>(stroke_offsets_.size()) - 1,
            sketch_offsets_.data(),
            static_cast<std::int64_t>(sketch_offsets_.size()) - 1};
}

}  // namespace fgsbir::bindings
