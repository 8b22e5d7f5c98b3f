#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "adapt.h"
#include "check.h"

namespace {

using fgsbir::AdaptForm;

constexpr AdaptForm kForms[] = {AdaptForm::gram, AdaptForm::span};

// Three items in the plane with a Gram matrix of their own; one triplet (0, 1, 2).
template <typename Real>
struct Case {
    std::vector<Real> outputs{Real(1.0), Real(0.2), Real(0.3), Real(0.9), Real(0.8), Real(-0.4)};
    std::vector<Real> gram{Real(2.0), Real(1.3), Real(0.7), Real(1.3), Real(1.5), Real(1.1), Real(0.7), Real(1.1), Real(3.0)};
    std::vector<std::int32_t> triplets{0, 1, 2};
    std::vector<std::uint8_t> moves{1, 1, 1};
    std::vector<Real> steps{Real(0.1), Real(0.05)};
    Real margin = Real(0.3), sharpness = Real(10), momentum = Real(0);
    AdaptForm form = AdaptForm::automatic;
    std::vector<Real> coefficients = std::vector<Real>(6), moved = std::vector<Real>(6);
    std::vector<double> losses = std::vector<double>(3);

    void run() {
        losses.assign(steps.size() + 1, -1.0);
        fgsbir::adapt<Real>({outputs.data(), gram.data(), triplets.data(), moves.data(), steps.data(), 3, 2,
                             static_cast<std::int64_t>(triplets.size() / 3), static_cast<std::int64_t>(steps.size()), margin,
                             sharpness, momentum, form},
                            coefficients.data(), moved.data(), losses.data());
    }
};

template <typename Real>
void loss_falls() {
    for (const AdaptForm form : kForms) {
        Case<Real> c;
        c.form = form;
        c.run();
        CHECK(c.losses[1] < c.losses[0] && c.losses[2] < c.losses[1]);
        c.steps.clear();
        c.run();
        CHECK(c.losses.size() == 1 && c.moved == c.outputs && c.coefficients == std::vector<Real>(6));
    }
}

// -A after one step of size 1 is dL/dU: compared with central differences of the loss.
void gradient_is_the_slope_of_the_loss() {
    for (const AdaptForm form : kForms) {
        for (const double sharpness : {0.0, 10.0}) {
            Case<double> c;
            c.form = form;
            c.sharpness = sharpness;
            c.steps = {1.0};
            c.run();
            const double h = 1e-6;
            for (std::size_t i = 0; i < 6; ++i) {
                Case<double> up = c, down = c;
                up.outputs[i] += h;
                down.outputs[i] -= h;
                up.run();
                down.run();
                CHECK(std::abs((up.losses[0] - down.losses[0]) / (2 * h) + c.coefficients[i]) < 1e-8);
            }
        }
    }
}

// U_T = U_0 + gram A on the rows that move; the others stay.
void outputs_follow_coefficients() {
    for (const AdaptForm form : kForms) {
        Case<double> c;
        c.form = form;
        c.moves = {0, 1, 0};
        c.momentum = 0.5;
        c.run();
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t k = 0; k < 2; ++k) {
                const double expected = c.outputs[2 * i + k] + (i == 1 ? c.gram[4] * c.coefficients[2 + k] : 0.0);
                CHECK(std::abs(c.moved[2 * i + k] - expected) < 1e-15);
                CHECK((i == 1) == (c.coefficients[2 * i + k] != 0.0));
            }
        }
    }
}

// Two steps by hand, from the gradients that single steps of size 1 give: A = -a_0 G_0 - a_1 (beta G_0 + G_1).
void momentum_carries_the_last_gradient_on() {
    for (const AdaptForm form : kForms) {
        Case<double> first;
        first.form = form;
        first.steps = {1.0};
        first.run();
        Case<double> both;
        both.form = form;
        both.momentum = 0.75;
        both.run();
        Case<double> second = first;
        for (std::size_t i = 0; i < 3; ++i) {
            for (std::size_t k = 0; k < 2; ++k) {
                for (std::size_t j = 0; j < 3; ++j) {
                    second.outputs[2 * i + k] += both.steps[0] * first.gram[3 * i + j] * first.coefficients[2 * j + k];
                }
            }
        }
        second.run();
        CHECK(std::abs(both.losses[1] - second.losses[0]) < 1e-14);
        for (std::size_t i = 0; i < 6; ++i) {
            const double velocity = 0.75 * first.coefficients[i] + second.coefficients[i];
            CHECK(std::abs(both.coefficients[i] - (both.steps[0] * first.coefficients[i] + both.steps[1] * velocity)) < 1e-14);
        }
    }
}

void extremes() {
    for (const AdaptForm form : kForms) {
        Case<float> steep;
        steep.form = form;
        steep.sharpness = 1e30F;
        steep.run();
        for (const double loss : steep.losses) CHECK(std::isfinite(loss));

        Case<double> coincident;  // anchor, positive and negative in one place: distances sit at their floor and nothing moves
        coincident.form = form;
        coincident.outputs = {1, 1, 1, 1, 1, 1};
        coincident.run();
        CHECK(coincident.coefficients == std::vector<double>(6));

        Case<double> zero;
        zero.form = form;
        zero.outputs = {0, 0, 0.3, 0.9, 0.8, -0.4};
        zero.steps.clear();
        zero.run();
        CHECK(std::isfinite(zero.losses[0]));

        for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30F}) {
            Case<float> broken;  // 1e30: its square is no float
            broken.form = form;
            broken.outputs[3] = value;
            broken.sharpness = 0;
            broken.run();
            for (const double loss : broken.losses) CHECK(std::isnan(loss));
        }
    }
}

void refusals() {
    const auto bad = [](auto change) {
        Case<float> c;
        change(c);
        CHECK_THROWS(c.run(), std::invalid_argument);
    };
    bad([](Case<float>& c) { c.triplets = {0, 1, 3}; });
    bad([](Case<float>& c) { c.triplets = {0, -1, 2}; });
    bad([](Case<float>& c) { c.triplets.clear(); });
    bad([](Case<float>& c) { c.sharpness = -1; });
    bad([](Case<float>& c) { c.sharpness = std::numeric_limits<float>::quiet_NaN(); });
    bad([](Case<float>& c) { c.momentum = std::numeric_limits<float>::infinity(); });
    bad([](Case<float>& c) { c.margin = std::numeric_limits<float>::quiet_NaN(); });
    bad([](Case<float>& c) { c.form = static_cast<AdaptForm>(7); });
}

void plans() {
    const std::int32_t photo_of[] = {3, 4, 4};  // three sketches, photos in rows 3 and 4, another photo in row 5
    const auto all = fgsbir::plan_adapt(photo_of, 3, 6, fgsbir::AdaptNegatives::support, true);
    CHECK((all.triplets == std::vector<std::int32_t>{0, 3, 4, 1, 4, 3, 2, 4, 3, 0, 3, 4, 2, 4, 3, 0, 3, 4, 1, 4, 3}));
    CHECK((all.triplet_offsets == std::vector<std::int64_t>{0, 3, 3, 5, 7}));  // without pair 0 nobody names photo 3
    CHECK((all.left_out == std::vector<std::int32_t>{-1, 0, 1, 2}));
    const auto gallery = fgsbir::plan_adapt(photo_of, 3, 6, fgsbir::AdaptNegatives::gallery, true);
    CHECK((gallery.triplet_offsets == std::vector<std::int64_t>{0, 6, 10, 14, 18}));
    const std::int32_t some[] = {3, -1, 4};
    const auto part = fgsbir::plan_adapt(some, 3, 6, fgsbir::AdaptNegatives::support, false);
    CHECK((part.triplets == std::vector<std::int32_t>{0, 3, 4, 2, 4, 3}));
    const std::int32_t wrong[] = {3, 6, 4};
    CHECK_THROWS(fgsbir::plan_adapt(wrong, 3, 6, fgsbir::AdaptNegatives::support, false), std::invalid_argument);
    CHECK_THROWS(fgsbir::plan_adapt(photo_of, 3, 2, fgsbir::AdaptNegatives::support, false), std::invalid_argument);
}

float noise(std::uint32_t& state) {  // in [-1, 1)
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
}

std::vector<float> noises(std::size_t count, std::uint32_t seed) {
    std::vector<float> values(count);
    for (float& value : values) value = noise(seed);
    return values;
}

// Sizes that no vector divides, against sums in double.
void head_products() {
    for (const std::int64_t features : {1, 13, 67}) {
        for (const std::int64_t count : {1, 5, 23}) {
            const std::int64_t width = 19;
            const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
            const std::vector<float> weight = noises(at(width * features), 1), bias = noises(at(width), 2);
            const std::vector<float> rows = noises(at(count * features), 3), coefficients = noises(at(count * width), 4);
            const fgsbir::AdaptHead<float> head{weight.data(), bias.data(), width, features};
            std::vector<float> outputs(at(count * width)), gram(at(count * count)), cross(at(width * count)), new_weight(weight),
                new_bias(bias);
            for (const int threads : {1, 3}) {
                fgsbir::head_outputs(head, rows.data(), count, outputs.data(), threads);
                fgsbir::gram_products(rows.data(), count, rows.data(), count, features, gram.data(), threads);
                fgsbir::gram_products(weight.data(), width, rows.data(), count, features, cross.data(), threads);
                fgsbir::form_head(head, coefficients.data(), rows.data(), count, new_weight.data(), new_bias.data(), threads);
                const auto dot = [&](const float* a, const float* b) {
                    double sum = 0.0;
                    for (std::int64_t c = 0; c < features; ++c) sum += static_cast<double>(a[c]) * static_cast<double>(b[c]);
                    return sum;
                };
                const auto near = [](double value, float got) { return std::abs(value - static_cast<double>(got)) < 1e-5; };
                for (std::int64_t i = 0; i < count; ++i) {
                    const float* row = rows.data() + i * features;
                    for (std::int64_t d = 0; d < width; ++d) {
                        const double product = dot(row, weight.data() + d * features);
                        CHECK(near(product + static_cast<double>(bias[at(d)]), outputs[at(i * width + d)]));
                        CHECK(near(product + 1.0, cross[at(d * count + i)]));
                    }
                    for (std::int64_t j = 0; j < count; ++j)
                        CHECK(near(dot(row, rows.data() + j * features) + 1.0, gram[at(i * count + j)]));
                }
                for (std::int64_t d = 0; d < width; ++d) {
                    double shift = static_cast<double>(bias[at(d)]);
                    for (std::int64_t i = 0; i < count; ++i) shift += static_cast<double>(coefficients[at(i * width + d)]);
                    CHECK(near(shift, new_bias[at(d)]));
                    for (std::int64_t c = 0; c < features; ++c) {
                        double sum = static_cast<double>(weight[at(d * features + c)]);
                        for (std::int64_t i = 0; i < count; ++i) {
                            sum += static_cast<double>(coefficients[at(i * width + d)]) *
                                   static_cast<double>(rows[at(i * features + c)]);
                        }
                        CHECK(near(sum, new_weight[at(d * features + c)]));
                    }
                }
            }
        }
    }
}

// What a guard ranks among: the pairs' own photos, further ones, or these with what the head makes of them.
enum class Gallery { none, features, embedded };

// Persons from features, with folds: any number of threads gives the same bits, and the same as each person alone.
struct Crowd {
    static constexpr std::int64_t features = 21, width = 18, photos = 31;
    std::vector<float> weight = noises(static_cast<std::size_t>(width * features), 5),
                       bias = noises(static_cast<std::size_t>(width), 6);
    std::vector<float> sketches = noises(static_cast<std::size_t>(40 * features), 7);
    std::vector<float> gallery = noises(static_cast<std::size_t>(photos * features), 8);
    fgsbir::AdaptHead<float> head{weight.data(), bias.data(), width, features};
    std::vector<double> steps{20.0, 10.0, 5.0};  // outputs are about 6 long: anything smaller moves no rank
    double prior = std::numeric_limits<double>::infinity();

    struct Result {
        std::vector<float> coefficients;
        std::vector<double> losses;
        std::vector<std::int32_t> base, adapted;
    };

    fgsbir::AdaptEpisode<float> episode(std::int64_t person) const {
        return {sketches.data() + 5 * person * features, gallery.data() + person * features, gallery.data() + 20 * features,
                2 + person, 3};
    }

    Result run(std::int64_t first, std::int64_t count, bool both, Gallery used, int threads) const {
        std::vector<fgsbir::AdaptEpisode<float>> episodes;
        for (std::int64_t person = first; person < first + count; ++person) episodes.push_back(episode(person));
        const auto layout = fgsbir::lay_out(episodes.data(), count, features);
        const std::size_t all = layout.rows.size();
        std::vector<float> rows(all * features), outputs(all * width), gram(static_cast<std::size_t>(layout.gram_size));
        std::vector<float> embedded(static_cast<std::size_t>(photos * width));
        fgsbir::fill_supports(head, layout, rows.data(), outputs.data(), gram.data(), threads);
        fgsbir::head_outputs(head, gallery.data(), photos, embedded.data(), 1);
        fgsbir::AdaptPeople people{layout.row_offsets.data(),
                                   layout.pair_offsets.data(),
                                   layout.photo_of.data(),
                                   nullptr,
                                   count,
                                   1,
                                   fgsbir::AdaptNegatives::gallery,
                                   both,
                                   0.4};
        const auto pool = fgsbir::gather_candidates(head, people, rows.data(), outputs.data(), gram.data(),
                                                    used == Gallery::none ? nullptr : gallery.data(),
                                                    used == Gallery::none ? 0 : photos, threads,
                                                    used == Gallery::embedded ? embedded.data() : nullptr);
        people.truth = pool.truth.data();
        auto plan = fgsbir::plan_people(people);
        plan.centre(people, {prior}, outputs.data(), width);
        fgsbir::AdaptBatch<float> batch{};
        batch.supports = {outputs.data(), gram.data(), plan.moves.data(), people.row_offsets, plan.gram_offsets.data(),
                          count,          width,       plan.sketches.data()};
        batch.pools = pool.pools();
        batch.tasks = plan.tasks();
        batch.rule = {steps.data(), 3, 0.25, 10.0, AdaptForm::automatic};
        const std::size_t tasks = static_cast<std::size_t>(batch.tasks.count);
        Result result{std::vector<float>(all * width), std::vector<double>(4 * tasks), std::vector<std::int32_t>(tasks),
                      std::vector<std::int32_t>(tasks)};
        fgsbir::adapt<float>(
            batch,
            {result.coefficients.data(), nullptr, result.losses.data(), nullptr, result.base.data(), result.adapted.data()},
            threads);
        return result;
    }
};

void crowds(double prior) {
    Crowd crowd;
    crowd.prior = prior;
    for (const bool both : {false, true}) {
        for (const Gallery used : {Gallery::none, Gallery::features, Gallery::embedded}) {
            const Crowd::Result together = crowd.run(0, 4, both, used, 1), shared = crowd.run(0, 4, both, used, 3);
            CHECK(together.coefficients == shared.coefficients && together.losses == shared.losses);
            CHECK(together.base == shared.base && together.adapted == shared.adapted);
            Crowd::Result alone;
            for (std::int64_t person = 0; person < 4; ++person) {
                const Crowd::Result one = crowd.run(person, 1, both, used, 1);
                alone.coefficients.insert(alone.coefficients.end(), one.coefficients.begin(), one.coefficients.end());
                alone.losses.insert(alone.losses.end(), one.losses.begin(), one.losses.end());
                alone.adapted.insert(alone.adapted.end(), one.adapted.begin(), one.adapted.end());
            }
            CHECK(together.coefficients == alone.coefficients && together.losses == alone.losses &&
                  together.adapted == alone.adapted);
            CHECK(together.base != together.adapted);
            const auto [low, high] = std::minmax_element(together.adapted.begin(), together.adapted.end());
            CHECK(*low == 0 && *high > 1 && *high <= Crowd::photos);  // 0: tasks without a query
        }
        const Crowd::Result made = crowd.run(0, 4, both, Gallery::features, 1), given = crowd.run(0, 4, both, Gallery::embedded, 1);
        CHECK(made.base == given.base && made.adapted == given.adapted && made.coefficients == given.coefficients);
    }
}

// Two people with 2 and 1 pairs, in two dimensions: each task's shift by hand, and what is refused.
void centres() {
    const std::vector<float> outputs{1.0F, 2.0F, 3.0F, -4.0F, 9.0F, 9.0F, 9.0F, 9.0F, -1.0F, 6.0F, 9.0F, 9.0F};
    const std::int64_t rows[] = {0, 4, 6}, pairs[] = {0, 2, 3};
    const std::int32_t photo_of[] = {2, 3, 1};
    const fgsbir::AdaptPeople people{rows, pairs, photo_of, nullptr, 2, 2, fgsbir::AdaptNegatives::support, false, 0.3};
    auto plan = fgsbir::plan_people(people);
    plan.centre(people, {2.0}, outputs.data(), 2);
    const std::vector<double> expected{-1.0, 0.5, -1.0, 4.0 / 3.0, -1.0 / 3.0, -2.0 / 3.0, 1.0 / 3.0, -2.0};
    CHECK(plan.shifts.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(std::abs(plan.shifts[i] - expected[i]) < 1e-15);
    CHECK((plan.sketches == std::vector<std::uint8_t>{1, 1, 0, 0, 1, 0}));
    CHECK((plan.left_out == std::vector<std::int32_t>{-1, 0, 1, -1}));
    CHECK(plan.tasks().shifts == plan.shifts.data());
    plan.centre(people, {std::numeric_limits<double>::infinity()}, outputs.data(), 2);
    CHECK(plan.shifts.empty() && plan.tasks().shifts == nullptr);
    for (const double prior : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
        CHECK_THROWS(plan.centre(people, {prior}, outputs.data(), 2), std::invalid_argument);
    }
    Crowd crowd;
    const Crowd::Result plain = crowd.run(0, 4, true, Gallery::features, 1);
    crowd.prior = 1.0;
    const Crowd::Result centred = crowd.run(0, 4, true, Gallery::features, 1);
    CHECK(plain.base == centred.base && plain.losses != centred.losses && plain.adapted != centred.adapted);
}

}  // namespace

int main() {
    loss_falls<float>();
    loss_falls<double>();
    gradient_is_the_slope_of_the_loss();
    outputs_follow_coefficients();
    momentum_carries_the_last_gradient_on();
    extremes();
    refusals();
    plans();
    head_products();
    crowds(std::numeric_limits<double>::infinity());
    crowds(1.5);
    centres();
    return check::finish();
}
