#include "finish.h"

#include <stdlib.h>
#include <string.h>

const struct kernels *best_kernels(void) { return kernels_at(0); }

const struct kernels *kernels_at(int place)
{
    const struct kernels *found[4] = {NULL};
    int n = 0;
#ifdef HAVE_AVX
    if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw"))
        found[n++] = &avx512_kernels;
    if (__builtin_cpu_supports("avx2")) /* all of these have F16C too */
        found[n++] = &avx2_kernels;
#endif
    found[n] = &plain_kernels;
    return place <= n ? found[place] : NULL;
}

static size_t row_length(const struct finish *f)
{
    return (size_t)f->warp.width * f->warp.channels;
}

int finish_begin(struct finish *f)
{
    struct warp *w = &f->warp;
    struct taps *t = &w->taps;
    const size_t n = padded(w->width), values = row_length(f) + MAX_CHANNELS;
    w->scale = 1;
    w->steps = calloc(2 * n, sizeof *w->steps);
    w->fixed = calloc(2 * n, sizeof *w->fixed);
    t->y = calloc(n, sizeof *t->y);
    t->x = calloc(n, sizeof *t->x);
    t->down = calloc(n, sizeof *t->down);
    t->over = calloc(n, sizeof *t->over);
    t->above = calloc(n, sizeof *t->above);
    t->below = calloc(n, sizeof *t->below);
    t->left = calloc(n, sizeof *t->left);
    t->right = calloc(n, sizeof *t->right);
    t->outside = calloc(n, sizeof *t->outside);
    f->bytes = calloc(values, sizeof *f->bytes);
    f->floats = calloc(values, sizeof *f->floats);
    f->planes = calloc(values, sizeof *f->planes);
    const void *all[] = {w->steps, w->fixed, t->y,    t->x,     t->down,    t->over,  t->above,
                         t->below, t->left,  t->right, t->outside, f->bytes, f->floats, f->planes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == NULL)
            return -1;
    return 0;
}

int finish_add(struct finish *f, enum arithmetic kind, const float *by)
{
    struct step *step = &f->steps[f->n_steps];
    const int32_t channels = f->warp.channels;
    const size_t n = row_length(f);
    step->kind = kind;
    step->by = NULL;
    if (kind != REVERSE_CHANNELS) {
        step->by = malloc(n * sizeof *step->by);
        if (step->by == NULL)
            return -1;
        int is_uniform = 1;
        for (int32_t k = 1; k < channels; k++)
            is_uniform &= memcmp(by + k, by, sizeof *by) == 0;
        for (size_t i = 0; i < n; i++)
            step->by[i] = by[i % channels];
        if (f->n_steps == 0 && kind == MULTIPLY && is_uniform) {
            f->is_scaled = 1;
            f->warp.scale = *by;
        }
    }
    f->n_steps++;
    return 0;
}

void finish_end(struct finish *f)
{
    struct taps *t = &f->warp.taps;
    void *all[] = {f->warp.steps, f->warp.fixed, t->y,    t->x,     t->down,    t->over,  t->above,
                   t->below,      t->left,       t->right, t->outside, f->bytes, f->floats, f->planes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    for (int i = 0; i < f->n_steps; i++)
        free(f->steps[i].by);
}

static size_t value_size(const struct finish *f)
{
    switch (f->output) {
    case FLOAT32: return 4;
    case FLOAT16:
    case BFLOAT16: return 2;
    default: return 1;
    }
}

size_t finish_size(const struct finish *f)
{
    return row_length(f) * f->warp.height * value_size(f);
}

static void reverse_channels(float *row, int32_t pixels, int32_t channels)
{
    for (int32_t i = 0; i < pixels; i++, row += channels)
        for (int32_t k = 0; k < channels / 2; k++) {
            float first = row[k];
            row[k] = row[channels - 1 - k];
            row[channels - 1 - k] = first;
        }
}

static void look_up(const struct kernels *kernels, const struct image *image,
                    const uint8_t *source, size_t n, uint8_t *out)
{
    kernels->look_up(source, n / image->n_tables, image->n_tables, image->tables, out);
}

/* Row y of an image that is not warped. */
static const uint8_t *row_of(const struct finish *f, const struct image *image, int32_t y)
{
    const size_t length = row_length(f) * (image->is_float ? 4 : 1);
    return (const uint8_t *)image->pixels + y * (image->stride ? image->stride : length);
}

/* Row y of the image as float32, before the steps. */
static void begin_row(const struct finish *f, const struct image *image, int32_t y, float *row)
{
    const struct warp *w = &f->warp;
    const int32_t n = w->width;
    const size_t length = row_length(f), pixel = w->channels * (image->is_float ? 4 : 1);
    const uint8_t *source = row_of(f, image, y);
    if (image->matrix != NULL && image->is_float) {
        f->kernels->warp_floats(w, image->pixels, image->matrix, y, image->mirrored, row);
    } else if (image->matrix != NULL) {
        f->kernels->warp_bytes(w, image->pixels, image->matrix, y, image->mirrored, row);
    } else if (image->is_float && image->mirrored) {
        f->kernels->mirror(source, n, (int32_t)pixel, (uint8_t *)row);
    } else if (image->is_float) {
        memcpy(row, source, length * sizeof *row);
    } else {
        if (image->mirrored) {
            f->kernels->mirror(source, n, w->channels, f->bytes);
            source = f->bytes;
        }
        if (image->tables != NULL) {
            look_up(f->kernels, image, source, length, f->bytes);
            source = f->bytes;
        }
        f->kernels->widen(source, length, row);
    }
}

static void do_steps(const struct finish *f, int first, float *row)
{
    const struct kernels *k = f->kernels;
    const size_t n = row_length(f);
    for (int i = first; i < f->n_steps; i++) {
        const struct step *step = &f->steps[i];
        switch (step->kind) {
        case MULTIPLY: k->multiply(row, n, step->by); break;
        case SUBTRACT: k->subtract(row, n, step->by); break;
        case DIVIDE: k->divide(row, n, step->by); break;
        case REVERSE_CHANNELS: reverse_channels(row, f->warp.width, f->warp.channels); break;
        }
    }
}

static void convert(const struct finish *f, const float *row, size_t n, void *out)
{
    switch (f->output) {
    case FLOAT32: memcpy(out, row, n * sizeof *row); break;
    case FLOAT16: f->kernels->halve(row, n, out); break;
    case BFLOAT16: f->kernels->shorten(row, n, out); break;
    case UINT8: f->kernels->truncate(row, n, out); break;
    }
}

/* Writes row y of each plane. */
static void write_planes(const struct finish *f, const float *row, int32_t y, uint8_t *out)
{
    const int32_t n = f->warp.width, channels = f->warp.channels;
    const size_t size = value_size(f), plane = (size_t)f->warp.height * n * size;
    float *values = f->planes;
    for (int32_t k = 0; k < channels; k++) {
        for (int32_t x = 0; x < n; x++)
            values[x] = row[x * channels + k];
        convert(f, values, n, out + k * plane + (size_t)y * n * size);
    }
}

/* Bytes that stay bytes are only copied, or looked up. */
static void copy_image(const struct finish *f, const struct image *image, uint8_t *out)
{
    const struct warp *w = &f->warp;
    const size_t length = row_length(f);
    const int is_whole = image->stride == 0 || image->stride == length;
    if (is_whole && !image->mirrored && !image->upside_down) {
        if (image->tables != NULL)
            look_up(f->kernels, image, image->pixels, length * w->height, out);
        else
            memcpy(out, image->pixels, length * w->height);
        return;
    }
    for (int32_t y = 0; y < w->height; y++, out += length) {
        const int32_t from = image->upside_down ? w->height - 1 - y : y;
        const uint8_t *source = row_of(f, image, from);
        if (image->mirrored) {
            f->kernels->mirror(source, w->width, w->channels, out);
            source = out;
        }
        if (image->tables != NULL)
            look_up(f->kernels, image, source, length, out);
        else if (!image->mirrored)
            memcpy(out, source, length);
    }
}

/* Has memory fetched that is read soon; a warp reads an image across, which no processor
 * foresees. */
static void prefetch(const void *memory, size_t size)
{
#ifdef __GNUC__
    for (size_t at = 0; memory != NULL && at < size; at += 64)
        __builtin_prefetch((const char *)memory + at, 0, 2);
#else
    (void)memory, (void)size;
#endif
}

void finish_image(struct finish *f, const struct image *image, void *out)
{
    struct warp *w = &f->warp;
    const int is_warped = image->matrix != NULL;
    if (f->output == UINT8 && !f->is_planar && !image->is_float && !is_warped && !f->n_steps) {
        copy_image(f, image, out);
        return;
    }
    const size_t source = row_length(f) * (image->is_float ? 4 : 1);
    if (is_warped)
        warp_begin(w, image->matrix);
    if (is_warped && !image->is_fetched)
        prefetch(image->pixels, source * w->height);
    const size_t length = row_length(f), size = length * value_size(f);
    const int in_place = f->output == FLOAT32 && !f->is_planar;
    for (int32_t y = 0; y < w->height; y++) {
        const int32_t from = image->upside_down ? w->height - 1 - y : y;
        uint8_t *to = (uint8_t *)out + y * size;
        float *row = in_place ? (float *)to : f->floats;
        if (image->next != NULL)
            prefetch((const uint8_t *)image->next + y * source, source);
        begin_row(f, image, from, row);
        do_steps(f, is_warped && f->is_scaled, row);
        if (f->is_planar)
            write_planes(f, row, y, out);
        else if (!in_place)
            convert(f, row, length, to);
    }
}
