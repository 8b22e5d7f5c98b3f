// Scalars of triplets. Compiled once for each instruction set with the compiler's own vector types, so that one
// source serves SSE2, AVX2, AVX-512 and NEON. Include nothing here that holds inline functions outside an anonymous namespace.
#include "simd/adapt_kernels.h"
#include "simd/adapt_vectors.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

// ---- triplets ----

void column_dots(const double* a, const double* b, const double* weight, Index count, Index ld, double* out, double* size) {
    for (Index j = 0; j < ld; j += kDoubles) {
        Double sum{}, sizes{};
        for (Index l = 0; l < count; ++l) {
            const Double value = load<double>(a + l * ld + j);
            sum += value * load<double>(b + l * ld + j);
            sizes += weight[l] * choose(value < 0.0, -value, value);
        }
        store<double>(out + j, sum);
        store<double>(size + j, sizes);
    }
}

void inverse_roots(const double* squared, Index count, double largest, double* inverse, double* square) {
    roots_of(squared, count, largest, inverse, square);
}

void squared_from_inner(const double* inner, const std::int32_t* at, const std::int32_t* first, const std::int32_t* second,
                        const double* inverse, const double* square, Index count, double* scale, double* squared) {
    for (Index p = 0; p < count; ++p) {
        const std::int32_t a = first[p], b = second[p];
        scale[p] = inverse[a] * inverse[b];
        squared[p] = square[a] + square[b] - 2.0 * inner[at[p]] * scale[p];
    }
}

void distances(const double* squared, Index count, double* distance) {
    for (Index p = 0; p < count; ++p) distance[p] = __builtin_sqrt(squared[p] < kFloor ? kFloor : squared[p]);
}

// e^x for x in [-746, 0]: 2^n e^r with |r| <= ln 2 / 2, and a Taylor polynomial to r^13 (rest below 5e-17 of the result).
INLINE Double exp_of_negative(Double x) {
    const Double shift = broadcast(6755399441055744.0);  // 1.5 * 2^52: adding it rounds to a whole number, kept in the low bits
    const Double shifted = x * 1.4426950408889634 + shift;
    const Double n = shifted - shift;
    const Double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    constexpr double factor[] = {1.0 / 6227020800.0,
                                 1.0 / 479001600.0,
                                 1.0 / 39916800.0,
                                 1.0 / 3628800.0,
                                 1.0 / 362880.0,
                                 1.0 / 40320.0,
                                 1.0 / 5040.0,
                                 1.0 / 720.0,
                                 1.0 / 120.0,
                                 1.0 / 24.0,
                                 1.0 / 6.0,
                                 0.5,
                                 1.0,
                                 1.0};
    Double value = broadcast(factor[0]);
    UNROLL for (int i = 1; i < 14; ++i) value = value * r + factor[i];
    // In two halves: 2^-1075 itself is no number, and half of the exponent always is one.
    const Whole whole = reinterpret_cast<Whole>(shifted) - reinterpret_cast<Whole>(shift);
    const Whole half = whole >> 1;
    const Double one = reinterpret_cast<Double>((half + 1023) << 52), two = reinterpret_cast<Double>((whole - half + 1023) << 52);
    return value * one * two;
}

// log(1 + e) and 1 / (1 + e) for e in [0, 1], with one division for both. log y = 2 artanh(r) with r = (y - 1) / (y + 1), where
// y = 1 + e is halved from sqrt 2 on: r^2 <= 0.0295, a series to r^21 (rest below 1e-17).
INLINE Double log_of_one_plus(Double e, Double& reciprocal) {
    const Whole large = e > 0.41421356237309503;
    const Double numerator = choose(large, e - 1.0, e), denominator = choose(large, e + 3.0, e + 2.0);
    const Double shared = 1.0 / (denominator * (1.0 + e));
    reciprocal = denominator * shared;
    const Double r = numerator * (1.0 + e) * shared, square = r * r;
    Double value = broadcast(2.0 / 21.0);
    UNROLL for (int i = 19; i >= 1; i -= 2) value = value * square + 2.0 / i;
    return value * r + choose(large, broadcast(0.6931471805599453094), Double{});
}

void excesses(const TripletRuns& t, const double* distance, double margin, double* excess) {
    if (!t.side_by_side) {
        for (Index i = 0; i < t.count; i += kDoubles) {
            Double near, far;
            UNROLL for (int l = 0; l < kDoubles; ++l) near[l] = distance[t.near[i + l]];
            UNROLL for (int l = 0; l < kDoubles; ++l) far[l] = distance[t.far[i + l]];
            store<double>(excess + i, margin + near - far);
        }
        return;
    }
    for (Index r = 0; r < t.runs; ++r) {
        const Index begin = t.begin[r], end = t.begin[r + 1];
        const double near = margin + distance[t.near[begin]];
        const double* far = distance + t.far[begin] - begin;
        Index i = begin;
        for (; i + kDoubles <= end; i += kDoubles) store<double>(excess + i, near - load<double>(far + i));
        for (; i < end; ++i) excess[i] = near - far[i];
    }
}

double penalties(const double* excess, Index count, double sharpness, double* slope) {
    const double inverse_sharpness = 1.0 / sharpness;
    Double sum{};
    for (Index t = 0; t < count; t += kDoubles) {
        const Double x = load<double>(excess + t);
        Double penalty, derivative;
        if (sharpness == 0.0) {
            penalty = choose(x < 0.0, Double{}, x);
            derivative = choose(x > 0.0, broadcast(1.0), choose(x <= 0.0, Double{}, x));
        } else {
            const Double y = sharpness * choose(x < 0.0, x, -x);
            const Double decay = exp_of_negative(choose(y < -746.0, broadcast(-746.0), y));
            Double reciprocal;
            penalty = choose(x < 0.0, Double{}, x) + inverse_sharpness * log_of_one_plus(decay, reciprocal);
            derivative = choose(x < 0.0, decay, broadcast(1.0)) * reciprocal;
        }
        if (slope != nullptr) store<double>(slope + t, derivative);
        if (t + kDoubles <= count) {
            sum += penalty;
        } else {
            for (Index i = 0; t + i < count; ++i) sum[i] += penalty[i];
        }
    }
    return total(sum);
}

void weigh(const TripletRuns& t, const double* slope, double share, double* weight) {
    for (Index r = 0; r < t.runs; ++r) {
        const Index begin = t.begin[r], end = t.begin[r + 1];
        Index i = begin;
        double slopes = 0.0;
        if (t.side_by_side) {
            Double sum{};
            double* far = weight + t.far[begin] - begin;
            for (; i + kDoubles <= end; i += kDoubles) {
                const Double value = share * load<double>(slope + i);
                sum += value;
                store<double>(far + i, load<double>(far + i) - value);
            }
            slopes = total(sum);
        }
        for (; i < end; ++i) {
            const double value = share * slope[i];
            slopes += value;
            weight[t.far[i]] -= value;
        }
        weight[t.near[begin]] += slopes;
    }
}

void forces(const double* weight, const double* squared, const double* distance, Index count, double* q, double* inward) {
    for (Index p = 0; p < count; p += kDoubles) {
        const Double square = load<double>(squared + p);
        const Double value = choose(square < kFloor, Double{}, load<double>(weight + p) / load<double>(distance + p));
        store<double>(q + p, value);
        store<double>(inward + p, value - 0.5 * value * square);
    }
}

void margin_summary(const float* w1, const float* b1, Index hidden, const double* near, const double* far, Index count,
                    double* mean, double* deviation) {
    const double share = 1.0 / static_cast<double>(count);
    for (Index h = 0; h < hidden; ++h) {
        // W1 [near, far, far - near] with the third column shared out
        const double third = static_cast<double>(w1[3 * h + 2]);
        const double to_near = static_cast<double>(w1[3 * h]) - third, to_far = static_cast<double>(w1[3 * h + 1]) + third;
        const double bias = static_cast<double>(b1[h]);
        double middle = 0.0;
        for (int pass = 0; pass < 2; ++pass) {  // the mean, then the squared deviations from it
            Double sum{};
            for (Index t = 0; t < count; t += kDoubles) {
                Double value = to_near * load<double>(near + t) + (to_far * load<double>(far + t) + bias);
                value = choose(value < 0.0, Double{}, value);
                if (pass == 1) value = (value - middle) * (value - middle);
                if (t + kDoubles <= count) {
                    sum += value;
                } else {
                    for (Index i = 0; t + i < count; ++i) sum[i] += value[i];
                }
            }
            const double average = total(sum) * share;
            if (pass == 0) {
                middle = mean[h] = average;
            } else {
                deviation[h] = __builtin_sqrt(average + 1e-8);  // VARIANCE_FLOOR of fgsbir_edge/margin.py
            }
        }
    }
}

}  // namespace

const TripletKernels triplet_kernels{column_dots, inverse_roots, squared_from_inner, distances,     excesses,
                                     penalties,   weigh,         forces,             margin_summary};

}  // namespace fgsbir::FGSBIR_ISA
