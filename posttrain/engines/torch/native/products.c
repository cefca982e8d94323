/* Products with frozen weights that lie by column: what input i adds to output o is w[i * stride + o].
 *
 * A single row waits for the weights to be read from memory, once.  Of many rows, a panel of columns at a time is laid
 * together in the second-nearest cache, and rows meet it there (Goto and van de Geijn, 2008, "Anatomy of
 * high-performance matrix multiplication"). */
#include "tiles.h"

enum { DEPTH = 1024, STRIP = 768, FEW = 12 };  /* of a panel; rows that meet it; as many do without laying it together */

/* Of the COLUMNS from the first of w, y and bias on, those in `which`; `all_of_them`: known to the compiler. */
static inline __attribute__((always_inline)) void some_columns(
    const float *x, long in, const float *w, long stride, const float *bias, float *y, const __mmask16 *which,
    int all_of_them
) {
    lanes sums[VECTORS];
    for (int t = 0; t < VECTORS; t++) sums[t] = bias ? load_some(which[t], bias + t * LANES) : all(0);
    for (long i = 0; i < in; i++)
        for (int t = 0; t < VECTORS; t++) {
            const float *from = w + i * stride + t * LANES;
            sums[t] = _mm512_fmadd_ps(all(x[i]), all_of_them ? load(from) : load_some(which[t], from), sums[t]);
        }
    for (int t = 0; t < VECTORS; t++) store_some(which[t], y + t * LANES, sums[t]);
}

/* x [in] @ w + bias [out] (or none) -> y [out]. */
void multiply_row(const float *x, long in, const float *w, long stride, const float *bias, float *y, long out) {
    for (long o = 0; o < out; o += COLUMNS) {
        __mmask16 which[VECTORS];
        for (int t = 0; t < VECTORS; t++) which[t] = first(out - o - t * LANES);
        const float *add = bias ? bias + o : 0;
        if (out - o >= COLUMNS)
            some_columns(x, in, w + o, stride, add, y + o, which, 1);
        else
            some_columns(x, in, w + o, stride, add, y + o, which, 0);
    }
}

/* The first `columns` (at most COLUMNS) of w [depth, ...] -> panel [depth, COLUMNS], zero beyond them. */
static void lay_together(const float *w, long stride, long depth, long columns, float *panel) {
    for (long d = 0; d < depth; d++)
        for (int t = 0; t < VECTORS; t++)
            store(panel + d * COLUMNS + t * LANES, load_some(first(columns - t * LANES), w + d * stride + t * LANES));
}

/* The first rows of w [columns, depth] as columns of the panel, which may end before COLUMNS. */
static void turn_together(const float *w, long stride, long depth, long columns, float *panel) {
    for (long c = 0; c < COLUMNS && c < columns; c += LANES)
        for (long d = 0; d < depth; d += LANES)
            transpose_some(w + c * stride + d, stride, columns - c, depth - d, panel + d * COLUMNS + c, COLUMNS);
}

/* `rows` of y at `vectors` * LANES columns (both known to the compiler): a product with a panel, added to what is there
 * if that is not `new`. */
static inline __attribute__((always_inline)) void meet(
    int rows, int vectors, const float *x, long x_row, long x_step, const float *panel, long panel_row, long depth,
    int new, const __mmask16 *which, float *y, long y_row
) {
    lanes sums[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++)
            sums[r][t] = new ? all(0) : load_some(which[t], y + r * y_row + t * LANES);
    add_product(rows, vectors, sums, x, x_row, x_step, panel, panel_row, depth);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) store_some(which[t], y + r * y_row + t * LANES, sums[r][t]);
}

#define MEET(rows, ...) \
    switch (vectors) { \
        case 1: meet(rows, 1, __VA_ARGS__); break; \
        case 2: meet(rows, 2, __VA_ARGS__); break; \
        case 3: meet(rows, 3, __VA_ARGS__); break; \
        default: meet(rows, 4, __VA_ARGS__); \
    }

/* x [rows, depth], its numbers `x_row` and `x_step` apart, times w -> y [rows, columns], rows `y_row` apart; with
 * `onto`, plus what is there.  With `turned`, w is [columns, depth] and not [depth, columns];
 * its rows lie `stride` apart. */
void multiply(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    long onto, float *y, long y_row, long columns
) {
    float panel[DEPTH * COLUMNS] __attribute__((aligned(64)));
    for (long top = 0; top < rows; top += STRIP)
        for (long c = 0; c < columns; c += COLUMNS) {
            long strip = rows - top < STRIP ? rows - top : STRIP, left = columns - c;
            long vectors = (left + LANES - 1) / LANES;
            __mmask16 which[VECTORS];
            for (int t = 0; t < VECTORS; t++) which[t] = first(left - t * LANES);
            for (long d = 0; d < depth; d += DEPTH) {
                long deep = depth - d < DEPTH ? depth - d : DEPTH, panel_row = COLUMNS;
                const float *own = panel;
                int new = d == 0 && !onto;
                if (turned)
                    turn_together(w + c * stride + d, stride, deep, left, panel);
                else if (strip > FEW || left < COLUMNS)
                    lay_together(w + d * stride + c, stride, deep, left, panel);
                else
                    own = w + d * stride + c, panel_row = stride;
                for (long r = top; r < top + strip; r += ROWS) {
                    const float *a = x + r * x_row + d * x_step;
                    float *to = y + r * y_row + c;
                    switch (top + strip - r) {
                        case 1: MEET(1, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row); break;
                        case 2: MEET(2, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row); break;
                        case 3: MEET(3, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row); break;
                        case 4: MEET(4, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row); break;
                        case 5: MEET(5, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row); break;
                        default: MEET(6, a, x_row, x_step, own, panel_row, deep, new, which, to, y_row);
                    }
                }
            }
        }
}
