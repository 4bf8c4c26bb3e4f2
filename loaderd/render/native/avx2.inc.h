/* Parts of the kernels with AVX2; each does what the plain C in kernels.inc.h does. */

#define ALWAYS_INLINE TARGET static inline __attribute__((always_inline))

TARGET static void KERNEL(split_repeated)(const struct warp *w, const struct axis *axis,
                                          double *at, float *fraction, int32_t *first,
                                          int32_t *second)
{
    const __m256d start = _mm256_set1_pd(axis->start);
    const __m256d zero = _mm256_setzero_pd(), one = _mm256_set1_pd(1.0);
    const __m256d last = _mm256_set1_pd(axis->length - 1);
    const __m128i stride = _mm_set1_epi32(axis->stride);
    for (int32_t i = 0; i < w->width; i += 4) {
        __m256d c = _mm256_add_pd(start, _mm256_loadu_pd(axis->steps + i));
        __m256d whole = _mm256_floor_pd(c);
        c = _mm256_sub_pd(c, whole);
        __m256d next = _mm256_min_pd(_mm256_max_pd(_mm256_add_pd(whole, one), zero), last);
        whole = _mm256_min_pd(_mm256_max_pd(whole, zero), last);
        __m128i low = _mm_mullo_epi32(_mm256_cvttpd_epi32(whole), stride);
        __m128i high = _mm_mullo_epi32(_mm256_cvttpd_epi32(next), stride);
        _mm_storeu_si128((__m128i *)(first + i), low);
        _mm_storeu_si128((__m128i *)(second + i), high);
        if (w->is_fast) {
            __m128 is_one = _mm_castsi128_ps(_mm_cmpeq_epi32(low, high));
            _mm_storeu_ps(fraction + i, _mm_andnot_ps(is_one, _mm256_cvtpd_ps(c)));
        } else {
            _mm256_storeu_pd(at + i, _mm256_sub_pd(one, c));
        }
    }
}

/* A pixel of three or four channels, a lane for each; reads four. */
ALWAYS_INLINE __m256d doubles_of_bytes(const uint8_t *pixel)
{
    int32_t four;
    memcpy(&four, pixel, 4);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
}

ALWAYS_INLINE __m256d doubles_of_floats(const float *pixel)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(pixel));
}

/* Two neighbouring pixels of three or four channels; reads eight values from the left one on,
 * whose weight is one where there is no other. */
ALWAYS_INLINE __m256 pair_of_bytes(const uint8_t *row, int32_t left, int32_t right,
                                   const int channels)
{
    (void)right;
    const __m128i three = _mm_setr_epi8(0, 1, 2, 2, 3, 4, 5, 5, -1, -1, -1, -1, -1, -1, -1, -1);
    __m128i eight = _mm_loadl_epi64((const __m128i *)(row + left));
    if (channels == 3)
        eight = _mm_shuffle_epi8(eight, three);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
}

/* The same; a float that has no weight may still be infinite, so the right one is looked up. */
ALWAYS_INLINE __m256 pair_of_floats(const float *row, int32_t left, int32_t right,
                                    const int channels)
{
    (void)channels;
    __m256 pair = _mm256_castps128_ps256(_mm_loadu_ps(row + left));
    return _mm256_insertf128_ps(pair, _mm_loadu_ps(row + right), 1);
}

ALWAYS_INLINE __m128 lerp(__m128 a, __m128 b, __m128 fraction)
{
    return _mm_add_ps(a, _mm_mul_ps(fraction, _mm_sub_ps(b, a)));
}

/* Defines a function that writes pixels of three or four channels from the begin of a row, and
 * returns how many; the fourth value of three is overwritten by the next pixel. It does not read
 * beyond the source: what lies near its end is left to the plain code, as is the constant. */
#define DEFINE_INTERPOLATE(name, type, doubles, pair, plain)                                     \
    ALWAYS_INLINE __m128 name##_exact(const type *source, const struct taps t, int32_t i)        \
    {                                                                                            \
        const type *above = source + t.above[i], *below = source + t.below[i];                   \
        const __m256d one = _mm256_set1_pd(1.0);                                                 \
        __m256d y = _mm256_broadcast_sd(t.y + i), x = _mm256_broadcast_sd(t.x + i);              \
        __m256d down = _mm256_sub_pd(one, y), over = _mm256_sub_pd(one, x);                      \
        __m256d a = _mm256_mul_pd(_mm256_mul_pd(doubles(above + t.left[i]), y), x);              \
        __m256d b = _mm256_mul_pd(_mm256_mul_pd(doubles(above + t.right[i]), y), over);          \
        __m256d c = _mm256_mul_pd(_mm256_mul_pd(doubles(below + t.left[i]), down), x);           \
        __m256d d = _mm256_mul_pd(_mm256_mul_pd(doubles(below + t.right[i]), down), over);       \
        a = _mm256_add_pd(_mm256_setzero_pd(), a);                                               \
        a = _mm256_add_pd(_mm256_add_pd(_mm256_add_pd(a, b), c), d);                             \
        return _mm256_cvtpd_ps(a);                                                               \
    }                                                                                            \
                                                                                                 \
    ALWAYS_INLINE __m128 name##_fast(const type *source, const struct taps t, int32_t i,         \
                                     const int channels)                                         \
    {                                                                                            \
        __m256 above = pair(source + t.above[i], t.left[i], t.right[i], channels);               \
        __m256 below = pair(source + t.below[i], t.left[i], t.right[i], channels);               \
        __m256 down = _mm256_broadcast_ss(t.down + i);                                           \
        above = _mm256_add_ps(above, _mm256_mul_ps(down, _mm256_sub_ps(below, above)));          \
        return lerp(_mm256_castps256_ps128(above), _mm256_extractf128_ps(above, 1),              \
                    _mm_broadcast_ss(t.over + i));                                               \
    }                                                                                            \
                                                                                                 \
    ALWAYS_INLINE void name##_row(const struct warp *w, const type *source, int mirrored,        \
                                  float *restrict row, const int channels, const int is_fast,    \
                                  const int32_t unread)                                          \
    {                                                                                            \
        const struct taps t = w->taps;                                                           \
        const __m128 scale = _mm_set1_ps(w->scale);                                              \
        const int32_t count = w->width - 1, step = mirrored ? -1 : 1;                            \
        int32_t i = mirrored ? count : 0;                                                        \
        for (int32_t done = 0; done < count; done++, i += step, row += channels) {               \
            if (unread && (t.outside[i] || t.left[i] >= unread || t.right[i] >= unread))         \
                plain(w, source, i, row);                                                        \
            else                                                                                 \
                _mm_storeu_ps(row, _mm_mul_ps(scale, is_fast ? name##_fast(source, t, i, channels) \
                                                             : name##_exact(source, t, i)));       \
        }                                                                                        \
    }                                                                                            \
                                                                                                 \
    TARGET static int32_t name(const struct warp *w, const type *source, int mirrored,           \
                               float *row)                                                       \
    {                                                                                            \
        const int32_t n = w->width, channels = w->channels;                                      \
        if (channels < 3 || w->order == 0 || n < 3)                                              \
            return 0;                                                                            \
        const int32_t unread = unread_column(w);                                                 \
        const int kind = (channels == 4) << 2 | w->is_fast << 1 | (unread != 0);                 \
        switch (kind) {                                                                          \
        case 0: name##_row(w, source, mirrored, row, 3, 0, 0); break;                            \
        case 1: name##_row(w, source, mirrored, row, 3, 0, unread); break;                       \
        case 2: name##_row(w, source, mirrored, row, 3, 1, 0); break;                            \
        case 3: name##_row(w, source, mirrored, row, 3, 1, unread); break;                       \
        case 4: name##_row(w, source, mirrored, row, 4, 0, 0); break;                            \
        case 5: name##_row(w, source, mirrored, row, 4, 0, unread); break;                       \
        case 6: name##_row(w, source, mirrored, row, 4, 1, 0); break;                            \
        default: name##_row(w, source, mirrored, row, 4, 1, unread); break;                      \
        }                                                                                        \
        return n - 1;                                                                            \
    }

/* From which place in a source's row on the pixels of a row of output must be left to the plain
 * code; 0 if all can be read and none gets the constant. */
TARGET static int32_t unread_column(const struct warp *w)
{
    const struct taps *t = &w->taps;
    const int32_t n = w->width, row = n * w->channels, last_row = (w->height - 1) * row;
    int near_end = 0, outside = 0;
    for (int32_t i = 0; i < n; i++) {
        near_end |= t->above[i] == last_row || t->below[i] == last_row;
        outside |= t->outside[i];
    }
    if (near_end)
        return (n - 2) * w->channels;
    return outside ? row : 0;
}

DEFINE_INTERPOLATE(interpolate_bytes, uint8_t, doubles_of_bytes, pair_of_bytes,
                   KERNEL(pixel_of_bytes))
DEFINE_INTERPOLATE(interpolate_floats, float, doubles_of_floats, pair_of_floats,
                   KERNEL(pixel_of_floats))
#undef DEFINE_INTERPOLATE

/* Eight float32 as bfloat16, in the lower halves of 32 bits. */
ALWAYS_INLINE __m256i shortened(const float *values)
{
    const __m256 v = _mm256_loadu_ps(values);
    const __m256i bits = _mm256_castps_si256(v), half = _mm256_set1_epi32(0x7fff);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(half, odd));
    const __m256 sign = _mm256_and_ps(v, _mm256_set1_ps(-0.0f));
    const __m256 quiet = _mm256_or_ps(sign, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)));
    const __m256 is_none = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256 all = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, is_none);
    return _mm256_srli_epi32(_mm256_castps_si256(all), 16);
}

/* Looks up values in one table, 16 values of it at a time; returns how many.
 *
 * A shuffle gives 0 where the sum is negative; so each part of the table, but for the first of a
 * half, is XORed with the part before, and what is found in all parts up to a value's own is XORed
 * again. */
TARGET static size_t look_up_shared(const uint8_t *source, size_t n, const uint8_t *table,
                                    uint8_t *out)
{
    __m256i parts[16], part = _mm256_setzero_si256();
    for (int i = 0; i < 16; i++) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(table + 16 * i));
        const __m256i before = i == 8 ? _mm256_setzero_si256() : part;
        part = _mm256_broadcastsi128_si256(bytes);
        parts[i] = _mm256_xor_si256(part, before);
    }
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i low = _mm256_loadu_si256((const __m256i *)(source + i));
        __m256i high = _mm256_xor_si256(low, _mm256_set1_epi8(-128));
        __m256i found = _mm256_setzero_si256();
        for (int k = 0; k < 8; k++) {
            found = _mm256_xor_si256(found, _mm256_shuffle_epi8(parts[k], low));
            found = _mm256_xor_si256(found, _mm256_shuffle_epi8(parts[8 + k], high));
            low = _mm256_subs_epi8(low, _mm256_set1_epi8(16));
            high = _mm256_subs_epi8(high, _mm256_set1_epi8(16));
        }
        _mm256_storeu_si256((__m256i *)(out + i), found);
    }
    return i;
}

/* Mirrors a row but for its first pixels, which become the last; returns how many are done.
 *
 * A load takes the bytes up to the end of a group of whole pixels; of the 16 that it stores, the
 * next group overwrites those beyond the group. */
TARGET static int32_t mirror_most(const uint8_t *source, int32_t pixels, int32_t size,
                                  uint8_t *out)
{
    __m128i order;
    if (size == 1)
        order = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    else if (size == 3)
        order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
    else if (size == 4)
        order = _mm_setr_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    else
        return 0;
    const int32_t group = 16 / size;
    int32_t done = 0;
    for (; done + group < pixels; done += group) {
        const uint8_t *end = source + (size_t)(pixels - done) * size;
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(end - 16));
        _mm_storeu_si128((__m128i *)(out + (size_t)done * size), _mm_shuffle_epi8(bytes, order));
    }
    return done;
}
