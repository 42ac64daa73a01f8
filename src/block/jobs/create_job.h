// CreateJob: makes an image file, or a format in a node that is open (blockdev-create).
#pragma once

#include <memory>
#include <string>

#include "block/image.h"
#include "block/jobs/job.h"

namespace kite::block {

class CreateJob final : public Job {
 public:
  // `options` as BlockdevCreateOptions has them, with "driver". What they say wrong is the job's error.
  CreateJob(BlockGraph& graph, std::string id, BlockOptions options);

 protected:
  Task<Result<>> work() override;

 private:
  Task<Result<>> create_file();
  Task<Result<>> create_format(const ImageFormat& format);

  BlockOptions create_options_;
};

}  // namespace kite::block
