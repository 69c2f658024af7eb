/* y = x W^T in float32, for weights W that are kept in 16 bits.
 *
 * A step that computes one token of each request reads every weight once, so it takes as long as memory takes to
 * deliver them. Weights of a checkpoint in bfloat16 or float16 are widened in registers here, exactly, and half as much
 * is read as from a float32 copy of them. Sums are formed in the same order however many tokens a step has.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* W comes in multiples of these. */
#define OUTPUTS 4
#define INPUTS 8

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define TOKENS 3
/* Tokens whose x stays in a core's cache while all of W goes by; a multiple of TOKENS. */
#define CHUNK 96

TARGET static inline __m256 widen_bfloat16(const uint16_t *from) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

TARGET static inline __m256 widen_float16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

TARGET static inline float total(__m256 lanes) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* OUTPUTS rows of W by up to TOKENS rows of x: enough sums under way to hide how long each takes, as many as there are
 * registers for, and each weight is widened once for all of them. */
#define DEFINE(name, widen)                                                                                        \
    TARGET static inline __attribute__((always_inline)) void name##_tile(const float *x, const uint16_t *w,         \
                                                                         float *y, int m, long n, long k) {        \
        __m256 sums[TOKENS][OUTPUTS];                                                                                 \
        for (int t = 0; t < m; t++)                                                                                \
            for (int r = 0; r < OUTPUTS; r++)                                                                         \
                sums[t][r] = _mm256_setzero_ps();                                                                  \
        for (long i = 0; i < k; i += INPUTS)                                                                            \
            for (int r = 0; r < OUTPUTS; r++) {                                                                       \
                __m256 wide = widen(w + r * k + i);                                                                \
                for (int t = 0; t < m; t++)                                                                        \
                    sums[t][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + t * k + i), wide, sums[t][r]);                 \
            }                                                                                                      \
        for (int t = 0; t < m; t++)                                                                                \
            for (int r = 0; r < OUTPUTS; r++)                                                                         \
                y[t * n + r] = total(sums[t][r]);                                                                  \
    }                                                                                                              \
    TARGET static void name(const float *x, const uint16_t *w, float *y, long m, long n, long k) {                 \
        for (long from = 0; from < m; from += CHUNK) {                                                             \
            long end = from + CHUNK < m ? from + CHUNK : m;                                                        \
            _Pragma("omp parallel for schedule(static)") for (long at = 0; at < n; at += OUTPUTS) {                   \
                long t = from;                                                                                     \
                for (; t + TOKENS <= end; t += TOKENS)                                                             \
                    name##_tile(x + t * k, w + at * k, y + t * n + at, TOKENS, n, k);                              \
                if (end - t == 2)                                                                                  \
                    name##_tile(x + t * k, w + at * k, y + t * n + at, 2, n, k);                                   \
                else if (end - t == 1)                                                                             \
                    name##_tile(x + t * k, w + at * k, y + t * n + at, 1, n, k);                                   \
            }                                                                                                      \
        }                                                                                                          \
    }

DEFINE(multiply_bfloat16, widen_bfloat16)
DEFINE(multiply_float16, widen_float16)

static int usable(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#else
static int usable(void) { return 0; }
static void multiply_bfloat16(const float *x, const uint16_t *w, float *y, long m, long n, long k) {}
static void multiply_float16(const float *x, const uint16_t *w, float *y, long m, long n, long k) {}
#endif

static PyObject *multiply(PyObject *self, PyObject *args) {
    unsigned long long x, w, y;
    long m, n, k;
    int brain;
    if (!PyArg_ParseTuple(args, "KKKlllp", &x, &w, &y, &m, &n, &k, &brain))
        return NULL;
    if (!usable() || m < 0 || n < 0 || k < 0 || n % OUTPUTS || k % INPUTS) {
        PyErr_SetString(PyExc_ValueError, "needs AVX2, FMA and F16C, and n and k in multiples of OUTPUTS and INPUTS");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    (brain ? multiply_bfloat16 : multiply_float16)((const float *)x, (const uint16_t *)w, (float *)y, m, n, k);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *is_usable(PyObject *self, PyObject *args) { return PyBool_FromLong(usable()); }

static PyMethodDef methods[] = {
    {"multiply", multiply, METH_VARARGS,
     "multiply(x, w, y, m, n, k, brain): y = x W^T at these addresses; x is m by k and y is m by n, in float32, W is n by "
     "k, in bfloat16 if brain, else in float16, all contiguous."},
    {"usable", is_usable, METH_NOARGS, "usable(): whether this processor has the instructions."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "narrow", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__narrow(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && (PyModule_AddIntMacro(made, OUTPUTS) || PyModule_AddIntMacro(made, INPUTS)))
        Py_CLEAR(made);
    return made;
}
