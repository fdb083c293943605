/* The rows of a block of logits, once for each REAL (float, double). What it must equal is
   attrec.model.softmax.plain_rows.

   A row's logits are what lies in the block plus the columns' offsets; a column whose item is the
   row's target counts as minus infinity where items are given (an accidental hit). top and total
   say what came before: total = sum e^(logit - top); with `sum` they take the block in. With
   `gradient` the block becomes w (e^(logit - top) / total - even), and w peak less in the column
   of the row's target. */

#define CHUNK 4096 /* columns to a sum in REAL; the chunks' sums are added in double */

CLONES static int64_t NAME(softmax)(const struct softmax *s, int64_t from, int64_t to)
{
    const int64_t n = s->n;
    const REAL *offsets = s->offsets, *weights = s->weights;
    REAL *logits = s->logits, *picked = s->picked;
    for (int64_t p = from; p < to; p++) {
        REAL *l = logits + p * n;
        const int64_t target = s->targets[p], at = s->items ? -1 : target - s->first;
        const int here = at >= 0 && at < n;
        REAL top = (REAL)s->top[p];
        if (s->items) {
            const int64_t *items = s->items;
#pragma omp simd
            for (int64_t j = 0; j < n; j++) l[j] = items[j] == target ? -INFINITY : l[j];
        }
        if (s->sum) {
            REAL best = top;
#pragma omp simd reduction(max : best)
            for (int64_t j = 0; j < n; j++) {
                l[j] += offsets[j];
                best = l[j] > best ? l[j] : best;
            }
            if (here) picked[p] = l[at];
            double total = s->total[p] * exp(s->top[p] - (double)best);
            for (int64_t start = 0; start < n; start += CHUNK) {
                const int64_t end = start + CHUNK < n ? start + CHUNK : n;
                REAL sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t j = start; j < end; j++) {
                    l[j] = NAME(falling)(l[j] - best);
                    sum += l[j];
                }
                total += (double)sum;
            }
            s->top[p] = (double)(top = best);
            s->total[p] = total;
        }
        if (s->gradient) {
            const REAL w = weights ? weights[p] : 1;
            const REAL scale = (REAL)((double)w / s->total[p]), even = w * (REAL)s->even;
            if (s->sum) {
#pragma omp simd
                for (int64_t j = 0; j < n; j++) l[j] = l[j] * scale - even;
            } else {
#pragma omp simd
                for (int64_t j = 0; j < n; j++)
                    l[j] = NAME(falling)(l[j] + offsets[j] - top) * scale - even;
            }
            if (here) l[at] -= w * (REAL)s->peak;
        }
    }
    return 0;
}
#undef CHUNK
