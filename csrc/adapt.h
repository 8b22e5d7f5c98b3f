// Adaptation of a head to a few sketch-photo pairs, in the span of the support features. Plain C++17: no Python, no Torch.
//
// With frozen support features X [m, C] and a head U = X W^T + b, every gradient of the head is a combination of support
// features: W' = W + A X, b' = b + A 1. So the loop needs only the outputs and the Gram matrix of the features with a column of
// ones, and never sees C.
//
// The structs are views: pointers and sizes, nothing owned, all arrays row-major and contiguous. The same structs serve adapt()
// here, with pointers into host memory, and the device's adapt_cuda.h, with pointers into device memory.
#pragma once

#include <cstdint>
#include <vector>

namespace fgsbir {

// Distinct sets of support rows that tasks draw on, packed one after another. R is the number of rows of all supports together.
template <typename Real>
struct AdaptSupports {
    const Real* outputs;               // [R, D] head outputs before any step
    const Real* gram;                  // support s: [m, m] X X^T + 1 at gram + gram_offsets[s]
    const std::uint8_t* moves;         // [R] 1: the row's gradient moves the head and the row moves with it; 0: it stays as it is
    const std::int64_t* row_offsets;   // [S + 1] rows of support s are row_offsets[s] .. row_offsets[s + 1] - 1, m of them
    const std::int64_t* gram_offsets;  // [S] in elements
    std::int64_t count;                // S
    std::int64_t width;                // D
    const std::uint8_t* shifted = nullptr;  // [R] 1: AdaptTasks::shifts move the row; read only where there are any
};

// Photos that left-out sketches are ranked among, packed; nothing is ranked where count is 0. Several supports may share a pool.
template <typename Real>
struct AdaptPools {
    const Real* outputs;                // [sum of N, D] head outputs of the photos before any step
    const std::int64_t* row_offsets;    // [P + 1] photos of pool p are row_offsets[p] .. row_offsets[p + 1] - 1, N of them
    const std::int32_t* pool_of;        // [S] pool of each support; -1: none
    const Real* cross;                  // support s: [N, m] inner products of its pool's features with its own + 1
    const std::int64_t* cross_offsets;  // [S] in elements; read only where photos move (AdaptTasks::photos_move)
    std::int64_t count;                 // P
};

// What is learned from what. The leave-one-out folds of a guard are further tasks on the same support.
struct AdaptTasks {
    const std::int32_t* support;          // [B] support of each task
    const std::int32_t* triplets;         // [t, 3] (anchor, positive, negative), rows of the task's own support
    const std::int64_t* triplet_offsets;  // [B + 1] triplets of task b are triplet_offsets[b] .. triplet_offsets[b + 1] - 1
    const double* margins;                // [B] NaN asks the margin network
    const std::int64_t* result_rows;  // [B] row where the task's m rows begin in coefficients and moved; -1: they are not wanted
    const std::int32_t* query;        // [B] row of the support that is ranked against the pool; -1: none. nullptr: none at all
    const std::int32_t* truth;        // [B] its true photo, counted within the pool; read only where query is not -1
    std::int64_t count;               // B
    std::uint8_t photos_move;         // 1: the pool's photos go through the changed head too (side "both"), 0: queries alone
    const double* shifts = nullptr;   // [B, D] added to a task's shifted rows, its query too, before any step; nullptr: nothing is
};

// The margin network: x = [d(a, p), d(a, n), d(a, n) - d(a, p)] per triplet at the base outputs, h_i = ReLU(W1 x_i + b1),
// s = [mean_i h_i, sqrt(var_i h_i + 1e-8)], margin = sigmoid(W3 ReLU(W2 s + b2) + b3).
struct AdaptMarginNet {
    const float* weights;  // packed W1 [h, 3], b1 [h], W2 [h, 2 h], b2 [h], W3 [h], b3 [1]: 2 h^2 + 6 h + 1 numbers
    std::int64_t hidden;   // h; 0: there is no network, so no margin may be NaN
};

// Two ways to the same result. gram: inner products alone, O(m^3) a step whatever D, in double. span: the outputs themselves,
// O(m^2 D) a step. automatic: the cheaper one by a measured rule. Should gram lose precision, which takes linearly dependent
// outputs and huge steps, span takes over.
enum class AdaptForm : std::int32_t { automatic = 0, gram = 1, span = 2 };

// How the descent goes, shared by all tasks of a batch.
struct AdaptRule {
    const double* step_sizes;  // [T]
    std::int64_t num_steps;    // T
    double momentum;           // beta of V = beta V + G; 0: plain steps
    double sharpness;          // b of softplus_b(x) = log(1 + e^(b x)) / b; 0: the hinge max(0, x)
    AdaptForm form;
};

template <typename Real>
struct AdaptBatch {
    AdaptSupports<Real> supports;
    AdaptPools<Real> pools;
    AdaptTasks tasks;
    AdaptMarginNet margin_net;
    AdaptRule rule;
};

// What comes out. A pointer that is nullptr is not written, except for losses.
template <typename Real>
struct AdaptResults {
    Real* coefficients;           // [*, D] A transposed: the task's m rows at result_rows[b]; zero in rows that do not move
    Real* moved;                  // [*, D] outputs after the last step, at the same rows
    double* losses;               // [B, T + 1] before each step and after the last
    double* margins;              // [B] the margin used
    std::int32_t* base_ranks;     // [B] rank of the true photo before any step; 0 where the task has no query
    std::int32_t* adapted_ranks;  // [B] after the last step
    double* seconds = nullptr;    // [B] wall time spent on each task (the CPU's adapt() alone)
};

// Gradient descent on L = mean over triplets of softplus_b(margin + d(a, p) - d(a, n)), d the Euclidean distance
// sqrt(max(|z - z'|^2, 1e-12)) of the normalised outputs z = u / max(|u|, 1e-12). Each step, with G = dL/dU on the moving rows:
// V = momentum V + G, U -= alpha_t gram V and A -= alpha_t V.
//
// A task without triplets changes nothing but by its shift: its coefficients and losses are 0, its margin is the given one.
// Rank of a photo: how many photos of the pool are not farther from the query than it is, by inner products of unit
// vectors that count as equal within 1e-6; ties count against, and so does NaN (fgsbir_edge/ranking.py).
//
// Tasks are dealt out to up to `threads` threads; every task is computed by one, in a fixed order of sums, so results are the
// same bits for any number of threads. Scalars of triplets (distances, losses, slopes) are double in every form. NaN and infinity
// in the input show up in the losses and are not an error. Throws std::invalid_argument on bad sizes, indices or settings.
// Results must not overlap the input.
template <typename Real>
void adapt(const AdaptBatch<Real>& batch, const AdaptResults<Real>& results, int threads);

// The checks that adapt() makes first, for callers that pass the batch on to a device: all arrays in host memory.
// supports.outputs, gram, pools.outputs, cross and margin_net.weights are not read. Throws std::invalid_argument.
template <typename Real>
void check_adapt(const AdaptBatch<Real>& batch);

// ---- one task, for programs that have nothing to batch ----

template <typename Real>
struct AdaptProblem {
    const Real* outputs;           // [m, D] head outputs before any step
    const Real* gram;              // [m, m] X X^T + 1
    const std::int32_t* triplets;  // [t, 3] rows (anchor, positive, negative)
    const std::uint8_t* moves;     // [m]
    const Real* step_sizes;        // [T]
    std::int64_t items;            // m
    std::int64_t width;            // D
    std::int64_t num_triplets;     // t, at least 1
    std::int64_t num_steps;        // T
    Real margin;
    Real sharpness;
    Real momentum = Real{0};
    AdaptForm form = AdaptForm::automatic;
};

// The same descent: coefficients [m, D], outputs [m, D] and losses [T + 1]. Throws std::invalid_argument, also on no triplets.
template <typename Real>
void adapt(const AdaptProblem<Real>& problem, Real* coefficients, Real* outputs, double* losses);

// ---- which triplets: pairs and folds ----

enum class AdaptNegatives : std::int32_t { support = 0, gallery = 1 };

// One support's share of AdaptTasks: pairs are rows 0 .. k - 1 (sketches), photos the rows k .. m - 1.
struct AdaptPlan {
    std::vector<std::int32_t> triplets;         // [t, 3]
    std::vector<std::int64_t> triplet_offsets;  // [B + 1]
    std::vector<std::int32_t> left_out;         // [B] the pair that a task leaves out, its query; -1: all pairs
};

// Triplets (sketch, its photo, another photo), sketches ascending, then other photos ascending; photo_of [k] holds rows, -1 for a
// pair that takes no part. support: other photos that the task's own pairs name; gallery: every other photo row k .. m - 1, also
// those of pairs left out, since the gallery that the person will search holds them. Task 0 has all pairs; with folds, every
// further task leaves one of them out. Throws std::invalid_argument where a row is no photo.
AdaptPlan plan_adapt(const std::int32_t* photo_of, std::int64_t pairs, std::int64_t items, AdaptNegatives negatives, bool folds);

// Several supports made of pairs, packed as in AdaptSupports.
struct AdaptPeople {
    const std::int64_t* row_offsets;   // [S + 1]
    const std::int64_t* pair_offsets;  // [S + 1] k is the difference
    const std::int32_t* photo_of;      // [sum of k] rows of the pair's own support
    const std::int32_t* truth;  // [sum of k] the pair's photo, counted within the support's pool; nullptr: folds rank nothing
    std::int64_t count;         // S
    std::int64_t fold_pairs;    // supports with at least so many pairs get folds; 0: none does
    AdaptNegatives negatives;
    bool photos_move;  // side "both"
    double margin;     // of every task; NaN asks the margin network
};

// What all sketches of a person or a category have in common says nothing about which photo is meant. It is estimated by the mean
// of a task's k sketches, drawn towards 0 as if `prior` more of them lay there: the shift is -k / (k + prior) times the mean of
// their first outputs. Infinity: no shift.
struct AdaptCentre {
    double prior;
};

// All that AdaptSupports and AdaptTasks need beside outputs and gram: for each support the task with all pairs, then its folds.
struct AdaptPeoplePlan {
    std::vector<std::uint8_t> moves, sketches;  // [R] sketches: 1 for rows of sketches, as AdaptSupports::shifted
    std::vector<std::int64_t> gram_offsets, triplet_offsets, result_rows;
    std::vector<std::int64_t> first_task;  // [S + 1] tasks of support s are first_task[s] .. first_task[s + 1] - 1
    std::vector<std::int32_t> support, triplets, query, truth;
    std::vector<std::int32_t> left_out;  // [B] the pair that a task leaves out; -1: none
    std::vector<double> margins;
    std::vector<double> shifts;  // [B, D] once centre() has filled it
    bool photos_move = false;

    // Fills shifts from outputs [R, D]; leaves them empty where the prior is infinite. Throws std::invalid_argument where it is
    // NaN or negative.
    template <typename Real>
    void centre(const AdaptPeople& people, AdaptCentre centre, const Real* outputs, std::int64_t width);

    AdaptTasks tasks() const;  // a view, valid as long as the plan is
};

// Coefficients of support s begin at row_offsets[s]; folds write none. Throws as plan_adapt.
AdaptPeoplePlan plan_people(const AdaptPeople& people);

// ---- the head's side: from features and back ----

template <typename Real>
struct AdaptHead {
    const Real* weight;     // W [D, C]
    const Real* bias;       // b [D]
    std::int64_t width;     // D
    std::int64_t features;  // C
};

// U = X W^T + b: features [n, C] -> outputs [n, D].
template <typename Real>
void head_outputs(const AdaptHead<Real>& head, const Real* features, std::int64_t count, Real* outputs, int threads);

// X Y^T + 1: rows [n, C], others [m, C] -> products [n, m]. With others == rows it is the Gram matrix, of which half is computed.
template <typename Real>
void gram_products(const Real* rows, std::int64_t count, const Real* others, std::int64_t others_count, std::int64_t features,
                   Real* products, int threads);

// W' = W + A X and b' = b + A 1: coefficients [m, D] (A transposed), support features [m, C] -> weight [D, C], bias [D].
// weight may be the head's own weight, bias its own bias.
template <typename Real>
void form_head(const AdaptHead<Real>& head, const Real* coefficients, const Real* features, std::int64_t items, Real* weight,
               Real* bias, int threads);

// ---- from features to a batch: what adapt() needs, made from what an application has ----

// One person's pairs. Photos may repeat; others are photos that take part as negatives ("gallery"), repeats of the pairs'
// left out.
template <typename Real>
struct AdaptEpisode {
    const Real* sketches;       // [k, C]
    const Real* photos;         // [k, C] row i belongs to sketch i
    const Real* others;         // [n, C]
    std::int64_t pairs;         // k
    std::int64_t others_count;  // n
};

// The supports of several episodes, packed: for each its sketches, its photos, its others, every photo once.
template <typename Real>
struct AdaptLayout {
    std::vector<const Real*> rows;           // [R] where each row's features lie
    std::vector<std::int64_t> row_offsets;   // [S + 1]
    std::vector<std::int64_t> pair_offsets;  // [S + 1]
    std::vector<std::int32_t> photo_of;      // [sum of k] row of each sketch's photo in its own support
    std::int64_t gram_size = 0;              // sum of m x m
};

// Rows are the same photo when they agree in every bit.
template <typename Real>
AdaptLayout<Real> lay_out(const AdaptEpisode<Real>* episodes, std::int64_t count, std::int64_t features);

// X [R, C], U = X W^T + b [R, D], and K = X X^T + 1 [m, m] of each support, one after another.
template <typename Real>
void fill_supports(const AdaptHead<Real>& head, const AdaptLayout<Real>& layout, Real* rows, Real* outputs, Real* gram,
                   int threads);

// Pools for the folds of a guard. Supports share the candidates as long as these hold all their photos; a support whose photos
// they lack gets a pool of its own, the candidates and the missing ones; without candidates, its pairs' photos alone.
template <typename Real>
struct AdaptCandidates {
    std::vector<Real> outputs, cross;
    std::vector<std::int64_t> row_offsets, cross_offsets;
    std::vector<std::int32_t> pool_of;  // [S]
    std::vector<std::int32_t> truth;    // [sum of k] as in AdaptPeople
    const Real* given = nullptr;        // outputs of the only pool, where the caller's serve as they are

    AdaptPools<Real> pools() const;  // a view, valid as long as this and what was given are
};

// people holds row_offsets, pair_offsets, photo_of, count and photos_move; rows, outputs and gram are those of fill_supports.
// candidates [N, C] are features, nullptr for none; candidate_outputs [N, D] what the head makes of them, nullptr where that is
// still to be worked out. cross is made where photos move.
template <typename Real>
AdaptCandidates<Real> gather_candidates(const AdaptHead<Real>& head, const AdaptPeople& people, const Real* rows,
                                        const Real* outputs, const Real* gram, const Real* candidates,
                                        std::int64_t candidates_count, int threads, const Real* candidate_outputs = nullptr);

}  // namespace fgsbir
