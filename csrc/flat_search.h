// Search among embeddings, and among those of some photos as an adapter changes them, on the CPU.
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
// The answer does not depend on the number of threads. Throws std::length_error beyond 2^32 rows.
void top_products(const FlatRows& rows, const float* queries, std::int64_t queries_count, const std::uint8_t* allowed,
                  std::int64_t best, float* products, std::int64_t* places, int threads);

// An adapter's low-rank change of outputs: A (X f + 1), with support X [rank, features] and coefficients A [width, rank].
struct LowRank {
    const float *support, *coefficients;
    std::int64_t rank, width, features;
};

// For photos at `places` [count] the inner product of a unit query [width] with their embeddings by an adapter: u . query / |u|,
// u = embeddings[place] * lengths[place] + A (X f + 1). embeddings [*, width] have unit length and lengths [*] are those of the
// outputs they were made from; features [*, change.features] are IEEE halves. Places are not checked. out [count].
void adapted_products(const float* embeddings, const float* lengths, const std::uint16_t* features, const LowRank& change,
                      const std::int64_t* places, std::int64_t count, const float* query, float* out);

}  // namespace fgsbir
