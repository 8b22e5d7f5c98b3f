// How a left-out sketch finds its photo before and after: the guard's statistics.
#include <algorithm>
#include <cmath>

#include "adapt_parts.h"

namespace fgsbir::adapt_parts {
namespace {

constexpr double kTie = 1e-6;  // as TIE in fgsbir_edge/ranking.py
constexpr Index kBlock = 64;   // photos that are moved at a time, so that they stay in the cache

template <typename Real>
void normalise_row(Real* row, Index width) {
    Real scale;
    row_loops<Real>().inverse_norms(row, width, 1, width, &scale);
    for (Index d = 0; d < width; ++d) row[d] *= scale;
}

// Where photos' inner products with the moving rows lie, and the coefficients in the order of those columns.
template <typename Real>
struct Shift {
    const Real* coefficients;
    Index depth;
};

template <typename Real>
Shift<Real> by_columns(const Prepared<Real>& support, const Real* coefficients, Scratch& scratch) {
    if (support.in_order) return {coefficients, support.moving};
    Real* rows = scratch.zeros<Real>(support.items * support.ld_width);
    for (Index i = 0; i < support.moving; ++i) {
        std::copy_n(coefficients + i * support.ld_width, support.ld_width, rows + support.order[i] * support.ld_width);
    }
    return {rows, support.items};
}

}  // namespace

template <typename Real>
Ranks rank_query(const AdaptBatch<Real>& batch, Index task, const Prepared<Real>& support, const Real* coefficients,
                 const Real* norms, Scratch& scratch) {
    const RowKernels<Real>& k = row_loops<Real>();
    const Index s = batch.tasks.support[task], pool = batch.pools.pool_of[s], query = batch.tasks.query[task];
    const Index first = batch.pools.row_offsets[pool], photos = batch.pools.row_offsets[pool + 1] - first;
    const Index width = support.width, ld = support.ld_width;
    const Real* rows = batch.pools.outputs + first * width;
    const Real* base_scale = norms + first;

    Real *base = scratch.zeros<Real>(ld), *adapted = scratch.take<Real>(ld);
    std::copy_n(batch.supports.outputs + (batch.supports.row_offsets[s] + query) * width, width, base);
    std::copy_n(base, ld, adapted);
    if (batch.tasks.shifts != nullptr && batch.supports.shifted[batch.supports.row_offsets[s] + query] != 0) {
        const double* shift = batch.tasks.shifts + task * width;
        for (Index d = 0; d < width; ++d) adapted[d] += static_cast<Real>(shift[d]);
    }
    if (coefficients != nullptr) {
        for (Index i = 0; i < support.moving; ++i) {
            const Real factor = support.gram[query * support.items + support.order[i]];
            const Real* row = coefficients + i * ld;
            for (Index d = 0; d < width; ++d) adapted[d] += factor * row[d];
        }
    }
    normalise_row(base, ld);
    normalise_row(adapted, ld);

    Real *before = scratch.take<Real>(photos), *after = scratch.take<Real>(photos);
    k.project(rows, width, photos, width, base_scale, base, adapted, before, after);
    if (coefficients != nullptr && batch.tasks.photos_move != 0) {
        const Shift<Real> shift = by_columns(support, coefficients, scratch);
        const Real* cross = batch.pools.cross + batch.pools.cross_offsets[s];
        Real *moved = scratch.take<Real>(kBlock * ld), *scale = scratch.take<Real>(kBlock), *unused = scratch.take<Real>(kBlock);
        for (Index i = 0; i < photos; i += kBlock) {
            const Index count = std::min(kBlock, photos - i);
            products<Real>().combine({cross + i * support.items, support.items, 1, shift.coefficients, ld, rows + i * width,
                                      width, moved, ld, count, shift.depth, width, Real{1}});
            k.inverse_norms(moved, ld, count, width, scale);
            k.project(moved, ld, count, width, scale, adapted, adapted, after + i, unused);
        }
    }
    const Index truth = batch.tasks.truth[task];
    const Real tie = static_cast<Real>(kTie);
    return {static_cast<std::int32_t>(k.count_not_below(before, photos, before[truth] - tie)),
            static_cast<std::int32_t>(k.count_not_below(after, photos, after[truth] - tie))};
}

template Ranks rank_query<float>(const AdaptBatch<float>&, Index, const Prepared<float>&, const float*, const float*, Scratch&);
template Ranks rank_query<double>(const AdaptBatch<double>&, Index, const Prepared<double>&, const double*, const double*,
                                  Scratch&);

}  // namespace fgsbir::adapt_parts
