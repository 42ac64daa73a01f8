// What the process itself does: going to the background, the pid file, signals.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/executor.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::main {

// -daemonize: fork; the parent waits and exits 0 once ready() was called in the child, or with the child's failure.
// Error text that the child prints before that still reaches the user.
class Daemon {
 public:
  // In the child, or without a fork when `wanted` is false; the parent does not come back.
  static Result<Daemon> start(bool wanted);
  // The machine is ready: detaches from the terminal and lets the parent go.
  Result<> ready();

 private:
  Fd notify_;
};

// Writes the process id and holds a lock on the file; removes it when destroyed.
class PidFile {
 public:
  PidFile() = default;
  static Result<PidFile> create(const std::string& path);
  PidFile(PidFile&& other) noexcept = default;
  PidFile& operator=(PidFile&& other) noexcept = default;
  ~PidFile();

 private:
  Fd fd_;
  std::string path_;
};

// SIGINT, SIGTERM and SIGHUP arrive on the executor; SIGPIPE is ignored. Call before any thread starts: blocks them.
Result<Fd> watch_signals(Executor& executor, std::function<void(int signal)> handler);

// ps and top show "kite NAME" for the main thread.
void set_process_name(const std::string& name);

}  // namespace kite::main
