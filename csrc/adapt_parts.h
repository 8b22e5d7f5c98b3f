// What the parts of adapt() on the CPU share. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "adapt.h"
#include "simd/adapt_kernels.h"

namespace fgsbir::adapt_parts {

using Index = std::int64_t;

// The tables of the instruction set in use.
template <typename Real>
const ProductKernels<Real>& products();
template <typename Real>
const RowKernels<Real>& row_loops();
const TripletKernels& triplet_loops();

constexpr Index padded(Index count) { return (count + kAdaptPad - 1) / kAdaptPad * kAdaptPad; }

// Memory that is taken piece by piece and given back all at once, aligned to 64 bytes. Every thread keeps its own between calls:
// fresh memory costs a page fault every 4 KiB, more than the arithmetic on it.
class Scratch {
  public:
    // The calling thread's own, empty.
    static Scratch& mine();

    template <typename T>
    T* take(Index count) {
        return static_cast<T*>(bytes(static_cast<std::size_t>(count) * sizeof(T)));
    }
    template <typename T>
    T* zeros(Index count) {
        T* memory = take<T>(count);
        std::memset(memory, 0, static_cast<std::size_t>(count) * sizeof(T));
        return memory;
    }

    // Everything taken after mark() is given back by rewind().
    struct Mark {
        std::size_t block, used;
    };
    Mark mark() const { return {block_, used_}; }
    void rewind(Mark mark) {
        block_ = mark.block;
        used_ = mark.used;
    }
    void trim();  // empty, and no more memory held than is worth keeping

  private:
    struct Block {
        std::unique_ptr<std::byte[]> memory;
        std::size_t size;
    };
    void* bytes(std::size_t count);

    std::vector<Block> blocks_;
    std::size_t block_ = 0, used_ = 0;
};

// A support as the loops want it: its rows in an order of their own, "positions", those that move first.
template <typename Real>
struct Prepared {
    Index items, moving, width;
    Index ld_width;             // padded(width)
    const std::int32_t* order;  // [m] row at each position
    const std::int32_t* place;  // [m] position of each row
    bool in_order;              // order is 0 .. m - 1
    const Real* gram;           // [m, m] by rows, as given
    const Real* outputs;        // [m, ld_width] by positions
    const Real* moving_gram;    // [moving, moving] by positions
    Index ld_moving_gram;
    // The Gram form's own, made by prepare_gram.
    Index ld_items, ld_moving;          // padded(items), padded(moving)
    const double* wide = nullptr;       // [m, ld_width] outputs
    const double* wide_gram = nullptr;  // [moving, ld_moving]
    const double* inner = nullptr;      // [m, ld_items] inner products of outputs
};

// shift [D] is added to the rows that supports.shifted names; nullptr: none.
template <typename Real>
Prepared<Real> prepare(const AdaptSupports<Real>& supports, Index support, const double* shift, Scratch& scratch);
template <typename Real>
void prepare_gram(Prepared<Real>& support, Scratch& scratch);

// The triplets of a task as pairs of positions whose distance they need, each pair once; arrays of pairs and triplets are padded.
struct TripletGraph {
    Index pairs;
    std::int32_t *first, *second;  // [pairs] anchor and other
    TripletRuns triplets;          // the two pairs of each
    Index begin, end;              // all anchors lie at positions begin .. end - 1
};

TripletGraph make_graph(const std::int32_t* triplets, Index count, const std::int32_t* place, Index items, Scratch& scratch);

// The scalars of a task's triplets at the present outputs, in double. A form fills inverse, square and squared; then measure()
// gives the loss and forces() the gradient: with z the unit outputs, dL/du_i = inverse_i (sum over j of Q_ij z_j), Q symmetric,
// Q_ij = -q of the pair (i, j), and Q_ii = diagonal_i, the radial part already taken off.
class TripletState {
  public:
    TripletState(const TripletGraph& graph, Index items, Scratch& scratch);

    double measure(double margin, double sharpness, bool with_slopes);  // L
    double predict(const AdaptMarginNet& net, Scratch& scratch) const;  // the network's margin; after distances()
    void distances();
    void forces();

    const TripletGraph& graph;
    Index items;
    double *inverse, *square;  // [m] 1 / max(|u|, 1e-12), and |z|^2
    double *scale, *squared;   // [pairs] for squared_from_inner; |z_a - z_b|^2
    double *q, *diagonal;      // [pairs], [m]

  private:
    double *distance_, *weight_, *inward_;  // [pairs]
    double *excess_, *slope_;               // [triplets]
};

// One task, ready to run: losses [T + 1] and margin are written, the rest is read.
template <typename Real>
struct TaskView {
    const Prepared<Real>& support;
    const TripletGraph& graph;
    const AdaptRule& rule;
    const AdaptMarginNet& net;
    double* losses;
    double* margin;  // in: NaN asks the network
};

// Both forms return coefficients [moving, ld_width] by positions in scratch memory, and write moved outputs [moving, ld_width]
// where `moved` is given. run_gram returns nullptr where it would lose its precision.
template <typename Real>
Real* run_gram(const TaskView<Real>& task, Scratch& scratch, Real* moved);
template <typename Real>
Real* run_span(const TaskView<Real>& task, Scratch& scratch, Real* moved);

// Whether the Gram form is the faster one.
template <typename Real>
bool prefers_gram(const Prepared<Real>& support, const TripletGraph& graph, Index steps);

// Ranks of a task's query before and after, coefficients as above (nullptr: nothing was learned). norms are the inverse norms of
// all pools' photos.
struct Ranks {
    std::int32_t base, adapted;
};
template <typename Real>
Ranks rank_query(const AdaptBatch<Real>& batch, Index task, const Prepared<Real>& support, const Real* coefficients,
                 const Real* norms, Scratch& scratch);

}  // namespace fgsbir::adapt_parts
