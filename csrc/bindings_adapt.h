// What the bindings of adaptation share: words for settings, and the names of types in messages.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "adapt.h"
#include "bindings.h"

namespace fgsbir::bindings {

inline std::string text(std::int64_t number) { return std::to_string(number); }

inline AdaptForm form_named(const std::string& name) {
    if (name == "automatic") return AdaptForm::automatic;
    if (name == "gram") return AdaptForm::gram;
    if (name == "span") return AdaptForm::span;
    throw py::value_error("form is '" + name + "', expected 'automatic', 'gram' or 'span'");
}

inline AdaptNegatives negatives_named(const std::string& name) {
    if (name == "support") return AdaptNegatives::support;
    if (name == "gallery") return AdaptNegatives::gallery;
    throw py::value_error("negatives is '" + name + "', expected 'support' or 'gallery'");
}

inline bool photos_move(const std::string& side) {
    if (side != "sketch" && side != "both") throw py::value_error("side is '" + side + "', expected 'sketch' or 'both'");
    return side == "both";
}

template <typename Real>
const char* dtype() {
    return std::is_same_v<Real, double> ? "float64" : "float32";
}

inline bool is_double(const py::array& array) { return py::isinstance<py::array_t<double>>(array); }

void define_adapt_people(py::module_& module);

}  // namespace fgsbir::bindings
