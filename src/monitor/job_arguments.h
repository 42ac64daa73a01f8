// Arguments that the commands which begin block jobs have in common.
#pragma once

#include <string>
#include <vector>

#include "block/jobs/job.h"
#include "machine/drive_images.h"
#include "machine/drive_store.h"
#include "monitor/qmp_commands.h"

namespace kite::monitor {

// A drive, by its main-thread face, or a node.
struct NamedImage {
  std::string name;
  block::Drive* drive = nullptr;
};
NamedImage named_image(MonitorContext& context, std::string name);
// On the block thread.
Result<block::NodePtr> find_image(block::BlockGraph& graph, const NamedImage& named);

// A machine that could have a job now.
std::expected<void, QmpError> may_begin_job(MonitorContext& context);
// job-id (else the name of the drive "device"), speed, on-error and its likes, auto-finalize, auto-dismiss.
std::expected<block::JobOptions, QmpError> job_options(MonitorContext& context, const Json& arguments);

// The file that drive-mirror and drive-backup write to, in the source's format unless one is named. On the block
// thread.
enum class TargetKind : uint8_t {
  kAlone,        // without a backing file
  kOverBacking,  // over the source's, which a new image names
  kAsItIs,
};
Task<Result<block::NodePtr>> open_target(block::BlockGraph& graph, machine::NewImage image, block::NodePtr source,
                                         TargetKind kind);

// What such arguments can be.
std::vector<std::string> error_actions(const MonitorContext& context);
std::vector<std::string> image_modes(const MonitorContext& context);

}  // namespace kite::monitor
