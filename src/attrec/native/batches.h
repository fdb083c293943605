/* Training windows and what is left to draw negatives from, computed when asked for.

   What they must equal: attrec.data.sequences.Sequences.windows and
   attrec.training.negatives.sample_negatives. */

/* windows (B, L), targets (B, T): the items around each window's newest position, -1 outside its
   history. ascending (B, T): the distinct targets in order, num_items behind them. free (B): how
   many items are no target. before: how many windows the users before each one have. */
EXPORT int64_t attrec_make_windows(const int32_t *values, const int64_t *offsets,
                                   const int64_t *before, int64_t num_users,
                                   const int64_t *numbers, int64_t count, int64_t L, int64_t T,
                                   int64_t num_items, int64_t *users, int64_t *windows,
                                   int64_t *targets, int64_t *ascending, int64_t *free)
{
    for (int64_t b = 0; b < count; b++) {
        const int64_t number = numbers[b];
        if (number < 0 || number >= before[num_users]) return -1;
        int64_t low = 0, high = num_users; /* before[low] <= number < before[high] */
        while (high - low > 1) {
            const int64_t middle = low + (high - low) / 2;
            if (before[middle] <= number)
                low = middle;
            else
                high = middle;
        }
        const int64_t start = offsets[low], end = offsets[low + 1];
        const int64_t newest = start + number - before[low];
        users[b] = low;
        for (int64_t l = 0; l < L; l++) {
            const int64_t at = newest - L + 1 + l;
            windows[b * L + l] = at >= start ? values[at] : -1;
        }
        int64_t *sorted = ascending + b * T, known = 0;
        for (int64_t t = 0; t < T; t++) {
            const int64_t at = newest + 1 + t;
            const int64_t item = at < end ? values[at] : -1;
            targets[b * T + t] = item;
            if (item < 0) continue;
            int64_t place = known; /* insertion: T is small */
            while (place > 0 && sorted[place - 1] > item) place--;
            if (place > 0 && sorted[place - 1] == item) continue;
            for (int64_t k = known; k > place; k--) sorted[k] = sorted[k - 1];
            sorted[place] = item;
            known++;
        }
        for (int64_t t = known; t < T; t++) sorted[t] = num_items;
        free[b] = num_items - known;
    }
    return 0;
}

/* Turn draws (B, T) from 0 ... free - 1 into items outside the targets: step over each of them. */
EXPORT void attrec_step_over(int64_t *draws, const int64_t *ascending, int64_t count, int64_t T)
{
    for (int64_t b = 0; b < count; b++)
        for (int64_t t = 0; t < T; t++) {
            int64_t *drawn = draws + b * T + t;
            for (int64_t k = 0; k < T; k++) *drawn += *drawn >= ascending[b * T + k];
        }
}
