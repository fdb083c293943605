/* Inner loops that PyTorch would do in dozens of passes over memory: of the training step (step.h),
   its batches (batches.h), the softmax over a catalogue (softmax.h), and ranking (ranking.h).

   Called through ctypes by the modules of attrec/native, which mirror the structures and check every
   array's type; what the places hold comes from attrec_group, which checks the indices. Threads
   are OpenMP's, PyTorch's own pool where both load the same runtime. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#define EXPORT __declspec(dllexport)
#define INLINE __forceinline
#else
#define EXPORT __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#endif

/* One binary for all x86-64 machines: each kernel is built three times, chosen when loaded, by what
   the processor can do. A processor's name ("arch=haswell") would fit that one alone. musl's loader
   cannot choose. */
#if !defined(__x86_64__) || !defined(__GNUC__) || !defined(__GLIBC__)
#define CLONES
#elif !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

/* Ask for a row's cache lines before they are needed. */
#define LINE 64
#define ROWS_AHEAD 4
#if defined(__GNUC__)
#define FETCH(start, bytes)                                            \
    for (size_t at_ = 0; at_ < (bytes); at_ += LINE)                   \
        __builtin_prefetch((const char *)(start) + at_, 1)
#else
#define FETCH(start, bytes) ((void)0)
#endif

#define ROW(place) ((int64_t)((place) < 0 ? 0 : (place)))

#include "structures.h"
#include "exponential.h"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(base) JOIN(base, REAL)

#define REAL float
#define EXP expf
#define SQRT sqrtf
#define COUNTER int32_t
#include "vectors.h"
#include "step.h"
#include "softmax.h"
#include "ranking.h"
#undef REAL
#undef EXP
#undef SQRT
#undef COUNTER
#define REAL double
#define EXP exp
#define SQRT sqrt
#define COUNTER int64_t
#include "vectors.h"
#include "step.h"
#include "softmax.h"
#include "ranking.h"

/* Whether threads were built in. */
EXPORT int64_t attrec_threaded(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* A digest of the sources that this library was built from. */
#ifndef ATTREC_SOURCES
#define ATTREC_SOURCES 0
#endif
EXPORT int64_t attrec_sources(void) { return ATTREC_SOURCES; }

/* Run a kernel over 0 ... count - 1. Every number comes out of one window or one row, so the result
   is the same for any number of threads. Returns 0, or -1 where there is no memory. */
#define PIECES_A_THREAD 4
#define OVER_RANGE(name, real) OVER_RANGE_OF(name, name, real)
#define OVER_RANGE_OF(given, name, real)                                                        \
    EXPORT int64_t attrec_##name##_##real(const struct given *s, int64_t count, int64_t threads) \
    {                                                              \
        const int64_t pieces = threads > 1 ? threads * PIECES_A_THREAD : 1;                     \
        int64_t failed = 0;                                        \
        _Pragma("omp parallel for schedule(dynamic) num_threads((int)threads) reduction(+ : failed)")\
        for (int64_t piece = 0; piece < pieces; piece++)           \
            failed += name##_##real(s, count * piece / pieces, count * (piece + 1) / pieces);   \
        return failed;                                             \
    }
OVER_RANGE(windows, float)
OVER_RANGE(windows, double)
OVER_RANGE(segments, float)
OVER_RANGE(segments, double)
OVER_RANGE(update, float)
OVER_RANGE(update, double)
OVER_RANGE(softmax, float)
OVER_RANGE(softmax, double)
OVER_RANGE(places, float)
OVER_RANGE(places, double)
OVER_RANGE(bands, float)
OVER_RANGE(bands, double)
OVER_RANGE(pairs, float)
OVER_RANGE(pairs, double)
OVER_RANGE(tile, float)
OVER_RANGE(tile, double)
OVER_RANGE(nearest, float)
OVER_RANGE(nearest, double)
OVER_RANGE_OF(nearest, ordered, float)
OVER_RANGE_OF(nearest, ordered, double)

/* Order each row's items by the tile of 2^shift columns in which they stand. */
static int64_t spread_rows(const struct spread *s, int64_t low, int64_t high)
{
    int64_t *ends = malloc((size_t)s->tiles * sizeof(int64_t));
    if (!ends) return 1;
    for (int64_t r = low; r < high; r++) {
        const int64_t first = s->starts[r], last = s->starts[r + 1];
        if (first == last) continue;
        memset(ends, 0, (size_t)s->tiles * sizeof(int64_t));
        for (int64_t k = first; k < last; k++) ends[s->items[k] >> s->shift]++;
        int64_t end = first;
        for (int64_t tile = 0; tile < s->tiles; tile++) end = ends[tile] += end;
        for (int64_t k = first; k < last; k++)
            s->by_tile[--ends[s->items[k] >> s->shift]] = s->items[k];
    }
    free(ends);
    return 0;
}
OVER_RANGE_OF(spread, spread, rows)

/* Number the distinct indices of two lists in the order in which they are met.

   marks: num_rows entries, all -1 before and after. distinct: their indices. places: each index's
   number, -1 for a negative index. order, starts: the occurrences of number r are
   order[starts[r]] ... order[starts[r + 1] - 1], ascending; the second list's count on from the
   first's. after_first: how many numbers the first list used. Returns how many there are; -1 where
   an index is not below num_rows. */
EXPORT int64_t attrec_group(const int64_t *first, int64_t first_count, const int64_t *second,
                            int64_t second_count, int32_t *marks, int64_t num_rows,
                            int64_t *distinct, int32_t *places, int64_t *starts, int32_t *order,
                            int64_t *after_first)
{
    const int64_t count = first_count + second_count;
    int64_t n = 0, failed = 0;
    *after_first = 0;
    for (int64_t p = 0; p < count; p++) {
        const int64_t index = p < first_count ? first[p] : second[p - first_count];
        if (p == first_count) *after_first = n;
        if (index >= num_rows) {
            failed = 1;
            break;
        }
        if (index < 0) {
            places[p] = -1;
            continue;
        }
        if (marks[index] < 0) {
            marks[index] = (int32_t)n;
            distinct[n] = index;
            starts[n++] = 0;
        }
        places[p] = marks[index];
        starts[marks[index]]++;
    }
    if (second_count == 0) *after_first = n;
    for (int64_t r = 0; r < n; r++) marks[distinct[r]] = -1;
    if (failed) return -1;
    int64_t before = 0;
    for (int64_t r = 0; r < n; r++) {
        const int64_t here = starts[r];
        starts[r] = before;
        before += here;
    }
    for (int64_t p = 0; p < count; p++)
        if (places[p] >= 0) order[starts[places[p]]++] = (int32_t)p;
    for (int64_t r = n; r > 0; r--) starts[r] = starts[r - 1];
    starts[0] = 0;
    return n;
}

#include "batches.h"
