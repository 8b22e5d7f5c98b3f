// The head's side of adaptation: outputs and inner products from features, and the changed head written out.
#include <algorithm>

#include "adapt.h"
#include "adapt_parts.h"
#include "parallel.h"

namespace fgsbir {
namespace {

using adapt_parts::Index;

// Splits `count` rows in blocks, an item of work each: all of them for one thread, which then streams the other operand once.
template <typename Work>
void in_blocks(Index count, int threads, Index smallest, Work&& work) {
    const Index block = threads <= 1 ? std::max<Index>(count, 1) : smallest;
    run_workers((count + block - 1) / block, threads, [&](ItemQueue& queue) {
        for (Index item = 0; queue.take(item);) work(item * block, std::min(block, count - item * block));
    });
}

constexpr Index kRows = 96;  // a multiple of every tile's height, so that blocks change no sum

}  // namespace

template <typename Real>
void head_outputs(const AdaptHead<Real>& head, const Real* features, std::int64_t count, Real* outputs, int threads) {
    in_blocks(count, threads, kRows, [&](Index first, Index rows) {
        adapt_parts::products<Real>().dots({features + first * head.features, head.features, rows, head.weight, head.features,
                                            head.width, head.features, head.bias, Real{0}, false, outputs + first * head.width,
                                            head.width});
    });
}

template <typename Real>
void gram_products(const Real* rows, std::int64_t count, const Real* others, std::int64_t others_count, std::int64_t features,
                   Real* products, int threads) {
    const bool symmetric = rows == others && count == others_count;
    in_blocks(count, symmetric ? 1 : threads, kRows, [&](Index first, Index block) {
        adapt_parts::products<Real>().dots({rows + first * features, features, block, others, features, others_count, features,
                                            nullptr, Real{1}, symmetric, products + first * others_count, others_count});
    });
    for (Index i = 0; symmetric && i < count; ++i) {
        for (Index j = i + 1; j < count; ++j) products[i * count + j] = products[j * count + i];
    }
}

template <typename Real>
void form_head(const AdaptHead<Real>& head, const Real* coefficients, const Real* features, std::int64_t items, Real* weight,
               Real* bias, int threads) {
    in_blocks(head.width, threads, kRows, [&](Index first, Index rows) {
        adapt_parts::products<Real>().combine({coefficients + first, 1, head.width, features, head.features,
                                               head.weight + first * head.features, head.features, weight + first * head.features,
                                               head.features, rows, items, head.features, Real{1}});
        if (bias != head.bias) std::copy_n(head.bias + first, rows, bias + first);
        for (Index i = 0; i < items; ++i) {
            for (Index d = first; d < first + rows; ++d) bias[d] += coefficients[i * head.width + d];
        }
    });
}

#define FGSBIR_INSTANTIATE(Real)                                                                                       \
    template void head_outputs<Real>(const AdaptHead<Real>&, const Real*, std::int64_t, Real*, int);                   \
    template void gram_products<Real>(const Real*, std::int64_t, const Real*, std::int64_t, std::int64_t, Real*, int); \
    template void form_head<Real>(const AdaptHead<Real>&, const Real*, const Real*, std::int64_t, Real*, Real*, int);
FGSBIR_INSTANTIATE(float)
FGSBIR_INSTANTIATE(double)
#undef FGSBIR_INSTANTIATE

}  // namespace fgsbir
