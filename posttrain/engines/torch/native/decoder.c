/* Tokens through all layers of a decoder of Llama's kind, when nothing is learnt: what they see, read and write.
 *
 * Call by call, the small operations of a few tokens take as long as half of their products: each finds its code and its
 * data gone from the caches, through which the weights have passed.  Of many, what lies between products is passed from
 * one to the next while it is near. */
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "lanes.h"
#include "layers.h"
#include "products.h"

/* A frozen weight: in fp32 and by column, `stride` apart, or so of `pairs` in bfloat16 (see products.c), or with `scales`
 * in 8 bits (see int8.c). */
typedef struct {
    const void *weight; int64_t stride, pairs; const float *scales; const int32_t *sums; const float *bias; int64_t in, out;
} linear;

/* What an adapter adds to `columns` outputs from `first` on: scale * B (A x), with A [rank, in] and B [columns, rank]. */
typedef struct { const float *a, *b; int64_t rank, first, columns; float scale; } delta;
typedef struct { const delta *each; int64_t count; } deltas;

/* An adapter, by layer and linear layer of it, on tokens [start, end). */
typedef struct { const deltas *added; int64_t start, end; } acting;

enum { JOINED, OUT, WIDE, NARROW, LINEARS };  /* q, k and v; what attention gives; gate and up; down */

/* A norm: x / sqrt(mean(x^2) + epsilon) * scale.  Without a scale, there is none. */
typedef struct { const float *scale; float epsilon; } scaling;

typedef struct { linear linears[LINEARS]; scaling before, between, queries, keys; manner manner; } layer;

/* Where the keys and values of each token go, heads `head` apart, at which place [tokens] of them; and what is seen. */
typedef struct { float *k, *v; int64_t head; const int64_t *at; const source *sources; int64_t count; } kept;

/* Tokens [start, end) of those that go on, and who acts on them; `apart`, as on each of them alone. */
typedef struct { long start, end; const acting *who; long actors, layer, apart; } some;

/* Tokens, what lies between whose products is near; fewer, which meet A one by one; numbers that an adapter narrows to. */
enum { CHUNK = 256, FEW = 4, NEAR = 1 << 16 };

static void narrow_row(const float *x, long in, const delta *d, float *narrow) {
    for (long r = 0; r < d->rank; r++) {
        lanes products = all(0);
        for (long i = 0; i < in; i += LANES) {
            mask which = first(in - i);
            products = plus_product(load_some(which, d->a + r * in + i), load_some(which, x + i), products);
        }
        narrow[r] = sum(products);
    }
}

static void add_delta(const delta *d, const float *x, long rows, long in, long apart, float *y, long y_row) {
    long at_once = d->rank < NEAR ? NEAR / d->rank : 1;
    float narrow[at_once * d->rank];
    for (long top = 0; top < rows; top += at_once) {
        long count = rows - top < at_once ? rows - top : at_once;
        const float *from = x + top * in;
        float *to = y + top * y_row + d->first;
        if (apart || count < FEW)
            for (long r = 0; r < count; r++) narrow_row(from + r * in, in, d, narrow + r * d->rank);
        else
            multiply(from, in, 1, count, in, d->a, in, 1, 0, 0, narrow, d->rank, d->rank, 0, 0);
        for (long i = 0; i < count * d->rank; i++) narrow[i] *= d->scale;
        multiply(narrow, d->rank, 1, count, d->rank, d->b, d->rank, 1, to, y_row, to, y_row, d->columns, 0, 0);
    }
}

/* x [those tokens, in] times a linear layer, its adapters included -> y; added to what is there with `onto`.  `room` has
 * the size of y. */
static void apply(const layer *l, int which, const some *tokens, const float *x, int onto, float *y, float *room) {
    const linear *w = l->linears + which;
    long rows = tokens->end - tokens->start, in = w->in, out = w->out;
    if (w->scales) {
        multiply_int8(x, rows, in, w->weight, w->scales, w->sums, onto ? room : y, out);
        for (long i = 0; onto && i < rows * out; i++) y[i] += room[i];
#ifdef __AVX512F__  /* elsewhere weights are never in pairs */
    } else if (w->pairs) {
        multiply_pairs(x, in, rows, in, w->weight, w->stride, onto ? y : w->bias, onto ? out : 0, y, out, out, 0, 0);
#endif
    } else
        multiply(x, in, 1, rows, in, w->weight, w->stride, 0, onto ? y : w->bias, onto ? out : 0, y, out, out, 0, 0);
    for (long r = 0; w->bias && (onto || w->scales) && r < rows; r++)
        for (long i = 0; i < out; i++) y[r * out + i] += w->bias[i];
    for (long i = 0; i < tokens->actors; i++) {
        const acting *who = tokens->who + i;
        const deltas *added = who->added + tokens->layer * LINEARS + which;
        long start = who->start > tokens->start ? who->start : tokens->start;
        long end = who->end < tokens->end ? who->end : tokens->end, skip = start - tokens->start;
        for (long j = 0; start < end && j < added->count; j++)
            add_delta(added->each + j, x + skip * in, end - start, in, tokens->apart, y + skip * out, out);
    }
}

static void norm_heads(const scaling *by, long rows, long row, long heads, long size, float *x) {
    float inverse[heads];
    for (long r = 0; by->scale && r < rows; r++) norm(x + r * row, by->scale, x + r * row, inverse, heads, size, by->epsilon);
}

/* Queries of some tokens, from x [those, hidden], and keys and values where they go. */
static void project(
    const layer *l, const kept *places, const some *tokens, const float *x, const float *cos, const float *sin, float *q,
    float *room
) {
    long rows = tokens->end - tokens->start, hidden = l->linears[JOINED].in, row = l->linears[JOINED].out;
    long size = l->manner.size, heads = l->manner.heads, groups = heads / l->manner.shared;
    float *normed = room, *joined = normed + rows * hidden, *keys = joined + rows * row, inverse[rows];
    norm(x, l->before.scale, normed, inverse, rows, hidden, l->before.epsilon);
    apply(l, JOINED, tokens, normed, 0, joined, 0);
    norm_heads(&l->queries, rows, row, heads, size, joined);
    norm_heads(&l->keys, rows, row, groups, size, joined + heads * size);
    turn(joined, row, cos, sin, 1, q, heads * size, rows, heads, size);
    turn(joined + heads * size, row, cos, sin, 1, keys, groups * size, rows, groups, size);
    for (long r = 0; r < rows; r++)
        for (long g = 0; g < groups; g++) {
            long to = g * places->head + places->at[tokens->start + r] * size;
            memcpy(places->k + to, keys + (r * groups + g) * size, size * sizeof(float));
            memcpy(places->v + to, joined + r * row + (heads + groups + g) * size, size * sizeof(float));
        }
}

/* x [those tokens, hidden] with what attention gave them, and then with what the wide layers make of that. */
static void go_on(const layer *l, const some *tokens, const float *seen, float *x, float *room) {
    long rows = tokens->end - tokens->start, hidden = l->linears[WIDE].in, wide = l->linears[WIDE].out;
    float *normed = room, *closed = normed + rows * hidden, *opened = closed + rows * wide / 2, inverse[rows];
    apply(l, OUT, tokens, seen, 1, x, opened);
    norm(x, l->between.scale, normed, inverse, rows, hidden, l->between.epsilon);
    apply(l, WIDE, tokens, normed, 0, opened, 0);
    gate(opened, wide, closed, rows, wide / 2);
    apply(l, NARROW, tokens, closed, 1, x, opened);
}

static long most(long a, long b) { return a > b ? a : b; }

/* Numbers that a chunk of tokens needs room for. */
static long room_of(const layer *l, long rows) {
    long hidden = l->linears[JOINED].in, wide = l->linears[WIDE].out, groups = l->manner.heads / l->manner.shared;
    long projecting = hidden + l->linears[JOINED].out + groups * l->manner.size;
    return rows * most(projecting, hidden + wide / 2 + most(wide, hidden));
}

/* Those that go on, of rows [size] side by side, move to the front. */
static void keep_rows(const int64_t *wanted, long count, float *x, long size) {
    for (long i = 0; i < count; i++) memmove(x + i * size, x + wanted[i] * size, size * sizeof(float));
}

/* And who acts on them. */
static void keep_actors(const int64_t *wanted, long count, const acting *who, long actors, acting *left) {
    for (long i = 0, at = 0; i < actors; i++) {
        while (at < count && wanted[at] < who[i].start) at++;
        left[i] = (acting){who[i].added, at, at};
        while (at < count && wanted[at] < who[i].end) at++;
        left[i].end = at;
    }
}

/* x [tokens, hidden] goes through `count` layers, turned by cos and sin [tokens, size] of the positions [tokens]; of each
 * layer, what is seen and where keys and values go.  Adapters act on spans of tokens, in order.  From the last layer's
 * attention on, only `wanted` [asked] go on, in order, which are the first rows of x in the end.  `apart`: the bits of none
 * depend on the others, but for what it attends to.  Not 0 when there is no memory. */
int through_layers(
    const layer *layers, long count, const kept *places, const acting *who, long actors, const int64_t *positions,
    const float *cos, const float *sin, const int64_t *wanted, long asked, long tokens, long apart, float *x
) {
    long width = 0, heads = 0, needed = 0, hidden = layers->linears[JOINED].in;
    for (long i = 0; i < count; i++) {
        heads = most(heads, layers[i].manner.heads);
        width = most(width, layers[i].manner.heads * layers[i].manner.size);
        needed = most(needed, room_of(layers + i, tokens < CHUNK ? tokens : CHUNK));
    }
    float *q = malloc((2 * tokens * (width + heads) + needed) * sizeof(float)), *seen = q + tokens * width;
    if (!q) return 1;
    float *largest = seen + tokens * width, *totals = largest + tokens * heads, *room = totals + tokens * heads;
    acting left[actors + 1];
    for (long i = 0; i < count; i++) {
        const layer *l = layers + i;
        manner own = l->manner;
        own.positions = positions;  /* the layers are those of other threads, too */
        long by_head = own.heads * own.size, size = own.size;
        for (long start = 0; start < tokens; start += CHUNK) {
            some now = {start, start + CHUNK < tokens ? start + CHUNK : tokens, who, actors, i, apart};
            project(l, places + i, &now, x + start * hidden, cos + start * size, sin + start * size, q + start * by_head, room);
        }
        strides lie = {by_head, size};
        attend(&own, places[i].sources, places[i].count, tokens, q, &lie, seen, &lie, largest, totals);
        if (i == count - 1) {
            keep_rows(wanted, asked, x, hidden);
            keep_rows(wanted, asked, seen, by_head);
            keep_actors(wanted, asked, who, actors, left);
            who = left, tokens = asked;
        }
        for (long start = 0; start < tokens; start += CHUNK) {
            some now = {start, start + CHUNK < tokens ? start + CHUNK : tokens, who, actors, i, apart};
            go_on(l, &now, seen + start * by_head, x + start * hidden, room);
        }
    }
    free(q);
    return 0;
}
