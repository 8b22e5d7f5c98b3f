// Rows of features as galleries keep them, in float16, to float32.
#pragma once

#include <cstdint>

namespace fgsbir {

// out[i] = rows[places[i]] widened: rows [*, width] of IEEE halves, places [count], out [count, width]. Places are not checked.
void gather_half(const std::uint16_t* rows, std::int64_t width, const std::int64_t* places, std::int64_t count, float* out);

// out[i] = from[i] widened.
void widen_halves(const std::uint16_t* from, std::int64_t count, float* out);

}  // namespace fgsbir
