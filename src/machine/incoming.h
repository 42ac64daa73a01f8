// Incoming: a machine comes in from elsewhere, as Migration sends it, and goes on here. The Machine is made with
// MachineConfig::incoming and the same devices, and stands still until then.
//
// Functions are for the main executor's thread; a thread of its own receives.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "machine/machine.h"
#include "machine/migration.h"
#include "snapshot/channel.h"
#include "support/result.h"

namespace kite::machine {

class Incoming {
 public:
  // `status` hears of every change; `ended` of the end, on an error after which the machine is of no use any more.
  struct Listener {
    std::function<void(MigrationStatus status)> status;
    std::function<void(const Result<>& result)> ended;
  };
  Incoming(Machine& machine, Listener listener) : machine_(machine), listener_(std::move(listener)) {}
  ~Incoming();
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  // Listens, or begins to read. `fd` is that of an address kFd. Once.
  Result<> start(snapshot::ChannelAddress address, Fd fd);
  // What the names of its dirty bitmaps are here. Before they come.
  void set_bitmap_mapping(std::optional<BitmapMapping> mapping) { bitmap_mapping_ = std::move(mapping); }
  [[nodiscard]] MigrationStatus status() const { return status_; }
  [[nodiscard]] bool started() const { return status_ != MigrationStatus::kNone; }

 private:
  void work();
  Result<std::vector<uint8_t>> receive();
  void finish(const Result<std::vector<uint8_t>>& state);
  Result<> take_over(std::span<const uint8_t> state);
  Result<> take_bitmaps(std::vector<uint8_t> bitmaps);
  void answer(const Result<>& result);
  void set_status(MigrationStatus status);

  Machine& machine_;
  Listener listener_;
  MigrationStatus status_ = MigrationStatus::kNone;
  std::unique_ptr<snapshot::Listener> door_;
  std::mutex mutex_;                            // guards the pointer below while the thread runs
  std::unique_ptr<snapshot::Channel> channel_;  // once somebody is there
  bool ending_ = false, wants_answer_ = false, has_bitmaps_ = false;
  std::optional<BitmapMapping> bitmap_mapping_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::thread thread_;
};

}  // namespace kite::machine
