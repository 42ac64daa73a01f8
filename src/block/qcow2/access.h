// Who may change what at the same time: guards of Qcow2Node, held across suspension points.
#pragma once

#include <utility>

#include "block/qcow2/qcow2_node.h"

namespace kite::block::qcow2 {

// One of many requests that change data.
class Qcow2Node::SharedAccess {
 public:
  static EnterShared enter(Qcow2Node& node);
  explicit SharedAccess(Qcow2Node& node) : node_(&node) {}
  SharedAccess(SharedAccess&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  SharedAccess& operator=(SharedAccess&&) = delete;
  ~SharedAccess() {
    if (node_ != nullptr && --node_->sharing_ == 0) node_->shared_gone_.wake_all();
  }

 private:
  Qcow2Node* node_;
};

struct Qcow2Node::EnterShared {
  Qcow2Node& node;
  [[nodiscard]] bool await_ready() const noexcept {
    if (node.exclusive_) return false;
    ++node.sharing_;
    return true;
  }
  void await_suspend(std::coroutine_handle<> handle) const { node.shared_waiters_.push_back(handle); }
  [[nodiscard]] SharedAccess await_resume() const noexcept { return SharedAccess(node); }
};

inline Qcow2Node::EnterShared Qcow2Node::SharedAccess::enter(Qcow2Node& node) { return EnterShared{node}; }

// The only one that changes anything.
class Qcow2Node::ExclusiveAccess {
 public:
  static Task<ExclusiveAccess> enter(Qcow2Node& node) {
    CoMutex::Lock turn = co_await node.exclusive_turn_.lock();
    node.exclusive_ = true;
    while (node.sharing_ != 0) co_await node.shared_gone_.wait();
    co_return ExclusiveAccess(node, std::move(turn));
  }
  ExclusiveAccess(ExclusiveAccess&& other) noexcept
      : node_(std::exchange(other.node_, nullptr)), turn_(std::move(other.turn_)) {}
  ExclusiveAccess& operator=(ExclusiveAccess&&) = delete;
  ~ExclusiveAccess() {
    if (node_ == nullptr) return;
    node_->exclusive_ = false;
    std::vector<std::coroutine_handle<>> waiters;
    waiters.swap(node_->shared_waiters_);
    node_->sharing_ += waiters.size();
    for (const auto handle : waiters) resume_in_turn(handle);
  }

 private:
  ExclusiveAccess(Qcow2Node& node, CoMutex::Lock turn) : node_(&node), turn_(std::move(turn)) {}

  Qcow2Node* node_;
  CoMutex::Lock turn_;
};

// The right to change where the guest clusters of [from, to) are.
class Qcow2Node::ChangeGuard {
 public:
  static Task<ChangeGuard> enter(Qcow2Node& node, uint64_t from, uint64_t to) {
    const auto overlaps = [&] {
      for (const Change& change : node.changes_) {
        if (from < change.to && change.from < to) return true;
      }
      return false;
    };
    while (overlaps()) co_await node.changed_.wait();
    co_return ChangeGuard(node, node.changes_.insert(node.changes_.end(), {from, to}));
  }
  ChangeGuard(ChangeGuard&& other) noexcept : node_(std::exchange(other.node_, nullptr)), at_(other.at_) {}
  ChangeGuard& operator=(ChangeGuard&&) = delete;
  ~ChangeGuard() {
    if (node_ == nullptr) return;
    node_->changes_.erase(at_);
    node_->changed_.wake_all();
  }

 private:
  ChangeGuard(Qcow2Node& node, std::list<Change>::iterator at) : node_(&node), at_(at) {}

  Qcow2Node* node_;
  std::list<Change>::iterator at_;
};

}  // namespace kite::block::qcow2
