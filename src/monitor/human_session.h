// HumanSession: the monitor for people, with a prompt and simple line editing (backspace, Ctrl-U, Ctrl-W, history by
// the arrow keys). Main executor's thread only.
#pragma once

#include <string>
#include <vector>

#include "chardev/chardev.h"
#include "monitor/human_commands.h"
#include "monitor/output_queue.h"

namespace kite::monitor {

class HumanSession final : public ChardevClient {
 public:
  HumanSession(MonitorContext context, Chardev& chardev);
  ~HumanSession() override;

  size_t can_receive() override { return 4096; }
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override { output_.flush(); }

 private:
  static constexpr size_t kLongestLine = 4095;
  static constexpr size_t kHistory = 100;

  void key(uint8_t byte);
  void escape_key(uint8_t byte);
  void replace_line(std::string text);
  void run_line();
  void print(std::string_view text);  // newlines become CR LF

  MonitorContext context_;
  Chardev& chardev_;
  bool greeted_ = false;
  std::string line_;
  OutputQueue output_;
  int escape_ = 0;  // 1 after ESC, 2 after ESC [
  std::vector<std::string> history_;
  size_t history_at_ = 0;
};

}  // namespace kite::monitor
