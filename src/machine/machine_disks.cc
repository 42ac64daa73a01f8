// Disks of a machine that stops, goes on, moves, is reset, ends; and what happens when one fails.
#include "devices/pflash/pflash.h"
#include "machine/drive_store.h"
#include "machine/machine.h"
#include "support/log.h"

namespace kite::machine {

void Machine::quiet_disks() {
  DriveStore* const drives = services_.drives;
  if (drives == nullptr || std::exchange(disks_quiet_, true)) return;
  drives->quiesce();
  if (const auto flushed = drives->flush_all(); !flushed) log::warn("{}", flushed.error().message);
}

void Machine::wake_disks() {
  DriveStore* const drives = services_.drives;
  if (drives == nullptr || !std::exchange(disks_quiet_, false)) return;
  drives->release_all();
  drives->retry_stopped();
}

void Machine::watch_disks() {
  if (services_.drives == nullptr) return;
  services_.drives->set_error_hook([this](const block::Drive* drive, const block::DriveErrorEvent& event) {
    if (event.action == block::OnError::kStop) gate_.close();
    services_.executor.post([this, drive, event] { disk_failed(drive, event); });
  });
  services_.drives->set_job_hook([this, alive = std::weak_ptr(jobs_watched_)](const block::JobEvent& event) {
    services_.executor.post([this, alive, event] {
      if (!alive.expired()) job_changed(event);
    });
  });
  services_.drives->set_export_hook([this, alive = std::weak_ptr(jobs_watched_)](const std::string& id) {
    services_.executor.post([this, alive, id] {
      if (!alive.expired()) emit({.kind = MachineEvent::Kind::kExportDeleted, .device = id});
    });
  });
}

void Machine::job_changed(const block::JobEvent& event) {
  using Kind = block::JobEvent::Kind;
  static constexpr MachineEvent::Kind kKinds[] = {MachineEvent::Kind::kJobStatus,    MachineEvent::Kind::kJobReady,
                                                  MachineEvent::Kind::kJobCompleted, MachineEvent::Kind::kJobCancelled,
                                                  MachineEvent::Kind::kJobError,     MachineEvent::Kind::kJobPending};
  if (event.kind == Kind::kStatus && event.job.status == block::JobStatus::kConcluded)
    services_.drives->take_new_lengths();
  emit({.kind = kKinds[static_cast<size_t>(event.kind)], .job = event});
}

Result<> Machine::release_files() {
  if (services_.drives != nullptr) KITE_TRY(services_.drives->deactivate());
  for (devices::Pflash* const chip : board_->flash_chips()) chip->release();
  return {};
}

Result<> Machine::claim_files() {
  if (services_.drives != nullptr) KITE_TRY(services_.drives->activate());
  for (devices::Pflash* const chip : board_->flash_chips()) {
    if (auto claimed = chip->claim(); !claimed) {
      (void)release_files();  // all or nothing
      return claimed;
    }
  }
  return {};
}

// Devices go: nothing of theirs may be under way or wait.
void Machine::leave_disks() {
  DriveStore* const drives = services_.drives;
  if (drives == nullptr) return;
  drives->end_exports();
  drives->set_export_hook({});
  drives->cancel_jobs();
  drives->set_job_hook({});
  drives->quiesce();
  drives->cancel_waiting();
  drives->set_error_hook({});
  vcpus_.clear();  // they know the board's APICs
  board_.reset();
  drives->release_all();
}

void Machine::disk_failed(const block::Drive* drive, block::DriveErrorEvent event) {
  const bool stops = event.action == block::OnError::kStop;
  const DriveStore::Entry* const entry = services_.drives->find(drive);
  emit({.kind = MachineEvent::Kind::kBlockIoError,
        .device = entry != nullptr ? entry->spec.id : event.drive_id,
        .qdev = entry != nullptr ? entry->qdev : "",
        .io_error = std::move(event)});
  if (!stops || state_ != RunState::kRunning) return;
  halt_now();
  state_ = RunState::kIoError;
  emit({.kind = MachineEvent::Kind::kStop});
}

void Machine::tray_moved(const block::Drive* drive, bool open) {
  const DriveStore::Entry* const entry = services_.drives->find(drive);
  if (entry == nullptr) return;
  emit({.kind = MachineEvent::Kind::kTrayMoved, .device = entry->spec.id, .qdev = entry->qdev, .tray_open = open});
}

}  // namespace kite::machine
