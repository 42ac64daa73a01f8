// For tests: a KVM that exists only in this process. It answers the questions that are asked before a guest runs, keeps
// the state of one vCPU as it was set, and runs guests in name only: KVM_RUN lets a clock of its own go on by as long
// as the probe's loop would take. Its members say what kind of KVM it is.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "accel/kvm/kvm_abi.h"
#include "accel/kvm/kvm_calls.h"

namespace kite {

class TestKvm final : public KvmCalls {
 public:
  // --- what kind of KVM
  int open_error = 0;  // an errno: open() fails so
  int api_version = KVM_API_VERSION;
  std::set<uint32_t> missing;  // capabilities that it lacks; all others it has
  double ns_per_instruction = 0.3;
  int synced_registers = 0;              // what KVM_CAP_SYNC_REGS answers
  uint32_t exit_reason = KVM_EXIT_HLT;   // how KVM_RUN comes back
  int run_error = 0;                     // an errno: KVM_RUN fails so
  std::function<int(kvm_run&)> on_run;   // instead of all that: fills in an exit and answers what KVM_RUN does
  std::map<unsigned long, int> refused;  // ioctl requests that fail, with their errno
  std::map<uint64_t, uint64_t> pages;    // what KVM_TRANSLATE answers, by the page's linear address
  std::vector<uint8_t> statistics;       // the file that KVM_GET_STATS_FD answers
  std::vector<kvm_cpuid_entry2> cpuid = std::vector<kvm_cpuid_entry2>(1);

  // --- what happened
  int64_t now_ns = 0;
  std::vector<std::string> opened;  // paths
  uint32_t runs = 0;
  std::map<unsigned long, uint32_t> calls;  // how often each request was made
  std::vector<kvm_msi> messages;            // KVM_SIGNAL_MSI
  std::map<uint32_t, uint64_t> msrs;        // of the vCPU
  kvm_guest_debug guest_debug{};            // KVM_SET_GUEST_DEBUG
  // A part of the vCPU's state by the request that sets it, as it was set last (zeros before).
  template <class T>
  [[nodiscard]] T part(unsigned long set_request) const {
    T value{};
    if (const auto found = parts_.find(set_request); found != parts_.end())
      std::memcpy(&value, found->second.data(), std::min(sizeof value, found->second.size()));
    return value;
  }
  template <class T>
  void set_part(unsigned long set_request, const T& value) {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(&value);
    parts_[set_request].assign(bytes, bytes + sizeof value);
  }
  [[nodiscard]] size_t open_descriptors() const { return files_.size(); }
  [[nodiscard]] size_t mappings() const { return maps_.size(); }

  // --- KvmCalls
  int open_device(const std::string& path) override {
    opened.push_back(path);
    return open_error != 0 ? -open_error : add(Kind::kDevice);
  }
  int close_fd(int fd) override { return files_.erase(fd) == 1 ? 0 : -EBADF; }
  int ioctl(int fd, unsigned long request, uintptr_t argument) override {
    const auto file = files_.find(fd);
    if (file == files_.end()) return -EBADF;
    ++calls[request];
    if (const auto found = refused.find(request); found != refused.end()) return -found->second;
    switch (file->second) {
      case Kind::kDevice: return device(request, argument);
      case Kind::kVm: return vm(request, argument);
      case Kind::kVcpu: return vcpu(request, argument);
      case Kind::kStatistics: return -ENOTTY;
    }
    return -ENOTTY;
  }
  void* map(int fd, size_t bytes, int64_t, int& error) override {
    if (!files_.contains(fd)) {
      error = EBADF;
      return nullptr;
    }
    auto memory = std::make_unique<Page[]>((bytes + sizeof(Page) - 1) / sizeof(Page));
    void* const address = memory.get();
    run_ = static_cast<kvm_run*>(address);
    maps_[address] = std::move(memory);
    return address;
  }
  void unmap(void* address, size_t) override { maps_.erase(address); }
  int64_t read_at(int fd, void* to, size_t bytes, int64_t offset) override {
    const auto file = files_.find(fd);
    if (file == files_.end() || file->second != Kind::kStatistics) return -EBADF;
    const auto start = std::min(static_cast<size_t>(offset), statistics.size());
    const size_t count = std::min(bytes, statistics.size() - start);
    std::copy_n(statistics.data() + start, count, static_cast<uint8_t*>(to));
    return static_cast<int64_t>(count);
  }
  using KvmCalls::ioctl;

 private:
  enum class Kind : uint8_t { kDevice, kVm, kVcpu, kStatistics };
  struct alignas(4096) Page {
    std::array<uint8_t, 4096> bytes{};
  };
  static constexpr int kFirstFd = 1000;
  static constexpr int kMapBytes = 3 * 4096;

  template <class T>
  static T& at(uintptr_t argument) {
    return *reinterpret_cast<T*>(argument);
  }
  int add(Kind kind) {
    files_[next_fd_] = kind;
    return next_fd_++;
  }
  int device(unsigned long request, uintptr_t argument) {
    switch (request) {
      case KVM_GET_API_VERSION: return api_version;
      case KVM_CHECK_EXTENSION: return extension(static_cast<uint32_t>(argument));
      case KVM_GET_VCPU_MMAP_SIZE: return kMapBytes;
      case KVM_CREATE_VM: return add(Kind::kVm);
      case KVM_GET_SUPPORTED_CPUID: {
        auto& list = at<kvm_cpuid2>(argument);
        if (list.nent < cpuid.size()) return -E2BIG;
        list.nent = static_cast<uint32_t>(cpuid.size());
        std::copy(cpuid.begin(), cpuid.end(), list.entries);
        return 0;
      }
      case KVM_GET_MSR_INDEX_LIST:
      case KVM_GET_MSR_FEATURE_INDEX_LIST: at<kvm_msr_list>(argument).nmsrs = 0; return 0;
      default: return 0;
    }
  }
  [[nodiscard]] int extension(uint32_t number) const {
    if (missing.contains(number)) return 0;
    switch (number) {
      case KVM_CAP_NR_MEMSLOTS: return 509;
      case KVM_CAP_MAX_VCPUS: return 1024;
      case KVM_CAP_XSAVE2: return 4096;
      case KVM_CAP_SYNC_REGS: return synced_registers;
      case KVM_CAP_DIRTY_LOG_RING: return 65536 * 16;
      case KVM_CAP_SET_GUEST_DEBUG2: return KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
      default: return 1;
    }
  }
  int vm(unsigned long request, uintptr_t argument) {
    switch (request) {
      case KVM_CHECK_EXTENSION: return extension(static_cast<uint32_t>(argument));
      case KVM_CREATE_VCPU: return add(Kind::kVcpu);
      case KVM_GET_STATS_FD: return add(Kind::kStatistics);
      case KVM_SIGNAL_MSI: messages.push_back(at<kvm_msi>(argument)); return 1;
      default: return 0;
    }
  }
  // Requests that read a part of a vCPU's state, with those that write it and its size.
  struct Part {
    unsigned long get, set;
    size_t bytes;
  };
  static constexpr Part kParts[] = {
      {KVM_GET_REGS, KVM_SET_REGS, sizeof(kvm_regs)},
      {KVM_GET_SREGS, KVM_SET_SREGS, sizeof(kvm_sregs)},
      {KVM_GET_SREGS2, KVM_SET_SREGS2, sizeof(kvm_sregs2)},
      {KVM_GET_FPU, KVM_SET_FPU, sizeof(kvm_fpu)},
      {KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(kvm_xsave)},
      {KVM_GET_XCRS, KVM_SET_XCRS, sizeof(kvm_xcrs)},
      {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(kvm_debugregs)},
      {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(kvm_vcpu_events)},
      {KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(kvm_mp_state)},
      {KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(kvm_lapic_state)},
  };
  int vcpu(unsigned long request, uintptr_t argument) {
    auto* const bytes = reinterpret_cast<uint8_t*>(argument);
    for (const Part& known : kParts) {
      if (request == known.set) parts_[known.set].assign(bytes, bytes + known.bytes);
      if (request != known.get) continue;
      std::fill_n(bytes, known.bytes, uint8_t{0});
      if (const auto found = parts_.find(known.set); found != parts_.end())
        std::copy_n(found->second.data(), std::min(known.bytes, found->second.size()), bytes);
    }
    switch (request) {
      case KVM_GET_MSRS:
      case KVM_SET_MSRS: return move_msrs(request == KVM_SET_MSRS, argument);
      case KVM_GET_STATS_FD: return add(Kind::kStatistics);
      case KVM_RUN: return run();
      case KVM_SET_GUEST_DEBUG: guest_debug = at<kvm_guest_debug>(argument); return 0;
      case KVM_TRANSLATE: return translate(at<kvm_translation>(argument));
      default: return 0;
    }
  }
  int move_msrs(bool set, uintptr_t argument) {
    const uint32_t count = at<uint32_t>(argument);
    auto* const entries = reinterpret_cast<kvm_msr_entry*>(argument + sizeof(kvm_msrs));
    for (uint32_t i = 0; i < count; ++i) {
      if (set)
        msrs[entries[i].index] = entries[i].data;
      else
        entries[i].data = msrs[entries[i].index];
    }
    return static_cast<int>(count);
  }
  int translate(kvm_translation& asked) const {
    const uint64_t offset = asked.linear_address & 4095;
    const auto page = pages.find(asked.linear_address - offset);
    asked.valid = page != pages.end();
    if (asked.valid != 0) asked.physical_address = page->second + offset;
    return 0;
  }
  int run() {
    constexpr double kLoopInstructions = 6;
    ++runs;
    if (on_run) return on_run(*run_);
    if (run_error != 0) return -run_error;
    auto regs = part<kvm_regs>(KVM_SET_REGS);
    now_ns += static_cast<int64_t>(static_cast<double>(regs.rcx) * kLoopInstructions * ns_per_instruction);
    regs.rcx = 0;
    set_part(KVM_SET_REGS, regs);
    run_->exit_reason = exit_reason;
    return 0;
  }

  std::map<int, Kind> files_;
  std::map<void*, std::unique_ptr<Page[]>> maps_;
  int next_fd_ = kFirstFd;
  kvm_run* run_ = nullptr;                               // of the last vCPU that was mapped
  std::map<unsigned long, std::vector<uint8_t>> parts_;  // of the last vCPU, by the request that sets them
};

}  // namespace kite
