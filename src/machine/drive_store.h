// DriveStore: the disks of a machine, below its devices. It owns the block thread, the graph of nodes on it (-blockdev,
// and what -drive opens), and a block::Drive for each -drive and for each device that names a node.
//
// Threads: everything here is for the machine's main thread, but for what Drive and BlockGraph say themselves. The main
// thread waits for the block thread (run()); the block thread never waits for the main thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "async/executor.h"
#include "async/task.h"
#include "block/drive.h"
#include "block/graph.h"
#include "block/jobs/job.h"
#include "block/nbd/server.h"
#include "block/options.h"
#include "machine/drive_spec.h"
#include "machine/machine_config.h"
#include "support/result.h"

namespace kite::machine {

// What a type of device wants to be given as its "drive".
enum class DriveNeed : uint8_t {
  kNone,      // it has no such property: a controller
  kDisk,      // a disk; required
  kOptional,  // a disk, or none at all
  kCdrom,     // read-only and removable: without a drive, an empty one
  kFloppy,    // removable: without a drive, an empty one
};

class DriveStore {
 public:
  // Starts the block thread.
  static Result<std::unique_ptr<DriveStore>> create();
  // Flushes and closes all images. Every device is gone.
  ~DriveStore();
  DriveStore(const DriveStore&) = delete;
  DriveStore& operator=(const DriveStore&) = delete;

  [[nodiscard]] Executor& executor() { return *executor_; }
  // On the block thread only.
  [[nodiscard]] block::BlockGraph& graph() { return *graph_; }
  [[nodiscard]] block::JobTable& jobs() { return *jobs_; }
  [[nodiscard]] block::nbd::Server& nbd() { return *nbd_; }

  // Runs the task on the block thread and waits for it. Not on the block thread.
  template <class T>
  T run(Task<T> task) {
    std::optional<T> out;
    run_void(keep(std::move(task), &out));
    return std::move(*out);
  }
  void run(Task<void> task) { run_void(std::move(task)); }

  // -blockdev, blockdev-add: a node that stays until it is removed by name.
  Result<> add_node(block::BlockOptions options);
  Result<> remove_node(std::string_view name);
  // -drive, drive_add: opens the image and makes a drive, which a device may name by its id.
  Result<> add_drive(DriveSpec spec);
  // drive_del: takes the medium away from whoever has the drive, and the drive once nobody has.
  Result<> remove_drive(std::string_view id);

  struct Entry;
  // --- media of removable drives; the device is told by the caller ---
  Result<> insert_file(Entry& entry, block::BlockGraph::FileRequest request);
  Result<> insert_node(Entry& entry, std::string_view name);
  Result<> remove_medium(Entry& entry);
  // Makes a node longer or shorter, and tells the devices that use it. `name` is a drive or a node.
  Result<> resize(std::string_view name, uint64_t bytes);

  // Nodes have changed their size, or are others now: drives and their devices hear of it.
  void take_new_lengths();
  // An error that names the job which is under way; what moves or keeps the whole machine cannot have one.
  Result<> no_job();
  // All jobs end, as far as they have come, and leave chains that are whole.
  void cancel_jobs();
  // An error that names the export through which clients could write; as no_job().
  Result<> no_writable_export();
  // Called on the block thread with the id of every export that has ended; null: not any more.
  void set_export_hook(std::function<void(const std::string& id)> hook) { export_hook_ = std::move(hook); }
  // Clients of exports are hung up, and what they had ends.
  void end_exports();
  // Called on the block thread for every event of a job; null: not any more. With no job under way.
  void set_job_hook(std::function<void(const block::JobEvent&)> hook) { job_hook_ = std::move(hook); }

  // Limits for a drive's requests, shared with all drives of the group; an empty name is a group of its own.
  void set_throttle(Entry& entry, const block::ThrottleLimits& limits, const std::string& group);

  // --- devices ---
  // Fills in device.drive as the type needs it: the -drive or node that the property "drive" names, or an empty
  // removable drive; applies the device's werror, rerror, share-rw and write-cache. The device has it until release().
  Result<> claim_for(DeviceConfig& device, DriveNeed need);
  // The device exists: its path on the bus, and how the monitor names it ("hd0",
  // "/machine/peripheral/vd0/virtio-backend").
  void set_owner(block::Drive& drive, std::string path, std::string qdev);
  // The device is gone, and its drive goes with it; a node that has a name stays. Null is allowed.
  void release(block::Drive* drive);
  // The device did not come to be: another one may have the drive. Null is allowed.
  void give_back(block::Drive* drive);
  // release() by the path that set_owner() was told; nothing happens when there is none.
  void release_owned_by(std::string_view path);
  // Its requests that wait end with ECANCELED. Quiet already.
  void cancel_owned_by(std::string_view path);

  // --- the machine stops and goes on ---
  // No request of any device is on its way below a drive, and no completion runs any more, until release_all(). New
  // requests wait. Nests.
  void quiesce();
  // The same for clients of exports, who go on while a machine only stands still. For changes of the graph; nests.
  void quiesce_exports();
  void release_exports();
  // quiet already: requests that wait end with ECANCELED, and what devices do about it has been done.
  void cancel_waiting();
  void release_all();
  // Requests that an error stopped are tried again.
  void retry_stopped();
  // Images belong to another process from now on, or to this one again (BlockNode::deactivate()). Quiet already. With
  // an error of activate() none is this one's. starts_inactive(): before images are opened, they are another's.
  void starts_inactive();
  Result<> deactivate();
  Result<> activate();
  [[nodiscard]] bool active() const { return active_; }
  // The image of a machine that is still to come is filled by clients of an export: it is this process's from now on,
  // and its device lets others write it until end_filling(), which is refused while somebody could.
  Result<> begin_filling(block::NodePtr node);
  Result<> end_filling();
  // Everything that guests were told is on the disk, is.
  Result<> flush_all();

  // Called on the block thread for every failed request; find() tells the main thread about the drive, if it still
  // exists. Before devices exist.
  using ErrorHook = std::function<void(const block::Drive* drive, const block::DriveErrorEvent& event)>;
  void set_error_hook(ErrorHook hook) { error_hook_ = std::move(hook); }

  // --- insight ---
  struct Entry {
    DriveSpec spec;
    std::unique_ptr<block::Drive> drive;
    bool made_for_device = false;  // there is no -drive: it names a node, or is an empty removable drive
    bool removable = false;
    bool always_read_only = false;  // a CD-ROM drive
    bool claimed = false;
    std::shared_ptr<block::ThrottleGroup> throttle;  // null: no limits
    bool doomed = false;                             // drive_del came while a device had it: it goes with the device
    std::string owner_path;                          // of the bus::Device
    std::string qdev;                                // as the monitor names it
  };
  [[nodiscard]] const std::vector<std::unique_ptr<Entry>>& entries() const { return entries_; }
  // By the id of a -drive, else as find_owned_by(); null: none.
  [[nodiscard]] Entry* find(std::string_view id_or_path);
  // By the path or the monitor's name of the device that has it, or by the path of the device's object.
  [[nodiscard]] Entry* find_owned_by(std::string_view device);
  [[nodiscard]] Entry* find(const block::Drive* drive);

 private:
  template <class T>
  static Task<void> keep(Task<T> task, std::optional<T>* out) {
    out->emplace(co_await task);
  }
  explicit DriveStore(std::unique_ptr<Executor> executor);
  void run_void(Task<void> task);
  Task<void> drain_all();
  Task<void> cancel_requests(std::vector<block::Drive*> drives);
  Task<Result<>> flush_drives();
  Task<void> close_everything();
  Result<Entry*> add_entry(DriveSpec spec, block::DriveConfig config, block::NodePtr node);
  Result<Entry*> entry_for(const DeviceConfig& device, DriveNeed need);
  Result<> apply_policies(Entry& entry, const DeviceConfig& device);
  void unclaim(Entry& entry);
  void drop(Entry& entry);

  std::unique_ptr<Executor> executor_;
  std::unique_ptr<block::BlockGraph> graph_;
  std::unique_ptr<block::JobTable> jobs_;
  std::unique_ptr<block::nbd::Server> nbd_;
  std::vector<std::unique_ptr<Entry>> entries_;
  ErrorHook error_hook_;
  std::function<void(const block::JobEvent&)> job_hook_;
  std::function<void(const std::string& id)> export_hook_;
  std::map<std::string, std::weak_ptr<block::ThrottleGroup>, std::less<>> throttle_groups_;
  int quiet_ = 0;  // calls of quiesce()
  bool active_ = true;
  std::vector<block::Drive*> filled_;  // devices that let others write for now
  bool exports_wait_ = false;          // for the images to be this process's again
  std::thread thread_;
};

}  // namespace kite::machine
