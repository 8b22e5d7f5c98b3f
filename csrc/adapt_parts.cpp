#include "adapt_parts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "simd/isa.h"

namespace fgsbir::adapt_parts {

// ---- which kernels ----

namespace {

template <typename Table>
const Table& by_isa([[maybe_unused]] const Table& wide, [[maybe_unused]] const Table& middle, const Table& base) {
    if (isa() == Isa::avx512) return wide;
    return isa() == Isa::avx2 ? middle : base;
}

}  // namespace

#ifdef FGSBIR_SIMD_X86
#define FGSBIR_BY_ISA(table) by_isa(avx512::table, avx2::table, baseline::table)
#else
#define FGSBIR_BY_ISA(table) by_isa(baseline::table, baseline::table, baseline::table)
#endif
template <>
const ProductKernels<float>& products<float>() {
    return FGSBIR_BY_ISA(product_float);
}
template <>
const ProductKernels<double>& products<double>() {
    return FGSBIR_BY_ISA(product_double);
}
template <>
const RowKernels<float>& row_loops<float>() {
    return FGSBIR_BY_ISA(row_float);
}
template <>
const RowKernels<double>& row_loops<double>() {
    return FGSBIR_BY_ISA(row_double);
}
const TripletKernels& triplet_loops() { return FGSBIR_BY_ISA(triplet_kernels); }
#undef FGSBIR_BY_ISA

// ---- scratch memory ----

namespace {

constexpr std::size_t kFirstBlock = std::size_t{1} << 18, kKept = std::size_t{1} << 24, kLine = 64;

}  // namespace

Scratch& Scratch::mine() {
    thread_local Scratch scratch;
    scratch.rewind({0, 0});
    return scratch;
}

void* Scratch::bytes(std::size_t count) {
    count = (count + kLine - 1) / kLine * kLine;
    while (block_ < blocks_.size() && used_ + count > blocks_[block_].size) {
        ++block_;
        used_ = 0;
    }
    if (block_ == blocks_.size()) {
        const std::size_t size = std::max(count, blocks_.empty() ? kFirstBlock : 2 * blocks_.back().size);
        blocks_.push_back({std::make_unique<std::byte[]>(size + kLine), size});
        used_ = 0;
    }
    std::byte* begin = blocks_[block_].memory.get();
    begin += (kLine - reinterpret_cast<std::uintptr_t>(begin) % kLine) % kLine;
    void* piece = begin + used_;
    used_ += count;
    return piece;
}

void Scratch::trim() {
    rewind({0, 0});
    std::size_t total = 0;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        total += blocks_[i].size;
        if (total > kKept) {
            blocks_.resize(i);
            return;
        }
    }
}

// ---- supports ----

template <typename Real>
Prepared<Real> prepare(const AdaptSupports<Real>& supports, Index support, const double* shift, Scratch& scratch) {
    const Index first = supports.row_offsets[support];
    Prepared<Real> p{};
    p.items = supports.row_offsets[support + 1] - first;
    p.width = supports.width;
    p.ld_width = padded(p.width);
    p.gram = supports.gram + supports.gram_offsets[support];
    std::int32_t *order = scratch.take<std::int32_t>(p.items), *place = scratch.take<std::int32_t>(p.items);
    Index next = 0;
    for (const bool moves : {true, false}) {
        for (Index i = 0; i < p.items; ++i) {
            if ((supports.moves[first + i] != 0) != moves) continue;
            place[i] = static_cast<std::int32_t>(next);
            order[next++] = static_cast<std::int32_t>(i);
        }
        if (moves) p.moving = next;
    }
    p.order = order;
    p.place = place;
    p.in_order = std::is_sorted(order, order + p.items);
    const Real* rows = supports.outputs + first * p.width;
    if (p.in_order && p.width == p.ld_width && shift == nullptr) {
        p.outputs = rows;
    } else {
        Real* outputs = scratch.take<Real>(p.items * p.ld_width);
        for (Index i = 0; i < p.items; ++i) {
            std::copy_n(rows + order[i] * p.width, p.width, outputs + i * p.ld_width);
            std::fill_n(outputs + i * p.ld_width + p.width, p.ld_width - p.width, Real{0});
            if (shift == nullptr || supports.shifted[first + order[i]] == 0) continue;
            for (Index d = 0; d < p.width; ++d) outputs[i * p.ld_width + d] += static_cast<Real>(shift[d]);
        }
        p.outputs = outputs;
    }
    p.moving_gram = p.gram;
    p.ld_moving_gram = p.items;
    if (!p.in_order) {
        Real* gram = scratch.take<Real>(p.moving * p.moving);
        for (Index i = 0; i < p.moving; ++i) {
            for (Index j = 0; j < p.moving; ++j) gram[i * p.moving + j] = p.gram[order[i] * p.items + order[j]];
        }
        p.moving_gram = gram;
        p.ld_moving_gram = p.moving;
    }
    return p;
}

template <typename Real>
void prepare_gram(Prepared<Real>& p, Scratch& scratch) {
    p.ld_items = padded(p.items);
    p.ld_moving = padded(p.moving);
    double* wide = scratch.take<double>(p.items * p.ld_width);
    row_loops<Real>().widen(p.outputs, wide, p.items * p.ld_width);
    double* gram = scratch.zeros<double>(p.moving * p.ld_moving);
    for (Index i = 0; i < p.moving; ++i) {
        row_loops<Real>().widen(p.moving_gram + i * p.ld_moving_gram, gram + i * p.ld_moving, p.moving);
    }
    double* inner = scratch.zeros<double>(p.items * p.ld_items);
    products<double>().dots(
        {wide, p.ld_width, p.items, wide, p.ld_width, p.items, p.width, nullptr, 0.0, true, inner, p.ld_items});
    for (Index i = 0; i < p.items; ++i) {
        for (Index j = i + 1; j < p.items; ++j) inner[i * p.ld_items + j] = inner[j * p.ld_items + i];
    }
    p.wide = wide;
    p.wide_gram = gram;
    p.inner = inner;
}

// ---- triplets ----

TripletGraph make_graph(const std::int32_t* triplets, Index count, const std::int32_t* place, Index items, Scratch& scratch) {
    TripletGraph graph{};
    graph.begin = items;
    for (Index t = 0; t < count; ++t) {
        const Index anchor = place[triplets[3 * t]];
        graph.begin = std::min(graph.begin, anchor);
        graph.end = std::max(graph.end, anchor + 1);
    }
    const Index anchors = std::max<Index>(graph.end - graph.begin, 0), most = std::min(2 * count, anchors * items);
    graph.first = scratch.zeros<std::int32_t>(padded(most));
    graph.second = scratch.zeros<std::int32_t>(padded(most));
    std::int32_t *near = scratch.zeros<std::int32_t>(padded(count)), *far = scratch.zeros<std::int32_t>(padded(count));
    std::int32_t* begin = scratch.take<std::int32_t>(count + 1);
    std::int32_t* known = scratch.zeros<std::int32_t>(anchors * items);  // number of the pair, counted from 1
    const auto pair = [&](std::int32_t a, std::int32_t b) {
        std::int32_t& number = known[(a - graph.begin) * items + b];
        if (number == 0) {
            graph.first[graph.pairs] = a;
            graph.second[graph.pairs] = b;
            number = static_cast<std::int32_t>(++graph.pairs);
        }
        return number - 1;
    };
    graph.triplets = {near, far, begin, count, 0, true};
    for (Index t = 0; t < count; ++t) {
        const std::int32_t anchor = place[triplets[3 * t]];
        near[t] = pair(anchor, place[triplets[3 * t + 1]]);
        far[t] = pair(anchor, place[triplets[3 * t + 2]]);
        if (t == 0 || near[t] != near[t - 1]) {
            begin[graph.triplets.runs++] = static_cast<std::int32_t>(t);
        } else if (far[t] != far[t - 1] + 1) {
            graph.triplets.side_by_side = false;
        }
    }
    begin[graph.triplets.runs] = static_cast<std::int32_t>(count);
    if (count < 16 * graph.triplets.runs) graph.triplets.side_by_side = false;  // short runs leave vectors half empty
    return graph;
}

TripletState::TripletState(const TripletGraph& task, Index count, Scratch& scratch)
    : graph(task),
      items(count),
      inverse(scratch.zeros<double>(padded(count))),
      square(scratch.zeros<double>(padded(count))),
      scale(scratch.zeros<double>(padded(task.pairs))),
      squared(scratch.zeros<double>(padded(task.pairs))),
      q(scratch.take<double>(padded(task.pairs))),
      diagonal(scratch.take<double>(padded(count))),
      distance_(scratch.zeros<double>(padded(task.pairs))),
      weight_(scratch.zeros<double>(padded(task.pairs))),
      inward_(scratch.take<double>(padded(task.pairs))),
      excess_(scratch.zeros<double>(padded(task.triplets.count))),
      slope_(scratch.take<double>(padded(task.triplets.count))) {}

void TripletState::distances() { triplet_loops().distances(squared, graph.pairs, distance_); }

double TripletState::measure(double margin, double sharpness, bool with_slopes) {
    const TripletKernels& k = triplet_loops();
    k.excesses(graph.triplets, distance_, margin, excess_);
    const double sum = k.penalties(excess_, graph.triplets.count, sharpness, with_slopes ? slope_ : nullptr);
    return sum / static_cast<double>(graph.triplets.count);
}

void TripletState::forces() {
    std::fill_n(weight_, graph.pairs, 0.0);  // dL/d distance of each pair
    triplet_loops().weigh(graph.triplets, slope_, 1.0 / static_cast<double>(graph.triplets.count), weight_);
    triplet_loops().forces(weight_, squared, distance_, graph.pairs, q, inward_);

    // Q_ii is the sum of q over the pairs of i, less the radial part sum of Q_ij z_i.z_j = sum of q (|z_i|^2 - z_i.z_j). Between
    // unit vectors that is q d^2 / 2. Below the floor of the norm z is linear in u and has no radial part.
    std::fill_n(diagonal, items, 0.0);
    const bool unit = std::all_of(square, square + items, [](double value) { return value == 1.0; });
    if (!unit) {
        for (Index p = 0; p < graph.pairs; ++p) {
            const std::int32_t a = graph.first[p], b = graph.second[p];
            const auto left = [&](std::int32_t i, std::int32_t j) {
                return square[i] < 1.0 ? q[p] : q[p] - 0.5 * q[p] * (square[i] - square[j] + squared[p]);
            };
            diagonal[a] += left(a, b);
            diagonal[b] += left(b, a);
        }
        return;
    }
    for (Index p = 0, next = 0; p < graph.pairs; p = next) {
        const std::int32_t a = graph.first[p];
        double sum[2] = {0.0, 0.0};
        for (next = p; next < graph.pairs && graph.first[next] == a; ++next) {
            sum[next % 2] += inward_[next];
            diagonal[graph.second[next]] += inward_[next];
        }
        diagonal[a] += sum[0] + sum[1];
    }
}

double TripletState::predict(const AdaptMarginNet& net, Scratch& scratch) const {
    const Index h = net.hidden;
    const float *w1 = net.weights, *b1 = w1 + 3 * h, *w2 = b1 + h, *b2 = w2 + 2 * h * h, *w3 = b2 + h, *b3 = w3 + h;
    const Index count = padded(graph.triplets.count);
    double *near = scratch.zeros<double>(count), *far = scratch.zeros<double>(count);
    for (Index t = 0; t < graph.triplets.count; ++t) {
        near[t] = distance_[graph.triplets.near[t]];
        far[t] = distance_[graph.triplets.far[t]];
    }
    double *summary = scratch.take<double>(2 * h), *weights = scratch.take<double>(2 * h * h), *hidden = scratch.take<double>(h);
    triplet_loops().margin_summary(w1, b1, h, near, far, graph.triplets.count, summary, summary + h);
    row_loops<float>().widen(w2, weights, 2 * h * h);
    products<double>().dots({summary, 2 * h, 1, weights, 2 * h, h, 2 * h, nullptr, 0.0, false, hidden, h});
    double logit = static_cast<double>(*b3);
    for (Index i = 0; i < h; ++i) {
        const double value = hidden[i] + static_cast<double>(b2[i]);
        logit += static_cast<double>(w3[i]) * (value < 0.0 ? 0.0 : value);
    }
    return 1.0 / (1.0 + std::exp(-logit));
}

// ---- which form ----

// Multiplications and additions of each form, those in double counted by how many fit a vector less, and what short rows and
// small loops cost beside the products, as measured: over 144 sizes the rule's choice took 0.2 % longer on average than the
// better form, and at most 14 %.
template <typename Real>
bool prefers_gram(const Prepared<Real>& s, const TripletGraph& graph, Index step_count) {
    const double items = static_cast<double>(s.items), moving = static_cast<double>(s.moving);
    const double width = static_cast<double>(s.ld_width), ld = static_cast<double>(padded(s.moving) + 8);
    const double steps = static_cast<double>(step_count + 1), pairs = static_cast<double>(graph.pairs);
    const double anchors = static_cast<double>(graph.end - graph.begin);
    const double dense = items * moving * ld, by_anchors = (2.0 * anchors + 2.0) * items * ld;
    const double gram_step = items * items * ld + dense + std::min(dense, by_anchors) + anchors * items * ld;
    constexpr double doubles = static_cast<double>(sizeof(double) / sizeof(Real));
    const double gram = doubles * (steps * gram_step + 0.6 * items * items * width) + items * moving * width;
    const double span = steps * width * (moving * moving + anchors * (items + moving) + 2.0 * pairs + 6.0 * moving);
    return gram < span;
}

template bool prefers_gram<float>(const Prepared<float>&, const TripletGraph&, Index);
template bool prefers_gram<double>(const Prepared<double>&, const TripletGraph&, Index);
template Prepared<float> prepare<float>(const AdaptSupports<float>&, Index, const double*, Scratch&);
template Prepared<double> prepare<double>(const AdaptSupports<double>&, Index, const double*, Scratch&);
template void prepare_gram<float>(Prepared<float>&, Scratch&);
template void prepare_gram<double>(Prepared<double>&, Scratch&);

}  // namespace fgsbir::adapt_parts
