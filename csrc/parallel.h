// Runs independent items on an explicit number of threads, which are kept between calls, and brings the first exception home.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>

namespace fgsbir {

// Hands out the items 0..count-1, each exactly once, to however many threads ask.
class ItemQueue {
  public:
    explicit ItemQueue(std::int64_t count) : count_(count) {}

    // Stores the next item and returns true, or returns false when all are taken.
    bool take(std::int64_t& item) {
        item = next_.fetch_add(1, std::memory_order_relaxed);
        return item < count_;
    }

    void drain() { next_.store(count_, std::memory_order_relaxed); }

  private:
    std::int64_t count_;
    std::atomic<std::int64_t> next_{0};
};

namespace detail {

// Calls call(context) in the calling thread and meanwhile in up to `helpers` threads of the process's pool, and returns when
// every call that began has ended. The pool grows to `helpers` threads and keeps them, asleep. While another caller has the pool,
// or inside a call that runs on it, the calling thread works alone. After fork() the child begins with an empty pool. call must
// not throw. Throws std::system_error, before any call, where the system refuses to start a thread.
void run_on_pool(int helpers, void (*call)(void*), void* context);

}  // namespace detail

// Calls worker(ItemQueue&) once in each of at most min(threads, count) threads, the calling one included, and waits for all of
// them. A worker keeps its scratch memory between the items it takes, and must take items until there are none: how many workers
// take part depends on which threads are free. The first exception stops the others early and is rethrown here; what the items
// wrote until then stays. A thread that the system refuses to start is an exception too.
template <typename Worker>
void run_workers(std::int64_t count, int threads, Worker&& worker) {
    ItemQueue queue(count);
    const std::int64_t helpers = std::min<std::int64_t>(threads, count) - 1;
    if (helpers < 1) return worker(queue);
    struct Shared {
        ItemQueue& queue;
        Worker& worker;
        std::exception_ptr failure;
        std::mutex failure_mutex;
    } shared{queue, worker, nullptr, {}};
    const auto guarded = [](void* context) {
        Shared& mine = *static_cast<Shared*>(context);
        try {
            mine.worker(mine.queue);
        } catch (...) {
            mine.queue.drain();
            const std::lock_guard<std::mutex> lock(mine.failure_mutex);
            if (!mine.failure) mine.failure = std::current_exception();
        }
    };
    detail::run_on_pool(static_cast<int>(std::min<std::int64_t>(helpers, std::numeric_limits<int>::max())), guarded, &shared);
    if (shared.failure) std::rethrow_exception(shared.failure);
}

}  // namespace fgsbir
