// Which MSRs belong to a vCPU's state.
#include <algorithm>

#include "accel/kvm/kvm_state.h"

namespace kite {

namespace {

using x86::FeatureWord;
namespace msr = x86::msr;

// KVM's own MSRs and the features of leaf 0x40000001 that announce them [Linux Documentation/virt/kvm/x86/msr.rst].
constexpr uint32_t kWallClockOld = 0x11, kSystemTimeOld = 0x12, kWallClock = 0x4b564d00, kSystemTime = 0x4b564d01,
                   kAsyncPf = 0x4b564d02, kStealTime = 0x4b564d03, kPvEoi = 0x4b564d04, kPollControl = 0x4b564d05,
                   kAsyncPfInt = 0x4b564d06, kAsyncPfAck = 0x4b564d07;

struct Condition {
  enum class Kind : uint8_t { kAlways, kFeature, kKvmFeature, kKernelApic } kind;
  FeatureWord word;
  uint8_t bit;
};
constexpr Condition kAlways{Condition::Kind::kAlways, FeatureWord::k1Edx, 0};
constexpr Condition feature(FeatureWord word, uint8_t bit) { return {Condition::Kind::kFeature, word, bit}; }
constexpr Condition kvm_feature(uint8_t bit) { return {Condition::Kind::kKvmFeature, FeatureWord::k1Edx, bit}; }
constexpr Condition kDeadline{Condition::Kind::kKernelApic, FeatureWord::k1Ecx, 24};
constexpr Condition kLongMode = feature(FeatureWord::k80000001Edx, 29);
constexpr Condition kSyscall = feature(FeatureWord::k80000001Edx, 11);
constexpr Condition kMtrr = feature(FeatureWord::k1Edx, 12);
constexpr Condition kSep = feature(FeatureWord::k1Edx, 11);
constexpr Condition kMca = feature(FeatureWord::k1Edx, 14);

struct Row {
  uint32_t first, last;
  Condition condition;
  bool listed =
      true;  // KVM's list must have it; KVM keeps the others (MTRRs, machine check banks) without listing them
};

constexpr Row kRows[] = {
    {msr::kTsc, msr::kTsc, kAlways},
    {kWallClockOld, kSystemTimeOld, kvm_feature(0)},
    {msr::kTscAdjust, msr::kTscAdjust, feature(FeatureWord::k7Ebx, 1)},
    {msr::kSpecCtrl, msr::kSpecCtrl, feature(FeatureWord::k7Edx, 26)},
    {msr::kArchCapabilities, msr::kArchCapabilities, feature(FeatureWord::k7Edx, 29)},
    {msr::kSysenterCs, msr::kSysenterEip, kSep},
    {msr::kMcgStatus, msr::kMcgCtl, kMca},
    {msr::kMiscEnable, msr::kMiscEnable, kAlways},
    {msr::kDebugCtl, msr::kDebugCtl, kAlways},
    {msr::kMtrrPhysBase0, msr::kMtrrPhysMask7, kMtrr, false},
    {msr::kMtrrFix64k, msr::kMtrrFix64k, kMtrr, false},
    {msr::kMtrrFix16k80000, msr::kMtrrFix16kA0000, kMtrr, false},
    {msr::kMtrrFix4kC0000, msr::kMtrrFix4kF8000, kMtrr, false},
    {msr::kPat, msr::kPat, feature(FeatureWord::k1Edx, 16)},
    {msr::kMtrrDefType, msr::kMtrrDefType, kMtrr, false},
    {msr::kMc0Ctl, msr::kMc0Ctl + 4 * 10 - 1, kMca, false},
    {msr::kTscDeadline, msr::kTscDeadline, kDeadline},
    {msr::kPkrs, msr::kPkrs, feature(FeatureWord::k7Ecx, 31)},
    {msr::kXss, msr::kXss, feature(FeatureWord::kD1Eax, 3)},
    {msr::kStar, msr::kStar, kSyscall},
    {msr::kLstar, msr::kSfMask, kLongMode},
    {msr::kKernelGsBase, msr::kKernelGsBase, kLongMode},
    {msr::kTscAux, msr::kTscAux, feature(FeatureWord::k80000001Edx, 27)},
    {kWallClock, kSystemTime, kvm_feature(3)},
    {kAsyncPf, kAsyncPf, kvm_feature(4)},
    {kStealTime, kStealTime, kvm_feature(5)},
    {kPvEoi, kPvEoi, kvm_feature(6)},
    {kPollControl, kPollControl, kvm_feature(12)},
    {kAsyncPfInt, kAsyncPfAck, kvm_feature(14)},
};

}  // namespace

std::vector<uint32_t> state_msr_list(std::span<const uint32_t> listed_by_kvm, const x86::CpuSpec& cpu,
                                     uint32_t kvm_features, bool kernel_local_apic) {
  const auto holds = [&](const Condition& condition) {
    switch (condition.kind) {
      case Condition::Kind::kAlways: return true;
      case Condition::Kind::kFeature: return cpu.has(condition.word, condition.bit);
      case Condition::Kind::kKvmFeature: return (kvm_features >> condition.bit & 1) != 0;
      case Condition::Kind::kKernelApic: return kernel_local_apic && cpu.has(condition.word, condition.bit);
    }
    return false;
  };
  std::vector<uint32_t> list;
  for (const Row& row : kRows) {
    if (!holds(row.condition)) continue;
    for (uint32_t index = row.first; index <= row.last; ++index)
      if (!row.listed || std::ranges::find(listed_by_kvm, index) != listed_by_kvm.end()) list.push_back(index);
  }
  return list;
}

}  // namespace kite
