#include "machine/machine.h"

#include <pthread.h>
#include <unistd.h>

#include <utility>

#include "machine/accelerator_choice.h"
#include "machine/drive_store.h"
#include "support/log.h"

namespace kite::machine {

std::string_view run_state_name(RunState state) {
  switch (state) {
    case RunState::kPrelaunch: return "prelaunch";
    case RunState::kRunning: return "running";
    case RunState::kPaused: return "paused";
    case RunState::kIoError: return "io-error";
    case RunState::kSuspended: return "suspended";
    case RunState::kShutdown: return "shutdown";
    case RunState::kInternalError: return "internal-error";
    case RunState::kGuestPanicked: return "guest-panicked";
    case RunState::kInMigrate: return "inmigrate";
    case RunState::kFinishMigrate: return "finish-migrate";
    case RunState::kPostMigrate: return "postmigrate";
    case RunState::kSaveVm: return "save-vm";
    case RunState::kRestoreVm: return "restore-vm";
    case RunState::kDebug: return "debug";
  }
  return "paused";
}

std::string_view cause_name(Cause cause) {
  switch (cause) {
    case Cause::kHostQmpQuit: return "host-qmp-quit";
    case Cause::kHostQmpSystemReset: return "host-qmp-system-reset";
    case Cause::kHostSignal: return "host-signal";
    case Cause::kHostUi: return "host-ui";
    case Cause::kHostError: return "host-error";
    case Cause::kGuestShutdown: return "guest-shutdown";
    case Cause::kGuestReset: return "guest-reset";
    case Cause::kGuestPanic: return "guest-panic";
  }
  return "none";
}

bool cause_by_guest(Cause cause) {
  return cause == Cause::kGuestShutdown || cause == Cause::kGuestReset || cause == Cause::kGuestPanic;
}

Machine::Machine(MachineConfig config, Services services)
    : config_(std::move(config)), services_(std::move(services)), io_(memory_, ports_, gate_) {}

Machine::~Machine() {
  stop_threads();
  leave_disks();
  if (clock_ != nullptr) services_.executor.detach(*clock_);
  services_.executor.detach(realtime_);
  services_.executor.detach(monotonic_);
}

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config, Services services) {
  std::unique_ptr<Machine> machine(new Machine(config, std::move(services)));
  KITE_TRY(machine->build());
  return machine;
}

Result<> Machine::create_accelerator() {
  KITE_ASSIGN(accelerator_, choose_accelerator(config_));
  return {};
}

ManualClock* Machine::manual_clock() { return dynamic_cast<ManualClock*>(clock_.get()); }

Result<> Machine::build() {
  KITE_TRY(create_accelerator());
  KITE_TRY(choose_cpu());
  if (accelerator_->executes())
    clock_ = std::make_unique<VirtualClock>();
  else
    clock_ = std::make_unique<ManualClock>();
  services_.executor.attach(*clock_);
  io_.set_clock(*clock_, accelerator_->queued_writes());
  services_.executor.attach(realtime_);
  services_.executor.attach(monotonic_);

  BoardRequests requests{
      .reset = [this] { request_reset(Cause::kGuestReset); },
      .shutdown = [this] { request_shutdown(Cause::kGuestShutdown); },
      .suspend = [this] { request_suspend(); },
      .hibernate = [this] { request_hibernate(); },
      .wake = [this] { request_wake(); },
      .exit = [this](int status) { request_exit(status); },
      .watchdog = [this] { request_watchdog(); },
      .eject = [this](std::string slot) { request_eject(std::move(slot)); },
      // A monitor's command that moves it hears of it before its answer.
      .tray_moved =
          [this](const block::Drive* drive, bool open) {
            if (services_.executor.on_this_thread()) return tray_moved(drive, open);
            services_.executor.post([this, drive, open] { tray_moved(drive, open); });
          },
      .balloon_changed =
          [this](uint64_t bytes) { emit_limited({.kind = MachineEvent::Kind::kBalloonChange, .bytes = bytes}); },
      .port_changed =
          [this](std::string id, bool open) {
            emit_limited({.kind = MachineEvent::Kind::kPortChange, .device = std::move(id), .port_open = open});
          },
  };
  KITE_ASSIGN(numa_, lay_out_numa(config_));
  KITE_ASSIGN(board_, create_board(BoardContext{.config = config_,
                                                .cpu = cpu_spec_,
                                                .numa = numa_,
                                                .types = services_.types,
                                                .memory = memory_,
                                                .ports = ports_,
                                                .clock = *clock_,
                                                .realtime_clock = realtime_,
                                                .requests = std::move(requests),
                                                .irq_chip = accelerator_->irq_chip(),
                                                .tsc_hz = accelerator_->tsc_hz(),
                                                .executor = &services_.executor,
                                                .smm = config_.smm && accelerator_->has_smm(),
                                                .drives = services_.drives,
                                                .console = services_.console,
                                                .nets = services_.nets,
                                                .chardevs = services_.chardevs,
                                                .entropy = services_.entropy}));
  watch_disks();
  io_.set_fpu_error_handler([this] { board_->fpu_error(); });
  memory_.commit();
  ports_.commit();
  KITE_TRY(accelerator_->attach_memory(memory_));
  KITE_TRY(accelerator_->attach_ports(ports_));
  KITE_TRY(add_smm_memory());
  return create_vcpus();
}

Result<> Machine::add_smm_memory() {
  const auto smram = board_->smram();
  if (smram == nullptr) return {};
  constexpr int kOverTheRest = 1;
  const auto everything = memory_.root().shared_from_this();
  smm_memory_.root().add(0, Region::alias("memory", everything, 0, everything->size()));
  smm_memory_.root().add(0, smram, kOverTheRest);
  smm_memory_.commit();
  io_.set_smm_memory(smm_memory_);
  return accelerator_->attach_smm_memory(smm_memory_);
}

Result<> Machine::choose_cpu() {
  const BoardInfo* info = find_board(config_.board);
  if (info == nullptr) return fail("-machine {}: no such board; 'kite -machine help' lists them", config_.board);
  if (info->max_cpus != 0 && config_.max_cpus > info->max_cpus)
    return fail("-smp: board {} takes {} CPUs at most, not {}", info->name, info->max_cpus, config_.max_cpus);
  const std::string model =
      config_.cpu_model.empty() ? std::string(info->max_cpus != 0 ? info->default_cpu : "qemu64") : config_.cpu_model;
  KITE_ASSIGN(cpu_spec_, x86::parse_cpu(model, accelerator_->offered_features()));
  constexpr uint32_t kLastApicId = 254;  // of eight bits; 255 is everybody
  if (const uint32_t last = config_.topology.apic_id(config_.max_cpus - 1); last > kLastApicId)
    return fail("-smp: grouped like this the last CPU has APIC id {}, and 254 is the last there is; give fewer", last);
  if (cpu_spec_.apic_id != 0)
    return fail("-cpu {}: the board numbers its CPUs from APIC id 0; leave apic-id out", model);
  if (!cpu_spec_.missing.empty()) {
    const std::string text = fmt::format("-cpu {}: accelerator {} cannot give {}", model, accelerator_->name(),
                                         fmt::join(cpu_spec_.missing, ", "));
    if (cpu_spec_.enforce) return fail("{}, and 'enforce' was asked for", text);
    log::warn("{}; the guest will not see it", text);
  }
  return {};
}

Result<> Machine::create_vcpus() {
  const BoardInfo* info = find_board(config_.board);
  if (info == nullptr || info->max_cpus == 0) return {};
  for (uint32_t index = 0; index < config_.cpu_count; ++index) {
    VcpuConfig vcpu{.index = index,
                    .apic_id = config_.topology.apic_id(index),
                    .cpu_count = config_.cpu_count,
                    .topology = config_.topology,
                    .cpu = &cpu_spec_,
                    .clock = clock_.get(),
                    .tsc_hz = accelerator_->tsc_hz(),
                    .apic = board_->local_apic(index),
                    .smm_memory = board_->smram() != nullptr ? &smm_memory_ : nullptr,
                    .ext_int = board_->ext_int()};
    KITE_ASSIGN(auto made, accelerator_->create_vcpu(vcpu));
    board_->connect_cpu(index, *made);
    gate_.add(*made);
    vcpus_.push_back(std::move(made));
  }
  return {};
}

// --- lifecycle

Result<> Machine::start() {
  KITE_TRY(reset_hardware());
  if (accelerator_->executes()) {
    for (size_t index = 0; index < vcpus_.size(); ++index) threads_.push_back(std::make_unique<VcpuThread>());
    for (size_t index = 0; index < vcpus_.size(); ++index)
      threads_[index]->thread = std::thread([this, index] { run_vcpu(index); });
    for (auto& thread : threads_) thread->tid.wait(0);  // named and known from here on
  }
  set_input_running(false);
  if (config_.incoming) state_ = RunState::kInMigrate;
  if (config_.incoming || config_.start_paused) return {};
  return resume();
}

Result<> Machine::reset_hardware() {
  for (bus::Device* device : board_->devices()) device->reset();
  for (auto& vcpu : vcpus_) vcpu->reset();
  io_.apply_map_changes();
  KITE_TRY(board_->load_software(vcpus_));
  io_.apply_map_changes();
  return {};
}

void Machine::set_clock_running(bool running) {
  auto* clock = dynamic_cast<VirtualClock*>(clock_.get());
  if (clock == nullptr) return;
  if (running) {
    accelerator_->time_resumed();
    clock->resume();
  } else {
    clock->pause();
    accelerator_->time_stopped();
  }
}

void Machine::set_input_running(bool running) {
  if (services_.console != nullptr) services_.console->set_running(running);
}

void Machine::halt_now() {
  set_input_running(false);
  gate_.close();
  gate_.wait_parked();
  io_.drain_coalesced();
  set_clock_running(false);
  quiet_disks();
  for (bus::Device* device : board_->devices()) device->stop();
}

void Machine::pause() {
  if (state_ != RunState::kRunning) return;
  halt_now();
  state_ = RunState::kPaused;
  emit({.kind = MachineEvent::Kind::kStop});
}

bool Machine::held() const {
  return state_ == RunState::kInMigrate || state_ == RunState::kFinishMigrate || state_ == RunState::kSaveVm ||
         state_ == RunState::kRestoreVm;
}

void Machine::pause_as(RunState state) {
  const bool was_running = state_ == RunState::kRunning || state_ == RunState::kSuspended;
  halt_now();
  state_ = state;
  if (was_running) emit({.kind = MachineEvent::Kind::kStop});
}

Result<> Machine::leave_pause(RunState state, bool run) {
  state_ = state;
  return run ? resume() : Result<>{};
}

Result<> Machine::resume() {
  if (state_ == RunState::kRunning || state_ == RunState::kSuspended) return {};
  if (held()) return fail("the machine is in state '{}'; it can go on once that is over", run_state_name(state_));
  KITE_TRY(claim_files());
  if (state_ == RunState::kShutdown || state_ == RunState::kInternalError || state_ == RunState::kGuestPanicked)
    return fail("the machine is in state '{}' and cannot go on; reset it first (system_reset)", run_state_name(state_));
  if (services_.drives != nullptr) KITE_TRY(services_.drives->end_filling());
  for (bus::Device* device : board_->devices()) device->start();
  state_ = RunState::kRunning;
  emit({.kind = MachineEvent::Kind::kResume});
  set_clock_running(true);
  set_input_running(true);
  wake_disks();
  gate_.open();
  return {};
}

void Machine::hold_vcpus(const std::vector<size_t>& indices) {
  std::vector<const Vcpu*> held;
  for (const size_t index : indices) held.push_back(vcpus_[index].get());
  gate_.hold(std::move(held));
}

void Machine::reset(Cause cause) {
  if (held()) return log::warn("the reset is dropped: the machine is in state '{}'", run_state_name(state_));
  const bool was_running = state_ == RunState::kRunning || state_ == RunState::kSuspended;
  halt_now();
  if (services_.drives != nullptr) services_.drives->cancel_waiting();
  for (const std::string& slot : board_->unplugged_by_reset()) take_out(slot);
  if (auto done = reset_hardware(); !done) {
    log::error("reset: {}", done.error().message);
    state_ = RunState::kInternalError;
    emit({.kind = MachineEvent::Kind::kStop});
    return;
  }
  emit({.kind = MachineEvent::Kind::kReset, .cause = cause});
  if (!was_running) {
    state_ = state_ == RunState::kPrelaunch ? RunState::kPrelaunch : RunState::kPaused;
    return;
  }
  for (bus::Device* device : board_->devices()) device->start();
  state_ = RunState::kRunning;
  set_clock_running(true);
  set_input_running(true);
  wake_disks();
  gate_.open();
}

void Machine::stop_threads() {
  gate_.shut_down();
  for (auto& thread : threads_)
    if (thread->thread.joinable()) thread->thread.join();
  threads_.clear();
}

// --- vCPU threads

int Machine::vcpu_thread_id(size_t index) const {
  return index < threads_.size() ? threads_[index]->tid.load(std::memory_order_acquire) : 0;
}

void Machine::run_vcpu(size_t index) {
  pthread_setname_np(pthread_self(), fmt::format("vcpu {}", index).c_str());
  threads_[index]->tid.store(gettid(), std::memory_order_release);
  threads_[index]->tid.notify_all();
  Vcpu& vcpu = *vcpus_[index];
  while (gate_.enter(&vcpu)) {
    const HaltReason reason = vcpu.run(io_);
    if (reason == HaltReason::kShutdown || reason == HaltReason::kReset) request_reset(Cause::kGuestReset);
    if (reason == HaltReason::kPowerOff) request_shutdown(Cause::kGuestShutdown);
    if (reason == HaltReason::kPanicked) request_shutdown(Cause::kGuestPanic);
    if (reason == HaltReason::kDebug) request_debug(index);
    if (reason == HaltReason::kInternalError) {
      {
        std::lock_guard lock(requests_mutex_);
        requests_.internal_error = true;
        requests_.error_text = fmt::format("CPU {}: {}", index, vcpu.internal_error());
      }
      gate_.close();
      services_.executor.post([this] { serve_requests(); });
    }
    gate_.leave();
    if (reason == HaltReason::kHalted) vcpu.wait_for_work();
  }
}

// --- requests

void Machine::request_reset(Cause cause) {
  if (config_.no_reboot) {
    request_shutdown(cause);
    return;
  }
  {
    std::lock_guard lock(requests_mutex_);
    requests_.reset = true;
    requests_.reset_cause = cause;
  }
  gate_.close();
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_shutdown(Cause cause) {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.shutdown = true;
    requests_.shutdown_cause = cause;
  }
  gate_.close();
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_exit(int status) {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.exit_status = status;
  }
  gate_.close();
  services_.executor.post([this] { serve_requests(); });
}

// Several may meet something at once: the first is told of. What others met was a breakpoint, which they meet again, or
// is over.
void Machine::request_debug(size_t index) {
  {
    std::lock_guard lock(requests_mutex_);
    if (!requests_.debugged_vcpu) requests_.debugged_vcpu = index;
  }
  gate_.close();
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_powerdown() {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.powerdown = true;
  }
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_watchdog() {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.watchdog = true;
  }
  services_.executor.post([this] { serve_requests(); });
}

void Machine::request_nmi() {
  for (auto& vcpu : vcpus_) vcpu->post_nmi();
}

void Machine::serve_requests() {
  Requests taken;
  {
    std::lock_guard lock(requests_mutex_);
    taken = std::exchange(requests_, Requests{});
  }
  if (taken.exit_status) {
    halt_now();
    services_.exit(*taken.exit_status);
    return;
  }
  if (taken.internal_error) {
    log::error("{}\nthe machine is stopped; reset it (system_reset) or quit", taken.error_text);
    halt_now();
    state_ = RunState::kInternalError;
    emit({.kind = MachineEvent::Kind::kStop});
    return;
  }
  if (taken.shutdown) {
    halt_now();
    if (taken.hibernate) emit({.kind = MachineEvent::Kind::kSuspendDisk});
    emit({.kind = MachineEvent::Kind::kShutdown, .cause = taken.shutdown_cause});
    if (config_.no_shutdown && cause_by_guest(taken.shutdown_cause)) {
      state_ = RunState::kShutdown;
      emit({.kind = MachineEvent::Kind::kStop});
      return;
    }
    services_.exit(0);
    return;
  }
  if (taken.debugged_vcpu && state_ == RunState::kRunning && !taken.reset) {
    debugged_vcpu_ = *taken.debugged_vcpu;
    pause_as(RunState::kDebug);
  }
  for (const std::string& slot : taken.ejected) take_out(slot);
  if (taken.watchdog) watchdog_expired();
  if (taken.reset) reset(taken.reset_cause);
  if (taken.powerdown) {
    emit({.kind = MachineEvent::Kind::kPowerdown});
    board_->power_button();
  }
  if (taken.suspend) suspend();
  if (taken.wake) wake();
}

void Machine::add_event_listener(std::function<void(const MachineEvent&)> listener) {
  listeners_.push_back(std::move(listener));
}

void Machine::emit(const MachineEvent& event) {
  for (auto& listener : listeners_) listener(event);
}

void Machine::emit_limited(MachineEvent event) {
  services_.executor.post([this, event = std::move(event)] {
    const std::string name = fmt::format("{} {}", static_cast<unsigned>(event.kind), event.device);
    event_limiter_.offer(name, [this, event] { emit(event); });
  });
}

}  // namespace kite::machine
