#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/wait.h>
#include <unistd.h>
#define CAN_FORK
#endif

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer refuses threads after a fork unless told that they are meant.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }
#endif

namespace {

// Sum of 0..count-1, each item taken once.
std::int64_t sum_of_items(std::int64_t count, int threads) {
    std::atomic<std::int64_t> sum{0};
    fgsbir::run_workers(count, threads, [&](fgsbir::ItemQueue& queue) {
        for (std::int64_t item = 0; queue.take(item);) sum += item;
    });
    return sum;
}

void every_item_once() {
    for (const int threads : {1, 2, 5, 64, 2}) {
        std::vector<std::atomic<int>> seen(37);
        fgsbir::run_workers(37, threads, [&](fgsbir::ItemQueue& queue) {
            for (std::int64_t item = 0; queue.take(item);) ++seen[static_cast<std::size_t>(item)];
        });
        for (const auto& count : seen) CHECK(count == 1);
    }
}

void nothing_to_do() {
    bool taken = false;
    fgsbir::run_workers(0, 4, [&](fgsbir::ItemQueue& queue) {
        std::int64_t item = 0;
        taken = queue.take(item);
    });
    CHECK(!taken);
}

void exceptions_come_home() {
    for (const int threads : {1, 3}) {
        std::string message;
        try {
            fgsbir::run_workers(100, threads, [](fgsbir::ItemQueue& queue) {
                for (std::int64_t item = 0; queue.take(item);) {
                    if (item == 42) throw std::runtime_error("item 42");
                }
            });
        } catch (const std::runtime_error& error) {
            message = error.what();
        }
        CHECK(message == "item 42");
        CHECK(sum_of_items(10, threads) == 45);  // and the pool works on
    }
}

// Several threads are in the worker at the same time, never more than asked for, and later calls meet the same threads again.
void threads_are_kept() {
    std::set<std::thread::id> seen;
    for (int round = 0; round < 200; ++round) {
        std::mutex mutex;
        std::condition_variable arrival;
        int arrived = 0;
        fgsbir::run_workers(3, 3, [&](fgsbir::ItemQueue& queue) {
            std::unique_lock<std::mutex> lock(mutex);
            seen.insert(std::this_thread::get_id());
            ++arrived;
            arrival.notify_all();
            CHECK(arrival.wait_for(lock, std::chrono::seconds(60), [&] { return arrived == 3; }));
            lock.unlock();
            for (std::int64_t item = 0; queue.take(item);) {}
        });
        CHECK(arrived == 3);
    }
    CHECK(seen.size() >= 3 && seen.size() <= 64);  // a caller and the 63 helpers of every_item_once; threads made anew would be 401
}

void a_worker_may_call_again() {
    std::atomic<std::int64_t> sum{0};
    fgsbir::run_workers(8, 3, [&](fgsbir::ItemQueue& queue) {
        for (std::int64_t item = 0; queue.take(item);) sum += sum_of_items(10, 3);
    });
    CHECK(sum == 8 * 45);
}

void callers_at_the_same_time() {
    std::vector<std::thread> callers;
    std::atomic<int> right{0};
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&] {
            for (int round = 0; round < 200; ++round) right += sum_of_items(50, 3) == 1225 ? 1 : 0;
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(right == 4 * 200);
}

// A child has none of its parent's threads: it must start its own instead of waiting for them.
void a_child_starts_anew() {
#ifdef CAN_FORK
    CHECK(sum_of_items(50, 3) == 1225);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);  // a child that hangs dies
        _exit(sum_of_items(50, 3) == 1225 && sum_of_items(7, 9) == 21 ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(sum_of_items(50, 3) == 1225);
#endif
}

}  // namespace

int main() {
    every_item_once();
    nothing_to_do();
    exceptions_come_home();
    threads_are_kept();
    a_worker_may_call_again();
    callers_at_the_same_time();
    a_child_starts_anew();
    return check::finish();
}
