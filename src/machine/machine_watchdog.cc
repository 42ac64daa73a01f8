// What a machine does when its watchdog expires.
#include "machine/machine.h"

namespace kite::machine {

namespace {

std::string_view action_name(WatchdogAction action) {
  switch (action) {
    case WatchdogAction::kReset: return "reset";
    case WatchdogAction::kShutdown: return "shutdown";
    case WatchdogAction::kPoweroff: return "poweroff";
    case WatchdogAction::kPause: return "pause";
    case WatchdogAction::kInjectNmi: return "inject-nmi";
    case WatchdogAction::kNone: return "none";
  }
  return "none";
}

}  // namespace

void Machine::watchdog_expired() {
  emit({.kind = MachineEvent::Kind::kWatchdog, .action = std::string(action_name(config_.watchdog_action))});
  switch (config_.watchdog_action) {
    case WatchdogAction::kReset: request_reset(Cause::kGuestReset); break;
    case WatchdogAction::kShutdown: request_powerdown(); break;
    case WatchdogAction::kPoweroff: request_shutdown(Cause::kGuestShutdown); break;
    case WatchdogAction::kPause: pause(); break;
    case WatchdogAction::kInjectNmi: request_nmi(); break;
    case WatchdogAction::kNone: break;
  }
}

}  // namespace kite::machine
