#include "chardev/terminal.h"

#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>

namespace kite {
namespace {

// Everything here is touched by signal handlers: plain data that is written before the handlers are installed or before
// `raw` is set, and lock-free atomics.
struct Terminal {
  int fd = -1;
  termios cooked{};
  termios raw{};
  std::atomic<bool> is_raw{false};
  std::atomic<bool> raw_after_stop{false};
};
Terminal terminal;
static_assert(std::atomic<bool>::is_always_lock_free);

// The modes of a terminal are the foreground job's to set; a background process that tries is stopped by SIGTTOU.
bool may_set_modes() {
  const int saved_errno = errno;
  const pid_t foreground = ::tcgetpgrp(terminal.fd);
  errno = saved_errno;
  return foreground < 0 || foreground == ::getpgrp();  // below 0: not our controlling terminal, so no job control
}

void set_modes(const termios& modes) {
  const int saved_errno = errno;
  while (::tcsetattr(terminal.fd, TCSANOW, &modes) != 0 && errno == EINTR) {
  }
  errno = saved_errno;
}

bool caused_by_own_instruction(int signal, const siginfo_t* info) {
  return info->si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE);
}

// SA_RESETHAND has put the default action back: the faulting instruction runs into it by itself, other signals are sent
// again.
void end_process(int signal, siginfo_t* info, void*) {
  restore_terminal();
  if (!caused_by_own_instruction(signal, info)) ::raise(signal);
}

void install(int signal, void (*handler)(int, siginfo_t*, void*), unsigned flags) {
  struct sigaction current{};
  if (::sigaction(signal, nullptr, &current) != 0) return;
  if ((current.sa_flags & SA_SIGINFO) != 0 || current.sa_handler != SIG_DFL) return;
  struct sigaction action{};
  action.sa_sigaction = handler;
  action.sa_flags = static_cast<int>(SA_SIGINFO | flags);
  ::sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

// Also comes after a stop that no handler saw (SIGSTOP): whoever had the terminal meanwhile may have changed it. In the
// background the terminal is left alone; `fg` sends the signal again.
void go_on(int, siginfo_t*, void*) {
  const bool wanted = terminal.raw_after_stop.load() || terminal.is_raw.load();
  if (!wanted || !may_set_modes()) return;
  terminal.raw_after_stop.store(false);
  set_modes(terminal.raw);
  terminal.is_raw.store(true);
}

// Ctrl-Z: the shell gets its terminal back, then the default action stops the process.
void stop_process(int signal, siginfo_t*, void*) {
  const int saved_errno = errno;
  terminal.raw_after_stop.store(terminal.is_raw.load());
  restore_terminal();
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigemptyset(&standard.sa_mask);
  struct sigaction ours{};
  ::sigaction(signal, &standard, &ours);
  sigset_t own;
  ::sigemptyset(&own);
  ::sigaddset(&own, signal);
  ::raise(signal);
  ::pthread_sigmask(SIG_UNBLOCK, &own, nullptr);  // it stops here at the latest, and goes on here
  ::sigaction(signal, &ours, nullptr);
  go_on(SIGCONT, nullptr, nullptr);  // a process group that nobody watches is not stopped at all
  errno = saved_errno;
}

void install_handlers() {
  constexpr std::array kEndings{SIGSEGV, SIGBUS, SIGILL,  SIGFPE, SIGABRT, SIGTRAP, SIGSYS,
                                SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGXCPU, SIGXFSZ};
  for (const int signal : kEndings) install(signal, end_process, SA_RESETHAND | SA_NODEFER | SA_ONSTACK);
  install(SIGTSTP, stop_process, SA_RESTART);
  install(SIGCONT, go_on, SA_RESTART);
  static const int registered = std::atexit(restore_terminal);
  (void)registered;
}

termios raw_modes(const termios& cooked, bool signals) {
  termios raw = cooked;
  raw.c_iflag &= ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  raw.c_oflag |= OPOST;  // our own messages still want their newlines translated
  raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN);
  if (!signals) raw.c_lflag &= ~static_cast<tcflag_t>(ISIG);
  raw.c_cflag &= ~static_cast<tcflag_t>(CSIZE | PARENB);
  raw.c_cflag |= CS8;
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  return raw;
}

}  // namespace

Result<> make_terminal_raw(int fd, bool signals) {
  if (::isatty(fd) == 0) return {};
  restore_terminal();
  termios modes{};
  if (::tcgetattr(fd, &modes) != 0) return fail("cannot read the terminal's modes: {}", errno_text(errno));
  terminal.fd = fd;
  terminal.cooked = modes;
  terminal.raw = raw_modes(modes, signals);
  install_handlers();
  terminal.is_raw.store(true);
  set_modes(terminal.raw);
  return {};
}

void restore_terminal() {
  if (terminal.is_raw.exchange(false) && may_set_modes()) set_modes(terminal.cooked);
}

}  // namespace kite
