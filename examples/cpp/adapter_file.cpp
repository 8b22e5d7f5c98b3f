// An adapter as a safetensors file: the length of a header, the header in JSON, the numbers.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "person.h"

namespace robot {

void save_adapter(const Model& model, const Adapter& adapter, const std::string& path) {
    const auto D = static_cast<std::size_t>(model.width), C = static_cast<std::size_t>(model.features);
    const std::size_t m = adapter.coefficients.size() / D;
    std::vector<float> columns(D * m);  // A [D, m]
    for (std::size_t j = 0; j < m; ++j)
        for (std::size_t d = 0; d < D; ++d) columns[d * m + j] = adapter.coefficients[j * D + d];

    std::string header = "{\"__metadata__\":{\"format\":\"fgsbir-edge-adapter-1\",\"head\":\"" + model.head_digest + "\",\"side\":\"" +
                         (model.photos_move ? "both" : "sketch") + "\",\"meta.features_digest\":\"" + model.features_digest + "\"}";
    std::string data;
    const auto add = [&](const char* name, const std::string& shape, const std::vector<float>& values) {
        const std::size_t start = data.size();
        data.resize(start + 4 * values.size());
        if (!values.empty()) std::memcpy(&data[start], values.data(), 4 * values.size());
        header += std::string(",\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape + "],\"data_offsets\":[" +
                  std::to_string(start) + "," + std::to_string(data.size()) + "]}";
    };
    add("coefficients", std::to_string(D) + "," + std::to_string(m), columns);
    add("support", std::to_string(m) + "," + std::to_string(C), adapter.support);
    if (!adapter.sketch_shift.empty()) add("sketch_shift", std::to_string(D), adapter.sketch_shift);
    header += "}";
    header.append((8 - header.size() % 8) % 8, ' ');

    const std::string part = path + ".part";  // written whole before it takes the name
    std::ofstream file(part, std::ios::binary);
    for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>((header.size() >> (8 * byte)) & 0xFF));
    file << header << data;
    file.close();
    if (!file || std::rename(part.c_str(), path.c_str()) != 0)
        throw std::runtime_error(path + ": cannot be written; choose a writable folder with free space");
}

}  // namespace robot
