#include "chardev/file_chardev.h"

#include <fcntl.h>

#include <cerrno>

#include "support/fd_sets.h"

namespace kite {

FileChardev::FileChardev(std::string id, Executor& executor, Fd log, std::string path, Fd input, Fd output)
    : StreamChardev(std::move(id), executor, std::move(log)),
      path_(std::move(path)),
      input_(std::move(input)),
      output_(std::move(output)) {}

Result<std::unique_ptr<FileChardev>> FileChardev::create(std::string id, Executor& executor, Fd log, Config config) {
  constexpr int kFlags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const int beginning = config.append ? O_APPEND : O_TRUNC;
  Fd output(open_or_take(config.path, O_WRONLY | O_CREAT | beginning | kFlags, 0666));
  if (!output.valid()) {
    if (errno == ENXIO) return fail("cannot write to '{}': nobody has this FIFO open for reading", config.path);
    return fail("cannot open '{}' for writing: {}", config.path, errno_text(errno));
  }
  Fd input;
  if (!config.input_path.empty()) {
    input.reset(open_or_take(config.input_path, O_RDONLY | kFlags));
    if (!input.valid()) return fail("cannot open '{}' for reading: {}", config.input_path, errno_text(errno));
  }
  std::unique_ptr<FileChardev> file(new FileChardev(std::move(id), executor, std::move(log), std::move(config.path),
                                                    std::move(input), std::move(output)));
  file->connect(file->input_.get(), file->output_.get(), Output::kNonblocking);
  return file;
}

FileChardev::~FileChardev() { shut_down(); }

NullChardev::NullChardev(std::string id, Executor& executor, Fd log)
    : StreamChardev(std::move(id), executor, std::move(log)) {
  connect(-1, -1, Output::kNonblocking);
}

}  // namespace kite
