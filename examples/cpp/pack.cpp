#include "pack.h"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace robot {
namespace {

constexpr std::int64_t kMaxNumbers = std::int64_t{1} << 31;  // in one array: 8 GiB

static_assert(sizeof(float) == 4, "arrays are read as they lie");

std::string words(const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const std::int64_t size : shape) text += (text.empty() ? "[" : ", ") + (size < 0 ? std::string("n") : std::to_string(size));
    return text + "]";
}

}  // namespace

void Pack::refuse(const std::string& what) const {
    throw std::runtime_error(path + ": " + what + "; write it again with export_gallery.py");
}

Pack Pack::read(const std::string& path) {
    Pack pack;
    pack.path = path;
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read; check the path");
    std::string line;
    if (!std::getline(file, line) || line != "fgsbir-edge-pack 1") pack.refuse("is not a pack of version 1");
    std::vector<std::string> order;
    while (std::getline(file, line) && !line.empty()) {
        const std::size_t space = line.find(' ');
        const std::string kind = line.substr(0, space), rest = space == std::string::npos ? "" : line.substr(space + 1);
        if (kind == "item") {
            pack.items.push_back(rest);
            continue;
        }
        std::istringstream parts(rest);
        std::string name;
        parts >> name;
        if (kind == "set") {
            std::getline(parts >> std::ws, pack.settings[name]);
        } else if (kind == "array") {
            if (pack.has(name)) pack.refuse("has the array " + name + " twice");
            Array& array = pack.arrays[name];
            std::int64_t count = 1;
            for (std::int64_t size; parts >> size; count *= size) {
                if (size < 0 || (size > 0 && count > kMaxNumbers / size)) pack.refuse("array " + name + " has an impossible size");
                array.shape.push_back(size);
            }
            order.push_back(name);
        } else {
            pack.refuse("has a line of an unknown kind, \"" + kind + "\"");
        }
    }
    if (!file) pack.refuse("is cut short in its text");
    const auto data = file.tellg();
    file.seekg(0, std::ios::end);
    std::int64_t left = static_cast<std::int64_t>(file.tellg() - data);
    file.seekg(data);
    for (const std::string& name : order) {
        Array& array = pack.arrays[name];
        std::int64_t count = 1;
        for (const std::int64_t size : array.shape) count *= size;
        if (4 * count > left) pack.refuse("is cut short in array " + name);  // before memory is taken for it
        array.values.resize(static_cast<std::size_t>(count));
        file.read(reinterpret_cast<char*>(array.values.data()), 4 * count);
        left -= 4 * count;
    }
    if (!file || left != 0) pack.refuse("does not end where its last array does");
    return pack;
}

const std::string& Pack::text(const std::string& name) const {
    const auto found = settings.find(name);
    if (found == settings.end()) refuse("lacks the setting " + name);
    return found->second;
}

std::vector<double> Pack::numbers(const std::string& name, std::size_t count) const {
    std::istringstream words_of(text(name));
    std::vector<double> found;
    for (std::string word; words_of >> word;) {
        char* end = nullptr;
        found.push_back(std::strtod(word.c_str(), &end));  // takes "inf", which a stream does not
        if (*end != '\0') refuse("the setting " + name + " is \"" + text(name) + "\", not " + std::to_string(count) + " number(s)");
    }
    if (found.size() != count) refuse("the setting " + name + " has " + std::to_string(found.size()) + " numbers");
    return found;
}

const Array& Pack::array(const std::string& name, const std::vector<std::int64_t>& shape) const {
    const auto found = arrays.find(name);
    if (found == arrays.end()) refuse("lacks the array " + name);
    bool fits = found->second.shape.size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == found->second.shape[i];
    if (!fits) refuse("array " + name + " is " + words(found->second.shape) + ", expected " + words(shape));
    return found->second;
}

}  // namespace robot
