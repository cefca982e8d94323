/* Some floats at a time, as many as the processor's registers hold: sixteen with AVX-512, eight with AVX2. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#ifdef __AVX512F__
#include "lanes_avx512.h"
#else
#include "lanes_avx2.h"
#endif

enum { LINE = 16 };  /* floats of a cache line */

/* Inlined by force: gcc 12 takes a function that does nothing else for one that does nothing, and removes its calls. */
static inline __attribute__((always_inline)) void prefetch(const float *from) { _mm_prefetch((const char *)from, _MM_HINT_T0); }
static inline __attribute__((always_inline)) void prefetch_far(const float *from) { _mm_prefetch((const char *)from, _MM_HINT_T1); }

/* exp(x) = 2^n exp(f), with n the whole part of x / ln 2 and |f| <= ln 2 / 2: to 1e-7 of it.  Of nan, nan. */
static inline lanes exponential(lanes x) {
    x = larger(all(-104.0f), x);  /* below it is 0; and the operand that may be nan comes second */
    x = smaller(all(89.0f), x);  /* above it is infinite */
    lanes n = whole(times(x, all(1.44269504f)));
    lanes f = minus_product(n, all(-2.12194440e-4f), minus_product(n, all(0.693359375f), x));
    lanes y = all(1.0f / 720);
    y = plus_product(y, f, all(1.0f / 120));
    y = plus_product(y, f, all(1.0f / 24));
    y = plus_product(y, f, all(1.0f / 6));
    y = plus_product(y, f, all(0.5f));
    y = plus_product(y, f, all(1.0f));
    y = plus_product(y, f, all(1.0f));
    return doubled(y, n);
}

/* 1 / (1 + exp(-x)) */
static inline lanes sigmoid(lanes x) {
    mask positive = not_less(x, all(-87.0f));  /* of less it is 0; of nan, nan */
    x = larger(all(-87.0f), x);  /* so that what is divided by is finite */
    return only(positive, inverse_of(plus(all(1.0f), exponential(minus(all(0), x)))));
}
