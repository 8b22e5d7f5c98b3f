// The span form: the descent on the outputs themselves, in the problem's own type; scalars of triplets in double.
//
// Distances are sums of squared differences, so nothing cancels where two outputs nearly agree. Of Q only the rows and columns of
// anchors and the diagonal are not zero: a gradient costs 2 anchors m D, and K V, moving^2 D, is what remains.
#include <algorithm>
#include <cmath>

#include "adapt_parts.h"

namespace fgsbir::adapt_parts {
namespace {

template <typename Real>
class SpanLoop {
  public:
    SpanLoop(const TaskView<Real>& task, Scratch& scratch)
        : task_(task),
          scratch_(scratch),
          s_(task.support),
          state_(task.graph, s_.items, scratch),
          ld_(s_.ld_width),
          begin_(std::min(task.graph.begin, task.graph.end)),
          end_(task.graph.end) {
        u_ = scratch.take<Real>(s_.moving * ld_);
        z_ = scratch.take<Real>(s_.items * ld_);
        gradient_ = scratch.take<Real>(s_.moving * ld_);
        v_ = scratch.zeros<Real>(s_.moving * ld_);
        a_ = scratch.zeros<Real>(s_.moving * ld_);
        q_ = scratch.take<Real>((end_ - begin_) * s_.items);
        std::copy_n(s_.outputs, s_.moving * ld_, u_);
    }

    void run() {
        const AdaptRule& rule = task_.rule;
        const RowKernels<Real>& k = row_loops<Real>();
        k.normalise(s_.outputs, z_, s_.items, ld_, state_.inverse, state_.square);
        for (Index step = 0;; ++step) {
            if (step > 0) k.normalise(u_, z_, s_.moving, ld_, state_.inverse, state_.square);
            k.squared_distances(z_, ld_, task_.graph.first, task_.graph.second, task_.graph.pairs, state_.squared);
            state_.distances();
            if (step == 0 && std::isnan(*task_.margin)) *task_.margin = state_.predict(task_.net, scratch_);
            task_.losses[step] = state_.measure(*task_.margin, rule.sharpness, step < rule.num_steps);
            if (step == rule.num_steps) return;
            state_.forces();
            fill_q();
            gradient();
            const Real rate = static_cast<Real>(rule.step_sizes[step]);
            k.descend(gradient_, z_, state_.diagonal, state_.inverse, s_.moving, ld_, static_cast<Real>(rule.momentum), rate, v_,
                      a_);
            products<Real>().combine(
                {s_.moving_gram, s_.ld_moving_gram, 1, v_, ld_, u_, ld_, u_, ld_, s_.moving, s_.moving, ld_, -rate});
        }
    }

    const Real* outputs() const { return u_; }
    Real* coefficients() const { return a_; }

  private:
    // q_ [end - begin, m]: rows of Q that belong to anchors, without the diagonal.
    void fill_q() {
        std::fill_n(q_, (end_ - begin_) * s_.items, Real{0});
        for (Index p = 0; p < task_.graph.pairs; ++p) {
            const Index a = task_.graph.first[p], b = task_.graph.second[p];
            const Real value = static_cast<Real>(state_.q[p]);
            q_[(a - begin_) * s_.items + b] -= value;
            if (b >= begin_ && b < end_) q_[(b - begin_) * s_.items + a] -= value;  // the other end is an anchor, too
        }
    }

    // gradient_i = sum over j of Q_ij z_j, without the diagonal: over all rows for anchors, over the anchors for the others.
    void gradient() {
        const Index moving_begin = std::min(begin_, s_.moving), moving_end = std::min(end_, s_.moving);
        from_anchors(0, moving_begin);
        products<Real>().combine({q_ + (moving_begin - begin_) * s_.items, s_.items, 1, z_, ld_, nullptr, 0,
                                  gradient_ + moving_begin * ld_, ld_, moving_end - moving_begin, s_.items, ld_, Real{1}});
        from_anchors(moving_end, s_.moving);
    }

    void from_anchors(Index first, Index last) {
        products<Real>().combine({q_ + first, 1, s_.items, z_ + begin_ * ld_, ld_, nullptr, 0, gradient_ + first * ld_, ld_,
                                  last - first, end_ - begin_, ld_, Real{1}});
    }

    const TaskView<Real>& task_;
    Scratch& scratch_;
    const Prepared<Real>& s_;
    TripletState state_;
    Index ld_, begin_, end_;              // anchors are positions begin .. end - 1
    Real *u_, *z_, *gradient_, *v_, *a_;  // [moving, ld], z_ [m, ld]
    Real* q_;
};

}  // namespace

template <typename Real>
Real* run_span(const TaskView<Real>& task, Scratch& scratch, Real* moved) {
    SpanLoop<Real> loop(task, scratch);
    loop.run();
    if (moved != nullptr) std::copy_n(loop.outputs(), task.support.moving * task.support.ld_width, moved);
    return loop.coefficients();
}

template float* run_span<float>(const TaskView<float>&, Scratch&, float*);
template double* run_span<double>(const TaskView<double>&, Scratch&, double*);

}  // namespace fgsbir::adapt_parts
