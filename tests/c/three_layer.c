/* The three-layer network by hand, in C: forward and backward pass of
 *
 *     x 8x8 -> z1 = conv 3x3 -> a1 = ReLU -> a2 = max pooling 2x2 -> z3 = dense 9 -> 1 -> a3 = sigmoid -> loss
 *
 * Usage: three_layer FOLDER...     Each folder is a fixture that manual-bp export wrote; given/NAME.bin is read,
 * candidate/NAME.bin written. fixture.h, from any of the folders, has the sizes and the functions that do it.
 *
 * Built with -DMISTAKE=1 the kernel is not rotated in dx; with -DMISTAKE=2 the mask of the ReLU is forgotten.
 */
#include <string.h>
#include <tgmath.h>

#include "fixture.h"

#ifndef MISTAKE
#define MISTAKE 0
#endif

typedef mbp_real real;

/* One example, and what the backward pass needs of its forward pass. */
typedef struct {
    real x[8][8];
    real z1[6][6], a1[6][6], a2[3][3], z3, a3;
    int row[3][3], column[3][3]; /* the winner of each window */
} Example;

typedef struct {
    real a3, z3, a2[3][3], a1[6][6], z1[6][6], x[8][8];
} Gradients;

typedef struct {
    real w1[3][3], b1, w3[3][3], b3;
} Weights;

static void forward(const Weights *w, Example *e)
{
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            real sum = w->b1;
            for (int p = 0; p < 3; p++)
                for (int r = 0; r < 3; r++)
                    sum += w->w1[p][r] * e->x[i + p][j + r];
            e->z1[i][j] = sum;
            e->a1[i][j] = sum > 0 ? sum : 0;
        }
    for (int p = 0; p < 3; p++)
        for (int r = 0; r < 3; r++) {
            int row = 2 * p, column = 2 * r;
            for (int i = 2 * p; i < 2 * p + 2; i++)
                for (int j = 2 * r; j < 2 * r + 2; j++)
                    if (e->a1[i][j] > e->a1[row][column]) { /* of equal ones the first wins */
                        row = i;
                        column = j;
                    }
            e->row[p][r] = row;
            e->column[p][r] = column;
            e->a2[p][r] = e->a1[row][column];
        }
    e->z3 = w->b3;
    for (int p = 0; p < 3; p++)
        for (int r = 0; r < 3; r++)
            e->z3 += w->w3[p][r] * e->a2[p][r];
    e->a3 = 1 / (1 + exp(-e->z3));
}

/* -[y log a3 + (1 - y) log(1 - a3)], the logarithms no smaller than -100, as PyTorch has it */
static real cross_entropy(real a3, real y)
{
    return -(y * fmax(log(a3), -100) + (1 - y) * fmax(log1p(-a3), -100));
}

static void backward(const Weights *w, const Example *e, real y, size_t batch, Gradients *g, Weights *gw)
{
    memset(g, 0, sizeof *g);
    g->a3 = (e->a3 - y) / fmax(e->a3 * (1 - e->a3), 1e-12) / (real)batch; /* the loss is the mean over the batch */
    g->z3 = g->a3 * e->a3 * (1 - e->a3);
    gw->b3 += g->z3;
    for (int p = 0; p < 3; p++)
        for (int r = 0; r < 3; r++) {
            gw->w3[p][r] += g->z3 * e->a2[p][r];
            g->a2[p][r] = g->z3 * w->w3[p][r];
            g->a1[e->row[p][r]][e->column[p][r]] = g->a2[p][r]; /* all to the winner, nothing to the other three */
        }
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            g->z1[i][j] = MISTAKE == 2 || e->z1[i][j] > 0 ? g->a1[i][j] : 0;
            gw->b1 += g->z1[i][j];
            for (int p = 0; p < 3; p++)
                for (int r = 0; r < 3; r++) {
                    gw->w1[p][r] += g->z1[i][j] * e->x[i + p][j + r];
                    g->x[i + p][j + r] += g->z1[i][j] * (MISTAKE == 1 ? w->w1[2 - p][2 - r] : w->w1[p][r]);
                }
        }
}

/* One field of every example, one after the other, as candidate/NAME.bin. */
static void report(const char *folder, const char *name, const void *first, size_t stride, size_t each, size_t batch)
{
    real *all = malloc(each * batch * sizeof *all);
    for (size_t n = 0; n < batch; n++)
        memcpy(all + n * each, (const char *)first + n * stride, each * sizeof *all);
    mbp_report(folder, name, all, each * batch);
    free(all);
}

static void copy(const char *folder, const char *name, real *to, size_t wanted)
{
    size_t count;
    real *data = mbp_given(folder, name, &count);
    if (count != wanted) {
        fprintf(stderr, "%s: %s has %zu elements, not %zu\n", folder, name, count, wanted);
        exit(2);
    }
    memcpy(to, data, count * sizeof *to);
    free(data);
}

static void run(const char *folder)
{
    Weights w, gw = {0};
    copy(folder, "z1.weight", &w.w1[0][0], 9);
    copy(folder, "z1.bias", &w.b1, 1);
    copy(folder, "z3.weight", &w.w3[0][0], 9);
    copy(folder, "z3.bias", &w.b3, 1);

    size_t pixels, batch;
    real *x = mbp_given(folder, "x", &pixels), *y = mbp_given(folder, "y", &batch);
    Example *e = calloc(batch, sizeof *e);
    Gradients *g = calloc(batch, sizeof *g);

    real loss = 0;
    for (size_t n = 0; n < batch; n++) {
        memcpy(e[n].x, x + 64 * n, sizeof e[n].x);
        forward(&w, &e[n]);
        loss += cross_entropy(e[n].a3, y[n]);
        backward(&w, &e[n], y[n], batch, &g[n], &gw);
    }
    loss /= (real)batch;

    report(folder, "z1", e->z1, sizeof *e, 36, batch);
    report(folder, "a1", e->a1, sizeof *e, 36, batch);
    report(folder, "a2", e->a2, sizeof *e, 9, batch);
    report(folder, "flat", e->a2, sizeof *e, 9, batch); /* the same nine numbers in reading order */
    report(folder, "z3", &e->z3, sizeof *e, 1, batch);
    report(folder, "a3", &e->a3, sizeof *e, 1, batch);
    mbp_report(folder, "loss", &loss, 1);

    report(folder, "a3.grad", &g->a3, sizeof *g, 1, batch);
    report(folder, "z3.grad", &g->z3, sizeof *g, 1, batch);
    report(folder, "flat.grad", g->a2, sizeof *g, 9, batch);
    report(folder, "a2.grad", g->a2, sizeof *g, 9, batch);
    report(folder, "a1.grad", g->a1, sizeof *g, 36, batch);
    report(folder, "z1.grad", g->z1, sizeof *g, 36, batch);
    report(folder, "x.grad", g->x, sizeof *g, 64, batch);
    mbp_report(folder, "z3.weight.grad", &gw.w3[0][0], 9);
    mbp_report(folder, "z3.bias.grad", &gw.b3, 1);
    mbp_report(folder, "z1.weight.grad", &gw.w1[0][0], 9);
    mbp_report(folder, "z1.bias.grad", &gw.b1, 1);

    free(x);
    free(y);
    free(e);
    free(g);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run(argv[i]);
    return argc > 1 ? 0 : 2;
}
