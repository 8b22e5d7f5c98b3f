// float16 to float32, for each instruction set.
#pragma once

#include <cstdint>

namespace fgsbir {

// to[i] = the value of the IEEE half with bits from[i]; exact, NaN stays NaN.
namespace baseline {
void widen_half(const std::uint16_t* from, float* to, std::int64_t count);
}
namespace avx2 {
void widen_half(const std::uint16_t* from, float* to, std::int64_t count);
}
namespace avx512 {
void widen_half(const std::uint16_t* from, float* to, std::int64_t count);
}

}  // namespace fgsbir
