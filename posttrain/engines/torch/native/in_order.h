/* A product with weights that are read in the order in which they lie: some steps of depth, at many columns, meet all rows
 * while the next steps come from memory.  So few rows wait for nothing but memory, even where it is asked for no further
 * ahead than a page; what was summed goes to the nearest cache and back for it. */
#pragma once

#include <string.h>

#include "tiles.h"

enum { BROAD = 1024, MOST_ROWS = 48 };  /* columns at once; rows, whose sums the second-nearest cache has room for */

/* sums [rows, vectors * LANES], rows BROAD apart, += x [rows, steps] @ w [steps, those columns], of which only `which` are
 * there (0: all).  The steps after these are asked for by the `first_rows`. */
static inline __attribute__((always_inline)) void add_steps(
    int rows, int vectors, int first_rows, const float *x, long x_row, long x_step, const float *w, long stride, long steps,
    const mask *which, float *sums
) {
    lanes so_far[ROWS][MOST_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) so_far[r][t] = load(sums + r * BROAD + t * LANES);
    for (long d = 0; d < steps; d++, w += stride) {
        lanes from[MOST_VECTORS];
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) from[t] = which ? load_some(*which, w) : load(w + t * LANES);
        if (first_rows)
#pragma GCC unroll 4
            for (int t = 0; t < vectors * LANES; t += LINE) prefetch_far(w + steps * stride + t);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            lanes one = all(x[r * x_row + d * x_step]);
#pragma GCC unroll 4
            for (int t = 0; t < vectors; t++) so_far[r][t] = plus_product(one, from[t], so_far[r][t]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) store(sums + r * BROAD + t * LANES, so_far[r][t]);
}

/* The same at all of at most BROAD columns, as many at once as registers hold. */
static inline __attribute__((always_inline)) void add_steps_broadly(
    int rows, int first_rows, const float *x, long x_row, long x_step, const float *w, long stride, long steps, long columns,
    float *sums
) {
    const int vectors = rows <= 3 ? 4 : rows == 4 ? 3 : 2;
    long c = 0;
    for (; c + vectors * LANES <= columns; c += vectors * LANES)
        add_steps(rows, vectors, first_rows, x, x_row, x_step, w + c, stride, steps, 0, sums + c);
    for (; c < columns; c += LANES) {
        mask which = first(columns - c);
        add_steps(rows, 1, first_rows, x, x_row, x_step, w + c, stride, steps, &which, sums + c);
    }
}

/* At most MOST_ROWS rows of x meet some `depth` of weights w, which lie by column, at most BROAD of these -> y; added to
 * `onto`, if there is one, last: rounded once. */
static void meet_in_order(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, const float *onto,
    long onto_row, float *y, long y_row, long columns
) {
    float sums[MOST_ROWS * BROAD] __attribute__((aligned(64)));
    long at_once = rows <= ROWS ? 8 : 16, wide = (columns + LANES - 1) / LANES * LANES;
    for (long r = 0; r < rows; r++) memset(sums + r * BROAD, 0, wide * sizeof(float));
    for (long d = 0; d < depth; d += at_once) {
        long steps = depth - d < at_once ? depth - d : at_once;
        const float *some = x + d * x_step, *from = w + d * stride;
        for (long r = 0; r < rows; r += ROWS) {
            const float *these = some + r * x_row;
            float *to = sums + r * BROAD;
#define ADD_STEPS(count) add_steps_broadly(count, 0, these, x_row, x_step, from, stride, steps, columns, to)
#define ADD_FIRST_STEPS(count) add_steps_broadly(count, 1, these, x_row, x_step, from, stride, steps, columns, to)
            switch (r ? -least(rows - r, ROWS) : least(rows, ROWS)) {
                case 1: ADD_FIRST_STEPS(1); break;
                case 2: ADD_FIRST_STEPS(2); break;
                case 3: ADD_FIRST_STEPS(3); break;
                case 4: ADD_FIRST_STEPS(4); break;
                case 5: ADD_FIRST_STEPS(5); break;
                case 6: ADD_FIRST_STEPS(6); break;
                case -1: ADD_STEPS(1); break;
                case -2: ADD_STEPS(2); break;
                case -3: ADD_STEPS(3); break;
                case -4: ADD_STEPS(4); break;
                case -5: ADD_STEPS(5); break;
                default: ADD_STEPS(6);
            }
        }
    }
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += LANES) {
            mask which = first(columns - c);
            lanes found = load(sums + r * BROAD + c);
            if (onto) found = plus(found, load_some(which, onto + r * onto_row + c));
            store_some(which, y + r * y_row + c, found);
        }
}
