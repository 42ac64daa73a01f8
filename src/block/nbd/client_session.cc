#include "block/nbd/client_session.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "block/timed.h"
#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

constexpr int64_t kHandshakeNs = 30'000'000'000;
constexpr size_t kMostRequests = 32;  // under way, of one client
constexpr uint64_t kMostMemory = 2 * uint64_t{kUsualMaxBlock};
constexpr uint64_t kMostSpare = uint64_t{16} << 20;
constexpr size_t kAlignment = 4096;
constexpr unsigned kMostInARow = 16;
constexpr size_t kMostPieces = 64;               // of one read
constexpr size_t kMostExtents = 4096;            // of one status
constexpr uint64_t kPiece = uint64_t{64} << 20;  // of what has no data: others may want the disk in between
constexpr uint64_t kCachePiece = uint64_t{1} << 20;

// What a command may be like.
struct Rule {
  Command command;
  uint16_t flags;    // that it may carry, beside FUA
  bool changes;      // not for read-only exports
  int past_the_end;  // the error
  uint32_t most;     // bytes
};
// [NBD] "Request types", "Error values"
constexpr Rule kRules[] = {
    {Command::kRead, kFlagDf, false, EINVAL, kUsualMaxBlock},
    {Command::kWrite, 0, true, ENOSPC, kUsualMaxBlock},
    {Command::kFlush, 0, false, EINVAL, 0},
    {Command::kTrim, 0, true, EINVAL, UINT32_MAX},
    {Command::kCache, 0, false, EINVAL, kUsualMaxBlock},
    {Command::kWriteZeroes, kFlagNoHole | kFlagFastZero, true, ENOSPC, UINT32_MAX},
    {Command::kBlockStatus, kFlagRequestOne, false, EINVAL, UINT32_MAX},
};

void append_chunk(std::vector<uint8_t>& out, uint64_t cookie, uint16_t type, bool last, uint64_t bytes) {
  append_be(out, kStructuredReplyMagic, 4);
  append_be(out, last ? kChunkDone : 0, 2);
  append_be(out, type, 2);
  append_be(out, cookie, 8);
  append_be(out, bytes, 4);
}

IoHow how_of(uint16_t flags) { return {.flags = (flags & kFlagFua) != 0 ? IoHow::kFua : 0u}; }

}  // namespace

// What a request holds while it is under way.
class ClientSession::Memory {
 public:
  Memory(ClientSession& session, AlignedBuffer buffer, size_t bytes)
      : session_(&session), buffer_(std::move(buffer)), bytes_(bytes) {
    ++session.under_way_;
    session.memory_ += buffer_.size();
  }
  Memory(Memory&& other) noexcept
      : session_(std::exchange(other.session_, nullptr)), buffer_(std::move(other.buffer_)), bytes_(other.bytes_) {}
  Memory& operator=(Memory&&) = delete;
  ~Memory() {
    if (session_ == nullptr) return;
    --session_->under_way_;
    session_->memory_ -= buffer_.size();
    session_->give_back(std::move(buffer_));
    session_->room_.wake_all();
  }
  [[nodiscard]] IoSlice slice() const { return {buffer_.data(), bytes_}; }

 private:
  ClientSession* session_;
  AlignedBuffer buffer_;
  size_t bytes_;
};

ClientSession::Memory ClientSession::take_memory(size_t bytes) {
  const size_t wanted = bytes == 0 ? 0 : std::bit_ceil(std::max(bytes, kAlignment));
  const auto fits = std::ranges::find(spare_, wanted, &AlignedBuffer::size);
  if (fits == spare_.end()) return {*this, AlignedBuffer(wanted, kAlignment), bytes};
  AlignedBuffer found = std::move(*fits);
  spare_.erase(fits);
  spare_bytes_ -= wanted;
  return {*this, std::move(found), bytes};
}

void ClientSession::give_back(AlignedBuffer memory) {
  if (memory.size() == 0 || spare_bytes_ + memory.size() > kMostSpare) return;
  spare_bytes_ += memory.size();
  spare_.push_back(std::move(memory));
}

Task<bool> ClientSession::run() {
  Result<Agreement> agreed = fail("");
  {
    const Alarm alarm(stream_->executor(), kHandshakeNs, [this] { stream_->abort(); });
    agreed = co_await receive_client(*stream_, exports_);
  }
  if (!agreed) co_return false;
  agreed_ = std::move(*agreed);
  while (co_await next_request()) {
  }
  co_await requests_.join();
  co_return true;
}

// False: there are no more. Of a client that only says goodbye all requests are answered still.
Task<bool> ClientSession::next_request() {
  while (under_way_ == kMostRequests) co_await room_.wait();
  uint8_t head[kRequestBytes];
  const auto got = co_await stream_->read(IoSlice(head, sizeof head));
  if (!got || load_be32(head) != kRequestMagic) {
    stream_->abort();
    co_return false;
  }
  Request request{.flags = load_be16(head + 4),
                  .command = static_cast<Command>(load_be16(head + 6)),
                  .cookie = load_be64(head + 8),
                  .offset = load_be64(head + 16),
                  .bytes = load_be32(head + 24)};
  if (request.command == Command::kDisconnect) co_return false;
  const bool writes = request.command == Command::kWrite;
  // [NBD] "Size constraints": a longer payload is reason enough to hang up; it would have to be read to its end.
  if (writes && request.bytes > kUsualMaxBlock) {
    stream_->abort();
    co_return false;
  }
  request.code = judge(request);
  size_t bytes = writes ? request.bytes : 0;
  if (request.code == 0 && request.command == Command::kRead) bytes = request.bytes;
  if (request.code == 0 && request.command == Command::kCache) bytes = std::min<size_t>(request.bytes, kCachePiece);
  while (memory_ + bytes > kMostMemory) co_await room_.wait();
  Memory memory = take_memory(bytes);
  if (writes && !co_await stream_->read(memory.slice())) {
    stream_->abort();
    co_return false;
  }
  requests_.spawn(serve(request, std::move(memory)));
  if (++in_a_row_ >= kMostInARow) {
    in_a_row_ = 0;
    co_await stream_->executor().schedule();
  }
  co_return true;
}

// An errno when the request is none that this disk takes.
int ClientSession::judge(const Request& request) const {
  const auto* const rule = std::ranges::find(kRules, request.command, &Rule::command);
  // [NBD] "Command flags": FUA goes with all commands, the others only where they are said to.
  if (rule == std::end(kRules) || (request.flags & ~(rule->flags | kFlagFua)) != 0) return EINVAL;
  if (rule->changes && !agreed_.disk->writable()) return EPERM;
  if ((request.flags & kFlagDf) != 0 && !agreed_.structured) return EINVAL;
  if (request.command == Command::kBlockStatus && (agreed_.contexts.empty() || request.bytes == 0)) return EINVAL;
  // [NBD] NBD_CMD_FLUSH: offset and length MUST be zero.
  if (request.command == Command::kFlush) return (request.offset | request.bytes) != 0 ? EINVAL : 0;
  const uint64_t length = agreed_.disk->facts().bytes;
  if (request.offset > length || request.bytes > length - request.offset) return rule->past_the_end;
  // [NBD] EOVERFLOW: for what has no payload, and for reads when they could have been asked to come in one piece.
  const bool simple_read = request.command == Command::kRead && !agreed_.structured;
  if (request.bytes > rule->most) return simple_read ? EINVAL : EOVERFLOW;
  return 0;
}

Task<void> ClientSession::serve(Request request, Memory memory) {
  if (request.code != 0) {
    co_await reply_error(request, request.code);
  } else if (request.command == Command::kRead) {
    co_await read(request, memory.slice());
  } else if (request.command == Command::kBlockStatus) {
    co_await tell_status(request);
  } else {
    const IoResult<> done = co_await act(request, memory.slice());
    co_await reply(request, done ? 0 : done.error().code);
  }
}

// --- reads

Task<void> ClientSession::read(Request request, IoSlice to) {
  if (!agreed_.structured) {
    const auto done = co_await agreed_.disk->read(request.offset, to);
    co_await reply(request, done ? 0 : done.error().code, done ? to : IoSlice());
    co_return;
  }
  auto pieces = co_await read_pieces(request, to);
  if (pieces) {
    co_await send_pieces(request, std::move(*pieces), to);
  } else {
    co_await reply_error(request, pieces.error().code);
  }
}

// What is known to be zeroes is not read.
Task<IoResult<std::vector<Extent>>> ClientSession::read_pieces(Request request, IoSlice to) {
  constexpr uint32_t kAllocation = 0;
  Export& disk = *agreed_.disk;
  std::vector<Extent> pieces;
  if ((request.flags & kFlagDf) == 0 && request.bytes != 0) {
    auto known = co_await disk.extents(kAllocation, request.offset, request.bytes, kMostPieces);
    if (known) pieces = std::move(*known);
  }
  uint64_t covered = 0;
  for (const Extent& piece : pieces) covered += piece.bytes;
  if (covered < request.bytes) pieces.push_back({.bytes = request.bytes - covered, .flags = 0});
  uint64_t at = 0;
  for (const Extent& piece : pieces) {
    if ((piece.flags & kStateZero) == 0)
      KITE_CO_TRY(co_await disk.read(request.offset + at, to.slice(at, piece.bytes)));
    at += piece.bytes;
  }
  co_return pieces;
}

Task<void> ClientSession::send_pieces(Request request, std::vector<Extent> pieces, IoSlice data) {
  const CoMutex::Lock turn = co_await sending_.lock();
  std::vector<uint8_t> head;
  if (pieces.empty()) append_chunk(head, request.cookie, kChunkNone, true, 0);
  uint64_t at = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const uint64_t bytes = pieces[i].bytes;
    const bool zero = (pieces[i].flags & kStateZero) != 0;
    append_chunk(head, request.cookie, zero ? kChunkHole : kChunkData, i + 1 == pieces.size(),
                 sizeof(uint64_t) + (zero ? sizeof(uint32_t) : bytes));
    append_be(head, request.offset + at, sizeof(uint64_t));
    if (zero) {
      append_be(head, bytes, sizeof(uint32_t));
    } else {
      (void)co_await stream_->write(std::exchange(head, {}), data.slice(at, bytes));
    }
    at += bytes;
  }
  if (!head.empty()) (void)co_await stream_->write(std::move(head), {});
}

// --- the rest

// [NBD] NBD_CMD_BLOCK_STATUS: one chunk for each context.
Task<void> ClientSession::tell_status(Request request) {
  const size_t most = (request.flags & kFlagRequestOne) != 0 ? 1 : kMostExtents;
  std::vector<uint8_t> out;
  for (const uint32_t context : agreed_.contexts) {
    const auto extents = co_await agreed_.disk->extents(context, request.offset, request.bytes, most);
    if (!extents) {
      co_await reply_error(request, extents.error().code);
      co_return;
    }
    const bool last = context == agreed_.contexts.back();
    append_chunk(out, request.cookie, kChunkBlockStatus, last,
                 sizeof(uint32_t) + extents->size() * 2 * sizeof(uint32_t));
    append_be(out, context, sizeof(uint32_t));
    for (const Extent& extent : *extents) {
      append_be(out, extent.bytes, sizeof(uint32_t));
      append_be(out, extent.flags, sizeof(uint32_t));
    }
  }
  co_await send(std::move(out), {});
}

Task<IoResult<>> ClientSession::act(Request request, IoSlice memory) {
  switch (request.command) {
    case Command::kWrite: return agreed_.disk->write(request.offset, memory, how_of(request.flags));
    case Command::kWriteZeroes: return write_zeroes(request);
    case Command::kTrim: return discard(request);
    case Command::kCache: return cache(request, memory);
    default: return agreed_.disk->flush();
  }
}

Task<IoResult<>> ClientSession::write_zeroes(Request request) {
  IoHow how = how_of(request.flags);
  const bool fast = (request.flags & kFlagFastZero) != 0;
  if ((request.flags & kFlagNoHole) == 0) how = how.with(IoHow::kMayUnmap);
  if (fast) how = how.with(IoHow::kNoFallback);
  // A fast one that fails SHOULD NOT have changed anything: it is done whole.
  const uint64_t piece = fast ? request.bytes : kPiece;
  for (uint64_t done = 0; done < request.bytes;) {
    const uint64_t here = std::min(request.bytes - done, piece);
    KITE_CO_TRY(co_await agreed_.disk->write_zeroes(request.offset + done, here, how));
    done += here;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> ClientSession::discard(Request request) {
  for (uint64_t done = 0; done < request.bytes;) {
    const uint64_t here = std::min(request.bytes - done, kPiece);
    KITE_CO_TRY(co_await agreed_.disk->discard(request.offset + done, here, how_of(request.flags)));
    done += here;
  }
  co_return IoResult<>{};
}

// What is read is in the host's cache, or in the image's.
Task<IoResult<>> ClientSession::cache(Request request, IoSlice memory) {
  for (uint64_t done = 0; done < request.bytes;) {
    const uint64_t here = std::min<uint64_t>(request.bytes - done, memory.bytes());
    KITE_CO_TRY(co_await agreed_.disk->read(request.offset + done, memory.slice(0, here)));
    done += here;
  }
  co_return IoResult<>{};
}

// --- replies

Task<void> ClientSession::send(std::vector<uint8_t> head, IoSlice data) {
  const CoMutex::Lock turn = co_await sending_.lock();
  // A client that is gone does not hear of it; the next read from it ends the session.
  (void)co_await stream_->write(std::move(head), data);
}

Task<void> ClientSession::reply(Request request, int code, IoSlice data) {
  std::vector<uint8_t> head;
  append_be(head, kSimpleReplyMagic, 4);
  append_be(head, error_value(code), 4);
  append_be(head, request.cookie, 8);
  return send(std::move(head), data);
}

Task<void> ClientSession::reply_error(Request request, int code) {
  const bool chunks = request.command == Command::kRead || request.command == Command::kBlockStatus;
  if (!agreed_.structured || !chunks) return reply(request, code);
  const std::string why = errno_text(code);
  std::vector<uint8_t> out;
  append_chunk(out, request.cookie, kChunkError, true, sizeof(uint32_t) + sizeof(uint16_t) + why.size());
  append_be(out, error_value(code), sizeof(uint32_t));
  append_be(out, why.size(), sizeof(uint16_t));
  out.insert(out.end(), why.begin(), why.end());
  return send(std::move(out), {});
}

}  // namespace kite::block::nbd
