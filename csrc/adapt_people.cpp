// From features to a batch: the distinct rows of each support, and the photos that a guard ranks among.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "adapt.h"
#include "parallel.h"

namespace fgsbir {
namespace {

template <typename Real>
std::string_view bytes(const Real* row, std::int64_t features) {
    return {reinterpret_cast<const char*>(row), static_cast<std::size_t>(features) * sizeof(Real)};
}

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
    std::unordered_map<std::string_view, std::int32_t> place;
    for (std::int64_t i = 0; i < count; ++i) place.emplace(bytes(candidates + i * features, features), static_cast<std::int32_t>(i));
    for (std::size_t r = 0; r < rows.size(); ++r) {
        const auto at = place.find(bytes(rows[r], features));
        if (at != place.end()) found[r] = at->second;
    }
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
    std::unordered_map<std::string_view, std::int32_t> place;
    for (std::int64_t s = 0; s < count; ++s) {
        const AdaptEpisode<Real>& episode = episodes[s];
        place.clear();
        std::int32_t next = 0;
        const auto keep = [&](const Real* row) {
            layout.rows.push_back(row);
            return next++;
        };
        const auto place_of = [&](const Real* row) {
            const auto at = place.emplace(bytes(row, features), next);
            if (at.second) keep(row);
            return at.first->second;
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
void fill_supports(const AdaptHead<Real>& head, const AdaptLayout<Real>& layout, Real* rows, Real* outputs, Real* gram, int threads) {
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
    return {outputs.data(), row_offsets.data(), pool_of.data(), cross.data(), cross_offsets.data(),
            static_cast<std::int64_t>(row_offsets.size()) - 1};
}

template <typename Real>
AdaptCandidates<Real> gather_candidates(const AdaptHead<Real>& head, const AdaptPeople& people, const Real* rows, const Real* outputs,
                                        const Real* gram, const Real* candidates, std::int64_t candidates_count, int threads) {
    const std::int64_t features = head.features, width = head.width;
    // Each support's photos that pairs name: as rows ascending, and where the candidates have them.
    struct Named {
        std::vector<std::int32_t> rows, found;
        std::int64_t missing = 0, gram = 0;
    };
    std::vector<Named> named(static_cast<std::size_t>(people.count));
    std::int64_t gram_offset = 0;
    for (std::int64_t s = 0; s < people.count; ++s) {
        Named& own = named[static_cast<std::size_t>(s)];
        own.rows.assign(people.photo_of + people.pair_offsets[s], people.photo_of + people.pair_offsets[s + 1]);
        own.rows.erase(std::remove(own.rows.begin(), own.rows.end(), -1), own.rows.end());
        std::sort(own.rows.begin(), own.rows.end());
        own.rows.erase(std::unique(own.rows.begin(), own.rows.end()), own.rows.end());
        own.gram = gram_offset;
        const std::int64_t items = people.row_offsets[s + 1] - people.row_offsets[s];
        gram_offset += items * items;
    }
    std::vector<const Real*> wanted;
    for (std::int64_t s = 0; s < people.count; ++s) {
        for (const std::int32_t row : named[static_cast<std::size_t>(s)].rows) wanted.push_back(rows + (people.row_offsets[s] + row) * features);
    }
    const std::vector<std::int32_t> found = find_rows(wanted, candidates, candidates_count, features);

    AdaptCandidates<Real> result;
    result.row_offsets.push_back(0);
    std::int32_t shared = -1;
    std::size_t next = 0;
    for (Named& own : named) {
        own.found.assign(found.begin() + static_cast<std::ptrdiff_t>(next), found.begin() + static_cast<std::ptrdiff_t>(next + own.rows.size()));
        next += own.rows.size();
        for (std::int32_t& at : own.found) {  // missing ones follow the candidates
            if (at < 0) at = static_cast<std::int32_t>(candidates_count + own.missing++);
        }
        if (own.missing == 0 && shared >= 0) {
            result.pool_of.push_back(shared);
            continue;
        }
        result.pool_of.push_back(static_cast<std::int32_t>(result.row_offsets.size()) - 1);
        if (own.missing == 0) shared = result.pool_of.back();
        result.row_offsets.push_back(result.row_offsets.back() + candidates_count + own.missing);
    }

    // Outputs of the candidates once, then copied to the pools that need their own.
    result.outputs.resize(static_cast<std::size_t>(result.row_offsets.back() * width));
    const std::size_t pools = result.row_offsets.size() - 1;
    for (std::size_t p = 0; p < pools; ++p) {
        Real* to = result.outputs.data() + result.row_offsets[p] * width;
        if (p == 0) {
            head_outputs(head, candidates, candidates_count, to, threads);
        } else {
            std::copy_n(result.outputs.data(), candidates_count * width, to);
        }
    }
    for (std::int64_t s = 0; s < people.count; ++s) {
        const Named& own = named[static_cast<std::size_t>(s)];
        const std::int64_t pool = result.pool_of[static_cast<std::size_t>(s)], begin = result.row_offsets[static_cast<std::size_t>(pool)];
        const std::int64_t items = people.row_offsets[s + 1] - people.row_offsets[s];
        for (std::size_t i = 0; own.missing > 0 && i < own.rows.size(); ++i) {
            if (own.found[i] < candidates_count) continue;
            std::copy_n(outputs + (people.row_offsets[s] + own.rows[i]) * width, width, result.outputs.data() + (begin + own.found[i]) * width);
        }
        result.cross_offsets.push_back(static_cast<std::int64_t>(result.cross.size()));
        if (people.photos_move) {
            result.cross.resize(result.cross.size() + static_cast<std::size_t>((candidates_count + own.missing) * items));
        }
        for (std::int64_t pair = people.pair_offsets[s]; pair < people.pair_offsets[s + 1]; ++pair) {
            const auto at = std::lower_bound(own.rows.begin(), own.rows.end(), people.photo_of[pair]);
            result.truth.push_back(people.photo_of[pair] < 0 ? -1 : own.found[static_cast<std::size_t>(at - own.rows.begin())]);
        }
    }
    if (!people.photos_move) return result;
    const auto fill_cross = [&](std::int64_t s, int workers) {
        const Named& own = named[static_cast<std::size_t>(s)];
        const std::int64_t items = people.row_offsets[s + 1] - people.row_offsets[s];
        Real* cross = result.cross.data() + result.cross_offsets[static_cast<std::size_t>(s)];
        gram_products(candidates, candidates_count, rows + people.row_offsets[s] * features, items, features, cross, workers);
        for (std::size_t i = 0; i < own.rows.size(); ++i) {
            if (own.found[i] >= candidates_count) std::copy_n(gram + own.gram + own.rows[i] * items, items, cross + own.found[i] * items);
        }
    };
    if (people.count == 1) {
        fill_cross(0, threads);
    } else {
        each(people.count, threads, [&](std::int64_t s) { fill_cross(s, 1); });
    }
    return result;
}

#define FGSBIR_INSTANTIATE(Real)                                                                                                     \
    template AdaptLayout<Real> lay_out<Real>(const AdaptEpisode<Real>*, std::int64_t, std::int64_t);                                 \
    template void fill_supports<Real>(const AdaptHead<Real>&, const AdaptLayout<Real>&, Real*, Real*, Real*, int);                   \
    template struct AdaptCandidates<Real>;                                                                                           \
    template AdaptCandidates<Real> gather_candidates<Real>(const AdaptHead<Real>&, const AdaptPeople&, const Real*, const Real*,     \
                                                           const Real*, const Real*, std::int64_t, int);
FGSBIR_INSTANTIATE(float)
FGSBIR_INSTANTIATE(double)
#undef FGSBIR_INSTANTIATE

}  // namespace fgsbir
