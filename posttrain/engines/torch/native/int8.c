/* Products of few rows with weights in 8 bits and what is multiplied in 16, each row of it with a scale of its own.
 *
 * All sums are whole numbers, hence exact: neither an order of rows or columns nor the kind of processor changes a bit. */
#include "int8_bytes.h"
#include "int8_shorts.h"
#include "products.h"

/* x [rows, in] times w [out, in] with scales [out], whose rows sum to `sums` [out] -> y [rows, out].
 * `in` is a multiple of 64 and at most MOST_IN, `out` a multiple of 4. */
void multiply_int8(
    const float *x, long rows, long in, const int8_t *w, const float *scales, const int32_t *sums, float *y, long out
) {
#ifdef __AVX512F__
    if (__builtin_cpu_supports("avx512vnni")) {
        multiply_by_bytes(x, rows, in, w, scales, sums, y, out);
        return;
    }
#endif
    (void)sums;
    multiply_by_shorts(x, rows, in, w, scales, y, out);
}
