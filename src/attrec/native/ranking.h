/* Where targets stand in rows of distances, and the nearest of each row, once for each REAL.

   Rows are read once, in pieces that stay in the first-level cache. The counters have REAL's width,
   so that a comparison's mask is added as it is; a piece is short enough for them. */

#define PIECE 2048
#define CHUNK 64
#define PART 16
#define GROUPS 256
#define KEPT 16

/* How many of x[0 ... count - 1] are below the value, and how many equal it. */
static INLINE void NAME(compare)(const REAL *x, int64_t count, REAL value, int64_t *below,
                                 int64_t *equal)
{
    COUNTER b = 0, e = 0;
#pragma omp simd reduction(+ : b, e)
    for (int64_t k = 0; k < count; k++) {
        b += x[k] < value;
        e += x[k] == value;
    }
    *below += b;
    *equal += e;
}

static INLINE int64_t NAME(nans)(const REAL *x, int64_t count)
{
    COUNTER n = 0;
#pragma omp simd reduction(+ : n)
    for (int64_t k = 0; k < count; k++) n += x[k] != x[k];
    return n;
}

/* How many +inf stand in the row that no seen item put there, and how many of them before the item.
   The seen ones are -inf meanwhile. */
static void NAME(infinite)(REAL *row, int64_t N, const int32_t *seen, int64_t num_seen,
                           int64_t item, int64_t *equal, int64_t *before)
{
    int64_t below = 0, after = 0;
    *before = 0;
    for (int64_t s = 0; s < num_seen; s++) row[seen[s]] = -(REAL)INFINITY;
    for (int64_t k = 0; k < N; k += PIECE) {
        const int64_t stop = k + PIECE < N ? k + PIECE : N;
        const int64_t middle = item < k ? k : item < stop ? item : stop;
        NAME(compare)(row + k, middle - k, (REAL)INFINITY, &below, before);
        NAME(compare)(row + middle, stop - middle, (REAL)INFINITY, &below, &after);
    }
    for (int64_t s = 0; s < num_seen; s++) row[seen[s]] = (REAL)INFINITY;
    *equal = *before + after;
}

/* Mask the seen items of rows low ... high - 1 with +inf, and count for each target. */
CLONES static int64_t NAME(places)(const struct places *s, int64_t low, int64_t high)
{
    const int64_t N = s->N;
    REAL *own = s->own;
    for (int64_t r = low; r < high; r++) {
        REAL *row = (REAL *)s->block + r * s->stride;
        const int64_t first = s->target_starts[r], last = s->target_starts[r + 1];
        const int32_t *seen = s->seen ? s->seen + s->seen_starts[r] : NULL;
        const int64_t num_seen = s->seen ? s->seen_starts[r + 1] - s->seen_starts[r] : 0;
        int64_t nans = 0;
        for (int64_t k = 0; k < num_seen; k++) {
            nans += row[seen[k]] != row[seen[k]];
            row[seen[k]] = (REAL)INFINITY;
        }
        for (int64_t t = first; t < last; t++) {
            s->nearer[t] = s->equal[t] = s->before[t] = 0;
            own[t] = s->targets[t] < 0 ? 0 : row[s->targets[t]];
            s->reachable[t] = s->targets[t] >= 0;
            if (own[t] == (REAL)INFINITY)
                for (int64_t k = 0; k < num_seen; k++)
                    if (seen[k] == s->targets[t]) s->reachable[t] = 0;
        }
        for (int64_t k = 0; k < N; k += PIECE) {
            const int64_t stop = k + PIECE < N ? k + PIECE : N;
            nans += NAME(nans)(row + k, stop - k);
            for (int64_t t = first; t < last; t++) {
                const int64_t item = s->targets[t];
                const int64_t middle = item < k ? k : item < stop ? item : stop;
                if (!s->reachable[t]) continue;
                NAME(compare)(row + k, middle - k, own[t], s->nearer + t, s->before + t);
                NAME(compare)(row + middle, stop - middle, own[t], s->nearer + t, s->equal + t);
            }
        }
        for (int64_t t = first; t < last; t++) {
            s->equal[t] += s->before[t];
            if (num_seen && s->reachable[t] && own[t] == (REAL)INFINITY)
                NAME(infinite)(row, N, seen, num_seen, s->targets[t], s->equal + t, s->before + t);
        }
        s->nans[r] = nans;
    }
    return 0;
}

/* Guess between which numbers the product of a row's query and a target's key comes out: near its
   sum here, in an order of its own, by so many parts of the sum of the terms' magnitudes. */
CLONES static int64_t NAME(bands)(const struct bands *s, int64_t first, int64_t last)
{
    for (int64_t r = first; r < last; r++) {
        const REAL *q = (const REAL *)s->queries + r * s->D;
        for (int64_t t = s->target_starts[r]; t < s->target_starts[r + 1]; t++) {
            const REAL *k = (const REAL *)s->keys + ROW(s->targets[t]) * s->D;
            REAL near = 0, size = 0;
#pragma omp simd reduction(+ : near, size)
            for (int64_t j = 0; j < s->D; j++) {
                const REAL term = q[j] * k[j];
                near += term;
                size += term < 0 ? -term : term;
            }
            ((REAL *)s->low)[t] = near - (REAL)s->roundings * size;
            ((REAL *)s->high)[t] = near + (REAL)s->roundings * size;
        }
    }
    return 0;
}

/* The squared distance of each pair of a query and a key, block by block, in double: the squares are
   halved onto each other until one is left, so a pair has the same bits wherever it is computed. */
CLONES static int64_t NAME(pairs)(const struct pairs *s, int64_t first, int64_t last)
{
    double *squares = malloc((size_t)(s->D ? s->D : 1) * sizeof(double));
    if (!squares) return 1;
    for (int64_t p = first; p < last; p++) {
        const double *q = s->queries + s->rows[p] * s->D;
        const REAL *k = (const REAL *)s->keys + s->items[p] * s->D;
        if (p + ROWS_AHEAD < last)
            FETCH((const REAL *)s->keys + s->items[p + ROWS_AHEAD] * s->D, s->D * sizeof(REAL));
        for (int64_t b = 0; b < s->blocks; b++) {
            const int64_t start = b ? s->ends[b - 1] : 0;
            int64_t length = s->ends[b] - start;
            squares[0] = 0;
#pragma omp simd
            for (int64_t j = 0; j < length; j++) {
                const double apart = q[start + j] - (double)k[start + j];
                squares[j] = apart * apart;
            }
            while (length > 1) {
                const int64_t half = (length + 1) / 2;
#pragma omp simd
                for (int64_t j = 0; j < length - half; j++) squares[j] += squares[half + j];
                length = half;
            }
            s->out[p * s->blocks + b] = squares[0];
        }
    }
    free(squares);
    return 0;
}

/* How many of x[0 ... count - 1] are below low, and how many in low ... high. */
static INLINE void NAME(within)(const REAL *x, int64_t count, REAL low, REAL high, int64_t *below,
                                int64_t *inside)
{
    COUNTER b = 0, up_to = 0;
#pragma omp simd reduction(+ : b, up_to)
    for (int64_t k = 0; k < count; k++) {
        b += x[k] < low;
        up_to += x[k] <= high;
    }
    *below += b;
    *inside += up_to - b;
}

/* Append those in low ... high to the kept ones; returns how many are held, KEPT + 1 for too many. */
static INLINE int64_t NAME(keep)(const REAL *x, int64_t count, REAL low, REAL high, REAL *kept,
                                 int64_t held)
{
    for (int64_t at = 0; at < count; at += CHUNK) {
        const int64_t stop = at + CHUNK < count ? at + CHUNK : count;
        int64_t below = 0, inside = 0;
        NAME(within)(x + at, stop - at, low, high, &below, &inside);
        if (!inside) continue;
        if (held + inside > KEPT) return KEPT + 1;
        for (int64_t k = at; k < stop; k++)
            if (x[k] >= low && x[k] <= high) kept[held++] = x[k];
    }
    return held;
}

/* Count for each target over the next columns of rows low ... high - 1, whose seen items become NaN.

   A target has a band low ... high, within which its distance must lie. Until its own column comes,
   what is below the band counts as nearer and what is inside is kept; then its distance is known,
   the kept ones are settled, and the band shrinks to it. A band of one number keeps nothing: what
   equals it is counted. Repeat: too many were kept, or the distance is not in the band. */
CLONES static int64_t NAME(tile)(const struct tile *s, int64_t low, int64_t high)
{
    const int64_t N = s->N;
    REAL *lowest = s->low, *highest = s->high, *all_kept = s->kept, *all_own = s->own;
    for (int64_t r = low; r < high; r++) {
        REAL *row = (REAL *)s->block + r * s->stride;
        s->nans[r] += NAME(nans)(row, N);
        if (s->seen) {
            int64_t k = s->seen_so_far[r];
            for (; k < s->seen_starts[r + 1] && s->seen[k] < s->first + N; k++)
                row[s->seen[k] - s->first] = (REAL)NAN;
            s->seen_so_far[r] = k;
        }
        for (int64_t t = s->target_starts[r]; t < s->target_starts[r + 1]; t++) {
            const int64_t item = s->targets[t] - s->first;
            const int64_t middle = item < 0 ? 0 : item < N ? item : N;
            int64_t before = 0, after = 0;
            if (!s->reachable[t]) continue;
            if (item >= 0 && item < N) {
                const REAL own = row[item], *kept = all_kept + t * KEPT;
                s->reachable[t] = own == own;
                if (own != own) continue;
                s->repeat[t] = s->held[t] > KEPT || !(lowest[t] <= own && own <= highest[t]);
                for (int64_t k = 0; k < s->held[t] && k < KEPT; k++) {
                    s->nearer[t] += kept[k] < own;
                    before += kept[k] == own;
                }
                all_own[t] = lowest[t] = highest[t] = own;
            }
            const REAL from = lowest[t], to = highest[t];
            NAME(within)(row, middle, from, to, s->nearer + t, &before);
            NAME(within)(row + middle, N - middle, from, to, s->nearer + t, &after);
            if (from == to) {
                s->before[t] += before;
                s->equal[t] += before + after;
            } else if (before && s->held[t] <= KEPT) {
                s->held[t] = NAME(keep)(row, N, from, to, all_kept + t * KEPT, s->held[t]);
            }
        }
    }
    return 0;
}

/* The bits of a number as an integer of the same order, and back: -0 comes just before 0. */
static INLINE COUNTER NAME(flip)(COUNTER bits)
{
    const COUNTER all_but_sign = (COUNTER)(((uint64_t)1 << (8 * sizeof(COUNTER) - 1)) - 1);
    return bits ^ (bits < 0 ? all_but_sign : 0);
}

/* The k-th smallest (from 1) of x by halving the range: no jump depends on a number. */
static INLINE REAL NAME(kth)(const REAL *x, int64_t count, int64_t k, COUNTER *keys)
{
    memcpy(keys, x, (size_t)count * sizeof(REAL));
    COUNTER low = NAME(flip)(keys[0]), high = low;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t p = 0; p < count; p++) {
        const COUNTER key = NAME(flip)(keys[p]);
        keys[p] = key;
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    while (low < high) {
        const COUNTER middle = (low & high) + ((low ^ high) >> 1);
        COUNTER up_to = 0;
#pragma omp simd reduction(+ : up_to)
        for (int64_t p = 0; p < count; p++) up_to += keys[p] <= middle;
        if (up_to >= k) high = middle;
        else low = middle + 1;
    }
    low = NAME(flip)(low);
    REAL found;
    memcpy(&found, &low, sizeof(REAL));
    return found;
}

/* Leave the k smallest of a shortlist, equal ones those that came first, in the order in which they
   came. Returns the largest. */
static INLINE REAL NAME(shorten)(REAL *values, int32_t *items, int64_t *held, int64_t k,
                                 COUNTER *keys)
{
    const REAL edge = NAME(kth)(values, *held, k, keys);
    int64_t below = 0, n = 0;
    for (int64_t p = 0; p < *held; p++) below += values[p] < edge;
    int64_t room = k - below;
    for (int64_t p = 0; p < *held; p++) {
        const REAL value = values[p];
        const int32_t item = items[p];
        const int64_t at_edge = (value == edge) & (room > 0);
        values[n] = value;
        items[n] = item;
        n += (value < edge) | at_edge;
        room -= at_edge;
    }
    *held = n;
    return edge;
}

/* A number that at least k of x, biased or not, do not exceed: the k-th smallest of the minima of
   GROUPS groups, the numbers being dealt out in turn. +inf where that says nothing. */
static INLINE REAL NAME(upper_bound)(const REAL *x, const REAL *bias, REAL factor, int64_t count,
                                     int64_t k, COUNTER *keys)
{
    REAL least[GROUPS];
    if (2 * k > GROUPS || count < 4 * GROUPS) return (REAL)INFINITY;
    for (int64_t g = 0; g < GROUPS; g++) least[g] = (REAL)INFINITY;
    for (int64_t at = 0; at + GROUPS <= count; at += GROUPS) {
#pragma omp simd
        for (int64_t g = 0; g < GROUPS; g++) {
            const REAL value = bias ? bias[at + g] + factor * x[at + g] : x[at + g];
            least[g] = value < least[g] ? value : least[g];
        }
    }
    return NAME(kth)(least, GROUPS, k, keys);
}

/* Enter rows low ... high - 1 of a block into their shortlists. Items come in ascending order, so
   once k are held an equal one comes too late. NaN never enters. */
CLONES static int64_t NAME(nearest)(const struct nearest *s, int64_t low, int64_t high)
{
    const int64_t k = s->k, capacity = s->capacity;
    const REAL *bias = s->bias;
    const REAL factor = (REAL)s->factor;
    COUNTER *keys = malloc((size_t)(capacity > GROUPS ? capacity : GROUPS) * sizeof(COUNTER));
    if (!keys) return 1;
    for (int64_t r = low; r < high; r++) {
        const REAL *row = (const REAL *)s->block + r * s->stride;
        REAL *values = (REAL *)s->values + r * capacity, edge = ((REAL *)s->edges)[r];
        int32_t *items = s->items + r * capacity;
        int64_t held = s->held[r], full = s->full[r];
        if (s->first == 0) edge = NAME(upper_bound)(row, bias, factor, s->N, k, keys);
        for (int64_t at = 0; at < s->N; at += CHUNK) {
            const int64_t count = s->N - at < CHUNK ? s->N - at : CHUNK;
            REAL lifted[CHUNK];
            const REAL *x = row + at;
            const COUNTER open = !full;
            COUNTER hits = 0;
            if (bias) {
#pragma omp simd reduction(+ : hits)
                for (int64_t p = 0; p < count; p++) {
                    const REAL value = bias[at + p] + factor * x[p];
                    lifted[p] = value;
                    hits += (value < edge) | ((value == edge) & open);
                }
                x = lifted;
            } else {
#pragma omp simd reduction(+ : hits)
                for (int64_t p = 0; p < count; p++)
                    hits += (x[p] < edge) | ((x[p] == edge) & open);
            }
            if (!hits) continue;
            if (held + CHUNK > capacity) {
                edge = NAME(shorten)(values, items, &held, k, keys);
                full = 1;
            }
            for (int64_t part = 0; part < count; part += PART) {
                const int64_t stop = part + PART < count ? part + PART : count;
                COUNTER here = 0;
#pragma omp simd reduction(+ : here)
                for (int64_t p = part; p < stop; p++)
                    here += (x[p] < edge) | ((x[p] == edge) & open);
                if (!here) continue;
                for (int64_t p = part; p < stop; p++) {
                    values[held] = x[p];
                    items[held] = (int32_t)(s->first + at + p);
                    held += (x[p] < edge) | ((x[p] == edge) & !full);
                }
            }
        }
        ((REAL *)s->edges)[r] = edge;
        s->held[r] = held;
        s->full[r] = full;
    }
    free(keys);
    return 0;
}

/* Sort at most CHUNK numbers by counting what stands before each. */
static INLINE void NAME(sort_run)(REAL *values, int32_t *items, int64_t count)
{
    REAL old_values[CHUNK];
    int32_t old_items[CHUNK];
    memcpy(old_values, values, (size_t)count * sizeof(REAL));
    memcpy(old_items, items, (size_t)count * sizeof(int32_t));
    for (COUNTER p = 0; p < count; p++) {
        const REAL value = old_values[p];
        COUNTER place = 0;
#pragma omp simd reduction(+ : place)
        for (COUNTER o = 0; o < (COUNTER)count; o++)
            place += (old_values[o] < value) | ((old_values[o] == value) & (o < p));
        values[place] = value;
        items[place] = old_items[p];
    }
}

/* Shorten each shortlist to k and sort it by value, equal ones in the order in which they came. */
CLONES static int64_t NAME(ordered)(const struct nearest *s, int64_t low, int64_t high)
{
    const int64_t k = s->k, capacity = s->capacity;
    COUNTER *keys = malloc((size_t)capacity * sizeof(COUNTER));
    REAL *scratch = malloc((size_t)capacity * sizeof(REAL));
    int32_t *others = malloc((size_t)capacity * sizeof(int32_t));
    const int64_t failed = !keys || !scratch || !others;
    for (int64_t r = low; r < high && !failed; r++) {
        REAL *values = (REAL *)s->values + r * capacity;
        int32_t *items = s->items + r * capacity;
        if (s->held[r] > k) NAME(shorten)(values, items, s->held + r, k, keys);
        const int64_t held = s->sorted ? s->held[r] : 0;
        for (int64_t start = 0; start < held; start += CHUNK)
            NAME(sort_run)(values + start, items + start,
                           held - start < CHUNK ? held - start : CHUNK);
        for (int64_t run = CHUNK; run < held; run *= 2) {
            for (int64_t start = 0; start < held; start += 2 * run) {
                const int64_t middle = start + run < held ? start + run : held;
                const int64_t stop = middle + run < held ? middle + run : held;
                int64_t i = start, j = middle;
                for (int64_t n = start; n < stop; n++) {
                    const int64_t take = j >= stop || (i < middle && values[i] <= values[j]);
                    const int64_t from = take ? i++ : j++;
                    scratch[n] = values[from];
                    others[n] = items[from];
                }
            }
            memcpy(values, scratch, (size_t)held * sizeof(REAL));
            memcpy(items, others, (size_t)held * sizeof(int32_t));
        }
    }
    free(keys);
    free(scratch);
    free(others);
    return failed;
}

#undef PIECE
#undef CHUNK
#undef PART
#undef GROUPS
#undef KEPT
