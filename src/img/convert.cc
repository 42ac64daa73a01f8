// convert: copies one or more images into another, in parallel, leaving out what is zero.
#include <getopt.h>

#include <algorithm>
#include <charconv>

#include "block/co_sync.h"
#include "block/file_node.h"
#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

enum Long : int { kObject = 256, kImageOpts, kTargetImageOpts, kSalvage, kTargetIsZero, kBitmaps };

constexpr uint64_t kSector = 512;
constexpr uint64_t kPiece = uint64_t{512} << 10;  // what one coroutine copies at once: small enough for caches
constexpr size_t kMemoryAlignment = 4096;

struct Settings {
  std::vector<OpenRequest> sources;
  OpenRequest source;  // what all have
  OpenRequest target{.writable = true, .exclusive = true, .cache = "unsafe"};
  CreateCall create;
  std::string snapshot;
  uint64_t sparse = 4096;
  unsigned coroutines = 8;
  bool compressed = false, progress = false, no_create = false, out_of_order = false;
  bool salvage = false, target_is_zero = false, offload = false;
};

enum class Part : uint8_t { kData, kZero, kBacking };

// The copying itself; lives until all workers ended.
class Copy {
 public:
  Copy(Session& session, const Settings& settings)
      : session_(session), settings_(settings), progress_(settings.progress) {}
  std::vector<Image> sources;
  Image target;
  bool target_zero = false;         // reads as zeroes where nothing was written
  bool target_has_backing = false;  // what the sources leave to their backing file comes from there
  uint64_t cluster = 0;             // of the target

  int run();

 private:
  struct Piece {
    Part part = Part::kData;
    uint64_t offset = 0;  // in the target
    uint64_t bytes = 0;
    uint64_t number = 0;
    const Image* source = nullptr;
    uint64_t source_offset = 0;
  };
  Task<void> work();
  Task<IoResult<bool>> next(Piece& piece);
  Task<IoResult<ChainStatus>> ask_status(const Image& image, uint64_t offset, uint64_t bytes);
  Task<IoResult<ChainStatus>> status_of(const Image& image, uint64_t offset, uint64_t bytes);
  Task<IoResult<>> copy(const Piece& piece, IoSlice buffer);
  Task<IoResult<>> read(const Piece& piece, IoSlice buffer);
  Task<IoResult<>> store(uint64_t offset, IoSlice data);
  Task<IoResult<>> zero(uint64_t offset, uint64_t bytes);
  void fault(const char* doing, uint64_t offset, int code);

  Session& session_;
  const Settings& settings_;
  Progress progress_;
  CoMutex finding_;  // the next piece
  uint64_t at_ = 0, total_ = 0, done_ = 0;
  size_t source_ = 0;
  uint64_t source_start_ = 0;  // in the target
  uint64_t next_number_ = 0, next_write_ = 0;
  CoQueue written_;
  bool failed_ = false;
};

void Copy::fault(const char* doing, uint64_t offset, int code) {
  if (!std::exchange(failed_, true)) {
    session_.complain(fmt::format("error while {} at byte {}: {}", doing, offset, errno_text(code)));
  }
}

Task<IoResult<ChainStatus>> Copy::ask_status(const Image& image, uint64_t offset, uint64_t bytes) {
  if (!target_has_backing) co_return co_await chain_status(image.node(), offset, bytes);
  KITE_CO_ASSIGN(const BlockStatus own, co_await skip_filters(&image.node())->block_status(offset, bytes));
  co_return ChainStatus{.bytes = own.bytes, .present = own.allocated, .status = own};
}

// With --salvage what cannot be told of a range is asked of shorter ones; of which nothing is known may hold data.
Task<IoResult<ChainStatus>> Copy::status_of(const Image& image, uint64_t offset, uint64_t bytes) {
  constexpr uint64_t kParts = 4;
  while (true) {
    const auto known = co_await ask_status(image, offset, bytes);
    if (known || !settings_.salvage) co_return known;
    if (bytes <= kSector) {
      session_.complain(fmt::format("warning: error while reading block status at offset {}: {}", offset,
                                    errno_text(known.error().code)));
      co_return ChainStatus{.bytes = bytes, .present = true, .status = {.bytes = bytes}};
    }
    bytes = (bytes / kParts + kSector - 1) / kSector * kSector;
  }
}

// The next piece of one kind; false at the end.
Task<IoResult<bool>> Copy::next(Piece& piece) {
  const CoMutex::Lock lock = co_await finding_.lock();
  while (source_ < sources.size() && at_ >= source_start_ + sources[source_].length()) {
    source_start_ += sources[source_++].length();
  }
  if (source_ == sources.size() || failed_) co_return false;
  const Image& image = sources[source_];
  const uint64_t offset = at_ - source_start_;
  const uint64_t left = image.length() - offset;
  piece.source = &image;
  piece.source_offset = offset;
  piece.offset = at_;
  piece.part = Part::kData;
  piece.bytes = left;
  if (settings_.sparse != 0) {
    KITE_CO_ASSIGN(const ChainStatus chain, co_await status_of(image, offset, left));
    piece.bytes = chain.bytes;
    if (chain.status.zero && (chain.present || !target_has_backing)) {
      piece.part = Part::kZero;
    } else if (!chain.present && target_has_backing) {
      piece.part = Part::kBacking;
    }
  }
  // Only whole clusters can be stored compressed.
  if (settings_.compressed && piece.part != Part::kBacking && at_ % cluster + piece.bytes > 0) {
    const uint64_t end = piece.part == Part::kZero && at_ % cluster == 0 ? (at_ + piece.bytes) / cluster * cluster : 0;
    if (piece.part == Part::kZero && end > at_) {
      piece.bytes = end - at_;
    } else {
      piece.part = Part::kData;
      piece.bytes = std::min(left, cluster - at_ % cluster);
    }
  }
  const uint64_t most = piece.part != Part::kData ? uint64_t{1} << 30 : settings_.compressed ? cluster : kPiece;
  piece.bytes = std::min(piece.bytes, most);
  at_ += piece.bytes;
  piece.number = next_number_++;
  co_return true;
}

Task<IoResult<>> Copy::read(const Piece& piece, IoSlice buffer) {
  const IoResult<> done = co_await piece.source->node().read(piece.source_offset, buffer);
  if (done || !settings_.salvage) co_return done;
  // Sector by sector: what cannot be read is zero.
  for (uint64_t at = 0; at < piece.bytes; at += kSector) {
    const IoSlice part = buffer.slice(at, std::min(kSector, piece.bytes - at));
    if (const auto one = co_await piece.source->node().read(piece.source_offset + at, part); !one) {
      session_.complain(
          fmt::format("warning: error while reading offset {}: {}", piece.offset + at, errno_text(one.error().code)));
      part.fill(0);
    }
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Copy::zero(uint64_t offset, uint64_t bytes) {
  if (target_zero && !target_has_backing) return ready(IoResult<>{});
  return target.node().write_zeroes(offset, bytes, {.flags = IoHow::kMayUnmap});
}

// Writes what is not zero; finds it in steps of the sparse size.
Task<IoResult<>> Copy::store(uint64_t offset, IoSlice data) {
  if (settings_.compressed) {
    if (settings_.sparse != 0 && target_zero && !target_has_backing && data.all_zero()) co_return IoResult<>{};
    co_return co_await target.node().write(offset, data, {.flags = IoHow::kCompressed});
  }
  const uint64_t step = settings_.sparse == 0 ? data.bytes() : settings_.sparse;
  for (uint64_t at = 0; at < data.bytes();) {
    const auto step_at = [&](uint64_t from) { return std::min(step - (offset + from) % step, data.bytes() - from); };
    uint64_t end = at + step_at(at);
    const bool zeroes = settings_.sparse != 0 && is_zero(data.contiguous() + at, end - at);
    while (end < data.bytes() && is_zero(data.contiguous() + end, step_at(end)) == zeroes) end += step_at(end);
    if (zeroes) {
      KITE_CO_TRY(co_await zero(offset + at, end - at));
    } else {
      KITE_CO_TRY(co_await target.node().write(offset + at, data.slice(at, end - at)));
    }
    at = end;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> Copy::copy(const Piece& piece, IoSlice buffer) {
  if (piece.part == Part::kData) {
    if (const auto got = co_await read(piece, buffer); !got) {
      fault("reading", piece.offset, got.error().code);
      co_return got;
    }
  }
  // In order, so that the target lies in the file as the disk does. Compressed clusters take turns as they are ready.
  const bool in_order = !settings_.out_of_order && !settings_.compressed;
  while (in_order && next_write_ != piece.number && !failed_) co_await written_.wait();
  if (failed_) co_return io_fail(ECANCELED);
  IoResult<> put;
  if (piece.part == Part::kData) put = co_await store(piece.offset, buffer);
  if (piece.part == Part::kZero) put = co_await zero(piece.offset, piece.bytes);
  if (!put) fault("writing", piece.offset, put.error().code);
  if (in_order) next_write_ = piece.number + 1;
  written_.wake_all();
  co_return put;
}

Task<void> Copy::work() {
  const AlignedBuffer memory(settings_.compressed ? cluster : kPiece, kMemoryAlignment);
  while (!failed_) {
    Piece piece;
    const auto more = co_await next(piece);
    if (!more) fault("reading block status", at_, more.error().code);
    if (!more || !*more) break;
    const IoSlice buffer(memory.data(), piece.part == Part::kData ? static_cast<size_t>(piece.bytes) : 0);
    if (!co_await copy(piece, buffer)) break;
    done_ += piece.bytes;
    progress_.show(static_cast<double>(done_) * 100.0 / static_cast<double>(total_));
  }
  written_.wake_all();
}

int Copy::run() {
  for (const Image& image : sources) total_ += image.length();
  progress_.show(0);
  {
    TaskScope scope;
    for (unsigned i = 0; i < settings_.coroutines; ++i) scope.spawn(work());
    while (!scope.idle()) session_.executor().run_once(Clock::kNever);
  }
  if (failed_) return 1;
  progress_.show(100);
  if (const auto flushed = session_.await(target.node().flush()); !flushed) {
    return session_.complain(fmt::format("error while writing: {}", errno_text(flushed.error().code)));
  }
  return 0;
}

bool take_count(const Session& session, const char* text, unsigned& count) {
  constexpr unsigned kMost = 16;
  const std::string_view view(text);
  const auto [end, error] = std::from_chars(view.begin(), view.end(), count);
  if (error == std::errc() && end == view.end() && count >= 1 && count <= kMost) return true;
  session.complain(
      fmt::format("Invalid number of coroutines. Allowed number of coroutines is between 1 and {}", kMost));
  return false;
}

// True when the options are complete; else `status` is the exit status.
// How many bytes of zeroes are left out of the target.
bool take_sparse(Session& session, const char* text, uint64_t& sparse) {
  const auto size = tool_size(session, "buffer size for sparse output", text);
  if (!size) return false;
  if (*size % kSector != 0)
    return session.complain(
               fmt::format("Invalid buffer size for sparse output specified. Valid sizes are multiples of {} up to {}. "
                           "Select 0 to disable sparse detection (fully allocates output).",
                           kSector, uint64_t{INT32_MAX} / kSector * kSector)),
           false;
  sparse = *size;
  return true;
}

bool take_arguments(Session& session, Argv& argv, Settings& settings, int& status) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"source-image-opts", no_argument, nullptr, kImageOpts},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {"target-image-opts", no_argument, nullptr, kTargetImageOpts},
                                      {"salvage", no_argument, nullptr, kSalvage},
                                      {"target-is-zero", no_argument, nullptr, kTargetIsZero},
                                      {"bitmaps", no_argument, nullptr, kBitmaps},
                                      {nullptr, 0, nullptr, 0}};
  status = 1;
  bool said = false;
  bool quiet = false;
  std::string bad;
  const bool parsed =
      parse_arguments(session, argv, ":hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", kLongs, [&](int letter, const char* text) {
        switch (letter) {
          case 'h':
            said = true;
            status = show_help(session);
            return false;
          case 'f': settings.source.format = text; return true;
          case 'O': settings.create.format = text; return true;
          case 'B': settings.create.backing = text; return true;
          case 'F': settings.create.backing_format = text; return true;
          case 'C': settings.offload = true; return true;
          case 'c': settings.compressed = true; return true;
          case 'o':
            if (std::string_view(text) == "help" || std::string_view(text) == "?") {
              said = true;
              status = print_create_options(session, settings.create.format, "");
              return false;
            }
            return !(said = !add_options(session, settings.create.options, text));
          case 'l': settings.snapshot = text; return true;
          case 'S': return !(said = !take_sparse(session, text, settings.sparse));
          case 'p': settings.progress = true; return true;
          case 't': settings.target.cache = text; return true;
          case 'T': settings.source.cache = text; return true;
          case 'q': quiet = true; return true;
          case 'n': settings.no_create = true; return true;
          case 'm': return !(said = !take_count(session, text, settings.coroutines));
          case 'W': settings.out_of_order = true; return true;
          case 'U': settings.source.force_share = true; return true;
          case 'r': bad = "-r: a rate limit is not supported yet"; return true;
          case kImageOpts: settings.source.image_opts = true; return true;
          case kTargetImageOpts: settings.target.image_opts = true; return true;
          case kSalvage: settings.salvage = true; return true;
          case kTargetIsZero: settings.target_is_zero = true; return true;
          case kBitmaps: bad = "--bitmaps: dirty bitmaps are not supported yet"; return true;
          default: bad = "--object: secrets are not supported yet"; return true;
        }
      });
  if (!parsed) {
    if (!said) status = wrong_use(session, "unrecognized option or missing argument");
    return false;
  }
  if (!bad.empty()) return session.complain(bad), false;
  settings.progress = settings.progress && !quiet;
  if (settings.target.image_opts && !settings.no_create)
    return session.complain("--target-image-opts requires use of -n flag"), false;
  if (settings.target_is_zero && !settings.no_create)
    return session.complain("--target-is-zero requires use of -n flag"), false;
  if (settings.out_of_order && settings.compressed)
    return session.complain("Out of order write and compress are mutually exclusive"), false;
  const auto names = operands(argv);
  if (names.size() < 2) return status = wrong_use(session, "Must specify image file name"), false;
  settings.target.filename = names.back();
  for (size_t i = 0; i + 1 < names.size(); ++i) {
    settings.sources.push_back(settings.source);
    settings.sources.back().filename = names[i];
  }
  return true;
}

int make_target(Session& session, Settings& settings, Copy& copy, uint64_t total) {
  bool old_content = false;
  if (!settings.no_create) {
    CreateCall create = settings.create;
    create.overwritten = &old_content;
    create.filename = settings.target.filename;
    create.bytes = total;
    if (const auto made = create_image(session, std::move(create)); !made) {
      return session.complain(fmt::format("{}: error while converting {}: {}", settings.target.filename,
                                          settings.create.format, made.error().message));
    }
  }
  settings.target.format = settings.target.image_opts ? "" : settings.create.format;
  auto target = open_image(session, settings.target);
  if (!target) return session.complain(target.error().message);
  copy.target = std::move(*target);
  const BlockNode* node = &copy.target.node();
  const bool regular = node->discard_zeroes() || copy.target.format() != nullptr;
  copy.target_zero = (!settings.no_create && regular && !old_content) || settings.target_is_zero;
  copy.target_has_backing = node->backing() != nullptr || !settings.create.backing.empty();
  copy.cluster = copy.target.format() != nullptr ? copy.target.format()->image_info().cluster_bytes : 0;
  if (copy.target.length() < total) {
    return session.complain("output file is smaller than input file");
  }
  return 0;
}

}  // namespace

int command_convert(Session& session, Argv argv) {
  Settings settings;
  int status = 1;
  if (!take_arguments(session, argv, settings, status)) return status;
  const ImageFormat* format = find_image_format(settings.create.format);
  if (format == nullptr && !settings.target.image_opts) {
    return session.complain(fmt::format("Unknown file format '{}'", settings.create.format));
  }
  if (!settings.no_create && !settings.create.backing.empty() && settings.create.backing_format.empty() &&
      !settings.create.options.has("backing_fmt")) {
    return session.complain("Use of backing file requires explicit backing format");
  }
  if (settings.compressed && format != nullptr && !format->compresses) {
    return session.complain("Compression not supported for this file format");
  }
  Copy copy(session, settings);
  uint64_t total = 0;
  for (const OpenRequest& request : settings.sources) {
    auto image = open_image(session, request);
    if (!image) return session.complain(image.error().message);
    total += image->length();
    copy.sources.push_back(std::move(*image));
  }
  if (!settings.snapshot.empty()) {
    if (copy.sources.size() > 1) return session.complain("No support for concatenating multiple snapshot");
    std::string name = settings.snapshot;
    if (name.starts_with("snapshot.id=")) name.erase(0, 12);
    if (name.starts_with("snapshot.name=")) name.erase(0, 14);
    FormatNode* source = copy.sources[0].format();
    const Result<> loaded =
        source == nullptr ? fail("the format has no snapshots") : session.await(source->snapshot_load(name));
    if (!loaded) return session.complain(fmt::format("Failed to load snapshot: {}", loaded.error().message));
    total = copy.sources[0].length();
  }
  if (const int made = make_target(session, settings, copy, total); made != 0) return made;
  return copy.run();
}

}  // namespace kite::img
