// The qtest server: a test client drives the machine's ports, memory, clock and interrupt lines in ASCII lines. It
// works with every accelerator; the clock commands want the qtest one, whose time is the client's. Main executor's
// thread.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "chardev/chardev.h"
#include "machine/machine.h"
#include "monitor/output_queue.h"

namespace kite::monitor {

class QtestServer final : public ChardevClient {
 public:
  QtestServer(machine::Machine& machine, Chardev& chardev);
  ~QtestServer() override;
  // Copies the conversation there: "[R] ..." and "[S] ..." lines.
  Result<> set_log(const std::string& path);

  size_t can_receive() override { return 65536; }
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override { flush(); }

 private:
  static constexpr size_t kLongestLine = 64u << 20;
  using Words = std::vector<std::string_view>;
  struct Command {
    std::string_view name;
    size_t least_words, most_words;  // with the command's own
    std::string (QtestServer::*run)(const Words& words);
  };
  static std::span<const Command> commands();

  std::string run_line(std::string_view line);
  std::string port_access(const Words& words);
  std::string memory_access(const Words& words);
  std::string read_bytes(const Words& words);
  std::string write_bytes(const Words& words);
  std::string b64_read(const Words& words);
  std::string b64_write(const Words& words);
  std::string fill(const Words& words);
  std::string clock_step(const Words& words);
  std::string clock_set(const Words& words);
  std::string irq_intercept(const Words& words);
  std::string set_irq_in(const Words& words);
  std::string endianness(const Words& words);
  std::string module_load(const Words& words);

  std::vector<uint8_t> read_memory(uint64_t address, uint64_t bytes);
  void write_memory(uint64_t address, std::span<const uint8_t> bytes);
  void send(std::string_view line);
  void log(char direction, std::string_view line);
  void flush();

  machine::Machine& machine_;
  Chardev& chardev_;
  std::string input_;
  std::recursive_mutex output_mutex_;  // interrupt lines come from any thread
  OutputQueue output_;
  std::string intercepted_;  // path of the tapped controller
  std::vector<bool> levels_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> log_{nullptr, std::fclose};
};

}  // namespace kite::monitor
