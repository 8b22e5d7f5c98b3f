// Search among embeddings, and products with rows of stored features, on the CPU.
#pragma once

#include <cstdint>

namespace fgsbir {

// Rows [count, width] in float32, or in IEEE halves: one of the two, the other is nullptr.
struct FlatRows {
    const float* wide;
    const std::uint16_t* half;
    std::int64_t count, width;
};

// For each of `queries_count` queries [*, width], the `best` largest inner products with rows, descending, equal ones in the order
// of the rows, and which rows these are: products and places [queries_count, best]. `allowed` [rows.count] or nullptr: rows that
// are 0 there are left out. At least `best` rows must be left, and at least one asked for; not checked. NaN counts as -infinity.
// The answer does not depend on the number of threads.
void top_products(const FlatRows& rows, const float* queries, std::int64_t queries_count, const std::uint8_t* allowed,
                  std::int64_t best, float* products, std::int64_t* places, int threads);

// out[i][j] = rows[places[i]] . factors[j]: rows [*, width] of IEEE halves, places [count], factors [factors_count, width].
// Places are not checked.
void half_products(const std::uint16_t* rows, std::int64_t width, const std::int64_t* places, std::int64_t count,
                   const float* factors, std::int64_t factors_count, float* out);

}  // namespace fgsbir
