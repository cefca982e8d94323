/* A product of many rows, with what is multiplied laid together first (Goto and van de Geijn, 2008, "Anatomy of
 * high-performance matrix multiplication"): rows in the second-nearest cache, a few columns in the nearest. */
#pragma once

#include "tiles.h"

enum { LAID_ROWS = 288, LAID_COLUMNS = 2 * LANES };  /* rows, a multiple of ROWS, and columns that lie together */

/* ROWS rows of x (or `rows`, if they are fewer), its numbers x_row and x_step apart -> laid [depth, ROWS], zero beyond the
 * rows; and a little more may be written. */
static void lay_block(const float *x, long x_row, long x_step, long rows, long depth, float *laid) {
    long d = 0;
    for (; x_step == 1 && d + LANES <= depth; d += LANES) {
        lanes a[LANES];
        for (int r = 0; r < LANES; r++) a[r] = r < rows && r < ROWS ? load(x + r * x_row + d) : all(0);
        turn_over(a);
        for (int i = 0; i < LANES; i++) store(laid + (d + i) * ROWS, a[i]);  /* what is too much is written over */
    }
    for (; d < depth; d++)
        for (int r = 0; r < ROWS; r++) laid[d * ROWS + r] = r < rows ? x[r * x_row + d * x_step] : 0;
}

/* w [depth, columns] -> laid [depth, LAID_COLUMNS]; or, `turned`, w [columns, depth].  Of columns there are `left`. */
static void lay_columns(const float *w, long stride, long turned, long depth, long left, float *laid) {
    if (turned) {
        for (long c = 0; c < LAID_COLUMNS; c += LANES)
            for (long d = 0; d < depth; d += LANES)
                transpose_some(w + c * stride + d, stride, left - c, depth - d, laid + d * LAID_COLUMNS + c, LAID_COLUMNS);
        return;
    }
    mask which[2] = {first(left), first(left - LANES)};
    for (long d = 0; d < depth; d++)
        for (int t = 0; t < 2; t++) store(laid + d * LAID_COLUMNS + t * LANES, load_some(which[t], w + d * stride + t * LANES));
}

/* `rows` (at most ROWS) and `left` columns of y: laid rows times laid columns, and `onto`, if there is one, last.  What lies
 * at `next`, a line each `stride`, is asked for meanwhile. */
static void multiply_laid(
    const float *tall, const float *wide, long depth, long rows, long left, const float *onto, long onto_row, float *y, long y_row,
    const float *next, long stride
) {
    lanes sums[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = all(0);
#pragma GCC unroll 2
    for (long d = 0; d < depth; d++, tall += ROWS, wide += LAID_COLUMNS, next += stride) {
        lanes one = load(wide), two = load(wide + LANES);
        if (stride) prefetch_far(next);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            lanes x = all(tall[r]);
            sums[r][0] = plus_product(x, one, sums[r][0]);
            sums[r][1] = plus_product(x, two, sums[r][1]);
        }
    }
    mask which[2] = {first(left), first(left - LANES)};
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < 2 && r < rows; t++) {
            lanes found = sums[r][t];
            if (onto) found = plus(found, load_some(which[t], onto + r * onto_row + t * LANES));
            store_some(which[t], y + r * y_row + t * LANES, found);
        }
}
