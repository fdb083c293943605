/* The training step's loops, once for each REAL (float, double). What they must equal is
   attrec.training.step.PlainStep. "place" is a row among the batch's distinct ones; -1 is padding. */

CLONES static int64_t NAME(windows)(const struct windows *s, int64_t from, int64_t to)
{
    const int64_t L = s->L, C = s->C, T = s->T, d = s->d;
    const REAL omega = (REAL)s->omega, margin = (REAL)s->margin;
    const REAL root = (REAL)1 / (REAL)sqrt((double)d);
    const REAL *X = s->X, *V = s->V, *U = s->U, *Z = s->Z, *signal = s->signal;
    const REAL *dropout = s->dropout;
    REAL *all_m = s->m, *all_g_m = s->g_m, *all_g_u = s->g_u, *all_g_Q = s->g_Q;
    REAL *all_shares = s->shares, *all_a = s->a;
    const int64_t most = L > C ? L : C;
    REAL *Q = malloc((size_t)(L * d + L * L + 2 * L + most + 2 * C) * sizeof(REAL)); /* L x d */
    const REAL **rows = malloc((size_t)(most + L) * sizeof(REAL *) + (size_t)L * sizeof(int64_t));
    if (Q == NULL || rows == NULL) {
        free(Q);
        free(rows);
        return -1;
    }
    REAL *weight = Q + L * d;       /* n x n: s, and then its gradient */
    REAL *share = weight + L * L;   /* n: c */
    REAL *reach = share + L;        /* n: x . g_m */
    REAL *part = reach + L;         /* max(L, C) */
    REAL *y = part + most, *a = y + C;
    const REAL **values = rows + most;        /* n: x of the real slots */
    int64_t *slots = (int64_t *)(values + L); /* n: which slots they are */

    for (int64_t b = from; b < to; b++) {
        const int32_t *place = s->window_places + b * L;
        const int32_t *candidate = s->candidate_places + b * C;
        const int32_t *long_candidate = s->long_places + b * C;
        REAL *m = all_m + b * d, *g_m = all_g_m + b * d;
        REAL *g_u = all_g_u + b * d, *g_Q = all_g_Q + b * L * d;
        REAL *c_out = all_shares + b * L, *a_out = all_a + b * C;
        const REAL *u = U + (int64_t)s->user_places[b] * d;
        int64_t n = 0;
        for (int64_t l = 0; l < L; l++) {
            c_out[l] = 0;
            if (place[l] >= 0) {
                values[n] = X + (int64_t)place[l] * d;
                slots[n++] = l;
            }
        }
        /* (2) to (6): q = ReLU(x W + TE W), s = softmax of the others' affinities, m = sum c x */
        for (int64_t l = 0; l < n; l++) share[l] = n == 1 ? 1 : 0;
        if (n > 1) {
            for (int64_t l = 0; l < n; l++) {
                const REAL *z = Z + (int64_t)place[slots[l]] * d, *te = signal + slots[l] * d;
                REAL *q = Q + l * d;
#pragma omp simd
                for (int64_t k = 0; k < d; k++) {
                    REAL t = z[k] + te[k];
                    q[k] = t <= 0 ? 0 : t; /* NaN stays NaN, and is seen in the loss */
                }
                if (dropout) {
                    const REAL *kept = dropout + (b * L + slots[l]) * d;
#pragma omp simd
                    for (int64_t k = 0; k < d; k++) q[k] *= kept[k];
                }
            }
            for (int64_t l = 0; l < n; l++) {
                for (int64_t j = l + 1; j < n; j++) rows[j - l - 1] = Q + j * d;
                NAME(dots)(Q + l * d, rows, n - l - 1, d, part);
                for (int64_t j = l + 1; j < n; j++)
                    weight[l * n + j] = weight[j * n + l] = part[j - l - 1] * root;
            }
            for (int64_t l = 0; l < n; l++) {
                REAL *w = weight + l * n, top = 0, sum = 0;
                w[l] = 0; /* affinities are at least 0, so the masked entry never leads */
                for (int64_t j = 0; j < n; j++) top = w[j] > top ? w[j] : top;
                for (int64_t j = 0; j < n; j++) {
                    w[j] = j == l ? 0 : EXP(w[j] - top);
                    sum += w[j];
                }
                for (int64_t j = 0; j < n; j++) {
                    w[j] /= sum;
                    share[j] += w[j];
                }
            }
            if (s->mean)
                for (int64_t l = 0; l < n; l++) share[l] /= (REAL)n;
        }
        NAME(mix)(m, values, share, n, d);
        for (int64_t l = 0; l < n; l++) c_out[slots[l]] = share[l];

        /* (9) to (11): y, and a = d loss / d y */
        for (int64_t i = 0; i < C; i++) rows[i] = V + ROW(long_candidate[i]) * d;
        NAME(distances)(u, rows, C, d, y);
        for (int64_t i = 0; i < C; i++) {
            part[i] = y[i];
            a[i] = 0;
        }
        for (int64_t i = 0; i < C; i++) rows[i] = X + ROW(candidate[i]) * d;
        NAME(distances)(m, rows, C, d, y);
        for (int64_t i = 0; i < C; i++) y[i] = omega * part[i] + (1 - omega) * y[i];
        double loss = 0;
        for (int64_t i = 0; i < T; i++) {
            if (candidate[i] < 0) continue;
            for (int64_t j = T; j < C; j++) {
                if (s->one_to_one && j - T != i) continue;
                REAL excess = y[i] + margin - y[j];
                if (!(excess <= 0)) { /* NaN too: a loss that is none must be seen */
                    loss += excess;
                    a[i] += 1;
                    a[j] -= 1;
                }
            }
        }
        s->loss[b] = loss;
        memset(g_Q, 0, (size_t)(L * d) * sizeof(REAL));
        for (int64_t i = 0; i < C; i++) a_out[i] = a[i];
        if (loss == 0) {
            memset(g_m, 0, (size_t)d * sizeof(REAL));
            memset(g_u, 0, (size_t)d * sizeof(REAL));
            continue;
        }
        /* The a of a window sum to 0, so  sum a (m - x) = - sum a x,  and likewise for u. */
        for (int64_t i = 0; i < C; i++) part[i] = -2 * (1 - omega) * a[i];
        NAME(mix)(g_m, rows, part, C, d);
        for (int64_t i = 0; i < C; i++) {
            rows[i] = V + ROW(long_candidate[i]) * d;
            part[i] = -2 * omega * a[i];
        }
        NAME(mix)(g_u, rows, part, C, d);
        if (n < 2) continue;

        /* back through (5), (4) and the ReLU */
        NAME(dots)(g_m, values, n, d, reach);
        for (int64_t l = 0; l < n; l++) {
            REAL *w = weight + l * n, mean = 0;
            for (int64_t j = 0; j < n; j++) mean += w[j] * reach[j];
            for (int64_t j = 0; j < n; j++)
                w[j] *= (reach[j] - mean) * root / (s->mean ? (REAL)n : 1);
        }
        for (int64_t l = 0; l < n; l++) rows[l] = Q + l * d;
        for (int64_t l = 0; l < n; l++) {
            REAL *g = g_Q + slots[l] * d;
            const REAL *q = Q + l * d;
            for (int64_t j = 0; j < n; j++) part[j] = weight[l * n + j] + weight[j * n + l];
            NAME(mix)(g, rows, part, n, d);
            if (dropout) {
                const REAL *kept = dropout + (b * L + slots[l]) * d;
#pragma omp simd
                for (int64_t k = 0; k < d; k++) g[k] = q[k] > 0 ? g[k] * kept[k] : 0;
            } else {
#pragma omp simd
                for (int64_t k = 0; k < d; k++) g[k] = q[k] > 0 ? g[k] : 0;
            }
        }
    }
    free(Q);
    free(rows);
    return 0;
}

CLONES static int64_t NAME(segments)(const struct segments *s, int64_t from, int64_t to)
{
    const int64_t d = s->d;
    const REAL *source = s->source;
    REAL *into = s->into;
    for (int64_t r = from; r < to; r++) {
        REAL *g = into + r * d;
        memset(g, 0, (size_t)d * sizeof(REAL));
        for (int64_t o = s->starts[r]; o < s->starts[r + 1]; o++) {
            if (s->order[o] >= s->limit) break; /* ascending: the windows' slots stand first */
            const REAL *row = source + (int64_t)s->order[o] * d;
#pragma omp simd
            for (int64_t k = 0; k < d; k++) g[k] += row[k];
        }
    }
    return 0;
}

/* One visit of a row: Adagrad, then (12). */
static INLINE void NAME(visit)(const struct rule *rule, REAL *row, REAL *state, REAL *g, int64_t d)
{
    const REAL rate = (REAL)rule->rate, tiny = (REAL)rule->tiny, decay = (REAL)(2 * rule->l2);
    REAL square = 0;
    if (rule->l2 != 0) {
#pragma omp simd
        for (int64_t k = 0; k < d; k++) g[k] += decay * row[k];
    }
    if (rule->row_wise) {
        REAL sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < d; k++) sum += g[k] * g[k];
        *state += sum / (REAL)d;
        const REAL step = rate / ((REAL)sqrt((double)*state) + tiny);
#pragma omp simd reduction(+ : square)
        for (int64_t k = 0; k < d; k++) {
            row[k] -= step * g[k];
            square += row[k] * row[k];
        }
    } else {
#pragma omp simd reduction(+ : square)
        for (int64_t k = 0; k < d; k++) {
            state[k] += g[k] * g[k];
            row[k] -= rate * (g[k] / (SQRT(state[k]) + tiny));
            square += row[k] * row[k];
        }
    }
    if (rule->clip && square > 1) {
        const REAL norm = SQRT(square);
#pragma omp simd
        for (int64_t k = 0; k < d; k++) row[k] /= norm;
    }
}

/* Rows of X, of V, or of U. The gradient of a row x over its occurrences is
   a row given ready + sum c_o g_m + sum f a_o (x - other_o). */
CLONES static int64_t NAME(update)(const struct update *s, int64_t from, int64_t to)
{
    const int64_t d = s->d, width = s->rule.row_wise ? 1 : d;
    const REAL factor = (REAL)s->factor;
    const REAL *ready = s->ready, *shares = s->shares, *first = s->first;
    const REAL *a = s->a, *second = s->second;
    REAL *table = s->table, *states = s->state;
    REAL *g = malloc((size_t)d * sizeof(REAL));
    if (g == NULL) return -1;
    for (int64_t r = from; r < to; r++) {
        const int64_t at = s->distinct[r];
        REAL *row = table + at * d, *state = states + at * width;
        REAL pushed = 0;
        if (r + ROWS_AHEAD < to) { /* rows lie anywhere in a table that no cache may hold */
            const int64_t next = s->distinct[r + ROWS_AHEAD];
            FETCH(table + next * d, (size_t)d * sizeof(REAL));
            FETCH(states + next * width, (size_t)width * sizeof(REAL));
        }
        if (r < s->ready_rows)
            memcpy(g, ready + r * d, (size_t)d * sizeof(REAL));
        else
            memset(g, 0, (size_t)d * sizeof(REAL));
        for (int64_t o = s->starts[r]; o < s->starts[r + 1]; o++) {
            int64_t p = s->order[o];
            const REAL *other;
            REAL w;
            if (p < s->limit) {
                w = shares ? shares[p] : 1;
                other = first + p / s->per_first * d;
            } else {
                p -= s->limit;
                w = -factor * a[p];
                if (w == 0) continue;
                pushed -= w;
                p /= s->per_second;
                if (s->second_places) p = s->second_places[p];
                other = second + p * d;
            }
#pragma omp simd
            for (int64_t k = 0; k < d; k++) g[k] += w * other[k];
        }
        if (pushed != 0) {
#pragma omp simd
            for (int64_t k = 0; k < d; k++) g[k] += pushed * row[k];
        }
        NAME(visit)(&s->rule, row, state, g, d);
    }
    free(g);
    return 0;
}
