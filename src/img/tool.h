// What the commands of the image tool and of the I/O tool share: opening images, printing, parsing. The command line
// and the output are those that qemu-img and qemu-io have, so that scripts work with either.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/executor.h"
#include "block/chain.h"
#include "block/graph.h"
#include "block/image.h"

namespace kite::img {

// The executor and the nodes of one run of a tool. Everything runs on the calling thread.
class Session {
 public:
  explicit Session(std::string program);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] const std::string& program() const { return program_; }
  [[nodiscard]] Executor& executor() { return *executor_; }
  [[nodiscard]] block::BlockGraph& graph() { return *graph_; }

  // "PROGRAM: text" on stderr; answers 1, the usual exit status.
  int complain(std::string_view text) const;
  template <class T>
  T await(Task<T> task) {
    return block::run_until_done(*executor_, std::move(task));
  }
  // Keeps an opened node until finish(), which closes it: what goes without being closed may leave leaks.
  void keep(block::NodePtr node) { kept_.push_back(std::move(node)); }
  // Closes whatever is open; complains when that fails.
  int finish();

 private:
  std::string program_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<block::BlockGraph> graph_;
  std::vector<block::NodePtr> kept_;
};

struct OpenRequest {
  std::string filename{};
  std::string format{};
  bool image_opts = false;        // the filename is an option string
  block::BlockOptions options{};  // over those of the filename
  bool writable = false;
  bool resize = false;     // needs to change the size
  bool exclusive = false;  // nobody else may write it
  bool force_share = false;
  bool no_backing = false;
  bool for_check = false;
  bool snapshot = false;      // writes go to an overlay in memory, which ends with the tool
  bool copy_on_read = false;  // what is read from a backing file is kept in the image
  std::string cache = "writeback";
  std::string aio{};
  bool alone = true;  // nothing else has to go on while the host copies to and from its page cache
  std::string detect_zeroes{};
  block::NodePtr backing{};  // instead of the one the image names
};

// An open image, claimed for what the tool does with it.
struct Image {
  block::NodeUse use;
  bool writethrough = false;  // the cache mode asks for a flush after every write

  [[nodiscard]] block::BlockNode& node() const { return *use; }
  [[nodiscard]] block::FormatNode* format() const { return dynamic_cast<block::FormatNode*>(use.node().get()); }
  [[nodiscard]] uint64_t length() const { return use->length(); }
};
Result<Image> open_image(Session& session, const OpenRequest& request);

// "1.5 MiB", "512 B", three significant digits.
std::string size_text(uint64_t bytes);
// "64k" with the units of the tools; nullopt for anything else, or what is too large.
std::optional<uint64_t> tool_size(std::string_view text);
// Complains as the tools do about a size that is none.
std::optional<uint64_t> tool_size(const Session& session, std::string_view what, std::string_view text);

// The permitted --output= values.
enum class Output : uint8_t { kHuman, kJson };
std::optional<Output> parse_output(const Session& session, std::string_view text);

// One "-p" line: "    (12.34/100%)\r".
class Progress {
 public:
  explicit Progress(bool enabled) : enabled_(enabled) {}
  ~Progress();
  void show(double percent);

 private:
  bool enabled_;
  double last_ = -1;
};

// JSON as the tools print it: 4 spaces, members in the order of the peers' hash tables.
class Json {
 public:
  using Members = std::vector<std::pair<std::string, Json>>;
  Json(bool value) : text_(value ? "true" : "false") {}
  Json(uint64_t value) : text_(std::to_string(value)) {}
  Json(std::string_view value);
  Json(const std::string& value) : Json(std::string_view(value)) {}
  Json(const char* value) : Json(std::string_view(value)) {}
  static Json object(Members members);
  static Json array(std::vector<Json> items);
  [[nodiscard]] std::string text(int indent = 0) const;
  // On one line, members as given.
  [[nodiscard]] std::string line() const;

 private:
  enum class Kind : uint8_t { kScalar, kObject, kArray };
  Json() = default;
  Kind kind_ = Kind::kScalar;
  std::string text_;
  Members members_;
  std::vector<Json> items_;
};
std::string json_string(std::string_view text);

// argv-like arguments for getopt.
class Argv {
 public:
  Argv(std::string program, const std::vector<std::string>& arguments);
  [[nodiscard]] int count() const { return static_cast<int>(pointers_.size()) - 1; }
  [[nodiscard]] char** data() { return pointers_.data(); }

 private:
  std::vector<std::string> storage_;
  std::vector<char*> pointers_;
};

// `kite img ...`; `program` is the name in messages. Answers the exit status.
int run_img(const std::string& program, const std::vector<std::string>& arguments);
// `kite io ...`
int run_io(const std::string& program, const std::vector<std::string>& arguments);

}  // namespace kite::img
