#include "monitor/qtest_server.h"

#include <algorithm>

#include "support/base64.h"
#include "support/bits.h"
#include "support/bytes.h"

namespace kite::monitor {

namespace {

constexpr uint64_t kMostBytes = 256u << 20;  // of one transfer

std::optional<uint64_t> number(std::string_view text) {
  const auto value = parse_unsigned(text);
  if (value) return *value;
  return std::nullopt;
}

constexpr std::string_view kFailed = "FAIL";
std::string failed(std::string_view why) { return fmt::format("{} {}", kFailed, why); }

unsigned size_of_suffix(char suffix) {
  switch (suffix) {
    case 'b': return 1;
    case 'w': return 2;
    case 'l': return 4;
    default: return 8;
  }
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::span<const QtestServer::Command> QtestServer::commands() {
  using Q = QtestServer;
  static constexpr Command kQtestCommands[] = {
      {"outb", 3, 3, &Q::port_access},
      {"outw", 3, 3, &Q::port_access},
      {"outl", 3, 3, &Q::port_access},
      {"inb", 2, 2, &Q::port_access},
      {"inw", 2, 2, &Q::port_access},
      {"inl", 2, 2, &Q::port_access},
      {"writeb", 3, 3, &Q::memory_access},
      {"writew", 3, 3, &Q::memory_access},
      {"writel", 3, 3, &Q::memory_access},
      {"writeq", 3, 3, &Q::memory_access},
      {"readb", 2, 2, &Q::memory_access},
      {"readw", 2, 2, &Q::memory_access},
      {"readl", 2, 2, &Q::memory_access},
      {"readq", 2, 2, &Q::memory_access},
      {"read", 3, 3, &Q::read_bytes},
      {"write", 4, 4, &Q::write_bytes},
      {"b64read", 3, 3, &Q::b64_read},
      {"b64write", 4, 4, &Q::b64_write},
      {"memset", 4, 4, &Q::fill},
      {"clock_step", 1, 2, &Q::clock_step},
      {"clock_set", 2, 2, &Q::clock_set},
      {"irq_intercept_in", 2, 2, &Q::irq_intercept},
      {"irq_intercept_out", 2, 2, &Q::irq_intercept},
      {"set_irq_in", 5, 5, &Q::set_irq_in},
      {"endianness", 1, 1, &Q::endianness},
      {"module_load", 3, 3, &Q::module_load},
  };
  return kQtestCommands;
}

QtestServer::QtestServer(machine::Machine& machine, Chardev& chardev)
    : machine_(machine), chardev_(chardev), output_(chardev) {
  chardev_.set_client(this);
}

QtestServer::~QtestServer() { chardev_.set_client(nullptr); }

Result<> QtestServer::set_log(const std::string& path) {
  log_.reset(std::fopen(path.c_str(), "w"));
  if (!log_) return fail("-qtest-log {}: cannot write there: {}", path, errno_text(errno));
  return {};
}

void QtestServer::event(ChardevEvent event) {
  if (event == ChardevEvent::kOpened) input_.clear();
}

void QtestServer::received(std::span<const uint8_t> bytes) {
  input_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_t start = 0;
  for (size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n', start)) {
    const std::string line = input_.substr(start, end - start);
    start = end + 1;
    log('R', line);
    const std::string answer = run_line(line);
    machine_.io().apply_map_changes();
    send(answer);
  }
  input_.erase(0, start);
  if (input_.size() > kLongestLine) input_.clear();
}

std::string QtestServer::run_line(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  Words words;
  while (!line.empty()) {
    const size_t end = std::min(line.find(' '), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(std::min(end + 1, line.size()));
  }
  if (words.empty()) return failed("empty line");
  for (const Command& command : commands()) {
    if (command.name != words[0]) continue;
    if (words.size() < command.least_words || words.size() > command.most_words)
      return failed(fmt::format("{}: wrong number of arguments", words[0]));
    return (this->*command.run)(words);
  }
  return failed(fmt::format("unknown command '{}'", words[0]));
}

// --- ports and memory

std::string QtestServer::port_access(const Words& words) {
  const unsigned size = size_of_suffix(words[0].back());
  const auto port = number(words[1]);
  if (!port || *port > 0xffff) return failed("bad port");
  if (words[0].starts_with("in"))
    return fmt::format("OK 0x{:04x}", machine_.io().pio_read(static_cast<uint16_t>(*port), size));
  const auto value = number(words[2]);
  if (!value) return failed("bad value");
  machine_.io().pio_write(static_cast<uint16_t>(*port), size, static_cast<uint32_t>(*value & low_mask(size * 8)));
  return "OK";
}

std::string QtestServer::memory_access(const Words& words) {
  const unsigned size = size_of_suffix(words[0].back());
  const auto address = number(words[1]);
  if (!address) return failed("bad address");
  if (words[0].starts_with("read")) return fmt::format("OK 0x{:016x}", machine_.io().mmio_read(*address, size));
  const auto value = number(words[2]);
  if (!value) return failed("bad value");
  machine_.io().mmio_write(*address, size, *value & low_mask(size * 8));
  return "OK";
}

namespace {

// Of an aligned access of 1, 2, 4 or 8 bytes: registers are reached whole, as a CPU would.
unsigned widest_access(uint64_t address, uint64_t bytes) {
  unsigned size = 8;
  while (size > bytes || address % size != 0) size /= 2;
  return size;
}

}  // namespace

std::vector<uint8_t> QtestServer::read_memory(uint64_t address, uint64_t bytes) {
  std::vector<uint8_t> data(bytes);
  GuestMemory memory(machine_.memory());
  if (memory.read(address, data)) return data;
  for (uint64_t at = 0; at < bytes;) {
    const unsigned size = widest_access(address + at, bytes - at);
    store_le(&data[at], size, machine_.io().mmio_read(address + at, size));
    at += size;
  }
  return data;
}

void QtestServer::write_memory(uint64_t address, std::span<const uint8_t> bytes) {
  GuestMemory memory(machine_.memory());
  if (memory.write(address, bytes)) return;
  for (size_t at = 0; at < bytes.size();) {
    const unsigned size = widest_access(address + at, bytes.size() - at);
    machine_.io().mmio_write(address + at, size, load_le(&bytes[at], size));
    at += size;
  }
}

std::string QtestServer::read_bytes(const Words& words) {
  const auto address = number(words[1]), bytes = number(words[2]);
  if (!address || !bytes || *bytes == 0 || *bytes > kMostBytes) return failed("bad address or length");
  std::string answer = "OK 0x";
  for (const uint8_t byte : read_memory(*address, *bytes)) fmt::format_to(std::back_inserter(answer), "{:02x}", byte);
  return answer;
}

std::string QtestServer::write_bytes(const Words& words) {
  const auto address = number(words[1]), bytes = number(words[2]);
  std::string_view hex = words[3];
  if (!address || !bytes || *bytes > kMostBytes) return failed("bad address or length");
  if (!hex.starts_with("0x")) return failed("data does not begin with 0x");
  hex.remove_prefix(2);
  std::vector<uint8_t> data(*bytes);  // short data is padded with zeros
  for (size_t at = 0; at + 1 < hex.size() && at / 2 < data.size(); at += 2) {
    const int high = hex_digit(hex[at]), low = hex_digit(hex[at + 1]);
    if (high < 0 || low < 0) return failed("data is not hexadecimal");
    data[at / 2] = static_cast<uint8_t>(high << 4 | low);
  }
  write_memory(*address, data);
  return "OK";
}

std::string QtestServer::b64_read(const Words& words) {
  const auto address = number(words[1]), bytes = number(words[2]);
  if (!address || !bytes || *bytes == 0 || *bytes > kMostBytes) return failed("bad address or length");
  return "OK " + to_base64(read_memory(*address, *bytes));
}

std::string QtestServer::b64_write(const Words& words) {
  const auto address = number(words[1]), bytes = number(words[2]);
  if (!address || !bytes || *bytes > kMostBytes) return failed("bad address or length");
  auto data = from_base64(words[3]);
  if (!data || data->size() < *bytes) return failed("bad base64 data");
  data->resize(*bytes);
  write_memory(*address, *data);
  return "OK";
}

std::string QtestServer::fill(const Words& words) {
  const auto address = number(words[1]), bytes = number(words[2]), value = number(words[3]);
  if (!address || !bytes || !value || *bytes > kMostBytes) return failed("bad address, length or value");
  if (*bytes != 0) write_memory(*address, std::vector<uint8_t>(*bytes, static_cast<uint8_t>(*value)));
  return "OK";
}

// --- clock

std::string QtestServer::clock_step(const Words& words) {
  ManualClock* clock = machine_.manual_clock();
  if (clock == nullptr) return failed("the clock runs by itself with this accelerator; use -accel qtest");
  if (words.size() == 1) {
    clock->step();
  } else {
    const auto delta = number(words[1]);
    if (!delta || *delta > static_cast<uint64_t>(Clock::kNever - clock->now())) return failed("bad time");
    clock->advance(static_cast<int64_t>(*delta));
  }
  return fmt::format("OK {}", clock->now());
}

std::string QtestServer::clock_set(const Words& words) {
  ManualClock* clock = machine_.manual_clock();
  if (clock == nullptr) return failed("the clock runs by itself with this accelerator; use -accel qtest");
  const auto target = number(words[1]);
  if (!target || *target > static_cast<uint64_t>(Clock::kNever)) return failed("bad time");
  clock->advance_to(static_cast<int64_t>(*target));
  return fmt::format("OK {}", clock->now());
}

// --- interrupts

std::string QtestServer::irq_intercept(const Words& words) {
  if (words[0] == "irq_intercept_out") return failed("only inputs of the interrupt controllers can be intercepted");
  if (!intercepted_.empty()) return intercepted_ == words[1] ? "OK" : failed("another device is intercepted already");
  machine::Board::IrqTap* tap = machine_.board().irq_tap(words[1]);
  if (tap == nullptr) return failed(fmt::format("no interrupt controller '{}'", words[1]));
  intercepted_ = words[1];
  tap->intercept_inputs([this](uint32_t line, bool level) {
    std::lock_guard lock(output_mutex_);
    if (levels_.size() <= line) levels_.resize(line + 1);
    if (levels_[line] == level) return;
    levels_[line] = level;
    send(fmt::format("IRQ {} {}", level ? "raise" : "lower", line));
  });
  return "OK";
}

std::string QtestServer::set_irq_in(const Words& words) {
  machine::Board::IrqTap* tap = machine_.board().irq_tap(words[1]);
  const auto line = number(words[3]), level = number(words[4]);
  if (tap == nullptr) return failed(fmt::format("no interrupt controller '{}'", words[1]));
  if (words[2] != "unnamed-gpio-in") return failed(fmt::format("no inputs are named '{}'", words[2]));
  if (!line || !level || *line > 0xff) return failed("bad line or level");
  tap->drive_input(static_cast<uint32_t>(*line), *level != 0);
  return "OK";
}

std::string QtestServer::endianness(const Words&) { return "OK little"; }

std::string QtestServer::module_load(const Words& words) {
  return failed(fmt::format("Kite has no modules; what it has of '{}{}' is built in", words[1], words[2]));
}

// --- output

void QtestServer::log(char direction, std::string_view line) {
  if (log_) fmt::print(log_.get(), "[{}] {}\n", direction, line);
}

void QtestServer::send(std::string_view line) {
  std::lock_guard lock(output_mutex_);
  log('S', line);
  output_.append(line);
  output_.append("\n");
  flush();
}

void QtestServer::flush() {
  std::lock_guard lock(output_mutex_);
  output_.flush();
}

}  // namespace kite::monitor
