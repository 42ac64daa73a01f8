// Where a stream goes to or comes from: a socket, a file, a program's standard input or output, a descriptor.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "chardev/socket_address.h"
#include "snapshot/stream.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::snapshot {

// "tcp:HOST:PORT", "unix:PATH", "exec:COMMAND", "file:PATH", "fd:NUMBER" or "fd:NAME" as the monitor's getfd has it.
struct ChannelAddress {
  enum class Kind : uint8_t { kSocket, kExec, kFile, kFd } kind = Kind::kFd;
  SocketAddress socket = {};
  std::string text = {};  // the command, path, or the descriptor's name
};
Result<ChannelAddress> parse_channel(std::string_view uri);

class Channel final : public ByteSink, public ByteSource {
 public:
  // `child` is a shell that is waited for in finish(); 0: none.
  explicit Channel(Fd fd, pid_t child = 0);
  ~Channel() override;

  // Block until all is moved, or cancel() was called.
  Result<> write(std::span<const uint8_t> bytes) override;
  Result<> read(std::span<uint8_t> to) override;
  // Up to `most` bytes of text that the other end has to say until it closes.
  std::string read_text(size_t most);
  // No more is written. Of a program: what it made of it.
  Result<> finish();
  // Any thread: whoever waits in the channel comes back with an error.
  void cancel() { cancelled_.store(true, std::memory_order_release); }
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  [[nodiscard]] bool is_socket() const { return socket_; }
  // Bytes a second at most; 0: as fast as it goes. Any thread.
  void set_limit(uint64_t bytes_per_second) { limit_.store(bytes_per_second, std::memory_order_relaxed); }

 private:
  Result<> wait(short events) const;
  void wait_turn(size_t bytes);

  Fd fd_;
  pid_t child_;
  bool socket_;
  std::atomic<bool> cancelled_{false};
  std::atomic<uint64_t> limit_{0};
  int64_t window_began_ns_ = 0;
  uint64_t in_window_ = 0;  // bytes
};

// Blocks until it is connected. `fd` is that of an address kFd, and only used for it.
Result<std::unique_ptr<Channel>> open_outgoing(const ChannelAddress& address, Fd fd);

// Waits for somebody to connect, once.
class Listener {
 public:
  static Result<std::unique_ptr<Listener>> create(ChannelAddress address, Fd fd);
  // Blocks until there is a channel, or cancel() was called.
  Result<std::unique_ptr<Channel>> accept();
  void cancel() { cancelled_.store(true, std::memory_order_release); }  // any thread

 private:
  explicit Listener(ChannelAddress address) : address_(std::move(address)) {}
  ChannelAddress address_;
  Fd fd_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace kite::snapshot
