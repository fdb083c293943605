/* What the kernels are given; the modules of attrec/native mirror them. */

struct windows {
    int64_t L, C, T, d;
    int64_t mean, one_to_one;
    double omega, margin;
    const void *X, *V, *U, *Z, *signal, *dropout;
    const int32_t *window_places, *candidate_places, *long_places, *user_places;
    void *m, *g_m, *g_u, *g_Q, *shares, *a;
    double *loss;
};

struct segments {
    int64_t d, limit;
    const int64_t *starts;
    const int32_t *order;
    const void *source;
    void *into;
};

struct rule {
    double rate, tiny, l2;
    int64_t clip, row_wise;
};

struct update {
    int64_t d, limit, per_first, per_second, ready_rows;
    double factor;
    const int64_t *distinct, *starts;
    const int32_t *order, *second_places;
    const void *ready, *shares, *first, *a, *second;
    void *table, *state;
    struct rule rule;
};

struct softmax {
    int64_t n, first, sum, gradient;
    double even, peak;
    const void *offsets, *weights;
    const int64_t *targets, *items;
    void *logits, *picked;
    double *top, *total;
};

struct places {
    int64_t N, stride;
    void *block;
    const int64_t *target_starts, *seen_starts;
    const int32_t *targets, *seen;
    void *own;
    int64_t *nearer, *equal, *before, *nans;
    uint8_t *reachable;
};

struct tile {
    int64_t N, stride, first;
    void *block;
    const int64_t *target_starts, *seen_starts;
    const int32_t *targets, *seen;
    void *own, *low, *high, *kept;
    int64_t *held, *seen_so_far, *nearer, *equal, *before, *nans;
    uint8_t *reachable, *repeat;
};

struct bands {
    int64_t D;
    double roundings;
    const void *queries, *keys;
    const int64_t *target_starts;
    const int32_t *targets;
    void *low, *high;
};

struct pairs {
    int64_t D, blocks;
    const double *queries;
    const void *keys;
    const int64_t *rows, *items, *ends;
    double *out;
};

struct spread {
    int64_t shift, tiles;
    const int64_t *starts;
    const int32_t *items;
    int32_t *by_tile;
};

struct nearest {
    int64_t N, stride, first, k, capacity, sorted;
    double factor;
    const void *block, *bias;
    void *values, *edges;
    int32_t *items;
    int64_t *held, *full;
};
