// The head's side of adaptation: outputs and inner products from features, and the changed head written out.
#include <vector>

#include "adapt.h"
#include "parallel.h"

namespace fgsbir {

template <typename Real>
void head_outputs(const AdaptHead<Real>& head, const Real* features, std::int64_t count, Real* outputs, int threads) {
    run_workers(count, threads, [&](ItemQueue& queue) {
        for (std::int64_t i = 0; queue.take(i);) {
            for (std::int64_t d = 0; d < head.width; ++d) {
                Real sum = Real{0};
                for (std::int64_t c = 0; c < head.features; ++c) {
                    sum += features[i * head.features + c] * head.weight[d * head.features + c];
                }
                outputs[i * head.width + d] = sum + head.bias[d];
            }
        }
    });
}

template <typename Real>
void gram_products(const Real* rows, std::int64_t count, const Real* others, std::int64_t others_count, std::int64_t features,
                   Real* products, int threads) {
    run_workers(count, threads, [&](ItemQueue& queue) {
        for (std::int64_t i = 0; queue.take(i);) {
            for (std::int64_t j = 0; j < others_count; ++j) {
                Real sum = Real{0};
                for (std::int64_t c = 0; c < features; ++c) sum += rows[i * features + c] * others[j * features + c];
                products[i * others_count + j] = sum + Real{1};
            }
        }
    });
}

template <typename Real>
void form_head(const AdaptHead<Real>& head, const Real* coefficients, const Real* features, std::int64_t items, Real* weight,
               Real* bias, int threads) {
    run_workers(head.width, threads, [&](ItemQueue& queue) {
        for (std::int64_t d = 0; queue.take(d);) {
            Real* row = weight + d * head.features;
            Real shift = Real{0};
            if (row != head.weight + d * head.features) {
                for (std::int64_t c = 0; c < head.features; ++c) row[c] = head.weight[d * head.features + c];
            }
            for (std::int64_t i = 0; i < items; ++i) {
                const Real factor = coefficients[i * head.width + d];
                for (std::int64_t c = 0; c < head.features; ++c) row[c] += factor * features[i * head.features + c];
                shift += factor;
            }
            bias[d] = head.bias[d] + shift;
        }
    });
}

#define FGSBIR_INSTANTIATE(Real)                                                                                                  \
    template void head_outputs<Real>(const AdaptHead<Real>&, const Real*, std::int64_t, Real*, int);                              \
    template void gram_products<Real>(const Real*, std::int64_t, const Real*, std::int64_t, std::int64_t, Real*, int);            \
    template void form_head<Real>(const AdaptHead<Real>&, const Real*, const Real*, std::int64_t, Real*, Real*, int);
FGSBIR_INSTANTIATE(float)
FGSBIR_INSTANTIATE(double)
#undef FGSBIR_INSTANTIATE

}  // namespace fgsbir
