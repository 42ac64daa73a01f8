// The I/O tool: commands that read, write and look at one open image, in the language of qemu-io.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "block/file_node.h"
#include "block/filters/filters.h"
#include "img/tool.h"

namespace kite::img {

class IoShell {
 public:
  explicit IoShell(Session& session) : session_(session) {}

  OpenRequest defaults;  // what the command line says about opening
  // Opens the image; answers false after a complaint.
  bool open(const OpenRequest& request);
  Result<> try_open(const OpenRequest& request);
  // One line of commands. Answers false when the tool is to end.
  bool run_line(const std::string& line);
  void close();
  [[nodiscard]] int status() const { return status_; }

 private:
  using Words = std::vector<std::string>;
  struct Command {
    std::string_view name;
    std::string_view alias;
    int (IoShell::*run)(Words&);
    int least, most;  // arguments; most < 0: no limit
    bool needs_image;
    bool needs_write;
    std::string_view arguments;
    std::string_view help;
  };
  static std::span<const Command> commands();

  // What the options of a data command say.
  struct Access {
    bool quiet = false, machine = false, verbose = false, zero = false, unmap = false, fua = false;
    bool compressed = false, no_fallback = false, vm_state = false;
    int pattern = -1;
    std::optional<uint64_t> pattern_offset, pattern_length;
    std::string source_file;
    std::vector<uint64_t> numbers;  // offset, lengths
  };
  struct Report {
    std::string verb;
    uint64_t offset = 0, asked = 0, total = 0, operations = 1;
    int64_t ns = 0;
  };

  int read(Words& words);
  int readv(Words& words);
  int write(Words& words);
  int writev(Words& words);
  int aio_read(Words& words);
  int aio_write(Words& words);
  int aio_flush(Words& words);
  int flush(Words& words);
  int discard(Words& words);
  int truncate(Words& words);
  int length(Words& words);
  int info(Words& words);
  int alloc(Words& words);
  int map(Words& words);
  int open_command(Words& words);
  int reopen(Words& words);
  int close_command(Words& words);
  int break_command(Words& words);
  int wait_break(Words& words);
  int resume(Words& words);
  int quit(Words& words);
  int abort_command(Words& words);
  int sigraise(Words& words);
  int sleep(Words& words);
  int help(Words& words);

  block::BlkdebugNode* debug_node();
  bool parse_access(Words& words, const char* letters, Access& access, size_t least, size_t most);
  bool check_range(const Access& access, uint64_t offset, uint64_t bytes, const char* what);
  block::IoHow how_of(const Access& access) const;
  int verify(const Access& access, const std::vector<uint8_t>& data, uint64_t offset);
  void dump(const std::vector<uint8_t>& data, uint64_t offset) const;
  void print_report(const Access& access, const Report& report) const;
  int failed(const char* what, int code) const;
  Task<block::IoResult<>> perform_write(uint64_t offset, const std::vector<uint8_t>& data, uint64_t bytes,
                                        Access access);
  Task<block::IoResult<>> perform_read(uint64_t offset, block::IoSlice to, const Access& access);
  Task<void> background(std::string verb, uint64_t offset, std::vector<uint8_t> data, Access access, uint64_t bytes);
  int run_transfer(Words& words, bool writes, bool vectors, bool asynchronous);

  Session& session_;
  std::optional<Image> image_;
  std::string filename_;
  OpenRequest opened_;
  TaskScope background_;
  int status_ = 0;
  bool quit_ = false;
};

}  // namespace kite::img
