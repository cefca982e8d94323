/* Attention of a forest, and of a decoding step, over keys that are attended to in parts.
 *
 * A part is a run of queries that attend to a run of keys.  The softmax over all keys of a query is gathered from part to
 * part: its largest score so far, the sum of exp(score - largest), and the values weighed by that (arXiv:1805.02867,
 * algorithm 3).  The gradient of a part is that of a plain softmax, given the sum over all keys (arXiv:2205.14135,
 * algorithm 4).  Queries of heads that share keys are rows of the same products. */
#include <math.h>
#include <string.h>

#include "attention.h"
#include "tiles.h"

enum { BLOCK = 64, TILE = 24, FEW = 8, MOST_SIZE = 256 };  /* keys and rows at once; few rows; numbers of a head */

/* The first query of a part that sees its key of this number. */
static inline long first_seeing(const part *p, long key) { return p->start + (key < p->seen ? 0 : key - p->seen + 1); }

/* Which keys of a block, the first of which is `first_key` of its part, a query sees: [*low, *high). */
static inline void sight(const manner *m, const part *p, long query, long first_key, long count, long *low, long *high) {
    long until = p->seen + (query - p->start) - first_key;
    *high = until < 0 ? 0 : until < count ? until : count;
    *low = 0;
    if (m->window) {
        long nearest = m->positions[query] - m->window + 1 - (p->position + first_key);
        *low = nearest < 0 ? 0 : nearest;
    }
}

static inline mask between(long low, long high, int vector) {
    return without(first(high - vector * LANES), first(low - vector * LANES));
}

/* Whether none of some rows sees a key of a block. */
static int are_blind(const manner *m, const part *p, long row, long rows, long first_key, long count) {
    long low, high;
    for (long query = row / m->shared; query <= (row + rows - 1) / m->shared; query++) {
        sight(m, p, query, first_key, count, &low, &high);
        if (low < high) return 0;
    }
    return 1;
}

/* Rows of q (or what is like it), by query and then by head of the group, side by side [rows, size]. */
static void gather(const float *x, const strides *s, const manner *m, long group, long row, long rows, float *y) {
    for (long r = row; r < row + rows; r++, y += m->size) {
        const float *from = x + (r / m->shared) * s->token + (group * m->shared + r % m->shared) * s->head;
        memcpy(y, from, m->size * sizeof(float));
    }
}

/* And back. */
static void put_back(const float *x, const strides *s, const manner *m, long group, long row, long rows, float *y) {
    for (long r = row; r < row + rows; r++, x += m->size) {
        float *to = y + (r / m->shared) * s->token + (group * m->shared + r % m->shared) * s->head;
        memcpy(to, x, m->size * sizeof(float));
    }
}

/* One block of keys for some rows of queries: scores [rows, BLOCK] become exp(score - largest), and what was gathered in
 * values [rows, size], largest and sums [rows] is scaled to the new largest. */
static void soften(
    const manner *m, const part *p, long row, long rows, long first_key, long count, float *scores, float *values,
    float **largest, float **sums
) {
    for (long r = 0; r < rows; r++, scores += BLOCK, values += m->size) {
        long low, high;
        sight(m, p, (row + r) / m->shared, first_key, count, &low, &high);
        lanes x[BLOCK / LANES], top = all(-INFINITY);
        for (int t = 0; t < BLOCK / LANES; t++) {
            x[t] = either(between(low, high, t), times(load(scores + t * LANES), all(m->scale)), all(-INFINITY));
            top = larger(top, x[t]);
        }
        float before = *largest[r], now = fmaxf(before, largest_of(top));
        if (low >= high) now = before;
        lanes total = all(0);
        for (int t = 0; t < BLOCK / LANES; t++) {
            x[t] = only(between(low, high, t), exponential(minus(x[t], all(now))));
            total = plus(total, x[t]);
            store(scores + t * LANES, x[t]);
        }
        float kept = before == now ? 1 : expf(before - now);
        *sums[r] = *sums[r] * kept + sum(total);
        *largest[r] = now;
        if (kept != 1)
            for (long i = 0; i < m->size; i += LANES) store(values + i, times(load(values + i), all(kept)));
    }
}

/* Scores [rows, BLOCK] of few queries [rows, size] and `length` keys, for which to turn these would take longer. */
static void score_few(long rows, long size, long length, const float *queries, const float *keys, long apart, float *scores) {
    for (long at = 0; at < length; at += LANES) {
        lanes products[FEW][LANES];
        for (long i = 0; i < LANES; i++)
            for (long r = 0; r < rows; r++) {
                products[r][i] = all(0);
                for (long d = 0; d < size && at + i < length; d += LANES)
                    products[r][i] = plus_product(load(queries + r * size + d), load(keys + (at + i) * apart + d), products[r][i]);
            }
        for (long r = 0; r < rows; r++) store(scores + r * BLOCK + at, sums_of(products[r]));
    }
}

/* Adds a source to what was gathered: values (like q), largest and sums [tokens, heads]. */
static void add_source(
    const manner *m, const source *from, const float *q, const strides *of_q, float *values, const strides *of_values,
    float *largest, float *sums
) {
    const float *k = from->k, *v = from->v;
    const strides *of_k = &from->of_k, *of_v = &from->of_v;
    const part *parts = from->parts;
    float keys[MOST_SIZE * BLOCK], queries[TILE * MOST_SIZE], so_far[TILE * MOST_SIZE], scores[TILE * BLOCK];
    float *tops[TILE], *totals[TILE];
    for (long i = 0; i < from->count; i++)
        for (long group = 0; group < m->heads / m->shared; group++)
            for (long at = parts[i].from; at < parts[i].to; at += BLOCK) {
                const part *p = parts + i;
                long length = least(BLOCK, p->to - at), wide = (length + LANES - 1) / LANES * LANES;
                long first_key = at - p->from, size = m->size, start = first_seeing(p, first_key);
                if (start >= p->end) break;
                const float *own_keys = k + at * of_k->token + group * of_k->head;
                int few = (p->end - start) * m->shared <= FEW;
                if (!few) transpose(own_keys, of_k->token, length, size, keys, BLOCK);
                for (long row = start * m->shared; row < p->end * m->shared; row += TILE) {
                    long rows = least(TILE, p->end * m->shared - row);
                    if (m->window && are_blind(m, p, row, rows, first_key, length)) continue;
                    gather(q, of_q, m, group, row, rows, queries);
                    gather(values, of_values, m, group, row, rows, so_far);
                    for (long r = 0; r < rows; r++) {
                        long place = (row + r) / m->shared * m->heads + group * m->shared + (row + r) % m->shared;
                        tops[r] = largest + place, totals[r] = sums + place;
                    }
                    if (few)
                        score_few(rows, size, length, queries, own_keys, of_k->token, scores);
                    else {
                        memset(scores, 0, rows * BLOCK * sizeof(float));
                        add_matrix(rows, wide, size, queries, size, 1, keys, BLOCK, scores, BLOCK);
                    }
                    soften(m, p, row, rows, first_key, length, scores, so_far, tops, totals);
                    add_matrix(
                        rows, size, length, scores, BLOCK, 1, v + at * of_v->token + group * of_v->head, of_v->token,
                        so_far, size
                    );
                    put_back(so_far, of_values, m, group, row, rows, values);
                }
            }
}

/* q [tokens, heads, size] -> out, like it, and the log-sum-exp of the scores, totals [tokens, heads]; `largest` is room
 * for as much.  Every query sees a key of some source. */
void attend(
    const manner *m, const source *sources, long count, long tokens, const float *q, const strides *of_q, float *out,
    const strides *of_out, float *largest, float *totals
) {
    for (long i = 0; i < tokens * m->heads; i++) {
        memset(out + i / m->heads * of_out->token + i % m->heads * of_out->head, 0, m->size * sizeof(float));
        largest[i] = -INFINITY, totals[i] = 0;
    }
    for (long i = 0; i < count; i++) add_source(m, sources + i, q, of_q, out, of_out, largest, totals);
    for (long i = 0; i < tokens * m->heads; i++) {
        float *row = out + i / m->heads * of_out->token + i % m->heads * of_out->head;
        lanes share = all(1 / totals[i]);
        for (long j = 0; j < m->size; j += LANES) store(row + j, times(load(row + j), share));
        totals[i] = largest[i] + logf(totals[i]);
    }
}

/* Adds rows [rows, size] to where they came from (see gather). */
static void scatter(const float *x, const strides *s, const manner *m, long group, long row, long rows, float *to) {
    for (long r = row; r < row + rows; r++, x += m->size) {
        float *place = to + (r / m->shared) * s->token + (group * m->shared + r % m->shared) * s->head;
        for (long j = 0; j < m->size; j += LANES) store(place + j, plus(load(place + j), load(x + j)));
    }
}

/* Scores [rows, BLOCK] become the weights exp(score - total), and `back`, what reaches the weights, what reaches the
 * scores before they were scaled: weight * (back - along) * scale, `along` being that of the whole row. */
static void slopes(
    const manner *m, const part *p, long row, long rows, long first_key, long count, float *scores, float *back,
    const float *totals, const float *along
) {
    for (long r = 0; r < rows; r++, scores += BLOCK, back += BLOCK) {
        long low, high;
        sight(m, p, (row + r) / m->shared, first_key, count, &low, &high);
        for (int t = 0; t < BLOCK / LANES; t++) {
            lanes x = product_minus(load(scores + t * LANES), all(m->scale), all(totals[r]));
            lanes weights = only(between(low, high, t), exponential(x));
            lanes of_score = times(weights, minus(load(back + t * LANES), all(along[r])));
            of_score = only(between(low, high, t), times(of_score, all(m->scale)));
            store(scores + t * LANES, weights);
            store(back + t * LANES, of_score);
        }
    }
}

/* Adds to the gradients of q, k and v, given that of the result, the result `out` and the log-sum-exp of the scores,
 * totals [tokens, heads]. */
void attend_backward(
    const manner *m, const source *from, const float *q, const strides *of_q, const float *out, const strides *of_out,
    const float *totals, const float *gradient, const strides *of_gradient, float *to_q, const strides *of_to_q,
    float *to_k, const strides *of_to_k, float *to_v, const strides *of_to_v
) {
    const float *k = from->k, *v = from->v;
    const strides *of_k = &from->of_k, *of_v = &from->of_v;
    const part *parts = from->parts;
    float keys[MOST_SIZE * BLOCK], turned[MOST_SIZE * BLOCK], more_k[BLOCK * MOST_SIZE], more_v[BLOCK * MOST_SIZE];
    float queries[TILE * MOST_SIZE], given[TILE * MOST_SIZE], more_q[TILE * MOST_SIZE];
    float scores[TILE * BLOCK], back[TILE * BLOCK], total[TILE], along[TILE];
    for (long i = 0; i < from->count; i++)
        for (long group = 0; group < m->heads / m->shared; group++)
            for (long at = parts[i].from; at < parts[i].to; at += BLOCK) {
                const part *p = parts + i;
                long length = least(BLOCK, p->to - at), wide = (length + LANES - 1) / LANES * LANES;
                long first_key = at - p->from, size = m->size, start = first_seeing(p, first_key);
                if (start >= p->end) break;
                const float *own_keys = k + at * of_k->token + group * of_k->head;
                transpose(own_keys, of_k->token, length, size, keys, BLOCK);
                transpose(v + at * of_v->token + group * of_v->head, of_v->token, length, size, turned, BLOCK);
                memset(more_k, 0, length * size * sizeof(float));
                memset(more_v, 0, length * size * sizeof(float));
                for (long row = start * m->shared; row < p->end * m->shared; row += TILE) {
                    long rows = least(TILE, p->end * m->shared - row);
                    if (m->window && are_blind(m, p, row, rows, first_key, length)) continue;
                    gather(out, of_out, m, group, row, rows, queries);
                    gather(gradient, of_gradient, m, group, row, rows, given);
                    for (long r = 0; r < rows; r++) {
                        total[r] = totals[(row + r) / m->shared * m->heads + group * m->shared + (row + r) % m->shared];
                        lanes products = all(0);
                        for (long j = r * size; j < (r + 1) * size; j += LANES)
                            products = plus_product(load(queries + j), load(given + j), products);
                        along[r] = sum(products);
                    }
                    gather(q, of_q, m, group, row, rows, queries);
                    memset(scores, 0, rows * BLOCK * sizeof(float));
                    memset(back, 0, rows * BLOCK * sizeof(float));
                    memset(more_q, 0, rows * size * sizeof(float));
                    add_matrix(rows, wide, size, queries, size, 1, keys, BLOCK, scores, BLOCK);
                    add_matrix(rows, wide, size, given, size, 1, turned, BLOCK, back, BLOCK);
                    slopes(m, p, row, rows, first_key, length, scores, back, total, along);
                    add_matrix(rows, size, length, back, BLOCK, 1, own_keys, of_k->token, more_q, size);
                    add_matrix(length, size, rows, back, 1, BLOCK, queries, size, more_k, size);
                    add_matrix(length, size, rows, scores, 1, BLOCK, given, size, more_v, size);
                    scatter(more_q, of_to_q, m, group, row, rows, to_q);
                }
                for (long j = 0; j < length; j++)
                    for (long d = 0; d < size; d += LANES) {
                        float *key = to_k + (at + j) * of_to_k->token + group * of_to_k->head + d;
                        float *value = to_v + (at + j) * of_to_v->token + group * of_to_v->head + d;
                        store(key, plus(load(key), load(more_k + j * size + d)));
                        store(value, plus(load(value), load(more_v + j * size + d)));
                    }
            }
}
