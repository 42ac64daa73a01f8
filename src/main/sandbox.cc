#include "main/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <vector>

namespace kite::main {

namespace {

constexpr uint32_t kObsolete[] = {
    SYS_reboot,        SYS_swapon,          SYS_swapoff,        SYS_syslog,     SYS_mount,         SYS_umount2,
    SYS_kexec_load,    SYS_afs_syscall,     SYS_uselib,         SYS_ustat,      SYS_sysfs,         SYS__sysctl,
    SYS_create_module, SYS_get_kernel_syms, SYS_query_module,   SYS_nfsservctl, SYS_getpmsg,       SYS_putpmsg,
    SYS_tuxcall,       SYS_security,        SYS_lookup_dcookie, SYS_vserver,    SYS_epoll_ctl_old, SYS_epoll_wait_old,
    SYS_init_module,   SYS_finit_module,    SYS_delete_module,
};
constexpr uint32_t kPrivileges[] = {SYS_setuid,    SYS_setgid,   SYS_setreuid, SYS_setregid, SYS_setresuid,
                                    SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups};
constexpr uint32_t kSpawn[] = {SYS_fork, SYS_vfork, SYS_execve, SYS_execveat};
constexpr uint32_t kResources[] = {SYS_setpriority,   SYS_ioprio_set,         SYS_sched_setparam,
                                   SYS_sched_setattr, SYS_sched_setscheduler, SYS_sched_setaffinity};

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t answer(uint32_t error) { return SECCOMP_RET_ERRNO | error; }

class Filter {
 public:
  Filter() {
    load(offsetof(seccomp_data, arch));
    // Another architecture's numbers mean other calls.
    unless_equal(AUDIT_ARCH_X86_64, SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
    constexpr uint32_t kX32 = 0x40000000;
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32, 0, 1));
    end(answer(ENOSYS));
  }
  void deny(std::span<const uint32_t> calls) {
    for (const uint32_t call : calls) when_equal(call, answer(EPERM));
  }
  // Threads may be made. clone3() keeps its flags where a filter cannot see them; who finds that it is not there takes
  // clone().
  void deny_processes() {
    deny(kSpawn);
    when_equal(SYS_clone3, answer(ENOSYS));
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
    load(offsetof(seccomp_data, args));  // the low half, as x86 has it
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
    end(answer(EPERM));
    end(kAllow);
  }
  Result<> install() {
    end(kAllow);
    const sock_fprog program{.len = static_cast<unsigned short>(code_.size()), .filter = code_.data()};
    if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      return fail("-sandbox: the host's kernel takes no filter of system calls: {}", errno_text(errno));
    return {};
  }

 private:
  void load(size_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset))); }
  void end(uint32_t verdict) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, verdict)); }
  void when_equal(uint32_t value, uint32_t verdict) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
    end(verdict);
  }
  void unless_equal(uint32_t value, uint32_t verdict) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0));
    end(verdict);
  }

  std::vector<sock_filter> code_;
};

}  // namespace

Result<> enter_sandbox(const SandboxPolicy& policy) {
  // [seccomp(2)] Without it only root may have a filter.
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail("-sandbox: {}", errno_text(errno));
  Filter filter;
  if (policy.obsolete) filter.deny(kObsolete);
  if (policy.elevate_privileges) filter.deny(kPrivileges);
  if (policy.resource_control) filter.deny(kResources);
  if (policy.spawn) filter.deny_processes();
  return filter.install();
}

}  // namespace kite::main
