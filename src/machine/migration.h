// Migration: a machine goes out whole, while it runs for as long as that works: its RAM first, again what was written
// meanwhile, and when little is left it stands still and the rest follows. Sockets of Kite's on both ends answer
// whether the machine has arrived; without that it goes on here.
//
// Functions are for the main executor's thread; a thread of its own sends.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "machine/machine.h"
#include "machine/moved_bitmaps.h"
#include "snapshot/channel.h"
#include "snapshot/ram_copy.h"
#include "support/result.h"

namespace kite::machine {

// Names as query-migrate and the event MIGRATION give them.
enum class MigrationStatus : uint8_t {
  kNone,
  kSetup,
  kActive,
  kPreSwitchover,  // it stands still, and its disks are here
  kDevice,
  kCompleted,
  kFailed,
  kCancelling,
  kCancelled
};
std::string_view migration_status_name(MigrationStatus status);

struct MigrationParameters {
  uint64_t max_bandwidth = 128u << 20;   // bytes a second; 0: no limit
  int64_t downtime_limit_ms = 300;       // the machine stands still no longer, as far as can be told before
  bool pause_before_switchover = false;  // waits for go_on(), and block jobs may be under way until then
  bool bitmaps = false;                  // dirty bitmaps of disks go, too
  std::optional<BitmapMapping> bitmap_mapping = {};
};

// What became of it, for query-migrate. Times in milliseconds.
struct MigrationReport {
  MigrationStatus status = MigrationStatus::kNone;
  std::string error = {};
  uint64_t total_bytes = 0, transferred = 0, remaining_pages = 0, normal_pages = 0, zero_pages = 0, passes = 0;
  uint64_t bytes_per_second = 0;
  int64_t total_ms = 0, setup_ms = 0, downtime_ms = 0;
};

class Migration {
 public:
  // `told` hears of every change of the status, and of each look at what was written, with its number.
  struct Listener {
    std::function<void(MigrationStatus status)> status;
    std::function<void(uint64_t pass)> pass;
  };
  Migration(Machine& machine, Listener listener);
  ~Migration();
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;

  // `fd` is that of an address kFd. Refused while one is under way, and of a machine that cannot go.
  Result<> start(snapshot::ChannelAddress address, Fd fd);
  // The machine goes on here. Nothing happens when none is under way.
  void cancel();
  // From kPreSwitchover on to the other end.
  Result<> go_on();
  [[nodiscard]] bool under_way() const { return thread_.joinable(); }
  [[nodiscard]] MigrationReport report() const;
  void set_parameters(const MigrationParameters& parameters);
  [[nodiscard]] MigrationParameters parameters() const { return parameters_; }

 private:
  // What the two threads tell each other.
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    bool cancelled = false;
    std::optional<Result<std::vector<uint8_t>>> state;  // of the machine, which stands still
    std::shared_ptr<snapshot::Channel> channel;         // once it is open
    std::atomic<uint64_t> transferred{0}, rate{0};      // bytes, bytes a second
    std::atomic<uint64_t> max_bandwidth{0};
    std::atomic<int64_t> downtime_limit_ms{0};
  };

  // --- the sending thread
  void work(const snapshot::ChannelAddress& address, Fd fd);
  Result<> send(const snapshot::ChannelAddress& address, Fd fd);
  Result<> copy_ram(snapshot::StreamWriter& writer);
  [[nodiscard]] bool is_little(uint64_t pages) const;
  Result<std::vector<uint8_t>> stop_machine();
  static Result<> hear_answer(snapshot::Channel& channel);
  void post(std::function<void()> task);
  [[nodiscard]] bool cancelled();

  // --- the main thread
  void set_status(MigrationStatus status);
  void stand_still();
  void hand_over();
  Result<std::vector<uint8_t>> whole_state();
  void finish(const Result<>& result);
  void set_logging(bool on);

  Machine& machine_;
  Listener listener_;
  MigrationParameters parameters_;
  MigrationStatus status_ = MigrationStatus::kNone;
  MigrationReport last_;  // of the one that is over
  int64_t began_ns_ = 0, active_ns_ = 0, stopped_ns_ = 0;
  bool was_running_ = false;
  bool has_bitmaps_ = false, pauses_ = false;  // as was said when it began
  std::vector<std::shared_ptr<RamBlock>> blocks_;
  std::unique_ptr<snapshot::RamSender> sender_;
  std::shared_ptr<Shared> shared_;
  // Posted tasks look whether the Migration is still there.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::thread thread_;
};

}  // namespace kite::machine
