/* Products of small matrices that lie in the nearest caches, in as many registers as there are. */
#pragma once

#include "lanes.h"

enum { ROWS = 6, VECTORS = LANES / 4, COLUMNS = VECTORS * LANES };  /* of a tile: 24 registers of 32, or 12 of 16 */
enum { MOST_VECTORS = 4 };

static inline long least(long a, long b) { return a < b ? a : b; }

/* What will be read after a product, asked for meanwhile: of each of its steps, `lines` of memory, `across` apart.  Those
 * of the next step lie `row` further; after LINE steps it begins anew, `block` further. */
typedef struct { const float *from; long lines, across, row, block; } ahead;

/* sums [rows][vectors] += a [rows, depth] @ b [depth, vectors * LANES]; a's numbers lie `a_row` and `a_step` apart, b's
 * rows `b_row`.  With `pairs`, each number is two of bfloat16.  `rows`, `vectors`, `pairs` and whether there is a `next`
 * are known to the compiler. */
static inline __attribute__((always_inline)) void add_product(
    int rows, int vectors, int pairs, lanes sums[][MOST_VECTORS], const float *a, long a_row, long a_step, const float *b,
    long b_row, long depth, const ahead *next
) {
    for (long d = 0; d < depth; d++) {
        lanes from[MOST_VECTORS];
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) from[t] = load(b + d * b_row + t * LANES);
        if (next)
            for (long t = 0; t < next->lines; t++)
                prefetch_far(next->from + t * next->across + d % LINE * next->row + d / LINE * next->block);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            lanes x = all(a[r * a_row + d * a_step]);
#pragma GCC unroll 4
            for (int t = 0; t < vectors; t++)
                sums[r][t] = pairs ? add_pairs(sums[r][t], x, from[t]) : plus_product(x, from[t], sums[r][t]);
        }
    }
}

/* c [rows, vectors * LANES] += a @ b, as above; c's rows lie `c_row` apart. */
static inline __attribute__((always_inline)) void add_tile(
    int rows, int vectors, const float *a, long a_row, long a_step, const float *b, long b_row, long depth, float *c,
    long c_row
) {
    lanes sums[ROWS][MOST_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) sums[r][t] = load(c + r * c_row + t * LANES);
    add_product(rows, vectors, 0, sums, a, a_row, a_step, b, b_row, depth, 0);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) store(c + r * c_row + t * LANES, sums[r][t]);
}

#define EACH_VECTORS(rows, ...) \
    switch (vectors) { \
        case 1: add_tile(rows, 1, __VA_ARGS__); break; \
        case 2: add_tile(rows, 2, __VA_ARGS__); break; \
        case 3: add_tile(rows, VECTORS < 3 ? VECTORS : 3, __VA_ARGS__); break; \
        default: add_tile(rows, VECTORS, __VA_ARGS__); \
    }

/* c [rows, columns] += a [rows, depth] @ b [depth, columns], for any number of rows and a multiple of LANES columns. */
static void add_matrix(
    long rows, long columns, long depth, const float *a, long a_row, long a_step, const float *b, long b_row, float *c,
    long c_row
) {
    for (long j = 0; j < columns; j += COLUMNS) {
        long vectors = least((columns - j) / LANES, VECTORS);
        for (long i = 0; i < rows; i += ROWS) {
            const float *some = a + i * a_row, *beside = b + j;
            float *to = c + i * c_row + j;
            switch (rows - i) {
                case 1: EACH_VECTORS(1, some, a_row, a_step, beside, b_row, depth, to, c_row); break;
                case 2: EACH_VECTORS(2, some, a_row, a_step, beside, b_row, depth, to, c_row); break;
                case 3: EACH_VECTORS(3, some, a_row, a_step, beside, b_row, depth, to, c_row); break;
                case 4: EACH_VECTORS(4, some, a_row, a_step, beside, b_row, depth, to, c_row); break;
                case 5: EACH_VECTORS(5, some, a_row, a_step, beside, b_row, depth, to, c_row); break;
                default: EACH_VECTORS(6, some, a_row, a_step, beside, b_row, depth, to, c_row);
            }
        }
    }
}

/* The transpose of numbers [rows, columns], of each at most LANES, whose rows lie `row` apart -> y [LANES, LANES], zero
 * beyond. */
static void transpose_some(const float *x, long row, long rows, long columns, float *y, long y_row) {
    lanes a[LANES];
    for (int i = 0; i < LANES; i++) a[i] = i < rows ? load_some(first(columns), x + i * row) : all(0);
    turn_over(a);
    for (int i = 0; i < LANES; i++) store(y + i * y_row, a[i]);
}

/* x [rows, columns], rows `row` apart -> y [columns, rows up to a multiple of LANES], zero beyond the rows. */
static void transpose(const float *x, long row, long rows, long columns, float *y, long y_row) {
    for (long i = 0; i < rows; i += LANES)
        for (long j = 0; j < columns; j += LANES) transpose_some(x + i * row + j, row, rows - i, columns - j, y + j * y_row + i, y_row);
}
