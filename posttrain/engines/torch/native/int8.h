/* See int8.c. */
#pragma once

#include <float.h>
#include <math.h>
#include <stdint.h>

enum { NEAR = 1 << 18, MOST_IN = 32768 };

static const float LARGEST = 32767.0f;

/* How many outputs are taken at a time: their weights stay near from row to row. */
static inline long near_outputs(long rows, long in, long out) {
    long some = NEAR / in / 4 * 4;
    return rows == 1 || some < 4 ? out : some;
}
