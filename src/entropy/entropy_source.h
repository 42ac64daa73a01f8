// EntropySource: where random numbers for a guest come from: the host kernel's generator, or a file. One user each.
//
// Threads: everything happens on one Executor (the main loop), or before it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "async/executor.h"
#include "support/fd.h"
#include "support/result.h"

namespace kite::entropy {

class EntropySource {
 public:
  EntropySource() = default;
  virtual ~EntropySource() = default;
  EntropySource(const EntropySource&) = delete;
  EntropySource& operator=(const EntropySource&) = delete;

  // Random bytes into the beginning of `to`; answers how many. 0: there are none now, and `ready` is called once there
  // may be.
  [[nodiscard]] virtual size_t take(std::span<uint8_t> to) = 0;
  void set_ready(std::function<void()> ready) { ready_ = std::move(ready); }

 protected:
  void tell_ready() const {
    if (ready_) ready_();
  }

 private:
  std::function<void()> ready_;
};

// getrandom(2).
class KernelSource final : public EntropySource {
 public:
  [[nodiscard]] size_t take(std::span<uint8_t> to) override;
};

// A file, mostly a character device. One that ends has no more.
class FileSource final : public EntropySource {
 public:
  static Result<std::unique_ptr<FileSource>> open(std::string path, Executor& executor);
  ~FileSource() override;
  [[nodiscard]] size_t take(std::span<uint8_t> to) override;

 private:
  FileSource(std::string path, Fd file, Executor& executor);
  void watch();

  const std::string path_;
  Fd file_;
  Executor& executor_;
  bool watching_ = false;
  bool ended_ = false;
};

}  // namespace kite::entropy
