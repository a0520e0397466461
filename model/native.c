/* The training step of model/step.py on one CPU core: the recurrence of model/rnn.py,
 *
 *     H_t = tanh(X_t W_xh + H_{t-1} W_hh + b_h),   logits_t = H_t W_hq + b_q,
 *
 * the mean cross-entropy of its logits, and the gradients by back-propagation through time.
 *
 * All matrices that take part in a product are kept in panels, each of PANEL columns (two
 * vectors) of every row, so that one loop, `tile`, reads any of them in order: a panel of weights
 * in the recurrence, the states and their gradients, as they are, in the weights' gradients.
 * Columns that only fill up the last panel never reach a result. No function allocates memory.
 *
 * B, T, H, V: batch rows, steps, hidden units, symbols. Tokens are time-major: n = t * B + row.
 * params and grads: W_xh, W_hh, b_h, W_hq, b_q, in the shapes of model/rnn.py.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 8 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { LANES = 8, TILE = 4 };
#elif defined(__ARM_NEON)
enum { LANES = 4, TILE = 4 };
#else
#error "no AVX2, AVX-512 or NEON"
#endif
enum {
    PANEL = 2 * LANES,
    BLOCK = 4096 / PANEL, /* rows of a panel that stay in the first-level cache: 16 KiB */
};
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

/* Columns in panels; panel p begins at `at + p * stride` and holds its rows one after another. */
typedef struct {
    float *at;
    long stride;
} Matrix;

typedef struct {
    long B, T, H, V;
    Matrix W_xh, W_hh, W_hh_T, W_hq, W_hq_T; /* the weights; every row of W_xh has b_h in it */
    Matrix b_q;                              /* one row */
    Matrix h;    /* the states, (T + 1) * B rows, the first B being the state before the batch */
    Matrix d;    /* the loss's gradient by pre-activation, T * B rows */
    Matrix q;    /* the logits, then the loss's gradient by them, T * B rows */
    Matrix sums; /* one panel of a gradient */
} Work;

static long num_panels(long columns) { return (columns + PANEL - 1) / PANEL; }

static float *panel(Matrix m, long p) { return m.at + p * m.stride; }

static Matrix from_row(Matrix m, long row) { return (Matrix){m.at + row * PANEL, m.stride}; }

/* ---- products ---- */

/* C += A B: a register tile of `rows` x PANEL, a rank-1 update for each k.
 * A's element (r, k) is at a[r * row_stride + k * k_stride], and PANEL of k further on at
 * a[a_stride]. `rows` and the first two strides are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void tile(const int rows, float *C, const float *a,
                                                       const long row_stride, const long k_stride,
                                                       long a_stride, const float *b, long num_k)
{
    vec sum[TILE][2], *c = (vec *)C;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r][0] = c[2 * r], sum[r][1] = c[2 * r + 1];
    for (; num_k > 0; num_k -= PANEL, a += a_stride) {
        const float *a_k = a;
        for (long k = num_k < PANEL ? num_k : PANEL; k > 0; k--) {
            vec b0 = ((const vec *)b)[0], b1 = ((const vec *)b)[1];
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                sum[r][0] += a_k[r * row_stride] * b0;
                sum[r][1] += a_k[r * row_stride] * b1;
            }
            a_k += k_stride, b += PANEL;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) c[2 * r] = sum[r][0], c[2 * r + 1] = sum[r][1];
}

/* C[r] += sum over k of A[r][k] * b[k], for `rows` rows of one panel. */
static void multiply(float *C, Matrix A, const float *b, long rows, long num_k)
{
    for (long k = 0; k < num_k; k += BLOCK) {
        long block = num_k - k < BLOCK ? num_k - k : BLOCK, r = 0;
        const float *a = panel(A, k / PANEL);
        for (; r + TILE <= rows; r += TILE)
            tile(TILE, C + r * PANEL, a + r * PANEL, PANEL, 1, A.stride, b + k * PANEL, block);
        for (; r < rows; r++)
            tile(1, C + r * PANEL, a + r * PANEL, PANEL, 1, A.stride, b + k * PANEL, block);
    }
}

/* C[i] += sum over n of A[n][i] * b[n], for the PANEL columns i of one panel of A. */
static void multiply_transposed(float *C, const float *a, const float *b, long num_n)
{
    for (long n = 0; n < num_n; n += BLOCK) {
        long block = num_n - n < BLOCK ? num_n - n : BLOCK;
        for (long i = 0; i < PANEL; i += TILE)
            tile(TILE, C + i * PANEL, a + n * PANEL + i, 1, PANEL, PANEL * PANEL, b + n * PANEL,
                 block);
    }
}

/* ---- into panels and out of them ---- */

static long columns_of(long p, long columns)
{
    return columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
}

static void pack(Matrix out, const float *W, long rows, long columns)
{
    for (long p = 0; p < num_panels(columns); p++)
        for (long r = 0; r < rows; r++) {
            float *to = panel(out, p) + r * PANEL;
            memset(to, 0, PANEL * sizeof *to);
            memcpy(to, W + r * columns + p * PANEL, columns_of(p, columns) * sizeof *to);
        }
}

/* The panels of W transposed: out has `columns` rows. */
static void pack_transposed(Matrix out, const float *W, long rows, long columns)
{
    for (long p = 0; p < num_panels(rows); p++) {
        float *to = panel(out, p);
        memset(to, 0, columns * PANEL * sizeof *to);
        for (long r = 0; r < columns_of(p, rows); r++)
            for (long k = 0; k < columns; k++)
                to[k * PANEL + r] = W[(p * PANEL + r) * columns + k];
    }
}

static void unpack_panel(float *W, const float *from, long p, long rows, long columns)
{
    for (long r = 0; r < rows; r++)
        memcpy(W + r * columns + p * PANEL, from + r * PANEL, columns_of(p, columns) * sizeof *W);
}

static void unpack(float *W, Matrix m, long rows, long columns)
{
    for (long p = 0; p < num_panels(columns); p++) unpack_panel(W, panel(m, p), p, rows, columns);
}

/* ---- functions of a vector ---- */

static inline vec choose(ivec where, vec a, vec b)
{
    return (vec)((where & (ivec)a) | (~where & (ivec)b));
}

static float sum_of(vec v)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* A rational minimax fit up to 9, where tanh is 1 in float32: within 4e-7 of it. NaN stays. */
static inline vec tanh_vec(vec x)
{
    const vec limit = (vec){0} + 9.0f;
    x = choose(x > limit, limit, choose(x < -limit, -limit, x));
    vec u = x * x;
    vec p = 1.33195143e-8f * u + 2.05838804e-5f;
    p = (p * u + 3.49406249e-3f) * u + 0.133797427f;
    vec q = 7.76222376e-7f * u + 3.28313589e-4f;
    q = (q * u + 2.58711834e-2f) * u + 0.46713058f;
    return x * (p * u + 0.999999979f) / (q * u + 1.0f);
}

/* exp of x <= 0 as 2^n exp(r), |r| <= ln(2) / 2, by its series; exactly 0 below -87. NaN stays. */
static inline vec exp_vec(vec x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves n in the lowest bits */
    vec shifted = x * 1.44269504f + round, n = shifted - round;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln(2) in two parts */
    vec p = 1.0f / 5040 * r + 1.0f / 720;
    p = (p * r + 1.0f / 120) * r + 1.0f / 24;
    p = (p * r + 1.0f / 6) * r + 0.5f;
    p = (p * r + 1.0f) * r + 1.0f;
    vec power = (vec)(((uvec)shifted << 23) + (127 << 23));
    return choose(x < -87.0f, (vec){0}, p * power);
}

/* ---- forward ---- */

/* H_t = tanh(X_t W_xh + H_{t-1} W_hh + b_h); a row of W_xh is a one-hot vector times it. */
static void unroll(const Work *w, const int64_t *x)
{
    for (long t = 0; t < w->T; t++)
        for (long p = 0; p < num_panels(w->H); p++) {
            float *H_t = panel(from_row(w->h, (t + 1) * w->B), p);
            for (long r = 0; r < w->B; r++)
                memcpy(H_t + r * PANEL, panel(w->W_xh, p) + x[t * w->B + r] * PANEL,
                       PANEL * sizeof *H_t);
            multiply(H_t, from_row(w->h, t * w->B), panel(w->W_hh, p), w->B, w->H);
            for (vec *h = (vec *)H_t; h < (vec *)(H_t + w->B * PANEL); h++) *h = tanh_vec(*h);
        }
}

/* logits_t = H_t W_hq + b_q, for all steps at once. */
static void read_out(const Work *w)
{
    for (long p = 0; p < num_panels(w->V); p++) {
        float *logits = panel(w->q, p);
        for (long n = 0; n < w->T * w->B; n++)
            memcpy(logits + n * PANEL, panel(w->b_q, p), PANEL * sizeof *logits);
        multiply(logits, from_row(w->h, w->B), panel(w->W_hq, p), w->T * w->B, w->H);
    }
}

static vec *vector(Matrix row, long i) { return (vec *)panel(row, i / 2) + i % 2; }

/* Turn the logits of token n into d loss / d logits; return the token's loss. */
static double cross_entropy(const Work *w, long n, long y)
{
    const Matrix row = from_row(w->q, n);
    const long num_vectors = 2 * num_panels(w->V);
    const float logit_y = panel(row, y / PANEL)[y % PANEL], scale = 1.0f / (w->T * w->B);

    vec most = *vector(row, 0), total = {0};
    for (long i = 1; i < num_vectors; i++)
        most = choose(*vector(row, i) > most, *vector(row, i), most);
    float largest = most[0];
    for (int i = 1; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
    for (long i = 0; i < num_vectors; i++) {
        vec *v = vector(row, i);
        *v = exp_vec(*v - largest);
        total += *v;
    }
    const float sum = sum_of(total);
    for (long i = 0; i < num_vectors; i++) *vector(row, i) *= scale / sum;
    panel(row, y / PANEL)[y % PANEL] -= scale;
    return largest + log(sum) - logit_y;
}

/* ---- backward ---- */

/* The gradients by pre-activation, from the last step to the first. */
static void unroll_back(const Work *w)
{
    for (long t = w->T - 1; t >= 0; t--)
        for (long p = 0; p < num_panels(w->H); p++) {
            float *D_t = panel(from_row(w->d, t * w->B), p);
            const vec *h = (vec *)panel(from_row(w->h, (t + 1) * w->B), p);
            memset(D_t, 0, w->B * PANEL * sizeof *D_t);
            multiply(D_t, from_row(w->q, t * w->B), panel(w->W_hq_T, p), w->B, w->V);
            if (t < w->T - 1)
                multiply(D_t, from_row(w->d, (t + 1) * w->B), panel(w->W_hh_T, p), w->B, w->H);
            for (vec *d = (vec *)D_t; d < (vec *)(D_t + w->B * PANEL); d++, h++)
                *d *= 1.0f - *h * *h;
        }
}

/* dW = A^T D, of (H, columns), and db, the sum of D's rows. */
static void weight_gradient(const Work *w, float *dW, float *db, Matrix A, Matrix D, long columns)
{
    const long num_tokens = w->T * w->B;
    for (long p = 0; p < num_panels(columns); p++) {
        float *sums = w->sums.at;
        memset(sums, 0, num_panels(w->H) * PANEL * PANEL * sizeof *sums);
        for (long i = 0; i < num_panels(w->H); i++)
            multiply_transposed(sums + i * PANEL * PANEL, panel(A, i), panel(D, p), num_tokens);
        unpack_panel(dW, sums, p, w->H, columns);

        vec *d = (vec *)panel(D, p), total[2] = {{0}};
        for (long n = 0; n < num_tokens; n++) total[0] += d[2 * n], total[1] += d[2 * n + 1];
        memcpy(db + p * PANEL, total, columns_of(p, columns) * sizeof *db);
    }
}

/* dW_xh: each token's gradient is added to its symbol's row. */
static void input_gradient(const Work *w, float *dW, const int64_t *x)
{
    for (long p = 0; p < num_panels(w->H); p++) {
        vec *d = (vec *)panel(w->d, p), *sums = (vec *)w->sums.at;
        memset(sums, 0, w->V * PANEL * sizeof(float));
        for (long n = 0; n < w->T * w->B; n++) {
            sums[2 * x[n]] += d[2 * n];
            sums[2 * x[n] + 1] += d[2 * n + 1];
        }
        unpack_panel(dW, w->sums.at, p, w->V, w->H);
    }
}

/* ---- a single row: to put the weights into panels would cost more than it saves ---- */

/* out += a W */
static void add_row(float *restrict out, const float *a, const float *W, long rows, long columns)
{
    for (long k = 0; k < rows; k++)
        for (long c = 0; c < columns; c++) out[c] += a[k] * W[k * columns + c];
}

static void forward_row(const Work *w, float *const params[5], const int64_t *x,
                        const float *state, float *logits, float *last)
{
    float *before = w->h.at, *h = w->d.at;
    memcpy(before, state, w->H * sizeof *h);
    for (long t = 0; t < w->T; t++) {
        for (long c = 0; c < w->H; c++) h[c] = params[0][x[t] * w->H + c] + params[2][c];
        add_row(h, before, params[1], w->H, w->H);
        for (long c = 0; c < w->H; c += LANES) *(vec *)(h + c) = tanh_vec(*(vec *)(h + c));
        memcpy(logits + t * w->V, params[4], w->V * sizeof *logits);
        add_row(logits + t * w->V, h, params[3], w->H, w->V);
        float *swap = before;
        before = h, h = swap;
    }
    memcpy(last, before, w->H * sizeof *last);
}

/* ---- what Python calls ---- */

/* Divide the memory at `at` between the matrices; return how many floats they take. */
static long lay_out(Work *w, float *at)
{
    const long H = w->H, V = w->V, N = w->T * w->B;
    const struct {
        Matrix *matrix;
        long rows, columns;
    } parts[] = {
        {&w->W_xh, V, H},     {&w->W_hh, H, H},
        {&w->W_hh_T, H, H},   {&w->W_hq, H, V},
        {&w->W_hq_T, V, H},   {&w->b_q, 1, V},
        {&w->h, N + w->B, H}, {&w->d, N, H},
        {&w->q, N, V},        {&w->sums, num_panels(H) * PANEL + V, 1},
    };
    long used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        /* one row more than needed: panels a power of 2 apart would share few cache sets */
        long stride = (parts[i].rows + 1) * PANEL;
        if (at) *parts[i].matrix = (Matrix){at + used, stride};
        used += num_panels(parts[i].columns) * stride;
    }
    return used;
}

static int all_known(const int64_t *symbols, long num, long V)
{
    for (long n = 0; n < num; n++)
        if (symbols[n] < 0 || symbols[n] >= V) return 0;
    return 1;
}

static void pack_forward(const Work *w, float *const params[5], const float *state)
{
    pack(w->W_xh, params[0], w->V, w->H);
    for (long p = 0; p < num_panels(w->H); p++)
        for (long v = 0; v < w->V; v++)
            for (long c = 0; c < columns_of(p, w->H); c++)
                panel(w->W_xh, p)[v * PANEL + c] += params[2][p * PANEL + c];
    pack(w->W_hh, params[1], w->H, w->H);
    pack(w->W_hq, params[3], w->H, w->V);
    for (long c = 0; c < num_panels(w->V) * PANEL; c++) /* no symbol: of no probability */
        panel(w->b_q, c / PANEL)[c % PANEL] = c < w->V ? params[4][c] : -1e30f;
    pack(w->h, state, w->B, w->H);
}

/* How many floats `at` must have room for, in what follows; aligned to 64 bytes. */
long workspace(const long sizes[4])
{
    Work w = {.B = sizes[0], .T = sizes[1], .H = sizes[2], .V = sizes[3]};
    return lay_out(&w, NULL);
}

/* x: (T, B). state, last: (B, H). logits: (T * B, V). Return 0 for an unknown symbol, else 1. */
int forward(const long sizes[4], float *at, float *const params[5], const int64_t *x,
            const float *state, float *logits, float *last)
{
    Work w = {.B = sizes[0], .T = sizes[1], .H = sizes[2], .V = sizes[3]};
    if (!all_known(x, w.T * w.B, w.V)) return 0;
    lay_out(&w, at);
    if (w.B == 1) {
        forward_row(&w, params, x, state, logits, last);
        return 1;
    }
    pack_forward(&w, params, state);
    unroll(&w, x);
    read_out(&w);
    unpack(logits, w.q, w.T * w.B, w.V);
    unpack(last, from_row(w.h, w.T * w.B), w.B, w.H);
    return 1;
}

/* x, y: (T, B). loss: the mean of the tokens'. Return 0 for an unknown symbol, else 1. */
int iterate(const long sizes[4], float *at, float *const params[5], float *const grads[5],
            const int64_t *x, const int64_t *y, const float *state, float *loss, float *last)
{
    Work w = {.B = sizes[0], .T = sizes[1], .H = sizes[2], .V = sizes[3]};
    const long num_tokens = w.T * w.B;
    if (!all_known(x, num_tokens, w.V) || !all_known(y, num_tokens, w.V)) return 0;
    lay_out(&w, at);
    pack_forward(&w, params, state);
    pack_transposed(w.W_hh_T, params[1], w.H, w.H);
    pack_transposed(w.W_hq_T, params[3], w.H, w.V);

    unroll(&w, x);
    read_out(&w);
    double total = 0;
    for (long n = 0; n < num_tokens; n++) total += cross_entropy(&w, n, y[n]);
    *loss = total / num_tokens;
    unpack(last, from_row(w.h, num_tokens), w.B, w.H);

    unroll_back(&w);
    weight_gradient(&w, grads[3], grads[4], from_row(w.h, w.B), w.q, w.V);
    weight_gradient(&w, grads[1], grads[2], w.h, w.d, w.H);
    input_gradient(&w, grads[0], x);
    return 1;
}

/* params -= lr * grads * min(1, theta / norm); norm: of all gradients as one vector. */
void update(const long nums[5], float *const params[5], float *const grads[5], float theta,
            float lr, float *norm)
{
    double squares = 0;
    for (int i = 0; i < 5; i++) {
        vec total = {0};
        for (long k = 0; k < nums[i]; k += LANES) {
            vec g = {0};
            memcpy(&g, grads[i] + k, (nums[i] - k < LANES ? nums[i] - k : LANES) * sizeof(float));
            total += g * g;
        }
        squares += sum_of(total);
    }
    *norm = sqrt(squares);
    const float factor = theta / *norm, rate = factor > 1 ? lr : lr * factor;
    for (int i = 0; i < 5; i++)
        for (long k = 0; k < nums[i]; k++) params[i][k] -= rate * grads[i][k];
}
