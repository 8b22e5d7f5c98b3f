// The adaptation kernel against the CPU's adapt() in double, which Python tests hold against the full-matrix twin. Compiled
// twice: for the emulator, and for a GPU where there is a CUDA compiler (skipped there without a device).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "adapt_cases.h"
#include "check.h"
#include "cuda/adapt_table.h"
#include "cuda/launch.cuh"

namespace {

using cases::Answer;
using cases::Batch;
using cases::Gap;
using cases::kNaN;
using cases::Maker;
using cases::on_cpu;
using cases::on_device;
using cases::Options;
using cases::Shape;
using fgsbir::AdaptForm;
using fgsbir::AdaptNegatives;

// Where enough shared memory is for a small task's tables but not for its matrices, and where not even for the tables.
constexpr std::size_t kRoomy = 166912, kTight = 6000, kNone = 512;

constexpr int kSkipped = 77;  // CTest's SKIP_RETURN_CODE

// Threads and blocks run in a random order of that seed, as long as this lives.
struct Shuffled {
#ifdef FGSBIR_CUDA_EMULATION
    explicit Shuffled(std::uint64_t seed) {
        cuda_emulation::settings().shuffle = true;
        cuda_emulation::settings().seed = seed;
    }
    ~Shuffled() { cuda_emulation::settings() = {}; }
#else
    explicit Shuffled(std::uint64_t) {}  // a GPU has an order of its own
    ~Shuffled() {}
#endif
};

#ifdef FGSBIR_CUDA_EMULATION
int races() { return cuda_emulation::races(); }
#else
int races() { return 0; }
#endif

// The same batch with outputs changed by one part in ten million: what float32 cannot know of its own input.
Batch nudged(const Batch& b) {
    Batch other = b;
    std::mt19937 random(1);
    for (float& u : other.outputs) u *= random() % 2 == 0 ? 1.0F + 1.2e-7F : 1.0F - 1.2e-7F;
    return other;
}

// The stated bound: coefficients to 1e-4 of the task's largest, or 1e-7 over its smallest distance (rows that coincide apart),
// losses and margins to 1e-5. Where the nudge alone moves the exact answer by more than a thousandth of that, the answer hangs on
// a hinge at its corner, and the kernel may miss it by 300 times as much as the nudge does.
void check_against_cpu(const Batch& b, const Options& options) {
    const Answer<double> wanted = on_cpu(b), beside = on_cpu(nudged(b));
    const Answer<float> got = on_device(b, options);
    for (std::size_t task = 0; task < b.support.size(); ++task) {
        const Gap gap = cases::gap(b, task, got, wanted), doubt = cases::gap(b, task, beside, wanted);
        const double close = cases::closest(b, task);
        CHECK(gap.coefficients < std::max({1e-4, close > 1e-6 ? 1e-7 / close : 0.0, 300.0 * doubt.coefficients}));
        CHECK(gap.moved < std::max(1e-5, 300.0 * doubt.moved));
        CHECK(gap.losses < std::max(1e-5, 300.0 * doubt.losses));
        CHECK(gap.margins < 1e-5);
        if (b.query[task] >= 0 && doubt.coefficients < 1e-6) {
            CHECK(got.base_ranks[task] == wanted.base_ranks[task]);
            CHECK(got.adapted_ranks[task] == wanted.adapted_ranks[task]);
        }
    }
}

// Whatever a batch may hold, sizes of 2 to about 80 rows and 1 to 300 columns.
Batch random_batch(std::uint64_t seed, Options& options) {
    Maker make(seed);
    Batch b;
    b.width = seed % 8 == 0 ? 1 + make.below(4) : 1 + make.below(seed % 3 == 0 ? 300 : 70);
    b.sharpness = seed % 2 == 0 ? 0.0 : make.uniform(2.0, 20.0);
    b.momentum = make.below(3) == 0 ? 0.9 : 0.0;
    b.form = static_cast<AdaptForm>(make.below(3));
    for (double& step : b.step_sizes) step = make.uniform(0.005, 0.05);
    b.step_sizes.resize(static_cast<std::size_t>(make.below(6)), 0.02);
    if (make.below(2) == 0) make.add_net(b, 1 + make.below(40));
    const bool photos_move = make.below(2) == 0;
    for (std::int64_t people = 1 + make.below(3); people > 0; --people) {
        Shape shape;
        shape.pairs = 1 + make.below(7);
        shape.others = make.below(6) == 0 ? make.below(66) : make.below(4);
        shape.negatives = make.below(2) == 0 ? AdaptNegatives::gallery : AdaptNegatives::support;
        shape.folds = shape.pairs + shape.others < 9;
        shape.photos_move = photos_move;
        make.add(b, shape, make.uniform(0.05, 0.6));
    }
    for (std::size_t task = 0; task < b.support.size(); ++task) {
        if (b.hidden > 0 && make.below(2) == 0) b.margins[task] = kNaN;
        if (b.triplet_offsets[task] == b.triplet_offsets[task + 1]) b.margins[task] = 0.3;  // NaN would be no number to compare
    }
    const std::size_t limits[] = {kRoomy, kRoomy, kTight, kNone};
    options.shared_bytes = limits[make.below(4)];
    return b;
}

void agrees_with_cpu(std::uint64_t rounds) {
    for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
        const Shuffled shuffled(seed);
        Options options;
        const Batch b = random_batch(seed, options);
        check_against_cpu(b, options);
    }
}

// Triplets in any order, repeated, with any row as anchor, and rows that are their own positive or negative.
void any_triplets() {
    for (const AdaptForm form : {AdaptForm::span, AdaptForm::gram}) {
        for (std::uint64_t seed = 0; seed < 8; ++seed) {
            Maker make(400 + seed);
            Batch b;
            b.width = 5 + 4 * static_cast<std::int64_t>(seed);
            b.form = form;
            const std::int64_t items = 2 + make.below(30);
            make.add_rows(b, items, items / 2, seed % 2 == 0);
            std::vector<std::int32_t> triplets;
            for (std::int64_t i = 3 * (1 + make.below(150)); i > 0; --i) {
                triplets.push_back(static_cast<std::int32_t>(make.below(items)));
            }
            make.add_task(b, triplets, 0.4);
            check_against_cpu(b, {});
        }
    }
}

// A task's bits depend on neither its batch nor the number of threads, the memory it gets, or who runs first.
void same_bits_everywhere() {
    for (const AdaptForm form : {AdaptForm::span, AdaptForm::gram}) {
        Maker make(7);
        Batch b;
        b.width = 70;
        b.form = form;
        b.momentum = 0.5;
        make.add_net(b, 20);
        make.add(b, {6, 20, AdaptNegatives::gallery, false, true}, kNaN);
        make.add(b, {4, 0, AdaptNegatives::support, true, true}, 0.3);
        const Answer<float> first = on_device(b);
        for (const int threads : {128, 256, 512}) {
            const Shuffled shuffled(static_cast<std::uint64_t>(threads));
            CHECK(cases::same_bits(first, on_device(b, {kRoomy, threads})));
        }
        for (const std::size_t limit : {kTight, kNone}) CHECK(cases::same_bits(first, on_device(b, {limit, 0})));

        Batch alone = b;  // the first task without the others
        alone.support.resize(1);
        alone.triplet_offsets.resize(2);
        const Answer<float> only = on_device(alone);
        const auto numbers = static_cast<std::ptrdiff_t>(b.items(0) * b.width);
        CHECK(std::equal(first.coefficients.begin(), first.coefficients.begin() + numbers, only.coefficients.begin()));
        CHECK(std::equal(first.moved.begin(), first.moved.begin() + numbers, only.moved.begin()));
        CHECK(std::equal(only.losses.begin(), only.losses.end(), first.losses.begin()));
    }
}

// Which memory a plan takes, so that the limits above test what they say.
void memory_as_planned() {
    Maker make(8);
    Batch b;
    b.width = 64;
    make.add(b, {5, 0, AdaptNegatives::support, false, true}, 0.3);
    const auto memory = [&](std::size_t limit) {
        const fgsbir::AdaptCudaPlan plan = fgsbir::plan_adapt_cuda(b.view(), cases::limited(limit));
        CHECK(plan.shared_bytes <= limit);
        fgsbir::cuda::AdaptRecord record;
        std::memcpy(&record, plan.table.data(), sizeof(record));
        CHECK((plan.workspace_bytes == 0) == (record.memory == fgsbir::cuda::kAllShared));
        return record.memory;
    };
    CHECK(memory(kRoomy) == fgsbir::cuda::kAllShared);
    CHECK(memory(kTight) == fgsbir::cuda::kMatricesGlobal);
    CHECK(memory(kNone) == fgsbir::cuda::kAllGlobal);
}

// NaN shows in every loss of its own task and nowhere else.
void nan_stays_in_its_task() {
    for (const AdaptForm form : {AdaptForm::span, AdaptForm::gram}) {
        for (const double sharpness : {0.0, 10.0}) {
            Maker make(9);
            Batch b;
            b.width = 20;
            b.form = form;
            b.sharpness = sharpness;
            for (int i = 0; i < 3; ++i) make.add(b, {3, 1, AdaptNegatives::gallery, false, true}, 0.3);
            const Answer<float> whole = on_device(b);
            Batch broken = b;
            broken.outputs[static_cast<std::size_t>(b.row_offsets[1] * b.width)] = std::numeric_limits<float>::quiet_NaN();
            const Answer<float> got = on_device(broken);
            const std::size_t steps = b.step_sizes.size() + 1;
            for (std::size_t i = 0; i < got.losses.size(); ++i) {
                CHECK(i / steps == 1 ? std::isnan(got.losses[i]) : got.losses[i] == whole.losses[i]);
            }
            const std::size_t numbers = static_cast<std::size_t>(b.items(0) * b.width);
            for (std::size_t i = 0; i < numbers; ++i) CHECK(got.coefficients[i] == whole.coefficients[i]);
            CHECK(std::any_of(got.coefficients.begin() + static_cast<std::ptrdiff_t>(numbers),
                              got.coefficients.begin() + static_cast<std::ptrdiff_t>(2 * numbers),
                              [](float x) { return std::isnan(x); }));
        }
    }
}

// Distances at their floor have no direction, a row of zeros no norm.
void degenerate_rows() {
    for (const AdaptForm form : {AdaptForm::span, AdaptForm::gram}) {
        Maker make(10);
        Batch same;
        same.width = 12;
        same.form = form;
        make.add(same, {3, 0, AdaptNegatives::support, false, true}, 0.3);
        for (std::size_t i = 12; i < same.outputs.size(); ++i) same.outputs[i] = same.outputs[i - 12];
        const Answer<float> still = on_device(same);
        CHECK(std::all_of(still.coefficients.begin(), still.coefficients.end(), [](float x) { return x == 0.0F; }));
        CHECK(std::abs(still.losses[0] - on_cpu(same).losses[0]) < 1e-6);

        Batch zero;
        zero.width = 12;
        zero.form = form;
        zero.step_sizes = {};
        make.add(zero, {3, 0, AdaptNegatives::support, false, true}, 0.3);
        std::fill_n(zero.outputs.begin(), 12, 0.0F);
        std::fill_n(zero.outputs.begin() + 24, 12, 1e-20F);
        check_against_cpu(zero, {});
        zero.step_sizes = {1e-14};  // at the floor the gradient is 1e12 times as steep
        check_against_cpu(zero, {});
    }
}

void nothing_to_do() {
    Maker make(11);
    Batch b;
    b.width = 9;
    make.add_rows(b, 5, 2, true);
    make.add_task(b, {}, 0.25);
    b.query.back() = 1;
    b.truth.back() = 2;
    const Answer<float> got = on_device(b);
    const Answer<double> wanted = on_cpu(b);
    CHECK(std::all_of(got.coefficients.begin(), got.coefficients.end(), [](float x) { return x == 0.0F; }));
    CHECK(got.moved == b.outputs);
    CHECK(got.losses == wanted.losses && got.margins == wanted.margins);
    CHECK(got.base_ranks == wanted.base_ranks && got.adapted_ranks == got.base_ranks);

    const Batch empty;
    CHECK(on_device(empty).losses.empty());
}

// Tasks whose rows nobody wants write none, and results that are not asked for may be missing.
void only_what_is_wanted() {
    Maker make(12);
    Batch b;
    b.width = 16;
    make.add(b, {4, 0, AdaptNegatives::support, true, true}, 0.3);
    const Answer<float> all = on_device(b);
    Batch less = b;
    for (std::size_t task = 1; task < less.result_rows.size(); ++task) less.result_rows[task] = -1;
    less.result_count = less.items(0);
    const Answer<float> got = on_device(less);
    CHECK(got.losses == all.losses && got.adapted_ranks == all.adapted_ranks);
    CHECK(std::equal(got.coefficients.begin(), got.coefficients.end(), all.coefficients.begin()));

    const fgsbir::AdaptCudaPlan plan = fgsbir::plan_adapt_cuda(b.view(), cases::limited(kRoomy));
    const fgsbir::AdaptCudaTable table(plan);
    const cases::Memory<double> losses(all.losses.size());
    const cases::Memory<float> outputs(b.outputs), gram(b.gram), pool(b.pool_outputs), cross(b.cross);
    fgsbir::AdaptResults<float> results{};
    results.losses = losses.get();
    fgsbir::adapt_cuda(plan, table.data(), {outputs.get(), gram.get(), pool.get(), cross.get(), nullptr}, results, nullptr,
                       nullptr);
    CHECK(losses.values() == all.losses);
}

// The products around the descent, at sizes that no tile divides.
void head_products() {
    Maker make(14);
    constexpr std::int64_t kRows = 21, kWidth = 35, kFeatures = 50;
    const auto random = [&](std::int64_t count) {
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) value = make.normal();
        return values;
    };
    const std::vector<float> weight = random(kWidth * kFeatures), bias = random(kWidth), x = random(kRows * kFeatures),
                             a = random(kRows * kWidth);
    const cases::Memory<float> on_weight(weight), on_bias(bias), on_x(x), on_a(a);
    const fgsbir::AdaptHead<float> host{weight.data(), bias.data(), kWidth, kFeatures};
    const fgsbir::AdaptHead<float> device{on_weight.get(), on_bias.get(), kWidth, kFeatures};
    const auto close = [](const std::vector<float>& got, const std::vector<float>& wanted) {
        return std::equal(got.begin(), got.end(), wanted.begin(), wanted.end(),
                          [](float g, float w) { return std::abs(g - w) < 2e-5F; });
    };

    std::vector<float> wanted(kRows * kWidth);
    fgsbir::head_outputs(host, x.data(), kRows, wanted.data(), 1);
    const cases::Memory<float> outputs(wanted.size());
    fgsbir::head_outputs_cuda(device, on_x.get(), kRows, outputs.get(), nullptr);
    CHECK(close(outputs.values(), wanted));

    wanted.resize(kRows * kRows);
    fgsbir::gram_products(x.data(), kRows, x.data(), kRows, kFeatures, wanted.data(), 1);
    const cases::Memory<float> gram(wanted.size());
    fgsbir::gram_products_cuda(on_x.get(), kRows, on_x.get(), kRows, kFeatures, gram.get(), nullptr);
    CHECK(close(gram.values(), wanted));

    std::vector<float> wanted_bias(kWidth);
    wanted.resize(weight.size());
    fgsbir::form_head(host, a.data(), x.data(), kRows, wanted.data(), wanted_bias.data(), 1);
    fgsbir::form_head_cuda(device, on_a.get(), on_x.get(), kRows, on_weight.get(), on_bias.get(), nullptr);
    CHECK(close(on_weight.values(), wanted));
    CHECK(close(on_bias.values(), wanted_bias));
}

void refusals() {
    Maker make(13);
    Batch b;
    b.width = 16;
    make.add(b, {4, 0, AdaptNegatives::support, true, true}, 0.3);
    const auto refused = [&](const Batch& batch, const fgsbir::AdaptCudaInput& input, const char* part,
                             std::size_t shared_bytes = kRoomy) {
        std::string message;
        try {
            const fgsbir::AdaptCudaPlan plan = fgsbir::plan_adapt_cuda(batch.view(), cases::limited(shared_bytes));
            const fgsbir::AdaptCudaTable table(plan);
            std::vector<double> losses(batch.support.size() * (batch.step_sizes.size() + 1));
            fgsbir::AdaptResults<float> results{};
            results.losses = losses.data();
            fgsbir::adapt_cuda(plan, table.data(), input, results, nullptr, nullptr);
        } catch (const std::invalid_argument& error) {
            message = error.what();
        }
        check::report(message.find(part) != std::string::npos, part, __FILE__, __LINE__);
    };
    const fgsbir::AdaptCudaInput input{b.outputs.data(), b.gram.data(), b.pool_outputs.data(), b.cross.data(), nullptr};
    fgsbir::AdaptCudaInput less = input;
    less.pool_outputs = nullptr;
    refused(b, less, "pool_outputs is needed");
    less = input;
    less.cross = nullptr;
    refused(b, less, "cross is needed");
    refused(b, input, "workspace_bytes", kNone);
    Batch unknown = b;
    make.add_net(unknown, 3);
    unknown.margins[0] = kNaN;
    refused(unknown, input, "net_weights is needed");
    Batch wild = b;
    wild.triplets[4] = 8;
    refused(wild, input, "names item 8");
    Batch wide = b;
    wide.width = std::int64_t{1} << 27;
    refused(wide, input, "embedding width");
}

}  // namespace

int main(int argc, char** argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::fprintf(stderr, "skipped: no GPU\n");
        return kSkipped;
    }
    agrees_with_cpu(argc > 1 ? static_cast<std::uint64_t>(std::atoi(argv[1])) : 30);  // rounds
    any_triplets();
    same_bits_everywhere();
    memory_as_planned();
    nan_stays_in_its_task();
    degenerate_rows();
    nothing_to_do();
    only_what_is_wanted();
    head_products();
    refusals();
    CHECK(races() == 0);
    return check::finish();
}
