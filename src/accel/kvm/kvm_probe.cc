#include "accel/kvm/kvm_probe.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "accel/kvm/kvm_abi.h"
#include "support/bytes.h"
#include "x86/registers.h"

namespace kite {

namespace {

// The probe guest's memory: page tables that map the first 2 MiB to themselves, and the code.
constexpr uint64_t kPml4 = 0x1000, kPdpt = 0x2000, kPageDirectory = 0x3000, kCode = 0x4000, kMemoryBytes = 0x5000;

// The loop, kLoopInstructions a turn, rcx turns; then HLT and back to the start.
constexpr uint8_t kLoop[] = {
    0x48, 0x01, 0xc8,        // add rax, rcx
    0x48, 0x31, 0xc3,        // xor rbx, rax
    0x48, 0x8d, 0x14, 0x0b,  // lea rdx, [rbx + rcx]
    0x48, 0x01, 0xd6,        // add rsi, rdx
    0x48, 0xff, 0xc9,        // dec rcx
    0x75, 0xee,              // jnz to the start
    0xf4,                    // hlt
    0xeb, 0xeb,              // jmp to the start
};
constexpr uint64_t kLoopInstructions = 6;
constexpr uint64_t kTurns = 340;  // a round: some 2000 instructions, 200 us at the speed that counts as real
constexpr int64_t kLongestNs = 3'000'000;
constexpr int kMostInterruptions = 1000;

// Anonymous memory that the guest sees from address 0.
class ProbeMemory {
 public:
  ProbeMemory() : host_(mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~ProbeMemory() {
    if (valid()) munmap(host_, kMemoryBytes);
  }
  ProbeMemory(const ProbeMemory&) = delete;
  ProbeMemory& operator=(const ProbeMemory&) = delete;
  [[nodiscard]] bool valid() const { return host_ != MAP_FAILED; }
  [[nodiscard]] uint8_t* bytes() const { return static_cast<uint8_t*>(host_); }

 private:
  void* host_;
};

void fill_memory(uint8_t* memory) {
  constexpr uint64_t kPresentWritable = 3, kLarge = 0x80;
  store<uint64_t>(memory + kPml4, kPdpt | kPresentWritable);
  store<uint64_t>(memory + kPdpt, kPageDirectory | kPresentWritable);
  store<uint64_t>(memory + kPageDirectory, kLarge | kPresentWritable);
  std::memcpy(memory + kCode, kLoop, sizeof kLoop);
}

kvm_segment flat_segment(uint8_t type, bool long_code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.type = type;
  segment.selector = long_code ? 8 : 16;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = long_code ? 1 : 0;
  segment.db = long_code ? 0 : 1;
  return segment;
}

// The VM and its one vCPU. Members are freed in reverse order: the vCPU before its memory.
class ProbeGuest {
 public:
  explicit ProbeGuest(const KvmSystem& system) : system_(system) {}
  Result<> build();
  // One round: nanoseconds that it took.
  Result<int64_t> run(const std::function<int64_t()>& now_ns);

 private:
  Result<> add_memory();
  Result<> add_vcpu();
  Result<> enter_long_mode();
  Result<KvmFd> make(const KvmFd& from, unsigned long request, const char* what) const {
    const int fd = from.ioctl(request, uintptr_t{0});
    if (fd < 0) return fail("the probe guest's {} cannot be made: {}", what, errno_text(-fd));
    return KvmFd(system_.calls(), fd);
  }
  [[nodiscard]] const kvm_run& exit() const { return *reinterpret_cast<const kvm_run*>(map_.bytes()); }

  const KvmSystem& system_;
  ProbeMemory memory_;
  KvmFd vm_;
  KvmFd vcpu_;
  KvmMapping map_;
};

Result<> ProbeGuest::build() {
  if (!memory_.valid()) return fail("no memory for the probe guest: {}", errno_text(errno));
  fill_memory(memory_.bytes());
  KITE_ASSIGN(vm_, make(system_.fd(), KVM_CREATE_VM, "VM"));
  KITE_TRY(add_memory());
  KITE_TRY(add_vcpu());
  return enter_long_mode();
}

Result<> ProbeGuest::add_memory() {
  // [Linux Documentation/virt/kvm/api.rst, 4.35] Intel hosts want three pages of their own below 4 GiB, where this
  // guest has nothing; the others ignore it.
  constexpr uintptr_t kTssPages = 0xfffbd000;
  (void)vm_.ioctl(KVM_SET_TSS_ADDR, kTssPages);
  kvm_userspace_memory_region region{};
  region.memory_size = kMemoryBytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory_.bytes());
  if (const int error = vm_.ioctl(KVM_SET_USER_MEMORY_REGION, &region); error < 0)
    return fail("the probe guest's memory is refused: {}", errno_text(-error));
  return {};
}

Result<> ProbeGuest::add_vcpu() {
  KITE_ASSIGN(vcpu_, make(vm_, KVM_CREATE_VCPU, "vCPU"));
  int error = 0;
  void* address = system_.calls().map(vcpu_.get(), system_.vcpu_map_bytes(), 0, error);
  if (address == nullptr) return fail("the probe guest's vCPU cannot be mapped: {}", errno_text(error));
  map_ = KvmMapping(system_.calls(), address, system_.vcpu_map_bytes());
  return {};
}

Result<> ProbeGuest::enter_long_mode() {
  kvm_sregs sregs{};
  int error = vcpu_.ioctl(KVM_GET_SREGS, &sregs);
  if (error >= 0) {
    constexpr uint8_t kCodeType = 11, kDataType = 3;  // accessed, readable; accessed, writable
    sregs.cs = flat_segment(kCodeType, true);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat_segment(kDataType, false);
    sregs.cr0 = x86::cr0::kPe | x86::cr0::kPg | x86::cr0::kEt | x86::cr0::kNe;
    sregs.cr3 = kPml4;
    sregs.cr4 = x86::cr4::kPae;
    sregs.efer = x86::efer::kLme | x86::efer::kLma;
    error = vcpu_.ioctl(KVM_SET_SREGS, &sregs);
  }
  if (error < 0) return fail("the probe guest cannot enter 64-bit mode: {}", errno_text(-error));
  return {};
}

Result<int64_t> ProbeGuest::run(const std::function<int64_t()>& now_ns) {
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rcx = kTurns;
  regs.rflags = x86::flag::kFixed1;
  if (const int error = vcpu_.ioctl(KVM_SET_REGS, &regs); error < 0)
    return fail("the probe guest's registers are refused: {}", errno_text(-error));
  const int64_t begin = now_ns();
  int error = -EINTR;
  for (int tries = 0; (error == -EINTR || error == -EAGAIN) && tries < kMostInterruptions; ++tries)
    error = vcpu_.ioctl(KVM_RUN, uintptr_t{0});
  const int64_t end = now_ns();
  if (error < 0) return fail("the probe guest does not run: {}", errno_text(-error));
  if (exit().exit_reason != KVM_EXIT_HLT)
    return fail("the probe guest does not run: exit reason {} in place of its HLT", exit().exit_reason);
  if (const int got = vcpu_.ioctl(KVM_GET_REGS, &regs); got < 0)
    return fail("the probe guest's registers cannot be read: {}", errno_text(-got));
  if (regs.rcx != 0) return fail("the probe guest left its loop with {} turns to go", regs.rcx);
  return std::max<int64_t>(end - begin, 1);
}

}  // namespace

Result<KvmSpeed> probe_kvm_speed(const KvmSystem& system, const std::function<int64_t()>& now_ns) {
  ProbeGuest guest(system);
  KITE_TRY(guest.build());
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  KvmSpeed speed;
  int64_t spent = 0;
  // The first round pays for the faults that bring the guest's pages in; any may be cut short by the host's scheduler.
  while (!speed.real() && spent < kLongestNs) {
    KITE_ASSIGN(const int64_t ns, guest.run(now_ns));
    spent += ns;
    speed.per_second =
        std::max(speed.per_second, kTurns * kLoopInstructions * kNsPerSecond / static_cast<uint64_t>(ns));
  }
  return speed;
}

}  // namespace kite
