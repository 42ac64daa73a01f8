#include "accel/kvm/kvm_calls.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace kite {

namespace {

class HostKvmCalls final : public KvmCalls {
 public:
  int open_device(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
  }
  int close_fd(int fd) override { return ::close(fd) < 0 ? -errno : 0; }
  int ioctl(int fd, unsigned long request, uintptr_t argument) override {
    const int answer = ::ioctl(fd, request, argument);
    return answer < 0 ? -errno : answer;
  }
  void* map(int fd, size_t bytes, int64_t offset, int& error) override {
    void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
    if (address != MAP_FAILED) return address;
    error = errno;
    return nullptr;
  }
  void unmap(void* address, size_t bytes) override { ::munmap(address, bytes); }
  int64_t read_at(int fd, void* to, size_t bytes, int64_t offset) override {
    const ssize_t answer = ::pread(fd, to, bytes, offset);
    return answer < 0 ? -errno : answer;
  }
};

}  // namespace

KvmCalls& host_kvm_calls() {
  static HostKvmCalls calls;
  return calls;
}

}  // namespace kite
