/* One token through all layers of a decoder of Llama's kind: what a step of decoding a single stream is.
 *
 * Call by call, its small operations take as long as half of its products: each finds its code and its data gone from the
 * caches, through which the weights have passed. */
#include <string.h>

#include "attention.h"
#include "lanes.h"

void multiply(
    const float *x, long x_row, long x_step, long rows, long depth, const float *w, long stride, long turned,
    const float *start, long start_row, float *y, long y_row, long columns
);
void multiply_int8(
    const float *x, long rows, long in, const int8_t *w, const float *scales, const int32_t *sums, float *y, long out
);
void norm(const float *x, const float *scale, float *y, float *inverse, long rows, long size, float epsilon);
void gate(const float *joined, long stride, float *y, long rows, long width);
void turn(
    const float *x, long stride, const float *cos, const float *sin, float sign, float *y, long y_stride, long rows,
    long heads, long size
);

/* A frozen weight: in fp32 and by column, `stride` apart, or with `scales` in 8 bits (see int8.c). */
typedef struct {
    const void *weight; int64_t stride; const float *scales; const int32_t *sums; const float *bias; int64_t in, out;
} linear;

/* What an adapter adds to `columns` outputs from `first` on: scale * B (A x), with A [rank, in] and B [columns, rank]. */
typedef struct { const float *a, *b; int64_t rank, first, columns; float scale; } delta;
typedef struct { const delta *each; int64_t count; } deltas;

enum { JOINED, OUT, WIDE, NARROW, LINEARS };  /* q, k and v; what attention gives; gate and up; down */

typedef struct {
    linear linears[LINEARS]; const float *before, *between;  /* the scales of its norms */
    float epsilon_before, epsilon_between; manner manner;
} layer;

/* Where the keys and values of this token go, heads `head` apart, and all that it sees. */
typedef struct { float *k, *v; int64_t head; const source *sources; int64_t count; } kept;

static void add_delta(const delta *d, const float *x, long in, float *y) {
    float narrow[d->rank];
    for (long r = 0; r < d->rank; r++) {
        lanes products = all(0);
        for (long i = 0; i < in; i += LANES) {
            __mmask16 which = first(in - i);
            products = _mm512_fmadd_ps(load_some(which, d->a + r * in + i), load_some(which, x + i), products);
        }
        narrow[r] = d->scale * sum(products);
    }
    for (long c = 0; c < d->columns; c++) {
        lanes products = all(0);
        for (long r = 0; r < d->rank; r += LANES) {
            __mmask16 which = first(d->rank - r);
            products = _mm512_fmadd_ps(load_some(which, d->b + c * d->rank + r), load_some(which, narrow + r), products);
        }
        y[d->first + c] += sum(products);
    }
}

static void apply(const linear *l, const deltas *added, const float *x, float *y) {
    if (l->scales) {
        multiply_int8(x, 1, l->in, l->weight, l->scales, l->sums, y, l->out);
        for (long i = 0; l->bias && i < l->out; i++) y[i] += l->bias[i];
    } else
        multiply(x, l->in, 1, 1, l->in, l->weight, l->stride, 0, l->bias, 0, y, l->out, l->out);
    for (long i = 0; added && i < added->count; i++) add_delta(added->each + i, x, l->in, y);
}

static void add(float *x, const float *y, long size) {
    for (long i = 0; i < size; i += LANES) {
        __mmask16 which = first(size - i);
        store_some(which, x + i, _mm512_add_ps(load_some(which, x + i), load_some(which, y + i)));
    }
}

/* x [hidden] goes through `count` layers, turned by cos and sin [size] of its one position; of each layer, what it sees and
 * where its keys and values go, and of each linear layer of it, what an adapter adds (or none does). */
void token(
    const layer *layers, long count, const kept *places, const deltas *added, const int64_t *position, const float *cos,
    const float *sin, float *x
) {
    for (long i = 0; i < count; i++) {
        const layer *l = layers + i;
        const linear *linears = l->linears;
        const deltas *more[LINEARS];
        for (int j = 0; j < LINEARS; j++) more[j] = added ? added + i * LINEARS + j : 0;
        manner own = l->manner;
        own.positions = position;  /* the layers are those of other threads, too */
        const manner *m = &own;
        long hidden = linears[JOINED].in, wide = linears[WIDE].out, size = m->size, heads = m->heads * size;
        long groups = m->heads / m->shared;
        float normed[hidden], joined[linears[JOINED].out], out[heads], opened[wide], closed[wide / 2], y[hidden];
        float inverse, largest[m->heads], totals[m->heads];

        norm(x, l->before, normed, &inverse, 1, hidden, l->epsilon_before);
        apply(linears + JOINED, more[JOINED], normed, joined);
        float turned[heads + groups * size];
        turn(joined, 0, cos, sin, 1, turned, 0, 1, m->heads + groups, size);
        for (long g = 0; g < groups; g++) {
            memcpy(places[i].k + g * places[i].head, turned + heads + g * size, size * sizeof(float));
            memcpy(places[i].v + g * places[i].head, joined + heads + (groups + g) * size, size * sizeof(float));
        }
        strides by_head = {heads, size};
        attend(m, places[i].sources, places[i].count, 1, turned, &by_head, out, &by_head, largest, totals);
        apply(linears + OUT, more[OUT], out, y);
        add(x, y, hidden);

        norm(x, l->between, normed, &inverse, 1, hidden, l->epsilon_between);
        apply(linears + WIDE, more[WIDE], normed, opened);
        gate(opened, wide, closed, 1, wide / 2);
        apply(linears + NARROW, more[NARROW], closed, y);
        add(x, y, hidden);
    }
}
