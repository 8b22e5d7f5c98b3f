// What the functions for CUDA throw.
#pragma once

#include <stdexcept>

namespace fgsbir::cuda {

// CUDA refused or failed; what() says what was tried, CUDA's own words and the remedy.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace fgsbir::cuda
