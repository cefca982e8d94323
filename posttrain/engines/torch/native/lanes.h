/* Sixteen floats at a time, as AVX-512 has them. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

typedef __m512 lanes;

enum { LANES = 16 };

static inline lanes all(float x) { return _mm512_set1_ps(x); }
static inline lanes load(const float *from) { return _mm512_loadu_ps(from); }
static inline void store(float *to, lanes x) { _mm512_storeu_ps(to, x); }
static inline float sum(lanes x) { return _mm512_reduce_add_ps(x); }

/* The first `count` of them (none, of fewer than one), as a mask: for what is left over at the end of a row. */
static inline __mmask16 first(long count) {
    return count >= LANES ? 0xffff : count > 0 ? (__mmask16)((1u << count) - 1) : 0;
}

/* Inlined by force: gcc 12 takes a function that does nothing else for one that does nothing, and removes its calls. */
static inline __attribute__((always_inline)) void prefetch(const float *from) { _mm_prefetch((const char *)from, _MM_HINT_T0); }
static inline __attribute__((always_inline)) void prefetch_far(const float *from) { _mm_prefetch((const char *)from, _MM_HINT_T1); }
static inline lanes load_some(__mmask16 which, const float *from) { return _mm512_maskz_loadu_ps(which, from); }
static inline void store_some(__mmask16 which, float *to, lanes x) { _mm512_mask_storeu_ps(to, which, x); }

/* exp(x) = 2^n exp(f), with n the whole part of x / ln 2 and |f| <= ln 2 / 2: to 1e-7 of it.  Of nan, nan. */
static inline lanes exponential(lanes x) {
    x = _mm512_max_ps(all(-104.0f), x);  /* below it is 0; and the operand that may be nan comes second */
    x = _mm512_min_ps(all(89.0f), x);  /* above it is infinite */
    lanes n = _mm512_roundscale_ps(_mm512_mul_ps(x, all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    lanes f = _mm512_fnmadd_ps(n, all(-2.12194440e-4f), _mm512_fnmadd_ps(n, all(0.693359375f), x));
    lanes y = all(1.0f / 720);
    y = _mm512_fmadd_ps(y, f, all(1.0f / 120));
    y = _mm512_fmadd_ps(y, f, all(1.0f / 24));
    y = _mm512_fmadd_ps(y, f, all(1.0f / 6));
    y = _mm512_fmadd_ps(y, f, all(0.5f));
    y = _mm512_fmadd_ps(y, f, all(1.0f));
    y = _mm512_fmadd_ps(y, f, all(1.0f));
    return _mm512_scalef_ps(y, n);
}

/* 1 / (1 + exp(-x)) */
static inline lanes sigmoid(lanes x) {
    __mmask16 positive = _mm512_cmp_ps_mask(x, all(-87.0f), _CMP_NLT_UQ);  /* of less it is 0; of nan, nan */
    x = _mm512_max_ps(all(-87.0f), x);  /* so that what is divided by is finite */
    lanes below = _mm512_add_ps(all(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), x)));
    lanes near = _mm512_rcp14_ps(below);  /* a step of Newton's makes 14 bits 28 */
    return _mm512_maskz_mul_ps(positive, near, _mm512_fnmadd_ps(below, near, all(2.0f)));
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
