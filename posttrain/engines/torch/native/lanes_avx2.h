/* Eight floats at a time: see lanes.h. */
#pragma once

typedef __m256 lanes;
typedef __m256i mask;  /* in each lane all bits, or none */

enum { LANES = 8 };

static inline lanes all(float x) { return _mm256_set1_ps(x); }
static inline lanes load(const float *from) { return _mm256_loadu_ps(from); }
static inline void store(float *to, lanes x) { _mm256_storeu_ps(to, x); }

static inline float sum(lanes x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float largest_of(lanes x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline lanes plus(lanes x, lanes y) { return _mm256_add_ps(x, y); }
static inline lanes minus(lanes x, lanes y) { return _mm256_sub_ps(x, y); }
static inline lanes times(lanes x, lanes y) { return _mm256_mul_ps(x, y); }
static inline lanes plus_product(lanes x, lanes y, lanes z) { return _mm256_fmadd_ps(x, y, z); }  /* x y + z */
static inline lanes minus_product(lanes x, lanes y, lanes z) { return _mm256_fnmadd_ps(x, y, z); }  /* z - x y */
static inline lanes product_minus(lanes x, lanes y, lanes z) { return _mm256_fmsub_ps(x, y, z); }  /* x y - z */

/* Of nan and y, y; of x and nan, nan. */
static inline lanes larger(lanes x, lanes y) { return _mm256_max_ps(x, y); }
static inline lanes smaller(lanes x, lanes y) { return _mm256_min_ps(x, y); }

/* The first `count` of them (none, of fewer than one): for what is left over at the end of a row. */
static inline mask first(long count) {
    int some = count > LANES ? LANES : count < 0 ? 0 : (int)count;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(some), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline mask without(mask x, mask y) { return _mm256_andnot_si256(y, x); }
static inline mask not_less(lanes x, lanes y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_NLT_UQ)); }
static inline lanes only(mask which, lanes x) { return _mm256_and_ps(_mm256_castsi256_ps(which), x); }
static inline lanes either(mask which, lanes x, lanes y) { return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(which)); }
static inline lanes load_some(mask which, const float *from) { return _mm256_maskload_ps(from, which); }
static inline void store_some(mask which, float *to, lanes x) {
    if (_mm256_movemask_ps(_mm256_castsi256_ps(which)) == 0xff)
        store(to, x);  /* on AMD the other takes twenty times as long */
    else
        _mm256_maskstore_ps(to, which, x);
}

/* The nearest whole numbers; x 2^n, in two steps, each of which a float has an exponent for; 1 / x. */
static inline lanes whole(lanes x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline lanes power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static inline lanes doubled(lanes x, lanes n) {
    __m256i times_two = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(times_two, 1);
    return times(times(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(times_two, half)));
}
static inline lanes inverse_of(lanes x) { return _mm256_div_ps(all(1.0f), x); }

/* LANES vectors become those of their first numbers, their second, and so on. */
static inline __attribute__((always_inline)) void turn_over(lanes *a) {
    lanes b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; j++) {
            __m256d low = _mm256_castps_pd(b[i + j]), high = _mm256_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
        }
    for (int j = 0; j < 4; j++) {
        lanes low = a[j], high = a[j + 4];
        a[j] = _mm256_permute2f128_ps(low, high, 0x20);
        a[j + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
}

/* The sums of LANES vectors. */
static inline __attribute__((always_inline)) lanes sums_of(const lanes *x) {
    lanes low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    lanes high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return plus(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

/* No such processor multiplies pairs: it is never called. */
static inline lanes add_pairs(lanes sums, lanes x, lanes y) { return (void)x, (void)y, sums; }
