#include "emulator.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {  // exported by the runtime, declared in no header of GCC's
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace {
int reported_races = 0;
}
// Called by ThreadSanitizer for each race it reports.
extern "C" void __tsan_on_report(void*);
extern "C" void __tsan_on_report(void*) { ++reported_races; }

namespace cuda_emulation {
namespace {

constexpr std::size_t kStack = std::size_t{1} << 18, kGuard = std::size_t{1} << 16;
constexpr unsigned kWarp = 32;

// ---- ThreadSanitizer: each fiber is a thread of its own, and only barriers order what they do. Without it all of this is
// nothing.
#if defined(__SANITIZE_THREAD__)
// The scheduler's own variables are no business of the race detector.
struct Unwatched {
    Unwatched() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unwatched() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
    Unwatched(const Unwatched&) = delete;
    Unwatched& operator=(const Unwatched&) = delete;
};
void happens_before(char* tag) { __tsan_release(tag); }
void happens_after(char* tag) { __tsan_acquire(tag); }
#else
struct Unwatched {
    Unwatched() {}  // user-provided, so that an unused variable draws no warning
};
void happens_before(char*) {}
void happens_after(char*) {}
#endif

enum class State { ready, at_barrier, in_warp, done };

struct Fiber {
    ucontext_t context{};
    char* stack = nullptr;
    void* tsan = nullptr;
    void* fake_stack = nullptr;  // AddressSanitizer's
    State state = State::done;
    Index thread;
    unsigned rank = 0;  // in the block
    // what it waits for
    const char* operation = "";
    Site site{"", 0};
    unsigned mask = 0;
    std::uint64_t value = 0;
    Exchange exchanged{};
    int barrier_count = 0;
    unsigned warp_turn = 0;  // how many __syncwarp it has been through

    Fiber() = default;
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
};

struct Machine {
    std::vector<std::unique_ptr<Fiber>> fibers;  // kept from launch to launch
    std::vector<std::unique_ptr<Fiber>>
        abandoned;  // stuck in the middle of a kernel that failed; kept so that nothing reuses their stacks
    Fiber* current = nullptr;
    ucontext_t main{};
    void* main_tsan = nullptr;
    void* main_fake_stack = nullptr;
    const void* main_bottom = nullptr;
    std::size_t main_size = 0;
    std::string failure;

    const Launch* launch = nullptr;
    unsigned threads = 0;  // of a block
    Place place;
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::map<const void*, std::unique_ptr<void, Free>>
        arena;  // the block's shared memory, each object in an allocation of its own
    std::size_t shared_bytes = 0;
    std::mt19937_64 random;
    unsigned arrived = 0, generation = 0;
    int predicates = 0;
    char barrier_tags[2]{}, block_start{}, block_end{}, dynamic_key{};
    char warp_tags[1024][2]{};
    std::map<const void*, std::size_t> allowed;
};

Machine& machine() {
    static Machine& instance = *new Machine;  // never taken down: ThreadSanitizer would miss the ends of parked fibers
    return instance;
}

void to_main() {
    Machine& m = machine();
    Fiber& self = *m.current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&self.fake_stack, m.main_bottom, m.main_size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(m.main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&self.context, &m.main);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);
#endif
}

void release_warp_if_complete(unsigned warp_begin, unsigned mask);

void leave(Fiber& self) {
    Machine& m = machine();
    self.state = State::done;
    // Lanes that wait for this one need wait no more.
    const unsigned begin = self.rank / kWarp * kWarp, end = std::min(begin + kWarp, m.threads);
    for (unsigned r = begin; r < end; ++r) {
        if (m.fibers[r]->state == State::in_warp) release_warp_if_complete(begin, m.fibers[r]->mask);
    }
}

// A fiber never returns: it runs a thread, hands back, and is used again.
void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine().main_bottom, &machine().main_size);
#endif
    for (;;) {
        Machine& m = machine();
        Fiber& self = *m.current;
        happens_after(&m.block_start);
        m.launch->body();
        happens_before(&m.block_end);
        const Unwatched unwatched;
        leave(self);
        to_main();
    }
}

void resume(Fiber& fiber) {
    Machine& m = machine();
    m.current = &fiber;
    m.place.thread = fiber.thread;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&m.main_fake_stack, fiber.stack + kGuard, kStack);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&m.main, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(m.main_fake_stack, nullptr, nullptr);
#endif
    m.current = nullptr;
}

std::unique_ptr<Fiber> make_fiber(unsigned rank) {
    auto fiber = std::make_unique<Fiber>();
    fiber->rank = rank;
    void* memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    fiber->stack = static_cast<char*>(memory);
    mprotect(memory, kGuard, PROT_NONE);  // a stack that overflows ends here
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack + kGuard;
    fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
    fiber->tsan = __tsan_create_fiber(0);
#endif
    return fiber;
}

std::string standing(const Fiber& fiber) {
    const std::string at = std::string(fiber.site.file) + ":" + std::to_string(fiber.site.line);
    return std::string(fiber.operation) + " at " + at;
}

// Where every thread stands, the same places taken together.
std::string whereabouts() {
    Machine& m = machine();
    std::map<std::string, unsigned> count;
    for (unsigned r = 0; r < m.threads; ++r) {
        const Fiber& fiber = *m.fibers[r];
        ++count[fiber.state == State::done ? "out of the kernel" : fiber.state == State::ready ? "running" : standing(fiber)];
    }
    std::string text = "block (" + std::to_string(m.place.block.x) + ", " + std::to_string(m.place.block.y) + ", " +
                       std::to_string(m.place.block.z) + "):";
    for (const auto& [where, threads] : count) text += " " + std::to_string(threads) + " threads " + where + ";";
    return text;
}

// Every lane of the mask that is still in the kernel waits with the same operation: hand out the values.
void release_warp_if_complete(unsigned warp_begin, unsigned mask) {
    Machine& m = machine();
    const unsigned warp_end = std::min(warp_begin + kWarp, m.threads);
    const Fiber* first = nullptr;
    Exchange result{};
    for (unsigned r = warp_begin; r < warp_end; ++r) {
        const Fiber& fiber = *m.fibers[r];
        if ((mask >> (r - warp_begin) & 1U) == 0 || fiber.state == State::done) continue;
        if (fiber.state != State::in_warp || fiber.mask != mask) return;
        if (first == nullptr) first = &fiber;
        if (fiber.site.line != first->site.line || std::string(fiber.operation) != first->operation)
            return;  // shows as a deadlock
        result.values[r - warp_begin] = fiber.value;
        result.present |= 1U << (r - warp_begin);
    }
    for (unsigned r = warp_begin; r < warp_end; ++r) {
        if ((result.present >> (r - warp_begin) & 1U) == 0) continue;
        m.fibers[r]->exchanged = result;
        m.fibers[r]->state = State::ready;
    }
}

// To be called by a running thread or between blocks, never from a block's loop.
void* allocate_shared(const void* key, std::size_t bytes) {
    Machine& m = machine();
    std::unique_ptr<void, Machine::Free> memory(std::malloc(std::max<std::size_t>(bytes, 1)));
    if (memory == nullptr) throw std::bad_alloc();
    auto* filled = static_cast<unsigned char*>(memory.get());
    for (std::size_t i = 0; i < bytes; ++i) filled[i] = static_cast<unsigned char>(m.random());
    m.shared_bytes += bytes;
    return (m.arena[key] = std::move(memory)).get();
}

void run_block() {
    Machine& m = machine();
    m.arena.clear();
    m.shared_bytes = 0;
    allocate_shared(&m.dynamic_key, m.launch->dynamic_shared);
    m.arrived = 0;
    m.predicates = 0;
    std::vector<unsigned> order(m.threads);
    std::iota(order.begin(), order.end(), 0U);
    for (const unsigned r : order) m.fibers[r]->state = State::ready;
    happens_before(&m.block_start);
    const bool shuffle = settings().shuffle;
    for (unsigned live = m.threads; live != 0;) {
        if (shuffle) std::shuffle(order.begin(), order.end(), m.random);
        bool progress = false;
        for (const unsigned r : order) {
            Fiber& fiber = *m.fibers[r];
            if (fiber.state != State::ready) continue;
            progress = true;
            if (shuffle && m.random() % 4 == 0) continue;  // let the others run ahead
            resume(fiber);
            if (!m.failure.empty()) return;
            if (fiber.state == State::done) --live;
        }
        if (!progress) {
            m.failure = "threads wait for one another for ever: " + whereabouts();
            return;
        }
    }
    happens_after(&m.block_end);
}

std::uint64_t volume(const Index& extent) { return std::uint64_t{extent.x} * extent.y * extent.z; }

Index unravel(std::uint64_t rank, const Index& extent) {
    const auto x = static_cast<unsigned>(rank % extent.x), y = static_cast<unsigned>(rank / extent.x % extent.y);
    return {x, y, static_cast<unsigned>(rank / extent.x / extent.y)};
}

}  // namespace

Settings& settings() {
    static Settings instance;
    return instance;
}

int races() { return reported_races; }

void run(const Launch& launch) {
    Machine& m = machine();
    const Unwatched unwatched;
#if defined(__SANITIZE_THREAD__)
    m.main_tsan = __tsan_get_current_fiber();
#endif
    m.launch = &launch;
    m.place.block_extent = launch.block;
    m.place.grid_extent = launch.grid;
    m.threads = static_cast<unsigned>(volume(launch.block));
    m.random.seed(settings().seed);
    while (m.fibers.size() < m.threads) m.fibers.push_back(make_fiber(static_cast<unsigned>(m.fibers.size())));
    for (unsigned r = 0; r < m.threads; ++r) m.fibers[r]->thread = unravel(r, launch.block);
    std::vector<std::uint64_t> order(volume(launch.grid));
    std::iota(order.begin(), order.end(), std::uint64_t{0});
    if (settings().shuffle) std::shuffle(order.begin(), order.end(), m.random);
    for (const std::uint64_t rank : order) {
        m.place.block = unravel(rank, launch.grid);
        run_block();
        if (m.failure.empty()) continue;
        for (auto& fiber : m.fibers) m.abandoned.push_back(std::move(fiber));
        m.fibers.clear();
        const Failure failure(std::exchange(m.failure, std::string()));
        throw failure;
    }
    m.arena.clear();
}

const Place& place() { return machine().place; }
unsigned lane() { return machine().current->rank % kWarp; }

void fail(const char* what, Site site) {
    const Unwatched unwatched;
    Machine& m = machine();
    m.failure = std::string(what) + " at " + site.file + ":" + std::to_string(site.line) + " by thread " +
                std::to_string(m.current->rank) + " of " + whereabouts();
    to_main();
    std::abort();  // an abandoned thread is never resumed
}

int barrier(bool predicate, Site site) {
    Machine& m = machine();
    const Unwatched unwatched;
    Fiber& self = *m.current;
    char* tag =
        &m.barrier_tags[m.generation % 2];  // two, for a fast thread may reach the next barrier before a slow one leaves this
    happens_before(tag);
    self.operation = "__syncthreads";
    self.site = site;
    self.state = State::at_barrier;
    m.predicates += predicate ? 1 : 0;
    if (++m.arrived == m.threads) {
        for (unsigned r = 0; r < m.threads; ++r) {
            Fiber& fiber = *m.fibers[r];
            if (fiber.site.line != site.line || std::string(fiber.site.file) != site.file) fail("divergent barriers, seen", site);
            fiber.state = State::ready;
            fiber.barrier_count = m.predicates;
        }
        m.arrived = 0;
        m.predicates = 0;
        ++m.generation;
    } else {
        to_main();
    }
    happens_after(tag);
    return self.barrier_count;
}

Exchange exchange(unsigned mask, std::uint64_t value, const char* operation, Site site) {
    Machine& m = machine();
    const Unwatched unwatched;
    Fiber& self = *m.current;
    const unsigned own = self.rank % kWarp;
    if ((mask >> own & 1U) == 0) fail("a warp operation whose mask lacks the calling lane", site);
    self.operation = operation;
    self.site = site;
    self.mask = mask;
    self.value = value;
    self.state = State::in_warp;
    release_warp_if_complete(self.rank - own, mask);
    if (self.state == State::in_warp) to_main();
    return self.exchanged;
}

void sync_warp(unsigned mask, Site site) {
    Machine& m = machine();
    const Unwatched unwatched;
    Fiber& self = *m.current;
    const unsigned turn = self.warp_turn++ % 2;  // two tags, as in barrier()
    happens_before(&m.warp_tags[self.rank][turn]);
    const Exchange turns = exchange(mask, turn, "__syncwarp", site);
    for (unsigned i = 0; i < kWarp; ++i) {
        if ((turns.present >> i & 1U) != 0) happens_after(&m.warp_tags[self.rank / kWarp * kWarp + i][turns.values[i]]);
    }
}

void* shared(const void* key, std::size_t bytes) {
    Machine& m = machine();
    const Unwatched unwatched;
    const auto found = m.arena.find(key);
    if (found != m.arena.end()) return found->second.get();
    if (m.shared_bytes + bytes > settings().shared_limit) fail("more shared memory than a block may have", {"the kernel", 0});
    return allocate_shared(key, bytes);
}

void* dynamic_shared() {
    const Unwatched unwatched;
    return machine().arena.at(&machine().dynamic_key).get();
}

void allow_dynamic_shared(const void* kernel, std::size_t bytes) { machine().allowed[kernel] = bytes; }

std::size_t allowed_dynamic_shared(const void* kernel) {
    const auto found = machine().allowed.find(kernel);
    return found == machine().allowed.end() ? 48 * 1024 : std::max<std::size_t>(found->second, 48 * 1024);
}

}  // namespace cuda_emulation
