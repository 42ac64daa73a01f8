/* kbench [--parallel N] [NAME]...: runs the cases, all of them or those named, each in N processes at once. Each prints
 *   case NAME CLASS MICROSECONDS CHECKSUM        or   case NAME CLASS skipped FLAG */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

/* The checksum, or 0 unless all of them agree. */
static uint64_t run_in_processes(const struct bench_case* one, int processes) {
  int results[2];
  if (pipe(results) != 0) return 0;
  for (int i = 0; i < processes; ++i) {
    const pid_t child = fork();
    if (child < 0) return 0;
    if (child != 0) continue;
    const uint64_t sum = one->run();
    _exit(write(results[1], &sum, sizeof sum) != sizeof sum);
  }
  close(results[1]);
  uint64_t first = 0;
  for (int i = 0; i < processes; ++i) {
    uint64_t sum = 0;
    if (read(results[0], &sum, sizeof sum) != sizeof sum) sum = 0;
    if (i == 0) first = sum;
    if (sum != first) first = 0;
  }
  close(results[0]);
  while (wait(0) > 0) {
  }
  return first;
}

static void run_case(const struct bench_case* one, int processes) {
  if (!has_flag(one->needs)) {
    printf("case %s %s skipped %s\n", one->name, one->class_name, one->needs);
    return;
  }
  struct timespec begin, end;
  fflush(stdout);
  clock_gettime(CLOCK_MONOTONIC, &begin);
  const uint64_t sum = processes == 1 ? one->run() : run_in_processes(one, processes);
  clock_gettime(CLOCK_MONOTONIC, &end);
  const double spent = (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
  printf("case %s %s %.0f %016llx\n", one->name, one->class_name, spent, (unsigned long long)sum);
  fflush(stdout);
}

int main(int count, char** words) {
  static const struct bench_case* const kLists[] = {integer_cases, vector_cases, system_cases};
  if (count == 2 && strcmp(words[1], "--nothing") == 0) return 0;
  int first = 1, processes = 1;
  if (count > 2 && strcmp(words[1], "--parallel") == 0) {
    processes = atoi(words[2]);
    first = 3;
  }
  for (unsigned list = 0; list < 3; ++list)
    for (const struct bench_case* one = kLists[list]; one->name; ++one) {
      int wanted = count == first;
      for (int i = first; i < count; ++i)
        wanted |= strcmp(words[i], one->name) == 0 || strcmp(words[i], one->class_name) == 0;
      if (wanted) run_case(one, processes);
    }
  return 0;
}
