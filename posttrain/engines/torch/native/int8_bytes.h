/* The processor multiplies bytes without a sign with bytes with one (VNNI), so x is 256 times its upper bytes and its lower
 * ones, less 2^15. */
#pragma once

#ifdef __AVX512F__

#include "int8.h"
#include "lanes.h"

#define VNNI __attribute__((target("avx512vnni,avx512bw")))

enum { BYTES = 64, AHEAD = 4096 };

/* x [in] -> its bytes; gives back its scale, nan when a number of it is none. */
static float to_bytes(const float *x, long in, uint8_t *upper, uint8_t *lower) {
    lanes most = all(0);
    mask finite = 0xffff;
    for (long i = 0; i < in; i += LANES) {
        lanes size = _mm512_abs_ps(load(x + i));
        finite &= _mm512_cmp_ps_mask(size, all(INFINITY), _CMP_LT_OQ);
        most = larger(most, size);
    }
    if (finite != 0xffff) return NAN;
    float scale = largest_of(most) / LARGEST;
    if (scale < FLT_MIN) scale = 1;  /* nothing but zeros, or as good as that */
    for (long i = 0; i < in; i += LANES) {
        __m512i whole = _mm512_cvtps_epi32(_mm512_div_ps(load(x + i), all(scale)));
        whole = _mm512_add_epi32(whole, _mm512_set1_epi32(32768));
        _mm_storeu_si128((__m128i *)(upper + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(whole, 8)));
        _mm_storeu_si128((__m128i *)(lower + i), _mm512_cvtepi32_epi8(whole));
    }
    return scale;
}

/* The sums of four vectors of sixteen. */
static inline __m128i added_up(const __m512i *x) {
    __m256i half[4];
    for (int k = 0; k < 4; k++)
        half[k] = _mm256_add_epi32(_mm512_castsi512_si256(x[k]), _mm512_extracti64x4_epi64(x[k], 1));
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

/* x [in] as bytes, times four rows of weights, whose sums and scales are given -> four of y. */
VNNI static inline void four_by_bytes(
    const uint8_t *upper, const uint8_t *lower, float scale, long in, const int8_t *w, const int32_t *sums,
    const float *scales, float *y
) {
    __m512i high[4], low[4];
    for (int k = 0; k < 4; k++) high[k] = low[k] = _mm512_setzero_si512();
    for (long i = 0; i < in; i += BYTES) {
        __m512i above = _mm512_loadu_si512(upper + i), below = _mm512_loadu_si512(lower + i);
        for (int k = 0; k < 4; k++) {
            __m512i weights = _mm512_loadu_si512(w + k * in + i);
            _mm_prefetch((const char *)(w + k * in + i + AHEAD), _MM_HINT_T0);
            high[k] = _mm512_dpbusd_epi32(high[k], above, weights);
            low[k] = _mm512_dpbusd_epi32(low[k], below, weights);
        }
    }
    /* in numbers of 53 bits, which hold these sums */
    __m256d whole = _mm256_fmadd_pd(_mm256_set1_pd(256), _mm256_cvtepi32_pd(added_up(high)), _mm256_cvtepi32_pd(added_up(low)));
    __m256d offset = _mm256_cvtepi32_pd(_mm_loadu_si128((const __m128i *)sums));
    __m128 exact = _mm256_cvtpd_ps(_mm256_fnmadd_pd(_mm256_set1_pd(32768), offset, whole));
    _mm_storeu_ps(y, _mm_mul_ps(exact, _mm_mul_ps(_mm_set1_ps(scale), _mm_loadu_ps(scales))));
}

VNNI static void multiply_by_bytes(
    const float *x, long rows, long in, const int8_t *w, const float *scales, const int32_t *sums, float *y, long out
) {
    uint8_t upper[MOST_IN], lower[MOST_IN];
    long some = near_outputs(rows, in, out);
    for (long start = 0; start < out; start += some)
        for (long r = 0; r < rows; r++) {
            float scale = to_bytes(x + r * in, in, upper, lower);  /* of nan, whatever the bytes are, y is nan */
            for (long o = start; o < start + some && o < out; o += 4)
                four_by_bytes(upper, lower, scale, in, w + o * in, sums + o, scales + o, y + r * out + o);
        }
}

#endif
