/* kbench [NAME]...: runs the cases, all of them or those named, and prints for each
 *   case NAME CLASS MICROSECONDS CHECKSUM        or   case NAME CLASS skipped FLAG */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cases.h"

static int has_flag(const char* flag) {
  static char text[1 << 16];
  if (*flag == 0) return 1;
  if (text[0] == 0) {
    FILE* file = fopen("/proc/cpuinfo", "r");
    if (file == 0) return 0;
    const size_t got = fread(text, 1, sizeof text - 1, file);
    text[got] = 0;
    fclose(file);
  }
  char word[64];
  snprintf(word, sizeof word, " %s ", flag);
  for (char* at = text; *at; ++at)
    if (*at == '\n') *at = ' ';
  return strstr(text, word) != 0;
}

static void run_case(const struct bench_case* one) {
  if (!has_flag(one->needs)) {
    printf("case %s %s skipped %s\n", one->name, one->class_name, one->needs);
    return;
  }
  struct timespec begin, end;
  fflush(stdout);
  clock_gettime(CLOCK_MONOTONIC, &begin);
  const uint64_t sum = one->run();
  clock_gettime(CLOCK_MONOTONIC, &end);
  const double spent = (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
  printf("case %s %s %.0f %016llx\n", one->name, one->class_name, spent, (unsigned long long)sum);
  fflush(stdout);
}

int main(int count, char** words) {
  static const struct bench_case* const kLists[] = {integer_cases, vector_cases, system_cases};
  if (count == 2 && strcmp(words[1], "--nothing") == 0) return 0;
  for (unsigned list = 0; list < 3; ++list)
    for (const struct bench_case* one = kLists[list]; one->name; ++one) {
      int wanted = count == 1;
      for (int i = 1; i < count; ++i)
        wanted |= strcmp(words[i], one->name) == 0 || strcmp(words[i], one->class_name) == 0;
      if (wanted) run_case(one);
    }
  return 0;
}
