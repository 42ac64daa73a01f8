// Devices that come and go while the machine lives.
#include <algorithm>

#include "machine/drive_store.h"
#include "machine/machine.h"

namespace kite::machine {

// Who moves the machine's state has a machine of the same devices at the other end.
Result<> Machine::may_change_devices() const {
  if (!devices_fixed_ && !held()) return {};
  return fail("no device comes or goes while the machine's state is being moved");
}

Result<> Machine::add_device(const ObjectOptions& options) {
  KITE_TRY(may_change_devices());
  KITE_ASSIGN(PropertyMap properties, services_.types.resolve(options, "device_add"));
  const DeviceConfig device{
      .type = options.type, .id = options.id, .properties = std::move(properties), .hotplugged = true};
  const std::vector<bus::Device*> before = board_->devices();
  const bool running = state_ == RunState::kRunning || state_ == RunState::kSuspended;
  Result<> done;
  gate_.exclusive([&] {
    done = board_->plug(device);
    if (!done || !running) return;
    for (bus::Device* const other : board_->devices())
      if (std::ranges::find(before, other) == before.end()) other->start();
  });
  io_.apply_map_changes();
  if (done) config_.devices.push_back(device);
  return done;
}

Result<> Machine::remove_device(std::string_view id) {
  KITE_TRY(may_change_devices());
  return board_->request_unplug(id);
}

void Machine::request_eject(std::string slot) {
  {
    std::lock_guard lock(requests_mutex_);
    requests_.ejected.push_back(std::move(slot));
  }
  services_.executor.post([this] { serve_requests(); });
}

void Machine::take_out(const std::string& slot) {
  DriveStore* const drives = services_.drives;
  if (drives != nullptr) drives->quiesce();
  std::vector<std::unique_ptr<bus::Device>> gone;
  gate_.exclusive([&] { gone = board_->take_out(slot); });
  io_.apply_map_changes();
  for (auto& device : gone) {
    device->stop();
    const std::string path = device->path();
    if (drives != nullptr) drives->cancel_owned_by(path);
    device.reset();
    std::erase_if(config_.devices, [&path](const DeviceConfig& config) { return config.id == path; });
    if (drives != nullptr) drives->release_owned_by(path);
    emit({.kind = MachineEvent::Kind::kDeviceDeleted, .device = path, .qdev = "/machine/peripheral/" + path});
  }
  if (drives != nullptr) drives->release_all();
}

}  // namespace kite::machine
