// From features to a batch: the distinct rows of each support, and the photos that a guard ranks among.
#include <algorithm>
#include <cstring>
#include <utility>

#include "adapt.h"
#include "parallel.h"

namespace fgsbir {
namespace {

// Finds rows that agree in every bit. A hash of the whole row would cost more than its share of a small product with W, so only a
// few numbers all over the row are mixed; rows that agree there are compared.
template <typename Real>
class RowTable {
  public:
    explicit RowTable(std::int64_t features) : features_(features) {}

    // Empty, with room for so many rows.
    void reset(std::int64_t most) {
        std::size_t size = 16;
        while (size < 2 * static_cast<std::size_t>(most)) size *= 2;
        slots_.assign(size, {nullptr, -1});
    }

    // The place of the first row like this one; `next`, and the row is kept, where this is the first.
    std::int32_t place_of(const Real* row, std::int32_t next) {
        Slot& slot = slots_[slot_of(row)];
        if (slot.row == nullptr) slot = {row, next};
        return slot.place;
    }

    // The same without keeping it; -1 where there is none.
    std::int32_t find(const Real* row) const { return slots_[slot_of(row)].place; }

  private:
    struct Slot {
        const Real* row;
        std::int32_t place;
    };

    std::size_t slot_of(const Real* row) const {
        constexpr std::int64_t samples = 16;
        const std::int64_t stride = std::max<std::int64_t>(features_ / samples, 1);
        std::uint64_t mixed = 0;
        for (std::int64_t i = 0; i < features_; i += stride) {
            std::uint64_t word = 0;
            std::memcpy(&word, row + i, sizeof(Real));
            mixed = (mixed ^ word) * 0x9E3779B97F4A7C15U;
            mixed ^= mixed >> 29;
        }
        std::size_t at = static_cast<std::size_t>(mixed) & (slots_.size() - 1);
        while (slots_[at].row != nullptr &&
               std::memcmp(slots_[at].row, row, static_cast<std::size_t>(features_) * sizeof(Real)) != 0) {
            at = (at + 1) & (slots_.size() - 1);
        }
        return at;
    }

    std::int64_t features_;
    std::vector<Slot> slots_;  // a power of two, at most half of them taken
};

// [p] the first of `count` candidates that agrees with each row in every bit; -1 where there is none.
template <typename Real>
std::vector<std::int32_t> find_rows(const std::vector<const Real*>& rows, const Real* candidates, std::int64_t count,
                                    std::int64_t features) {
    std::vector<std::int32_t> found(rows.size(), -1);
    const std::size_t size = static_cast<std::size_t>(features) * sizeof(Real);
    if (rows.size() <= 16) {  // most candidates differ in their first number: looking at that beats hashing all of them
        for (std::int64_t i = 0; i < count; ++i) {
            const Real* row = candidates + i * features;
            for (std::size_t r = 0; r < rows.size(); ++r) {
                if (found[r] >= 0 || std::memcmp(rows[r], row, sizeof(Real)) != 0) continue;
                if (std::memcmp(rows[r], row, size) == 0) found[r] = static_cast<std::int32_t>(i);
            }
        }
        return found;
    }
    RowTable<Real> table(features);
    table.reset(count);
    for (std::int64_t i = 0; i < count; ++i) table.place_of(candidates + i * features, static_cast<std::int32_t>(i));
    for (std::size_t r = 0; r < rows.size(); ++r) found[r] = table.find(rows[r]);
    return found;
}

// Runs work(i) for every i < count.
template <typename Work>
void each(std::int64_t count, int threads, Work&& work) {
    run_workers(count, threads, [&](ItemQueue& queue) {
        for (std::int64_t i = 0; queue.take(i);) work(i);
    });
}

}  // namespace

template <typename Real>
AdaptLayout<Real> lay_out(const AdaptEpisode<Real>* episodes, std::int64_t count, std::int64_t features) {
    AdaptLayout<Real> layout;
    layout.row_offsets.push_back(0);
    layout.pair_offsets.push_back(0);
    RowTable<Real> photos(features);
    for (std::int64_t s = 0; s < count; ++s) {
        const AdaptEpisode<Real>& episode = episodes[s];
        photos.reset(episode.pairs + episode.others_count);
        std::int32_t next = 0;
        const auto keep = [&](const Real* row) {
            layout.rows.push_back(row);
            return next++;
        };
        const auto place_of = [&](const Real* row) {
            const std::int32_t place = photos.place_of(row, next);
            if (place == next) keep(row);
            return place;
        };
        for (std::int64_t i = 0; i < episode.pairs; ++i) keep(episode.sketches + i * features);
        for (std::int64_t i = 0; i < episode.pairs; ++i) layout.photo_of.push_back(place_of(episode.photos + i * features));
        for (std::int64_t i = 0; i < episode.others_count; ++i) place_of(episode.others + i * features);
        layout.row_offsets.push_back(static_cast<std::int64_t>(layout.rows.size()));
        layout.pair_offsets.push_back(static_cast<std::int64_t>(layout.photo_of.size()));
        layout.gram_size += static_cast<std::int64_t>(next) * next;
    }
    return layout;
}

template <typename Real>
void fill_supports(const AdaptHead<Real>& head, const AdaptLayout<Real>& layout, Real* rows, Real* outputs, Real* gram,
                   int threads) {
    const std::int64_t features = head.features, supports = static_cast<std::int64_t>(layout.row_offsets.size()) - 1;
    for (std::size_t i = 0; i < layout.rows.size(); ++i) {
        std::copy_n(layout.rows[i], features, rows + static_cast<std::int64_t>(i) * features);
    }
    head_outputs(head, rows, static_cast<std::int64_t>(layout.rows.size()), outputs, threads);
    std::vector<std::int64_t> offsets{0};
    for (std::size_t s = 0; s + 1 < layout.row_offsets.size(); ++s) {
        const std::int64_t items = layout.row_offsets[s + 1] - layout.row_offsets[s];
        offsets.push_back(offsets.back() + items * items);
    }
    each(supports, threads, [&](std::int64_t support) {
        const std::size_t s = static_cast<std::size_t>(support);
        const Real* own = rows + layout.row_offsets[s] * features;
        const std::int64_t items = layout.row_offsets[s + 1] - layout.row_offsets[s];
        gram_products(own, items, own, items, features, gram + offsets[s], 1);
    });
}

template <typename Real>
AdaptPools<Real> AdaptCandidates<Real>::pools() const {
    const Real* rows = given == nullptr ? outputs.data() : given;
    return {rows, row_offsets.data(), pool_of.data(), cross.data(), cross_offsets.data(),
            static_cast<std::int64_t>(row_offsets.size()) - 1};
}

namespace {

// Makes AdaptCandidates step by step; rows, outputs and gram are packed as AdaptSupports are.
template <typename Real>
class Gathering {
  public:
    Gathering(const AdaptHead<Real>& head, const AdaptPeople& people, const Real* rows, const Real* candidates,
              const Real* candidate_outputs, std::int64_t count)
        : head_(head),
          people_(people),
          rows_(rows),
          candidates_(candidates),
          candidate_outputs_(candidate_outputs),
          count_(count),
          named_(size(people.count)) {
        find_named();
        assign_pools();
        for (std::int64_t s = 0; s < people_.count; ++s) {
            const Named& own = named_[size(s)];
            for (std::int64_t pair = people_.pair_offsets[s]; pair < people_.pair_offsets[s + 1]; ++pair) {
                const std::int32_t row = people_.photo_of[pair];
                const auto at = std::lower_bound(own.rows.begin(), own.rows.end(), row) - own.rows.begin();
                result_.truth.push_back(row < 0 ? -1 : own.found[static_cast<std::size_t>(at)]);
            }
        }
    }

    // Outputs of the candidates once, then copied to the pools that need their own, where missing photos follow.
    void fill_outputs(const Real* outputs, int threads) {
        const std::int64_t width = head_.width;
        if (candidate_outputs_ != nullptr && result_.row_offsets.size() == 2 && result_.row_offsets.back() == count_) {
            result_.given = candidate_outputs_;
            return;
        }
        result_.outputs.resize(size(result_.row_offsets.back() * width));
        Real* first = result_.outputs.data();
        for (std::size_t pool = 0; pool + 1 < result_.row_offsets.size(); ++pool) {
            if (pool > 0 || candidate_outputs_ != nullptr) {
                const Real* made = candidate_outputs_ != nullptr ? candidate_outputs_ : first;
                std::copy_n(made, count_ * width, first + result_.row_offsets[pool] * width);
            } else {
                head_outputs(head_, candidates_, count_, first, threads);
            }
        }
        for (std::int64_t s = 0; s < people_.count; ++s) {
            Real* pool = first + result_.row_offsets[size(result_.pool_of[size(s)])] * width;
            each_missing(s, [&](std::int64_t row, std::int64_t place) {
                std::copy_n(outputs + (people_.row_offsets[s] + row) * width, width, pool + place * width);
            });
        }
    }

    void fill_cross(const Real* gram, int threads) {
        std::int64_t total = 0;
        for (std::int64_t s = 0; s < people_.count; ++s) {
            result_.cross_offsets.push_back(total);
            total += (count_ + named_[size(s)].missing) * items(s);
        }
        result_.cross.resize(size(total));
        if (people_.count == 1) return fill_cross_of(0, gram, threads);
        each(people_.count, threads, [&](std::int64_t s) { fill_cross_of(s, gram, 1); });
    }

    AdaptCandidates<Real> take() { return std::move(result_); }

  private:
    // A support's photos that pairs name: as rows ascending, and their places in its pool.
    struct Named {
        std::vector<std::int32_t> rows, found;
        std::int64_t missing = 0;  // how many of them the candidates lack
        std::int64_t gram = 0;     // where the support's Gram matrix begins
    };

    static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
    std::int64_t items(std::int64_t s) const { return people_.row_offsets[s + 1] - people_.row_offsets[s]; }

    void find_named() {
        std::vector<const Real*> wanted;
        std::int64_t gram = 0;
        for (std::int64_t s = 0; s < people_.count; ++s) {
            Named& own = named_[size(s)];
            own.rows.assign(people_.photo_of + people_.pair_offsets[s], people_.photo_of + people_.pair_offsets[s + 1]);
            own.rows.erase(std::remove(own.rows.begin(), own.rows.end(), -1), own.rows.end());
            std::sort(own.rows.begin(), own.rows.end());
            own.rows.erase(std::unique(own.rows.begin(), own.rows.end()), own.rows.end());
            own.gram = gram;
            gram += items(s) * items(s);
            for (const std::int32_t row : own.rows) wanted.push_back(rows_ + (people_.row_offsets[s] + row) * head_.features);
        }
        const std::vector<std::int32_t> found = find_rows(wanted, candidates_, count_, head_.features);
        auto next = found.begin();
        for (Named& own : named_) {
            for (std::size_t i = 0; i < own.rows.size(); ++i, ++next) {  // those that are missing follow the candidates
                own.found.push_back(*next >= 0 ? *next : static_cast<std::int32_t>(count_ + own.missing++));
            }
        }
    }

    void assign_pools() {
        result_.row_offsets.push_back(0);
        std::int32_t shared = -1;
        for (const Named& own : named_) {
            const bool lacks = own.missing > 0;
            if (lacks || shared < 0) {
                const std::int32_t pool = static_cast<std::int32_t>(result_.row_offsets.size()) - 1;
                result_.row_offsets.push_back(result_.row_offsets.back() + count_ + own.missing);
                result_.pool_of.push_back(pool);
                if (!lacks) shared = pool;
            } else {
                result_.pool_of.push_back(shared);
            }
        }
    }

    // work(row, place in the pool) for every named photo that the candidates lack.
    template <typename Work>
    void each_missing(std::int64_t s, Work&& work) const {
        const Named& own = named_[size(s)];
        for (std::size_t i = 0; i < own.rows.size(); ++i) {
            if (own.found[i] >= count_) work(own.rows[i], own.found[i]);
        }
    }

    void fill_cross_of(std::int64_t s, const Real* gram, int threads) {
        Real* cross = result_.cross.data() + result_.cross_offsets[size(s)];
        const Real* own = rows_ + people_.row_offsets[s] * head_.features;
        gram_products(candidates_, count_, own, items(s), head_.features, cross, threads);
        each_missing(s, [&](std::int64_t row, std::int64_t place) {
            std::copy_n(gram + named_[size(s)].gram + row * items(s), items(s), cross + place * items(s));
        });
    }

    const AdaptHead<Real>& head_;
    const AdaptPeople& people_;
    const Real *rows_, *candidates_, *candidate_outputs_;
    std::int64_t count_;
    std::vector<Named> named_;
    AdaptCandidates<Real> result_;
};

}  // namespace

template <typename Real>
AdaptCandidates<Real> gather_candidates(const AdaptHead<Real>& head, const AdaptPeople& people, const Real* rows,
                                        const Real* outputs, const Real* gram, const Real* candidates,
                                        std::int64_t candidates_count, int threads, const Real* candidate_outputs) {
    Gathering<Real> gathering(head, people, rows, candidates, candidate_outputs, candidates_count);
    gathering.fill_outputs(outputs, threads);
    if (people.photos_move) gathering.fill_cross(gram, threads);
    return gathering.take();
}

#define FGSBIR_INSTANTIATE(Real)                                                                                                 \
    template AdaptLayout<Real> lay_out<Real>(const AdaptEpisode<Real>*, std::int64_t, std::int64_t);                             \
    template void fill_supports<Real>(const AdaptHead<Real>&, const AdaptLayout<Real>&, Real*, Real*, Real*, int);               \
    template struct AdaptCandidates<Real>;                                                                                       \
    template AdaptCandidates<Real> gather_candidates<Real>(const AdaptHead<Real>&, const AdaptPeople&, const Real*, const Real*, \
                                                           const Real*, const Real*, std::int64_t, int, const Real*);
FGSBIR_INSTANTIATE(float)
FGSBIR_INSTANTIATE(double)
#undef FGSBIR_INSTANTIATE

}  // namespace fgsbir
