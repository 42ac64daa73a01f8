#include "block/node.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "block/co_sync.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::block {
namespace {

// Offsets are signed in every host interface.
constexpr uint64_t kMaxOffset = uint64_t{1} << 62;

bool in_range(uint64_t offset, uint64_t bytes) { return offset <= kMaxOffset && bytes <= kMaxOffset - offset; }

std::string generated_name() {
  static std::atomic<uint32_t> next{100};
  return fmt::format("#block{}", next.fetch_add(1));
}

}  // namespace

void resume_in_turn(std::coroutine_handle<> handle) {
  thread_local std::deque<std::coroutine_handle<>> queue;
  thread_local bool active = false;
  queue.push_back(handle);
  if (active) return;
  active = true;
  while (!queue.empty()) {
    const std::coroutine_handle<> next = queue.front();
    queue.pop_front();
    next.resume();
  }
  active = false;
}

std::string permission_names(uint32_t bits) {
  static constexpr std::pair<uint32_t, const char*> kNames[] = {{Permissions::kConsistentRead, "consistent read"},
                                                                {Permissions::kWrite, "write"},
                                                                {Permissions::kWriteUnchanged, "write unchanged"},
                                                                {Permissions::kResize, "resize"}};
  std::string text;
  for (const auto& [bit, name] : kNames) {
    if ((bits & bit) == 0) continue;
    if (!text.empty()) text += ", ";
    text += name;
  }
  return text.empty() ? "none" : text;
}

NodeUse::NodeUse(NodeUse&& other) noexcept { take_from(other); }

NodeUse& NodeUse::operator=(NodeUse&& other) noexcept {
  if (this == &other) return *this;
  reset();
  take_from(other);
  return *this;
}

void NodeUse::take_from(NodeUse& other) {
  node_ = std::move(other.node_);
  other.node_ = nullptr;
  user_ = std::move(other.user_);
  permissions_ = other.permissions_;
  slot_ = other.slot_;
  if (node_ != nullptr) node_->users_[slot_].use = this;
}

Result<NodeUse> NodeUse::claim(NodePtr node, std::string user, Permissions permissions) {
  KITE_TRY(node->check_users(user, permissions, std::nullopt));
  NodeUse use;
  auto& users = node->users_;
  const auto free = std::find_if(users.begin(), users.end(), [](const auto& entry) { return !entry.present; });
  use.slot_ = static_cast<size_t>(free - users.begin());
  if (free == users.end()) users.emplace_back();
  users[use.slot_] = {.name = user, .permissions = permissions, .present = true, .use = &use};
  use.user_ = std::move(user);
  use.permissions_ = permissions;
  use.node_ = std::move(node);
  return use;  // whoever gets it says where it is (take_from())
}

void NodeUse::reset() {
  if (node_ == nullptr) return;
  node_->users_[slot_] = {};
  const Result<> relaxed = node_->apply_users(std::nullopt, {.need = 0, .shared = Permissions::kAll});
  if (!relaxed) log::warn("node '{}': {}", node_->name(), relaxed.error().message);
  node_ = nullptr;
}

Result<> NodeUse::change(Permissions permissions) {
  KITE_TRY(node_->check_users(user_, permissions, slot_));
  node_->users_[slot_].permissions = permissions;
  permissions_ = permissions;
  return {};
}

BlockNode::BlockNode(Executor& executor, std::string driver, NodeConfig config)
    : config_(std::move(config)), executor_(executor), driver_(std::move(driver)) {
  if (config_.name.empty()) config_.name = generated_name();
}

BlockNode::~BlockNode() = default;

Result<> BlockNode::check_users(const std::string& name, Permissions permissions, std::optional<size_t> except) {
  if (read_only() && (permissions.need & (Permissions::kWrite | Permissions::kResize)) != 0) {
    return fail("{} wants to write to the node '{}', which is read-only", name, config_.name);
  }
  for (size_t i = 0; i < users_.size(); ++i) {
    const User& other = users_[i];
    if (!other.counts() || except == i) continue;
    if (const uint32_t denied = permissions.need & ~other.permissions.shared; denied != 0) {
      return fail("{} cannot use the node '{}': it needs '{}', which {} does not share", name, config_.name,
                  permission_names(denied), other.name);
    }
    if (const uint32_t denied = other.permissions.need & ~permissions.shared; denied != 0) {
      return fail("{} cannot use the node '{}': it does not share '{}', which {} uses", name, config_.name,
                  permission_names(denied), other.name);
    }
  }
  return apply_users(except, permissions);
}

Result<> BlockNode::apply_users(std::optional<size_t> except, Permissions more) {
  for (size_t i = 0; i < users_.size(); ++i) {
    if (!users_[i].counts() || except == i) continue;
    more.need |= users_[i].permissions.need;
    more.shared &= users_[i].permissions.shared;
  }
  return set_permissions(more.need, more.shared);
}

Result<> BlockNode::set_permissions(uint32_t, uint32_t) { return {}; }

Result<> BlockNode::move_users(const NodePtr& fresh, const NodeUse* stays, NodeUse* passing,
                               const std::function<Result<>()>& between) {
  const NodePtr keep = shared_from_this();
  std::vector<NodeUse*> movers;
  for (User& user : users_) {
    if (!user.present || user.use == stays) continue;
    user.away = true;
    movers.push_back(user.use);
  }
  const auto pass = [&](bool away) {
    if (passing != nullptr) passing->node_->users_[passing->slot_].away = away;
  };
  pass(true);
  Result<> done = between ? between() : Result<>{};
  std::vector<NodeUse> claims;
  for (const NodeUse* mover : movers) {
    if (!done) break;
    auto claim = NodeUse::claim(fresh, mover->user_, mover->permissions_);
    if (claim) {
      claims.push_back(std::move(*claim));
    } else {
      done = Failure(std::move(claim).error());
    }
  }
  if (!done) claims.clear();
  for (size_t i = 0; i < movers.size(); ++i) {
    if (!done) {
      users_[movers[i]->slot_].away = false;
    } else {
      users_[movers[i]->slot_] = {};
      movers[i]->take_from(claims[i]);
    }
  }
  // Nothing is needed here any more that moved: locks are let go only now that the claims on `fresh` hold.
  if (done) {
    if (const Result<> relaxed = apply_users(std::nullopt, {.need = 0, .shared = Permissions::kAll}); !relaxed)
      log::warn("node '{}': {}", name(), relaxed.error().message);
  }
  pass(false);
  return done;
}

Task<Result<>> BlockNode::do_set_read_only(bool) {
  co_return fail("the node '{}' ({}) cannot change between reading and writing", name(), driver());
}

Task<Result<>> BlockNode::set_read_only(bool read_only) {
  const NodePtr keep = shared_from_this();
  if (read_only == config_.read_only) co_return Result<>{};
  for (const User& user : users_) {
    if (read_only && user.counts() && (user.permissions.need & (Permissions::kWrite | Permissions::kResize)) != 0)
      co_return fail("{} writes to the node '{}'", user.name, name());
  }
  co_return co_await do_set_read_only(read_only);
}

Task<IoResult<>> BlockNode::read(uint64_t offset, IoSlice to, IoHow how) {
  if (closed_) return ready<IoResult<>>(io_fail(EBADF));
  if (!in_range(offset, to.bytes())) return ready<IoResult<>>(io_fail(EINVAL));
  if (read_turns_ != nullptr) return read_in_turn(read_turns_, offset, to, how);
  return do_read(offset, to, how);
}

Task<IoResult<>> BlockNode::read_in_turn(std::shared_ptr<WriteTurns> turns, uint64_t offset, IoSlice to, IoHow how) {
  const WriteTurns::Turn turn(*turns, offset, offset + to.bytes(), false);
  while (turn.blocked()) co_await turns->changed();
  co_return co_await do_read(offset, to, how);
}

Task<IoResult<>> BlockNode::write(uint64_t offset, IoSlice from, IoHow how) {
  if (closed_) return ready<IoResult<>>(io_fail(EBADF));
  if (!in_range(offset, from.bytes())) return ready<IoResult<>>(io_fail(EINVAL));
  if (read_only() || !active()) return ready<IoResult<>>(io_fail(EACCES));
  if (!growable() && offset + from.bytes() > length()) return ready<IoResult<>>(io_fail(EINVAL));
  if (config_.detect_zeroes != NodeConfig::DetectZeroes::kOff && !how.has(IoHow::kCompressed) && from.all_zero()) {
    const bool unmap = config_.detect_zeroes == NodeConfig::DetectZeroes::kUnmap;
    return write_zeroes(offset, from.bytes(), unmap ? how.with(IoHow::kMayUnmap) : how);
  }
  highest_written_ = std::max(highest_written_, offset + from.bytes());
  if (!bitmaps_.empty()) return mark_after(offset, from.bytes(), do_write(offset, from, how));
  return do_write(offset, from, how);
}

// Marked when it has happened: what a client clears while it is under way is dirty again. A failed change may have
// happened in part.
Task<IoResult<>> BlockNode::mark_after(uint64_t offset, uint64_t bytes, Task<IoResult<>> change) {
  const IoResult<> done = co_await std::move(change);
  bitmaps_.mark(offset, bytes, length());
  co_return done;
}

Task<IoResult<>> BlockNode::write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  if (closed_) co_return io_fail(EBADF);
  if (!in_range(offset, bytes)) co_return io_fail(EINVAL);
  if (read_only() || !active()) co_return io_fail(EACCES);
  if (!growable() && offset + bytes > length()) co_return io_fail(EINVAL);
  if (!config_.discard_unmap) how = how.without(IoHow::kMayUnmap);
  highest_written_ = std::max(highest_written_, offset + bytes);
  IoResult<> done = co_await do_write_zeroes(offset, bytes, how);
  if (!done && done.error().code == ENOTSUP && !how.has(IoHow::kNoFallback))
    done = co_await write_zeroes_fallback(offset, bytes, how);
  if (!bitmaps_.empty()) bitmaps_.mark(offset, bytes, length());
  co_return done;
}

Task<IoResult<>> BlockNode::write_zeroes_fallback(uint64_t offset, uint64_t bytes, IoHow how) {
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  const std::vector<uint8_t> zeroes(static_cast<size_t>(std::min(bytes, kPiece)));
  while (bytes != 0) {
    const uint64_t here = std::min(bytes, kPiece);
    KITE_CO_TRY(co_await do_write(offset, IoSlice::of_const(zeroes.data(), static_cast<size_t>(here)),
                                  how.without(IoHow::kMayUnmap)));
    offset += here;
    bytes -= here;
  }
  co_return IoResult<>{};
}

Task<IoResult<>> BlockNode::discard(uint64_t offset, uint64_t bytes, IoHow how) {
  if (closed_) return ready<IoResult<>>(io_fail(EBADF));
  if (!in_range(offset, bytes)) return ready<IoResult<>>(io_fail(EINVAL));
  if (read_only() || !active()) return ready<IoResult<>>(io_fail(EACCES));
  if (offset + bytes > length()) return ready<IoResult<>>(io_fail(EINVAL));
  if (!config_.discard_unmap || bytes == 0) return ready(IoResult<>{});
  if (!bitmaps_.empty()) return mark_after(offset, bytes, do_discard(offset, bytes, how));
  return do_discard(offset, bytes, how);
}

Task<IoResult<>> BlockNode::flush(IoHow how) { return closed_ ? ready<IoResult<>>(io_fail(EBADF)) : do_flush(how); }

Task<IoResult<BlockStatus>> BlockNode::block_status(uint64_t offset, uint64_t bytes, bool precise) {
  if (closed_) return ready<IoResult<BlockStatus>>(io_fail(EBADF));
  if (offset >= length() || bytes == 0) return ready<IoResult<BlockStatus>>(io_fail(EINVAL));
  return do_block_status(offset, std::min(bytes, length() - offset), precise);
}

Task<IoResult<>> BlockNode::do_write(uint64_t, IoSlice, IoHow) { return ready<IoResult<>>(io_fail(EACCES)); }
Task<IoResult<>> BlockNode::do_write_zeroes(uint64_t, uint64_t, IoHow) { return ready<IoResult<>>(io_fail(ENOTSUP)); }
Task<IoResult<>> BlockNode::do_discard(uint64_t, uint64_t, IoHow) { return ready(IoResult<>{}); }
Task<IoResult<>> BlockNode::do_flush(IoHow) { return ready(IoResult<>{}); }

Task<IoResult<BlockStatus>> BlockNode::do_block_status(uint64_t offset, uint64_t bytes, bool) {
  co_return BlockStatus{.bytes = bytes, .has_offset = true, .offset = offset, .file = this};
}

Task<Result<>> BlockNode::truncate(uint64_t, Preallocation) {
  return ready<Result<>>(fail("the node '{}' ({}) cannot be resized", name(), driver()));
}

Result<> BlockNode::may_keep_bitmap(std::string_view bitmap, uint64_t) const {
  return fail("Cannot store dirty bitmap '{}': the node '{}' ({}) cannot keep bitmaps", bitmap, name(), driver());
}

Task<Result<>> BlockNode::do_deactivate() { co_return Result<>{}; }
Task<Result<>> BlockNode::do_activate() { co_return Result<>{}; }

Task<Result<>> BlockNode::deactivate() {
  if (active()) KITE_CO_TRY(co_await do_deactivate());
  config_.inactive = true;
  for (BlockNode* const below : {file(), backing()})
    if (below != nullptr) KITE_CO_TRY(co_await below->deactivate());
  co_return Result<>{};
}

Task<Result<>> BlockNode::activate() {
  if (active()) co_return Result<>{};
  for (BlockNode* const below : {file(), backing()})
    if (below != nullptr) KITE_CO_TRY(co_await below->activate());
  config_.inactive = false;
  Result<> done = co_await do_activate();
  config_.inactive = !done;
  co_return done;
}

Task<Result<>> BlockNode::close() {
  if (closed_) return ready(Result<>{});
  return close_once();
}

// The node writes through its own interface while it closes, so it counts as closed only afterwards.
Task<Result<>> BlockNode::close_once() {
  const NodePtr keep = shared_from_this();
  if (std::exchange(closing_, true)) co_return Result<>{};
  Result<> result = co_await do_close();
  closed_ = true;
  co_return result;
}

Task<Result<>> BlockNode::do_close() { return ready(Result<>{}); }

size_t BlockNode::user_count() const {
  return static_cast<size_t>(std::ranges::count_if(users_, [](const User& user) { return user.present; }));
}

std::string BlockNode::user_names() const {
  std::string names;
  for (const User& user : users_) {
    if (!user.present) continue;
    if (!names.empty()) names += ", ";
    names += user.name;
  }
  return names;
}

Task<Result<>> close_use(NodeUse& use) {
  if (!use) co_return Result<>{};
  const NodePtr node = use.node();
  use.reset();
  if (node->user_count() != 0 || node->kept()) co_return Result<>{};
  co_return co_await node->close();
}

}  // namespace kite::block
