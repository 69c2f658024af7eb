/* Causal attention of a step's tokens over the paged KV cache, in float32.
 *
 * Scores are never stored: keys and values are gone through once, TILE positions at a time, and what is summed so far
 * is scaled down whenever a larger score is met. What is loaded serves all query heads of a KV head and many tokens.
 * Each CHUNK of positions is summed by itself, so that cores can share one long context, and the sums are merged.
 * Tiles and chunks begin at fixed positions, so a token's result depends neither on what else is in the batch nor on
 * how its prompt was cut into steps.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Positions; a KV block has a multiple of these. */
#define TILE 32
#define CHUNK 256
/* Head sizes are a multiple of these. */
#define SIZES 16

/* A KV block has, for each KV head, keys as [size][block] and then values as [block][size]. Strides are in floats. */
typedef struct {
    const float *query, *cache;
    float *output;
    const int32_t *starts, *lengths, *table;
    long sequences, heads, kv_heads, size, block, window;
    long query_stride, output_stride, block_stride, head_stride, table_stride;
    float scale;
} Call;

/* One chunk of positions for some successive tokens of a sequence and the query heads of a KV head. A row is a token's
 * query head; sums have, for each row, the weighted values, the weights in LANES parts, and the largest score. */
typedef struct {
    const int32_t *blocks;
    float *sums;
    long kv_head;
    /* The first token in the batch, its position in its sequence, and how many they are. */
    long token, position, tokens;
    /* All of these tokens' are merged by the first of them, for which chunks is how many; 0 for others. */
    long chunk, chunks;
} Unit;

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define LANES 8
/* Rows that share each load, as many as there are registers for. */
#define ROWS 3
/* Rows of a unit whose sums stay in a core's cache while keys and values go by. */
#define UNIT_ROWS 96
/* Bytes of sums that wait to be merged, unless one token's need more. */
#define PENDING (4 << 20)
#define NO_SCORE (-1e30f)

static inline long min(long a, long b) { return a < b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }

/* 2^x for x <= 0, to a relative error of 2e-7; 0 below -127. */
INLINE __m256 power(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-127), x);
    __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), part = _mm256_sub_ps(x, whole);
    __m256 sum = _mm256_set1_ps(1.5403530e-4f);
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(1.3333558e-3f));
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(9.6181291e-3f));
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(5.5504109e-2f));
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(2.4022651e-1f));
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(6.9314718e-1f));
    sum = _mm256_fmadd_ps(sum, part, _mm256_set1_ps(1));
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

INLINE float largest(__m256 lanes) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/* c += a b, for m rows of a and c, and a b of n rows, stride apart, of v vectors. */
INLINE void add_tile(int m, int v, float *const *c, const float *const *a, const float *b, long stride, long n) {
    __m256 sums[ROWS][TILE / LANES];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++)
            sums[i][j] = _mm256_loadu_ps(c[i] + j * LANES);
    for (long k = 0; k < n; k++)
        for (int j = 0; j < v; j++) {
            __m256 row = _mm256_loadu_ps(b + k * stride + j * LANES);
            for (int i = 0; i < m; i++)
                sums[i][j] = _mm256_fmadd_ps(_mm256_broadcast_ss(a[i] + k), row, sums[i][j]);
        }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++)
            _mm256_storeu_ps(c[i] + j * LANES, sums[i][j]);
}

/* The same for b of any multiple of SIZES columns. */
INLINE void add_product(int m, float *const *c, const float *const *a, const float *b, long stride, long n,
                        long columns) {
    float *to[ROWS];
    for (long at = 0; at < columns; at += TILE) {
        for (int i = 0; i < m; i++)
            to[i] = c[i] + at;
        if (columns - at >= TILE)
            add_tile(m, TILE / LANES, to, a, b + at, stride, n);
        else
            add_tile(m, SIZES / LANES, to, a, b + at, stride, n);
    }
}

/* Make the scores of a tile weights, 0 for those outside [low, high], and scale a row's sums to its largest score. */
INLINE void weigh(float *scores, float scale, long low, long high, float *sums, long size) {
    __m256 s[TILE / LANES];
    float *weights = sums + size, *top = weights + LANES;
    const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int j = 0; j < TILE / LANES; j++)
        s[j] = _mm256_mul_ps(_mm256_loadu_ps(scores + j * LANES), _mm256_set1_ps(scale));
    if (low > 0 || high < TILE - 1)
        for (int j = 0; j < TILE / LANES; j++) {
            __m256i at = _mm256_add_epi32(order, _mm256_set1_epi32(j * LANES));
            __m256i out = _mm256_or_si256(_mm256_cmpgt_epi32(at, _mm256_set1_epi32((int)min(high, TILE))),
                                          _mm256_cmpgt_epi32(_mm256_set1_epi32((int)max(low, 0)), at));
            s[j] = _mm256_blendv_ps(s[j], _mm256_set1_ps(-INFINITY), _mm256_castsi256_ps(out));
        }
    float best = largest(_mm256_max_ps(_mm256_max_ps(s[0], s[1]), _mm256_max_ps(s[2], s[3])));
    if (best > *top) {
        __m256 less = power(_mm256_set1_ps(*top - best));
        for (long d = 0; d < size + LANES; d += LANES)
            _mm256_storeu_ps(sums + d, _mm256_mul_ps(_mm256_loadu_ps(sums + d), less));
        *top = best;
    }
    for (int j = 0; j < TILE / LANES; j++) {
        s[j] = power(_mm256_sub_ps(s[j], _mm256_set1_ps(*top)));
        _mm256_storeu_ps(scores + j * LANES, s[j]);
    }
    __m256 sum = _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3]));
    _mm256_storeu_ps(weights, _mm256_add_ps(_mm256_loadu_ps(weights), sum));
}

/* m rows of a unit, from one on, over the tile that begins at a position. */
INLINE void attend_rows(const Call *c, const Unit *u, int m, long row, long from, const float *keys,
                        const float *values) {
    long group = c->heads / c->kv_heads, width = c->size + 2 * LANES;
    float scores[ROWS][TILE], *to[ROWS], *sums[ROWS];
    const float *query[ROWS], *weights[ROWS];
    memset(scores, 0, sizeof scores);
    for (int i = 0; i < m; i++) {
        long token = u->token + (row + i) / group, head = u->kv_head * group + (row + i) % group;
        query[i] = c->query + token * c->query_stride + head * c->size;
        weights[i] = to[i] = scores[i];
        sums[i] = u->sums + (row + i) * width;
    }
    add_product(m, to, query, keys, c->block, c->size, TILE);
    long high = 0;
    for (int i = 0; i < m; i++) {
        high = u->position + (row + i) / group - from;
        weigh(to[i], c->scale, high - c->window + 1, high, sums[i], c->size);
    }
    /* Not further than what the last row sees: what lies there may be anything, and not even 0 times it need be 0. */
    add_product(m, sums, weights, values, c->size, min(high + 1, TILE), c->size);
}

TARGET static void attend(const Call *c, const Unit *u) {
    long group = c->heads / c->kv_heads, rows = u->tokens * group, width = c->size + 2 * LANES;
    memset(u->sums, 0, rows * width * sizeof(float));
    for (long row = 0; row < rows; row++)
        u->sums[row * width + c->size + LANES] = NO_SCORE;
    long end = min((u->chunk + 1) * CHUNK, u->position + u->tokens);
    for (long from = u->chunk * CHUNK; from < end; from += TILE) {
        const float *keys = c->cache + u->blocks[from / c->block] * c->block_stride + u->kv_head * c->head_stride;
        const float *values = keys + c->block * c->size + from % c->block * c->size;
        keys += from % c->block;
        /* Tokens before have not come to this tile, and those after have left it behind. */
        long row = max(0, from - u->position) * group;
        long last = min(u->tokens, from + TILE - 1 + c->window - u->position) * group;
        while (row < last) {
            /* Four go as two and two, for one alone would wait for its own sums. Calls apart, one for each number: with
             * rows counted after them all, GCC 12 keeps sums in memory, and takes 1.7 times as long. */
            long left = last - row;
            if (left == 3 || left > 4) {
                attend_rows(c, u, 3, row, from, keys, values);
                row += 3;
            } else if (left > 1) {
                attend_rows(c, u, 2, row, from, keys, values);
                row += 2;
            } else
                attend_rows(c, u, 1, row++, from, keys, values);
        }
    }
}

/* Write the output of a unit's rows from their sums over all chunks. */
TARGET static void merge(const Call *c, const Unit *u) {
    long group = c->heads / c->kv_heads, rows = u->tokens * group, width = c->size + 2 * LANES;
    for (long row = 0; row < rows; row++) {
        long token = u->token + row / group, head = u->kv_head * group + row % group;
        float *first = u->sums + row * width, top = NO_SCORE, weight = 0;
        float *to = c->output + token * c->output_stride + head * c->size;
        for (long i = 0; i < u->chunks; i++)
            top = fmaxf(top, first[i * rows * width + c->size + LANES]);
        for (long i = 0; i < u->chunks; i++) {
            float *sums = first + i * rows * width;
            __m256 less = power(_mm256_set1_ps(sums[c->size + LANES] - top));
            for (long d = 0; d < c->size + LANES; d += LANES) {
                __m256 more = _mm256_mul_ps(_mm256_loadu_ps(sums + d), less);
                _mm256_storeu_ps(first + d, i ? _mm256_add_ps(_mm256_loadu_ps(first + d), more) : more);
            }
        }
        for (int i = 0; i < LANES; i++)
            weight += first[c->size + i];
        for (long d = 0; d < c->size; d += LANES)
            _mm256_storeu_ps(to + d, _mm256_div_ps(_mm256_loadu_ps(first + d), _mm256_set1_ps(weight)));
    }
}

static void compute(const Call *c, const Unit *units, long count) {
#pragma omp parallel for schedule(dynamic)
    for (long i = 0; i < count; i++)
        attend(c, units + i);
#pragma omp parallel for schedule(dynamic)
    for (long i = 0; i < count; i++)
        if (units[i].chunks)
            merge(c, units + i);
}

static int attention(const Call *c) {
    long group = c->heads / c->kv_heads, width = c->size + 2 * LANES, longest = 0, count = 0, used = 0;
    long at_once = max(1, UNIT_ROWS / group);
    for (long s = 0; s < c->sequences; s++)
        longest = max(longest, c->lengths[s]);
    long space = max(PENDING / sizeof(float), (longest / CHUNK + 1) * at_once * group * width);
    float *sums = malloc(space * sizeof(float));
    Unit *units = malloc(space / (group * width) * sizeof(Unit));
    if (sums && units) {
        for (long s = 0; s < c->sequences; s++)
            for (long token = c->starts[s]; token < c->starts[s + 1]; token += at_once)
                for (long head = 0; head < c->kv_heads; head++) {
                    long tokens = min(at_once, c->starts[s + 1] - token);
                    long position = c->lengths[s] - (c->starts[s + 1] - token);
                    long first = max(0, position - c->window + 1) / CHUNK, end = (position + tokens - 1) / CHUNK + 1;
                    if (used + (end - first) * tokens * group * width > space) {
                        compute(c, units, count);
                        count = used = 0;
                    }
                    for (long chunk = first; chunk < end; chunk++) {
                        units[count++] = (Unit){c->table + s * c->table_stride, sums + used, head, token, position,
                                                tokens, chunk, chunk == first ? end - first : 0};
                        used += tokens * group * width;
                    }
                }
        compute(c, units, count);
    }
    int done = sums && units;
    free(sums);
    free(units);
    return done;
}

static int usable(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
static int usable(void) { return 0; }
static int attention(const Call *c) { return 0; }
#endif

static PyObject *attend_call(PyObject *self, PyObject *args) {
    unsigned long long query, cache, output, starts, lengths, table;
    Call c;
    if (!PyArg_ParseTuple(args, "(KKKKKK)(llllll)(lllll)f", &query, &cache, &output, &starts, &lengths, &table,
                          &c.sequences, &c.heads, &c.kv_heads, &c.size, &c.block, &c.window, &c.query_stride,
                          &c.output_stride, &c.block_stride, &c.head_stride, &c.table_stride, &c.scale))
        return NULL;
    if (!usable() || c.kv_heads < 1 || c.heads < 1 || c.heads % c.kv_heads || c.size < 1 || c.size % SIZES ||
        c.block < 1 || c.block % TILE || c.window < 1) {
        PyErr_SetString(PyExc_ValueError,
                        "needs AVX2 and FMA, heads in multiples of KV heads, size of SIZES, block of TILE, a window");
        return NULL;
    }
    c.query = (const float *)query, c.cache = (const float *)cache, c.output = (float *)output;
    c.starts = (const int32_t *)starts, c.lengths = (const int32_t *)lengths, c.table = (const int32_t *)table;
    c.scale *= 1.44269504f; /* weights are powers of 2 */
    int done;
    Py_BEGIN_ALLOW_THREADS;
    done = attention(&c);
    Py_END_ALLOW_THREADS;
    if (!done)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *is_usable(PyObject *self, PyObject *args) { return PyBool_FromLong(usable()); }

static PyMethodDef methods[] = {
    {"attend", attend_call, METH_VARARGS, "attend(addresses, sizes, strides, scale): see attention.py."},
    {"usable", is_usable, METH_NOARGS, "usable(): whether this processor has the instructions."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "attention", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__attention(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && (PyModule_AddIntMacro(made, SIZES) || PyModule_AddIntMacro(made, TILE)))
        Py_CLEAR(made);
    return made;
}
