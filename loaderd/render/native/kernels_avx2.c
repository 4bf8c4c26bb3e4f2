/* The kernels for x86-64 processors with AVX2, and those for processors that also have AVX-512 with
 * VBMI, whose shuffles look up 128 values. */
#include <math.h>
#include <string.h>

#include "kernels.h"

#ifdef HAVE_AVX
#include <immintrin.h>

#define KERNEL(name) name##_avx2
#define TARGET __attribute__((target("avx2,f16c")))
#define WITH_AVX2
#include "kernels.inc.h"

#define TARGET_VBMI __attribute__((target("avx512f,avx512bw,avx512vbmi")))

/* The same, 64 values at a time. `channels` is a constant where it is called. */
TARGET_VBMI static inline __attribute__((always_inline)) size_t
look_up_each(const uint8_t *source, size_t n, const int channels, const uint8_t *tables,
             uint8_t *out)
{
    __m512i parts[4 * 4];
    __mmask64 of[4]; /* the values of each channel, in a vector that begins with the first */
    for (int k = 0; k < channels; k++) {
        for (int i = 0; i < 4; i++)
            parts[4 * k + i] = _mm512_loadu_si512(tables + 256 * k + 64 * i);
        of[k] = channels == 1 ? -1ull : channels == 3 ? 0x9249249249249249ull : 0x1111111111111111ull;
        of[k] <<= k;
    }
    size_t i = 0;
    for (int first = 0; i + 64 <= n; i += 64, first = (first + 64) % channels) {
        const __m512i values = _mm512_loadu_si512(source + i);
        const __mmask64 is_high = _mm512_movepi8_mask(values);
        __m512i found = values;
        for (int k = 0; k < channels; k++) {
            const __m512i *p = parts + 4 * k;
            const __m512i low = _mm512_permutex2var_epi8(p[0], values, p[1]);
            const __m512i high = _mm512_permutex2var_epi8(p[2], values, p[3]);
            const __m512i each = _mm512_mask_mov_epi8(low, is_high, high);
            const int at = (k - first + channels) % channels;
            found = _mm512_mask_mov_epi8(found, of[at], each);
        }
        _mm512_storeu_si512(out + i, found);
    }
    return i;
}

TARGET_VBMI static void look_up_avx512(const uint8_t *source, size_t pixels, int32_t channels,
                                       const uint8_t *tables, uint8_t *out)
{
    const size_t n = pixels * channels;
    size_t done = 0;
    if (channels == 1)
        done = look_up_each(source, n, 1, tables, out);
    else if (channels == 3)
        done = look_up_each(source, n, 3, tables, out);
    else if (channels == 4)
        done = look_up_each(source, n, 4, tables, out);
    for (; done < n; done++)
        out[done] = tables[256 * (done % channels) + source[done]];
}

/* The last 21 pixels of 3 bytes in 64 bytes, backwards; the rest is overwritten. */
static const uint8_t BACKWARDS[64] = {
    61, 62, 63, 58, 59, 60, 55, 56, 57, 52, 53, 54, 49, 50, 51, 46, 47, 48, 43, 44, 45,
    40, 41, 42, 37, 38, 39, 34, 35, 36, 31, 32, 33, 28, 29, 30, 25, 26, 27, 22, 23, 24,
    19, 20, 21, 16, 17, 18, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0,
};

/* As `mirror_most` in avx2.inc.h. */
TARGET_VBMI static void mirror_avx512(const uint8_t *source, int32_t pixels, int32_t size,
                                      uint8_t *out)
{
    const __m512i order = _mm512_loadu_si512(BACKWARDS);
    for (; size == 3 && pixels > 21; pixels -= 21, out += 63) {
        const __m512i bytes = _mm512_loadu_si512(source + 3 * (size_t)pixels - 64);
        _mm512_storeu_si512(out, _mm512_permutexvar_epi8(order, bytes));
    }
    if (size != 3) {
        mirror_avx2(source, pixels, size, out);
        return;
    }
    const int n = 3 * pixels;
    const __mmask64 rest = (1ull << n) - 1; /* of at most 63 bytes */
    const __m512i last = _mm512_sub_epi8(order, _mm512_set1_epi8((char)(64 - n)));
    const __m512i bytes = _mm512_maskz_loadu_epi8(rest, source);
    _mm512_mask_storeu_epi8(out, rest, _mm512_permutexvar_epi8(last, bytes));
}

#undef KERNEL
#undef TARGET
#define KERNEL(name) name##_avx512
#define TARGET TARGET_VBMI
#include "colors.inc.h"

#define SET(name, set)                                                                           \
    {                                                                                            \
        name, warp_bytes_avx2, warp_floats_avx2, mirror_##set, look_up_##set, sum_colors_##set,  \
            change_colors_##set, widen_avx2, multiply_avx2, subtract_avx2, divide_avx2,          \
            halve_avx2, shorten_avx2, truncate_avx2,                                             \
    }

const struct kernels avx2_kernels = SET("AVX2", avx2);
const struct kernels avx512_kernels = SET("AVX-512", avx512);
#endif
