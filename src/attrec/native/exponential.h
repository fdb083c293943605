/* e^x for x <= 0. What is below the smallest share that a sum can feel is 0: no product meets the
   numbers near the end of the range, which processors treat slowly. */

/* Cephes' polynomial for e^r, |r| <= ln 2 / 2, times 2^n: within 2e-7 of e^x, and a loop over it
   is a loop over vectors, which calls of expf are not. */
static INLINE float falling_float(float x)
{
    const float rounder = 12582912.0f; /* 1.5 * 2^23: adding it rounds, and leaves n in the bits */
    const float shifted = x * 1.44269504088896341f + rounder;
    const float n = shifted - rounder;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f, power;
    uint32_t bits;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    return x < -60.0f ? 0.0f : p * power;
}

static INLINE double falling_double(double x) { return x < -700.0 ? 0.0 : exp(x); }
