// What export_gallery.py writes: settings and names as lines of text, then numbers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace robot {

struct Array {
    std::vector<std::int64_t> shape;
    std::vector<float> values;  // row-major
};

// Line 1 is "fgsbir-edge-pack 1". Then one line each, in any order: "set NAME VALUE", "item NAME" (a photo, or a sketch), and
// "array NAME SIZE..."; a blank line ends them. The arrays follow, little-endian float32, in the order of their lines, to the end.
struct Pack {
    std::string path;
    std::map<std::string, std::string> settings;
    std::vector<std::string> items;
    std::map<std::string, Array> arrays;

    // Throws std::runtime_error naming the file and what is wrong with it.
    static Pack read(const std::string& path);

    bool has(const std::string& array) const { return arrays.count(array) != 0; }
    // The setting, or array, of this name. Throw std::runtime_error where it is missing, no number, or of another shape;
    // a size of -1 takes any.
    const std::string& text(const std::string& name) const;
    std::vector<double> numbers(const std::string& name, std::size_t count) const;
    double number(const std::string& name) const { return numbers(name, 1)[0]; }
    const Array& array(const std::string& name, const std::vector<std::int64_t>& shape) const;

    [[noreturn]] void refuse(const std::string& what) const;
};

}  // namespace robot
