#include "main/process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

namespace kite::main {

Result<Daemon> Daemon::start(bool wanted) {
  Daemon daemon;
  if (!wanted) return daemon;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail("-daemonize: cannot make a pipe: {}", errno_text(errno));
  Fd parent_end(ends[0]);
  Fd child_end(ends[1]);
  const pid_t child = fork();
  if (child < 0) return fail("-daemonize: cannot fork: {}", errno_text(errno));
  if (child > 0) {
    child_end.reset();
    char byte = 0;
    ssize_t count;
    do count = read(parent_end.get(), &byte, 1);
    while (count < 0 && errno == EINTR);
    if (count == 1) _exit(0);
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1);
  }
  setsid();
  umask(027);
  // The working directory stays: relative paths are read again at every reset of the machine.
  daemon.notify_ = std::move(child_end);
  return daemon;
}

Result<> Daemon::ready() {
  if (!notify_.valid()) return {};
  Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return fail("-daemonize: cannot open /dev/null: {}", errno_text(errno));
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null.get(), standard);
  if (write(notify_.get(), "", 1) != 1) return fail("-daemonize: the parent process is gone");
  notify_.reset();
  return {};
}

Result<PidFile> PidFile::create(const std::string& path) {
  PidFile file;
  file.fd_.reset(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file.fd_.valid()) return fail("-pidfile {}: cannot open it: {}", path, errno_text(errno));
  if (flock(file.fd_.get(), LOCK_EX | LOCK_NB) != 0)
    return fail("-pidfile {}: another process holds it; is that machine still running?", path);
  const std::string text = fmt::format("{}\n", getpid());
  if (ftruncate(file.fd_.get(), 0) != 0 ||
      pwrite(file.fd_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail("-pidfile {}: cannot write it: {}", path, errno_text(errno));
  file.path_ = path;
  return file;
}

PidFile::~PidFile() {
  if (fd_.valid() && !path_.empty()) unlink(path_.c_str());
}

Result<Fd> watch_signals(Executor& executor, std::function<void(int signal)> handler) {
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return fail("cannot block signals");
  Fd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return fail("cannot make a signalfd: {}", errno_text(errno));
  executor.watch(fd.get(), EPOLLIN, [raw = fd.get(), handler = std::move(handler)](uint32_t) {
    signalfd_siginfo info{};
    while (read(raw, &info, sizeof info) == sizeof info) handler(static_cast<int>(info.ssi_signo));
  });
  return fd;
}

void set_process_name(const std::string& name) {
  if (!name.empty()) pthread_setname_np(pthread_self(), ("kite " + name).substr(0, 15).c_str());
}

}  // namespace kite::main
