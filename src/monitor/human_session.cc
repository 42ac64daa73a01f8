#include "monitor/human_session.h"

namespace kite::monitor {

namespace {
constexpr std::string_view kPrompt = "(kite) ";
constexpr uint8_t kBackspace = 8, kDelete = 127, kEscape = 27;
constexpr uint8_t control(char letter) { return static_cast<uint8_t>(letter & 0x1f); }
}  // namespace

HumanSession::HumanSession(MonitorContext context, Chardev& chardev)
    : context_(context), chardev_(chardev), output_(chardev) {
  chardev_.set_client(this);
}

HumanSession::~HumanSession() { chardev_.set_client(nullptr); }

void HumanSession::event(ChardevEvent event) {
  if (event == ChardevEvent::kClosed) greeted_ = false;
  const bool shown = event == ChardevEvent::kOpened || event == ChardevEvent::kMuxIn;
  if (!shown) return;
  if (event == ChardevEvent::kOpened) {
    if (greeted_) return;
    line_.clear();
  }
  if (!greeted_) print("Kite " KITE_VERSION " monitor - type 'help' for the commands\n");
  greeted_ = true;
  print(std::string(kPrompt) + line_);
}

void HumanSession::received(std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes) {
    if (escape_ != 0)
      escape_key(byte);
    else
      key(byte);
  }
}

void HumanSession::escape_key(uint8_t byte) {
  if (escape_ == 1) {
    escape_ = byte == '[' ? 2 : 0;
    return;
  }
  escape_ = 0;
  if (byte == 'A' && history_at_ > 0) replace_line(history_[--history_at_]);
  if (byte == 'B' && history_at_ < history_.size()) {
    ++history_at_;
    replace_line(history_at_ < history_.size() ? history_[history_at_] : std::string{});
  }
}

void HumanSession::replace_line(std::string text) {
  line_ = std::move(text);
  print("\r\x1b[K" + std::string(kPrompt) + line_);
}

void HumanSession::key(uint8_t byte) {
  if (byte == '\r' || byte == '\n') {
    print("\n");
    run_line();
  } else if (byte == kBackspace || byte == kDelete) {
    if (line_.empty()) return;
    line_.pop_back();
    print("\b \b");
  } else if (byte == control('U')) {
    replace_line({});
  } else if (byte == control('W')) {
    const size_t last = line_.find_last_not_of(' ');
    const size_t space = last == std::string::npos ? last : line_.find_last_of(' ', last);
    replace_line(space == std::string::npos ? std::string{} : line_.substr(0, space + 1));
  } else if (byte == kEscape) {
    escape_ = 1;
  } else if (byte >= ' ' && byte < kDelete && line_.size() < kLongestLine) {
    line_.push_back(static_cast<char>(byte));
    print({&line_.back(), 1});
  }
}

void HumanSession::run_line() {
  const std::string line = std::exchange(line_, {});
  if (!line.empty() && (history_.empty() || history_.back() != line)) {
    if (history_.size() == kHistory) history_.erase(history_.begin());
    history_.push_back(line);
  }
  history_at_ = history_.size();
  context_.machine.serve_requests();
  print(run_human_command(context_, line));
  print(kPrompt);
}

void HumanSession::print(std::string_view text) {
  for (const char c : text) {
    if (c == '\n') output_.append("\r");
    output_.append({&c, 1});
  }
  output_.flush();
}

}  // namespace kite::monitor
