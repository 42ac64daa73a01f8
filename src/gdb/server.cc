#include "gdb/server.h"

namespace kite::gdb {

namespace {

constexpr std::string_view kDefault = "tcp::1234", kChardevId = "gdb";

// TCP waits for clients, without holding the machine up, unless it is told otherwise.
std::string complete(std::string_view device) {
  std::string text(device.empty() ? kDefault : device);
  if (!text.starts_with("tcp:")) return text;
  if (text.find(",server") == std::string::npos) text += ",server=on";
  if (text.find(",wait") == std::string::npos && text.find(",nowait") == std::string::npos) text += ",wait=off";
  return text;
}

}  // namespace

Server::Server(const monitor::MonitorContext& monitor) : monitor_(monitor) {
  monitor_.debugger = this;
  // Who stops the machine for a moment lets it go on before the next event.
  monitor_.machine.add_event_listener([self = std::weak_ptr(self_), this](const machine::MachineEvent& event) {
    if (self.expired() || event.kind != machine::MachineEvent::Kind::kStop) return;
    monitor_.machine.executor().post([self] {
      if (const auto server = self.lock(); server != nullptr && (*server)->stub_ != nullptr)
        (*server)->stub_->machine_stopped();
    });
  });
}

Server::~Server() { stop(); }

void Server::stop() {
  stub_.reset();
  if (chardev_ == nullptr) return;
  if (own_chardev_)
    monitor_.chardevs.remove(*chardev_);
  else
    monitor_.chardevs.give_back(*chardev_);
  chardev_ = nullptr;
}

Result<> Server::serve(std::string_view device) {
  if (stub_ != nullptr && stub_->busy()) return fail("gdbserver: the debugger that asks is its client; use a monitor");
  if (device == "none") return stop(), Result<>{};
  machine::Machine& machine = monitor_.machine;
  if (machine.vcpu_count() == 0) return fail("a debugger has nothing to do with a machine without CPUs");
  if (!machine.accelerator().executes())
    return fail("accelerator {} runs no guest code that a debugger could stop", machine.accelerator().name());
  stop();
  KITE_ASSIGN(chardev_, monitor_.chardevs.add_legacy(std::string(kChardevId), complete(device)));
  own_chardev_ = !device.starts_with("chardev:");
  stub_ = std::make_unique<Stub>(monitor_, *chardev_);
  return {};
}

void Server::machine_ended(int status) {
  if (stub_ != nullptr) stub_->machine_ended(status);
}

}  // namespace kite::gdb
