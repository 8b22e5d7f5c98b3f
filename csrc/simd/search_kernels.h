// Inner products of many rows with one query, for each instruction set. No inline functions in here: see CMakeLists.txt.
#pragma once

#include <cstdint>

namespace fgsbir {

// out[i] = rows[i] . query: rows [count, width] in float32 (`wide`) or in IEEE halves (`half`), sums in float32.
struct SearchKernels {
    void (*wide)(const float* rows, std::int64_t count, std::int64_t width, const float* query, float* out);
    void (*half)(const std::uint16_t* rows, std::int64_t count, std::int64_t width, const float* query, float* out);
};

namespace baseline {
extern const SearchKernels search_kernels;
}
namespace avx2 {
extern const SearchKernels search_kernels;
}
namespace avx512 {
extern const SearchKernels search_kernels;
}

}  // namespace fgsbir
