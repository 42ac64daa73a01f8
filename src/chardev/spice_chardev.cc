#include "chardev/spice_chardev.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "support/log.h"

namespace kite {

SpiceChardev::SpiceChardev(std::string id, Executor& executor, Fd log, Config config)
    : StreamChardev(std::move(id), executor, std::move(log)),
      config_(std::move(config)),
      frontend_changed_(executor, [this] { tell(); }) {}

Result<> SpiceChardev::plug_into(const SpiceCarrier& carrier) {
  carrier_ = carrier;
  number_ = carrier_.add(config_.subtype, config_.port_name, [this](Fd socket) { begin(std::move(socket)); });
  frontend_changed_.ring();
  return is_port() ? Result<>{} : offer();
}

void SpiceChardev::set_client(ChardevClient* client) {
  StreamChardev::set_client(client);
  if (client == nullptr) closed_count_.fetch_add(1, std::memory_order_relaxed);
  frontend_changed_.ring();
}

void SpiceChardev::set_frontend_open(bool open) {
  if (!open) closed_count_.fetch_add(1, std::memory_order_relaxed);
  Chardev::set_frontend_open(open);
  frontend_changed_.ring();
}

// The agent in the guest finds somebody at the other end whenever it opens its port.
Result<> SpiceChardev::offer() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return fail("chardev '{}': cannot make a pair of sockets: {}", id(), errno_text(errno));
  far_end_.reset(ends[1]);
  begin(Fd(ends[0]));
  return {};
}

void SpiceChardev::begin(Fd socket) {
  lose();
  socket_ = std::move(socket);
  connect(socket_.get(), socket_.get(), Output::kSocket);
}

void SpiceChardev::lose() {
  disconnect();
  socket_.reset();
}

uint32_t SpiceChardev::extra_input_events() const {
  return client() == nullptr ? static_cast<uint32_t>(EPOLLRDHUP) : 0u;
}

// A front end that has closed and opened again meanwhile is told of as both: what it said before is over.
void SpiceChardev::tell() {
  if (!carrier_.set_open) return;
  const unsigned closed_count = closed_count_.load(std::memory_order_relaxed);
  const bool open = client() != nullptr && frontend_open();
  if (told_open_ && (!open || closed_count != told_closed_count_)) {
    told_open_ = false;
    // What the old pair has still got to carry is in it before the server hears of the end.
    if (!is_port())
      if (const auto done = offer(); !done) log::error("{}", done.error().message);
    carrier_.set_open(number_, false, {});
  }
  told_closed_count_ = closed_count;
  if (!open || told_open_) return;
  told_open_ = true;
  carrier_.set_open(number_, true, std::move(far_end_));
}

}  // namespace kite
