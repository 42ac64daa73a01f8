// ServerThread: a thread with an event loop for a display server whose library waits for its clients. Work goes to it
// and comes back as posted work; nobody waits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "async/clock.h"
#include "async/executor.h"
#include "support/result.h"

namespace kite::display {

class ServerThread {
 public:
  // Main executor's thread, as start() and stop(). The executor outlives this.
  static Result<std::unique_ptr<ServerThread>> create(std::string name, Executor& executor);
  ~ServerThread() { stop(); }
  ServerThread(const ServerThread&) = delete;
  ServerThread& operator=(const ServerThread&) = delete;

  // `begin` and `end` run on the thread, around everything else that does.
  void start(std::function<void()> begin, std::function<void()> end);
  // What was posted still runs; what was posted back does not, from now on.
  void stop();

  // Any thread.
  void post(std::function<void()> work) { loop_->post(std::move(work)); }
  // Any thread: to the main executor, and forgotten once stop() was called.
  void post_back(std::function<void()> work);

  // For the thread.
  [[nodiscard]] Executor& loop() { return *loop_; }
  [[nodiscard]] Clock& clock() { return clock_; }

 private:
  ServerThread(Executor& executor, std::unique_ptr<Executor> loop) : executor_(executor), loop_(std::move(loop)) {}

  Executor& executor_;
  HostClock clock_{HostClock::Kind::kMonotonic};
  std::unique_ptr<Executor> loop_;
  std::thread thread_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  const std::weak_ptr<bool> still_alive_ = alive_;  // what other threads copy
};

}  // namespace kite::display
