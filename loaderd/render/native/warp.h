/* Affine warps of images, as scipy.ndimage.affine_transform computes them.
 *
 * A matrix maps a pixel (y, x) of the output to the point of the source whose value it gets:
 *
 *     source y = m[2] + m[0] y + m[1] x
 *     source x = m[5] + m[3] y + m[4] x
 *
 * Exact warps have scipy's float32 values to the last bit: doubles, in scipy's order of
 * operations. Fast ones interpolate in float32, within 0.01 grey levels of that for sources
 * of 0 to 255. Images are C-contiguous, (height, width, channels); source and output are of
 * one shape.
 */
#ifndef LOADERD_WARP_H
#define LOADERD_WARP_H

#include <stddef.h>
#include <stdint.h>

#define MAX_CHANNELS 4
#define POINT 16 /* bits of a fraction in fixed point: 0.004 grey levels */
#define LANES 8 /* rows of taps have room for a multiple of so many pixels */

enum fill { FILL_NEAREST, FILL_CONSTANT, FILL_REFLECT, FILL_WRAP };

/* The neighbours in the source of the pixels of one output row. */
struct taps {
    double *y, *x;       /* weights of those above, and of those to the left */
    float *down, *over;  /* in fast warps: weights of those below, and of those to the right */
    int32_t *above;      /* values from the source's first to the neighbours' rows */
    int32_t *below;
    int32_t *left;       /* values from the start of a row to the neighbours */
    int32_t *right;
    uint8_t *outside;    /* whether a pixel has none, and gets the constant */
};

struct warp {
    int32_t height, width, channels;
    int order;           /* 0 or 1 */
    enum fill fill;
    double cval;
    float scale;         /* what all values are multiplied by at last */
    int is_fast;
    int is_finite;       /* whether all coordinates are numbers that 64 bits can count */
    int is_fixed;        /* whether a fast warp may count in fixed point: images are small */
    double *steps;       /* m[1] x and m[4] x, for each x */
    int32_t *fixed;      /* the same in fixed point */
    struct taps taps;    /* of one row: a warp is used by one thread at a time */
};

/* The coordinates of a row of output on one axis of the source: start + steps[x]. */
struct axis {
    double start;
    const double *steps;
    const int32_t *fixed;   /* the steps in fixed point */
    int32_t length, stride; /* of the source: pixels, and values from one to the next */
    int32_t beyond;         /* the neighbour after the last pixel */
};

/* Pixels in a row of taps. */
static inline size_t padded(int32_t width) { return ((size_t)width + LANES - 1) / LANES * LANES; }

/* To be called before the rows of an image. */
void warp_begin(struct warp *w, const double *m);

/* Maps the coordinates of a row that lie outside the source on one axis; says which get the
 * constant. */
void warp_map_outside(const struct warp *w, double *at, int32_t length);

#endif
