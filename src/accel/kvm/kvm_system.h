// KvmSystem: an open KVM that has been looked over: its API version, the capabilities that Kite needs (each with the
// reason), those it uses when they are there, the CPUID that it can give guests, and the MSRs whose values it keeps.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_calls.h"
#include "support/result.h"
#include "x86/cpuid.h"

namespace kite {

struct KvmCapability {
  uint32_t number;
  std::string_view name;  // without KVM_CAP_
  std::string_view why;   // what Kite does with it, as the end of "needed to ..." or "used to ..."
};

// Where CPUID has each feature word.
struct KvmFeaturePlace {
  x86::FeatureWord word;
  uint32_t function, index;
  uint32_t kvm_cpuid_entry2::* part;
};
std::span<const KvmFeaturePlace> kvm_feature_places();

class KvmSystem {
 public:
  // Opens `path` and checks everything. The message of a failure says which of these it was, and what to do: no such
  // device, no permission, busy, another API version, a capability that is missing, by name and reason.
  static Result<std::shared_ptr<KvmSystem>> open(KvmCalls& calls, const std::string& path = "/dev/kvm");

  [[nodiscard]] KvmCalls& calls() const { return fd_.calls(); }
  [[nodiscard]] const KvmFd& fd() const { return fd_; }
  // KVM_CHECK_EXTENSION: 0 when it is absent, else what the capability counts.
  [[nodiscard]] int check(uint32_t capability) const;
  [[nodiscard]] size_t vcpu_map_bytes() const { return vcpu_map_bytes_; }

  static std::span<const KvmCapability> required();
  static std::span<const KvmCapability> optional();
  // One line a capability: name, value, what for. For -d and bug reports.
  [[nodiscard]] std::string report() const;

  // KVM_GET_SUPPORTED_CPUID.
  [[nodiscard]] std::span<const kvm_cpuid_entry2> supported_cpuid() const { return cpuid_; }
  [[nodiscard]] const kvm_cpuid_entry2* find_cpuid(uint32_t function, uint32_t index = 0) const;
  // The same as feature words, with what KVM does for user space's sake added (HYPERVISOR; TSC_DEADLINE with the
  // in-kernel local APIC) and what only such an APIC can give taken away when there is none.
  [[nodiscard]] x86::FeatureSet features(bool kernel_local_apic) const;

  // KVM_GET_MSR_INDEX_LIST: what is part of a vCPU's state.
  [[nodiscard]] std::span<const uint32_t> state_msrs() const { return state_msrs_; }
  // KVM_GET_MSR_FEATURE_INDEX_LIST; empty where KVM has no such list.
  [[nodiscard]] std::span<const uint32_t> feature_msrs() const { return feature_msrs_; }
  [[nodiscard]] bool has_state_msr(uint32_t index) const;

 private:
  explicit KvmSystem(KvmFd fd) : fd_(std::move(fd)) {}
  Result<> check_version(const std::string& path) const;
  Result<> check_required() const;
  Result<> read_cpuid();
  Result<> read_msr_lists();

  KvmFd fd_;
  size_t vcpu_map_bytes_ = 0;
  std::vector<kvm_cpuid_entry2> cpuid_;
  std::vector<uint32_t> state_msrs_, feature_msrs_;
};

}  // namespace kite
