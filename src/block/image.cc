#include "block/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "block/file_lock.h"
#include "block/qcow2/create.h"
#include "block/qed/qed_node.h"
#include "support/fd.h"
#include "support/suggest.h"

namespace kite::block {
namespace {

Failure unsupported(const BlockNode& node, const char* what) {
  return fail("the format '{}' does not support {}", node.driver(), what);
}

Task<Result<>> create_raw(BlockGraph&, NodePtr file, CreateRequest request) {
  KITE_CO_ASSIGN(const Preallocation mode, parse_preallocation(request.options.take_string("preallocation", "off")));
  request.options.take("size");
  request.options.take("nocow");
  request.options.take("extent_size_hint");
  KITE_CO_TRY(request.options.all_taken("raw"));
  co_return co_await file->truncate(request.bytes, mode);
}

Result<Measure> measure_raw(uint64_t bytes, uint64_t, BlockOptions options) {
  for (const char* name : {"size", "nocow", "preallocation", "extent_size_hint"}) options.take(name);
  KITE_TRY(options.all_taken("raw"));
  return Measure{.required = bytes, .fully_allocated = bytes};
}

Result<uint64_t> no_clusters(BlockOptions) { return 0; }

constexpr auto kRawOptions = std::to_array<CreateOption>({
    {"preallocation", "str", "Preallocation mode (allowed values: off, falloc, full)"},
    {"size", "size", "Virtual disk size"},
});

}  // namespace

Task<Result<CheckResult>> FormatNode::check(Repair, CheckMessage) { co_return unsupported(*this, "checks"); }
Task<Result<>> FormatNode::change_backing_name(std::string, std::string) {
  co_return unsupported(*this, "backing files");
}
Task<Result<>> FormatNode::make_empty() { co_return unsupported(*this, "being emptied"); }
Result<> FormatNode::set_backing(NodePtr) { return unsupported(*this, "backing files"); }
Task<Result<>> FormatNode::snapshot_create(SnapshotInfo) { co_return unsupported(*this, "internal snapshots"); }
Task<Result<>> FormatNode::snapshot_apply(std::string) { co_return unsupported(*this, "internal snapshots"); }
Task<Result<>> FormatNode::snapshot_delete(std::string) { co_return unsupported(*this, "internal snapshots"); }
Task<Result<>> FormatNode::snapshot_load(std::string) { co_return unsupported(*this, "internal snapshots"); }
Task<Result<>> FormatNode::amend(BlockOptions) { co_return unsupported(*this, "changes of its options"); }

Task<IoResult<>> FormatNode::read_vm_state(uint64_t, IoSlice) { return ready<IoResult<>>(io_fail(ENOTSUP)); }
Task<IoResult<>> FormatNode::write_vm_state(uint64_t, IoSlice, IoHow) { return ready<IoResult<>>(io_fail(ENOTSUP)); }

std::span<const ImageFormat> image_formats() {
  static const std::array<ImageFormat, 3> kFormats{{
      {"qcow2", qcow2::create_options(), &qcow2::create, &qcow2::measure, &qcow2::cluster_bytes_of, true, true},
      {"qed", qed::create_options(), &qed::create, &qed::measure, &qed::cluster_bytes_of, true, false},
      {"raw", kRawOptions, &create_raw, &measure_raw, &no_clusters, false, false},
  }};
  return kFormats;
}

const ImageFormat* find_image_format(std::string_view name) {
  for (const ImageFormat& format : image_formats()) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

namespace {

// An old file whose unused parts can be given back one by one.
bool can_be_overwritten(int fd) {
  struct stat status{};
  constexpr off_t kFirst = 4096;
  return ::fstat(fd, &status) == 0 && status.st_blocks != 0 &&
         ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kFirst) == 0;
}

}  // namespace

Result<bool> create_host_file(const std::string& filename, bool overwrite) {
  struct stat status{};
  // A block device is there already; only a regular file is made anew.
  if (::stat(filename.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) return true;
  const Fd fd(::open(filename.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return fail("Could not create '{}': {}", filename, errno_text(errno));
  // Not while a machine or another tool uses it.
  FileLock lock;
  KITE_TRY(lock.change(fd.get(), filename, Permissions::kWrite | Permissions::kResize,
                       Permissions::kAll & ~Permissions::kResize));
  if (overwrite && can_be_overwritten(fd.get())) return true;
  if (::ftruncate(fd.get(), 0) != 0) return fail("Could not resize '{}': {}", filename, errno_text(errno));
  return false;
}

Result<Preallocation> parse_preallocation(std::string_view text) {
  static constexpr std::array<std::string_view, 4> kModes{"off", "metadata", "falloc", "full"};
  for (size_t i = 0; i < kModes.size(); ++i) {
    if (kModes[i] == text) return static_cast<Preallocation>(i);
  }
  return fail("invalid parameter value '{}' for 'preallocation'{}", text, suggestion(text, kModes));
}

}  // namespace kite::block
