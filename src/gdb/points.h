// Points: the breakpoints and watchpoints that a client has set, and how they get to the vCPUs. Where the accelerator
// wants INT3 for them, it is in the guest's memory from insert() to remove(). Main executor's thread, while the machine
// stands still.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "machine/guest_view.h"

namespace kite::gdb {

// As Z packets number them.
enum class PointKind : uint8_t { kSoftware, kHardware, kWrite, kRead, kAccess };

class Points {
 public:
  Points(machine::Machine& machine, machine::GuestView& view) : machine_(machine), view_(view) {}

  enum class Outcome : uint8_t {
    kDone,
    kUnsupported,  // the accelerator has none of this kind
    kFailed,       // no memory there, too many, not there to be removed
  };
  // One that is there already may be inserted again, without effect.
  Outcome insert(size_t vcpu, PointKind kind, uint64_t address, uint64_t bytes);
  Outcome remove(size_t vcpu, PointKind kind, uint64_t address, uint64_t bytes);
  void remove_all(size_t vcpu);

  // What every vCPU is to stop for.
  [[nodiscard]] GuestDebug wishes() const;
  // The watchpoint that GuestDebug::watches[number] was made of.
  struct Watched {
    PointKind kind;
    uint64_t address;
  };
  [[nodiscard]] Watched watched(size_t number) const;
  // What is at a linear address that a vCPU has stopped at.
  [[nodiscard]] bool has_hardware(uint64_t address) const;

 private:
  struct Point {
    PointKind kind;
    uint64_t address;  // linear
    uint64_t bytes;
    // With an INT3: where it is, and what was there.
    std::optional<Gpa> physical = std::nullopt;
    uint8_t covered = 0;
  };
  static constexpr size_t kMost = 4096;
  static constexpr uint64_t kMostWatched = 4096;  // bytes, by one
  [[nodiscard]] std::vector<Point>::iterator find(PointKind kind, uint64_t address, uint64_t bytes);
  [[nodiscard]] Outcome judge(PointKind kind, uint64_t address, uint64_t bytes) const;
  bool cover(size_t vcpu, Point& point);
  void uncover(size_t vcpu, const Point& point);

  machine::Machine& machine_;
  machine::GuestView& view_;
  std::vector<Point> points_;
};

}  // namespace kite::gdb
