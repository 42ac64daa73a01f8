// "qemu-io" of the human monitor: commands on the node of a drive, for tests and for looking at what is there. The I/O
// tool itself (img/) has an executor of its own and opens its images; here the image is in use.
#include <algorithm>
#include <cerrno>
#include <span>

#include "block/filters/filters.h"
#include "machine/drive_store.h"
#include "monitor/block_commands.h"

namespace kite::monitor {

namespace {

using block::IoSlice;
using block::NodePtr;
using Words = std::vector<std::string>;

// Words between blanks; quotes keep blanks together and are dropped.
Words split(std::string_view text) {
  Words words;
  bool open = false, quoted = false;
  for (const char letter : text) {
    if (letter == '"') {
      quoted = !quoted;
    } else if (letter != ' ' || quoted) {
      if (!open) words.emplace_back();
      open = true;
      words.back() += letter;
      continue;
    }
    open = open && quoted;
  }
  return words;
}

block::BlkdebugNode* find_blkdebug(block::BlockNode* node) {
  for (; node != nullptr; node = node->file())
    if (auto* const found = dynamic_cast<block::BlkdebugNode*>(node); found != nullptr) return found;
  return nullptr;
}

struct Range {
  uint64_t offset = 0, bytes = 0;
  std::optional<uint8_t> pattern;
};

// [-P PATTERN] OFFSET LENGTH
Result<Range> parse_range(const Words& words) {
  constexpr uint64_t kMost = 64 << 20;
  Range range;
  size_t at = 1;
  if (words.size() > 2 && words[1] == "-P") {
    KITE_ASSIGN(const uint64_t pattern, parse_unsigned(words[2]));
    range.pattern = static_cast<uint8_t>(pattern);
    at = 3;
  }
  if (words.size() != at + 2) return fail("usage: {} [-P PATTERN] OFFSET LENGTH", words[0]);
  KITE_ASSIGN(range.offset, parse_size(words[at]));
  KITE_ASSIGN(range.bytes, parse_size(words[at + 1]));
  if (range.bytes > kMost) return fail("length {} is more than 64 MiB", range.bytes);
  return range;
}

std::string error_line(int code) { return fmt::format("Error: {}\n", errno_text(code)); }

Task<std::string> transfer(NodePtr node, Words words) {
  const auto range = parse_range(words);
  if (!range) co_return fmt::format("Error: {}\n", range.error().message);
  constexpr uint8_t kUsualPattern = 0xcd;
  const bool writes = words[0] == "write";
  std::vector<uint8_t> data(static_cast<size_t>(range->bytes), writes ? range->pattern.value_or(kUsualPattern) : 0);
  const IoSlice slice{std::span(data)};
  const auto done = writes ? co_await node->write(range->offset, slice) : co_await node->read(range->offset, slice);
  if (!done) co_return error_line(done.error().code);
  const bool same = std::ranges::all_of(data, [&](uint8_t byte) { return !range->pattern || byte == *range->pattern; });
  if (!same) co_return fmt::format("Pattern verification failed at offset {}, {} bytes\n", range->offset, range->bytes);
  co_return fmt::format("{} {} bytes at offset {}\n", writes ? "wrote" : "read", range->bytes, range->offset);
}

Task<std::string> flush(NodePtr node) {
  const auto done = co_await node->flush();
  co_return done ? std::string() : error_line(done.error().code);
}

Task<std::string> run_command(block::BlockGraph& graph, block::Drive* drive, std::string name, Words words) {
  const NodePtr node = drive != nullptr ? drive->node() : graph.find(name);
  if (node == nullptr) co_return fmt::format("Error: Device '{}' not found, or without a medium\n", name);
  const std::string& command = words[0];
  if (command == "read" || command == "write") co_return co_await transfer(node, std::move(words));
  if (command == "flush") co_return co_await flush(node);
  if (command == "length") co_return fmt::format("{}\n", node->length());
  block::BlkdebugNode* const blkdebug = find_blkdebug(node.get());
  const bool breaks = command == "break" && words.size() == 3;
  const bool resumes = (command == "resume" || command == "remove_break") && words.size() == 2;
  if (!breaks && !resumes)
    co_return "commands: read, write [-P PATTERN] OFFSET LENGTH; flush; length; break EVENT TAG; resume TAG; "
        "remove_break TAG\n";
  if (blkdebug == nullptr) co_return fmt::format("Error: there is no blkdebug node in '{}'\n", name);
  if (breaks) {
    blkdebug->add_break(words[1], words[2]);
  } else if (!blkdebug->resume(words[1])) {
    co_return fmt::format("Error: there is no break '{}'\n", words[1]);
  }
  co_return std::string();
}

}  // namespace

std::string human_disk_io(MonitorContext& context, std::string_view rest) {
  Words words = split(rest);
  if (!words.empty() && words[0] == "-d") words.erase(words.begin());
  machine::DriveStore* const store = context.machine.drives();
  if (words.size() < 2 || store == nullptr) return "usage: qemu-io [-d] DEVICE \"COMMAND\"\n";
  std::string name = std::move(words[0]);
  // The command may have come as one quoted word.
  Words command;
  for (size_t at = 1; at < words.size(); ++at) std::ranges::move(split(words[at]), std::back_inserter(command));
  machine::DriveStore::Entry* const entry = store->find(name);
  return store->run(run_command(store->graph(), entry == nullptr ? nullptr : entry->drive.get(), std::move(name),
                                std::move(command)));
}

}  // namespace kite::monitor
