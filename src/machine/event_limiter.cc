#include "machine/event_limiter.h"

#include <utility>

namespace kite::machine {

void EventLimiter::offer(const std::string& name, std::function<void()> announce) {
  const auto [stream, fresh] = streams_.try_emplace(name);
  if (!fresh) {
    stream->second.waiting = std::move(announce);
    return;
  }
  stream->second.end = std::make_unique<Timer>(clock_, [this, name] { interval_over(name); });
  stream->second.end->arm_at(clock_.now() + kInterval);
  announce();
}

void EventLimiter::interval_over(std::string name) {
  Stream& stream = streams_.at(name);
  if (!stream.waiting) {
    streams_.erase(name);
    return;
  }
  stream.end->arm_at(clock_.now() + kInterval);
  std::exchange(stream.waiting, {})();
}

}  // namespace kite::machine
