// Chardev: a byte stream between a front end (a UART, the monitor, qtest) and a back end on the host (stdio, pty, file,
// null, unix and TCP sockets), with a mux to share one back end among several front ends.
//
// Threads: back ends live on one Executor (the main loop) and call the front end there. write() may be called from any
// thread; it never blocks: what the host does not take at once is queued up to a bound, beyond which write() takes
// less.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/executor.h"
#include "support/result.h"

namespace kite {

namespace tls {
class CredentialsStore;
}
struct SpiceCarrier;

enum class ChardevEvent : uint8_t { kOpened, kClosed, kBreak, kMuxIn, kMuxOut };

// What is plugged into a chardev.
class ChardevClient {
 public:
  virtual ~ChardevClient() = default;
  // How many bytes received() can take now; 0 stops reading from the host until Chardev::accept_input().
  virtual size_t can_receive() = 0;
  virtual void received(std::span<const uint8_t> bytes) = 0;
  virtual void event(ChardevEvent event) { (void)event; }
  virtual void writable() {}  // after a short write: there is room again
};

class Chardev {
 public:
  explicit Chardev(std::string id) : id_(std::move(id)) {}
  virtual ~Chardev() = default;
  Chardev(const Chardev&) = delete;
  Chardev& operator=(const Chardev&) = delete;

  [[nodiscard]] const std::string& id() const { return id_; }
  // As query-chardev shows it: "pty:/dev/pts/3", "unix:/run/x.sock,server=on".
  [[nodiscard]] virtual std::string filename() const = 0;
  // One client at a time (a mux gives each of its own a port); null unplugs. The client learns kOpened before this
  // returns if the chardev is open (on a mux: if the port has the focus; else when it first gets it). Executor's
  // thread, or before it runs.
  virtual void set_client(ChardevClient* client) = 0;
  // How many of `bytes` were taken: fewer only when the queue is full, and then writable() follows. While nobody is
  // connected, everything is taken and dropped. A caller may hold its own lock; clients are never called from here.
  virtual size_t write(std::span<const uint8_t> bytes) = 0;
  // The client can receive again. Any thread; the client may hold its own lock.
  virtual void accept_input() = 0;
  [[nodiscard]] virtual bool is_open() const = 0;
  // File descriptors received with the last bytes (SCM_RIGHTS); the caller owns them.
  virtual std::vector<Fd> take_fds() { return {}; }
  // Whether the front end listens; one is taken to unless it says otherwise. Any thread.
  virtual void set_frontend_open(bool open) { frontend_open_.store(open, std::memory_order_relaxed); }
  [[nodiscard]] bool frontend_open() const { return frontend_open_.load(std::memory_order_relaxed); }
  // Blocks, for at most a second, until queued output is on its way. For orderly exits.
  virtual void flush() {}

 private:
  std::string id_;
  std::atomic<bool> frontend_open_{true};
};

// Keys of a mux, after Ctrl-A: h help, x quit, s (save disks), c next client, t timestamps, b break, Ctrl-A itself.
struct MuxHooks {
  std::function<void()> quit = {};
  std::function<void()> save_disks = {};  // may be empty: then the user reads that there are none
};

// One line each for `-chardev help`.
std::string chardev_help();

// Creates back ends from `-chardev`/`-serial` syntax and knows them by id. Used by main/ and the monitor, on the
// executor's thread or before it runs. Clients are unplugged before it is destroyed. Ignores SIGPIPE for the process.
class ChardevRegistry {
 public:
  // `credentials` are those that tls-creds= can name; null: there are none.
  ChardevRegistry(Executor& executor, MuxHooks hooks, const tls::CredentialsStore* credentials = nullptr);
  ~ChardevRegistry();

  // "-chardev stdio,id=c0,mux=on,signal=off": backend first. Unknown back ends and options are refused by name.
  Result<Chardev*> add(std::string_view text);
  // The short form of -serial, -monitor, -qmp, -qtest: stdio, mon:stdio, pty, null, none, file:PATH,
  // unix:PATH[,server=on,wait=off], tcp:HOST:PORT[,...], chardev:ID. "none" answers null. `id` names the new one, which
  // is its caller's: only a mux (mon:...) can be claimed by others besides.
  Result<Chardev*> add_legacy(std::string id, std::string_view text);
  [[nodiscard]] Chardev* find(std::string_view id) const;
  [[nodiscard]] std::vector<Chardev*> all() const;
  // A new port of the mux `id` (or the chardev itself when it is not a mux and has no client yet).
  Result<Chardev*> claim(std::string_view id);
  // What claim() answered, of a client that is gone: others may claim it. A port of a mux stays where it is.
  void give_back(const Chardev& chardev);
  // What add_legacy() made, and no other has claimed, ends. Its client is unplugged.
  void remove(const Chardev& chardev);
  // Those that SPICE clients are at the other end of begin to work. Null: there is no SPICE server, which is an error
  // when there are any. Called once, before the machine starts.
  Result<> set_spice(const SpiceCarrier* carrier);
  // server=on,wait=on sockets: blocks until a peer is connected, or until a signal that ends the process is pending.
  // Called once, before the machine starts.
  Result<> wait_for_peers();
  void flush_all();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Puts the terminal back as it was; async-signal-safe; also runs at exit and on fatal signals.
void restore_terminal();

}  // namespace kite
