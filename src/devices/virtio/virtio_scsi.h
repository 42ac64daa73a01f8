// virtio-scsi: a SCSI host adapter. [VIRTIO 1.2] 5.6. It owns a SCSI bus; its units do the commands.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/task.h"
#include "block/co_sync.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/virtio/virtio_device.h"
#include "devices/virtio/virtio_scsi_regs.h"

namespace kite::devices {

class VirtioScsi final : public VirtioDevice, private ScsiBus::Listener {
 public:
  struct Config {
    std::string bus_name;
    uint16_t queues = 1;  // for requests
    uint16_t queue_size = 256;
    uint32_t segments = 0;  // data segments of a request; 0: as many as the queue has room for
    uint32_t max_sectors = 0xffff;
    uint32_t commands_per_unit = 128;
    bool hotplug = true, parameter_change = true;
  };

  // `home`: best the executor of the units' drives.
  VirtioScsi(Executor& home, std::string name, Config config, GuestMemory& memory, const Options& options);
  ~VirtioScsi() override;
  [[nodiscard]] ScsiBus& bus() { return bus_; }

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  using EventBytes = std::array<uint8_t, virtio_scsi::kEventBytes>;
  // A request as the driver wrote it.
  struct Request {
    ScsiAddress address;
    ScsiCommand command;
    uint32_t in_header = 0, out_header = 0;  // bytes before the data
    uint64_t in_bytes = 0, out_bytes = 0;    // of data
    uint64_t sequence = 0;
    bool reset = false;  // it was a reset that aborted it
  };

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void config_written(uint32_t offset, std::span<const uint8_t> bytes) override;
  void device_reset() override;
  void cancel_requests() override;
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  // ScsiBus::Listener.
  void unit_attached(const ScsiAddress& address) override;
  void unit_detached(const ScsiAddress& address) override;
  void unit_changed(const ScsiAddress& address, ScsiSense what) override;

  void start_request(Chain chain);
  // Reads the header; empty, and the device broken, when it makes no sense.
  bool parse(const VirtioChain& chain, Request& request);
  void absent_unit(Chain chain, const Request& request);
  Task<void> do_request(Chain chain, Request request, ScsiUse unit, SgBuffer in, SgBuffer out);
  void end_request(Chain chain, const Request& request, const ScsiReply& reply);
  void end_early(Chain chain, const Request& request, uint8_t response);
  void respond(Chain chain, const Request& request, std::span<const uint8_t> response, uint64_t moved);
  void refuse(Chain chain, std::string_view why);

  void start_control(Chain chain);
  Task<void> do_task_management(Chain chain, uint32_t function, ScsiAddress address, uint64_t tag);
  // Acts on what is there; the answer, once the tasks that it ends have ended.
  uint8_t manage(uint32_t function, const ScsiAddress& address, uint64_t tag);
  [[nodiscard]] bool any_before(uint64_t sequence, uint32_t function, const ScsiAddress& address, uint64_t tag) const;
  void end_control(Chain chain, std::span<const uint8_t> answer);

  void post_event(uint32_t event, const ScsiAddress& address, uint32_t reason);
  void deliver_events();

  // Static configuration and wiring.
  const Config config_;
  ScsiBus bus_;

  // State: sizes under the device's lock to be written, read anywhere; events under their own, a leaf.
  std::atomic<uint32_t> sense_size_{virtio_scsi::kDefaultSenseSize}, cdb_size_{virtio_scsi::kDefaultCdbSize};
  std::mutex events_mutex_;
  std::deque<EventBytes> events_;  // for the driver, when it has room
  bool events_missed_ = false;

  // Of the home executor.
  std::list<Request*> requests_;  // under way
  uint64_t next_sequence_ = 0;
  block::CoQueue ended_;
  TaskScope scope_;

  struct Restored {
    uint32_t sense_size = 0, cdb_size = 0;
    std::vector<uint8_t> events;
    bool missed = false;
  } restored_;
};

}  // namespace kite::devices
