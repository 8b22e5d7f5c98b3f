// Hot loops of adaptation, compiled once for each instruction set with the compiler's own vector types, so that one source serves
// SSE2, AVX2, AVX-512 and NEON. Include nothing here that holds inline functions.
#include "simd/adapt_kernels.h"

namespace fgsbir::FGSBIR_ISA {
namespace {

#define ALWAYS __attribute__((always_inline))
#define INLINE inline ALWAYS
#define UNROLL _Pragma("GCC unroll 32")

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kDotRows = 6, kDotCols = 4;          // accumulators of a tile of dots(): 24 of 32 registers
constexpr int kCombineRows = 6, kCombineCols = 4;  // rows and vectors of a tile of combine()
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kDotRows = 4, kDotCols = 3;
constexpr int kCombineRows = 6, kCombineCols = 2;
#elif defined(__aarch64__)
constexpr int kBytes = 16;
constexpr int kDotRows = 6, kDotCols = 4;
constexpr int kCombineRows = 5, kCombineCols = 4;  // 20, and a register for each factor
#else
constexpr int kBytes = 16;
constexpr int kDotRows = 3, kDotCols = 3;
constexpr int kCombineRows = 3, kCombineCols = 3;
#endif

template <typename Real>
struct Of;
template <>
struct Of<float> {
    typedef float Vector __attribute__((vector_size(kBytes)));
    typedef float Unaligned __attribute__((vector_size(kBytes), aligned(4), may_alias));
    typedef std::int32_t Mask __attribute__((vector_size(kBytes)));
};
template <>
struct Of<double> {
    typedef double Vector __attribute__((vector_size(kBytes)));
    typedef double Unaligned __attribute__((vector_size(kBytes), aligned(8), may_alias));
    typedef std::int64_t Mask __attribute__((vector_size(kBytes)));
};
template <typename Real>
using Vec = typename Of<Real>::Vector;
template <typename Real>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(Real));

template <typename Real>
INLINE Vec<Real> load(const Real* from) {
    return *reinterpret_cast<const typename Of<Real>::Unaligned*>(from);
}
template <typename Real>
INLINE void store(Real* to, Vec<Real> value) {
    *reinterpret_cast<typename Of<Real>::Unaligned*>(to) = value;
}
template <typename Real>
INLINE Vec<Real> broadcast(Real value) {
    return value - Vec<Real>{};
}
template <typename Real>
INLINE Vec<Real> load_first(const Real* from, Index count) {  // zero in the lanes from count on
    alignas(kBytes) Real lanes[kLanes<Real>] = {};
    for (Index i = 0; i < count; ++i) lanes[i] = from[i];
    return load<Real>(lanes);
}

// sums[n] = all lanes of value[n] added up, for `Count` vectors at once: each pass adds neighbours of distance `Step` and lets two
// vectors share one, so that as many vectors as there are lanes cost little more than one alone. sums has room for whole vectors.
template <typename Real, int Step, int Count>
INLINE void fold(Vec<Real>* value) {
    constexpr int lanes = kLanes<Real>;
    if constexpr (Step < lanes) {
        typename Of<Real>::Mask low{}, high{};
        UNROLL for (int i = 0; i < lanes; ++i) {
            low[i] = (i / Step) % 2 == 0 ? i : lanes + i - Step;
            high[i] = (i / Step) % 2 == 0 ? i + Step : lanes + i;
        }
        constexpr int left = (Count + 1) / 2;
        UNROLL for (int n = 0; n < left; ++n) {
            const Vec<Real> a = value[2 * n], b = 2 * n + 1 < Count ? value[2 * n + 1] : value[2 * n];
            value[n] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
        }
        fold<Real, 2 * Step, left>(value);
    }
}
template <typename Real, int Count, int First = 0>
INLINE void add_lanes(Vec<Real>* value, Real* sums) {
    constexpr int now = Count - First < kLanes<Real> ? Count - First : kLanes<Real>;
    fold<Real, 1, now>(value + First);
    store<Real>(sums + First, value[First]);
    if constexpr (First + now < Count) add_lanes<Real, Count, First + now>(value, sums);
}

template <typename Real>
constexpr int room(int count) {  // for the sums of so many vectors
    return (count + kLanes<Real> - 1) / kLanes<Real> * kLanes<Real>;
}

template <typename Real>
INLINE void store_four(Real* to, const Real* a, const Real* b) {
    typedef Real Four __attribute__((vector_size(4 * sizeof(Real)), aligned(sizeof(Real)), may_alias));
    *reinterpret_cast<Four*>(to) = *reinterpret_cast<const Four*>(a) + *reinterpret_cast<const Four*>(b);
}

// ---- dots: both operands run along the depth ----

template <typename Real, int Rows, int Cols>
INLINE void dots_tile(const DotsTask<Real>& t, Index i, Index j) {
    constexpr int lanes = kLanes<Real>;
    const Real* row = t.rows + i * t.ld_rows;
    const Real* other = t.others + j * t.ld_others;
    Vec<Real> sum[Rows * Cols] = {};
    const auto accumulate = [&](auto&& at) ALWAYS {
        Vec<Real> right[Cols];
        UNROLL for (int c = 0; c < Cols; ++c) right[c] = at(other + c * t.ld_others);
        UNROLL for (int r = 0; r < Rows; ++r) {
            const Vec<Real> left = at(row + r * t.ld_rows);
            UNROLL for (int c = 0; c < Cols; ++c) sum[r * Cols + c] += left * right[c];
        }
    };
    Index l = 0;
    for (; l + lanes <= t.depth; l += lanes) accumulate([l](const Real* p) ALWAYS { return load<Real>(p + l); });
    if (l < t.depth) accumulate([&](const Real* p) ALWAYS { return load_first<Real>(p + l, t.depth - l); });
    Real sums[room<Real>(Rows * Cols)], bias[Cols];
    add_lanes<Real, Rows * Cols>(sum, sums);
    UNROLL for (int c = 0; c < Cols; ++c) bias[c] = t.bias == nullptr ? t.offset : t.bias[j + c] + t.offset;
    Real* out = t.out + i * t.ld_out + j;
    UNROLL for (int r = 0; r < Rows; ++r, out += t.ld_out) {
        if constexpr (Cols == 4) {
            store_four(out, sums + 4 * r, bias);
        } else {
            UNROLL for (int c = 0; c < Cols; ++c) out[c] = sums[r * Cols + c] + bias[c];
        }
    }
}

template <typename Real, int Rows, int Cols>
void dots_tiles(const DotsTask<Real>& t, Index i, Index rows, Index j, Index cols) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return dots_tiles<Real, Rows - 1, Cols>(t, i, rows, j, cols);
    }
    if constexpr (Cols > 1) {
        if (cols < Cols) return dots_tiles<Real, Rows, Cols - 1>(t, i, rows, j, cols);
    }
    dots_tile<Real, Rows, Cols>(t, i, j);
}

// Rows in blocks of nearly equal height: 10 rows of at most 6 are 5 + 5, not 6 + 4 with a thin rest.
INLINE Index next_height(Index left, Index most) {
    const Index blocks = (left + most - 1) / most;
    return (left + blocks - 1) / blocks;
}

template <typename Real>
void dots(const DotsTask<Real>& t) {
    // A panel of `others` stays in the first-level cache while all rows pass by; where the rows are many, a larger one in the second.
    const Index few = 32, panel = t.count <= few ? kDotCols : 16 * kDotCols;
    for (Index begin = 0; begin < t.others_count; begin += panel) {
        const Index end = begin + panel < t.others_count ? begin + panel : t.others_count;
        for (Index i = 0, height = 0; i < t.count; i += height) {
            height = next_height(t.count - i, kDotRows);
            for (Index j = begin; j < end; j += kDotCols) {
                if (t.lower && j > i + height - 1) break;
                dots_tiles<Real, kDotRows, kDotCols>(t, i, height, j, end - j);
            }
        }
    }
}

// ---- combine: factors are broadcast, rows run along the columns ----

template <typename Real, int Rows, int Vectors>
INLINE void combine_tile(const CombineTask<Real>& t, Index i, Index j) {
    constexpr int lanes = kLanes<Real>;
    const Real* factor = t.factors + i * t.factor_row;
    const Real* row = t.rows + j;
    Vec<Real> sum[Rows][Vectors] = {};
    for (Index l = 0; l < t.depth; ++l) {
        Vec<Real> right[Vectors];
        UNROLL for (int v = 0; v < Vectors; ++v) right[v] = load<Real>(row + v * lanes);
        UNROLL for (int r = 0; r < Rows; ++r) {
            const Real left = factor[r * t.factor_row];
            UNROLL for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
        }
        row += t.ld_rows;
        factor += t.factor_depth;
    }
    UNROLL for (int r = 0; r < Rows; ++r) {
        UNROLL for (int v = 0; v < Vectors; ++v) {
            Vec<Real> value = t.alpha * sum[r][v];
            if (t.add != nullptr) value += load<Real>(t.add + (i + r) * t.ld_add + j + v * lanes);
            store<Real>(t.out + (i + r) * t.ld_out + j + v * lanes, value);
        }
    }
}

template <typename Real, int Rows, int Vectors>
void combine_tiles(const CombineTask<Real>& t, Index i, Index rows, Index j, Index vectors) {
    if constexpr (Rows > 1) {
        if (rows < Rows) return combine_tiles<Real, Rows - 1, Vectors>(t, i, rows, j, vectors);
    }
    if constexpr (Vectors > 1) {
        if (vectors < Vectors) return combine_tiles<Real, Rows, Vectors - 1>(t, i, rows, j, vectors);
    }
    combine_tile<Real, Rows, Vectors>(t, i, j);
}

template <typename Real>
void combine(const CombineTask<Real>& t) {
    constexpr int lanes = kLanes<Real>;
    const Index vectors = t.cols / lanes;
    for (Index i = 0, height = 0; i < t.count; i += height) {
        height = next_height(t.count - i, kCombineRows);
        for (Index v = 0, width = 0; v < vectors; v += width) {
            width = vectors - v < kCombineCols ? vectors - v : kCombineCols;
            combine_tiles<Real, kCombineRows, kCombineCols>(t, i, height, v * lanes, width);
        }
        for (Index r = i; r < i + height; ++r) {
            for (Index j = vectors * lanes; j < t.cols; ++j) {
                Real sum = 0;
                for (Index l = 0; l < t.depth; ++l) sum += t.factors[r * t.factor_row + l * t.factor_depth] * t.rows[l * t.ld_rows + j];
                t.out[r * t.ld_out + j] = (t.add == nullptr ? Real{0} : t.add[r * t.ld_add + j]) + t.alpha * sum;
            }
        }
    }
}

// ---- rows of outputs ----

constexpr double kFloor = 1e-12;  // of norms and of squared distances

template <typename Real>
INLINE Real largest();
template <>
INLINE float largest<float>() {
    return __FLT_MAX__;
}
template <>
INLINE double largest<double>() {
    return __DBL_MAX__;
}

using Double = Vec<double>;
using Whole = Of<double>::Mask;
constexpr int kDoubles = kLanes<double>;

INLINE double total(Double value) {
    double sums[kDoubles];
    add_lanes<double, 1>(&value, sums);
    return sums[0];
}

INLINE Double choose(Whole condition, Double yes, Double no) { return condition ? yes : no; }

void inverse_roots(const double* squared, Index count, double largest, double* inverse, double* square) {
    for (Index i = 0; i < count; i += kDoubles) {
        const Double value = load<double>(squared + i);
        Double root;
        UNROLL for (int l = 0; l < kDoubles; ++l) root[l] = __builtin_sqrt(value[l]);
        const Double scale = choose(value <= largest, 1.0 / choose(root < kFloor, broadcast(kFloor), root), broadcast(__builtin_nan("")));
        const Double length = choose(root > kFloor, scale - scale + 1.0, value * scale * scale);
        if (i + kDoubles <= count) {
            store<double>(inverse + i, scale);
            store<double>(square + i, length);
        } else {
            for (int l = 0; i + l < count; ++l) {
                inverse[i + l] = scale[l];
                square[i + l] = length[l];
            }
        }
    }
}

template <typename Real>
void normalise(const Real* u, Real* z, Index count, Index ld, double* inverse, double* square) {
    constexpr int lanes = kLanes<Real>, together = 8;
    for (Index i = 0; i < count; i += together) {
        const Index rows = count - i < together ? count - i : together;
        const Real* row[together];
        UNROLL for (int r = 0; r < together; ++r) row[r] = u + (i + (r < rows ? r : 0)) * ld;
        Vec<Real> sum[together] = {};
        for (Index l = 0; l < ld; l += lanes) {
            UNROLL for (int r = 0; r < together; ++r) {
                const Vec<Real> value = load<Real>(row[r] + l);
                sum[r] += value * value;
            }
        }
        Real sums[room<Real>(together)];
        double squares[together];
        add_lanes<Real, together>(sum, sums);
        for (int r = 0; r < together; ++r) squares[r] = static_cast<double>(sums[r]);
        inverse_roots(squares, rows, static_cast<double>(largest<Real>()), inverse + i, square + i);
        for (Index r = 0; r < rows; ++r) {
            const Real factor = static_cast<Real>(inverse[i + r]);
            for (Index l = 0; l < ld; l += lanes) store<Real>(z + (i + r) * ld + l, factor * load<Real>(row[r] + l));
        }
    }
}

template <typename Real>
void squared_distances(const Real* z, Index ld, const std::int32_t* first, const std::int32_t* second, Index count, double* squared) {
    constexpr int lanes = kLanes<Real>, together = 8;
    for (Index p = 0; p < count; p += together) {
        const Index pairs = count - p < together ? count - p : together;
        const Real *a[together], *b[together];
        UNROLL for (int n = 0; n < together; ++n) {
            a[n] = z + first[p + (n < pairs ? n : 0)] * ld;
            b[n] = z + second[p + (n < pairs ? n : 0)] * ld;
        }
        Vec<Real> sum[together] = {};
        const auto accumulate = [&](Index l, int n, Vec<Real> left) ALWAYS {
            const Vec<Real> difference = left - load<Real>(b[n] + l);
            sum[n] += difference * difference;
        };
        bool one = true;  // pairs come in runs of one anchor
        UNROLL for (int n = 1; n < together; ++n) one &= a[n] == a[0];
        if (one) {
            for (Index l = 0; l < ld; l += lanes) {
                const Vec<Real> left = load<Real>(a[0] + l);
                UNROLL for (int n = 0; n < together; ++n) accumulate(l, n, left);
            }
        } else {
            for (Index l = 0; l < ld; l += lanes) {
                UNROLL for (int n = 0; n < together; ++n) accumulate(l, n, load<Real>(a[n] + l));
            }
        }
        Real sums[room<Real>(together)];
        add_lanes<Real, together>(sum, sums);
        for (Index n = 0; n < pairs; ++n) squared[p + n] = static_cast<double>(sums[n]);
    }
}

template <typename Real>
void add_scaled_columns(const Real* in, const Real* factor, Index count, Index ld, Real* out) {
    for (Index i = 0; i < count * ld; i += ld) {
        for (Index j = 0; j < ld; j += kLanes<Real>) {
            store<Real>(out + i + j, load<Real>(out + i + j) + load<Real>(in + i + j) * load<Real>(factor + j));
        }
    }
}

template <typename Real>
void widen(const Real* in, double* out, Index count) {
    for (Index i = 0; i < count; ++i) out[i] = static_cast<double>(in[i]);
}

template <typename Real>
void descend(const Real* gradient, const Real* z, const double* diagonal, const double* inverse, Index count, Index ld, Real momentum,
             Real rate, Real* v, Real* a) {
    for (Index i = 0; i < count; ++i) {
        const Real along = static_cast<Real>(diagonal[i]), scale = static_cast<Real>(inverse[i]);
        for (Index l = i * ld; l < (i + 1) * ld; l += kLanes<Real>) {
            Vec<Real> value = scale * (load<Real>(gradient + l) + along * load<Real>(z + l));
            if (momentum != Real{0}) value += momentum * load<Real>(v + l);
            store<Real>(v + l, value);
            store<Real>(a + l, load<Real>(a + l) - rate * value);
        }
    }
}

// ---- ranks ----

// sum[q * 4 + r] of four rows r with each of `Queries` queries; with none, of each row with itself.
template <typename Real, int Queries>
INLINE void four_rows(const Real* rows, Index ld, Index height, Index depth, const Real* const* query, Real* sums) {
    constexpr int lanes = kLanes<Real>, together = 4, each = Queries == 0 ? 1 : Queries;
    const Real* row[together];
    UNROLL for (int r = 0; r < together; ++r) row[r] = rows + (r < height ? r : 0) * ld;
    Vec<Real> sum[each * together] = {};
    const auto accumulate = [&](auto&& at) ALWAYS {
        Vec<Real> right[each];
        UNROLL for (int q = 0; q < Queries; ++q) right[q] = at(query[q]);
        UNROLL for (int r = 0; r < together; ++r) {
            const Vec<Real> value = at(row[r]);
            UNROLL for (int q = 0; q < each; ++q) sum[q * together + r] += value * (Queries == 0 ? value : right[q]);
        }
    };
    Index l = 0;
    for (; l + lanes <= depth; l += lanes) accumulate([l](const Real* p) ALWAYS { return load<Real>(p + l); });
    if (l < depth) accumulate([&](const Real* p) ALWAYS { return load_first<Real>(p + l, depth - l); });
    add_lanes<Real, each * together>(sum, sums);
}

template <typename Real>
void inverse_norms(const Real* rows, Index ld, Index count, Index depth, Real* inverse) {
    for (Index i = 0; i < count; i += 4) {
        const Index height = count - i < 4 ? count - i : 4;
        Real sums[room<Real>(4)];
        four_rows<Real, 0>(rows + i * ld, ld, height, depth, nullptr, sums);
        for (Index r = 0; r < height; ++r) {
            const double norm = __builtin_sqrt(static_cast<double>(sums[r]));
            inverse[i + r] = static_cast<Real>(1.0 / (norm < kFloor ? kFloor : norm));
        }
    }
}

template <typename Real>
void project(const Real* rows, Index ld, Index count, Index depth, const Real* scale, const Real* first, const Real* second,
             Real* to_first, Real* to_second) {
    const Real* const queries[2] = {first, second};
    for (Index i = 0; i < count; i += 4) {
        const Index height = count - i < 4 ? count - i : 4;
        Real sums[room<Real>(8)];
        four_rows<Real, 2>(rows + i * ld, ld, height, depth, queries, sums);
        for (Index r = 0; r < height; ++r) {
            to_first[i + r] = scale[i + r] * sums[r];
            to_second[i + r] = scale[i + r] * sums[4 + r];
        }
    }
}

template <typename Real>
Index count_not_below(const Real* similarity, Index count, Real limit) {
    Index rank = 0;
    for (Index i = 0; i < count; ++i) rank += similarity[i] < limit ? 0 : 1;
    return rank;
}

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
    constexpr double factor[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
                                 1.0 / 40320.0,      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,
                                 1.0 / 6.0,          0.5,               1.0,              1.0};
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

void margin_summary(const float* w1, const float* b1, Index hidden, const double* near, const double* far, Index count, double* mean,
                    double* deviation) {
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

#define FGSBIR_TABLE(Real)                                                                                                \
    {dots<Real>,    combine<Real>,       normalise<Real>, squared_distances<Real>, add_scaled_columns<Real>, widen<Real>, \
     descend<Real>, inverse_norms<Real>, project<Real>,   count_not_below<Real>}
const AdaptKernels<float> adapt_float FGSBIR_TABLE(float);
const AdaptKernels<double> adapt_double FGSBIR_TABLE(double);
const TripletKernels adapt_triplets{column_dots, inverse_roots, squared_from_inner, distances,     excesses,
                                    penalties,   weigh,         forces,             margin_summary};

}  // namespace fgsbir::FGSBIR_ISA
