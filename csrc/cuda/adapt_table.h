// What the host prepares for the adaptation kernel: one record for each task, lists of who meets whom in its triplets, and where
// everything lies in a block's memory. Read by the host that plans and by the kernel; needs no CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define FGSBIR_HOST_DEVICE __host__ __device__ inline
#else
#define FGSBIR_HOST_DEVICE inline
#endif

namespace fgsbir::cuda {

// Where a task's arrays lie. tables: lists, distances, slopes, the Gram matrix; matrices: outputs, velocity, coefficients.
enum AdaptMemory : std::int32_t {
    kAllShared = 2,       // everything in the block's shared memory
    kMatricesGlobal = 1,  // the matrices in the workspace
    kAllGlobal = 0,       // the tables there too, and the lists read where the host put them
};

// Rows that triplets name are "used" and have local numbers 0 .. used - 1, the moving ones (0 .. moving - 1) first. A pair is an
// anchor and a row that it is compared with, as positive or negative, each pair once. A run is all triplets of one anchor and one
// positive; run r's pair is pair r. Triplets are sorted by run.
struct AdaptSizes {
    std::int32_t items;     // m, rows of the support
    std::int32_t used;      // rows that take part
    std::int32_t moving;    // of them, those that learn
    std::int32_t heavy;     // of them, the first ones, that meet so many others that a warp works on each
    std::int32_t triplets;  // t
    std::int32_t runs;
    std::int32_t pairs;
    std::int32_t meetings;  // how many (moving row, pair it is in) there are
};

// Lists of a task's structure, in 32-bit words from its start; each begins at a multiple of four.
struct AdaptLists {
    std::int32_t triplet_pairs;  // [t, 2] run (and so the pair of anchor and positive), pair of anchor and negative
    std::int32_t meetings;       // [meetings, 2] of every moving row: pair, local number of the other row
    std::int32_t pair_rows;      // [pairs] local number of the anchor + 65536 * that of the other
    std::int32_t run_begin;      // [runs + 1] triplets of a run
    std::int32_t push_begin;     // [pairs + 1] entries of push_triplet
    std::int32_t push_triplet;   // [t] triplets whose negative pair it is
    std::int32_t row_begin;      // [moving + 1] meetings of a row
    std::int32_t row_of;         // [used] row of the support
    std::int32_t staged;         // length of all the above, which the kernel copies to shared memory
    std::int32_t local_of;       // [m] local number of a row; kStays or kCarried where no triplet names it
    std::int32_t end;
};
constexpr std::int32_t kStays = -1, kCarried = -2;  // carried: moves with the head without teaching it anything
constexpr std::int32_t kMaxUsed = 65535;            // local numbers have 16 bits

// Where a task's arrays lie, in 4-byte words; each begins at a multiple of four words. Rows of the matrices are padded with zeros
// to a multiple of four columns.
struct AdaptPlaces {
    std::int32_t squared, distance, weight;  // [pairs] |z - z'|^2, max(., 1e-12) ^ 1/2, d loss / d |z - z'| / distance
    std::int32_t slope;                      // [t]
    std::int32_t run_slope;                  // [runs]
    std::int32_t run_loss;                   // [runs] double
    std::int32_t inverse_norm, unit_square;  // [used] 1 / max(|u|, 1e-12); 1, or minus |z|^2 where |u| <= 1e-12
    std::int32_t gram;                       // [moving, gram_stride] [j, i] = K[row i, row j]
    std::int32_t margin;                     // [2 + 3 h] the margin as double; the network's values
    std::int32_t ranking;                    // [64 + 2 D] counts of each warp; the query before and after
    std::int32_t tables;                     // length of all the above
    std::int32_t outputs;                    // [used, columns]
    std::int32_t velocity;                   // [moving, columns]; in gram form first [used, used] and [used] double
    std::int32_t coefficients;               // [moving, columns - first_coefficient]
    std::int32_t full;                       // [moving, D] coefficients for D columns, where they are needed and not there yet
    std::int32_t end;
    std::int32_t gram_stride;
    std::int32_t active;             // columns that inner products run over
    std::int32_t columns;            // all columns
    std::int32_t first_coefficient;  // from which column on coefficients are kept
};

// One task, as the kernel reads it.
struct AdaptRecord {
    std::int64_t task;         // b
    std::int64_t outputs_row;  // first row of the support in outputs
    std::int64_t gram_at;      // in elements
    std::int64_t result_row;   // -1: none wanted
    std::int64_t pool_row;     // first photo of the pool
    std::int64_t cross_at;     // in elements
    std::int64_t lists_at;     // in words
    double margin;             // NaN asks the network
    AdaptSizes sizes;
    AdaptMemory memory;
    std::int32_t gram_form;                      // 1: the support's rows stand for themselves as few numbers as there are rows
    std::int32_t need_full;                      // 1: gram form and someone asks for the coefficients of single rows afterwards
    std::int32_t run_lanes;                      // neighbouring lanes that share a run: a power of two up to 32
    std::int32_t query, truth, photos, padding;  // query -1: none
};
static_assert(sizeof(AdaptRecord) == 128, "one record is one line of the cache");

namespace detail {
FGSBIR_HOST_DEVICE std::int32_t take(std::int32_t& end, std::int32_t words) {
    const std::int32_t begin = end;
    end += (words + 3) / 4 * 4;
    return begin;
}
}  // namespace detail

FGSBIR_HOST_DEVICE AdaptLists adapt_lists(const AdaptSizes& s) {
    AdaptLists lists{};
    std::int32_t end = 0;
    lists.triplet_pairs = detail::take(end, 2 * s.triplets);
    lists.meetings = detail::take(end, 2 * s.meetings);
    lists.pair_rows = detail::take(end, s.pairs);
    lists.run_begin = detail::take(end, s.runs + 1);
    lists.push_begin = detail::take(end, s.pairs + 1);
    lists.push_triplet = detail::take(end, s.triplets);
    lists.row_begin = detail::take(end, s.moving + 1);
    lists.row_of = detail::take(end, s.used);
    lists.staged = end;
    lists.local_of = detail::take(end, s.items);
    lists.end = end;
    return lists;
}

// `begin`: words that are taken before (the staged lists, or none).
FGSBIR_HOST_DEVICE AdaptPlaces adapt_places(const AdaptRecord& r, std::int32_t width, std::int32_t hidden, std::int32_t begin) {
    const AdaptSizes& s = r.sizes;
    AdaptPlaces places{};
    places.gram_stride = (s.moving + 3) / 4 * 4;
    places.active = ((r.gram_form ? s.used : width) + 3) / 4 * 4;
    places.columns = r.gram_form ? 2 * places.active : places.active;
    places.first_coefficient = r.gram_form ? places.active : 0;
    std::int32_t end = begin;
    places.squared = detail::take(end, s.pairs);
    places.distance = detail::take(end, s.pairs);
    places.weight = detail::take(end, s.pairs);
    places.slope = detail::take(end, s.triplets);
    places.run_slope = detail::take(end, s.runs);
    places.run_loss = detail::take(end, 2 * s.runs);
    places.inverse_norm = detail::take(end, s.used);
    places.unit_square = detail::take(end, s.used);
    places.gram = detail::take(end, s.moving * places.gram_stride);
    places.margin = detail::take(end, 4 + (r.margin == r.margin ? 0 : 3 * hidden));
    places.ranking = detail::take(end, r.query < 0 ? 0 : 64 + 2 * width);
    places.tables = end;
    const std::int32_t velocity = s.moving * places.columns, products = r.gram_form ? 2 * s.used * (s.used + 1) : 0;
    places.outputs = detail::take(end, s.used * places.columns);
    places.velocity = detail::take(end, velocity > products ? velocity : products);
    places.coefficients = detail::take(end, s.moving * (places.columns - places.first_coefficient));
    places.full = detail::take(end, r.need_full ? s.moving * width : 0);
    places.end = end;
    return places;
}

}  // namespace fgsbir::cuda
