#include "warp.h"

#include <math.h>

/* Whether no coordinate on an axis leaves the range of fixed point. */
static int is_small(const double *m, const struct warp *w)
{
    const double most = fabs(m[0]) * w->height + fabs(m[1]) * w->width + fabs(m[2]);
    const int32_t limit = 1 << (30 - POINT);
    return most < limit && w->height < limit && w->width < limit;
}

void warp_begin(struct warp *w, const double *m)
{
    const size_t second = padded(w->width);
    w->is_finite = 1;
    for (int i = 0; i < 6; i++)
        w->is_finite &= fabs(m[i]) < 1e12;
    for (int32_t x = 0; x < w->width; x++) {
        w->steps[x] = x * m[1];
        w->steps[second + x] = x * m[4];
    }
    w->is_fixed = w->is_fast && w->order && w->fill == FILL_NEAREST && is_small(m, w) &&
                  is_small(m + 3, w);
    if (w->is_fixed)
        for (size_t x = 0; x < 2 * second; x++)
            w->fixed[x] = (int32_t)lrint(w->steps[x] * (1 << POINT));
}

/* Whole periods in `at`; none if they cannot be counted. */
static double periods(double at, double period)
{
    double count = at / period;
    return count < 9e15 ? (double)(int64_t)count : 0.0;
}

/* A coordinate outside 0 to length - 1, mapped into (-1, length); else it gets the constant.
 * The rules are those of scipy's ndimage: "reflect" repeats after twice the length, "wrap"
 * after one pixel less than the length. */
static double mapped(double at, int32_t length, enum fill fill)
{
    if (fill == FILL_CONSTANT || at != at)
        return -1.0;
    if (length <= 1)
        return 0.0;
    if (fill == FILL_NEAREST)
        return at < 0 ? 0.0 : length - 1.0;
    if (fill == FILL_WRAP) {
        double period = length - 1.0;
        at += period * (at < 0 ? periods(-at, period) + 1.0 : -periods(at, period));
        return at < period ? at : period; /* whatever was rounded */
    }
    double period = 2.0 * length;
    if (at < 0) {
        if (at < -period)
            at += period * periods(-at, period);
        if (at < -length)
            return at + period;
        return (at > -1e-15 ? 1e-15 : -at) - 1.0;
    }
    at -= period * periods(at, period);
    return at >= length ? period - at - 1.0 : at;
}

void warp_map_outside(const struct warp *w, double *at, int32_t length)
{
    const int32_t n = w->width;
    const double last = length - 1;
    /* Coordinates ascend or descend, as a product and a sum of doubles change no order: all
     * that lie within are neighbours. */
    int32_t begin = 0, end = n;
    while (begin < n && !(at[begin] >= 0 && at[begin] <= last))
        begin++;
    while (end > begin && !(at[end - 1] >= 0 && at[end - 1] <= last))
        end--;
    for (int32_t i = begin == 0 ? end : 0; i < n; i = i + 1 == begin ? end : i + 1) {
        double c = mapped(at[i], length, w->fill);
        int lies_in = c > -1 && c < length;
        w->taps.outside[i] |= !lies_in;
        at[i] = lies_in ? c : 0;
    }
}
