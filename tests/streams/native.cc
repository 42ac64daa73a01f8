#include "streams/native.h"

#include <asm/prctl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace kite::streams {

// Pages of one memfd: control, then code, data and stack, which the child maps at their linear addresses.
struct NativeRunner::Exchange {
  alignas(4096) Registers registers;  // in: initial; out: final
  bool wide;
  uint64_t vector, error_code, fault_address;
  alignas(4096) std::array<uint8_t, kCodeBytes> code;
  alignas(4096) std::array<uint8_t, kDataBytes> data;
  alignas(4096) std::array<uint8_t, kStackBytes> stack;
};

namespace {

using Exchange = NativeRunner::Exchange;

constexpr int kGreg[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                           REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr size_t kMxcsrMaskOffset = 28, kXstateBvOffset = 512;
// Where the kernel says what the frame's image has beyond the FXSAVE format, and the upper halves of YMM registers.
constexpr size_t kFrameMagicOffset = 464, kFrameFeaturesOffset = 472, kYmmHighOffset = 576;
constexpr uint32_t kFrameMagic = 0x46505853;
constexpr uint64_t kX87AndSse = 3, kAvx = 4;

// The child's globals: a signal handler has no other way to them.
Exchange* child_exchange;
int child_commands, child_answers;
bool child_started;

[[noreturn]] void fail_setup(const char* what) {
  std::perror(what);
  std::abort();
}

bool frame_has_avx(const void* image) {
  uint32_t magic = 0;
  uint64_t features = 0;
  std::memcpy(&magic, static_cast<const uint8_t*>(image) + kFrameMagicOffset, sizeof magic);
  std::memcpy(&features, static_cast<const uint8_t*>(image) + kFrameFeaturesOffset, sizeof features);
  return magic == kFrameMagic && (features & kAvx) != 0;
}

void record(const ucontext_t& context) {
  const mcontext_t& machine = context.uc_mcontext;
  Registers& out = child_exchange->registers;
  for (size_t i = 0; i < 16; ++i) out.gpr[i] = static_cast<uint64_t>(machine.gregs[kGreg[i]]);
  out.rip = static_cast<uint64_t>(machine.gregs[REG_RIP]);
  out.rflags = static_cast<uint64_t>(machine.gregs[REG_EFL]);
  std::memcpy(out.fx.data(), machine.fpregs, out.fx.size());
  if (frame_has_avx(machine.fpregs))
    std::memcpy(out.ymm_high.data(), reinterpret_cast<const uint8_t*>(machine.fpregs) + kYmmHighOffset,
                out.ymm_high.size());
  child_exchange->vector = static_cast<uint64_t>(machine.gregs[REG_TRAPNO]);
  child_exchange->error_code = static_cast<uint64_t>(machine.gregs[REG_ERR]);
  child_exchange->fault_address = static_cast<uint64_t>(machine.gregs[REG_CR2]);
}

void prepare(ucontext_t& context) {
  mcontext_t& machine = context.uc_mcontext;
  const Registers& in = child_exchange->registers;
  for (size_t i = 0; i < 16; ++i) machine.gregs[kGreg[i]] = static_cast<greg_t>(in.gpr[i]);
  machine.gregs[REG_RIP] = static_cast<greg_t>(in.rip);
  machine.gregs[REG_EFL] = static_cast<greg_t>(in.rflags);
  const uint64_t code = child_exchange->wide ? kCode64Selector : kCode32Selector;
  auto segments = static_cast<uint64_t>(machine.gregs[REG_CSGSFS]);
  segments = (segments & ~uint64_t{0xffff}) | code;
  machine.gregs[REG_CSGSFS] = static_cast<greg_t>(segments);
  auto* const image = reinterpret_cast<uint8_t*>(machine.fpregs);
  std::memcpy(image, in.fx.data(), kMxcsrMaskOffset);
  std::memcpy(image + kMxcsrMaskOffset + 4, in.fx.data() + kMxcsrMaskOffset + 4, in.fx.size() - kMxcsrMaskOffset - 4);
  uint64_t components = 0;
  std::memcpy(&components, image + kXstateBvOffset, sizeof components);
  components |= kX87AndSse;  // they are loaded from the frame, not initialised
  if (frame_has_avx(image)) {
    components |= kAvx;
    std::memcpy(image + kYmmHighOffset, in.ymm_high.data(), in.ymm_high.size());
  }
  std::memcpy(image + kXstateBvOffset, &components, sizeof components);
}

extern "C" void kite_streams_on_signal(int, siginfo_t*, void* raw) {
  auto& context = *static_cast<ucontext_t*>(raw);
  uint64_t word = 1;
  if (child_started) {
    record(context);
    if (write(child_answers, &word, sizeof word) != sizeof word) _exit(1);
  }
  child_started = true;
  if (read(child_commands, &word, sizeof word) != sizeof word) _exit(0);
  prepare(context);
}

// The stream may have left AC, ID or NT on. The kernel leaves them on for the handler, which AC would trip, and the way
// back into the next stream takes ID and NT from the handler's flags.
[[gnu::naked]] void signal_entry(int, siginfo_t*, void*) {
  asm("pushfq\n\tandq $~0x244000, (%rsp)\n\tpopfq\n\tjmp kite_streams_on_signal");
}

void map_at(uint64_t address, size_t bytes, int protection, int fd, size_t offset) {
  void* const place = reinterpret_cast<void*>(address);
  void* const got =
      mmap(place, bytes, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, static_cast<off_t>(offset));
  if (got != place) fail_setup("mmap of a stream's page");
}

[[noreturn]] void child_main(int memory_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  map_at(kCodeAddress, kCodeBytes, PROT_READ | PROT_EXEC, memory_fd, offsetof(Exchange, code));
  map_at(kDataAddress, kDataBytes, PROT_READ | PROT_WRITE, memory_fd, offsetof(Exchange, data));
  map_at(kStackAddress, kStackBytes, PROT_READ | PROT_WRITE, memory_fd, offsetof(Exchange, stack));
  constexpr size_t kStackSize = 256 << 10;
  stack_t alternate{};
  alternate.ss_sp = mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  alternate.ss_size = kStackSize;
  if (alternate.ss_sp == MAP_FAILED || sigaltstack(&alternate, nullptr) != 0) fail_setup("sigaltstack");
  struct sigaction action{};
  action.sa_sigaction = signal_entry;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  for (const int signal : {SIGUSR1, SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP}) sigaction(signal, &action, nullptr);
  syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase);
  // Data segments that 32-bit code can use; 64-bit code does not care.
  asm volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(uint32_t{kDataSelector}));
  raise(SIGUSR1);
  _exit(1);  // the handler does not come back here
}

}  // namespace

NativeRunner::NativeRunner() {
  memory_fd_ = memfd_create("kite-streams", MFD_CLOEXEC);
  if (memory_fd_ < 0 || ftruncate(memory_fd_, sizeof(Exchange)) != 0) fail_setup("memfd_create");
  void* const place = mmap(nullptr, sizeof(Exchange), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_, 0);
  if (place == MAP_FAILED) fail_setup("mmap");
  exchange_ = static_cast<Exchange*>(place);
  start();
}

NativeRunner::~NativeRunner() {
  stop();
  munmap(exchange_, sizeof(Exchange));
  close(memory_fd_);
}

void NativeRunner::start() {
  to_child_ = eventfd(0, EFD_CLOEXEC);
  from_child_ = eventfd(0, EFD_CLOEXEC);
  std::fflush(nullptr);
  child_ = fork();
  if (child_ < 0) fail_setup("fork");
  if (child_ != 0) return;
  child_exchange = exchange_;
  child_commands = to_child_;
  child_answers = from_child_;
  child_main(memory_fd_);
}

void NativeRunner::stop() {
  kill(child_, SIGKILL);
  waitpid(child_, nullptr, 0);
  close(to_child_);
  close(from_child_);
}

bool NativeRunner::run(const World& world, Outcome& outcome) {
  exchange_->registers = world.registers;
  exchange_->wide = world.wide;
  exchange_->code = world.code;
  exchange_->data = world.memory.data;
  exchange_->stack = world.memory.stack;
  uint64_t word = 1;
  bool answered = write(to_child_, &word, sizeof word) == sizeof word;
  pollfd wait{.fd = from_child_, .events = POLLIN, .revents = 0};
  constexpr int kTimeoutMs = 2'000;
  answered = answered && poll(&wait, 1, kTimeoutMs) == 1 && read(from_child_, &word, sizeof word) == sizeof word;
  if (!answered) {
    stop();
    start();
    return false;
  }
  outcome.registers = exchange_->registers;
  outcome.memory.data = exchange_->data;
  outcome.memory.stack = exchange_->stack;
  outcome.vector = exchange_->vector;
  outcome.error_code = exchange_->error_code;
  outcome.fault_address = exchange_->fault_address;
  return true;
}

}  // namespace kite::streams
