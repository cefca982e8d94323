/* See layers.c. */
#pragma once

void norm(const float *x, const float *scale, float *y, float *inverse, long rows, long size, float epsilon);
void gate(const float *joined, long stride, float *y, long rows, long width);
void turn(
    const float *x, long stride, const float *cos, const float *sin, float sign, float *y, long y_stride, long rows,
    long heads, long size
);
