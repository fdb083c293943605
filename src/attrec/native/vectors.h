/* Sums and mixtures of rows of d numbers, once for each REAL (float, double). */

/* a . b for four b at a time: one running sum for each keeps the multipliers busy. */
static INLINE void NAME(dots)(const REAL *a, const REAL *const *rows, int64_t count, int64_t d,
                              REAL *out)
{
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const REAL *b0 = rows[i], *b1 = rows[i + 1], *b2 = rows[i + 2], *b3 = rows[i + 3];
        REAL s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (int64_t k = 0; k < d; k++) {
            s0 += a[k] * b0[k];
            s1 += a[k] * b1[k];
            s2 += a[k] * b2[k];
            s3 += a[k] * b3[k];
        }
        out[i] = s0, out[i + 1] = s1, out[i + 2] = s2, out[i + 3] = s3;
    }
    for (; i < count; i++) {
        const REAL *b = rows[i];
        REAL s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t k = 0; k < d; k++) s += a[k] * b[k];
        out[i] = s;
    }
}

/* ||a - b||^2 for two b at a time. */
static INLINE void NAME(distances)(const REAL *a, const REAL *const *rows, int64_t count,
                                   int64_t d, REAL *out)
{
    int64_t i = 0;
    for (; i + 3 <= count; i += 3) {
        const REAL *b0 = rows[i], *b1 = rows[i + 1], *b2 = rows[i + 2];
        REAL s0 = 0, s1 = 0, s2 = 0;
#pragma omp simd reduction(+ : s0, s1, s2)
        for (int64_t k = 0; k < d; k++) {
            REAL t0 = a[k] - b0[k], t1 = a[k] - b1[k], t2 = a[k] - b2[k];
            s0 += t0 * t0;
            s1 += t1 * t1;
            s2 += t2 * t2;
        }
        out[i] = s0, out[i + 1] = s1, out[i + 2] = s2;
    }
    for (; i < count; i++) {
        const REAL *b = rows[i];
        REAL s = 0;
#pragma omp simd reduction(+ : s)
        for (int64_t k = 0; k < d; k++) s += (a[k] - b[k]) * (a[k] - b[k]);
        out[i] = s;
    }
}

/* into = sum of weights[i] * rows[i], four rows to a pass. */
static INLINE void NAME(mix)(REAL *into, const REAL *const *rows, const REAL *weights,
                             int64_t count, int64_t d)
{
    memset(into, 0, (size_t)d * sizeof(REAL));
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const REAL *b0 = rows[i], *b1 = rows[i + 1], *b2 = rows[i + 2], *b3 = rows[i + 3];
        const REAL w0 = weights[i], w1 = weights[i + 1], w2 = weights[i + 2], w3 = weights[i + 3];
#pragma omp simd
        for (int64_t k = 0; k < d; k++)
            into[k] += w0 * b0[k] + w1 * b1[k] + w2 * b2[k] + w3 * b3[k];
    }
    for (; i < count; i++) {
        const REAL *b = rows[i];
        const REAL w = weights[i];
#pragma omp simd
        for (int64_t k = 0; k < d; k++) into[k] += w * b[k];
    }
}
