/* Integer work: arithmetic, memory, branches, calls, strings. */
#include <stdlib.h>
#include <string.h>

#include "cases.h"

/* --- alu: where a portable translator is already near the host --- */

static uint64_t alu_mix(void) {
  uint64_t a = 0x0123456789abcdef, b = 0xfedcba9876543210, c = 1;
  for (uint32_t i = 0; i < 30000000; ++i) {
    a += b ^ c;
    b = (b << 7 | b >> 57) - a;
    c = (c ^ a) + (b >> 3);
    OPAQUE(a);
  }
  return a ^ b ^ c;
}

static uint64_t divide_64(void) {
  uint64_t sum = 1, n = 0xffffffffffff1234;
  for (uint64_t i = 3; i < 3000003; ++i) {
    sum += n / i + n % (i | 1);
    OPAQUE(n);
  }
  return sum;
}

static uint64_t multiply_chain(void) {
  uint64_t x = 3, high = 0;
  for (uint32_t i = 0; i < 20000000; ++i) {
    const unsigned __int128 product = (unsigned __int128)x * 0x9e3779b97f4a7c15;
    high ^= (uint64_t)(product >> 64);
    x = (uint64_t)product + i;
  }
  return x ^ high;
}

/* --- integer --- */

static uint64_t sieve(void) {
  enum { kLimit = 4000000 };
  uint8_t* composite = calloc(kLimit, 1);
  uint64_t primes = 0, sum = 0;
  for (uint32_t i = 2; i < kLimit; ++i) {
    if (composite[i]) continue;
    ++primes;
    sum += i;
    for (uint64_t j = (uint64_t)i * i; j < kLimit; j += i) composite[j] = 1;
  }
  free(composite);
  return sum * 31 + primes;
}

static int compare_u32(const void* a, const void* b) {
  const uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
  return x < y ? -1 : x > y;
}

static uint64_t sort_callback(void) {
  enum { kCount = 300000 };
  uint32_t* values = malloc(kCount * sizeof *values);
  uint64_t seed = 88172645463325252, sum = 0;
  for (uint32_t i = 0; i < kCount; ++i) values[i] = (uint32_t)next_random(&seed);
  qsort(values, kCount, sizeof *values, compare_u32);
  for (uint32_t i = 0; i < kCount; i += 7) sum = sum * 31 + values[i];
  free(values);
  return sum;
}

static void heap_sift(uint32_t* heap, uint32_t at, uint32_t count) {
  const uint32_t value = heap[at];
  for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && heap[child + 1] > heap[child]) ++child;
    if (heap[child] <= value) break;
    heap[at] = heap[child];
  }
  heap[at] = value;
}

static uint64_t heap_sort(void) {
  enum { kCount = 400000 };
  uint32_t* values = malloc(kCount * sizeof *values);
  uint64_t seed = 88172645463325252, sum = 0;
  for (uint32_t i = 0; i < kCount; ++i) values[i] = (uint32_t)next_random(&seed);
  for (uint32_t i = kCount / 2; i-- > 0;) heap_sift(values, i, kCount);
  for (uint32_t end = kCount - 1; end > 0; --end) {
    const uint32_t top = values[0];
    values[0] = values[end];
    values[end] = top;
    heap_sift(values, 0, end);
  }
  for (uint32_t i = 0; i < kCount; i += 7) sum = sum * 31 + values[i];
  free(values);
  return sum;
}

__attribute__((noinline)) static uint64_t fibonacci(unsigned n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
static uint64_t recursion(void) { return fibonacci(36); }

static uint64_t pointer_chase(void) {
  enum { kCount = 1 << 17 }; /* 1 MiB */
  uint64_t* next = malloc(kCount * sizeof *next);
  uint64_t seed = 88172645463325252, at = 0;
  for (uint32_t i = 0; i < kCount; ++i) next[i] = i;
  for (uint32_t i = kCount - 1; i > 0; --i) { /* Sattolo: one cycle */
    const uint64_t j = next_random(&seed) % i, t = next[i];
    next[i] = next[j];
    next[j] = t;
  }
  for (uint32_t i = 0; i < 20000000; ++i) at = next[at];
  free(next);
  return at + 1;
}

/* A byte-code machine: indirect jumps that hang on data. */
static uint64_t op_add(uint64_t a, uint64_t b) { return a + b; }
static uint64_t op_xor(uint64_t a, uint64_t b) { return a ^ b; }
static uint64_t op_rotate(uint64_t a, uint64_t b) { return a << (b & 31) | a >> (64 - (b & 31) - 1); }
static uint64_t op_multiply(uint64_t a, uint64_t b) { return a * (b | 1); }
static uint64_t op_subtract(uint64_t a, uint64_t b) { return a - b; }

static uint64_t indirect_calls(void) {
  static uint64_t (*const volatile kOps[8])(uint64_t, uint64_t) = {op_add,      op_xor, op_rotate, op_multiply,
                                                                   op_subtract, op_add, op_xor,    op_rotate};
  uint8_t program[256];
  uint64_t seed = 88172645463325252, value = 1;
  for (unsigned i = 0; i < sizeof program; ++i) program[i] = (uint8_t)(next_random(&seed) & 7);
  for (uint32_t round = 0; round < 60000; ++round)
    for (unsigned i = 0; i < sizeof program; ++i) value = kOps[program[i]](value, i + round);
  return value | 1;
}

static uint64_t byte_codes(void) {
  uint8_t program[512];
  uint64_t seed = 1234567, stack[16] = {1, 2, 3, 4}, top = 4;
  for (unsigned i = 0; i < sizeof program; ++i) program[i] = (uint8_t)(next_random(&seed) % 7);
  for (uint32_t round = 0; round < 40000; ++round)
    for (unsigned at = 0; at < sizeof program; ++at) switch (program[at]) {
        case 0:
          stack[top & 15] = stack[(top - 1) & 15] + at;
          ++top;
          break;
        case 1:
          --top;
          stack[(top - 1) & 15] ^= stack[top & 15];
          break;
        case 2: stack[(top - 1) & 15] *= 0x10001; break;
        case 3: stack[(top - 1) & 15] >>= 1; break;
        case 4:
          if (stack[(top - 1) & 15] & 1) ++at;
          break;
        case 5: stack[(top + 3) & 15] += stack[top & 15]; break;
        default: --top; break;
      }
  for (unsigned i = 0; i < 16; ++i) top = top * 31 + stack[i];
  return top | 1;
}

static uint64_t lexer(void) {
  static const char kText[] =
      "static int total = 0x1f; /* count */ for (int i = 0; i < 100; ++i) { total += table[i] * 3.25e1; }\n"
      "if (name == \"kite\\n\") return sizeof(struct node) << 2; // done\n";
  uint64_t tokens = 0, hash = 5381;
  for (uint32_t round = 0; round < 400000; ++round)
    for (const char* p = kText; *p;) {
      if (*p == ' ' || *p == '\n') {
        ++p;
      } else if (*p == '/' && p[1] == '*') {
        for (p += 2; *p && !(p[0] == '*' && p[1] == '/'); ++p) {
        }
        p += 2;
      } else if (*p == '/' && p[1] == '/') {
        while (*p && *p != '\n') ++p;
      } else if (*p == '"') {
        for (++p; *p && *p != '"'; ++p) p += *p == '\\';
        ++p, ++tokens;
      } else if ((*p | 32) >= 'a' && (*p | 32) <= 'z') {
        for (; ((*p | 32) >= 'a' && (*p | 32) <= 'z') || (*p >= '0' && *p <= '9'); ++p) hash = hash * 33 + (uint8_t)*p;
        ++tokens;
      } else if (*p >= '0' && *p <= '9') {
        for (; (*p >= '0' && *p <= '9') || (*p | 32) == 'x' || *p == '.' || ((*p | 32) >= 'a' && (*p | 32) <= 'f'); ++p)
          hash ^= (uint64_t)(uint8_t)*p << (tokens & 31);
        ++tokens;
      } else {
        ++p, ++tokens;
      }
    }
  return hash ^ tokens;
}

static uint64_t strings(void) {
  static char a[65536], b[65536];
  uint64_t sum = 1;
  memset(a, 'x', sizeof a);
  for (uint32_t round = 0; round < 12000; ++round) {
    a[round % 60000] = 'y';
    memcpy(b, a, sizeof b);
    b[60001 + round % 5000] = 0;
    sum += strlen(b) + (uint64_t)(strchr(b, 'y') - b);
    sum += memcmp(a, b, 60000) == 0;
    a[round % 60000] = 'x';
  }
  return sum;
}

static uint64_t hash_table(void) {
  enum { kSlots = 1 << 16 };
  uint64_t *keys = calloc(kSlots, sizeof *keys), seed = 88172645463325252, hits = 1;
  for (uint32_t i = 0; i < 12000000; ++i) {
    const uint64_t key = (next_random(&seed) & 0x7fff) + 1;
    uint64_t at = (key * 0x9e3779b97f4a7c15) >> 48;
    while (keys[at] != 0 && keys[at] != key) at = (at + 1) & (kSlots - 1);
    hits += keys[at] == key;
    keys[at] = key;
  }
  free(keys);
  return hits;
}

static uint64_t crc_bytes(void) {
  uint32_t table[256], crc = ~0u;
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  for (uint32_t i = 0; i < 20000000; ++i) crc = table[(crc ^ i) & 0xff] ^ (crc >> 8);
  return crc | 1ull << 32;
}

static uint64_t matrix_integer(void) {
  enum { kSize = 384 };
  static int32_t a[kSize][kSize], b[kSize][kSize], c[kSize][kSize];
  uint64_t seed = 42, sum = 1;
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) a[i][j] = (int32_t)next_random(&seed), b[i][j] = (int32_t)next_random(&seed);
  for (int i = 0; i < kSize; ++i)
    for (int j = 0; j < kSize; ++j) {
      uint32_t total = 0;
      for (int k = 0; k < kSize; ++k) {
        total += (uint32_t)a[i][k] * (uint32_t)b[k][j];
        OPAQUE(total);
      }
      c[i][j] = (int32_t)total;
    }
  for (int i = 0; i < kSize; ++i) sum = sum * 31 + (uint32_t)c[i][kSize - 1 - i];
  return sum;
}

const struct bench_case integer_cases[] = {
    {"alu-mix", "alu", "", alu_mix},
    {"divide-64", "alu", "", divide_64},
    {"multiply", "alu", "", multiply_chain},
    {"sieve", "integer", "", sieve},
    {"qsort", "integer", "", sort_callback},
    {"heap-sort", "integer", "", heap_sort},
    {"recursion", "integer", "", recursion},
    {"pointer-chase", "integer", "", pointer_chase},
    {"indirect-calls", "integer", "", indirect_calls},
    {"byte-codes", "integer", "", byte_codes},
    {"lexer", "integer", "", lexer},
    {"strings", "integer", "", strings},
    {"hash-table", "integer", "", hash_table},
    {"crc-table", "integer", "", crc_bytes},
    {"matrix-int", "integer", "", matrix_integer},
    {0, 0, 0, 0},
};
