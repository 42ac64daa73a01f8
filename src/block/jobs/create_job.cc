#include "block/jobs/create_job.h"

#include <algorithm>

namespace kite::block {
namespace {

// What BlockdevCreateOptions calls otherwise than the tools do.
constexpr std::pair<std::string_view, std::string_view> kNames[] = {{"version", "compat"},
                                                                    {"cluster-size", "cluster_size"},
                                                                    {"lazy-refcounts", "lazy_refcounts"},
                                                                    {"refcount-bits", "refcount_bits"},
                                                                    {"compression-type", "compression_type"},
                                                                    {"extended-l2", "extended_l2"},
                                                                    {"data-file", "data_file"}};

}  // namespace

CreateJob::CreateJob(BlockGraph& graph, std::string id, BlockOptions options)
    : Job(graph, JobType::kCreate, {.id = std::move(id), .auto_dismiss = false}), create_options_(std::move(options)) {}

Task<Result<>> CreateJob::work() {
  progress(0, 1);
  const std::string driver = create_options_.take_string("driver");
  Result<> done;
  if (driver == "file") {
    done = co_await create_file();
  } else if (const ImageFormat* format = find_image_format(driver); format != nullptr) {
    done = co_await create_format(*format);
  } else {
    done = fail("Driver '{}' does not support image creation", driver);
  }
  if (done) progress(1, 1);
  co_return done;
}

Task<Result<>> CreateJob::create_file() {
  const std::string filename = create_options_.take_string("filename");
  if (filename.empty()) co_return fail("Parameter 'filename' is missing");
  KITE_CO_ASSIGN(const uint64_t bytes, create_options_.take_size("size", 0));
  KITE_CO_ASSIGN(const Preallocation mode, parse_preallocation(create_options_.take_string("preallocation", "off")));
  create_options_.take("nocow");
  create_options_.take("extent-size-hint");
  KITE_CO_TRY(create_options_.all_taken("file"));
  KITE_CO_TRY(create_host_file(filename, false));
  BlockOptions options;
  options.set("driver", "file");
  options.set("filename", filename);
  KITE_CO_ASSIGN(const NodePtr file, co_await graph().open(std::move(options)));
  const Result<> sized = co_await file->truncate(bytes, mode);
  const Result<> closed = co_await file->close();
  co_return !sized ? sized : closed;
}

Task<Result<>> CreateJob::create_format(const ImageFormat& format) {
  BlockOptions file_options = create_options_.take_child("file");
  if (file_options.empty()) co_return fail("Parameter 'file' is missing");
  if (!create_options_.has("size")) co_return fail("Parameter 'size' is missing");
  CreateRequest request;
  KITE_CO_ASSIGN(request.bytes, create_options_.take_size("size", 0));
  request.backing_filename = create_options_.take_string("backing-file");
  request.backing_format = create_options_.take_string("backing-fmt");
  if (!format.has_backing && !request.backing_filename.empty())
    co_return fail("the format '{}' does not support backing files", format.name);
  for (const auto& [here, there] : kNames)
    if (const auto value = create_options_.take(here)) create_options_.set(std::string(there), *value);
  request.options = create_options_;
  KITE_CO_ASSIGN(const NodePtr file, co_await graph().open(std::move(file_options)));
  request.filename = file->filename();
  if (file->user_count() != 0) co_return fail("Node '{}' is already in use", file->name());
  // Its content goes: what was there before is no part of the new image.
  const bool kept = file->kept();
  if (file->growable()) KITE_CO_TRY(co_await file->truncate(0));
  Result<> done = co_await format.create(graph(), file, std::move(request));
  file->set_kept(kept);
  if (const auto flushed = co_await file->flush(); done && !flushed)
    done = fail("{}", errno_text(flushed.error().code));
  if (!kept) {
    if (const Result<> closed = co_await file->close(); !closed && done) done = closed;
  }
  co_return done;
}

}  // namespace kite::block
