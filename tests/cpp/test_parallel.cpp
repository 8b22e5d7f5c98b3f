#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "parallel.h"

namespace {

void every_item_once() {
    for (const int threads : {1, 2, 5, 64}) {
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
    }
}

}  // namespace

int main() {
    every_item_once();
    nothing_to_do();
    exceptions_come_home();
    return check::finish();
}
