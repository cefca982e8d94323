/* See products.c and int8.c. */
#pragma once

#include <stdint.h>

/* On rows [top, bottom) and columns [first, end) of a product: `narrow` [those rows, depth], rows `narrow_row` apart, times
 * `wide`, weights as in `multiply` [depth, those columns]. */
typedef struct {
    int64_t top, bottom, first, end;
    const float *narrow;
    int64_t narrow_row, depth;
    const float *wide;
    int64_t stride, turned;
} addition;

void multiply(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    const float *onto, long onto_row, float *y, long y_row, long columns, const addition *additions, long count
);
void multiply_pairs(
    const float *x, long x_row, long rows, long in, const float *w, long stride, const float *onto, long onto_row, float *y,
    long y_row, long columns, const addition *additions, long count
);
void multiply_int8(
    const float *x, long rows, long in, const int8_t *w, const float *scales, const int32_t *sums, float *y, long out
);
