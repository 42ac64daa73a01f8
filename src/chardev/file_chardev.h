// Back ends of files: output to a file, input from another if asked for; and the null back end.
#pragma once

#include "chardev/stream_chardev.h"

namespace kite {

class FileChardev final : public StreamChardev {
 public:
  struct Config {
    std::string path;
    bool append = false;       // else the file begins empty
    std::string input_path{};  // "" for no input
  };
  static Result<std::unique_ptr<FileChardev>> create(std::string id, Executor& executor, Fd log, Config config);
  ~FileChardev() override;

  [[nodiscard]] std::string filename() const override { return "file:" + path_; }

 private:
  FileChardev(std::string id, Executor& executor, Fd log, std::string path, Fd input, Fd output);
  std::string path_;
  Fd input_, output_;
};

// Takes all output, never has input.
class NullChardev final : public StreamChardev {
 public:
  NullChardev(std::string id, Executor& executor, Fd log);
  [[nodiscard]] std::string filename() const override { return "null"; }
};

}  // namespace kite
