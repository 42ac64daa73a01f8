// Machine: a board, its vCPU threads and its run state. The monitor, the qtest server and main() speak to this class.
//
// Threads: the control functions (pause, resume, reset, shut_down, ...) run on the main executor's thread; the
// request_...() functions may be called from any thread, devices and vCPUs included, and post to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "accel/accelerator.h"
#include "async/executor.h"
#include "block/drive.h"
#include "block/jobs/job_report.h"
#include "bus/device.h"
#include "machine/board.h"
#include "machine/dirty_rate.h"
#include "machine/event_limiter.h"
#include "machine/machine_config.h"
#include "machine/machine_io.h"
#include "machine/vcpu_gate.h"
#include "memory/address_space.h"
#include "memory/guest_memory.h"
#include "net/net_registry.h"
#include "object/object_type.h"
#include "support/result.h"

namespace kite::machine {

// Names as query-status gives them.
enum class RunState : uint8_t {
  kPrelaunch,
  kRunning,
  kPaused,
  kIoError,  // paused by a failed disk request, which is tried again when the machine goes on
  kSuspended,
  kShutdown,
  kInternalError,
  kGuestPanicked,
  kInMigrate,      // waits for the state of a machine that comes in
  kFinishMigrate,  // stands still while the rest of its state goes out
  kPostMigrate,    // has gone out whole
  kSaveVm,         // stands still while a snapshot is made, or goes back to one
  kRestoreVm,
  kDebug  // a vCPU met what a debugger waits for
};
std::string_view run_state_name(RunState state);

// Why the machine resets or ends; names as the RESET and SHUTDOWN events give them.
enum class Cause : uint8_t {
  kHostQmpQuit,
  kHostQmpSystemReset,
  kHostSignal,
  kHostUi,
  kHostError,
  kGuestShutdown,
  kGuestReset,
  kGuestPanic,
};
std::string_view cause_name(Cause cause);
bool cause_by_guest(Cause cause);

// What the monitor announces.
struct MachineEvent {
  enum class Kind : uint8_t {
    kReset,
    kShutdown,
    kPowerdown,
    kStop,
    kResume,
    kSuspend,
    kSuspendDisk,
    kWakeup,
    kWatchdog,
    kDeviceDeleted,
    kBlockIoError,
    kTrayMoved,
    kMigration,
    kMigrationPass,
    kBalloonChange,
    kPortChange,
    kJobStatus,
    kJobReady,
    kJobCompleted,
    kJobCancelled,
    kJobError,
    kJobPending,
    kExportDeleted
  } kind;
  Cause cause = Cause::kHostQmpQuit;  // kReset, kShutdown
  // kWatchdog: what happens, as -watchdog-action names it; kMigration: the status, as query-migrate names it.
  std::string action = {};
  std::string device =
      {};  // kDeviceDeleted, kPortChange, kExportDeleted: its id; kBlockIoError, kTrayMoved: the drive's, "" for none
  std::string qdev = {};                 // kBlockIoError, kTrayMoved: the device's path; kDeviceDeleted: the same
  block::DriveErrorEvent io_error = {};  // kBlockIoError
  bool tray_open = false;                // kTrayMoved
  bool port_open = false;                // kPortChange
  uint64_t bytes = 0;                    // kBalloonChange: what the guest has
  uint64_t pass = 0;                     // kMigrationPass
  block::JobEvent job = {};              // kJob...
};

class Machine {
 public:
  // What the machine needs of the process around it. All outlive it.
  struct Services {
    Executor& executor;  // main loop; also the devices' home
    TypeRegistry& types;
    // Ends the process with this status: called on the executor's thread once everything stands still.
    std::function<void(int status)> exit;
    DriveStore* drives = nullptr;      // null: a machine without disks
    net::NetRegistry* nets = nullptr;  // null: a machine without network
    display::Console* console = nullptr;
    ChardevRegistry* chardevs = nullptr;
    entropy::EntropyRegistry* entropy = nullptr;
  };

  static Result<std::unique_ptr<Machine>> create(const MachineConfig& config, Services services);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Resets everything, loads the kernel, starts the vCPU threads; runs unless start_paused.
  Result<> start();

  // --- control: main executor's thread ---
  void pause();       // returns with every vCPU parked and guest time stopped; emits STOP when it was running
  Result<> resume();  // refused, with the reason, after a shutdown or an internal error until reset
  // Of the debugger's: vCPUs that stand still although the machine runs. While it does not.
  void hold_vcpus(const std::vector<size_t>& indices);
  // In kDebug: the vCPU that met something; Vcpu::debug_stop() says what.
  [[nodiscard]] size_t debugged_vcpu() const { return debugged_vcpu_; }
  void reset(Cause cause);
  // Stands still in `state` from now on; emits STOP when it was running. kFinishMigrate, kSaveVm, kRestoreVm and
  // kInMigrate are left by leave_pause() alone: until then resume(), reset() and devices that come and go are refused.
  void pause_as(RunState state);
  // Disks and flash chips, while nothing runs: their files are another process's from now on, or this one's again. With
  // an error of claim_files() none is.
  Result<> release_files();
  Result<> claim_files();
  // Into kPaused or kPostMigrate, or, with `run`, on.
  Result<> leave_pause(RunState state, bool run);
  // Whether it stands still for as long as somebody reads or writes its state.
  [[nodiscard]] bool held() const;
  // For as long as a migration is under way, running or not: no device comes or goes.
  void set_devices_fixed(bool fixed) { devices_fixed_ = fixed; }
  [[nodiscard]] bool devices_fixed() const { return devices_fixed_; }
  // Everything but the contents of RAM and disks, while nothing runs; see machine_saved.cc. restore_state() is for a
  // machine with the same devices, and undoes nothing on an error: reset it then.
  [[nodiscard]] std::vector<uint8_t> save_state();
  Result<> restore_state(std::span<const uint8_t> bytes);
  Result<> system_wakeup();  // from suspend to RAM; refused in any other state
  [[nodiscard]] RunState state() const { return state_; }
  // Adds a device; running or not. Its type and properties are checked here.
  Result<> add_device(const ObjectOptions& options);
  // Asks the guest to let go of a device; the event kDeviceDeleted tells when it is gone. A reset takes it, too.
  Result<> remove_device(std::string_view id);

  // --- requests: any thread ---
  void request_reset(Cause cause);     // honours -no-reboot
  void request_shutdown(Cause cause);  // honours -no-shutdown for guest causes; ends the process otherwise
  void request_powerdown();            // the power button
  void request_suspend();              // S3
  void request_hibernate();            // S4: says so and shuts down
  void request_wake();                 // ignored unless suspended
  void request_exit(int status);       // isa-debug-exit: stops at once, ends the process with `status`
  void request_nmi();                  // to every CPU, as the NMI button
  void request_watchdog();             // a watchdog expired

  // What was requested, now: for the main executor's thread, which would do it a little later by itself. A command of a
  // user finds the reset that he asked for before it done.
  void serve_requests();

  // Observers of events, called on the main thread.
  void add_event_listener(std::function<void(const MachineEvent&)> listener);

  // --- insight: monitor, qtest, tests ---
  // Its devices are those that there are now, device_add's included.
  [[nodiscard]] const MachineConfig& config() const { return config_; }
  [[nodiscard]] const NumaLayout& numa() const { return numa_; }
  [[nodiscard]] Executor& executor() { return services_.executor; }
  [[nodiscard]] TypeRegistry& types() { return services_.types; }
  [[nodiscard]] const x86::CpuSpec& cpu() const { return cpu_spec_; }
  [[nodiscard]] Accelerator& accelerator() { return *accelerator_; }
  [[nodiscard]] AddressSpace& memory() { return memory_; }
  [[nodiscard]] AddressSpace& ports() { return ports_; }
  // What a CPU in this mode sees.
  [[nodiscard]] AddressSpace& memory_in_mode(bool smm) {
    return smm && board_->smram() != nullptr ? smm_memory_ : memory_;
  }
  [[nodiscard]] Clock& clock() { return *clock_; }
  [[nodiscard]] ManualClock* manual_clock();  // qtest only, else null
  [[nodiscard]] Board& board() { return *board_; }
  [[nodiscard]] DirtyRate& dirty_rate() { return dirty_rate_; }
  [[nodiscard]] DriveStore* drives() { return services_.drives; }
  [[nodiscard]] display::Console* console() { return services_.console; }
  [[nodiscard]] net::NetRegistry* nets() { return services_.nets; }
  [[nodiscard]] size_t vcpu_count() const { return vcpus_.size(); }
  [[nodiscard]] Vcpu& vcpu(size_t index) { return *vcpus_[index]; }
  [[nodiscard]] int vcpu_thread_id(size_t index) const;  // kernel thread id; 0 before start()
  [[nodiscard]] MachineIo& io() { return io_; }          // accesses as CPU 0 makes them, map changes applied

 private:
  Machine(MachineConfig config, Services services);
  Result<> build();
  Result<> create_accelerator();
  Result<> choose_cpu();
  Result<> create_vcpus();
  Result<> add_smm_memory();
  Result<> reset_hardware();
  void run_vcpu(size_t index);
  void request_debug(size_t index);
  void stop_threads();
  void set_clock_running(bool running);
  void set_input_running(bool running);
  void emit(const MachineEvent& event);
  void emit_limited(MachineEvent event);  // of its kind and device; any thread
  void suspend();
  void wake();
  void watchdog_expired();
  [[nodiscard]] Result<> may_change_devices() const;
  void request_eject(std::string slot);
  void take_out(const std::string& slot);
  void halt_now();
  // machine_disks.cc. Disks stand still from the first to the second; a reset cancels what waits in between.
  void quiet_disks();
  void wake_disks();
  void watch_disks();
  void leave_disks();
  void tray_moved(const block::Drive* drive, bool open);
  void disk_failed(const block::Drive* drive, block::DriveErrorEvent event);
  void job_changed(const block::JobEvent& event);

  struct VcpuThread {
    std::thread thread;
    std::atomic<int> tid{0};
  };

  MachineConfig config_;
  Services services_;
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  AddressSpace ports_{"io", 65536};
  AddressSpace smm_memory_{"smm-memory", uint64_t{1} << 52};  // memory_, and SMRAM over it
  std::unique_ptr<Clock> clock_;
  HostClock realtime_{HostClock::Kind::kRealtime};
  HostClock monotonic_{HostClock::Kind::kMonotonic};
  VcpuGate gate_;
  MachineIo io_;
  std::unique_ptr<Accelerator> accelerator_;
  x86::CpuSpec cpu_spec_;
  NumaLayout numa_;
  std::unique_ptr<Board> board_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<std::unique_ptr<VcpuThread>> threads_;
  std::vector<std::function<void(const MachineEvent&)>> listeners_;
  size_t debugged_vcpu_ = 0;
  RunState state_ = RunState::kPrelaunch;
  bool disks_quiet_ = false, devices_fixed_ = false;
  std::shared_ptr<bool> jobs_watched_ = std::make_shared<bool>(true);  // posted tasks look whether the machine is there
  DirtyRate dirty_rate_{memory_, monotonic_};
  EventLimiter event_limiter_{monotonic_};

  // Requests of other threads, taken by serve_requests() on the main thread.
  struct Requests {
    bool reset = false, shutdown = false, powerdown = false, suspend = false, hibernate = false, wake = false,
         internal_error = false, watchdog = false;
    std::optional<int> exit_status;
    std::optional<size_t> debugged_vcpu;
    Cause reset_cause = Cause::kGuestReset, shutdown_cause = Cause::kGuestShutdown;
    std::string error_text;
    std::vector<std::string> ejected;  // slots
  };
  std::mutex requests_mutex_;
  Requests requests_;
};

}  // namespace kite::machine
