#include "block/file_node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "support/bits.h"

namespace kite::block {
namespace {

constexpr uint64_t kMaxPiece = uint64_t{1} << 30;  // the kernel takes at most 2 GiB less a page at once
constexpr unsigned kMaxParts = 256;                // iovecs of one system call
constexpr uint32_t kPage = 4096;

Result<IoEngine::Kind> engine_kind(const std::string& aio) {
  if (aio.empty()) return IoEngine::Kind::kAuto;
  if (aio == "threads") return IoEngine::Kind::kThreads;
  if (aio == "io_uring") return IoEngine::Kind::kUring;
  // Linux's older asynchronous interface was made for O_DIRECT; io_uring does all it did.
  if (aio == "native") return IoEngine::Kind::kAuto;
  if (aio == "inline") return IoEngine::Kind::kInline;
  return fail("aio={}: unknown; one of threads, native, io_uring", aio);
}

// The first parts of a slice as one system call takes them.
std::vector<iovec> gather(const IoSlice& slice) {
  std::vector<iovec> parts;
  uint64_t bytes = 0;
  slice.for_parts([&](std::span<uint8_t> part) {
    const size_t here = static_cast<size_t>(std::min<uint64_t>(part.size(), kMaxPiece - bytes));
    parts.push_back({part.data(), here});
    bytes += here;
    return parts.size() < kMaxParts && bytes < kMaxPiece;
  });
  return parts;
}

std::string strip_protocol(std::string filename, std::string_view protocol) {
  if (filename.starts_with(protocol)) filename.erase(0, protocol.size());
  return filename;
}

Task<Result<NodePtr>> open_with(BlockGraph& graph, NodeConfig config, BlockOptions options, std::string driver) {
  FileNode::Settings settings;
  settings.host_device = driver != "file";
  settings.filename = strip_protocol(options.take_string("filename"), driver + ":");
  if (settings.filename.empty()) co_return fail("A '{}' node needs the option 'filename'", driver);
  const std::string aio = options.take_string("aio");
  KITE_CO_ASSIGN(settings.engine, engine_kind(aio));
  if (aio == "native" && !config.direct) {
    co_return fail("aio=native was specified, but it requires cache.direct=on, which was not specified.");
  }
  static constexpr std::string_view kSwitch[] = {"off", "on", "auto"};
  KITE_CO_ASSIGN(const size_t locking, options.take_choice("locking", kSwitch, 2));
  settings.locking = locking != 0;
  KITE_CO_ASSIGN(settings.drop_cache, options.take_bool("drop-cache", true));
  KITE_CO_TRY(options.all_taken(driver));
  settings.driver = std::move(driver);
  co_return FileNode::open(graph.executor(), std::move(config), std::move(settings));
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes, size_t alignment) : bytes_(bytes) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, std::max<size_t>(alignment, sizeof(void*)), std::max<size_t>(bytes, 1)) != 0)
    std::abort();
  memory_.reset(static_cast<uint8_t*>(memory));
}

Task<Result<NodePtr>> FileNode::open_file(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  return open_with(graph, std::move(config), std::move(options), "file");
}
Task<Result<NodePtr>> FileNode::open_device(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  return open_with(graph, std::move(config), std::move(options), "host_device");
}
// The medium of a drive of the host, read as a device; it is not ejected or locked.
Task<Result<NodePtr>> FileNode::open_cdrom(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  return open_with(graph, std::move(config), std::move(options), "host_cdrom");
}

Result<NodePtr> FileNode::open(Executor& executor, NodeConfig config, Settings settings) {
  std::shared_ptr<FileNode> node(new FileNode(executor, std::move(config), std::move(settings)));
  KITE_TRY(node->open_descriptor());
  KITE_ASSIGN(node->engine_, IoEngine::of(executor, node->settings_.engine));
  return NodePtr(std::move(node));
}

FileNode::FileNode(Executor& executor, NodeConfig config, Settings settings)
    : BlockNode(executor, settings.driver.empty() ? "file" : settings.driver, std::move(config)),
      settings_(std::move(settings)) {}

FileNode::~FileNode() = default;

Result<> FileNode::open_descriptor() {
  const std::string& name = settings_.filename;
  int flags = O_CLOEXEC | (config_.read_only ? O_RDONLY : O_RDWR);
  if (config_.direct) flags |= O_DIRECT;
  fd_.reset(::open(name.c_str(), flags));
  if (!fd_.valid() && config_.auto_read_only && !config_.read_only &&
      (errno == EACCES || errno == EPERM || errno == EROFS)) {
    config_.read_only = true;
    fd_.reset(::open(name.c_str(), (flags & ~O_ACCMODE) | O_RDONLY));
  }
  if (!fd_.valid() && errno == EINVAL && config_.direct) {
    return fail("Could not open '{}': the file system does not support O_DIRECT (cache=none); use cache=writeback",
                name);
  }
  if (!fd_.valid()) return fail("Could not open '{}': {}", name, errno_text(errno));
  struct stat status{};
  if (::fstat(fd_.get(), &status) != 0) return fail("Could not stat file: {}", errno_text(errno));
  is_device_ = S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode);
  if (settings_.host_device && !is_device_) {
    return fail("'{}' driver requires '{}' to be either a character or block device", driver(), name);
  }
  if (!settings_.host_device && !S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    return fail("'file' driver requires '{}' to be a regular file", name);
  }
  if (S_ISCHR(status.st_mode)) {
    length_ = 0;  // as far as anybody knows
  } else if (is_device_) {
    uint64_t bytes = 0;
    if (::ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0)
      return fail("Could not get the size of '{}': {}", name, errno_text(errno));
    length_ = bytes;
  } else {
    length_ = static_cast<uint64_t>(status.st_size);
  }
  if (config_.direct) probe_alignment();
  return {};
}

void FileNode::probe_alignment() {
  request_alignment_ = memory_alignment_ = kPage;
#ifdef STATX_DIOALIGN
  struct statx facts{};
  if (::statx(fd_.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) == 0 && (facts.stx_mask & STATX_DIOALIGN) != 0 &&
      facts.stx_dio_offset_align != 0) {
    request_alignment_ = facts.stx_dio_offset_align;
    memory_alignment_ = std::max<uint32_t>(facts.stx_dio_mem_align, 1);
    return;
  }
#endif
  // Ask by doing: the smallest aligned read that works.
  const AlignedBuffer buffer(kPage * 2, kPage);
  for (uint32_t bytes = 512; bytes <= kPage; bytes *= 2) {
    if (::pread(fd_.get(), buffer.data(), bytes, 0) >= 0 || errno != EINVAL) {
      request_alignment_ = bytes;
      break;
    }
  }
  for (uint32_t bytes = 512; bytes <= kPage; bytes *= 2) {
    if (::pread(fd_.get(), buffer.data() + bytes, kPage, 0) >= 0 || errno != EINVAL) {
      memory_alignment_ = bytes;
      break;
    }
  }
}

uint64_t FileNode::allocated_bytes() const {
  struct stat status{};
  return ::fstat(fd_.get(), &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

BlockLimits FileNode::limits() const {
  return {.request_alignment = request_alignment_,
          .memory_alignment = memory_alignment_,
          .max_transfer = kMaxPiece,
          .opt_transfer = 0,
          .discard_alignment = 1,
          .write_zeroes_alignment = 1};
}

Result<> FileNode::set_permissions(uint32_t need, uint32_t shared) {
  if (!settings_.locking || is_device_) return {};
  if (config_.force_share) shared = Permissions::kAll;
  if (active()) KITE_TRY(lock_.change(fd_.get(), settings_.filename, need, shared));
  need_ = need;
  shared_ = shared;
  return {};
}

// The descriptor keeps its number: requests may be on their way with it.
Task<Result<>> FileNode::do_set_read_only(bool read_only) {
  const int mode = ::fcntl(fd_.get(), F_GETFL) & O_ACCMODE;
  if (!read_only && mode != O_RDWR) {
    const std::string same = fmt::format("/proc/self/fd/{}", fd_.get());
    Fd fresh(::open(same.c_str(), O_CLOEXEC | O_RDWR | (config_.direct ? O_DIRECT : 0)));
    if (!fresh.valid()) co_return fail("Could not open '{}' for writing: {}", settings_.filename, errno_text(errno));
    FileLock lock;
    const bool locks = settings_.locking && !is_device_ && active();
    if (locks) KITE_CO_TRY(lock.change(fresh.get(), settings_.filename, need_, shared_));
    if (::dup3(fresh.get(), fd_.get(), O_CLOEXEC) < 0)
      co_return fail("Could not open '{}' for writing: {}", settings_.filename, errno_text(errno));
    lock_ = lock;
  }
  config_.read_only = read_only;
  co_return Result<>{};
}

bool FileNode::direct_ready(uint64_t offset, const IoSlice& slice) const {
  return is_aligned(offset | slice.bytes(), request_alignment_) && slice.aligned_to(memory_alignment_);
}

Task<IoResult<>> FileNode::do_read(uint64_t offset, IoSlice to, IoHow) {
  if (config_.direct && !direct_ready(offset, to)) return read_bounced(offset, to);
  return transfer(IoOp::Kind::kRead, offset, to);
}

Task<IoResult<>> FileNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  if (config_.direct) {
    KITE_CO_TRY(co_await write_bounced(offset, from));
  } else {
    KITE_CO_TRY(co_await transfer(IoOp::Kind::kWrite, offset, from));
  }
  length_ = std::max(length_, offset + from.bytes());
  if (how.has(IoHow::kFua)) co_return co_await flush(how);
  co_return IoResult<>{};
}

// One read or write of any shape; reads past the end give zeroes.
Task<IoResult<>> FileNode::transfer(IoOp::Kind kind, uint64_t offset, IoSlice slice) {
  while (!slice.empty()) {
    iovec one{slice.contiguous(), static_cast<size_t>(std::min(slice.bytes(), kMaxPiece))};
    std::vector<iovec> many;
    if (one.iov_base == nullptr) many = gather(slice);
    IoOp op;
    op.kind = kind;
    op.fd = fd_.get();
    op.parts = many.empty() ? &one : many.data();
    op.part_count = many.empty() ? 1 : static_cast<unsigned>(many.size());
    op.offset = offset;
    const int64_t done = co_await engine_->perform(op);
    if (done < 0) co_return io_fail(static_cast<int>(-done));
    if (done == 0) {
      if (kind == IoOp::Kind::kWrite) co_return io_fail(ENOSPC);
      slice.fill(0);
      break;
    }
    const auto moved = std::min(static_cast<uint64_t>(done), slice.bytes());
    slice = slice.from(moved);
    offset += moved;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> FileNode::read_bounced(uint64_t offset, IoSlice to) {
  const uint64_t start = align_down(offset, request_alignment_);
  const uint64_t end = align_up(offset + to.bytes(), request_alignment_);
  const AlignedBuffer bounce(static_cast<size_t>(end - start), std::max(memory_alignment_, kPage));
  KITE_CO_TRY(co_await transfer(IoOp::Kind::kRead, start, IoSlice(bounce.data(), bounce.size())));
  to.copy_from(bounce.data() + (offset - start));
  co_return IoResult<>{};
}

Task<IoResult<>> FileNode::write_bounced(uint64_t offset, IoSlice from) {
  const uint64_t start = align_down(offset, request_alignment_);
  const uint64_t end = align_up(offset + from.bytes(), request_alignment_);
  const bool whole = start == offset && end == offset + from.bytes();
  const WriteTurns::Turn turn(turns_, start, end, !whole);
  while (turn.blocked()) co_await turns_.changed();
  if (whole && from.aligned_to(memory_alignment_)) co_return co_await transfer(IoOp::Kind::kWrite, offset, from);
  const AlignedBuffer bounce(static_cast<size_t>(end - start), std::max(memory_alignment_, kPage));
  if (!whole) KITE_CO_TRY(co_await transfer(IoOp::Kind::kRead, start, IoSlice(bounce.data(), bounce.size())));
  from.copy_to(bounce.data() + (offset - start));
  KITE_CO_TRY(co_await transfer(IoOp::Kind::kWrite, start, IoSlice(bounce.data(), bounce.size())));
  // The padding behind the last byte of a file is not part of it.
  const uint64_t length = std::max(length_, offset + from.bytes());
  if (end > length && !is_device_ && ::ftruncate(fd_.get(), static_cast<off_t>(length)) != 0) co_return io_fail(errno);
  co_return IoResult<>{};
}

Task<IoResult<>> FileNode::fallocate(int mode, uint64_t offset, uint64_t bytes) {
  IoOp op;
  op.kind = IoOp::Kind::kFallocate;
  op.fd = fd_.get();
  op.mode = mode;
  op.offset = offset;
  op.length = bytes;
  const int64_t done = co_await engine_->perform(op);
  if (done == -EOPNOTSUPP || done == -ENOSYS || done == -EINVAL || done == -ENODEV) co_return io_fail(ENOTSUP);
  if (done < 0) co_return io_fail(static_cast<int>(-done));
  co_return IoResult<>{};
}

Task<IoResult<>> FileNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  data_end_ = data_start_;
  if (bytes == 0) co_return IoResult<>{};
  if (config_.direct && !is_aligned(offset | bytes, request_alignment_)) co_return io_fail(ENOTSUP);
  IoResult<> done = io_fail(ENOTSUP);
  const bool grows = offset + bytes > length_;
  if (how.has(IoHow::kMayUnmap) && can_punch_) {
    done = co_await fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    can_punch_ = done || done.error().code != ENOTSUP;
    // Punching never makes a file longer.
    if (done && grows && ::ftruncate(fd_.get(), static_cast<off_t>(offset + bytes)) != 0) co_return io_fail(errno);
  }
  if (!done && done.error().code == ENOTSUP && can_zero_range_) {
    done = co_await fallocate(FALLOC_FL_ZERO_RANGE, offset, bytes);
    can_zero_range_ = done || done.error().code != ENOTSUP;
  }
  if (!done && done.error().code == ENOTSUP && offset >= length_ && !is_device_) {
    done = co_await fallocate(0, offset, bytes);
  }
  if (!done) co_return done;
  if (!is_device_) length_ = std::max(length_, offset + bytes);
  if (how.has(IoHow::kFua)) co_return co_await flush(how);
  co_return done;
}

Task<IoResult<>> FileNode::do_discard(uint64_t offset, uint64_t bytes, IoHow) {
  data_end_ = data_start_;
  if (!can_punch_) co_return IoResult<>{};
  const IoResult<> done = co_await fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  if (!done && done.error().code == ENOTSUP) {
    can_punch_ = false;
    co_return IoResult<>{};
  }
  co_return done;
}

Task<IoResult<>> FileNode::do_flush(IoHow) {
  if (config_.no_flush || config_.read_only) co_return IoResult<>{};
  if (flush_failed_) co_return io_fail(EIO);
  IoOp op;
  op.kind = IoOp::Kind::kFdatasync;
  op.fd = fd_.get();
  const int64_t done = co_await engine_->perform(op);
  if (done >= 0) co_return IoResult<>{};
  // [linux: man 2 fsync] dirty pages of a failed writeback are marked clean; only O_DIRECT data is not in doubt.
  if (!config_.direct) flush_failed_ = true;
  co_return io_fail(static_cast<int>(-done));
}

Task<IoResult<BlockStatus>> FileNode::do_block_status(uint64_t offset, uint64_t bytes, bool precise) {
  BlockStatus status{.bytes = bytes, .has_offset = true, .offset = offset, .file = this};
  if (!precise || is_device_) co_return status;
  if (offset >= data_start_ && offset < data_end_) {
    status.bytes = std::min(bytes, data_end_ - offset);
    co_return status;
  }
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno != ENXIO) co_return status;  // no holes to be found here
  const uint64_t data_at = data < 0 ? offset + bytes : static_cast<uint64_t>(data);
  if (data_at > offset) {
    status.data = false;
    status.zero = true;
    status.bytes = std::min(bytes, data_at - offset);
    co_return status;
  }
  const off_t hole = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_HOLE);
  if (hole > static_cast<off_t>(offset)) {
    data_start_ = offset;
    data_end_ = static_cast<uint64_t>(hole);
    status.bytes = std::min(bytes, data_end_ - offset);
  }
  co_return status;
}

Task<Result<>> FileNode::truncate(uint64_t bytes, Preallocation preallocation) {
  if (!active()) co_return fail("'{}' belongs to another process now", settings_.filename);
  data_end_ = data_start_;
  if (is_device_) {
    if (bytes > length_) co_return fail("Cannot grow device files");
    co_return Result<>{};
  }
  const uint64_t old = length_;
  if (preallocation == Preallocation::kMetadata) co_return fail("Unsupported preallocation mode 'metadata'");
  if (bytes < old && preallocation != Preallocation::kOff)
    co_return fail("Preallocation can't be used for shrinking files");
  if (bytes != old && ::ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) {
    co_return fail("Failed to resize the file: {}", errno_text(errno));
  }
  length_ = bytes;
  if (bytes > old && preallocation != Preallocation::kOff) {
    const Result<> done = co_await preallocate(old, bytes, preallocation);
    if (!done) {
      if (::ftruncate(fd_.get(), static_cast<off_t>(old)) == 0) length_ = old;
      co_return done;
    }
  }
  co_return Result<>{};
}

Task<Result<>> FileNode::preallocate(uint64_t from, uint64_t to, Preallocation preallocation) {
  if (preallocation == Preallocation::kFalloc) {
    if (const int error = ::posix_fallocate(fd_.get(), static_cast<off_t>(from), static_cast<off_t>(to - from));
        error != 0) {
      co_return fail("Could not preallocate new data: {}", errno_text(error));
    }
    co_return Result<>{};
  }
  constexpr size_t kPiece = size_t{1} << 20;
  const AlignedBuffer zeroes(kPiece, kPage);
  std::memset(zeroes.data(), 0, kPiece);
  while (from < to) {
    const uint64_t here = std::min<uint64_t>(kPiece, to - from);
    if (const auto done = co_await write(from, IoSlice(zeroes.data(), static_cast<size_t>(here))); !done) {
      co_return fail("Could not write zeros for preallocation: {}", errno_text(done.error().code));
    }
    from += here;
  }
  co_return Result<>{};
}

Task<Result<>> FileNode::do_close() { co_return lock_.change(fd_.get(), settings_.filename, 0, Permissions::kAll); }

Task<Result<>> FileNode::do_deactivate() {
  if (!read_only())
    if (const auto done = co_await flush(); !done)
      co_return fail("Could not flush '{}': {}", settings_.filename, errno_text(done.error().code));
  co_return lock_.change(fd_.get(), settings_.filename, 0, Permissions::kAll);
}

Task<Result<>> FileNode::do_activate() {
  KITE_CO_TRY(lock_.change(fd_.get(), settings_.filename, need_, shared_));
  invalidate();
  co_return Result<>{};
}

void FileNode::invalidate() {
  data_end_ = data_start_;
  struct stat status{};
  if (!is_device_ && ::fstat(fd_.get(), &status) == 0) length_ = static_cast<uint64_t>(status.st_size);
}

}  // namespace kite::block
