/* From a loaded image to a row of a batch: warp, flips, arithmetic, layout and dtype, one row of
 * pixels after the other, so that all but the image and the batch stays in the cache. */
#ifndef LOADERD_FINISH_H
#define LOADERD_FINISH_H

#include "kernels.h"

#define MAX_STEPS 8

enum arithmetic { MULTIPLY, SUBTRACT, DIVIDE, REVERSE_CHANNELS };

struct step {
    enum arithmetic kind;
    float *by;        /* for each value of a row of pixels; none to reverse channels */
};

enum output { FLOAT32, FLOAT16, BFLOAT16, UINT8 };

struct finish {
    const struct kernels *kernels;
    struct warp warp;
    int is_scaled;    /* whether the warp does the first step */
    int n_steps;
    struct step steps[MAX_STEPS];
    enum output output;
    int is_planar;    /* whether each channel is a plane of its own in the batch */
    uint8_t *bytes;   /* one row of pixels each */
    float *floats;
    float *planes;
};

struct image {
    const void *pixels;
    size_t stride;          /* bytes from row to row where there is no warp; 0 for none between */
    int is_float;           /* float32, else uint8 */
    const double *matrix;   /* six numbers; NULL for no warp */
    int mirrored, upside_down;
    const uint8_t *tables;  /* of bytes that are not warped: n_tables x 256; NULL for none */
    int32_t n_tables;       /* one for all channels, or one for each */
    int is_fetched;         /* whether it was the last image's `next` */
    const void *next;       /* the pixels of the image to be warped after it; NULL for none */
};

/* Allocates; returns 0, or -1 if there is no memory. The sizes, warp's settings, output and
 * layout must be set. */
int finish_begin(struct finish *f);

/* Adds a step; `by` has a value for each channel. Returns 0, or -1 if there is no memory. */
int finish_add(struct finish *f, enum arithmetic kind, const float *by);

void finish_end(struct finish *f);

/* Bytes of an image in the batch. */
size_t finish_size(const struct finish *f);

/* Finishes one image. */
void finish_image(struct finish *f, const struct image *image, void *out);

/* The fastest kernels that this processor has. */
const struct kernels *best_kernels(void);

/* All kernels that this processor has, the fastest first, plain C last; NULL beyond. */
const struct kernels *kernels_at(int place);

#endif
