/* Brightness, contrast, saturation and hue of pixels, for one instruction set; included once for
 * each, as kernels.inc.h. Compilers vectorise these loops: what is in them has no branches. */

#define BLOCK 64

/* The colours of up to BLOCK pixels, a row for each channel but alpha. */
TARGET static void KERNEL(take_block)(const uint8_t *restrict source, int32_t n, int32_t channels,
                                      float values[restrict 3][BLOCK])
{
    if (channels == 3 && n == BLOCK) {
        for (int32_t i = 0; i < BLOCK; i++) {
            values[0][i] = source[3 * i];
            values[1][i] = source[3 * i + 1];
            values[2][i] = source[3 * i + 2];
        }
        return;
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < channels && k < 3; k++)
            values[k][i] = source[i * channels + k];
}

TARGET static void KERNEL(sum_colors)(const struct colors *colors, const uint8_t *source,
                                      size_t pixels, int32_t channels, double *sums)
{
    float values[3][BLOCK] = {{0}};
    const float add = colors->add;
    for (size_t at = 0; at < pixels; at += BLOCK, source += BLOCK * channels) {
        const int32_t n = pixels - at < BLOCK ? (int32_t)(pixels - at) : BLOCK;
        KERNEL(take_block)(source, n, channels, values);
        for (int32_t k = 0; k < channels && k < 3; k++) {
            float lanes[8] = {0};
            for (int32_t i = n; i < BLOCK; i++)
                values[k][i] = -add;
            for (int32_t i = 0; i < BLOCK; i += 8)
                for (int32_t j = 0; j < 8; j++) {
                    float value = values[k][i + j] + add;
                    value = value > 0 ? value : 0;
                    lanes[j] += value < 255 ? value : 255;
                }
            sums[k] += lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] +
                       lanes[6] + lanes[7];
        }
    }
}

/* Brightness and contrast of one channel. */
TARGET static void KERNEL(level)(const struct colors *colors, int32_t channel,
                                 float *restrict values)
{
    const float add = colors->add, scale = colors->scale, offset = colors->offsets[channel];
    for (int32_t i = 0; i < BLOCK; i++) {
        float value = values[i] + add;
        value = value > 0 ? value : 0;
        value = value < 255 ? value : 255;
        value = value * scale + offset;
        value = value > 0 ? value : 0;
        values[i] = value < 255 ? value : 255;
    }
}

/* Saturation and hue. Where it is highest, a channel has the value of HSV; there, and up to a sixth
 * of the circle away, it lacks nothing; beyond two sixths, it lacks all of the chroma. `first` is
 * by how many sixths the hue is turned and counted from the channel's complement. */
TARGET static inline float KERNEL(colored)(float hue, float first, float highest, float chroma)
{
    float from = hue + first;
    const float again = from - 6;
    from = from > 3 ? again : from;
    float lack = 2 - (from < 0 ? -from : from);
    lack = lack > 0 ? lack : 0;
    lack = lack < 1 ? lack : 1;
    const float value = highest - chroma * lack;
    return value > 0 ? value : 0;
}

TARGET static void KERNEL(color)(const struct colors *colors, float *restrict reds,
                                 float *restrict greens, float *restrict blues)
{
    const float saturation = colors->saturation;
    const float first_red = colors->firsts[0], first_green = colors->firsts[1],
                first_blue = colors->firsts[2];
    for (int32_t i = 0; i < BLOCK; i++) {
        const float red = reds[i], green = greens[i], blue = blues[i];
        float highest = red > green ? red : green;
        highest = highest > blue ? highest : blue;
        float lowest = red < green ? red : green;
        lowest = lowest < blue ? lowest : blue;
        float chroma = highest - lowest;
        const float of_red = green - blue, of_green = blue - red, of_blue = red - green;
        float distance = highest == green ? of_green : of_blue;
        float hue = highest == green ? 2.0f : 4.0f; /* in sixths of the circle */
        distance = highest == red ? of_red : distance;
        hue = highest == red ? 0.0f : hue;
        hue += distance / (chroma > 1e-20f ? chroma : 1e-20f);
        chroma *= saturation;
        reds[i] = KERNEL(colored)(hue, first_red, highest, chroma);
        greens[i] = KERNEL(colored)(hue, first_green, highest, chroma);
        blues[i] = KERNEL(colored)(hue, first_blue, highest, chroma);
    }
}

/* Rounded to nearest even: the sum has no place for a fraction. */
TARGET static inline uint8_t KERNEL(rounded)(float value)
{
    const float sum = value + 8388608.0f;
    uint32_t bits;
    memcpy(&bits, &sum, 4);
    return (uint8_t)bits;
}

TARGET static void KERNEL(put_block)(const float values[restrict 3][BLOCK], int32_t n,
                                     int32_t channels, uint8_t *restrict out)
{
    uint8_t bytes[3][BLOCK];
    for (int32_t i = 0; i < BLOCK; i++) {
        bytes[0][i] = KERNEL(rounded)(values[0][i]);
        bytes[1][i] = KERNEL(rounded)(values[1][i]);
        bytes[2][i] = KERNEL(rounded)(values[2][i]);
    }
    if (channels == 3 && n == BLOCK) {
        for (int32_t i = 0; i < BLOCK; i++) {
            out[3 * i] = bytes[0][i];
            out[3 * i + 1] = bytes[1][i];
            out[3 * i + 2] = bytes[2][i];
        }
        return;
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < channels && k < 3; k++)
            out[i * channels + k] = bytes[k][i];
}

TARGET static void KERNEL(change_colors)(const struct colors *colors, const uint8_t *source,
                                         size_t pixels, int32_t channels, uint8_t *out)
{
    float values[3][BLOCK] = {{0}};
    for (size_t at = 0; at < pixels; at += BLOCK) {
        const int32_t n = pixels - at < BLOCK ? (int32_t)(pixels - at) : BLOCK;
        KERNEL(take_block)(source, n, channels, values);
        for (int32_t k = 0; k < channels && k < 3; k++)
            KERNEL(level)(colors, k, values[k]);
        if (channels > 1 && colors->has_hue)
            KERNEL(color)(colors, values[0], values[1], values[2]);
        KERNEL(put_block)((const float(*)[BLOCK])values, n, channels, out);
        for (int32_t i = 0; channels == 4 && i < n; i++)
            out[4 * i + 3] = source[4 * i + 3];
        source += n * channels;
        out += n * channels;
    }
}

#undef BLOCK
