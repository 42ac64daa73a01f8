// Runs streams on the host CPU, in a child process.
//
// The child lives in a signal handler: a stream is started by returning from the handler with the stream's registers in
// the signal frame, and it ends with a fault, whose frame holds every register as the stream left it. No instruction of
// ours runs in between.
#pragma once

#include <sys/types.h>

#include <memory>

#include "streams/snapshot.h"

namespace kite::streams {

class NativeRunner {
 public:
  NativeRunner();
  ~NativeRunner();
  NativeRunner(const NativeRunner&) = delete;
  NativeRunner& operator=(const NativeRunner&) = delete;

  // False when the child died or did not answer in two seconds; a new one is started then.
  bool run(const World& world, Outcome& outcome);

  struct Exchange;  // shared with the child

 private:
  void start();
  void stop();

  Exchange* exchange_ = nullptr;
  int memory_fd_ = -1;
  int to_child_ = -1;
  int from_child_ = -1;
  pid_t child_ = -1;
};

}  // namespace kite::streams
