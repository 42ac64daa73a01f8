#include "display/server_thread.h"

namespace kite::display {

Result<std::unique_ptr<ServerThread>> ServerThread::create(std::string name, Executor& executor) {
  KITE_ASSIGN(auto loop, Executor::create(std::move(name)));
  return std::unique_ptr<ServerThread>(new ServerThread(executor, std::move(loop)));
}

void ServerThread::start(std::function<void()> begin, std::function<void()> end) {
  loop_->attach(clock_);
  thread_ = std::thread([this, begin = std::move(begin), end = std::move(end)] {
    begin();
    loop_->run();
    end();
  });
}

void ServerThread::stop() {
  alive_.reset();
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
  loop_->detach(clock_);
}

void ServerThread::post_back(std::function<void()> work) {
  executor_.post([still = still_alive_, work = std::move(work)] {
    if (still.lock() != nullptr) work();
  });
}

}  // namespace kite::display
