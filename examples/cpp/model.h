// What a robot needs of a model and a gallery to draw, adapt and search: all of it from one pack.
#pragma once

#include <fgsbir/adapt.h>
#include <fgsbir/rasterize.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pack.h"

namespace robot {

struct Model {
    std::int64_t features, width;       // C, D
    std::vector<float> weight, bias;    // W [D, C], b [D]
    std::vector<double> step_sizes;     // [T]
    std::vector<float> margin_net;      // packed as fgsbir::AdaptMarginNet has it; empty: `margin` is used
    double margin, sharpness, centre;   // centre: p of the shift; infinity: no shift
    bool photos_move;                   // side "both"
    fgsbir::AdaptNegatives negatives;
    std::vector<std::string> photos;    // [N]
    std::vector<float> photo_features;  // [N, C]
    std::vector<float> photo_embeddings;  // [N, D] by the base head
    std::string head_digest, features_digest;  // an adapter's file names them
    fgsbir::RasterParams input;         // how the encoder wants a sketch drawn

    // Throws std::runtime_error.
    explicit Model(const Pack& pack);

    fgsbir::AdaptHead<float> head() const { return {weight.data(), bias.data(), width, features}; }
    std::int64_t count() const { return static_cast<std::int64_t>(photos.size()); }
    const float* features_of(std::int64_t photo) const { return photo_features.data() + photo * features; }
    // Place of a photo. Throws std::runtime_error.
    std::int64_t place(const std::string& photo) const;
};

// One person's change of the head, W' = W + A X and b' = b + A 1, and what all sketches are moved by. Empty: the base head.
struct Adapter {
    std::vector<float> coefficients;  // [m, D] A transposed
    std::vector<float> support;       // [m, C] X
    std::vector<float> sketch_shift;  // [D], or empty
};

}  // namespace robot
