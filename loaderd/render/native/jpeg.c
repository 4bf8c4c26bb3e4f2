/* Decodes some pixels of a JPEG, or a region of it; see jpeg.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h> /* where it is missing (libjpeg-dev), this extension is left out */

#ifndef LIBJPEG_TURBO_VERSION
#error "libjpeg is not libjpeg-turbo: all pixels of JPEGs will be converted"
#endif

#define TEXT(value) #value
#define TEXT_OF(macro) TEXT(macro)

/* What to decode: pixels at rows x columns, to 3 bytes each. */
struct wanted {
    const int *rows, *columns;
    size_t n_rows, n_columns;
    unsigned char *out;
};

/* What to decode: width x height pixels of the picture at 1/reduction of its size, from left and top
 * on, to 4 bytes each, or 1 for grey. */
struct region {
    int reduction, left, top, width, height, channels;
    unsigned char *out;
};

struct decoder {
    struct jpeg_decompress_struct jpeg; /* the first: libjpeg's callbacks get this one */
    struct jpeg_error_mgr errors;
    jmp_buf escape;
};

static void on_error(j_common_ptr jpeg) { longjmp(((struct decoder *)jpeg)->escape, 1); }

/* Treats warnings (level -1) as errors: the file is damaged. */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0)
        on_error(jpeg);
}

/* A plane of the picture, as it lies in the file: chroma may have half the columns and rows. */
struct plane {
    JSAMPROW *rows;
    int width, height;
};

struct picture {
    struct plane planes[3];
    short *sums;                             /* of two rows of chroma */
    short *chroma[2];                        /* a row: its even columns, then its odd ones */
    int *places;                             /* of the wanted columns in that */
    short *y, *cb, *cr;                      /* a row at the wanted columns */
    unsigned char *red, *green, *blue;       /* the same */
    int is_grey, is_half_wide, is_half_high; /* chroma */
};

static void *take_memory(struct jpeg_decompress_struct *jpeg, size_t size)
{
    return (*jpeg->mem->alloc_large)((j_common_ptr)jpeg, JPOOL_IMAGE, size);
}

static int is_sampled(const jpeg_component_info *component, int across, int down)
{
    return component->h_samp_factor == across && component->v_samp_factor == down;
}

/* Whether it is a sequential JPEG of the usual samplings: 4:4:4, 4:2:2, 4:2:0, or grey. Every
 * libjpeg has the same samples for these; for others it may smooth blocks. */
static int is_plain(const struct jpeg_decompress_struct *jpeg)
{
    const jpeg_component_info *of = jpeg->comp_info;
    if (jpeg->progressive_mode || jpeg->arith_code || jpeg->data_precision != 8 ||
        jpeg->comps_in_scan != jpeg->num_components)
        return 0;
    if (jpeg->jpeg_color_space == JCS_GRAYSCALE)
        return is_sampled(of, 1, 1);
    if (jpeg->jpeg_color_space != JCS_YCbCr || !is_sampled(&of[1], 1, 1) ||
        !is_sampled(&of[2], 1, 1))
        return 0;
    return is_sampled(of, 1, 1) || is_sampled(of, 2, 1) || is_sampled(of, 2, 2);
}

/* Whether blocks have the size that `read_planes` counts on. A libjpeg of another kind than the one
 * it was built with may scale chroma here. */
static int is_unscaled(const struct jpeg_decompress_struct *jpeg)
{
    for (int c = 0; c < jpeg->num_components; c++) {
        const jpeg_component_info *of = &jpeg->comp_info[c];
#if JPEG_LIB_VERSION >= 70
        if (of->DCT_h_scaled_size != DCTSIZE || of->DCT_v_scaled_size != DCTSIZE)
            return 0;
#else
        if (of->DCT_scaled_size != DCTSIZE)
            return 0;
#endif
    }
    return 1;
}

/* Whether all places lie in the picture, and chroma is wide enough for libjpeg to interpolate. */
static int is_within(const struct jpeg_decompress_struct *jpeg, const struct wanted *wanted)
{
    for (size_t i = 0; i < wanted->n_rows; i++)
        if (wanted->rows[i] < 0 || (JDIMENSION)wanted->rows[i] >= jpeg->output_height)
            return 0;
    for (size_t i = 0; i < wanted->n_columns; i++)
        if (wanted->columns[i] < 0 || (JDIMENSION)wanted->columns[i] >= jpeg->output_width)
            return 0;
    return jpeg->max_h_samp_factor == 1 || jpeg->output_width > 4;
}

/* Reads the planes whole: rows of chroma need the rows above and below them. */
static void read_planes(struct jpeg_decompress_struct *jpeg, struct picture *picture)
{
    const size_t blocks = (jpeg->output_height + (size_t)jpeg->max_v_samp_factor * DCTSIZE - 1) /
                          ((size_t)jpeg->max_v_samp_factor * DCTSIZE);
    JSAMPARRAY at[3] = {NULL, NULL, NULL};
    for (int c = 0; c < jpeg->num_components; c++) {
        const jpeg_component_info *of = &jpeg->comp_info[c];
        const size_t stride = (size_t)of->width_in_blocks * DCTSIZE;
        const size_t rows = blocks * (size_t)of->v_samp_factor * DCTSIZE;
        struct plane *plane = &picture->planes[c];
        JSAMPROW samples = take_memory(jpeg, rows * stride);
        plane->rows = take_memory(jpeg, rows * sizeof(JSAMPROW));
        for (size_t i = 0; i < rows; i++)
            plane->rows[i] = samples + i * stride;
        plane->width = (int)of->downsampled_width;
        plane->height = (int)of->downsampled_height;
    }
    for (size_t block = 0; block < blocks; block++) {
        for (int c = 0; c < jpeg->num_components; c++)
            at[c] = picture->planes[c].rows +
                    block * (size_t)jpeg->comp_info[c].v_samp_factor * DCTSIZE;
        if (jpeg_read_raw_data(jpeg, at, (JDIMENSION)jpeg->max_v_samp_factor * DCTSIZE) == 0)
            on_error((j_common_ptr)jpeg);
    }
}

static int clip(int value, int max) { return value < 0 ? 0 : value > max ? max : value; }

static void prepare(struct jpeg_decompress_struct *jpeg, const struct wanted *wanted,
                    struct picture *picture)
{
    picture->is_grey = jpeg->num_components == 1;
    picture->is_half_wide = jpeg->max_h_samp_factor == 2;
    picture->is_half_high = jpeg->max_v_samp_factor == 2;
    if (picture->is_grey)
        return;
    const size_t n = wanted->n_columns, width = (size_t)picture->planes[1].width;
    picture->sums = take_memory(jpeg, 5 * width * sizeof(short));
    picture->chroma[0] = picture->sums + width;
    picture->chroma[1] = picture->sums + 3 * width;
    picture->y = take_memory(jpeg, 3 * n * sizeof(short));
    picture->cb = picture->y + n;
    picture->cr = picture->cb + n;
    picture->red = take_memory(jpeg, 3 * n);
    picture->green = picture->red + n;
    picture->blue = picture->green + n;
    picture->places = take_memory(jpeg, n * sizeof(int));
    for (size_t i = 0; i < n; i++) {
        const int x = wanted->columns[i];
        picture->places[i] = picture->is_half_wide ? (x >> 1) + (x & 1) * (int)width : x;
    }
}

/* A row of chroma: 3/4 of the row of samples that is nearer, and 1/4 of the other one. */
static void blend_rows(const struct picture *picture, int row, const struct plane *plane,
                       short *restrict out)
{
    if (!picture->is_half_high) {
        for (int i = 0; i < plane->width; i++)
            out[i] = plane->rows[row][i];
        return;
    }
    const unsigned char *near = plane->rows[row >> 1];
    const unsigned char *far = plane->rows[clip((row >> 1) + (row & 1 ? 1 : -1),
                                                plane->height - 1)];
    for (int i = 0; i < plane->width; i++)
        out[i] = (short)(3 * near[i] + far[i]);
}

/* The same for columns. libjpeg's rounding alternates between them, so that nothing is lost on
 * average; the first and the last column have one neighbour. */
static void blend_columns(const struct picture *picture, int width, short *restrict out)
{
    const short *restrict sums = picture->sums;
    const int shift = picture->is_half_high ? 4 : 2;
    const short for_even = picture->is_half_high ? 8 : 1, for_odd = picture->is_half_high ? 7 : 2;
    short *restrict even = out, *restrict odd = out + width;
    even[0] = (short)((4 * sums[0] + for_even) >> shift);
    for (int i = 1; i < width; i++)
        even[i] = (short)((short)(3 * sums[i] + sums[i - 1] + for_even) >> shift);
    for (int i = 0; i < width - 1; i++)
        odd[i] = (short)((short)(3 * sums[i] + sums[i + 1] + for_odd) >> shift);
    odd[width - 1] = (short)((4 * sums[width - 1] + for_odd) >> shift);
}

static void blend(const struct picture *picture, int row)
{
    for (int c = 0; c < 2; c++) {
        const struct plane *plane = &picture->planes[1 + c];
        if (!picture->is_half_wide) {
            blend_rows(picture, row, plane, picture->chroma[c]);
            continue;
        }
        blend_rows(picture, row, plane, picture->sums);
        blend_columns(picture, plane->width, picture->chroma[c]);
    }
}

static void gather(const struct picture *picture, const unsigned char *restrict line,
                   const struct wanted *wanted)
{
    const int *restrict columns = wanted->columns, *restrict places = picture->places;
    const short *restrict blues = picture->chroma[0], *restrict reds = picture->chroma[1];
    short *restrict y = picture->y, *restrict cb = picture->cb, *restrict cr = picture->cr;
    for (size_t i = 0; i < wanted->n_columns; i++) {
        const int place = places[i];
        y[i] = line[columns[i]];
        cb[i] = blues[place];
        cr[i] = reds[place];
    }
}

static unsigned char to_byte(short value)
{
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* A product in 16 bits of fraction, rounded: compilers have one instruction for the upper half. */
static short times(short value, short fraction)
{
    const short twice = (short)(2 * value);
    const short upper = (short)((twice * fraction) >> 16);
    return (short)((upper + 1) >> 1);
}

/* JFIF's formulas in 16 bits of fraction, as libjpeg computes them. */
static void to_rgb(const struct picture *picture, size_t n)
{
    const short *restrict y = picture->y, *restrict cb = picture->cb, *restrict cr = picture->cr;
    unsigned char *restrict red = picture->red, *restrict green = picture->green;
    unsigned char *restrict blue = picture->blue;
    for (size_t i = 0; i < n; i++) {
        const short v = (short)(cr[i] - 128);
        red[i] = to_byte((short)(y[i] + v + times(v, 26345)));
    }
    for (size_t i = 0; i < n; i++) {
        const short u = (short)(cb[i] - 128), v = (short)(cr[i] - 128);
        green[i] = to_byte((short)(y[i] - v + ((-22554 * u + 18734 * v + 32768) >> 16)));
    }
    for (size_t i = 0; i < n; i++) {
        const short u = (short)(cb[i] - 128);
        blue[i] = to_byte((short)(y[i] + 2 * u + times(u, -14942)));
    }
}

static void interleave(const struct picture *picture, size_t n, unsigned char *restrict out)
{
    const unsigned char *restrict red = picture->red, *restrict green = picture->green;
    const unsigned char *restrict blue = picture->blue;
    for (size_t i = 0; i < n; i++, out += 3)
        out[0] = red[i], out[1] = green[i], out[2] = blue[i];
}

static void write_row(const struct picture *picture, int row, const struct wanted *wanted,
                      unsigned char *restrict out)
{
    const unsigned char *line = picture->planes[0].rows[row];
    if (picture->is_grey) {
        for (size_t i = 0; i < wanted->n_columns; i++, out += 3)
            out[0] = out[1] = out[2] = line[wanted->columns[i]];
        return;
    }
    blend(picture, row);
    gather(picture, line, wanted);
    to_rgb(picture, wanted->n_columns);
    interleave(picture, wanted->n_columns, out);
}

static int read_places(struct jpeg_decompress_struct *jpeg, const void *asked)
{
    const struct wanted *wanted = asked;
    jpeg->raw_data_out = TRUE;
    jpeg_start_decompress(jpeg);
    if (!is_unscaled(jpeg) || !is_within(jpeg, wanted))
        return 0;
    struct picture picture;
    read_planes(jpeg, &picture);
    prepare(jpeg, wanted, &picture);
    for (size_t i = 0; i < wanted->n_rows; i++)
        write_row(&picture, wanted->rows[i], wanted, wanted->out + 3 * i * wanted->n_columns);
    jpeg_finish_decompress(jpeg);
    return 1;
}

/* Chroma is interpolated from neighbours: two more columns on either side keep the pixels. */
#define NEIGHBOURS 2

/* Fewer columns than that are not cropped: libjpeg does not interpolate very narrow chroma. */
#define MIN_COLUMNS 32

static int read_region(struct jpeg_decompress_struct *jpeg, const void *asked)
{
    const struct region *region = asked;
    const int channels = region->channels, end = region->left + region->width;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)region->reduction;
    jpeg->out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_EXT_RGBX;
    jpeg_start_decompress(jpeg);
    const JDIMENSION width = jpeg->output_width;
    if ((JDIMENSION)end > width || region->top + region->height > (int)jpeg->output_height ||
        region->width < MIN_COLUMNS)
        return 0;
    JDIMENSION first = region->left < NEIGHBOURS ? 0 : (JDIMENSION)region->left - NEIGHBOURS;
    JDIMENSION columns = (JDIMENSION)end + NEIGHBOURS < width ? (JDIMENSION)end + NEIGHBOURS : width;
    columns -= first;
    jpeg_crop_scanline(jpeg, &first, &columns);
    if (jpeg_skip_scanlines(jpeg, (JDIMENSION)region->top) != (JDIMENSION)region->top)
        return 0;
    JSAMPROW line = take_memory(jpeg, (size_t)columns * (size_t)channels);
    const size_t size = (size_t)region->width * (size_t)channels;
    const size_t skipped = ((size_t)region->left - first) * (size_t)channels;
    for (int i = 0; i < region->height; i++) {
        if (jpeg_read_scanlines(jpeg, &line, 1) != 1)
            return 0;
        memcpy(region->out + (size_t)i * size, line + skipped, size);
    }
    return 1; /* rows below are not read */
}

typedef int (*reader)(struct jpeg_decompress_struct *jpeg, const void *asked);

/* Longjmps to its own frame: whatever must outlive that is the caller's. */
static int try_to_decode(struct decoder *decoder, const Py_buffer *data, reader read,
                         const void *asked)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    if (setjmp(decoder->escape))
        return 0;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, data->buf, (unsigned long)data->len);
    jpeg_read_header(jpeg, TRUE);
    return is_plain(jpeg) && read(jpeg, asked);
}

static int decode(const Py_buffer *data, reader read, const void *asked)
{
    struct decoder decoder;
    decoder.jpeg.err = jpeg_std_error(&decoder.errors);
    decoder.errors.error_exit = on_error;
    decoder.errors.emit_message = on_message;
    const int is_done = try_to_decode(&decoder, data, read, asked);
    jpeg_destroy_decompress(&decoder.jpeg);
    return is_done;
}

/* -- the module -------------------------------------------------------------------------- */

/* Takes a C-contiguous buffer of a format; 0, or -1 with an error. */
static int take(PyObject *object, Py_buffer *view, int flags, char format, const char *what)
{
    if (PyObject_GetBuffer(object, view, flags | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return -1;
    const char *found = view->format == NULL ? "B" : view->format;
    if (found[0] == format && found[1] == 0 && (uintptr_t)view->buf % (size_t)view->itemsize == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: a buffer of format %s, not %c", what, found, format);
    PyBuffer_Release(view);
    return -1;
}

static int take_all(PyObject *const *args, Py_buffer views[4])
{
    if (take(args[0], &views[0], 0, 'B', "data") < 0 ||
        take(args[1], &views[1], 0, 'i', "rows") < 0 ||
        take(args[2], &views[2], 0, 'i', "columns") < 0 ||
        take(args[3], &views[3], PyBUF_WRITABLE, 'B', "out") < 0)
        return -1;
    const Py_ssize_t rows = views[1].len / (Py_ssize_t)sizeof(int);
    const Py_ssize_t columns = views[2].len / (Py_ssize_t)sizeof(int);
    if (views[3].len % 3 == 0 && (rows == 0 ? views[3].len == 0
                                            : views[3].len / 3 % rows == 0 &&
                                                  views[3].len / 3 / rows == columns))
        return 0;
    PyErr_Format(PyExc_ValueError, "out: %zd bytes, not %zd x %zd x 3", views[3].len, rows,
                 columns);
    return -1;
}

PyDoc_STRVAR(pick_doc,
             "pick(data, rows, columns, out)\n--\n\n"
             "Decodes the pixels at rows x columns; returns whether it did.");

static PyObject *pick(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    if (n_args != 4) {
        PyErr_Format(PyExc_TypeError, "pick() takes 4 arguments, got %zd", n_args);
        return NULL;
    }
    Py_buffer views[4] = {{0}, {0}, {0}, {0}};
    PyObject *result = NULL;
    if (take_all(args, views) == 0) {
        const struct wanted wanted = {
            .rows = views[1].buf,
            .columns = views[2].buf,
            .n_rows = (size_t)views[1].len / sizeof(int),
            .n_columns = (size_t)views[2].len / sizeof(int),
            .out = views[3].buf,
        };
        int is_done;
        Py_BEGIN_ALLOW_THREADS
        is_done = decode(&views[0], read_places, &wanted);
        Py_END_ALLOW_THREADS
        result = PyBool_FromLong(is_done);
    }
    for (int i = 0; i < 4; i++)
        if (views[i].obj != NULL)
            PyBuffer_Release(&views[i]);
    return result;
}

PyDoc_STRVAR(crop_doc,
             "crop(data, reduction, left, top, out)\n--\n\n"
             "Decodes the region of `out`'s (height, width, 4 or 1) at `left` and `top` of the "
             "picture at 1/reduction of its size; returns whether it did.");

static PyObject *crop(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *given, *target, *result = NULL;
    struct region region;
    Py_buffer data = {0}, out = {0};
    if (!PyArg_ParseTuple(args, "OiiiO:crop", &given, &region.reduction, &region.left,
                          &region.top, &target))
        return NULL;
    if (take(given, &data, 0, 'B', "data") < 0)
        return NULL;
    if (take(target, &out, PyBUF_WRITABLE, 'B', "out") == 0) {
        const int fits = out.ndim == 3 && (out.shape[2] == 1 || out.shape[2] == 4) &&
                         out.shape[0] <= JPEG_MAX_DIMENSION && out.shape[1] <= JPEG_MAX_DIMENSION;
        if (!fits || region.left < 0 || region.top < 0 || region.left > JPEG_MAX_DIMENSION ||
            region.top > JPEG_MAX_DIMENSION || region.reduction < 1) {
            PyErr_SetString(PyExc_ValueError, "no part of a picture can be so");
        } else {
            region.height = (int)out.shape[0];
            region.width = (int)out.shape[1];
            region.channels = (int)out.shape[2];
            region.out = out.buf;
            int is_done;
            Py_BEGIN_ALLOW_THREADS
            is_done = decode(&data, read_region, &region);
            Py_END_ALLOW_THREADS
            result = PyBool_FromLong(is_done);
        }
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"crop", crop, METH_VARARGS, crop_doc},
    {"pick", (PyCFunction)(void (*)(void))pick, METH_FASTCALL, pick_doc},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "SOURCES", LOADERD_SOURCES) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "VERSION", TEXT_OF(LIBJPEG_TURBO_VERSION));
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_jpeg",
    .m_doc = "Decodes some pixels of a JPEG with libjpeg-turbo.",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__jpeg(void) { return PyModuleDef_Init(&module_definition); }
