#include "parallel.h"

#include <condition_variable>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define FGSBIR_HAS_FORK
#endif

namespace fgsbir::detail {
namespace {

// One job at a time. It offers `openings` calls; a thread that wakes takes one, and the caller withdraws those that nobody took
// in time, so that it never waits for a thread that has not even woken up.
class Pool {
  public:
    // The pool that a fork left behind stays reachable: its threads are gone and its lock is held, so it can only be kept.
    explicit Pool(const Pool* before = nullptr) : before_(before) {}

    void run(int helpers, void (*call)(void*), void* context) {
        {
            std::unique_lock<std::mutex> lock(mutex_);
            if (busy_) {
                lock.unlock();
                return call(context);
            }
            for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
            busy_ = true;
            call_ = call;
            context_ = context;
            openings_ = helpers;
        }
        for (int i = 0; i < helpers; ++i) work_.notify_one();
        call(context);
        std::unique_lock<std::mutex> lock(mutex_);
        openings_ = 0;
        done_.wait(lock, [this] { return running_ == 0; });
        busy_ = false;
    }

    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    [[noreturn]] void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            work_.wait(lock, [this] { return openings_ > 0; });
            --openings_;
            ++running_;
            const auto call = call_;
            void* const context = context_;
            lock.unlock();
            call(context);
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable work_, done_;
    int threads_ = 0;    // alive, asleep or at work
    bool busy_ = false;  // a caller has the pool
    int openings_ = 0;   // calls of the present job that nobody began yet
    int running_ = 0;    // calls that threads of the pool are in
    void (*call_)(void*) = nullptr;
    void* context_ = nullptr;
    const Pool* before_;
};

// Never destroyed: the threads sleep on it until the process ends.
Pool* pool = new Pool;

#ifdef FGSBIR_HAS_FORK
// The lock is held across fork(), so that the child does not see a half-changed pool. Its threads do not exist there.
const int fork_handlers = pthread_atfork([] { pool->lock(); }, [] { pool->unlock(); }, [] { pool = new Pool(pool); });
#endif

}  // namespace

void run_on_pool(int helpers, void (*call)(void*), void* context) { pool->run(helpers, call, context); }

}  // namespace fgsbir::detail
