#include "block/nbd/connection.h"

#include <algorithm>
#include <cerrno>

#include "support/bytes.h"

namespace kite::block::nbd {
namespace {

constexpr size_t kMostPieces = 65536;           // of one read's answer
constexpr unsigned kMostEmptyChunks = 64;       // errors and the like
constexpr uint32_t kLongestErrorChunk = 65536;  // with its message

std::vector<uint8_t> request_head(const Call& call) {
  std::vector<uint8_t> head(kRequestBytes);
  store_be32(head.data(), kRequestMagic);
  store_be16(head.data() + 4, call.flags);
  store_be16(head.data() + 6, static_cast<uint16_t>(call.command));
  store_be64(head.data() + 8, call.cookie);
  store_be64(head.data() + 16, call.offset);
  store_be32(head.data() + 24, call.bytes);
  return head;
}

}  // namespace

Task<bool> Connection::perform(Call& call) {
  call.cookie = next_cookie_++;
  calls_.emplace(call.cookie, &call);
  if (!broken()) {
    const CoMutex::Lock turn = co_await sending_.lock();
    const IoSlice payload = call.command == Command::kWrite ? call.data : IoSlice();
    const auto sent = co_await stream_->write(request_head(call), payload);
    if (!sent) abort(fmt::format("cannot send: {}", errno_text(sent.error().code)));
  }
  while (!call.done) {
    // Even on a broken connection: who receives may still be at this call's buffer.
    if (receiving_) {
      co_await WaitFor{call};
      continue;
    }
    if (broken()) break;
    receiving_ = true;
    const Outcome outcome = co_await receive_one();
    receiving_ = false;
    if (!outcome) abort(outcome.error().message);
  }
  calls_.erase(call.cookie);
  if (!receiving_) pass_turn();
  co_return call.done;
}

// One of those who wait receives from now on; on a broken connection each in turn finds out.
void Connection::pass_turn() {
  for (const auto& [cookie, call] : calls_) {
    if (!call->waiter) continue;
    resume_in_turn(std::exchange(call->waiter, nullptr));
    return;
  }
}

Task<void> Connection::disconnect() {
  if (broken()) co_return;
  Call call{.command = Command::kDisconnect};
  {
    const CoMutex::Lock turn = co_await sending_.lock();
    co_await stream_->write(request_head(call), {});
  }
  abort("closed");
}

void Connection::abort(std::string why) {
  if (broken()) return;
  why_ = std::move(why);
  stream_->abort();
}

Task<Connection::Outcome> Connection::receive_bytes(void* to, size_t bytes) {
  const auto done = co_await stream_->read(IoSlice(to, bytes));
  if (!done) co_return fail("cannot receive: {}", errno_text(done.error().code));
  co_return Outcome{};
}

// One reply, or one chunk of one.
Task<Connection::Outcome> Connection::receive_one() {
  uint8_t head[kStructuredReplyBytes];
  KITE_CO_TRY(co_await receive_bytes(head, kSimpleReplyBytes));
  const uint32_t magic = load_be32(head);
  const uint64_t cookie = load_be64(head + 8);
  const bool structured = magic == kStructuredReplyMagic;
  if (!structured && magic != kSimpleReplyMagic) co_return fail("invalid reply magic {:#x}", magic);
  if (structured) {
    if (!facts_.structured) co_return fail("a structured reply, which was not agreed on");
    KITE_CO_TRY(co_await receive_bytes(head + kSimpleReplyBytes, kStructuredReplyBytes - kSimpleReplyBytes));
  }
  const auto found = calls_.find(cookie);
  if (found == calls_.end()) co_return fail("an answer to nothing that was asked ({:#x})", cookie);
  Call& call = *found->second;
  if (structured) {
    KITE_CO_TRY(co_await receive_chunk(call, {load_be16(head + 4), load_be16(head + 6), load_be32(head + 16)}));
  } else {
    KITE_CO_TRY(co_await receive_simple(call, load_be32(head + 4)));
  }
  co_return Outcome{};
}

Task<Connection::Outcome> Connection::receive_simple(Call& call, uint32_t error) {
  // [NBD] "Simple reply message": with structured replies agreed on, a read is answered by chunks only.
  if (facts_.structured && (call.command == Command::kRead || call.command == Command::kBlockStatus) && error == 0) {
    co_return fail("a simple reply to a read");
  }
  call.code = errno_of(error);
  if (call.command == Command::kRead && error == 0) {
    const auto done = co_await stream_->read(call.data);
    if (!done) co_return fail("cannot receive: {}", errno_text(done.error().code));
    KITE_CO_TRY(cover(call, call.offset, call.bytes));
  }
  co_return finish(call);
}

Task<Connection::Outcome> Connection::receive_chunk(Call& call, Chunk chunk) {
  Outcome outcome;
  switch (chunk.type) {
    case kChunkNone:
      // [NBD] NBD_REPLY_TYPE_NONE: no payload, and always the last.
      if (chunk.bytes != 0 || (chunk.flags & kChunkDone) == 0) co_return fail("a malformed chunk of nothing");
      break;
    case kChunkData: outcome = co_await receive_data(call, chunk); break;
    case kChunkHole: outcome = co_await receive_hole(call, chunk); break;
    case kChunkBlockStatus: outcome = co_await receive_status(call, chunk); break;
    default:
      if ((chunk.type & kChunkErrorBit) == 0) co_return fail("a chunk of the unknown type {}", chunk.type);
      outcome = co_await receive_error(call, chunk);
      break;
  }
  if (!outcome) co_return outcome;
  if ((chunk.flags & kChunkDone) != 0) co_return finish(call);
  co_return Outcome{};
}

Task<Connection::Outcome> Connection::receive_data(Call& call, Chunk chunk) {
  if (call.command != Command::kRead || chunk.bytes <= 8) co_return fail("a malformed chunk of data");
  uint8_t at[8];
  KITE_CO_TRY(co_await receive_bytes(at, sizeof at));
  const uint64_t offset = load_be64(at);
  const uint64_t bytes = chunk.bytes - sizeof at;
  KITE_CO_TRY(cover(call, offset, bytes));
  const auto done = co_await stream_->read(call.data.slice(offset - call.offset, bytes));
  if (!done) co_return fail("cannot receive: {}", errno_text(done.error().code));
  co_return Outcome{};
}

Task<Connection::Outcome> Connection::receive_hole(Call& call, Chunk chunk) {
  if (call.command != Command::kRead || chunk.bytes != 12) co_return fail("a malformed chunk of zeroes");
  uint8_t fields[12];
  KITE_CO_TRY(co_await receive_bytes(fields, sizeof fields));
  const uint64_t offset = load_be64(fields);
  const uint32_t bytes = load_be32(fields + 8);
  KITE_CO_TRY(cover(call, offset, bytes));
  call.data.slice(offset - call.offset, bytes).fill(0);
  co_return Outcome{};
}

Task<Connection::Outcome> Connection::receive_status(Call& call, Chunk chunk) {
  // One descriptor was asked for; older servers send more.
  constexpr uint32_t kMostDescriptors = 4096;
  if (call.command != Command::kBlockStatus || chunk.bytes < 12 || chunk.bytes % 8 != 4 ||
      chunk.bytes > 4 + 8 * kMostDescriptors || call.status_bytes != 0) {
    co_return fail("a malformed block status");
  }
  std::vector<uint8_t> data(chunk.bytes);
  KITE_CO_TRY(co_await receive_bytes(data.data(), data.size()));
  if (load_be32(data.data()) != facts_.allocation_context) co_return fail("the status of a context nobody asked for");
  for (size_t at = 4; at < data.size(); at += 8) {
    const uint32_t bytes = load_be32(data.data() + at);
    const uint32_t flags = load_be32(data.data() + at + 4);
    if (bytes == 0) co_return fail("a block status of no length");
    if (at != 4 && flags != call.status_flags) break;
    call.status_flags = flags;
    call.status_bytes += bytes;
  }
  co_return Outcome{};
}

Task<Connection::Outcome> Connection::receive_error(Call& call, Chunk chunk) {
  if (chunk.bytes < 6 || chunk.bytes > kLongestErrorChunk || ++call.chunks_without_data > kMostEmptyChunks) {
    co_return fail("a malformed error");
  }
  std::vector<uint8_t> data(chunk.bytes);
  KITE_CO_TRY(co_await receive_bytes(data.data(), data.size()));
  const uint32_t error = load_be32(data.data());
  const uint32_t fixed = chunk.type == kChunkErrorOffset ? 14 : 6;
  const bool known = chunk.type == kChunkError || chunk.type == kChunkErrorOffset;
  if (error == 0 || (known && (chunk.bytes < fixed || load_be16(data.data() + 4) > chunk.bytes - fixed))) {
    co_return fail("a malformed error");
  }
  if (call.code == 0) call.code = errno_of(error);
  co_return Outcome{};
}

// [offset, offset+bytes) of a read has arrived: inside of it, and only once.
Connection::Outcome Connection::cover(Call& call, uint64_t offset, uint64_t bytes) {
  if (bytes == 0 || offset < call.offset || bytes > call.bytes || offset - call.offset > call.bytes - bytes) {
    return fail("a chunk of data outside of what was asked");
  }
  const uint64_t end = offset + bytes;
  const auto after = call.covered.lower_bound(offset);
  const auto before = after == call.covered.begin() ? call.covered.end() : std::prev(after);
  const bool has_before = before != call.covered.end();
  if ((after != call.covered.end() && after->first < end) || (has_before && before->second > offset)) {
    return fail("a chunk of data twice");
  }
  // Neighbours become one piece.
  uint64_t piece_end = end;
  if (after != call.covered.end() && after->first == end) {
    piece_end = after->second;
    call.covered.erase(after);
  }
  if (has_before && before->second == offset) {
    before->second = piece_end;
    return {};
  }
  if (call.covered.size() >= kMostPieces) return fail("a read in too many pieces");
  call.covered[offset] = piece_end;
  return {};
}

// The last of an answer is there.
Connection::Outcome Connection::finish(Call& call) {
  if (call.code == 0 && call.command == Command::kRead &&
      (call.covered.size() != 1 || call.covered.begin()->second - call.covered.begin()->first != call.bytes)) {
    return fail("an answer to a read without all of its data");
  }
  if (call.code == 0 && call.command == Command::kBlockStatus && call.status_bytes == 0) {
    return fail("an answer without a block status");
  }
  call.done = true;
  calls_.erase(call.cookie);
  if (call.waiter) resume_in_turn(std::exchange(call.waiter, nullptr));
  return {};
}

}  // namespace kite::block::nbd
