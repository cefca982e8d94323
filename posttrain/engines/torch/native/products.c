/* Products with frozen weights, which lie by column: what input i adds to output o is w[i * stride + o].
 *
 * A few columns at a time meet all rows, from the second-nearest cache, while the next columns are on their way there: few
 * rows wait for the weights to be read from memory, once, and many for nothing.  (After Goto and van de Geijn, 2008,
 * "Anatomy of high-performance matrix multiplication", who lay the columns together first.)
 *
 * Where registers hold eight floats, few rows meet weights in the order in which they lie (in_order.h), and many have all
 * laid together (packed.h).  By each of these ways a number is summed in the same order. */
#include "products.h"

#include "in_order.h"
#include "packed.h"
#include "tiles.h"

enum { NARROW = LANES < 16 };  /* half as much fits into a register, and half as many of these there are */
enum { LINES = 3, PANEL = LINES * LINE };  /* of memory, next to each other, and the columns that they hold */
enum { TALL = NARROW ? 6 : 8, WIDE = NARROW ? 2 : 3 };  /* rows and vectors of columns in registers */
enum { DEPTH = NARROW ? 192 : 2048, STRIP = 768 };  /* of a panel; rows that meet it */
enum { PAIRS = 768, AT_ONCE = 128 };  /* of a row, and rows, that are rounded at once */

/* Of w [depth, columns], or `turned` [columns, depth], the part that starts so deep and at that column. */
typedef struct { const float *w; long stride, turned; } weights;

static const float *part_of(const weights *from, long depth, long column) {
    return from->turned ? from->w + column * from->stride + depth : from->w + depth * from->stride + column;
}

/* The first `columns` (at most PANEL) of weights that are turned -> panel [depth up to a multiple of LANES, PANEL]. */
static void pack_turned(const float *w, long stride, long depth, long columns, float *panel) {
    for (long c = 0; c < PANEL && c < columns; c += LANES)
        for (long d = 0; d < depth; d += LANES)
            transpose_some(w + c * stride + d, stride, columns - c, depth - d, panel + d * PANEL + c, PANEL);
}

/* The last columns of weights, fewer than PANEL -> panel [depth, PANEL]: beyond them nothing may be read. */
static void pack(const float *w, long stride, long depth, const mask *which, float *panel) {
    for (long d = 0; d < depth; d++)
        for (int t = 0; t < PANEL / LANES; t++) store(panel + d * PANEL + t * LANES, load_some(which[t], w + d * stride + t * LANES));
}

/* `rows` of y at `vectors` * LANES columns (both known to the compiler): a product with a panel, and what it is added to,
 * last: rounded once. */
static inline __attribute__((always_inline)) void micro_kernel(
    int rows, int vectors, int pairs, const float *x, long x_row, long x_step, const float *panel, long panel_row, long depth,
    const float *onto, long onto_row, const mask *which, float *y, long y_row, const ahead *next
) {
    lanes sums[TALL][MOST_VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) sums[r][t] = all(0);
    add_product(rows, vectors, pairs, sums, x, x_row, x_step, panel, panel_row, depth, next);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < vectors; t++) {
            if (onto) sums[r][t] = plus(sums[r][t], load_some(which[t], onto + r * onto_row + t * LANES));
            store_some(which[t], y + r * y_row + t * LANES, sums[r][t]);
        }
}

/* The same at as many columns of a panel as there are, WIDE vectors at a time. */
static inline __attribute__((always_inline)) void micro_kernels(
    int rows, int pairs, long vectors, const float *x, long x_row, long x_step, const float *panel, long panel_row, long depth,
    const float *onto, long onto_row, const mask *which, float *y, long y_row, const ahead *next
) {
    for (long t = 0; t < vectors; t += WIDE, onto = onto ? onto + WIDE * LANES : 0, next = 0) {
#define MICRO_KERNEL(some) micro_kernel(rows, some, pairs, x, x_row, x_step, panel + t * LANES, panel_row, depth, onto, onto_row, which + t, y + t * LANES, y_row, next)
        switch (vectors - t) {
            case 1: MICRO_KERNEL(1); break;
            case 2: MICRO_KERNEL(2); break;
            default: MICRO_KERNEL(WIDE);
        }
    }
}

/* As many rows of x as there are, up to TALL, meet a panel. */
static inline __attribute__((always_inline)) void meet(
    int pairs, long rows, long vectors, const float *x, long x_row, long x_step, const float *panel, long panel_row, long depth,
    const float *onto, long onto_row, const mask *which, float *y, long y_row, const ahead *next
) {
#define MEET(some) micro_kernels(some, pairs, vectors, x, x_row, x_step, panel, panel_row, depth, onto, onto_row, which, y, y_row, next)
    switch (rows) {
        case 1: MEET(1); break;
        case 2: MEET(2); break;
        case 3: MEET(3); break;
        case 4: MEET(4); break;
        case 5: MEET(5); break;
        case 6: MEET(6); break;
        case 7: MEET(TALL < 7 ? TALL : 7); break;
        default: MEET(TALL);
    }
}

/* What some rows, the first of all or of the next after them, are to ask for of weights that come next, so that all
 * `rows` share it evenly: none of `blocks` of rows more than it must. */
static ahead share_of(const weights *next, const float *from, long block, long blocks) {
    long across = next->turned ? LINE * next->stride : LINE, each = (LINES + blocks - 1) / blocks;
    long first_line = block * each, lines = LINES - first_line < each ? LINES - first_line : each;
    if (!from || lines <= 0) return (ahead){0};
    return (ahead){from + first_line * across, lines, across, next->stride, next->turned ? LINE : LINE * next->stride};
}

/* `rows` of x meet the first columns of weights, at most PANEL of the `left` that there are.  What comes `after` is asked
 * for meanwhile, if anything does. */
static inline __attribute__((always_inline)) void meet_panel(
    int pairs, const float *x, long x_row, long x_step, long rows, long depth, const weights *from, long left,
    const float *after, const float *onto, long onto_row, float *y, long y_row, float *panel
) {
    long vectors = left < PANEL ? (left + LANES - 1) / LANES : PANEL / LANES, blocks = (rows + TALL - 1) / TALL;
    mask which[PANEL / LANES];
    for (int t = 0; t < PANEL / LANES; t++) which[t] = first(left - t * LANES);
    for (long d = 0; d == 0 || d < depth; d += DEPTH) {  /* of no depth: zeros */
        long deep = depth - d < DEPTH ? depth - d : DEPTH, panel_row = PANEL;
        const float *own = panel, *here = part_of(from, d, 0), *ask_for = after;
        if (d + DEPTH < depth) ask_for = rows > 1 ? part_of(from, d + DEPTH, 0) : 0;
        if (from->turned)
            pack_turned(here, from->stride, deep, left, panel);
        else if (left < PANEL)
            pack(here, from->stride, deep, which, panel);
        else
            own = here, panel_row = from->stride;
        for (long block = 0; block < blocks; block++) {
            long r = block * TALL;
            float *to = y + r * y_row;
            ahead next = share_of(from, ask_for, block, blocks);
            const float *added = d ? to : onto ? onto + r * onto_row : 0;
            meet(
                pairs, rows - r, vectors, x + r * x_row + d * x_step, x_row, x_step, own, panel_row, deep, added,
                d ? y_row : onto_row, which, to, y_row, &next
            );
        }
    }
}

/* What one of `additions` adds to columns [c, end) of rows [top, bottom) of y, which begins at its row `skipped`. */
static void add(const addition *one, long skipped, long top, long bottom, long c, long end, float *y, long y_row, float *panel) {
    if (top < one->top - skipped) top = one->top - skipped;
    if (bottom > one->bottom - skipped) bottom = one->bottom - skipped;
    if (c < one->first) c = one->first;
    if (end > one->end) end = one->end;
    if (top >= bottom || c >= end) return;
    weights all_of_it = {one->wide, one->stride, one->turned};
    weights from = {part_of(&all_of_it, 0, c - one->first), one->stride, one->turned};
    const float *narrow = one->narrow + (top + skipped - one->top) * one->narrow_row;
    float *to = y + top * y_row + c;
    meet_panel(0, narrow, one->narrow_row, 1, bottom - top, one->depth, &from, end - c, 0, to, y_row, to, y_row, panel);
}

/* As `multiply` (below), for few rows and weights that are not turned. */
static void multiply_few(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, const float *onto,
    long onto_row, float *y, long y_row, long columns, const addition *additions, long count
) {
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    for (long c = 0; c < columns; c += BROAD) {
        long left = least(columns - c, BROAD);
        for (long d = 0; d == 0 || d < depth; d += DEPTH) {
            const float *added = d ? y + c : onto ? onto + c : 0;
            meet_in_order(
                x + d * x_step, x_row, x_step, rows, least(depth - d, DEPTH), w + d * stride + c, stride, added,
                d ? y_row : onto_row, y + c, y_row, left
            );
        }
        for (long i = 0; i < count; i++)
            for (long j = c; j < c + left; j += PANEL)
                add(additions + i, 0, 0, rows, j, least(j + PANEL, columns), y, y_row, panel);
    }
}

/* As `multiply`, for many rows. */
static void multiply_many(
    const float *x, long x_row, long x_step, long rows, long depth, const weights *from, const float *onto, long onto_row,
    float *y, long y_row, long columns, const addition *additions, long count
) {
    float tall[LAID_ROWS * DEPTH + LANES] __attribute__((aligned(64))), wide[DEPTH * LAID_COLUMNS] __attribute__((aligned(64)));
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    for (long top = 0; top < rows; top += LAID_ROWS) {
        long some = least(rows - top, LAID_ROWS);
        for (long d = 0; d == 0 || d < depth; d += DEPTH) {
            long deep = least(depth - d, DEPTH);
            for (long r = 0; r < some; r += ROWS)
                lay_block(x + (top + r) * x_row + d * x_step, x_row, x_step, some - r, deep, tall + r * deep);
            for (long c = 0; c < columns; c += LAID_COLUMNS) {
                long left = columns - c, ask = from->turned || left <= LAID_COLUMNS ? 0 : from->stride;
                lay_columns(part_of(from, d, c), from->stride, from->turned, deep, left, wide);
                for (long r = 0; r < some; r += ROWS) {
                    float *to = y + (top + r) * y_row + c;
                    const float *added = d ? to : onto ? onto + (top + r) * onto_row + c : 0;
                    multiply_laid(
                        tall + r * deep, wide, deep, some - r, left, added, d ? y_row : onto_row, to, y_row,
                        part_of(from, d, c + LAID_COLUMNS), r ? 0 : ask
                    );
                }
            }
        }
        for (long i = 0; i < count; i++)
            for (long c = 0; c < columns; c += PANEL)
                add(additions + i, 0, top, top + some, c, least(c + PANEL, columns), y, y_row, panel);
    }
}

static inline __attribute__((always_inline)) void multiply_all(
    int pairs, const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    const float *onto, long onto_row, float *y, long y_row, long columns, const addition *additions, long count, long skipped
) {
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    weights all_of_them = {w, stride, turned};
    for (long top = 0; top < rows; top += STRIP)
        for (long c = 0; c < columns; c += PANEL) {
            long strip = rows - top < STRIP ? rows - top : STRIP, left = columns - c;
            weights from = {part_of(&all_of_them, 0, c), stride, turned};
            const float *after = rows > 1 && left > PANEL ? part_of(&all_of_them, 0, c + PANEL) : 0;  /* one row takes all that memory gives */
            meet_panel(
                pairs, x + top * x_row, x_row, x_step, strip, depth, &from, left, after,
                onto ? onto + top * onto_row + c : 0, onto_row, y + top * y_row + c, y_row, panel
            );
            for (long i = 0; i < count; i++)  /* these columns are still near */
                add(additions + i, skipped, top, top + strip, c, left < PANEL ? columns : c + PANEL, y, y_row, panel);
        }
}

/* x [rows, depth], its numbers `x_row` and `x_step` apart, times w [depth, columns], or `turned` [columns, depth], whose
 * rows lie `stride` apart -> y [rows, columns], rows `y_row` apart.  It is added to `onto` [rows, columns], rows
 * `onto_row` apart (0: one for all rows), if there is one; that may be y.  Then each of the `additions` is added. */
void multiply(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    const float *onto, long onto_row, float *y, long y_row, long columns, const addition *additions, long count
) {
    if (NARROW && rows > MOST_ROWS) {
        weights from = {w, stride, turned};
        multiply_many(x, x_row, x_step, rows, depth, &from, onto, onto_row, y, y_row, columns, additions, count);
    } else if (NARROW && !turned)
        multiply_few(x, x_row, x_step, rows, depth, w, stride, onto, onto_row, y, y_row, columns, additions, count);
    else
        multiply_all(
            0, x, x_row, x_step, rows, depth, w, stride, turned, onto, onto_row, y, y_row, columns, additions, count, 0
        );
}

#ifdef __AVX512F__
/* The same, rounded: x [rows, in], rows `x_row` apart, becomes pairs of bfloat16, and w [half of in, columns] is of such
 * pairs, one behind the other of what is multiplied with the same.  What is added is not rounded. */
void multiply_pairs(
    const float *x, long x_row, long rows, long in, const float *w, long stride, const float *onto, long onto_row, float *y,
    long y_row, long columns, const addition *additions, long count
) {
    float pairs[AT_ONCE * PAIRS];
    for (long top = 0; top < rows; top += AT_ONCE)
        for (long start = 0; start == 0 || start < in; start += 2 * PAIRS) {
            long some = rows - top < AT_ONCE ? rows - top : AT_ONCE, wide = in - start < 2 * PAIRS ? in - start : 2 * PAIRS;
            long depth = (wide + 1) / 2;
            for (long r = 0; r < some; r++)
                for (long i = 0; i < wide; i += LANES) {
                    __m256i two = rounded(load_some(first(wide - i), x + (top + r) * x_row + start + i));
                    _mm256_mask_storeu_epi32(pairs + r * depth + i / 2, (__mmask8)first((wide - i + 1) / 2), two);
                }
            const float *added = start ? y + top * y_row : onto ? onto + top * onto_row : 0;
            multiply_all(
                1, pairs, depth, 1, some, depth, w + start / 2 * stride, stride, 0, added, start ? y_row : onto_row,
                y + top * y_row, y_row, columns, additions, start + wide < in ? 0 : count, top
            );
        }
}
#endif
