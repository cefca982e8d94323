/* See products.c and int8.c. */
#pragma once

#include <stdint.h>

void multiply(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    const float *onto, long onto_row, float *y, long y_row, long columns
);
void multiply_pairs(
    const float *x, long x_row, long rows, long in, const float *w, long stride, const float *onto, long onto_row, float *y,
    long y_row, long columns
);
void multiply_int8(
    const float *x, long rows, long in, const int8_t *w, const float *scales, const int32_t *sums, float *y, long out
);
