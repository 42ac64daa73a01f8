// NVMe controller: PCI function 1b36:0010, class 01.08.02. [NVMe 1.4].
//
// BAR 0: registers, doorbells, MSI-X table. BAR 2: the controller's memory buffer, BAR 4: the persistent memory region,
// when it has them. Up to 256 namespaces; up to 64 pairs of I/O queues; PRPs and SGLs; shadow doorbells.
//
// Admin commands run on the vCPU that rings the doorbell, I/O commands on the executor of the drives. A reset, a
// shutdown and the deletion of a queue end when the requests under way have.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "bus/pci.h"
#include "bus/pci_msi.h"
#include "devices/io_window.h"
#include "devices/nvme/data_pointer.h"
#include "devices/nvme/nvme_namespace.h"
#include "devices/nvme/nvme_regs.h"
#include "devices/storage/disk_bus.h"
#include "memory/guest_memory.h"

namespace kite::devices {

class NvmeController final : public bus::PciDevice, private nvme::DmaReader {
 public:
  static constexpr unsigned kMostQueues = 64;  // pairs, without the admin queues
  struct Config {
    std::string serial;      // 1..20 characters
    std::string name;        // of the bus that namespaces are put on; the device's id
    unsigned queues = 64;    // pairs of I/O queues, 1 .. kMostQueues
    unsigned vectors = 65;   // of MSI-X
    unsigned mdts = 7;       // most bytes of a command: 4 KiB << mdts; 0: no limit but the queue's fields
    uint64_t cmb_bytes = 0;  // controller memory buffer: a power of two from 1 MiB, or 0
    std::shared_ptr<RamBlock> persistent = nullptr;       // memory of the persistent memory region; a power of two
    std::optional<bus::PcieType> express = std::nullopt;  // on a PCI Express bus
  };
  // Refuses a serial number that is none. `memory` outlives the controller.
  static Result<std::unique_ptr<NvmeController>> create(std::string path, Config config, GuestMemory& memory);
  ~NvmeController() override;

  // While the machine is built. The controller's own namespace, from -device nvme,drive=.
  Result<> add_own_namespace(const DiskConfig& disk, const NvmeNamespace::Identity& identity);
  [[nodiscard]] DiskBus& bus_of_namespaces();

  void reset() override;
  void start() override;
  void stop() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

 private:
  class NamespaceBus;
  struct SubmissionQueue {
    bool exists = false;
    bool deleting = false;  // its deletion waits for requests
    uint16_t cq = 0;
    uint16_t delete_cid = 0;
    uint32_t size = 0, head = 0, tail = 0;  // entries
    uint64_t base = 0;
    uint32_t in_flight = 0;  // derived: requests that have not ended
  };
  struct CompletionQueue {
    bool exists = false;
    bool interrupts = false, phase = true;
    uint16_t vector = 0;
    uint32_t size = 0, head = 0, tail = 0;
    uint64_t base = 0;
    std::deque<nvme::Completion> waiting;  // no room, or the machine stands still
  };
  struct Features {
    uint32_t arbitration = 0, power = 0, recovery = 0, coalescing = 0, atomicity = 0, events = 0;
    uint16_t over_temperature = kDefaultOverTemperature, under_temperature = 0;
    std::array<bool, kMostQueues + 1> not_coalesced{};  // by vector
    bool write_cache = true;
  };
  struct ErrorEntry {  // 5.14.1.1
    uint64_t count = 0;
    uint16_t sq = 0, cid = 0, status = 0;
    uint64_t lba = 0;
    uint32_t nsid = 0;
  };
  static constexpr size_t kErrorEntries = 4;
  static constexpr size_t kEventRequests = 4;  // IDENTIFY's AERL + 1
  static constexpr size_t kMostEvents = 16;
  static constexpr uint16_t kTemperature = 0x143, kDefaultOverTemperature = 0x157;  // kelvins
  struct State {
    uint32_t cc = 0, csts = 0, aqa = 0, interrupt_mask = 0;
    uint64_t asq = 0, acq = 0, cmbmsc = 0, pmrmsc = 0;
    bool persistent_enabled = false;
    bool resetting = false;  // CC.EN went to 0; requests are still on their way
    std::array<SubmissionQueue, kMostQueues + 1> sqs{};
    std::array<CompletionQueue, kMostQueues + 1> cqs{};
    uint64_t shadow_doorbells = 0, event_indexes = 0;  // guest addresses; 0: not configured
    Features features;
    std::vector<uint16_t> event_requests;  // cids
    std::vector<uint32_t> events;          // as their completion tells them
    uint8_t masked_events = 0;             // types that wait for their log to be read
    std::array<ErrorEntry, kErrorEntries> errors{};
    uint64_t error_count = 0;
  };
  // One command under way; in `requests_` from its fetch to its completion.
  struct Request {
    uint16_t sq = 0;
    uint32_t life = 0;
    bool begun = false;
    nvme::Command command{};
  };
  using RequestRef = std::list<Request>::iterator;
  // How an admin command ended: a status and dword 0 of the completion.
  struct Outcome {
    uint16_t status = nvme::kSuccess;
    uint32_t result = 0;
  };

  NvmeController(std::string path, Config config, GuestMemory& memory);

  // nvme_controller.cc: registers and doorbells.
  uint64_t read(uint64_t offset, unsigned size);
  void write(uint64_t offset, unsigned size, uint64_t value);
  void config_written(uint16_t offset, unsigned size, uint32_t value) override;
  void config_loaded() override;
  // The following hold lock_.
  [[nodiscard]] uint64_t capabilities() const;
  [[nodiscard]] uint64_t register_at(uint64_t offset) const;
  void write_register(uint64_t offset, uint32_t value);
  void write_configuration(uint32_t value);
  void write_doorbell(uint64_t offset, uint32_t value);
  void submission_doorbell(unsigned queue, uint32_t tail);
  void completion_doorbell(unsigned queue, uint32_t head);
  void enable();
  void persistent_changed();
  void begin_reset();
  void finish_reset();
  void begin_shutdown();
  Task<void> shut_down(uint32_t life);
  void fatal(std::string_view what);
  void update_pin();
  // Starts what was found with the lock held. No lock held.
  void begin_pending(std::unique_lock<std::mutex> lock);

  // nvme_queues.cc: fetching and completing.
  // DMA as the controller's addresses mean it; any thread.
  bool dma_read(Gpa address, std::span<uint8_t> to) override;
  bool dma_write(Gpa address, std::span<const uint8_t> from);
  [[nodiscard]] Gpa dma_address(Gpa address) const;
  // The following hold lock_.
  [[nodiscard]] bool running() const {
    return (state_.csts & (nvme::kCstsReady | nvme::kCstsFatal)) == nvme::kCstsReady && !state_.resetting && !stopped_;
  }
  void kick();
  std::optional<RequestRef> fetch();
  std::optional<RequestRef> fetch_from(unsigned queue);
  [[nodiscard]] bool may_fetch(const SubmissionQueue& queue) const;
  void look_at_shadow_tail(unsigned queue);
  bool arm_shadow_tail(unsigned queue);
  void complete(uint16_t sq, uint16_t cid, uint16_t status, uint32_t result);
  void post(CompletionQueue& queue, nvme::Completion entry);
  void note_error(const Request& request, uint16_t status);
  void drain_waiting(unsigned queue);
  [[nodiscard]] bool refresh_head(unsigned queue);
  void end_request(RequestRef request);
  void end_admin(RequestRef request);
  [[nodiscard]] bool quiet() const { return requests_.empty(); }
  // The following hold no lock.
  Task<void> work_on_home();
  void work();
  void start_request(RequestRef request);
  Task<void> run_request(RequestRef request);
  void finish(RequestRef request, uint16_t status, uint32_t result);

  // nvme_admin.cc; lock_ held.
  void run_admin();
  std::optional<Outcome> admin(const nvme::Command& command);
  Outcome create_sq(const nvme::Command& command);
  std::optional<Outcome> delete_sq(const nvme::Command& command);
  Outcome create_cq(const nvme::Command& command);
  Outcome delete_cq(const nvme::Command& command);
  Outcome abort(const nvme::Command& command);
  std::optional<Outcome> event_request(const nvme::Command& command);
  Outcome doorbell_buffers(const nvme::Command& command);
  void send_event(nvme::EventType type, uint8_t info, uint8_t log);
  void deliver_events();
  uint16_t give(const nvme::Command& command, std::span<const uint8_t> data);

  // nvme_identify.cc; lock_ held.
  Outcome identify(const nvme::Command& command);
  void identify_controller(std::array<uint8_t, 4096>& data) const;
  Outcome get_log_page(const nvme::Command& command);
  [[nodiscard]] std::vector<uint8_t> error_log() const;
  [[nodiscard]] std::vector<uint8_t> health_log(uint32_t nsid) const;
  [[nodiscard]] uint8_t critical_warning() const;

  // nvme_features.cc; lock_ held.
  Outcome set_features(const nvme::Command& command);
  Outcome get_features(const nvme::Command& command);
  void set_write_cache(bool on);
  uint16_t set_temperature(uint32_t value);

  // nvme_io.cc; no lock held.
  Task<uint16_t> perform(nvme::Command command);
  Task<uint16_t> transfer(NvmeNamespace& space, nvme::Command command);
  Task<uint16_t> scattered_read(NvmeNamespace& space, uint64_t offset, nvme::DataPointer data);
  Task<uint16_t> compare(NvmeNamespace& space, nvme::Command command);
  Task<uint16_t> write_zeroes(NvmeNamespace& space, nvme::Command command);
  Task<uint16_t> verify(NvmeNamespace& space, nvme::Command command);
  Task<uint16_t> manage(NvmeNamespace& space, nvme::Command command);
  Task<uint16_t> flush_all();
  Task<uint16_t> format(nvme::Command command);
  struct Extent {
    uint64_t offset = 0, bytes = 0;
  };
  std::expected<Extent, uint16_t> extent_of(const NvmeNamespace& space, const nvme::Command& command) const;
  [[nodiscard]] uint64_t most_bytes() const {
    return options_.mdts == 0 ? UINT64_MAX : uint64_t{4096} << options_.mdts;
  }
  std::expected<SgBuffer, uint16_t> pin(const nvme::Command& command, uint64_t bytes, DmaDirection direction);
  [[nodiscard]] NvmeNamespace* find_namespace(uint32_t nsid) const;

  // nvme_saved.cc
  struct Saved;
  [[nodiscard]] Saved taken_apart();
  // Judges what was read and puts it together; false: it is impossible, and the reader knows why.
  bool put_together(StateReader& reader, const Saved& wire, State& state, std::list<Request>& requests) const;
  bool put_queues(StateReader& reader, const Saved& wire, State& state) const;
  bool put_requests(StateReader& reader, const Saved& wire, State& state, std::list<Request>& requests) const;
  template <class Codec>
  friend void visit(Codec& codec, NvmeController::Saved& wire);

  // Static configuration.
  const Config options_;

  // Wiring.
  GuestMemory& memory_;
  std::shared_ptr<RamBlock> cmb_;
  std::shared_ptr<Region> persistent_region_;  // inside of BAR 4
  IoWindow<NvmeController> window_;
  std::unique_ptr<NamespaceBus> bus_;
  std::unique_ptr<NvmeNamespace> own_namespace_;
  std::array<NvmeNamespace*, NvmeNamespace::kMostNamespaces + 1> namespaces_{};  // by nsid
  Executor* home_ = nullptr;  // of the drives; null: I/O commands are answered at once
  bus::MsixCapability msix_;

  // State.
  std::mutex lock_;
  State state_;
  std::list<Request> requests_;  // those of an earlier life too, until they end
  // Derived, or about the present run only.
  std::list<Request> spare_;
  uint64_t ready_ = 0;  // bit n: I/O submission queue n+1 may have commands
  unsigned next_queue_ = 0;
  uint32_t life_ = 0;                            // grows with every reset
  bool working_ = false;                         // a worker is on its way or at work
  bool stopped_ = false;                         // between stop() and start()
  bool work_here_ = false;                       // without a home: the thread that rang the doorbell works
  std::vector<RequestRef> pending_;              // admin commands that take their time
  std::atomic<uint64_t> page_bytes_{4096};       // CC.MPS as of the last enabling
  std::atomic<uint64_t> cmbmsc_{0};              // as state_.cmbmsc
  std::atomic<uint64_t> cmb_address_{0};         // of BAR 2
  std::atomic<uint64_t> pmrmsc_{0};              // as state_.pmrmsc, 0 while the region is off
  std::atomic<uint64_t> persistent_address_{0};  // of BAR 4
  bool default_write_cache_ = true;

  TaskScope tasks_;
};

}  // namespace kite::devices
