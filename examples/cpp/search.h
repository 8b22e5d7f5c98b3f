// The nearest photos of a sketch, by the base head or by a person's adapter.
#pragma once

#include <vector>

#include "model.h"

namespace robot {

struct Hit {
    std::int64_t photo;  // place in the gallery
    double distance;     // Euclidean between unit vectors, 0 to 2
};

// The k nearest, nearest first; similarities that differ by less than 1e-6 tie, and ties come in the gallery's order.
// Holds a reference to the model; photos are embedded anew only where the adapter moves them, once, here.
class Searcher {
  public:
    Searcher(const Model& model, const Adapter& adapter, int threads = 1);
    std::vector<Hit> search(const float* sketch, std::size_t k) const;  // sketch: features [C]

  private:
    const Model& model_;
    Adapter adapter_;
    std::vector<float> moved_;  // [N, D] embeddings, where photos move
    int threads_;
};

}  // namespace robot
