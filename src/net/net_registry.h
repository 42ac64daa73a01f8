// NetRegistry: the network back ends of a machine, by id. Used by main/, the boards and the monitor, on the executor's
// thread or before it runs. Cards are gone, or learn that their back end is, before it is destroyed.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "async/clock.h"
#include "net/stream_backend.h"
#include "net/user_backend.h"

namespace kite::net {

// One line each for -netdev help.
std::string netdev_help();
std::vector<std::string> netdev_types();
// Whether a setting of this name is a descriptor, which the back end takes when it comes to be.
bool is_netdev_descriptor(std::string_view setting);

class NetRegistry {
 public:
  explicit NetRegistry(Executor& executor);
  ~NetRegistry();
  NetRegistry(const NetRegistry&) = delete;
  NetRegistry& operator=(const NetRegistry&) = delete;

  // -netdev, netdev_add: "type", "id" and what the type takes. Unknown types and settings are refused by name.
  Result<NetBackend*> add(const Settings& settings);
  // netdev_del; a card that has it finds its link down.
  Result<> remove(std::string_view id);
  [[nodiscard]] NetBackend* find(std::string_view id) const;
  [[nodiscard]] const std::vector<std::unique_ptr<NetBackend>>& all() const { return backends_; }
  // Hears of every other end of a -netdev stream that comes or goes.
  void on_stream_change(StreamBackend::Changed changed) { stream_changed_ = std::move(changed); }
  // For a card: one that no other has.
  Result<NetBackend*> claim(std::string_view id) const;
  // A user back end: that of this id, the first one without.
  Result<UserBackend*> find_user(std::string_view id) const;
  // Takes a link up or down at the end that has this name, a back end's id or a card's name.
  Result<> set_link(std::string_view name, bool up) const;

  // The address of a card: what its user says, or the next of 52:54:00:12:34:56 and up that no card has.
  Result<MacAddress> mac_for(std::string_view text);

 private:
  Executor& executor_;
  HostClock clock_{HostClock::Kind::kMonotonic};
  StreamBackend::Changed stream_changed_;
  std::vector<std::unique_ptr<NetBackend>> backends_;
  std::set<MacAddress> macs_;
};

}  // namespace kite::net
