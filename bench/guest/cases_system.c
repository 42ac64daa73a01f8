/* Work of the operating system: system calls, faults, processes, threads, files. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

static uint64_t system_calls(void) {
  uint64_t sum = 1;
  for (uint32_t i = 0; i < 400000; ++i) sum += (uint64_t)syscall(SYS_getppid) & 0;
  return sum;
}

static uint64_t page_faults(void) {
  enum { kBytes = 32 << 20, kPage = 4096 };
  uint64_t sum = 1;
  for (int round = 0; round < 4; ++round) {
    uint8_t* memory = mmap(0, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 0;
    madvise(memory, kBytes, MADV_NOHUGEPAGE);
    for (uint32_t at = 0; at < kBytes; at += kPage) memory[at] = (uint8_t)at + 1;
    for (uint32_t at = 0; at < kBytes; at += kPage) sum += memory[at];
    munmap(memory, kBytes);
  }
  return sum;
}

static uint64_t fork_exec(void) {
  uint64_t good = 0;
  for (int i = 0; i < 150; ++i) {
    const pid_t child = fork();
    if (child < 0) return 0;
    if (child == 0) {
      execl("/proc/self/exe", "kbench", "--nothing", (char*)0);
      _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return good == 150 ? good : 0;
}

static uint64_t fork_wait(void) {
  uint64_t good = 0;
  for (int i = 0; i < 400; ++i) {
    const pid_t child = fork();
    if (child < 0) return 0;
    if (child == 0) _exit(i & 63);
    int status = 0;
    waitpid(child, &status, 0);
    good += WIFEXITED(status) && WEXITSTATUS(status) == (i & 63);
  }
  return good == 400 ? good : 0;
}

static uint64_t pipe_ping_pong(void) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) return 0;
  const pid_t child = fork();
  if (child < 0) return 0;
  char byte = 0;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1) {
    }
    _exit(0);
  }
  uint64_t sum = 1;
  for (uint32_t i = 0; i < 15000; ++i) {
    byte = (char)i;
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 0;
    sum += (uint8_t)byte;
  }
  close(there[0]), close(there[1]), close(back[0]), close(back[1]);
  waitpid(child, 0, 0);
  return sum;
}

static uint64_t protections(void) {
  enum { kBytes = 1 << 20 };
  uint8_t* memory = mmap(0, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  memset(memory, 1, kBytes);
  uint64_t sum = 1;
  for (uint32_t i = 0; i < 30000; ++i) {
    uint8_t* page = memory + (i * 37 % 256) * 4096;
    if (mprotect(page, 4096, PROT_READ) != 0) return 0;
    sum += page[i & 4095];
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0) return 0;
    page[i & 4095]++;
  }
  munmap(memory, kBytes);
  return sum;
}

static void* yield_often(void* argument) {
  for (int i = 0; i < 25000; ++i) sched_yield();
  return argument;
}

static uint64_t context_switches(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i)
    if (pthread_create(&threads[i], 0, yield_often, 0) != 0) return 0;
  for (int i = 0; i < 2; ++i) pthread_join(threads[i], 0);
  return 1;
}

static atomic_uint_fast64_t g_shared;
static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t g_guarded;

static void* count_atomically(void* argument) {
  for (int i = 0; i < 1000000; ++i) atomic_fetch_add(&g_shared, 3);
  for (int i = 0; i < 100000; ++i) {
    pthread_mutex_lock(&g_mutex);
    ++g_guarded;
    pthread_mutex_unlock(&g_mutex);
  }
  return argument;
}

static uint64_t threads_atomics(void) {
  pthread_t threads[4];
  g_shared = g_guarded = 0;
  for (int i = 0; i < 4; ++i)
    if (pthread_create(&threads[i], 0, count_atomically, 0) != 0) return 0;
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], 0);
  return g_shared == 12000000 && g_guarded == 400000 ? g_shared : 0;
}

static volatile sig_atomic_t g_signals;
static void on_signal(int number) { g_signals += number != 0; }

static uint64_t signals(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, 0);
  g_signals = 0;
  for (int i = 0; i < 40000; ++i) raise(SIGUSR1);
  return g_signals == 40000 ? 40000 : 0;
}

static uint64_t file_io(void) {
  static char data[16384];
  const int file = open("/tmp/kbench.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0) return 0;
  uint64_t sum = 1;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 256; ++i) {
      memset(data, i + round, sizeof data);
      if (pwrite(file, data, sizeof data, (off_t)i * (off_t)sizeof data) != (ssize_t)sizeof data) return 0;
    }
    for (int i = 0; i < 256; ++i) {
      if (pread(file, data, sizeof data, (off_t)i * (off_t)sizeof data) != (ssize_t)sizeof data) return 0;
      sum += (uint8_t)data[i];
    }
  }
  close(file);
  unlink("/tmp/kbench.data");
  return sum;
}

const struct bench_case system_cases[] = {
    {"system-calls", "system", "", system_calls},
    {"page-faults", "system", "", page_faults},
    {"fork-exec", "system", "", fork_exec},
    {"fork-wait", "system", "", fork_wait},
    {"pipe-ping-pong", "system", "", pipe_ping_pong},
    {"mprotect", "system", "", protections},
    {"yield", "system", "", context_switches},
    {"threads-atomics", "system", "", threads_atomics},
    {"signals", "system", "", signals},
    {"file-io", "system", "", file_io},
    {0, 0, 0, 0},
};
