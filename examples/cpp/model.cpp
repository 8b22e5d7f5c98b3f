#include "model.h"

#include <algorithm>
#include <stdexcept>

namespace robot {
namespace {

constexpr double kMinSize = 8, kMaxSize = 2048;  // pixels a side, as fgsbir_edge/preprocess.py

// Whether the setting has the second of two values.
bool second(const Pack& pack, const std::string& name, const char* first, const char* other) {
    const std::string& value = pack.text(name);
    if (value != first && value != other) pack.refuse("the setting " + name + " is \"" + value + "\"");
    return value == other;
}

std::array<float, 3> triple(const Pack& pack, const std::string& name) {
    const std::vector<double> values = pack.numbers(name, 3);
    return {static_cast<float>(values[0]), static_cast<float>(values[1]), static_cast<float>(values[2])};
}

}  // namespace

Model::Model(const Pack& pack) : photos(pack.items) {
    const Array& W = pack.array("weight", {-1, -1});
    width = W.shape[0];
    features = W.shape[1];
    weight = W.values;
    if (width < 1 || features < 1) pack.refuse("array weight is empty");
    bias = pack.array("bias", {width}).values;
    const std::vector<float>& sizes = pack.array("step_sizes", {-1}).values;
    step_sizes.assign(sizes.begin(), sizes.end());
    if (pack.has("margin_net")) margin_net = pack.array("margin_net", {-1}).values;
    std::size_t hidden = 1;
    while (2 * hidden * hidden + 6 * hidden + 1 < margin_net.size()) ++hidden;
    if (!margin_net.empty() && 2 * hidden * hidden + 6 * hidden + 1 != margin_net.size())
        pack.refuse("array margin_net has an impossible size");
    photo_features = pack.array("photo_features", {count(), features}).values;
    photo_embeddings = pack.array("photo_embeddings", {count(), width}).values;
    margin = pack.number("margin");
    sharpness = pack.number("sharpness");
    centre = pack.number("centre");
    photos_move = second(pack, "side", "sketch", "both");
    negatives = second(pack, "negatives", "support", "gallery") ? fgsbir::AdaptNegatives::gallery : fgsbir::AdaptNegatives::support;
    head_digest = pack.text("head_digest");
    features_digest = pack.text("features_digest");
    const double size = pack.number("size");
    if (!(size >= kMinSize && size <= kMaxSize)) pack.refuse("the setting size is \"" + pack.text("size") + "\"");
    input.height = input.width = static_cast<int>(size);
    input.style = second(pack, "style", "bresenham", "antialias") ? fgsbir::RasterStyle::antialias : fgsbir::RasterStyle::bresenham;
    input.line_width = static_cast<float>(pack.number("line_width"));
    input.dark = second(pack, "ink", "light", "dark");
    input.mean = triple(pack, "mean");
    input.stddev = triple(pack, "std");
}

std::int64_t Model::place(const std::string& photo) const {
    const auto found = std::find(photos.begin(), photos.end(), photo);
    if (found == photos.end()) throw std::runtime_error("photo \"" + photo + "\" is not in the gallery; its names are in the pack");
    return found - photos.begin();
}

}  // namespace robot
