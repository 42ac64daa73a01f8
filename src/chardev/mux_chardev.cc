#include "chardev/mux_chardev.h"

#include <algorithm>

namespace kite {
namespace {

constexpr uint8_t kEscape = 0x01;  // Ctrl-A

constexpr std::string_view kHelp =
    "\r\n"
    "Ctrl-A h       these lines\r\n"
    "Ctrl-A x       end the machine\r\n"
    "Ctrl-A s       save the disks\r\n"
    "Ctrl-A c       the next console: serial port, monitor\r\n"
    "Ctrl-A t       time stamps on and off\r\n"
    "Ctrl-A b       send a break\r\n"
    "Ctrl-A Ctrl-A  send Ctrl-A\r\n";

std::string stamp(int64_t ns) {
  const int64_t ms = ns / 1'000'000;
  return fmt::format("[{:02}:{:02}:{:02}.{:03}] ", ms / 3'600'000, ms / 60'000 % 60, ms / 1000 % 60, ms % 1000);
}

}  // namespace

class MuxChardev::Port final : public Chardev {
 public:
  explicit Port(MuxChardev& mux) : Chardev(mux.id()), mux_(mux) {}

  void set_client(ChardevClient* client) override {
    client_ = client;
    opened_ = false;
    if (client == nullptr) input_.clear();
    mux_.client_changed(*this);
  }
  size_t write(std::span<const uint8_t> bytes) override { return mux_.write_from(*this, bytes); }
  void accept_input() override { mux_.accept_input(); }
  [[nodiscard]] std::string filename() const override { return mux_.filename(); }
  [[nodiscard]] bool is_open() const override { return mux_.is_open(); }
  std::vector<Fd> take_fds() override { return mux_.take_fds(); }
  void flush() override { mux_.flush(); }

 private:
  friend class MuxChardev;

  void tell(ChardevEvent event) {
    if (client_ != nullptr) client_->event(event);
  }

  MuxChardev& mux_;
  ChardevClient* client_ = nullptr;
  bool opened_ = false;  // the client knows that the back end is open
  std::vector<uint8_t> input_;
  bool short_write_ = false;  // guarded by the mux's mutex_
};

MuxChardev::MuxChardev(std::unique_ptr<Chardev> backend, Executor& executor, const Clock& clock, MuxHooks hooks)
    : Chardev(backend->id()),
      clock_(clock),
      hooks_(std::move(hooks)),
      backend_(std::move(backend)),
      look_again_(executor, [this] { look_again(); }) {
  backend_->set_client(this);
}

MuxChardev::~MuxChardev() { backend_->set_client(nullptr); }

Chardev* MuxChardev::add_port() { return ports_.emplace_back(std::make_unique<Port>(*this)).get(); }

MuxChardev::Port& MuxChardev::own_port() {
  if (own_ == nullptr) {
    add_port();
    own_ = ports_.back().get();
  }
  return *own_;
}

void MuxChardev::set_client(ChardevClient* client) { own_port().set_client(client); }

size_t MuxChardev::write(std::span<const uint8_t> bytes) { return own_ == nullptr ? 0 : write_from(*own_, bytes); }

// --- focus ---

void MuxChardev::client_changed(Port& port) {
  const bool free = focus_ == nullptr || focus_->client_ == nullptr;
  if (port.client_ == nullptr && focus_ == &port) {
    focus_next();
  } else if (port.client_ != nullptr && (free || focus_ == &port)) {
    set_focus(&port);
  }
  look_again_.ring();
}

void MuxChardev::focus_next() {
  const auto at = std::ranges::find(ports_, focus_, [](const auto& port) { return port.get(); });
  const size_t current = static_cast<size_t>(at - ports_.begin());
  for (size_t step = 1; step <= ports_.size(); ++step) {
    Port* port = ports_[(current + step) % ports_.size()].get();
    if (port->client_ == nullptr) continue;
    if (port != focus_) set_focus(port);
    return;
  }
  focus_ = nullptr;
}

void MuxChardev::set_focus(Port* port) {
  Port* const old = focus_;
  focus_ = port;
  if (old != nullptr && old != port && old->opened_) old->tell(ChardevEvent::kMuxOut);
  if (!backend_->is_open()) return;
  const ChardevEvent event = port->opened_ ? ChardevEvent::kMuxIn : ChardevEvent::kOpened;
  port->opened_ = true;
  port->tell(event);
}

// --- input ---

size_t MuxChardev::can_receive() {
  return focus_ == nullptr ? kInputBound : kInputBound - std::min(focus_->input_.size(), kInputBound);
}

void MuxChardev::received(std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes) {
    const bool after_escape = std::exchange(escaped_, false);
    if (byte == kEscape && !after_escape) {
      escaped_ = true;
    } else if (after_escape && byte != kEscape) {
      command(byte);
    } else if (focus_ != nullptr) {
      focus_->input_.push_back(byte);
    }
  }
  if (focus_ != nullptr) deliver(*focus_);
}

void MuxChardev::deliver(Port& port) {
  while (port.client_ != nullptr && !port.input_.empty()) {
    const size_t count = std::min(port.client_->can_receive(), port.input_.size());
    if (count == 0) return;
    // Taken out first: the client may do anything, even unplug itself.
    const auto end = port.input_.begin() + static_cast<std::ptrdiff_t>(count);
    const std::vector<uint8_t> part(port.input_.begin(), end);
    port.input_.erase(port.input_.begin(), end);
    port.client_->received(part);
  }
}

void MuxChardev::look_again() {
  for (size_t i = 0; i < ports_.size(); ++i) deliver(*ports_[i]);
  backend_->accept_input();
}

void MuxChardev::event(ChardevEvent event) {
  switch (event) {
    case ChardevEvent::kOpened:
      if (focus_ != nullptr) set_focus(focus_);
      break;
    case ChardevEvent::kClosed:
      escaped_ = false;
      for (size_t i = 0; i < ports_.size(); ++i) {
        if (std::exchange(ports_[i]->opened_, false)) ports_[i]->tell(event);
      }
      break;
    case ChardevEvent::kBreak:
    case ChardevEvent::kMuxIn:
    case ChardevEvent::kMuxOut:
      if (focus_ != nullptr) focus_->tell(event);
      break;
  }
}

void MuxChardev::command(uint8_t key) {
  if (focus_ != nullptr) deliver(*focus_);  // what was typed before comes before
  switch (key) {
    case 'h':
    case '?': say(kHelp); break;
    case 'x':
      say("\r\nkite: ended by Ctrl-A x\r\n");
      if (hooks_.quit) hooks_.quit();
      break;
    case 's':
      if (hooks_.save_disks) {
        hooks_.save_disks();
      } else {
        say("\r\nkite: there are no disks to save\r\n");
      }
      break;
    case 'c': focus_next(); break;
    case 't': toggle_timestamps(); break;
    case 'b':
      if (focus_ != nullptr) focus_->tell(ChardevEvent::kBreak);
      break;
    default: break;
  }
}

// --- output ---

void MuxChardev::toggle_timestamps() {
  const std::lock_guard lock(mutex_);
  stamps_on_ = !stamps_on_;
  stamps_since_ns_ = clock_.now();
}

void MuxChardev::say(std::string_view text) {
  constexpr size_t kMostPending = 8192;  // keys may come faster than the back end takes the answers
  const std::lock_guard lock(mutex_);
  if (pending_.size() + text.size() <= kMostPending) pending_ += text;
  send_pending();
}

bool MuxChardev::send_pending() {
  const std::span text(reinterpret_cast<const uint8_t*>(pending_.data()), pending_.size());
  pending_.erase(0, text.empty() ? 0 : backend_->write(text));
  return pending_.empty();
}

size_t MuxChardev::write_from(Port& port, std::span<const uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  size_t taken = 0;
  if (send_pending()) taken = stamps_on_ ? write_stamped(bytes) : backend_->write(bytes);
  if (taken > 0) at_line_start_ = bytes[taken - 1] == '\n';
  if (taken < bytes.size()) port.short_write_ = true;
  return taken;
}

size_t MuxChardev::write_stamped(std::span<const uint8_t> bytes) {
  size_t taken = 0;
  while (taken < bytes.size()) {
    if (at_line_start_) {
      pending_ = stamp(clock_.now() - stamps_since_ns_);
      at_line_start_ = false;
      if (!send_pending()) break;
    }
    const auto rest = bytes.subspan(taken);
    const auto newline = std::ranges::find(rest, uint8_t{'\n'});
    const auto line = rest.first(static_cast<size_t>(newline - rest.begin()) + (newline == rest.end() ? 0 : 1));
    const size_t count = backend_->write(line);
    taken += count;
    if (count > 0) at_line_start_ = line[count - 1] == '\n';
    if (count < line.size()) break;
  }
  return taken;
}

void MuxChardev::writable() {
  std::vector<Port*> waiting;
  {
    const std::lock_guard lock(mutex_);
    if (!send_pending()) return;
    for (const auto& port : ports_) {
      if (std::exchange(port->short_write_, false)) waiting.push_back(port.get());
    }
  }
  for (Port* port : waiting) {
    if (port->client_ != nullptr) port->client_->writable();
  }
}

}  // namespace kite
