// Server: the stub and the character device that it waits on, as -gdb and the monitor's gdbserver say. Main executor's
// thread.
#pragma once

#include <memory>
#include <string>

#include "gdb/stub.h"
#include "monitor/debug_server.h"

namespace kite::gdb {

class Server final : public monitor::DebugServer {
 public:
  // `monitor`: for the commands of a client.
  explicit Server(const monitor::MonitorContext& monitor);
  ~Server() override;

  Result<> serve(std::string_view device) override;
  void machine_ended(int status);

 private:
  void stop();

  monitor::MonitorContext monitor_;
  std::unique_ptr<Stub> stub_;
  Chardev* chardev_ = nullptr;
  bool own_chardev_ = false;  // made for it
  // Gone with the server: what was posted by then does nothing.
  std::shared_ptr<Server*> self_ = std::make_shared<Server*>(this);
};

}  // namespace kite::gdb
