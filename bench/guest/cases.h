/* The fixed-work cases that compare software CPUs. Every case does the same work on every machine and answers a
 * checksum, so that a wrong result cannot pass for a fast one. */
#ifndef KITE_BENCH_CASES_H
#define KITE_BENCH_CASES_H

#include <stdint.h>

struct bench_case {
  const char* name;
  const char* class_name; /* alu, integer, vector, system */
  const char* needs;      /* CPU flag as /proc/cpuinfo names it; "" for none */
  uint64_t (*run)(void);  /* the checksum; 0 is a failure */
};

extern const struct bench_case integer_cases[], vector_cases[], system_cases[]; /* each ends with a null name */

/* A small generator with a fixed seed (xorshift64). */
static inline uint64_t next_random(uint64_t* state) {
  uint64_t x = *state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

/* Keeps the compiler from seeing through a value. */
#define OPAQUE(x) __asm__ volatile("" : "+r"(x))

#endif
