/* What lies between the products of a decoder's layers, each in one pass over memory. */
#include <math.h>

#include "lanes.h"
#include "layers.h"

/* x [rows, size] / sqrt(mean(x^2) + epsilon) * scale [size] -> y, and that factor of each row -> inverse [rows]. */
void norm(const float *x, const float *scale, float *y, float *inverse, long rows, long size, float epsilon) {
    for (long r = 0; r < rows; r++, x += size, y += size) {
        lanes squares = all(0);
        for (long i = 0; i < size; i += LANES) {
            lanes part = load_some(first(size - i), x + i);
            squares = plus_product(part, part, squares);
        }
        float factor = 1.0f / sqrtf(sum(squares) / size + epsilon);
        inverse[r] = factor;
        for (long i = 0; i < size; i += LANES) {
            mask which = first(size - i);
            store_some(which, y + i, times(times(load_some(which, x + i), all(factor)), load_some(which, scale + i)));
        }
    }
}

/* The gradient of y [rows, size] -> that of x. */
void norm_backward(
    const float *of_y, const float *x, const float *scale, const float *inverse, float *of_x, long rows, long size
) {
    for (long r = 0; r < rows; r++, of_y += size, x += size, of_x += size) {
        lanes along = all(0);
        for (long i = 0; i < size; i += LANES) {
            mask which = first(size - i);
            lanes scaled = times(load_some(which, of_y + i), load_some(which, scale + i));
            along = plus_product(scaled, load_some(which, x + i), along);
        }
        float factor = inverse[r], back = sum(along) * factor * factor * factor / size;
        for (long i = 0; i < size; i += LANES) {
            mask which = first(size - i);
            lanes scaled = times(load_some(which, of_y + i), load_some(which, scale + i));
            lanes left = times(load_some(which, x + i), all(back));
            store_some(which, of_x + i, product_minus(scaled, all(factor), left));
        }
    }
}

/* Gate and up side by side [rows, 2 * width], rows `stride` apart -> silu(gate) * up [rows, width]. */
void gate(const float *joined, long stride, float *y, long rows, long width) {
    for (long r = 0; r < rows; r++, joined += stride, y += width)
        for (long i = 0; i < width; i += LANES) {
            mask which = first(width - i);
            prefetch(joined + stride + i);  /* the next row: there is more to compute than the processor looks ahead */
            prefetch(joined + stride + width + i);
            lanes g = load_some(which, joined + i), up = load_some(which, joined + width + i);
            store_some(which, y + i, times(times(g, sigmoid(g)), up));
        }
}

/* The gradient of y [rows, width] -> that of gate and up, side by side. */
void gate_backward(const float *joined, long stride, const float *of_y, float *of_joined, long rows, long width) {
    for (long r = 0; r < rows; r++, joined += stride, of_joined += 2 * width, of_y += width)
        for (long i = 0; i < width; i += LANES) {
            mask which = first(width - i);
            lanes g = load_some(which, joined + i), up = load_some(which, joined + width + i);
            prefetch(joined + stride + i);
            prefetch(joined + stride + width + i);
            prefetch(of_y + width + i);
            lanes of = load_some(which, of_y + i), s = sigmoid(g), silu = times(g, s);
            lanes slope = plus_product(silu, minus(all(1.0f), s), s);  /* s + g s (1 - s) */
            store_some(which, of_joined + i, times(times(of, up), slope));
            store_some(which, of_joined + width + i, times(of, silu));
        }
}

/* x, rows `stride` apart, of `heads` heads [size] each -> y [rows, heads * size]: in each, x1 becomes x1 cos - x2 sin and
 * x2 becomes x2 cos + x1 sin, with cos and sin [rows, size].  `sign` -1 turns back, by the transposed turn: the sine that
 * one half was multiplied with meets the other. */
void turn(
    const float *x, long stride, const float *cos, const float *sin, float sign, float *y, long y_stride, long rows,
    long heads, long size
) {
    long half = size / 2;
    for (long r = 0; r < rows; r++, cos += size, sin += size)
        for (long h = 0; h < heads; h++) {
            const float *of_second = sign < 0 ? sin + half : sin, *of_first = sign < 0 ? sin : sin + half;
            const float *from = x + r * stride + h * size;
            float *to = y + r * y_stride + h * size;
            for (long i = 0; i < half; i += LANES) {
                mask which = first(half - i);
                lanes x1 = load_some(which, from + i), x2 = load_some(which, from + half + i);
                lanes s1 = load_some(which, of_second + i), s2 = load_some(which, of_first + i);
                lanes c1 = load_some(which, cos + i), c2 = load_some(which, cos + half + i);
                s1 = times(all(sign), s1), s2 = times(all(sign), s2);
                store_some(which, to + i, minus_product(x2, s1, times(x1, c1)));
                store_some(which, to + half + i, plus_product(x1, s2, times(x2, c2)));
            }
        }
}
