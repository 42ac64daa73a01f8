// QmpSession: one QMP monitor on a chardev. Lines end with CR LF. A new connection starts over with the greeting and
// capabilities negotiation. Main executor's thread only.
#pragma once

#include <string>
#include <vector>

#include "chardev/chardev.h"
#include "monitor/json_stream.h"
#include "monitor/output_queue.h"
#include "monitor/qmp_commands.h"

namespace kite::monitor {

class QmpSession final : public ChardevClient {
 public:
  QmpSession(MonitorContext context, Chardev& chardev, bool pretty);
  ~QmpSession() override;

  void announce(const machine::MachineEvent& event);
  void announce(std::string_view event, const Json& data);

  size_t can_receive() override { return 65536; }
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override { output_.flush(); }

 private:
  static constexpr size_t kMostQueued = 64u << 20;  // replies a client does not read; beyond it they are dropped

  void handle(const JsonStream::Item& item);
  void execute(const Json& request);
  QmpReply negotiate(const Json& arguments);
  void announce(const Json& event);  // without its time
  void send(const Json& message);
  void send_error(const QmpError& error, const Json* id);

  PassedFds fds_;
  MonitorContext context_;
  Chardev& chardev_;
  bool pretty_;
  bool connected_ = false;
  bool negotiated_ = false;
  JsonStream input_;
  OutputQueue output_;
};

}  // namespace kite::monitor
