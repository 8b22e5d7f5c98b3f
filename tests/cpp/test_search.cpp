#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "flat_search.h"

namespace {

using Index = std::int64_t;

std::vector<float> random_floats(Index count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

// In double precision, one row after the other.
double product(const float* a, const float* b, Index width) {
    double sum = 0.0;
    for (Index l = 0; l < width; ++l) sum += static_cast<double>(a[l]) * b[l];
    return sum;
}

void top_is_a_sort(Index rows, Index width, Index queries, Index best, int threads, bool some) {
    const std::vector<float> table = random_floats(rows * width, 1), asked = random_floats(queries * width, 2);
    std::vector<std::uint8_t> allowed(static_cast<std::size_t>(rows));
    for (Index i = 0; i < rows; ++i) allowed[static_cast<std::size_t>(i)] = some ? i % 3 != 0 : 1;
    std::vector<float> products(static_cast<std::size_t>(queries * best));
    std::vector<Index> places(static_cast<std::size_t>(queries * best));
    fgsbir::top_products({table.data(), nullptr, rows, width}, asked.data(), queries, some ? allowed.data() : nullptr, best,
                         products.data(), places.data(), threads);
    for (Index q = 0; q < queries; ++q) {
        std::vector<double> expected;
        for (Index i = 0; i < rows; ++i) {
            if (allowed[static_cast<std::size_t>(i)] != 0) {
                expected.push_back(product(table.data() + i * width, asked.data() + q * width, width));
            }
        }
        std::sort(expected.rbegin(), expected.rend());
        for (Index i = 0; i < best; ++i) {
            const auto at = static_cast<std::size_t>(q * best + i);
            const double own = product(table.data() + places[at] * width, asked.data() + q * width, width);
            CHECK(std::abs(products[at] - expected[static_cast<std::size_t>(i)]) < 1e-3);
            CHECK(std::abs(products[at] - own) < 1e-3);
            CHECK(allowed[static_cast<std::size_t>(places[at])] != 0);
        }
    }
}

void equal_rows_in_order() {
    const std::vector<float> rows(999, 0.5F), query{1.0F};
    std::vector<float> products(20);
    std::vector<Index> places(20), expected(20);
    std::iota(expected.begin(), expected.end(), Index{0});
    for (const int threads : {1, 3}) {
        fgsbir::top_products({rows.data(), nullptr, 999, 1}, query.data(), 1, nullptr, 20, products.data(), places.data(), threads);
        CHECK(places == expected);
        CHECK(products == std::vector<float>(20, 0.5F));
    }
}

void odd_numbers() {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    const std::vector<float> rows{nan, -1.0F, -0.0F, infinite, 0.0F, -infinite, 2.0F}, query{1.0F};
    std::vector<float> products(7);
    std::vector<Index> places(7);
    fgsbir::top_products({rows.data(), nullptr, 7, 1}, query.data(), 1, nullptr, 7, products.data(), places.data(), 1);
    CHECK((places == std::vector<Index>{3, 6, 2, 4, 1, 0, 5}));
}

// One photo, by hand: u = 2 * (0.6, 0.8) + A (X f + 1), X f = 3, A = (1, -1).
void adapted_by_hand() {
    const std::vector<float> embeddings{9.0F, 9.0F, 0.6F, 0.8F}, lengths{1.0F, 2.0F}, support{1.0F, 1.0F}, coefficients{1.0F, -1.0F};
    const std::vector<std::uint16_t> features{0, 0, 0x3C00, 0x4000};  // 0, 0, 1, 2
    const std::vector<float> query{1.0F, 0.0F};
    const Index place = 1;
    float out = 0.0F;
    fgsbir::adapted_products(embeddings.data(), lengths.data(), features.data(), {support.data(), coefficients.data(), 1, 2, 2}, &place,
                             1, query.data(), &out);
    const float x = 1.2F + 4.0F, y = 1.6F - 4.0F;
    CHECK(std::abs(out - x / std::sqrt(x * x + y * y)) < 1e-6F);
}

}  // namespace

int main() {
    for (const bool some : {false, true}) {
        top_is_a_sort(1, 3, 1, 1, 1, false);
        top_is_a_sort(700, 64, 1, 26, 1, some);
        top_is_a_sort(700, 65, 3, 400, 1, some);
        top_is_a_sort(3001, 7, 70, 5, 3, some);
    }
    equal_rows_in_order();
    odd_numbers();
    adapted_by_hand();
    return check::finish();
}
