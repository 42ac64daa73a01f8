// The process's standard input and output.
#pragma once

#include "chardev/stream_chardev.h"

namespace kite {

class StdioChardev final : public StreamChardev {
 public:
  struct Config {
    int input = 0;
    int output = 1;
    bool signals = true;  // Ctrl-C ends the process instead of reaching the client
  };
  // Puts a terminal into raw mode. The end of the input is no end of the chardev: output goes on.
  static Result<std::unique_ptr<StdioChardev>> create(std::string id, Executor& executor, Fd log, Config config);
  ~StdioChardev() override;

  [[nodiscard]] std::string filename() const override { return "stdio"; }

 private:
  ssize_t receive(int fd, std::span<uint8_t> buffer) override;
  StdioChardev(std::string id, Executor& executor, Fd log, Fd input, Fd output);
  Fd input_, output_;
};

}  // namespace kite
