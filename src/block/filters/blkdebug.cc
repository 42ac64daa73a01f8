#include <algorithm>
#include <cerrno>
#include <fstream>
#include <utility>

#include "block/filters/filters.h"

namespace kite::block {

Task<Result<NodePtr>> BlkdebugNode::open(BlockGraph& graph, NodeConfig config, BlockOptions options) {
  const std::string file = options.take_string("config");
  options.take("x-image");
  KITE_CO_ASSIGN(NodePtr below, co_await graph.open_child(options.take_child("image"), config, "image"));
  std::shared_ptr<BlkdebugNode> node(new BlkdebugNode(graph.executor(), "blkdebug", std::move(config)));
  node->config_file_ = file;
  if (!file.empty()) KITE_CO_TRY(node->read_config(file));
  KITE_CO_TRY(node->add_rules(options));
  node->limits_ = below->limits();
  KITE_CO_ASSIGN(const uint64_t align, options.take_size("align", node->limits_.request_alignment));
  node->limits_.request_alignment = static_cast<uint32_t>(std::clamp<uint64_t>(align, 1, 1u << 30));
  KITE_CO_ASSIGN(node->limits_.max_transfer, options.take_size("max-transfer", node->limits_.max_transfer));
  for (const char* name : {"opt-write-zero", "max-write-zero", "opt-discard", "max-discard"})
    KITE_CO_TRY(options.take_size(name, 0));
  KITE_CO_TRY(options.all_taken("blkdebug"));
  KITE_CO_TRY(node->attach(std::move(below)));
  co_return NodePtr(std::move(node));
}

// inject-error.N.event=..., set-state.N.event=...
Result<> BlkdebugNode::add_rules(BlockOptions& options) {
  for (const bool injects : {true, false}) {
    for (unsigned i = 0;; ++i) {
      const std::string prefix = fmt::format("{}.{}.", injects ? "inject-error" : "set-state", i);
      const auto event = options.take(prefix + "event");
      if (!event) break;
      Rule rule{.event = *event};
      KITE_ASSIGN(const uint64_t state, options.take_unsigned(prefix + "state", 0, 0, 1u << 16));
      rule.state = static_cast<unsigned>(state);
      if (injects) {
        KITE_ASSIGN(const uint64_t code, options.take_unsigned(prefix + "errno", EIO, 1, 4095));
        rule.code = static_cast<int>(code);
        KITE_ASSIGN(rule.sector, options.take_unsigned(prefix + "sector", ~uint64_t{0}, 0, ~uint64_t{0}));
        KITE_ASSIGN(rule.once, options.take_bool(prefix + "once", false));
        KITE_TRY(options.take_bool(prefix + "immediately", false));
        static constexpr std::string_view kTypes[] = {"all",     "read",  "write",       "write-zeroes",
                                                      "discard", "flush", "block-status"};
        KITE_ASSIGN(const size_t type, options.take_choice(prefix + "iotype", kTypes, 0));
        if (type != 0) rule.types = 1u << (type - 1);
      } else {
        KITE_ASSIGN(const uint64_t next, options.take_unsigned(prefix + "new_state", 1, 1, 1u << 16));
        rule.new_state = static_cast<unsigned>(next);
      }
      rules_.push_back(std::move(rule));
    }
  }
  return {};
}

// The older form: a file with sections [inject-error] and [set-state], each with name = "value" lines.
Result<> BlkdebugNode::read_config(const std::string& filename) {
  std::ifstream file(filename);
  if (!file) return fail("Could not read blkdebug config file '{}'", filename);
  BlockOptions options;
  std::string section;
  std::map<std::string, unsigned> counts;
  for (std::string line; std::getline(file, line);) {
    const size_t start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#') continue;
    if (line[start] == '[') {
      const std::string name = line.substr(start + 1, line.find(']') - start - 1);
      section = fmt::format("{}.{}", name, counts[name]++);
      continue;
    }
    const size_t equals = line.find('=');
    if (equals == std::string::npos || section.empty())
      return fail("{}: '{}' is neither a section nor an option", filename, line);
    const auto strip = [](std::string text) {
      constexpr const char* kBlank = " \t\"";
      const size_t first = text.find_first_not_of(kBlank);
      return first == std::string::npos ? std::string() : text.substr(first, text.find_last_not_of(kBlank) - first + 1);
    };
    options.set(section + "." + strip(line.substr(0, equals)), strip(line.substr(equals + 1)));
  }
  KITE_TRY(add_rules(options));
  return options.all_taken("blkdebug");
}

std::string BlkdebugNode::filename() const { return "blkdebug:" + config_file_ + ":" + file_->filename(); }

BlockLimits BlkdebugNode::limits() const { return limits_; }

IoResult<> BlkdebugNode::debug_event(std::string_view event) {
  // All rules of an event look at the state in which it came.
  const unsigned state = state_;
  for (Break& stop : breaks_) {
    if (stop.event != event || std::exchange(stop.met, true)) continue;
    if (stop.on_met) stop.on_met();
  }
  for (Rule& rule : rules_) {
    if (rule.event != event || (rule.state != 0 && rule.state != state)) continue;
    if (rule.new_state != 0) {
      state_ = rule.new_state;
    } else {
      rule.armed = true;
    }
  }
  return {};
}

void BlkdebugNode::add_break(std::string event, std::string tag, std::function<void()> met) {
  breaks_.push_back({.event = std::move(event), .tag = std::move(tag), .on_met = std::move(met)});
}

bool BlkdebugNode::is_met(std::string_view tag) const {
  return std::ranges::any_of(breaks_, [tag](const Break& stop) { return stop.tag == tag && stop.met; });
}

bool BlkdebugNode::resume(std::string_view tag) {
  if (std::erase_if(breaks_, [tag](const Break& stop) { return stop.tag == tag; }) == 0) return false;
  resumed_.wake_all();
  return true;
}

Task<void> BlkdebugNode::pass_breaks() {
  while (std::ranges::any_of(breaks_, &Break::met)) co_await resumed_.wait();
}

IoResult<> BlkdebugNode::inject(IoType type, uint64_t offset, uint64_t bytes) {
  for (Rule& rule : rules_) {
    if (rule.new_state != 0 || rule.spent || (rule.types & type) == 0) continue;
    if (rule.event != "none" && !rule.armed) continue;
    const uint64_t at = rule.sector * 512;
    if (rule.sector != ~uint64_t{0} && (at < offset || at >= offset + bytes)) continue;
    rule.spent = rule.once;
    return io_fail(rule.code);
  }
  return {};
}

Task<IoResult<>> BlkdebugNode::do_read(uint64_t offset, IoSlice to, IoHow how) {
  co_await pass_breaks();
  KITE_CO_TRY(inject(kIoRead, offset, to.bytes()));
  co_return co_await file_->read(offset, to, how);
}
Task<IoResult<>> BlkdebugNode::do_write(uint64_t offset, IoSlice from, IoHow how) {
  co_await pass_breaks();
  KITE_CO_TRY(inject(kIoWrite, offset, from.bytes()));
  co_return co_await file_->write(offset, from, how);
}
Task<IoResult<>> BlkdebugNode::do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) {
  co_await pass_breaks();
  KITE_CO_TRY(inject(kIoZeroes, offset, bytes));
  co_return co_await file_->write_zeroes(offset, bytes, how);
}
Task<IoResult<>> BlkdebugNode::do_discard(uint64_t offset, uint64_t bytes, IoHow how) {
  co_await pass_breaks();
  KITE_CO_TRY(inject(kIoDiscard, offset, bytes));
  co_return co_await file_->discard(offset, bytes, how);
}
Task<IoResult<BlockStatus>> BlkdebugNode::do_block_status(uint64_t offset, uint64_t bytes, bool precise) {
  KITE_CO_TRY(inject(kIoStatus, offset, bytes));
  co_return co_await file_->block_status(offset, bytes, precise);
}
Task<IoResult<>> BlkdebugNode::do_flush(IoHow how) {
  co_await pass_breaks();
  KITE_CO_TRY(inject(kIoFlush, 0, 0));
  co_return co_await file_->flush(how);
}

}  // namespace kite::block
