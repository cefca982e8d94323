/* Who attends to what; see attention.c. */
#pragma once

#include <stdint.h>

/* Queries [start, end) and keys [from, to): the first query sees `seen` of the keys and each one more than the one
 * before; the first key is that of a position. */
typedef struct { int64_t start, end, from, to, seen, position; } part;

/* Of an array [heads, tokens, size]: how far apart its tokens and its heads lie. */
typedef struct { int64_t token, head; } strides;

/* Keys and values, and the parts in which they are attended to. */
typedef struct { const float *k, *v; strides of_k, of_v; const part *parts; int64_t count; } source;

/* What all parts have in common.  `positions` are those of the queries; of `window` positions at most are seen, itself
 * the last; 0: of all. */
typedef struct { int64_t heads, shared, size, window; const int64_t *positions; float scale; } manner;

void attend(
    const manner *m, const source *sources, long count, long tokens, const float *q, const strides *of_q, float *out,
    const strides *of_out, float *largest, float *totals
);
