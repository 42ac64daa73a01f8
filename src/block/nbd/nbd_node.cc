#include "block/nbd/nbd_node.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "block/timed.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::block::nbd {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kHandshakeNs = 30 * kSecond;  // a server that says nothing is given up
constexpr int64_t kFirstBackoffNs = kSecond / 10;
constexpr int64_t kLongestBackoffNs = 16 * kSecond;
constexpr uint64_t kMostSeconds = uint64_t{1} << 31;

// "filename" or the options that stand for it.
Result<Target> take_target(BlockOptions& options) {
  Target target;
  const auto name = options.take("filename");
  if (name) {
    for (const char* other : {"host", "port", "path", "export"}) {
      if (options.has(other)) return fail("host/port/path/export and file name may not be used at the same time");
    }
    return parse_target(*name);
  }
  KITE_ASSIGN(target.address, take_address(options));
  target.export_name = options.take_string("export");
  if (target.export_name.size() > kLongestString) return fail("export name too long to send to server");
  return target;
}

}  // namespace

Task<Result<NodePtr>> NbdNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  Settings settings;
  KITE_CO_ASSIGN(settings.target, take_target(options));
  if (options.has("tls-creds") || options.has("tls-hostname")) {
    co_return fail(
        "tls-creds: encrypted NBD connections are not supported; connect through an encrypted tunnel instead");
  }
  if (options.has("x-dirty-bitmap")) co_return fail("x-dirty-bitmap: dirty bitmaps of servers are not supported");
  KITE_CO_ASSIGN(const uint64_t delay, options.take_unsigned("reconnect-delay", 0, 0, kMostSeconds));
  KITE_CO_ASSIGN(const uint64_t timeout, options.take_unsigned("open-timeout", 0, 0, kMostSeconds));
  KITE_CO_TRY(options.all_taken("nbd"));
  settings.reconnect_delay_ns = static_cast<int64_t>(delay) * kSecond;
  settings.open_timeout_ns = static_cast<int64_t>(timeout) * kSecond;
  std::shared_ptr<NbdNode> node(new NbdNode(graph.executor(), std::move(config), std::move(settings)));
  KITE_CO_TRY(co_await node->open_first());
  co_return NodePtr(std::move(node));
}

Task<Result<NodePtr>> NbdNode::open_over(Executor& executor, NodeConfig config, Fd socket, std::string export_name) {
  Settings settings;
  settings.target = {.address = {.path = "socket", .host = {}, .port = {}}, .export_name = std::move(export_name)};
  std::shared_ptr<NbdNode> node(new NbdNode(executor, std::move(config), std::move(settings)));
  node->can_reconnect_ = false;
  KITE_CO_ASSIGN(node->link_, co_await node->shake_hands(std::move(socket), monotonic_ns() + kHandshakeNs));
  node->facts_ = node->link_->facts();
  co_return NodePtr(std::move(node));
}

Task<Result<>> NbdNode::open_first() {
  const int64_t give_up = monotonic_ns() + settings_.open_timeout_ns;
  while (true) {
    Result<Link> made = co_await connect_once(monotonic_ns() + kHandshakeNs);
    if (made) {
      link_ = std::move(*made);
      facts_ = link_->facts();
      co_return Result<>{};
    }
    const int64_t left = give_up - monotonic_ns();
    if (left <= 0) co_return Failure(std::move(made).error());
    co_await sleep_ns(executor(), std::min(left, kSecond / 4));
  }
}

Task<Result<NbdNode::Link>> NbdNode::connect_once(int64_t deadline_ns) {
  KITE_CO_ASSIGN(Fd socket, co_await connect_to(executor(), settings_.target.address, deadline_ns));
  co_return co_await shake_hands(std::move(socket), deadline_ns);
}

Task<Result<NbdNode::Link>> NbdNode::shake_hands(Fd socket, int64_t deadline_ns) {
  auto stream = std::make_unique<Stream>(executor(), std::move(socket));
  Result<ExportFacts> facts = fail("");
  {
    const Alarm alarm(executor(), deadline_ns - monotonic_ns(), [&] { stream->abort(); });
    facts = co_await negotiate(*stream, settings_.target.export_name);
  }
  if (!facts) co_return Failure(std::move(facts).error());
  KITE_CO_TRY(check_rights(*facts));
  co_return std::make_shared<Connection>(std::move(stream), *facts);
}

Result<> NbdNode::check_rights(const ExportFacts& facts) {
  if ((facts.flags & kReadOnly) != 0 && !read_only()) {
    if (config_.auto_read_only) {
      config_.read_only = true;
      return {};
    }
    return fail("the export '{}' of '{}' is read-only; open it with read-only=on", settings_.target.export_name,
                address_text(settings_.target.address));
  }
  return {};
}

void NbdNode::lost(const Connection& connection) {
  if (link_.get() != &connection) return;
  log::warn("nbd: the connection to '{}' is lost: {}", address_text(settings_.target.address), connection.why());
  link_.reset();
  lost_at_ns_ = monotonic_ns();
  next_attempt_ns_ = 0;
  backoff_ns_ = kFirstBackoffNs;
  lost_data_ |= unflushed_;
  unflushed_ = false;
}

Task<NbdNode::Link> NbdNode::link() {
  if (link_) co_return link_;
  const CoMutex::Lock turn = co_await connecting_.lock();
  const int64_t give_up = lost_at_ns_ + settings_.reconnect_delay_ns;
  while (!link_ && can_reconnect_) {
    const int64_t now = monotonic_ns();
    if (now < next_attempt_ns_) {
      if (next_attempt_ns_ >= give_up) break;
      co_await sleep_ns(executor(), next_attempt_ns_ - now);
    }
    Result<Link> made = co_await connect_once(monotonic_ns() + kHandshakeNs);
    // Another disk under the same name would be a disaster for whoever uses this one.
    if (made && (*made)->facts().bytes != facts_.bytes) made = fail("the export has another size now");
    if (made && (*made)->facts().min_block > facts_.min_block) made = fail("the export has larger blocks now");
    if (made) {
      link_ = std::move(*made);
      facts_.flags = link_->facts().flags;
      facts_.max_block = std::min(facts_.max_block, link_->facts().max_block);
      log::info("nbd: connected to '{}' again", address_text(settings_.target.address));
      break;
    }
    next_attempt_ns_ = monotonic_ns() + backoff_ns_;
    backoff_ns_ = std::min(backoff_ns_ * 2, kLongestBackoffNs);
  }
  co_return link_;
}

// Every command gives the same result when it is done twice.
Task<IoResult<>> NbdNode::perform(Call& call) {
  const Call asked = call;
  while (true) {
    const Link connection = co_await link();
    if (connection == nullptr) co_return io_fail(EIO);
    call = asked;
    // [NBD] a server may have restarted without what it had served before.
    if (call.command == Command::kBlockStatus && !connection->facts().allocation_context) co_return io_fail(ENOTSUP);
    if (co_await connection->perform(call)) break;
    lost(*connection);
  }
  if (call.code != 0) co_return io_fail(call.code);
  co_return IoResult<>{};
}

BlockLimits NbdNode::limits() const {
  return {.request_alignment = facts_.min_block,
          .memory_alignment = 1,
          .max_transfer = facts_.max_block,
          .opt_transfer = facts_.preferred_block,
          .discard_alignment = facts_.min_block,
          .write_zeroes_alignment = facts_.min_block};
}

Task<Result<>> NbdNode::truncate(uint64_t bytes, Preallocation) {
  if (bytes == facts_.bytes) return ready(Result<>{});
  return ready<Result<>>(fail("Cannot resize NBD nodes"));
}

Task<Result<>> NbdNode::do_close() {
  can_reconnect_ = false;
  if (const Link connection = link_) {
    // A server that does not even take the goodbye is left without.
    const Alarm alarm(executor(), kSecond, [connection] { connection->abort("closed"); });
    co_await connection->disconnect();
  }
  link_.reset();
  co_return Result<>{};
}

Task<IoResult<>> NbdNode::transfer(Command command, uint16_t flags, uint64_t offset, IoSlice slice) {
  while (!slice.empty()) {
    const uint64_t here = std::min<uint64_t>(slice.bytes(), facts_.max_block);
    Call call{.command = command,
              .flags = flags,
              .offset = offset,
              .bytes = static_cast<uint32_t>(here),
              .data = slice.slice(0, here)};
    KITE_CO_TRY(co_await perform(call));
    slice = slice.from(here);
    offset += here;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> NbdNode::do_read(uint64_t offset, IoSlice to, IoHow) {
  const uint64_t inside = offset >= length() ? 0 : std::min(to.bytes(), length() - offset);
  to.from(inside).fill(0);
  to = to.slice(0, inside);
  const uint64_t block = facts_.min_block;
  if (is_aligned(offset | inside, block)) co_return co_await transfer(Command::kRead, 0, offset, to);
  const uint64_t start = align_down(offset, block);
  std::vector<uint8_t> bounce(align_up(offset + inside, block) - start);
  KITE_CO_TRY(co_await transfer(Command::kRead, 0, start, IoSlice(bounce)));
  to.copy_from(bounce.data() + (offset - start));
  co_return IoResult<>{};
}

Task<IoResult<>> NbdNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  const bool fua = how.has(IoHow::kFua);
  const uint16_t flags = fua && serves(kSendFua) ? kFlagFua : 0;
  if (facts_.min_block == 1) {
    KITE_CO_TRY(co_await transfer(Command::kWrite, flags, offset, from));
  } else {
    KITE_CO_TRY(co_await write_bounced(offset, from, flags));
  }
  if (flags == 0) unflushed_ = true;
  if (fua && flags == 0) co_return co_await flush(how);
  co_return IoResult<>{};
}

Task<IoResult<>> NbdNode::write_bounced(uint64_t offset, IoSlice from, uint16_t flags) {
  const uint64_t start = align_down(offset, facts_.min_block);
  const uint64_t end = align_up(offset + from.bytes(), facts_.min_block);
  const bool whole = start == offset && end == offset + from.bytes();
  const WriteTurns::Turn turn(turns_, start, end, !whole);
  while (turn.blocked()) co_await turns_.changed();
  if (whole) co_return co_await transfer(Command::kWrite, flags, offset, from);
  std::vector<uint8_t> bounce(end - start);
  KITE_CO_TRY(co_await transfer(Command::kRead, 0, start, IoSlice(bounce)));
  from.copy_to(bounce.data() + (offset - start));
  co_return co_await transfer(Command::kWrite, flags, start, IoSlice(bounce));
}

Task<IoResult<>> NbdNode::without_payload(Command command, uint16_t flags, uint64_t offset, uint64_t bytes) {
  const uint64_t most = align_down(UINT32_MAX, facts_.min_block);
  while (bytes != 0) {
    const uint64_t here = std::min(bytes, most);
    Call call{.command = command, .flags = flags, .offset = offset, .bytes = static_cast<uint32_t>(here)};
    KITE_CO_TRY(co_await perform(call));
    if ((flags & kFlagFua) == 0) unflushed_ = true;
    offset += here;
    bytes -= here;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> NbdNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  if (!serves(kSendWriteZeroes) || !is_aligned(offset | bytes, facts_.min_block)) co_return io_fail(ENOTSUP);
  if (how.has(IoHow::kNoFallback) && !serves(kSendFastZero)) co_return io_fail(ENOTSUP);
  const bool fua = how.has(IoHow::kFua);
  const bool sends_fua = fua && serves(kSendFua);
  const auto flags = static_cast<uint16_t>((sends_fua ? kFlagFua : 0) | (how.has(IoHow::kMayUnmap) ? 0 : kFlagNoHole) |
                                           (how.has(IoHow::kNoFallback) ? kFlagFastZero : 0));
  const WriteTurns::Turn turn(turns_, offset, offset + bytes, false);
  while (turn.blocked()) co_await turns_.changed();
  KITE_CO_TRY(co_await without_payload(Command::kWriteZeroes, flags, offset, bytes));
  if (fua && !sends_fua) co_return co_await flush(how);
  co_return IoResult<>{};
}

Task<IoResult<>> NbdNode::do_discard(uint64_t offset, uint64_t bytes, IoHow) {
  const uint64_t from = align_up(offset, facts_.min_block);
  const uint64_t to = align_down(offset + bytes, facts_.min_block);
  if (!serves(kSendTrim) || from >= to) co_return IoResult<>{};
  const IoResult<> done = co_await without_payload(Command::kTrim, 0, from, to - from);
  if (!done && (done.error().code == ENOTSUP || done.error().code == EINVAL)) co_return IoResult<>{};
  co_return done;
}

Task<IoResult<>> NbdNode::do_flush(IoHow) {
  if (config_.no_flush || read_only()) co_return IoResult<>{};
  // Counted as flushed from here on: a write that is answered meanwhile is not.
  const bool had_unflushed = std::exchange(unflushed_, false);
  if (serves(kSendFlush)) {
    Call call{.command = Command::kFlush};
    const Link before = link_;
    const IoResult<> done = co_await perform(call);
    if (!done) {
      unflushed_ |= had_unflushed;
      co_return done;
    }
    // Flushed on another connection than that of the writes.
    lost_data_ |= had_unflushed && before != link_;
  }
  if (std::exchange(lost_data_, false)) {
    log::warn("nbd: '{}' was lost with writes that were not flushed: they may be gone",
              address_text(settings_.target.address));
    co_return io_fail(EIO);
  }
  co_return IoResult<>{};
}

Task<IoResult<BlockStatus>> NbdNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  BlockStatus status{.bytes = bytes, .has_offset = true, .offset = offset, .file = this};
  if (!facts_.allocation_context) co_return status;
  const uint64_t start = align_down(offset, facts_.min_block);
  const uint64_t end = std::min(align_up(offset + bytes, facts_.min_block), length());
  const uint64_t most = align_down(UINT32_MAX, facts_.min_block);
  Call call{.command = Command::kBlockStatus,
            .flags = kFlagRequestOne,
            .offset = start,
            .bytes = static_cast<uint32_t>(std::min(end - start, most))};
  const IoResult<> done = co_await perform(call);
  if (!done && done.error().code == ENOTSUP) co_return status;
  if (!done) co_return std::unexpected(done.error());
  const uint64_t known_end = start + std::min(call.status_bytes, end - start);
  // [NBD] an extent that ends inside of a block is no answer; the rest is then taken as data.
  if (known_end <= offset) co_return status;
  status.bytes = std::min(bytes, known_end - offset);
  status.data = (call.status_flags & kStateHole) == 0;
  status.zero = (call.status_flags & kStateZero) != 0;
  co_return status;
}

}  // namespace kite::block::nbd
