/* Floating point and vectors: x87, SSE2, AVX2, FMA, AES, SHA. */
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits | 1;
}

struct body {
  double x[3], v[3], mass;
};

static uint64_t n_body(void) {
  struct body bodies[5] = {{{0, 0, 0}, {0, 0, 0}, 39.5},
                           {{4.84, -1.16, -0.10}, {0.6, 2.8, -0.02}, 0.038},
                           {{8.34, 4.12, -0.4}, {-1.01, 1.82, 0.008}, 0.011},
                           {{12.9, -15.1, -0.22}, {1.08, 0.87, -0.01}, 0.0017},
                           {{15.4, -25.9, 0.18}, {0.98, 0.59, -0.035}, 0.002}};
  for (uint32_t step = 0; step < 500000; ++step) {
    for (int i = 0; i < 5; ++i)
      for (int j = i + 1; j < 5; ++j) {
        double d[3], distance = 0;
        for (int k = 0; k < 3; ++k) {
          d[k] = bodies[i].x[k] - bodies[j].x[k];
          distance += d[k] * d[k];
        }
        const double scale = 0.001 / (distance * sqrt(distance));
        for (int k = 0; k < 3; ++k) {
          bodies[i].v[k] -= d[k] * bodies[j].mass * scale;
          bodies[j].v[k] += d[k] * bodies[i].mass * scale;
        }
      }
    for (int i = 0; i < 5; ++i)
      for (int k = 0; k < 3; ++k) bodies[i].x[k] += 0.001 * bodies[i].v[k];
  }
  return bits_of(bodies[1].x[0] + bodies[4].x[2]);
}

static uint64_t matrix_double(void) {
  enum { kSize = 512 };
  static double a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) a[i][j] = i * 0.5 + j, b[i][j] = i - j * 0.25, c[i][j] = 0;
  for (int i = 0; i < kSize; ++i)
    for (int k = 0; k < kSize; ++k)
      for (int j = 0; j < kSize; ++j) c[i][j] += a[i][k] * b[k][j];
  return bits_of(c[17][33] + c[511][0]);
}

static uint64_t mandelbrot(void) {
  uint64_t inside = 1;
  for (int y = 0; y < 300; ++y)
    for (int x = 0; x < 400; ++x) {
      const double cr = x / 200.0 - 1.5, ci = y / 150.0 - 1.0;
      double zr = 0, zi = 0;
      unsigned i = 0;
      for (; i < 300 && zr * zr + zi * zi < 4; ++i) {
        const double t = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci;
        zr = t;
      }
      inside = inside * 3 + i;
    }
  return inside;
}

static uint64_t x87_series(void) {
  volatile long double limit = 12000000;
  long double sum = 0, sign = 1;
  for (long double i = 0; i < limit; i += 1) {
    sum += sign / (2 * i + 1);
    sign = -sign;
  }
  return bits_of((double)(sum * 4));
}

static uint64_t x87_functions(void) {
  long double sum = 0;
  for (int i = 1; i < 400000; ++i) {
    long double x = i * 0.001L, sine, log2;
    __asm__("fsin" : "=t"(sine) : "0"(x));
    __asm__("fyl2x" : "=t"(log2) : "0"(x), "u"(1.0L) : "st(1)");
    sum += sine * log2;
  }
  return bits_of((double)sum);
}

static uint64_t sse2_pixels(void) {
  enum { kPixels = 1 << 16 };
  static uint8_t a[kPixels] __attribute__((aligned(16))), b[kPixels] __attribute__((aligned(16)));
  uint64_t sum = 1;
  for (int i = 0; i < kPixels; ++i) a[i] = (uint8_t)(i * 7), b[i] = (uint8_t)(i * 13 + 5);
  for (int round = 0; round < 10000; ++round) {
    __m128i total = _mm_setzero_si128();
    for (int i = 0; i < kPixels; i += 16) {
      const __m128i x = _mm_load_si128((const __m128i*)(a + i)), y = _mm_load_si128((const __m128i*)(b + i));
      const __m128i mixed = _mm_avg_epu8(_mm_adds_epu8(x, y), _mm_subs_epu8(y, x));
      total = _mm_add_epi64(total, _mm_sad_epu8(mixed, _mm_max_epu8(x, y)));
      _mm_store_si128((__m128i*)(a + i), mixed);
    }
    sum = sum * 31 + (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(total, _mm_unpackhi_epi64(total, total)));
  }
  return sum;
}

static uint64_t sse2_singles(void) {
  enum { kCount = 4096 };
  static float x[kCount] __attribute__((aligned(16))), y[kCount] __attribute__((aligned(16)));
  for (int i = 0; i < kCount; ++i) x[i] = (float)i * 0.25f, y[i] = 1.0f;
  for (int round = 0; round < 60000; ++round) {
    const __m128 scale = _mm_set1_ps(0.999f), bias = _mm_set1_ps((float)round * 1e-6f);
    for (int i = 0; i < kCount; i += 4) {
      const __m128 value = _mm_add_ps(_mm_mul_ps(_mm_load_ps(x + i), scale), bias);
      _mm_store_ps(y + i, _mm_max_ps(_mm_sub_ps(_mm_load_ps(y + i), value), _mm_set1_ps(-100.0f)));
    }
  }
  double sum = 0;
  for (int i = 0; i < kCount; ++i) sum += (double)y[i];
  return bits_of(sum);
}

__attribute__((target("avx2"))) static uint64_t avx2_integers(void) {
  enum { kCount = 1 << 14 };
  static uint32_t a[kCount] __attribute__((aligned(32)));
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < kCount; ++i) a[i] = (uint32_t)i * 2654435761u;
  for (int round = 0; round < 20000; ++round)
    for (int i = 0; i < kCount; i += 8) {
      __m256i x = _mm256_load_si256((const __m256i*)(a + i));
      x = _mm256_add_epi32(_mm256_mullo_epi32(x, _mm256_set1_epi32(1664525)), _mm256_set1_epi32(1013904223));
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 13));
      total = _mm256_add_epi32(total, _mm256_shuffle_epi8(x, _mm256_set1_epi64x(0x0001020304050607)));
      _mm256_store_si256((__m256i*)(a + i), x);
    }
  uint32_t out[8];
  _mm256_storeu_si256((__m256i*)out, total);
  uint64_t sum = 1;
  for (int i = 0; i < 8; ++i) sum = sum * 31 + out[i];
  return sum;
}

__attribute__((target("avx2,fma"))) static uint64_t fma_doubles(void) {
  enum { kCount = 2048 };
  static double a[kCount] __attribute__((aligned(32)));
  for (int i = 0; i < kCount; ++i) a[i] = i * 1e-3;
  __m256d total = _mm256_setzero_pd();
  for (int round = 0; round < 40000; ++round)
    for (int i = 0; i < kCount; i += 4)
      total = _mm256_fmadd_pd(_mm256_load_pd(a + i), _mm256_set1_pd(1.0 / (round + 1)), total);
  double out[4];
  _mm256_storeu_pd(out, total);
  return bits_of(out[0] + out[1] + out[2] + out[3]);
}

__attribute__((target("aes,sse4.1"))) static uint64_t aes_rounds(void) {
  __m128i block = _mm_set_epi64x(0x0123456789abcdef, 0x0fedcba987654321), key = _mm_set1_epi32(0x2b7e1516);
  for (uint32_t i = 0; i < 8000000; ++i) {
    block = _mm_aesenc_si128(block, key);
    key = _mm_add_epi32(key, block);
  }
  return (uint64_t)_mm_cvtsi128_si64(block) | 1;
}

__attribute__((target("sha,sse4.1"))) static uint64_t sha_rounds(void) {
  __m128i abef = _mm_set_epi32(1, 2, 3, 4), cdgh = _mm_set_epi32(5, 6, 7, 8), words = _mm_set_epi32(9, 10, 11, 12);
  for (uint32_t i = 0; i < 3000000; ++i) {
    const __m128i next = _mm_sha256rnds2_epu32(cdgh, abef, words);
    cdgh = abef;
    abef = next;
    words = _mm_sha256msg1_epu32(words, next);
  }
  return (uint64_t)_mm_cvtsi128_si64(abef) | 1;
}

const struct bench_case vector_cases[] = {
    {"n-body", "vector", "", n_body},
    {"matrix", "vector", "", matrix_double},
    {"mandelbrot", "vector", "", mandelbrot},
    {"x87-series", "vector", "", x87_series},
    {"x87-functions", "vector", "", x87_functions},
    {"sse2-integer", "vector", "", sse2_pixels},
    {"sse2-single", "vector", "", sse2_singles},
    {"avx2-integer", "vector", "avx2", avx2_integers},
    {"fma-double", "vector", "fma", fma_doubles},
    {"aes", "vector", "aes", aes_rounds},
    {"sha", "vector", "sha_ni", sha_rounds},
    {0, 0, 0, 0},
};
