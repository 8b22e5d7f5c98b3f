#include "adapt.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"

namespace fgsbir {
namespace {

// One task as the loop sees it.
template <typename Real>
struct Problem {
    const Real *outputs, *gram;    // [m, D], [m, m]
    const std::int32_t* triplets;  // [t, 3]
    const std::uint8_t* moves;     // [m]
    std::int64_t items, width, num_triplets;
    Real margin, sharpness, momentum;
};

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
    Loop(const Problem<Real>& problem, Real* outputs)
        : p_(problem),
          outputs_(outputs),
          unit_(size(p_.items * p_.width)),
          gradient_(size(p_.items * p_.width)),
          velocity_(size(p_.items * p_.width)),
          norm_(size(p_.items)),
          to_positive_(size(p_.width)),
          to_negative_(size(p_.width)) {}

    // [t] the two distances of every triplet at the present outputs.
    void distances(std::vector<double>& positive, std::vector<double>& negative) {
        normalise();
        for (std::int64_t t = 0; t < p_.num_triplets; ++t) {
            const Sides sides = measure(p_.triplets + 3 * t);
            positive.push_back(static_cast<double>(sides.positive));
            negative.push_back(static_cast<double>(sides.negative));
        }
    }

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

    // V = momentum V + G, U -= alpha gram V, A -= alpha V.
    void step(Real alpha, Real* coefficients) {
        for (std::size_t i = 0; i < velocity_.size(); ++i) velocity_[i] = p_.momentum * velocity_[i] + gradient_[i];
        for (std::int64_t i = 0; i < p_.items; ++i) {
            if (!p_.moves[i]) continue;
            Real* u = outputs_ + i * p_.width;
            for (std::int64_t j = 0; j < p_.items; ++j) {
                if (p_.moves[j]) add_scaled(u, -alpha * p_.gram[i * p_.items + j], row(velocity_, j), p_.width);
            }
            add_scaled(coefficients + i * p_.width, -alpha, row(velocity_, i), p_.width);
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

    const Problem<Real>& p_;
    Real* outputs_;                               // [m, D]
    std::vector<Real> unit_, gradient_;           // [m, D] z, and dL/dz then dL/du
    std::vector<Real> velocity_;                  // [m, D] V
    std::vector<Real> norm_;                      // [m] max(|u|, floor)
    std::vector<Real> to_positive_, to_negative_; // [D] differences of the triplet in hand
};

double predict_margin(const AdaptMarginNet& net, const std::vector<double>& positive, const std::vector<double>& negative) {
    const std::int64_t h = net.hidden;
    const float *w1 = net.weights, *b1 = w1 + 3 * h, *w2 = b1 + h, *b2 = w2 + 2 * h * h, *w3 = b2 + h, *b3 = w3 + h;
    const double count = static_cast<double>(positive.size());
    std::vector<double> summary(static_cast<std::size_t>(2 * h));
    std::vector<double> values(positive.size());
    for (std::int64_t i = 0; i < h; ++i) {
        double mean = 0.0, variance = 0.0;
        for (std::size_t t = 0; t < values.size(); ++t) {
            const double x = static_cast<double>(w1[3 * i]) * positive[t] + static_cast<double>(w1[3 * i + 1]) * negative[t] +
                             static_cast<double>(w1[3 * i + 2]) * (negative[t] - positive[t]) + static_cast<double>(b1[i]);
            values[t] = at_least(x, 0.0);
            mean += values[t] / count;
        }
        for (const double value : values) variance += (value - mean) * (value - mean) / count;
        summary[static_cast<std::size_t>(i)] = mean;
        summary[static_cast<std::size_t>(h + i)] = std::sqrt(variance + 1e-8);
    }
    double logit = static_cast<double>(*b3);
    for (std::int64_t i = 0; i < h; ++i) {
        double x = static_cast<double>(b2[i]);
        for (std::int64_t j = 0; j < 2 * h; ++j) x += static_cast<double>(w2[2 * h * i + j]) * summary[static_cast<std::size_t>(j)];
        logit += static_cast<double>(w3[i]) * at_least(x, 0.0);
    }
    return 1.0 / (1.0 + std::exp(-logit));
}

template <typename Real>
std::vector<Real> unit(const Real* u, std::int64_t width) {
    const Real norm = at_least(std::sqrt(dot(u, u, width)), static_cast<Real>(1e-12));
    std::vector<Real> z(u, u + width);
    for (Real& value : z) value /= norm;
    return z;
}

// Rank of task b's photo with coefficients [m, D], or under the base head where they are nullptr.
template <typename Real>
std::int32_t rank(const AdaptBatch<Real>& batch, std::int64_t b, const Real* coefficients) {
    const std::int64_t s = batch.tasks.support[b], first = batch.supports.row_offsets[s], width = batch.supports.width;
    const std::int64_t items = batch.supports.row_offsets[s + 1] - first, p = batch.pools.pool_of[s];
    const std::int64_t photos = batch.pools.row_offsets[p + 1] - batch.pools.row_offsets[p], query = batch.tasks.query[b];
    std::vector<Real> u(batch.supports.outputs + (first + query) * width, batch.supports.outputs + (first + query + 1) * width);
    for (std::int64_t j = 0; coefficients != nullptr && j < items; ++j) {
        const Real factor = batch.supports.gram[batch.supports.gram_offsets[s] + query * items + j];
        add_scaled(u.data(), factor, coefficients + j * width, width);
    }
    u = unit(u.data(), width);
    std::vector<Real> similarity;
    for (std::int64_t i = 0; i < photos; ++i) {
        const Real* output = batch.pools.outputs + (batch.pools.row_offsets[p] + i) * width;
        std::vector<Real> photo(output, output + width);
        for (std::int64_t j = 0; coefficients != nullptr && batch.tasks.photos_move && j < items; ++j) {
            add_scaled(photo.data(), batch.pools.cross[batch.pools.cross_offsets[s] + i * items + j], coefficients + j * width, width);
        }
        similarity.push_back(dot(unit(photo.data(), width).data(), u.data(), width));
    }
    const Real limit = similarity[static_cast<std::size_t>(batch.tasks.truth[b])] - static_cast<Real>(1e-6);
    return static_cast<std::int32_t>(std::count_if(similarity.begin(), similarity.end(), [&](Real x) { return !(x < limit); }));
}

template <typename Real>
void adapt_task(const AdaptBatch<Real>& batch, std::int64_t b, const AdaptResults<Real>& results) {
    const AdaptSupports<Real>& supports = batch.supports;
    const AdaptTasks& tasks = batch.tasks;
    const std::int64_t s = tasks.support[b], first = supports.row_offsets[s], steps = batch.rule.num_steps;
    Problem<Real> problem{};
    problem.outputs = supports.outputs + first * supports.width;
    problem.gram = supports.gram + supports.gram_offsets[s];
    problem.moves = supports.moves + first;
    problem.triplets = tasks.triplets + 3 * tasks.triplet_offsets[b];
    problem.items = supports.row_offsets[s + 1] - first;
    problem.width = supports.width;
    problem.num_triplets = tasks.triplet_offsets[b + 1] - tasks.triplet_offsets[b];
    problem.sharpness = static_cast<Real>(batch.rule.sharpness);
    problem.momentum = static_cast<Real>(batch.rule.momentum);
    std::vector<Real> coefficients(static_cast<std::size_t>(problem.items * problem.width));
    std::vector<Real> outputs(problem.outputs, problem.outputs + coefficients.size());
    Loop<Real> loop(problem, outputs.data());
    double margin = tasks.margins[b];
    double* losses = results.losses + b * (steps + 1);
    std::fill_n(losses, steps + 1, 0.0);
    if (problem.num_triplets > 0) {
        if (std::isnan(margin)) {
            std::vector<double> positive, negative;
            loop.distances(positive, negative);
            margin = predict_margin(batch.margin_net, positive, negative);
        }
        problem.margin = static_cast<Real>(margin);
        for (std::int64_t t = 0; t < steps; ++t) {
            losses[t] = loop.loss_and_gradient();
            loop.step(static_cast<Real>(batch.rule.step_sizes[t]), coefficients.data());
        }
        losses[steps] = loop.loss();
    }
    if (results.margins != nullptr) results.margins[b] = margin;
    if (tasks.result_rows[b] >= 0) {
        const std::int64_t at = tasks.result_rows[b] * problem.width;
        if (results.coefficients != nullptr) std::copy(coefficients.begin(), coefficients.end(), results.coefficients + at);
        if (results.moved != nullptr) std::copy(outputs.begin(), outputs.end(), results.moved + at);
    }
    const bool ranked = tasks.query != nullptr && tasks.query[b] >= 0;
    if (results.base_ranks != nullptr) results.base_ranks[b] = ranked ? rank<Real>(batch, b, nullptr) : 0;
    if (results.adapted_ranks != nullptr) results.adapted_ranks[b] = ranked ? rank<Real>(batch, b, coefficients.data()) : 0;
}

}  // namespace

template <typename Real>
void adapt(const AdaptBatch<Real>& batch, const AdaptResults<Real>& results, int threads) {
    check_adapt(batch);
    run_workers(batch.tasks.count, threads, [&](ItemQueue& queue) {
        for (std::int64_t b = 0; queue.take(b);) adapt_task(batch, b, results);
    });
}

template <typename Real>
void adapt(const AdaptProblem<Real>& problem, Real* coefficients, Real* outputs, double* losses) {
    if (problem.items < 1 || problem.width < 1) {
        throw std::invalid_argument("adapt: outputs are [" + std::to_string(problem.items) + ", " + std::to_string(problem.width) +
                                    "], expected at least one item and one dimension");
    }
    if (problem.num_triplets < 1) {
        throw std::invalid_argument("adapt: no triplets; give at least one (anchor, positive, negative)");
    }
    const std::vector<double> step_sizes(problem.step_sizes, problem.step_sizes + problem.num_steps);
    const std::int64_t rows[2] = {0, problem.items}, triplets[2] = {0, problem.num_triplets}, zero = 0;
    const std::int32_t support = 0;
    const double margin = static_cast<double>(problem.margin);
    AdaptBatch<Real> batch{};
    batch.supports = {problem.outputs, problem.gram, problem.moves, rows, &zero, 1, problem.width};
    batch.tasks = {&support, problem.triplets, triplets, &margin, &zero, nullptr, nullptr, 1, 0};
    batch.rule = {step_sizes.data(), problem.num_steps, static_cast<double>(problem.momentum), static_cast<double>(problem.sharpness),
                  problem.form};
    adapt<Real>(batch, {coefficients, outputs, losses, nullptr, nullptr, nullptr}, 1);
}

template void adapt<float>(const AdaptBatch<float>&, const AdaptResults<float>&, int);
template void adapt<double>(const AdaptBatch<double>&, const AdaptResults<double>&, int);
template void adapt<float>(const AdaptProblem<float>&, float*, float*, double*);
template void adapt<double>(const AdaptProblem<double>&, double*, double*, double*);

}  // namespace fgsbir
