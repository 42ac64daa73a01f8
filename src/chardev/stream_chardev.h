// StreamChardev: what all back ends with file descriptors share: reading as fast as the client takes it, and a bounded
// queue for output that the host does not take at once.
//
// Output that comes byte by byte, as a UART has it, is collected for kCollectNs at a time: a system call for each byte
// takes longer than the guest needs to make it. The first byte after a pause goes out at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "chardev/chardev.h"
#include "chardev/doorbell.h"

namespace kite {

class StreamChardev : public Chardev {
 public:
  static constexpr size_t kOutputBound = size_t{1} << 20;  // bytes queued beyond which write() takes less
  static constexpr int64_t kCollectNs = 1'000'000;

  // A copy of all output goes to `log` when it is valid.
  StreamChardev(std::string id, Executor& executor, Fd log);
  ~StreamChardev() override;

  void set_client(ChardevClient* client) override;
  size_t write(std::span<const uint8_t> bytes) override;
  void accept_input() override { look_again_.ring(); }
  [[nodiscard]] bool is_open() const override { return open_.load(std::memory_order_acquire); }
  void flush() override;

 protected:
  enum class Output : uint8_t {
    kNonblocking,  // the descriptor has O_NONBLOCK, or it is a file that takes everything
    kSocket,       // every call says that it must not block
    kBlocking,     // shared with other processes, so its flags are theirs: asked before every small write
  };

  // The rest is for the executor's thread.
  // Takes up the descriptors, which the back end owns and keeps open until disconnect(); -1 for a missing direction,
  // the same number twice for a socket. The client learns kOpened.
  void connect(int in, int out, Output kind);
  // Sends what can be sent without waiting, drops the rest; the client learns kClosed. Harmless when not connected.
  void disconnect();
  // For destructors, which call it before their descriptors close: disconnects without a word to the client.
  void shut_down();
  // Input came to its end (`error` 0) or failed. The default takes no more input and goes on with output.
  virtual void input_ended(int error);
  // Output failed and what was queued is gone; called once a connection. The default warns.
  virtual void output_failed(int error);
  // Reads as read(2) does.
  virtual ssize_t receive(int fd, std::span<uint8_t> buffer);
  // Hang-ups to watch for even while the client takes no input, as EPOLL* bits, and what to do about one; as long as
  // they are asked for and not acted on, they come again.
  [[nodiscard]] virtual uint32_t extra_input_events() const { return 0; }
  virtual void extra_input_event() {}

  [[nodiscard]] ChardevClient* client() const { return client_; }
  [[nodiscard]] Executor& executor() { return executor_; }
  void update_interest();
  // Sends what can be sent without waiting; the descriptor whose room the rest waits for, -1 when nothing is left.
  virtual int send_waiting();

 private:
  void ready(bool input, uint32_t events);
  void read_input();
  void write_queued();
  // These two under mutex_.
  size_t send(std::span<const uint8_t> bytes);
  void drain_queue();
  bool collects(std::span<const uint8_t> bytes);
  [[nodiscard]] std::span<const uint8_t> queued() const { return std::span(queue_).subspan(queue_head_); }
  void look_again();
  void collected();

  Executor& executor_;
  Fd log_;
  std::atomic<bool> open_{false};

  // The executor's thread only.
  ChardevClient* client_ = nullptr;
  int in_ = -1;
  bool input_over_ = false;

  std::mutex mutex_;  // guards the rest; taken after a device's lock, never held around the client
  int out_ = -1;
  Output kind_ = Output::kNonblocking;
  std::vector<uint8_t> queue_;
  size_t queue_head_ = 0;
  Fd collect_timer_;          // timerfd; watched while connected
  int64_t sent_ns_ = 0;       // when bytes that came one by one last went out
  bool collecting_ = false;   // the timer runs, and the queue waits for it
  bool short_write_ = false;  // the client waits for writable()
  int output_error_ = 0;      // found by a write, told to the back end on the executor's thread
  bool output_failure_told_ = false;

  Doorbell look_again_;
};

}  // namespace kite
