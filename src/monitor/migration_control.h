// MigrationControl: what the monitor knows of a machine that goes out or comes in: settings, and who is told. Main
// executor's thread.
#pragma once

#include <functional>
#include <string_view>

#include "machine/incoming.h"
#include "machine/migration.h"
#include "monitor/qmp_error.h"

namespace kite::monitor {

class MigrationControl {
 public:
  // `announce` sends an event to every client; `failed` hears that no machine comes in any more.
  using Announce = std::function<void(const machine::MachineEvent& event)>;
  MigrationControl(machine::Machine& machine, Announce announce, std::function<void(const Error& error)> failed);

  // By a URI as snapshot/channel.h has them; `fd` is the descriptor that "fd:NAME" means, when it is not a number.
  Result<> send(std::string_view uri, Fd fd);
  Result<> receive(std::string_view uri, Fd fd);

  [[nodiscard]] machine::Migration& outgoing() { return outgoing_; }
  [[nodiscard]] machine::Incoming& incoming() { return incoming_; }
  // The capability "events": changes of the status are announced.
  [[nodiscard]] bool announces() const { return announces_; }
  void set_announces(bool on) { announces_ = on; }
  // Names of dirty bitmaps that go or come, as a client has given them; null: their own.
  [[nodiscard]] const Json& bitmap_mapping() const { return bitmap_mapping_; }
  void set_bitmap_mapping(const Json& mapping);

 private:
  void tell(machine::MigrationStatus status) const;

  Announce announce_;
  bool announces_ = false;
  Json bitmap_mapping_;
  machine::Migration outgoing_;
  machine::Incoming incoming_;
};

}  // namespace kite::monitor
