// The Gram form: the descent in inner products alone. Everything here is double, whatever the problem's type.
//
// dL/dU is a combination of the outputs themselves, Q^ U with Q^_ij = inverse_i Q_ij inverse_j, so U_t = M_t U_0 with M (m x m),
// and inner products are R_t = M R_0 M^T. What is kept is N = M^T: then every product below is "broadcast a number, add a row",
// and rows run along the moving items alone, since the other columns of N stay those of the identity.
//
//     T = R_0 N                      (m x moving)
//     R of moving rows = N^T T       of which anchors' rows and the diagonal are needed; with a row that stays, R_ja = T_ja
//     V = momentum V + N Q^ + [0; Q^ of the rows that stay]
//     N -= alpha V K,  B -= alpha V  (B is A in the span of U_0: A = B^T U_0)
//
// Where outputs are linearly dependent (more items than dimensions, or a row twice), N is not unique, and nothing but the size of
// the steps keeps its superfluous part small; should that part outgrow the outputs themselves, U_t = N^T U_0 loses its digits.
// How much is known at every step from the sum of |N_li| |u_l| over |u_i|: past a limit the loop gives up, and the span form
// takes over.
#include <algorithm>
#include <cmath>
#include <limits>

#include "adapt_parts.h"

namespace fgsbir::adapt_parts {
namespace {

template <typename Real>
class GramLoop {
  public:
    GramLoop(const TaskView<Real>& task, Scratch& scratch)
        : task_(task),
          scratch_(scratch),
          s_(task.support),
          state_(task.graph, s_.items, scratch),
          begin_(std::min(task.graph.begin, s_.moving)),
          end_(std::min(task.graph.end, s_.moving)) {
        const Index pairs = task.graph.pairs, matrix = s_.items * s_.ld_moving;
        at_first_ = scratch.zeros<std::int32_t>(padded(pairs));
        at_ = scratch.zeros<std::int32_t>(padded(pairs));
        moving_inner_ = scratch.take<double>((end_ - begin_) * s_.ld_moving + matrix + pairs);
        t_ = moving_inner_ + (end_ - begin_) * s_.ld_moving;
        double* constant = t_ + matrix;
        n_ = scratch.zeros<double>(matrix);
        v_ = scratch.zeros<double>(matrix);
        b_ = scratch.zeros<double>(matrix);
        q_ = scratch.zeros<double>(matrix);
        squares_ = scratch.zeros<double>(s_.ld_items);
        sizes_ = scratch.zeros<double>(s_.ld_moving);
        lengths_ = scratch.take<double>(s_.items);
        for (Index i = 0; i < s_.moving; ++i) n_[i * s_.ld_moving + i] = 1.0;
        for (Index p = 0; p < pairs; ++p) {
            const Index a = task.graph.first[p], b = task.graph.second[p];
            const Index first = a * s_.ld_items + b;
            at_first_[p] = static_cast<std::int32_t>(first);
            constant[p] = s_.inner[first];
            const bool a_moves = a < s_.moving, b_moves = b < s_.moving;
            const double* now = a_moves && b_moves ? moving_inner_ + (a - begin_) * s_.ld_moving + b
                                : a_moves          ? t_ + b * s_.ld_moving + a
                                : b_moves          ? t_ + a * s_.ld_moving + b
                                                   : constant + p;
            at_[p] = static_cast<std::int32_t>(now - moving_inner_);
        }
    }

    // Whether it came through with its precision.
    bool run() {
        const AdaptRule& rule = task_.rule;
        for (Index step = 0;; ++step) {
            step == 0 ? first_inner() : inner();
            if (step > 0 && lost_digits()) return false;
            if (step == 0 && std::isnan(*task_.margin)) *task_.margin = state_.predict(task_.net, scratch_);
            task_.losses[step] = state_.measure(*task_.margin, rule.sharpness, step < rule.num_steps);
            if (step == rule.num_steps) return true;
            state_.forces();
            fill_q();
            velocity(step == 0, rule.momentum);
            move(rule.step_sizes[step]);
        }
    }

    // The coefficients, B^T U_0, and the outputs after the last step, N^T U_0: [moving, ld_width], in the problem's type.
    void coefficients(Real* rows) const { combine(b_, rows); }
    void outputs(Real* rows) const { combine(n_, rows); }

  private:
    // Factors that are much larger than what they make must not be rounded to the problem's type first: it would show. So it is
    // with superfluous parts, and with two outputs so near to each other that their directions apart come from small differences.
    void combine(const double* factors, Real* rows) const {
        const Index ld = s_.ld_width, count = s_.items * s_.ld_moving, made = s_.moving * ld;
        if (excess_ < 8.0 && nearest_ > 1.0 / 64.0) {
            Real* narrow = scratch_.take<Real>(count);
            for (Index i = 0; i < count; ++i) narrow[i] = static_cast<Real>(factors[i]);
            products<Real>().combine(
                {narrow, 1, s_.ld_moving, s_.outputs, ld, nullptr, 0, rows, ld, s_.moving, s_.items, ld, Real{1}});
        } else {
            double* wide = scratch_.take<double>(made);
            products<double>().combine(
                {factors, 1, s_.ld_moving, s_.wide, ld, nullptr, 0, wide, ld, s_.moving, s_.items, ld, 1.0});
            for (Index i = 0; i < made; ++i) rows[i] = static_cast<Real>(wide[i]);
        }
    }

    void first_inner() {
        for (Index i = 0; i < s_.items; ++i) squares_[i] = s_.inner[i * s_.ld_items + i];
        for (Index i = 0; i < s_.items; ++i) lengths_[i] = std::sqrt(squares_[i]);
        roots(s_.items);
        pairs(s_.inner, at_first_);
    }

    // A rounding error of N is as large as N, not as the outputs it is made for, and inner products take it twice.
    bool lost_digits() {
        constexpr double most = std::numeric_limits<Real>::digits > 24 ? 30.0 : 1e3;
        for (Index i = 0; i < s_.moving; ++i) excess_ = std::max(excess_, sizes_[i] * state_.inverse[i]);
        return excess_ > most;
    }

    void inner() {
        const Index ld = s_.ld_moving;
        const ProductKernels<double>& k = products<double>();
        k.combine({s_.inner, s_.ld_items, 1, n_, ld, nullptr, 0, t_, ld, s_.items, s_.items, ld, 1.0});
        k.combine({n_ + begin_, 1, ld, t_, ld, nullptr, 0, moving_inner_, ld, end_ - begin_, s_.items, ld, 1.0});
        triplet_loops().column_dots(n_, t_, lengths_, s_.items, ld, squares_, sizes_);
        roots(s_.moving);
        pairs(moving_inner_, at_);
    }

    // squares_ -> inverse and square of the first `count` items
    void roots(Index count) {
        triplet_loops().inverse_roots(squares_, count, static_cast<double>(std::numeric_limits<Real>::max()), state_.inverse,
                                      state_.square);
    }

    void pairs(const double* from, const std::int32_t* at) {
        triplet_loops().squared_from_inner(from, at, task_.graph.first, task_.graph.second, state_.inverse, state_.square,
                                           task_.graph.pairs, state_.scale, state_.squared);
        for (Index p = 0; p < task_.graph.pairs; ++p) {
            if (state_.squared[p] < nearest_ && state_.squared[p] > 1e-12) nearest_ = state_.squared[p];
        }
        state_.distances();
    }

    // q_ [m, ld_moving]: columns of Q^ that belong to moving items.
    void fill_q() {
        const Index ld = s_.ld_moving;
        std::fill_n(q_, s_.items * ld, 0.0);
        for (Index p = 0; p < task_.graph.pairs; ++p) {
            const Index a = task_.graph.first[p], b = task_.graph.second[p];
            const double value = state_.q[p] * state_.scale[p];
            if (a < s_.moving) q_[b * ld + a] -= value;
            if (b < s_.moving) q_[a * ld + b] -= value;
        }
        for (Index i = 0; i < s_.moving; ++i) q_[i * ld + i] += state_.diagonal[i] * state_.inverse[i] * state_.inverse[i];
    }

    // V = momentum V + N Q^ + [0; Q^ of the rows that stay]; N is the identity at first.
    void velocity(bool first, double momentum) {
        const Index ld = s_.ld_moving, top = s_.moving * ld, all = s_.items * ld;
        if (first) {
            std::copy_n(q_, all, v_);
            return;
        }
        if (momentum == 0.0) {
            std::fill_n(v_, top, 0.0);
            std::copy_n(q_ + top, all - top, v_ + top);
        } else {
            for (Index i = 0; i < all; ++i) v_[i] = momentum * v_[i] + (i < top ? 0.0 : q_[i]);
        }
        if (3 * (end_ - begin_) < s_.moving) {
            add_by_anchors();
        } else {
            products<double>().combine({n_, ld, 1, q_, ld, v_, ld, v_, ld, s_.items, s_.moving, ld, 1.0});
        }
    }

    // V += N Q^ where few rows are anchors, hence most of Q^ is zero: the diagonal, the anchors' rows, and their columns.
    void add_by_anchors() {
        const Index ld = s_.ld_moving, anchors = end_ - begin_;
        const ProductKernels<double>& k = products<double>();
        for (Index i = 0; i < s_.moving; ++i) squares_[i] = i < begin_ || i >= end_ ? q_[i * ld + i] : 0.0;
        std::fill(squares_ + s_.moving, squares_ + ld, 0.0);
        row_loops<double>().add_scaled_columns(n_, squares_, s_.items, ld, v_);
        k.combine({n_ + begin_, ld, 1, q_ + begin_ * ld, ld, v_, ld, v_, ld, s_.items, anchors, ld, 1.0});
        for (Index a = begin_; a < end_; ++a) std::fill(q_ + a * ld + begin_, q_ + a * ld + end_, 0.0);  // done by the line above
        k.dots({n_, ld, s_.items, q_ + begin_ * ld, ld, anchors, s_.moving, nullptr, 0.0, false, t_, ld});
        for (Index i = 0; i < s_.items; ++i) {
            for (Index a = 0; a < anchors; ++a) v_[i * ld + begin_ + a] += t_[i * ld + a];
        }
    }

    void move(double rate) {
        const Index ld = s_.ld_moving;
        products<double>().combine({v_, ld, 1, s_.wide_gram, ld, n_, ld, n_, ld, s_.items, s_.moving, ld, -rate});
        for (Index i = 0; i < s_.items * ld; ++i) b_[i] -= rate * v_[i];
    }

    const TaskView<Real>& task_;
    Scratch& scratch_;
    const Prepared<Real>& s_;
    TripletState state_;
    Index begin_, end_;             // moving anchors
    std::int32_t *at_first_, *at_;  // [pairs] where a pair's inner product lies, in s_.inner and from moving_inner_
    double *moving_inner_, *t_;     // [end - begin, ld_moving], [m, ld_moving]
    double *n_, *v_, *b_, *q_;      // [m, ld_moving]
    double *squares_, *lengths_;    // [m] |u|^2 at present, |u| at first
    double* sizes_;                 // [moving] sum over l of |N_li| |u_l|
    double excess_ = 1.0;           // the largest of that over |u_i| so far
    double nearest_ = 4.0;          // the smallest squared distance so far that is not at its floor
};

}  // namespace

template <typename Real>
Real* run_gram(const TaskView<Real>& task, Scratch& scratch, Real* moved) {
    GramLoop<Real> loop(task, scratch);
    if (!loop.run()) return nullptr;
    const Index count = task.support.moving * task.support.ld_width;
    Real* coefficients = scratch.take<Real>(count);
    loop.coefficients(coefficients);
    if (moved != nullptr) loop.outputs(moved);
    return coefficients;
}

template float* run_gram<float>(const TaskView<float>&, Scratch&, float*);
template double* run_gram<double>(const TaskView<double>&, Scratch&, double*);

}  // namespace fgsbir::adapt_parts
