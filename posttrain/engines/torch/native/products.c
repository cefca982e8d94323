/* The product of a single row with frozen weights: it waits for the weights to be read from memory, once. */
#include "lanes.h"

enum { TILE = 4, COLUMNS = TILE * LANES };

/* Of the COLUMNS from the first of w, y and bias on, those in `which`; `all_of_them`: known to the compiler. */
static inline __attribute__((always_inline)) void some_columns(
    const float *x, long in, const float *w, long stride, const float *bias, float *y, const __mmask16 *which,
    int all_of_them
) {
    lanes sums[TILE];
    for (int t = 0; t < TILE; t++) sums[t] = bias ? load_some(which[t], bias + t * LANES) : all(0);
    for (long i = 0; i < in; i++)
        for (int t = 0; t < TILE; t++) {
            const float *from = w + i * stride + t * LANES;
            sums[t] = _mm512_fmadd_ps(all(x[i]), all_of_them ? load(from) : load_some(which[t], from), sums[t]);
        }
    for (int t = 0; t < TILE; t++) store_some(which[t], y + t * LANES, sums[t]);
}

/* x [in] @ w + bias [out] (or none) -> y [out]; what input i adds to output o is w[i * stride + o]. */
void multiply_row(const float *x, long in, const float *w, long stride, const float *bias, float *y, long out) {
    for (long o = 0; o < out; o += COLUMNS) {
        __mmask16 which[TILE];
        for (int t = 0; t < TILE; t++) which[t] = first(out - o - t * LANES);
        const float *add = bias ? bias + o : 0;
        if (out - o >= COLUMNS)
            some_columns(x, in, w + o, stride, add, y + o, which, 1);
        else
            some_columns(x, in, w + o, stride, add, y + o, which, 0);
    }
}
