/* The Python module of the kernels; see kernels.py. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <string.h>

#include "finish.h"

#define MAX_SIDE (1 << 20)
#define MAX_VALUES (1 << 30) /* of an image: places are 32 bits */

_Static_assert(sizeof(size_t) == 8, "sizes of many images are computed in 64 bits");

static const char *const FILL_MODES[] = {"nearest", "constant", "reflect", "wrap", NULL};
static const char *const OUTPUTS[] = {"float32", "float16", "bfloat16", "uint8", NULL};
static const char *const OUTPUT_FORMATS[] = {"f", "e", "H", "B"};
static const char *const ARITHMETIC[] = {"multiply", "subtract", "divide", "reverse_channels",
                                         NULL};

/* The place of a name in a list; -1 with an error if it is not there. */
static int find(const char *name, const char *const names[], const char *what)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    PyErr_Format(PyExc_ValueError, "%s cannot be %s", what, name);
    return -1;
}

/* Takes an aligned buffer of one of some formats; 0, or -1 with an error. */
static int take_any(PyObject *object, Py_buffer *view, int flags, const char *formats,
                    const char *what)
{
    if (PyObject_GetBuffer(object, view, flags | PyBUF_FORMAT) < 0)
        return -1;
    const char *format = view->format == NULL ? "B" : view->format;
    if (strlen(format) != 1 || strchr(formats, *format) == NULL)
        PyErr_Format(PyExc_ValueError, "%s: a buffer of format %s, not one of %s", what, format,
                     formats);
    else if (strchr("lq", *format) != NULL && view->itemsize != 8)
        PyErr_Format(PyExc_ValueError, "%s: not of 64 bits", what);
    else if ((uintptr_t)view->buf % (size_t)view->itemsize)
        PyErr_Format(PyExc_ValueError, "%s: not aligned", what);
    else
        return 0;
    PyBuffer_Release(view);
    return -1;
}

/* The same, if it is C-contiguous. */
static int take(PyObject *object, Py_buffer *view, int flags, const char *formats,
                const char *what)
{
    return take_any(object, view, flags | PyBUF_C_CONTIGUOUS, formats, what);
}

/* The same, of so many values. */
static int take_values(PyObject *object, Py_buffer *view, int flags, const char *formats,
                       size_t count, const char *what)
{
    if (take(object, view, flags, formats, what) < 0)
        return -1;
    if ((size_t)view->len == count * (size_t)view->itemsize)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes, not %zu values", what, view->len, count);
    PyBuffer_Release(view);
    return -1;
}

static void release(Py_buffer *const views[], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (views[i]->obj != NULL)
            PyBuffer_Release(views[i]);
}

/* The kernels of a name, "" for the fastest; NULL with an error if the processor has none. */
static const struct kernels *find_kernels(const char *name)
{
    const struct kernels *found;
    for (int i = 0; (found = kernels_at(i)) != NULL; i++)
        if (*name == 0 || strcmp(found->name, name) == 0)
            return found;
    PyErr_Format(PyExc_ValueError, "kernels cannot be %s", name);
    return NULL;
}

/* -- tables ------------------------------------------------------------------------------ */

struct tables {
    uint8_t values[256 * MAX_CHANNELS];
    int32_t count;
};

/* Takes a table for all channels (256,), or a column for each (256, channels), of bytes. */
static int take_tables(PyObject *object, int32_t channels, struct tables *tables)
{
    Py_buffer given;
    if (take(object, &given, 0, "B", "table") < 0)
        return -1;
    const int32_t count = given.len == 256 ? 1 : channels;
    const int fits = given.len == 256 * (Py_ssize_t)count;
    tables->count = count;
    for (int32_t i = 0; fits && i < 256; i++)
        for (int32_t k = 0; k < count; k++)
            tables->values[256 * k + i] = ((const uint8_t *)given.buf)[i * count + k];
    if (!fits)
        PyErr_Format(PyExc_ValueError, "table: %zd values, not 256, or so many for each channel",
                     given.len);
    PyBuffer_Release(&given);
    return fits ? 0 : -1;
}

PyDoc_STRVAR(look_up_doc,
             "look_up(image, table, out, kernels='')\n--\n\n"
             "Writes the values in a table, uint8 (256,) or (256, channels), to `out`.");

static PyObject *look_up(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *given, *table, *target, *result = NULL;
    const char *name = "";
    Py_buffer image = {0}, out = {0};
    Py_buffer *const views[] = {&image, &out};
    struct tables tables;
    if (!PyArg_ParseTuple(args, "OOO|s:look_up", &given, &table, &target, &name))
        return NULL;
    const struct kernels *kernels = find_kernels(name);
    if (kernels == NULL || take(given, &image, 0, "B", "image") < 0)
        return NULL;
    const Py_ssize_t channels = image.ndim == 3 ? image.shape[2] : 0;
    if (channels < 1 || channels > MAX_CHANNELS)
        PyErr_SetString(PyExc_ValueError, "image: not of (height, width, channels)");
    else if (take_tables(table, (int32_t)channels, &tables) == 0 &&
             take_values(target, &out, PyBUF_WRITABLE, "B", (size_t)image.len, "out") == 0) {
        Py_BEGIN_ALLOW_THREADS
        kernels->look_up(image.buf, (size_t)image.len / tables.count, tables.count,
                         tables.values, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    release(views, 2);
    return result;
}

/* -- colours ----------------------------------------------------------------------------- */

/* Contrast is around the mean of each channel. */
static void set_contrast(struct colors *colors, const struct kernels *kernels,
                         const Py_buffer *image, int32_t channels)
{
    const size_t pixels = (size_t)image->len / channels;
    double sums[3] = {0};
    if (colors->scale == 1 || pixels == 0)
        return;
    kernels->sum_colors(colors, image->buf, pixels, channels, sums);
    for (int k = 0; k < 3; k++)
        colors->offsets[k] = (float)((1 - (double)colors->scale) * sums[k] / (double)pixels);
}

PyDoc_STRVAR(change_colors_doc,
             "change_colors(image, out, changes, kernels='')\n--\n\n"
             "Writes an image of bytes with other colours to `out`. `changes` are four numbers: "
             "grey levels that are added, by what the distance to the mean of each channel and "
             "the saturation are multiplied, and the turn of the hue, from 0 to 6.");

static PyObject *change_colors(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *given, *target, *result = NULL;
    const char *name = "";
    float turn;
    struct colors colors = {0};
    Py_buffer image = {0}, out = {0};
    Py_buffer *const views[] = {&image, &out};
    if (!PyArg_ParseTuple(args, "OO(ffff)|s:change_colors", &given, &target, &colors.add,
                          &colors.scale, &colors.saturation, &turn, &name))
        return NULL;
    colors.has_hue = colors.saturation != 1 || turn != 0;
    for (int k = 0; k < 3; k++) /* red, green and blue are 0, 2 and 4 sixths of the circle */
        colors.firsts[k] = fmodf(turn + 5 - 2 * k, 6) - 2;
    const struct kernels *kernels = find_kernels(name);
    if (kernels == NULL || take(given, &image, 0, "B", "image") < 0)
        return NULL;
    const Py_ssize_t channels = image.ndim == 3 ? image.shape[2] : 0;
    if (channels != 1 && channels != 3 && channels != 4)
        PyErr_SetString(PyExc_ValueError, "image: not of (height, width, 1, 3 or 4)");
    else if (!(turn >= 0 && turn <= 6))
        PyErr_SetString(PyExc_ValueError, "the turn must be from 0 to 6");
    else if (take_values(target, &out, PyBUF_WRITABLE, "B", (size_t)image.len, "out") == 0) {
        Py_BEGIN_ALLOW_THREADS
        set_contrast(&colors, kernels, &image, (int32_t)channels);
        kernels->change_colors(&colors, image.buf, (size_t)image.len / channels,
                               (int32_t)channels, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    release(views, 2);
    return result;
}

/* -- Finish ------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    struct finish finish;
    int is_busy;
} Finish;

static int add_step(struct finish *f, PyObject *step)
{
    const char *name;
    PyObject *values;
    if (!PyTuple_Check(step)) {
        PyErr_SetString(PyExc_TypeError, "a step is a tuple of a name and values");
        return -1;
    }
    if (!PyArg_ParseTuple(step, "sO", &name, &values))
        return -1;
    const int kind = find(name, ARITHMETIC, "a step");
    if (kind < 0)
        return -1;
    if (f->n_steps == MAX_STEPS) {
        PyErr_Format(PyExc_ValueError, "more than %d steps", MAX_STEPS);
        return -1;
    }
    if (kind == REVERSE_CHANNELS)
        return finish_add(f, kind, NULL);
    Py_buffer by;
    if (take_values(values, &by, 0, "f", f->warp.channels, name) < 0)
        return -1;
    const int added = finish_add(f, kind, by.buf);
    PyBuffer_Release(&by);
    if (added < 0)
        PyErr_NoMemory();
    return added;
}

static int add_steps(struct finish *f, PyObject *steps)
{
    PyObject *iterator = PyObject_GetIter(steps), *step;
    if (iterator == NULL)
        return -1;
    int added = 0;
    while (added == 0 && (step = PyIter_Next(iterator)) != NULL) {
        added = add_step(f, step);
        Py_DECREF(step);
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : added;
}

static int set_up(struct finish *f, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"shape", "fill_mode", "cval",   "order",         "fast",
                            "steps", "dtype",     "planar", "kernels", NULL};
    struct warp *w = &f->warp;
    const char *fill_mode = "nearest", *dtype = "float32", *kernels = "";
    PyObject *steps = NULL;
    w->order = 1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "(iii)|$sdipOsps:Finish", names, &w->height,
                                     &w->width, &w->channels, &fill_mode, &w->cval, &w->order,
                                     &w->is_fast, &steps, &dtype, &f->is_planar, &kernels))
        return -1;
    const int32_t h = w->height, n = w->width, channels = w->channels;
    if (h < 1 || n < 1 || channels < 1 || h > MAX_SIDE || n > MAX_SIDE ||
        channels > MAX_CHANNELS || (int64_t)h * n * channels > MAX_VALUES) {
        PyErr_Format(PyExc_ValueError, "no image can be of shape (%d, %d, %d)", h, n, channels);
        return -1;
    }
    if (w->order < 0 || w->order > 1) {
        PyErr_Format(PyExc_ValueError, "order must be 0 or 1, got %d", w->order);
        return -1;
    }
    const int fill = find(fill_mode, FILL_MODES, "fill_mode");
    const int output = find(dtype, OUTPUTS, "dtype");
    f->kernels = find_kernels(kernels);
    if (fill < 0 || output < 0 || f->kernels == NULL)
        return -1;
    w->fill = fill;
    f->output = output;
    if (finish_begin(f) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return steps == NULL ? 0 : add_steps(f, steps);
}

static PyObject *finish_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    Finish *self = (Finish *)PyType_GenericAlloc(type, 0);
    if (self != NULL && set_up(&self->finish, args, keywords) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void finish_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    finish_end(&((Finish *)self)->finish);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Has one thread at a time use the buffers of an object. */
static int begin_use(Finish *self)
{
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "a Finish is used by two threads");
        return -1;
    }
    self->is_busy = 1;
    return 0;
}

static size_t values_of(const Finish *self)
{
    const struct warp *w = &self->finish.warp;
    return (size_t)w->height * w->width * w->channels;
}

/* The matrix of a row; NULL for no warp. */
static const double *matrix_of(const Py_buffer *matrices, size_t row)
{
    const double *matrix = matrices->buf == NULL ? NULL : (const double *)matrices->buf + 6 * row;
    return matrix == NULL || matrix[0] != matrix[0] ? NULL : matrix;
}

static struct image image_of(const Py_buffer *images, size_t offset, const Py_buffer *matrices,
                             const Py_buffer *flips, size_t row)
{
    const int flip = flips->buf == NULL ? 0 : ((const uint8_t *)flips->buf)[row];
    const struct image image = {
        .pixels = (const char *)images->buf + offset,
        .is_float = images->itemsize == 4,
        .matrix = matrix_of(matrices, row),
        .mirrored = flip & 1,
        .upside_down = flip & 2,
    };
    return image;
}

/* Takes the warps and flips of so many rows, each of which may be None. */
static int take_drawn(PyObject *const *args, Py_buffer *matrices, Py_buffer *flips, size_t rows)
{
    if (args[0] != Py_None && take_values(args[0], matrices, 0, "d", 6 * rows, "matrices") < 0)
        return -1;
    if (args[1] != Py_None && take_values(args[1], flips, 0, "B", rows, "flips") < 0)
        return -1;
    return 0;
}

/* Takes an image whose rows may be further apart than they are long. */
static int take_image(PyObject *object, Py_buffer *view, const struct warp *w)
{
    if (take_any(object, view, PyBUF_STRIDES, "Bf", "image") < 0)
        return -1;
    const Py_ssize_t *s = view->shape, *apart = view->strides, size = view->itemsize;
    const Py_ssize_t values = (Py_ssize_t)w->height * w->width * w->channels;
    if (view->len == values * size && PyBuffer_IsContiguous(view, 'C'))
        return 0;
    if (view->ndim == 3 && s[0] == w->height && s[1] == w->width && s[2] == w->channels &&
        apart[2] == size && apart[1] == size * s[2] && apart[0] >= apart[1] * s[1] &&
        apart[0] % size == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "image: %zd bytes, not %zd values in contiguous rows of pixels",
                 view->len, values);
    PyBuffer_Release(view);
    return -1;
}

PyDoc_STRVAR(one_doc,
             "one(image, matrices, flips, at, row, table=None)\n--\n\n"
             "Writes one finished image to `row`, with the warp and flip of row `at` of a chunk; "
             "see `many`. Without a warp, rows of the image may be further apart than they are "
             "long. A table is for images of bytes without a warp; see `look_up`.");

static PyObject *finish_one(Finish *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 5 && n_args != 6) {
        PyErr_Format(PyExc_TypeError, "one() takes 5 or 6 arguments, got %zd", n_args);
        return NULL;
    }
    struct finish *f = &self->finish;
    const size_t count = values_of(self);
    Py_buffer image = {0}, matrices = {0}, flips = {0}, row = {0};
    Py_buffer *const views[] = {&image, &matrices, &flips, &row};
    PyObject *result = NULL, *table = n_args == 6 && args[5] != Py_None ? args[5] : NULL;
    struct tables tables;
    const Py_ssize_t at = PyLong_AsSsize_t(args[3]);
    if (at == -1 && PyErr_Occurred())
        return NULL;
    if (take_image(args[0], &image, &f->warp) < 0 ||
        take_values(args[4], &row, PyBUF_WRITABLE, OUTPUT_FORMATS[f->output], count, "row") < 0 ||
        (args[1] != Py_None && take(args[1], &matrices, 0, "d", "matrices") < 0) ||
        (args[2] != Py_None && take(args[2], &flips, 0, "B", "flips") < 0))
        goto done;
    const size_t n_matrices = (size_t)matrices.len / (6 * sizeof(double));
    if (at < 0 || (matrices.obj != NULL && (size_t)at >= n_matrices) ||
        (flips.obj != NULL && at >= flips.len)) {
        PyErr_Format(PyExc_IndexError, "there is no row %zd", at);
        goto done;
    }
    if (table != NULL && (image.itemsize != 1 || matrices.obj != NULL)) {
        PyErr_SetString(PyExc_ValueError, "a table is for bytes that are not warped");
        goto done;
    }
    if (matrices.obj != NULL && !PyBuffer_IsContiguous(&image, 'C')) {
        PyErr_SetString(PyExc_ValueError, "rows that are apart are not warped");
        goto done;
    }
    if (table != NULL && take_tables(table, f->warp.channels, &tables) < 0)
        goto done;
    if (begin_use(self) == 0) {
        struct image one = image_of(&image, 0, &matrices, &flips, (size_t)at);
        if (image.ndim == 3)
            one.stride = (size_t)image.strides[0];
        one.tables = table == NULL ? NULL : tables.values;
        one.n_tables = table == NULL ? 0 : tables.count;
        Py_BEGIN_ALLOW_THREADS
        finish_image(f, &one, row.buf);
        Py_END_ALLOW_THREADS
        self->is_busy = 0;
        result = Py_NewRef(Py_None);
    }
done:
    release(views, 4);
    return result;
}

PyDoc_STRVAR(many_doc,
             "many(images, index, matrices, flips, rows)\n--\n\n"
             "Writes a finished image to each of `rows`: row i is that of image index[i].\n\n"
             "`index` holds int64, and may be None: all images in their order. `matrices` holds "
             "six doubles for each row, the first of which is NaN for no warp, and may be None. "
             "`flips` holds a byte for each row: 1 for mirrored, plus 2 for upside down.");

struct many {
    Py_buffer images, index, matrices, flips, rows;
};

static int take_many(Finish *self, PyObject *const *args, struct many *all)
{
    const char *format = OUTPUT_FORMATS[self->finish.output];
    if (take(args[0], &all->images, 0, "Bf", "images") < 0 ||
        take(args[4], &all->rows, PyBUF_WRITABLE, format, "rows") < 0)
        return -1;
    const size_t size = values_of(self) * (size_t)all->images.itemsize;
    const size_t row = finish_size(&self->finish);
    const size_t images = (size_t)all->images.len / size, n = (size_t)all->rows.len / row;
    if ((size_t)all->images.len % size || (size_t)all->rows.len % row ||
        (args[1] == Py_None && images != n)) {
        PyErr_SetString(PyExc_ValueError, "images and rows are of other sizes, or numbers");
        return -1;
    }
    if (args[1] != Py_None && take_values(args[1], &all->index, 0, "lq", n, "index") < 0)
        return -1;
    if (take_drawn(args + 2, &all->matrices, &all->flips, n) < 0)
        return -1;
    const int64_t *index = all->index.buf;
    for (size_t i = 0; index != NULL && i < n; i++)
        if (index[i] < 0 || (size_t)index[i] >= images) {
            PyErr_Format(PyExc_IndexError, "there is no image %lld of %zu", (long long)index[i],
                         images);
            return -1;
        }
    return 0;
}

static void run_many(struct finish *f, const struct many *all, size_t size)
{
    const size_t row = finish_size(f), n = (size_t)all->rows.len / row;
    const int64_t *index = all->index.buf;
    int is_fetched = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t offset = size * (index == NULL ? i : (size_t)index[i]);
        struct image one = image_of(&all->images, offset, &all->matrices, &all->flips, i);
        one.is_fetched = is_fetched;
        is_fetched = i + 1 < n && matrix_of(&all->matrices, i + 1) != NULL;
        if (is_fetched)
            one.next = (const char *)all->images.buf +
                       size * (index == NULL ? i + 1 : (size_t)index[i + 1]);
        finish_image(f, &one, (char *)all->rows.buf + i * row);
    }
}

static PyObject *finish_many(Finish *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 5) {
        PyErr_Format(PyExc_TypeError, "many() takes 5 arguments, got %zd", n_args);
        return NULL;
    }
    struct many all = {0};
    Py_buffer *const views[] = {&all.images, &all.index, &all.matrices, &all.flips, &all.rows};
    PyObject *result = NULL;
    if (take_many(self, args, &all) == 0 && begin_use(self) == 0) {
        Py_BEGIN_ALLOW_THREADS
        run_many(&self->finish, &all, values_of(self) * (size_t)all.images.itemsize);
        Py_END_ALLOW_THREADS
        self->is_busy = 0;
        result = Py_NewRef(Py_None);
    }
    release(views, 5);
    return result;
}

static PyMethodDef finish_methods[] = {
    {"one", (PyCFunction)(void (*)(void))finish_one, METH_FASTCALL, one_doc},
    {"many", (PyCFunction)(void (*)(void))finish_many, METH_FASTCALL, many_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(finish_doc,
             "Finish(shape, *, fill_mode='nearest', cval=0.0, order=1, fast=False, steps=(), "
             "dtype='float32', planar=False, kernels='')\n--\n\n"
             "Warps, flips, computes and converts loaded images; used by one thread at a time.");

static PyType_Slot finish_slots[] = {
    {Py_tp_doc, (void *)finish_doc},
    {Py_tp_new, finish_new},
    {Py_tp_dealloc, finish_dealloc},
    {Py_tp_methods, finish_methods},
    {0, NULL},
};

static PyType_Spec finish_spec = {
    .name = "loaderd.render.native._kernels.Finish",
    .basicsize = sizeof(Finish),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = finish_slots,
};

/* -- bfloat16 ---------------------------------------------------------------------------- */

PyDoc_STRVAR(to_bfloat16_doc,
             "to_bfloat16(values, out)\n--\n\n"
             "Writes the bits of float32 values as bfloat16, rounded to nearest even, to `out`, "
             "which holds as many uint16.");

static PyObject *to_bfloat16(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *given, *target;
    Py_buffer values = {0}, out = {0};
    Py_buffer *const views[] = {&values, &out};
    if (!PyArg_ParseTuple(args, "OO:to_bfloat16", &given, &target))
        return NULL;
    PyObject *result = NULL;
    if (take(given, &values, 0, "f", "values") == 0 &&
        take_values(target, &out, PyBUF_WRITABLE, "H", (size_t)values.len / sizeof(float),
                    "out") == 0) {
        Py_BEGIN_ALLOW_THREADS
        best_kernels()->shorten(values.buf, (size_t)values.len / sizeof(float), out.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    release(views, 2);
    return result;
}

static PyMethodDef module_methods[] = {
    {"look_up", look_up, METH_VARARGS, look_up_doc},
    {"change_colors", change_colors, METH_VARARGS, change_colors_doc},
    {"to_bfloat16", to_bfloat16, METH_VARARGS, to_bfloat16_doc},
    {NULL, NULL, 0, NULL},
};

/* -- the module -------------------------------------------------------------------------- */

/* The names of all kernels that this processor has, the fastest first. */
static int add_kernels(PyObject *module)
{
    PyObject *names = PyList_New(0);
    const struct kernels *each;
    int failed = names == NULL;
    for (int i = 0; !failed && (each = kernels_at(i)) != NULL; i++) {
        PyObject *name = PyUnicode_FromString(each->name);
        failed = name == NULL || PyList_Append(names, name) < 0;
        Py_XDECREF(name);
    }
    failed = failed || PyModule_AddObjectRef(module, "ALL_KERNELS", names) < 0;
    Py_XDECREF(names);
    return failed ? -1 : PyModule_AddStringConstant(module, "KERNELS", best_kernels()->name);
}

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&finish_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "Finish", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    if (PyModule_AddIntConstant(module, "MAX_SIDE", MAX_SIDE) < 0 ||
        PyModule_AddIntConstant(module, "MAX_VALUES", MAX_VALUES) < 0 ||
        PyModule_AddIntConstant(module, "MAX_CHANNELS", MAX_CHANNELS) < 0 ||
        PyModule_AddIntConstant(module, "MAX_STEPS", MAX_STEPS) < 0 ||
        PyModule_AddStringConstant(module, "SOURCES", LOADERD_SOURCES) < 0)
        return -1;
    return add_kernels(module);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernels",
    .m_doc = "The kernels of loaderd, in C.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&module_definition); }
