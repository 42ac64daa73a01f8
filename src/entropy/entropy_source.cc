#include "entropy/entropy_source.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>

#include "support/log.h"

namespace kite::entropy {

size_t KernelSource::take(std::span<uint8_t> to) {
  const ssize_t got = ::getrandom(to.data(), to.size(), 0);
  return got > 0 ? static_cast<size_t>(got) : 0;
}

Result<std::unique_ptr<FileSource>> FileSource::open(std::string path, Executor& executor) {
  Fd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return fail("cannot open '{}': {}", path, errno_text(errno));
  return std::unique_ptr<FileSource>(new FileSource(std::move(path), std::move(file), executor));
}

FileSource::FileSource(std::string path, Fd file, Executor& executor)
    : path_(std::move(path)), file_(std::move(file)), executor_(executor) {}

FileSource::~FileSource() {
  if (watching_) executor_.unwatch(file_.get());
}

size_t FileSource::take(std::span<uint8_t> to) {
  if (ended_ || watching_) return 0;
  const ssize_t got = ::read(file_.get(), to.data(), to.size());
  if (got > 0) return static_cast<size_t>(got);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    watch();
    return 0;
  }
  ended_ = true;
  log::warn("'{}' has no more random numbers for the guest{}", path_, got < 0 ? ": " + errno_text(errno) : "");
  return 0;
}

void FileSource::watch() {
  watching_ = true;
  executor_.watch(file_.get(), EPOLLIN, [this](uint32_t) {
    executor_.unwatch(file_.get());
    watching_ = false;
    tell_ready();
  });
}

}  // namespace kite::entropy
