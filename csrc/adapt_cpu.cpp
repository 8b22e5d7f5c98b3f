#include "adapt.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace fgsbir {
namespace {

void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument("adapt: " + message);
}

template <typename Real>
void check(const AdaptProblem<Real>& p) {
    require(p.items >= 1 && p.width >= 1, "outputs are [" + std::to_string(p.items) + ", " + std::to_string(p.width) +
                                              "], expected at least one item and one dimension");
    require(p.num_triplets >= 1, "no triplets; give at least one (anchor, positive, negative)");
    require(p.num_steps >= 0, "the number of steps is negative");
    require(p.sharpness >= Real{0} && std::isfinite(p.sharpness),
            "sharpness is " + std::to_string(p.sharpness) + ", expected 0 (hinge) or a positive number");
    for (std::int64_t i = 0; i < 3 * p.num_triplets; ++i) {
        require(p.triplets[i] >= 0 && p.triplets[i] < p.items,
                "triplets[" + std::to_string(i / 3) + "] names item " + std::to_string(p.triplets[i]) + ", but there are " +
                    std::to_string(p.items));
    }
}

// Eight running sums let the compiler use vector registers without reordering anything from run to run.
template <typename Real>
Real dot(const Real* a, const Real* b, std::int64_t count) {
    Real lane[8] = {};
    std::int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (std::int64_t l = 0; l < 8; ++l) lane[l] += a[i + l] * b[i + l];
    }
    for (; i < count; ++i) lane[i % 8] += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// y += factor * x
template <typename Real>
void add_scaled(Real* y, Real factor, const Real* x, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

// The comparisons below are written so that a NaN comes out as NaN.
template <typename Real>
Real at_least(Real value, Real floor) {
    return value < floor ? floor : value;
}

template <typename Real>
class Loop {
  public:
    Loop(const AdaptProblem<Real>& problem, Real* outputs)
        : p_(problem),
          outputs_(outputs),
          unit_(size(p_.items * p_.width)),
          gradient_(size(p_.items * p_.width)),
          norm_(size(p_.items)),
          to_positive_(size(p_.width)),
          to_negative_(size(p_.width)) {}

    // L at the present outputs.
    double loss() {
        normalise();
        double sum = 0.0;
        for (std::int64_t t = 0; t < p_.num_triplets; ++t) sum += static_cast<double>(penalty(measure(p_.triplets + 3 * t)));
        return sum / static_cast<double>(p_.num_triplets);
    }

    // L, and dL/dU of the moving rows in row(gradient_, i). Rows that do not move are left alone and never read.
    double loss_and_gradient() {
        normalise();
        std::fill(gradient_.begin(), gradient_.end(), Real{0});
        const Real share = Real{1} / static_cast<Real>(p_.num_triplets);
        double sum = 0.0;
        for (std::int64_t t = 0; t < p_.num_triplets; ++t) {
            const std::int32_t* triplet = p_.triplets + 3 * t;
            const Sides sides = measure(triplet);
            sum += static_cast<double>(penalty(sides));
            const Real slope = share * penalty_slope(sides);
            if (slope == Real{0}) continue;
            Real* anchor = row(gradient_, triplet[0]);
            // d grows away from the other end: dd/dz = (z - z') / d. At the floor of the distance it is constant.
            if (!(sides.positive_squared < kFloor)) {
                const Real pull = slope / sides.positive;
                add_scaled(anchor, pull, to_positive_.data(), p_.width);
                add_scaled(row(gradient_, triplet[1]), -pull, to_positive_.data(), p_.width);
            }
            if (!(sides.negative_squared < kFloor)) {
                const Real push = slope / sides.negative;
                add_scaled(anchor, -push, to_negative_.data(), p_.width);
                add_scaled(row(gradient_, triplet[2]), push, to_negative_.data(), p_.width);
            }
        }
        for (std::int64_t i = 0; i < p_.items; ++i) {
            if (p_.moves[i]) through_normalisation(i);
        }
        return sum / static_cast<double>(p_.num_triplets);
    }

    // U -= alpha gram G, A -= alpha G.
    void step(Real alpha, Real* coefficients) {
        for (std::int64_t i = 0; i < p_.items; ++i) {
            if (!p_.moves[i]) continue;
            Real* u = outputs_ + i * p_.width;
            for (std::int64_t j = 0; j < p_.items; ++j) {
                if (p_.moves[j]) add_scaled(u, -alpha * p_.gram[i * p_.items + j], row(gradient_, j), p_.width);
            }
            add_scaled(coefficients + i * p_.width, -alpha, row(gradient_, i), p_.width);
        }
    }

  private:
    static constexpr Real kFloor = static_cast<Real>(1e-12);  // of squared distances and of norms

    // The two distances of a triplet.
    struct Sides {
        Real positive_squared, positive, negative_squared, negative;
    };

    static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
    Real* row(std::vector<Real>& matrix, std::int64_t i) const { return matrix.data() + i * p_.width; }

    void normalise() {
        for (std::int64_t i = 0; i < p_.items; ++i) {
            const Real* u = outputs_ + i * p_.width;
            const Real norm = at_least(std::sqrt(dot(u, u, p_.width)), kFloor);
            norm_[size(i)] = norm;
            Real* z = row(unit_, i);
            for (std::int64_t k = 0; k < p_.width; ++k) z[k] = u[k] / norm;
        }
    }

    // Distances of one triplet; leaves z_a - z_p and z_a - z_n in the scratch rows.
    Sides measure(const std::int32_t* triplet) {
        const Real *a = row(unit_, triplet[0]), *p = row(unit_, triplet[1]), *n = row(unit_, triplet[2]);
        for (std::int64_t k = 0; k < p_.width; ++k) {
            to_positive_[size(k)] = a[k] - p[k];
            to_negative_[size(k)] = a[k] - n[k];
        }
        Sides sides;
        sides.positive_squared = dot(to_positive_.data(), to_positive_.data(), p_.width);
        sides.negative_squared = dot(to_negative_.data(), to_negative_.data(), p_.width);
        sides.positive = std::sqrt(at_least(sides.positive_squared, kFloor));
        sides.negative = std::sqrt(at_least(sides.negative_squared, kFloor));
        return sides;
    }

    Real excess(const Sides& sides) const { return p_.margin + sides.positive - sides.negative; }

    // softplus_b without overflow: log(1 + e^y) = max(y, 0) + log(1 + e^-|y|).
    Real penalty(const Sides& sides) const {
        const Real x = excess(sides);
        if (p_.sharpness == Real{0}) return at_least(x, Real{0});
        const Real y = p_.sharpness * x;
        return (at_least(y, Real{0}) + std::log1p(std::exp(-std::abs(y)))) / p_.sharpness;
    }

    // Its derivative: the sigmoid of b x, or the hinge's step (0 at the corner).
    Real penalty_slope(const Sides& sides) const {
        const Real x = excess(sides);
        if (std::isnan(x)) return x;
        if (p_.sharpness == Real{0}) return x > Real{0} ? Real{1} : Real{0};
        const Real decay = std::exp(-p_.sharpness * std::abs(x));
        return (x < Real{0} ? decay : Real{1}) / (Real{1} + decay);
    }

    // Turns dL/dz_i into dL/du_i in place: (g - z (z.g)) / |u|; below the floor of the norm z is linear in u.
    void through_normalisation(std::int64_t i) {
        Real* g = row(gradient_, i);
        const Real* z = row(unit_, i);
        const Real norm = norm_[size(i)];
        const Real radial = norm > kFloor ? dot(z, g, p_.width) : Real{0};
        for (std::int64_t k = 0; k < p_.width; ++k) g[k] = (g[k] - z[k] * radial) / norm;
    }

    const AdaptProblem<Real>& p_;
    Real* outputs_;                               // [m, D]
    std::vector<Real> unit_, gradient_;           // [m, D] z, and dL/dz then dL/du
    std::vector<Real> norm_;                      // [m] max(|u|, floor)
    std::vector<Real> to_positive_, to_negative_; // [D] differences of the triplet in hand
};

}  // namespace

template <typename Real>
void adapt(const AdaptProblem<Real>& problem, Real* coefficients, Real* outputs, double* losses) {
    check(problem);
    const std::int64_t count = problem.items * problem.width;
    std::copy_n(problem.outputs, count, outputs);
    std::fill_n(coefficients, count, Real{0});
    Loop<Real> loop(problem, outputs);
    for (std::int64_t t = 0; t < problem.num_steps; ++t) {
        losses[t] = loop.loss_and_gradient();
        loop.step(problem.step_sizes[t], coefficients);
    }
    losses[problem.num_steps] = loop.loss();
}

template void adapt<float>(const AdaptProblem<float>&, float*, float*, double*);
template void adapt<double>(const AdaptProblem<double>&, double*, double*, double*);

}  // namespace fgsbir
