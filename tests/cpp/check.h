// What the C++ tests need of a test framework: CHECK counts failures, CHECK_THROWS wants an exception, finish() is main's result.
#pragma once

#include <cstdio>

namespace check {

inline int& failures() {
    static int count = 0;
    return count;
}

inline void report(bool passed, const char* text, const char* file, int line) {
    if (passed) return;
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
    ++failures();
}

inline int finish() { return failures() == 0 ? 0 : 1; }

}  // namespace check

#define CHECK(condition) check::report((condition), #condition, __FILE__, __LINE__)
#define CHECK_THROWS(statement, exception)                                                 \
    do {                                                                                   \
        bool thrown = false;                                                               \
        try {                                                                              \
            statement;                                                                     \
        } catch (const exception&) {                                                       \
            thrown = true;                                                                 \
        }                                                                                  \
        check::report(thrown, #statement " throws " #exception, __FILE__, __LINE__);       \
    } while (false)
