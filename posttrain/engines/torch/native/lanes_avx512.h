/* Sixteen floats at a time: see lanes.h. */
#pragma once

typedef __m512 lanes;
typedef __mmask16 mask;

enum { LANES = 16 };

static inline lanes all(float x) { return _mm512_set1_ps(x); }
static inline lanes load(const float *from) { return _mm512_loadu_ps(from); }
static inline void store(float *to, lanes x) { _mm512_storeu_ps(to, x); }
static inline float sum(lanes x) { return _mm512_reduce_add_ps(x); }
static inline float largest_of(lanes x) { return _mm512_reduce_max_ps(x); }

static inline lanes plus(lanes x, lanes y) { return _mm512_add_ps(x, y); }
static inline lanes minus(lanes x, lanes y) { return _mm512_sub_ps(x, y); }
static inline lanes times(lanes x, lanes y) { return _mm512_mul_ps(x, y); }
static inline lanes plus_product(lanes x, lanes y, lanes z) { return _mm512_fmadd_ps(x, y, z); }  /* x y + z */
static inline lanes minus_product(lanes x, lanes y, lanes z) { return _mm512_fnmadd_ps(x, y, z); }  /* z - x y */
static inline lanes product_minus(lanes x, lanes y, lanes z) { return _mm512_fmsub_ps(x, y, z); }  /* x y - z */

/* Of nan and y, y; of x and nan, nan. */
static inline lanes larger(lanes x, lanes y) { return _mm512_max_ps(x, y); }
static inline lanes smaller(lanes x, lanes y) { return _mm512_min_ps(x, y); }

/* The first `count` of them (none, of fewer than one): for what is left over at the end of a row. */
static inline mask first(long count) { return count >= LANES ? 0xffff : count > 0 ? (mask)((1u << count) - 1) : 0; }
static inline mask without(mask x, mask y) { return x & (mask)~y; }
static inline mask not_less(lanes x, lanes y) { return _mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ); }
static inline lanes only(mask which, lanes x) { return _mm512_maskz_mov_ps(which, x); }
static inline lanes either(mask which, lanes x, lanes y) { return _mm512_mask_mov_ps(y, which, x); }
static inline lanes load_some(mask which, const float *from) { return _mm512_maskz_loadu_ps(which, from); }
static inline void store_some(mask which, float *to, lanes x) { _mm512_mask_storeu_ps(to, which, x); }

/* The nearest whole numbers; x 2^n; 1 / x, of 1 and more: 14 bits, of which a step of Newton's makes 28. */
static inline lanes whole(lanes x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline lanes doubled(lanes x, lanes n) { return _mm512_scalef_ps(x, n); }
static inline lanes inverse_of(lanes x) {
    lanes near = _mm512_rcp14_ps(x);
    return times(near, minus_product(x, near, all(2.0f)));
}

/* LANES vectors become those of their first numbers, their second, and so on. */
static inline __attribute__((always_inline)) void turn_over(lanes *a) {
    lanes b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    for (int j = 0; j < 4; j++)
        for (int half = 0; half < 2; half++) {
            lanes low = a[8 * half + j], high = a[8 * half + j + 4];
            b[4 * half + j] = _mm512_shuffle_f32x4(low, high, 0x88);
            b[4 * half + j + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
        }
    for (int j = 0; j < 4; j++)
        for (int half = 0; half < 2; half++) {
            lanes low = b[8 * half + j], high = b[8 * half + j + 4];
            a[4 * half + j] = _mm512_shuffle_f32x4(low, high, 0x88);
            a[4 * half + j + 8] = _mm512_shuffle_f32x4(low, high, 0xdd);
        }
}

/* The sums of LANES vectors. */
static inline __attribute__((always_inline)) lanes sums_of(const lanes *x) {
    lanes by_four[4];  /* the sums of four vectors, spread over four parts */
    for (int i = 0; i < 4; i++, x += 4) {
        __m512d first = _mm512_castps_pd(plus(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1])));
        __m512d last = _mm512_castps_pd(plus(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3])));
        lanes even = _mm512_castpd_ps(_mm512_unpacklo_pd(first, last));
        by_four[i] = plus(even, _mm512_castpd_ps(_mm512_unpackhi_pd(first, last)));
    }
    for (int i = 0; i < 2; i++) {
        lanes a = by_four[2 * i], b = by_four[2 * i + 1];
        by_four[i] = plus(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    lanes a = by_four[0], b = by_four[1];
    return plus(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* sums + the products of pairs of bfloat16, added up two by two.  So written, as not every processor of those that this is
 * compiled for knows it: who calls it must have asked. */
static inline __attribute__((always_inline)) lanes add_pairs(lanes sums, lanes x, lanes y) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(x), "v"(y));
    return sums;
}

/* Sixteen numbers rounded to bfloat16; as with add_pairs. */
static inline __attribute__((always_inline)) __m256i rounded(lanes x) {
    __m256i y;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x));
    return y;
}
