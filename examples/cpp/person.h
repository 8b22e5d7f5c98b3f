// From pairs of a sketch and the photo it means to an adapter, with the checks that Python's adapt() makes.
#pragma once

#include <string>
#include <vector>

#include "model.h"

namespace robot {

struct Pair {
    const float* sketch;  // [C] features
    std::int64_t photo;   // place in the gallery
};

struct Learned {
    Adapter adapter;             // empty where the base head stays
    bool adapted;
    std::string explanation;     // one sentence
    std::vector<double> losses;  // [T + 1]; empty where one photo alone was shown
};

// Pairs may share a photo. From three pairs on each is left out once, and the base head stays where the photos of those left out
// get clearly harder to find. Throws std::runtime_error on no pairs.
Learned learn(const Model& model, const std::vector<Pair>& pairs, int threads = 1);

// Writes the adapter so that Python's Engine.load_adapter, and `fgsbir-edge query --adapter`, take it. Throws std::runtime_error.
void save_adapter(const Model& model, const Adapter& adapter, const std::string& path);

}  // namespace robot
