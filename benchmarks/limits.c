// What a core can do at best: streaming stores and multiply-adds. Compiled by limits.py where there is a compiler.
#include <stddef.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define CHAINS 12  // independent, so that each hides the latency of the others, and few enough for sixteen registers

// Stores that go past the caches: the fastest way to write what nobody reads soon. `to` is aligned to 64 bytes, size a multiple.
void stream(char* to, size_t size) {
#if defined(__AVX512F__)
    const __m512i value = _mm512_set1_epi8(1);
    for (size_t i = 0; i < size; i += 64) _mm512_stream_si512((__m512i*)(to + i), value);
    _mm_sfence();
#elif defined(__SSE2__)
    const __m128i value = _mm_set1_epi8(1);
    for (size_t i = 0; i < size; i += 16) _mm_stream_si128((__m128i*)(to + i), value);
    _mm_sfence();
#elif defined(__aarch64__)
    for (size_t i = 0; i < size; i += 32) __asm__ volatile("stnp q0, q0, [%0]" : : "r"(to + i) : "memory");
#else
    memset(to, 1, size);
#endif
}

typedef float lanes __attribute__((vector_size(LANES * 4)));

// Returns the sum of all chains, so that the compiler cannot leave any out. 2 * CHAINS * LANES operations a turn.
float multiply_add(long turns, float factor) {
    lanes sums[CHAINS], by, plus;
    for (int i = 0; i < LANES; ++i) by[i] = factor, plus[i] = 1.0F - factor;
    for (int c = 0; c < CHAINS; ++c) sums[c] = by * (float)c;
    for (long turn = 0; turn < turns; ++turn) {
        for (int c = 0; c < CHAINS; ++c) sums[c] = sums[c] * by + plus;
    }
    float total = 0.0F;
    for (int c = 0; c < CHAINS; ++c) {
        for (int i = 0; i < LANES; ++i) total += sums[c][i];
    }
    return total;
}

int operations_a_turn(void) { return 2 * CHAINS * LANES; }

// Reads all of it: the sum of its 64-bit words. size is a multiple of 64.
unsigned long read_all(const void* from, size_t size) {
    typedef unsigned long words __attribute__((vector_size(64)));
    const words* at = (const words*)from;
    words sums[4] = {{0}};
    size_t count = size / 64, i = 0;
    for (; i + 4 <= count; i += 4) {
        for (int c = 0; c < 4; ++c) sums[c] += at[i + (size_t)c];
    }
    for (; i < count; ++i) sums[0] += at[i];
    unsigned long total = 0;
    for (int c = 0; c < 4; ++c) {
        for (int lane = 0; lane < 8; ++lane) total += sums[c][lane];
    }
    return total;
}
