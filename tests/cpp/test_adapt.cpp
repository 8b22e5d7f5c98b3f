#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "adapt.h"
#include "check.h"

namespace {

// Three items in the plane with a Gram matrix of their own; one triplet (0, 1, 2).
template <typename Real>
struct Case {
    std::vector<Real> outputs{Real(1.0), Real(0.2), Real(0.3), Real(0.9), Real(0.8), Real(-0.4)};
    std::vector<Real> gram{Real(2.0), Real(1.3), Real(0.7), Real(1.3), Real(1.5), Real(1.1), Real(0.7), Real(1.1), Real(3.0)};
    std::vector<std::int32_t> triplets{0, 1, 2};
    std::vector<std::uint8_t> moves{1, 1, 1};
    std::vector<Real> steps{Real(0.1), Real(0.05)};
    Real margin = Real(0.3), sharpness = Real(10);
    std::vector<Real> coefficients = std::vector<Real>(6), moved = std::vector<Real>(6);
    std::vector<double> losses = std::vector<double>(3);

    void run() {
        losses.assign(steps.size() + 1, -1.0);
        fgsbir::adapt<Real>({outputs.data(), gram.data(), triplets.data(), moves.data(), steps.data(), 3, 2,
                             static_cast<std::int64_t>(triplets.size() / 3), static_cast<std::int64_t>(steps.size()), margin, sharpness},
                            coefficients.data(), moved.data(), losses.data());
    }
};

template <typename Real>
void loss_falls() {
    Case<Real> c;
    c.run();
    CHECK(c.losses[1] < c.losses[0] && c.losses[2] < c.losses[1]);
    c.steps.clear();
    c.run();
    CHECK(c.losses.size() == 1 && c.moved == c.outputs && c.coefficients == std::vector<Real>(6));
}

// -A after one step of size 1 is dL/dU: compared with central differences of the loss.
void gradient_is_the_slope_of_the_loss() {
    for (const double sharpness : {0.0, 10.0}) {
        Case<double> c;
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

// U_T = U_0 + gram A on the rows that move; the others stay.
void outputs_follow_coefficients() {
    Case<double> c;
    c.moves = {1, 0, 0};
    c.run();
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t k = 0; k < 2; ++k) {
            const double expected = c.outputs[2 * i + k] + (i == 0 ? c.gram[0] * c.coefficients[k] : 0.0);
            CHECK(std::abs(c.moved[2 * i + k] - expected) < 1e-15);
            CHECK(i == 0 || c.coefficients[2 * i + k] == 0.0);
        }
    }
}

void extremes() {
    Case<float> steep;
    steep.sharpness = 1e30F;
    steep.run();
    for (const double loss : steep.losses) CHECK(std::isfinite(loss));

    Case<double> coincident;  // anchor, positive and negative in one place: distances sit at their floor and nothing moves
    coincident.outputs = {1, 1, 1, 1, 1, 1};
    coincident.run();
    CHECK(coincident.coefficients == std::vector<double>(6));

    Case<double> zero;
    zero.outputs = {0, 0, 0.3, 0.9, 0.8, -0.4};
    zero.steps.clear();
    zero.run();
    CHECK(std::isfinite(zero.losses[0]));

    Case<float> broken;
    broken.outputs[3] = std::numeric_limits<float>::quiet_NaN();
    broken.sharpness = 0;
    broken.run();
    for (const double loss : broken.losses) CHECK(std::isnan(loss));
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
}

}  // namespace

int main() {
    loss_falls<float>();
    loss_falls<double>();
    gradient_is_the_slope_of_the_loss();
    outputs_follow_coefficients();
    extremes();
    refusals();
    return check::finish();
}
