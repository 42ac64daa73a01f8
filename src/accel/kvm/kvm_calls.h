// KvmCalls: the system calls that drive /dev/kvm, and nothing more, so that a test double can stand in for the kernel.
// Everything in accel/kvm goes through it. Each call answers what the kernel answers, with -errno for a failure; none
// retries, none logs. All may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace kite {

class KvmCalls {
 public:
  virtual ~KvmCalls() = default;

  // A descriptor of the KVM device `path` ("/dev/kvm"), or -errno.
  virtual int open_device(const std::string& path) = 0;
  virtual int close_fd(int fd) = 0;
  // `argument` is a pointer or a number, as the request wants it. Requests that make something (a VM, a vCPU, a
  // statistics file) answer a new descriptor.
  virtual int ioctl(int fd, unsigned long request, uintptr_t argument) = 0;
  // Shared, readable and writable, `offset` bytes into the file of a vCPU. Null: `error` gets the errno.
  virtual void* map(int fd, size_t bytes, int64_t offset, int& error) = 0;
  virtual void unmap(void* address, size_t bytes) = 0;
  // Bytes read from a statistics file at `offset`, or -errno.
  virtual int64_t read_at(int fd, void* to, size_t bytes, int64_t offset) = 0;

  template <class T>
  int ioctl(int fd, unsigned long request, T* argument) {
    return ioctl(fd, request, reinterpret_cast<uintptr_t>(argument));
  }
};

// The kernel's. One for the process; it keeps no state.
KvmCalls& host_kvm_calls();

// An owned descriptor that was opened, and is closed, through a KvmCalls, which outlives it.
class KvmFd {
 public:
  KvmFd() = default;
  KvmFd(KvmCalls& calls, int fd) : calls_(&calls), fd_(fd) {}
  KvmFd(KvmFd&& other) noexcept : calls_(other.calls_), fd_(std::exchange(other.fd_, -1)) {}
  KvmFd& operator=(KvmFd&& other) noexcept {
    if (this != &other) {
      close();
      calls_ = other.calls_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~KvmFd() { close(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] KvmCalls& calls() const { return *calls_; }
  // -errno for a failure.
  int ioctl(unsigned long request, uintptr_t argument = 0) const { return calls_->ioctl(fd_, request, argument); }
  template <class T>
  int ioctl(unsigned long request, T* argument) const {
    return calls_->ioctl(fd_, request, reinterpret_cast<uintptr_t>(argument));
  }

 private:
  void close() {
    if (fd_ >= 0) calls_->close_fd(fd_);
    fd_ = -1;
  }

  KvmCalls* calls_ = nullptr;
  int fd_ = -1;
};

// A mapping of a KvmFd.
class KvmMapping {
 public:
  KvmMapping() = default;
  KvmMapping(KvmCalls& calls, void* address, size_t bytes) : calls_(&calls), address_(address), bytes_(bytes) {}
  KvmMapping(KvmMapping&& other) noexcept
      : calls_(other.calls_), address_(std::exchange(other.address_, nullptr)), bytes_(other.bytes_) {}
  KvmMapping& operator=(KvmMapping&& other) noexcept {
    if (this != &other) {
      release();
      calls_ = other.calls_;
      address_ = std::exchange(other.address_, nullptr);
      bytes_ = other.bytes_;
    }
    return *this;
  }
  ~KvmMapping() { release(); }

  [[nodiscard]] bool valid() const { return address_ != nullptr; }
  [[nodiscard]] uint8_t* bytes() const { return static_cast<uint8_t*>(address_); }
  [[nodiscard]] size_t size() const { return bytes_; }

 private:
  void release() {
    if (address_ != nullptr) calls_->unmap(address_, bytes_);
    address_ = nullptr;
  }

  KvmCalls* calls_ = nullptr;
  void* address_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kite
