/* What is done to a row of an image, of `n` values: a set of functions for each instruction set.
 * All sets give the same values.
 */
#ifndef LOADERD_KERNELS_H
#define LOADERD_KERNELS_H

#include "warp.h"

/* Changes of brightness, contrast, saturation and hue, in this order. */
struct colors {
    float add;         /* to all values; what is below 0 or above 255 is clipped */
    float scale;       /* of each value; then an offset for each channel is added, and clipped */
    float offsets[3];
    int has_hue;       /* whether saturation or hue change */
    float saturation;  /* by which the chroma is multiplied: 0 for grey, 1 for no change */
    float firsts[3];   /* of each channel: see `colored` */
};

struct kernels {
    const char *name;
    /* Row y of a warped image, from right to left if mirrored. */
    void (*warp_bytes)(const struct warp *w, const uint8_t *source, const double *m, int32_t y,
                       int mirrored, float *row);
    void (*warp_floats)(const struct warp *w, const float *source, const double *m, int32_t y,
                        int mirrored, float *row);
    /* A row of so many pixels, of `size` bytes each, from right to left. */
    void (*mirror)(const uint8_t *source, int32_t pixels, int32_t size, uint8_t *out);
    /* Pixels with each value replaced by that of its channel's table of 256; `channels` may be 1 for
     * one table for all values. In place if `out` is the source. */
    void (*look_up)(const uint8_t *source, size_t pixels, int32_t channels, const uint8_t *tables,
                    uint8_t *out);
    /* Adds the values of each channel but alpha, brightened, to `sums`; of 1, 3 or 4 channels. */
    void (*sum_colors)(const struct colors *colors, const uint8_t *source, size_t pixels,
                       int32_t channels, double *sums);
    /* Pixels with other colours, rounded to nearest even; alpha is kept. */
    void (*change_colors)(const struct colors *colors, const uint8_t *source, size_t pixels,
                          int32_t channels, uint8_t *out);
    void (*widen)(const uint8_t *source, size_t n, float *row);
    void (*multiply)(float *row, size_t n, const float *by);
    void (*subtract)(float *row, size_t n, const float *by);
    void (*divide)(float *row, size_t n, const float *by);
    /* To float16 and to bfloat16, rounded to nearest even; to uint8, truncated as by NumPy's
     * astype. */
    void (*halve)(const float *row, size_t n, uint16_t *out);
    void (*shorten)(const float *row, size_t n, uint16_t *out);
    void (*truncate)(const float *row, size_t n, uint8_t *out);
};

extern const struct kernels plain_kernels;
#if defined(__x86_64__)
#define HAVE_AVX
extern const struct kernels avx2_kernels, avx512_kernels;
#endif

#endif
