/* The kernels, for one instruction set: KERNEL(name) names them, TARGET is their attribute.
 *
 * Included once for each set. The plain C is the reference, which compilers vectorise; what
 * WITH_AVX2 adds does the same operations in the same order, several at a time. */

/* Turns the coordinates of a row on one axis into two neighbours and their weights. */
TARGET static void KERNEL(split)(const struct warp *w, const struct axis *axis,
                                 double *restrict at, float *restrict fraction,
                                 int32_t *restrict first, int32_t *restrict second)
{
    for (int32_t i = 0; i < w->width; i++) {
        int32_t whole = (int32_t)at[i] - (at[i] < 0);
        first[i] = (whole < 0 ? 0 : whole) * axis->stride;
        second[i] = (whole + 1 < axis->length ? whole + 1 : axis->beyond) * axis->stride;
        at[i] -= whole;
        if (w->is_fast) /* a pixel that is its own neighbour needs none */
            fraction[i] = first[i] == second[i] ? 0 : (float)at[i];
        at[i] = 1.0 - at[i];
    }
}

/* The same where pixels beyond the border repeat it: as in scipy, weights are those of the point
 * itself, though both neighbours may be one pixel. */
#ifndef WITH_AVX2
TARGET static void KERNEL(split_repeated)(const struct warp *w, const struct axis *axis,
                                          double *restrict at, float *restrict fraction,
                                          int32_t *restrict first, int32_t *restrict second)
{
    const double *restrict steps = axis->steps;
    const int64_t last = axis->length - 1;
    for (int32_t i = 0; i < w->width; i++) {
        double c = axis->start + steps[i];
        int64_t whole = (int64_t)c;
        whole -= c < (double)whole;
        c = c - (double)whole + 0.0; /* never -0 */
        int64_t next = whole + 1;
        whole = whole < 0 ? 0 : whole < last ? whole : last;
        next = next < 0 ? 0 : next < last ? next : last;
        first[i] = (int32_t)whole * axis->stride;
        second[i] = (int32_t)next * axis->stride;
        if (w->is_fast)
            fraction[i] = whole == next ? 0 : (float)c;
        at[i] = 1.0 - c;
    }
}
#endif

/* The same for the nearest pixel alone. */
TARGET static void KERNEL(round)(const struct warp *w, const struct axis *axis,
                                 const double *restrict at, int32_t *restrict first)
{
    for (int32_t i = 0; i < w->width; i++) {
        double c = at[i] + 0.5;
        int32_t whole = (int32_t)c - (c < 0);
        whole = whole < 0 ? 0 : whole;
        first[i] = (whole < axis->length ? whole : axis->beyond) * axis->stride;
    }
}

/* Defines a function that writes pixel i of a row. Of the exact sum, the zero at its beginning
 * and the order of the products count: they are scipy's. */
#define DEFINE_PIXEL(name, type)                                                                 \
    TARGET static void KERNEL(name)(const struct warp *w, const type *source, int32_t i,         \
                                    float *out)                                                  \
    {                                                                                            \
        const struct taps *t = &w->taps;                                                         \
        const type *above = source + t->above[i], *below = source + t->below[i];                 \
        const int32_t left = t->left[i], right = t->right[i];                                    \
        for (int32_t k = 0; k < w->channels; k++) {                                              \
            if (t->outside[i]) {                                                                 \
                out[k] = (float)w->cval * w->scale;                                              \
            } else if (w->order == 0) {                                                          \
                out[k] = (float)(0.0 + above[left + k]) * w->scale;                              \
            } else if (w->is_fast) {                                                             \
                float a = above[left + k], b = above[right + k];                                 \
                float c = below[left + k], d = below[right + k];                                 \
                a += t->down[i] * (c - a);                                                       \
                b += t->down[i] * (d - b);                                                       \
                out[k] = (a + t->over[i] * (b - a)) * w->scale;                                  \
            } else {                                                                             \
                double y = t->y[i], x = t->x[i];                                                 \
                double sum = 0.0;                                                                \
                sum += above[left + k] * y * x;                                                  \
                sum += above[right + k] * y * (1.0 - x);                                         \
                sum += below[left + k] * (1.0 - y) * x;                                          \
                sum += below[right + k] * (1.0 - y) * (1.0 - x);                                 \
                out[k] = (float)sum * w->scale;                                                  \
            }                                                                                    \
        }                                                                                        \
    }

DEFINE_PIXEL(pixel_of_bytes, uint8_t)
DEFINE_PIXEL(pixel_of_floats, float)
#undef DEFINE_PIXEL

#ifdef WITH_AVX2
#include "avx2.inc.h"
#endif

/* Where an axis starts, in fixed point. */
TARGET static int32_t KERNEL(fixed_start)(const struct axis *axis)
{
    return (int32_t)lrint(axis->start * (1 << POINT));
}

/* `split` in fixed point, for coordinates that are clamped to the source. */
TARGET static void KERNEL(split_fixed)(const struct warp *w, const struct axis *axis,
                                       float *restrict fraction, int32_t *restrict first,
                                       int32_t *restrict second)
{
    const int32_t start = KERNEL(fixed_start)(axis), last = (axis->length - 1) << POINT;
    const int32_t *restrict steps = axis->fixed;
    const int32_t n = w->width, stride = axis->stride, end = (axis->length - 1) * stride;
    for (int32_t i = 0; i < n; i++) {
        int32_t c = start + steps[i];
        c = c > 0 ? c : 0;
        c = c < last ? c : last;
        fraction[i] = (float)(c & ((1 << POINT) - 1)) * (1.0f / (1 << POINT));
        int32_t place = (c >> POINT) * stride, next = place + stride;
        first[i] = place;
        second[i] = next < end ? next : end;
    }
}

TARGET static void KERNEL(locate)(const struct warp *w, const struct axis *axis, double *at,
                                  float *fraction, int32_t *first, int32_t *second)
{
    if (w->is_fixed) {
        KERNEL(split_fixed)(w, axis, fraction, first, second);
        return;
    }
    if (w->fill == FILL_NEAREST && w->is_finite && w->order) {
        KERNEL(split_repeated)(w, axis, at, fraction, first, second);
        return;
    }
    for (int32_t x = 0; x < w->width; x++)
        at[x] = axis->start + axis->steps[x];
    warp_map_outside(w, at, axis->length);
    if (w->order)
        KERNEL(split)(w, axis, at, fraction, first, second);
    else
        KERNEL(round)(w, axis, at, first);
}

TARGET static void KERNEL(locate_row)(const struct warp *w, const double *m, int32_t y)
{
    const struct taps *t = &w->taps;
    const int32_t n = w->width, h = w->height;
    /* Neighbours beyond the border: "constant" and "wrap" mirror them, the others repeat. */
    const int mirrors = w->fill == FILL_CONSTANT || w->fill == FILL_WRAP;
    const struct axis rows = {
        m[2] + y * m[0], w->steps, w->fixed, h, n * w->channels, h == 1 ? 0 : h - 1 - mirrors,
    };
    const struct axis columns = {
        m[5] + y * m[3], w->steps + padded(n), w->fixed + padded(n), n, w->channels, n == 1 ? 0 : n - 1 - mirrors,
    };
    memset(t->outside, 0, n);
    KERNEL(locate)(w, &rows, t->y, t->down, t->above, t->below);
    KERNEL(locate)(w, &columns, t->x, t->over, t->left, t->right);
}

TARGET static void KERNEL(warp_bytes)(const struct warp *w, const uint8_t *source,
                                      const double *m, int32_t y, int mirrored, float *row)
{
    KERNEL(locate_row)(w, m, y);
    const int32_t n = w->width;
    int32_t done = 0;
#ifdef WITH_AVX2
    done = interpolate_bytes(w, source, mirrored, row);
#endif
    for (; done < n; done++)
        KERNEL(pixel_of_bytes)(w, source, mirrored ? n - 1 - done : done,
                               row + (size_t)done * w->channels);
}

TARGET static void KERNEL(warp_floats)(const struct warp *w, const float *source,
                                       const double *m, int32_t y, int mirrored, float *row)
{
    KERNEL(locate_row)(w, m, y);
    const int32_t n = w->width;
    int32_t done = 0;
#ifdef WITH_AVX2
    done = interpolate_floats(w, source, mirrored, row);
#endif
    for (; done < n; done++)
        KERNEL(pixel_of_floats)(w, source, mirrored ? n - 1 - done : done,
                                row + (size_t)done * w->channels);
}

TARGET static void KERNEL(widen)(const uint8_t *restrict source, size_t n, float *restrict row)
{
    for (size_t i = 0; i < n; i++)
        row[i] = source[i];
}

TARGET static void KERNEL(multiply)(float *restrict row, size_t n, const float *restrict by)
{
    for (size_t i = 0; i < n; i++)
        row[i] *= by[i];
}

TARGET static void KERNEL(subtract)(float *restrict row, size_t n, const float *restrict by)
{
    for (size_t i = 0; i < n; i++)
        row[i] -= by[i];
}

TARGET static void KERNEL(divide)(float *restrict row, size_t n, const float *restrict by)
{
    for (size_t i = 0; i < n; i++)
        row[i] /= by[i];
}

TARGET static void KERNEL(look_up)(const uint8_t *source, size_t pixels, int32_t channels,
                                   const uint8_t *tables, uint8_t *out)
{
    size_t i = 0;
    if (channels == 1) {
#ifdef WITH_AVX2
        i = look_up_shared(source, pixels, tables, out);
#endif
        for (; i < pixels; i++)
            out[i] = tables[source[i]];
        return;
    }
    for (; i < pixels; i++, source += channels, out += channels)
        for (int32_t k = 0; k < channels; k++)
            out[k] = tables[256 * k + source[k]];
}

TARGET static void KERNEL(mirror)(const uint8_t *source, int32_t pixels, int32_t size,
                                  uint8_t *out)
{
#ifdef WITH_AVX2
    const int32_t done = mirror_most(source, pixels, size, out);
    out += (size_t)done * size;
    pixels -= done;
#endif
    const uint8_t *last = source + (size_t)(pixels - 1) * size;
    if (size != 3) {
        for (int32_t i = 0; i < pixels; i++)
            memcpy(out + (size_t)i * size, last - (size_t)i * size, size);
        return;
    }
    /* Four bytes at a time: the fourth is overwritten by the next pixel. */
    memcpy(out, last, 3);
    for (int32_t i = 1; i < pixels - 1; i++)
        memcpy(out + 3 * (size_t)i, last - 3 * (size_t)i, 4);
    memcpy(out + 3 * (size_t)(pixels - 1), source, 3);
}

TARGET static uint16_t KERNEL(half)(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) /* not a number */
        return sign | 0x7e00 | (bits >> 13 & 0x1ff);
    if (bits >= 0x47800000) /* 65536 and more */
        return sign | 0x7c00;
    if (bits < 0x38800000) { /* less than the least normal one: a sum with 0.5 rounds */
        float small;
        memcpy(&small, &bits, 4);
        small += 0.5f;
        memcpy(&bits, &small, 4);
        return sign | (bits - 0x3f000000);
    }
    bits += 0xfff + (bits >> 13 & 1); /* to even, with a carry into the exponent */
    return sign | ((bits >> 13) - (112 << 10));
}

TARGET static void KERNEL(halve)(const float *restrict row, size_t n, uint16_t *restrict out)
{
    size_t i = 0;
#ifdef WITH_AVX2
    for (; i + 8 <= n; i += 8) {
        __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(row + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(out + i), halves);
    }
#endif
    for (; i < n; i++)
        out[i] = KERNEL(half)(row[i]);
}

/* The upper half of a float32. NaNs become quiet NaNs, of which only the sign is kept, as in
 * ml_dtypes; without a branch, so that compilers vectorise it. */
TARGET static void KERNEL(shorten)(const float *restrict row, size_t n, uint16_t *restrict out)
{
    size_t i = 0;
#ifdef WITH_AVX2
    for (; i + 16 <= n; i += 16) {
        __m256i shorts = _mm256_packus_epi32(shortened(row + i), shortened(row + i + 8));
        shorts = _mm256_permute4x64_epi64(shorts, _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(out + i), shorts);
    }
#endif
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, row + i, 4);
        const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
        const uint32_t quiet = (bits & 0x80000000) | 0x7fc00000;
        out[i] = (uint16_t)(((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded) >> 16);
    }
}

TARGET static void KERNEL(truncate)(const float *restrict row, size_t n, uint8_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        int fits = row[i] > -2147483648.0f && row[i] < 2147483648.0f;
        out[i] = (uint8_t)(int32_t)(fits ? row[i] : 0);
    }
}

#include "colors.inc.h"
