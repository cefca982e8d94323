/* What a processor without VNNI does: it multiplies whole numbers of 16 bits, and weights become such as they are read. */
#pragma once

#include <immintrin.h>

#include "int8.h"

enum {
    EIGHT = 8,
    SHORTS = 16,  /* of a register */
    LINE_OF_BYTES = 64,
    SOON = 4608,  /* bytes: two turns of SmolLM2's 576 columns */
    SAFE = 512  /* so many columns add up to less than 2^31: 512 * 32767 * 127 */
};

/* x [in] -> whole numbers; gives back their scale, nan when a number of it is none. */
static float to_shorts(const float *x, long in, int16_t *whole) {
    __m256 bits = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), most = _mm256_setzero_ps();
    int finite = 0xff;
    for (long i = 0; i < in; i += EIGHT) {
        __m256 size = _mm256_and_ps(_mm256_loadu_ps(x + i), bits);
        finite &= _mm256_movemask_ps(_mm256_cmp_ps(size, _mm256_set1_ps(INFINITY), _CMP_LT_OQ));
        most = _mm256_max_ps(most, size);
    }
    if (finite != 0xff) return NAN;
    float each[EIGHT], largest = 0;
    _mm256_storeu_ps(each, most);
    for (int i = 0; i < EIGHT; i++) largest = fmaxf(largest, each[i]);
    float scale = largest / LARGEST;
    if (scale < FLT_MIN) scale = 1;  /* nothing but zeros, or as good as that */
    for (long i = 0; i < in; i += SHORTS) {
        __m256i low = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)));
        __m256i high = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + i + EIGHT), _mm256_set1_ps(scale)));
        __m256i mixed = _mm256_packs_epi32(low, high);  /* by halves of a register */
        _mm256_storeu_si256((__m256i *)(whole + i), _mm256_permute4x64_epi64(mixed, 0xd8));
    }
    return scale;
}

/* The sums of four vectors of eight. */
static inline __m128i four_sums(const __m256i *x) {
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

/* `rows` of x, `in` apart, times four rows of weights -> four of y each, `out` apart. */
static inline __attribute__((always_inline)) void four_by_shorts(
    const int16_t *x, const float *by, int rows, long in, const int8_t *w, const float *scales, float *y, long out
) {
    __m256d exact[2];
    for (int r = 0; r < rows; r++) exact[r] = _mm256_setzero_pd();
    for (long start = 0; start < in; start += SAFE) {
        __m256i sums[2][4];
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < 4; k++) sums[r][k] = _mm256_setzero_si256();
        for (long i = start; i < start + SAFE && i < in; i += SHORTS)
            for (int k = 0; k < 4; k++) {
                const int8_t *weights = w + k * in + i;
                if (i % LINE_OF_BYTES == 0)  /* of the four rows one line after another, as they lie: twice as fast */
                    _mm_prefetch((const char *)(w + 4 * i + k * LINE_OF_BYTES + SOON), _MM_HINT_T0);
                __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)weights));
                for (int r = 0; r < rows; r++) {
                    __m256i these = _mm256_loadu_si256((const __m256i *)(x + r * in + i));
                    sums[r][k] = _mm256_add_epi32(sums[r][k], _mm256_madd_epi16(these, wide));
                }
            }
        for (int r = 0; r < rows; r++) exact[r] = _mm256_add_pd(exact[r], _mm256_cvtepi32_pd(four_sums(sums[r])));
    }
    for (int r = 0; r < rows; r++) {
        __m128 scale = _mm_mul_ps(_mm_set1_ps(by[r]), _mm_loadu_ps(scales));
        _mm_storeu_ps(y + r * out, _mm_mul_ps(_mm256_cvtpd_ps(exact[r]), scale));
    }
}

static void multiply_by_shorts(
    const float *x, long rows, long in, const int8_t *w, const float *scales, float *y, long out
) {
    int16_t whole[2 * MOST_IN];
    long some = near_outputs(rows, in, out);
    for (long start = 0; start < out; start += some) {
        long end = start + some < out ? start + some : out;
        for (long r = 0; r < rows; r += 2) {
            long both = r + 1 < rows;
            float by[2] = {to_shorts(x + r * in, in, whole), 0};  /* of nan, whatever the numbers are, y is nan */
            if (both) by[1] = to_shorts(x + (r + 1) * in, in, whole + in);
            for (long o = start; o < end; o += 4)
                if (both)
                    four_by_shorts(whole, by, 2, in, w + o * in, scales + o, y + r * out + o, out);
                else
                    four_by_shorts(whole, by, 1, in, w + o * in, scales + o, y + r * out + o, out);
        }
    }
}
