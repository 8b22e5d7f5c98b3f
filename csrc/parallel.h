// Runs independent items on a fixed number of threads and brings the first exception home.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

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

// Calls worker(ItemQueue&) once in each of min(threads, count) threads, the calling one included, and waits for all of them.
// A worker keeps its scratch memory between the items it takes. The first exception stops the others early and is rethrown here;
// what the items wrote until then stays. A thread that the system refuses to start is an exception too.
template <typename Worker>
void run_workers(std::int64_t count, int threads, Worker&& worker) {
    ItemQueue queue(count);
    std::exception_ptr failure;
    std::mutex failure_mutex;
    auto guarded = [&]() noexcept {
        try {
            worker(queue);
        } catch (...) {
            queue.drain();
            const std::lock_guard<std::mutex> lock(failure_mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    const std::int64_t helpers = std::min<std::int64_t>(threads, count) - 1;
    std::vector<std::thread> pool;
    try {
        for (std::int64_t i = 0; i < helpers; ++i) pool.emplace_back(guarded);
        guarded();
    } catch (...) {  // only the start of a thread can throw here; joining first keeps std::thread from ending the process
        queue.drain();
        for (std::thread& thread : pool) thread.join();
        throw;
    }
    for (std::thread& thread : pool) thread.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace fgsbir
