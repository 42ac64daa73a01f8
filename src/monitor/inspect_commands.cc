#include "monitor/inspect_commands.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <vector>

#include "machine/guest_view.h"
#include "monitor/words.h"
#include "support/bytes.h"
#include "support/fd.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;
using Type = Json::value_t;

// The machine does not run while this lives.
class Standstill {
 public:
  explicit Standstill(machine::Machine& machine)
      : machine_(machine), was_running_(machine.state() == machine::RunState::kRunning) {
    machine_.pause();
  }
  ~Standstill() {
    if (was_running_) (void)machine_.resume();
  }
  Standstill(const Standstill&) = delete;
  Standstill& operator=(const Standstill&) = delete;

 private:
  machine::Machine& machine_;
  const bool was_running_;
};

// --- into files

struct Stretch {
  bool physical = false;
  uint64_t cpu = 0;
  uint64_t address = 0, bytes = 0;
};

Result<> write_all(int file, const std::string& path, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(file, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail("cannot write '{}': {}", path, errno_text(errno));
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

Result<> save(machine::Machine& machine, const Stretch& stretch, const std::string& path) {
  if (stretch.cpu >= machine.vcpu_count()) return fail("Parameter 'cpu-index' expects a CPU number");
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.valid()) return fail("Could not open '{}': {}", path, errno_text(errno));
  const Standstill standstill(machine);
  machine::GuestView view(machine);
  view.set_physical(stretch.physical);
  std::vector<uint8_t> buffer(std::min<uint64_t>(stretch.bytes, 1 << 20));
  for (uint64_t done = 0; done < stretch.bytes;) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(stretch.bytes - done, buffer.size()));
    if (view.read(stretch.cpu, stretch.address + done, piece) != piece.size())
      return fail("Invalid addr {:#018x}/size {} specified: not all of it is there", stretch.address, stretch.bytes);
    KITE_TRY(write_all(file.get(), path, piece));
    done += piece.size();
  }
  return {};
}

template <bool kPhysical>
QmpReply save_command(Context& context, const Json& arguments) {
  const Json &bytes = arguments.at("size"), &cpu = arguments.value("cpu-index", Json(0));
  if (bytes < 0) return qmp_fail("Parameter 'size' expects 0 or more");
  if (cpu < 0) return qmp_fail("Parameter 'cpu-index' expects a CPU number");
  const auto saved = save(context.machine,
                          {.physical = kPhysical,
                           .cpu = cpu.get<uint64_t>(),
                           .address = arguments.at("val").get<uint64_t>(),
                           .bytes = bytes.get<uint64_t>()},
                          arguments.at("filename").get<std::string>());
  if (!saved) return qmp_fail("{}", saved.error().message);
  return Json::object();
}

constexpr ArgumentSpec kMemsave[] = {{"val", Type::number_integer, true},
                                     {"size", Type::number_integer, true},
                                     {"filename", Type::string, true},
                                     {"cpu-index", Type::number_integer, false}};
constexpr ArgumentSpec kPmemsave[] = {
    {"val", Type::number_integer, true}, {"size", Type::number_integer, true}, {"filename", Type::string, true}};
constexpr QmpCommand kCommands[] = {
    {"memsave", kMemsave, save_command<false>},
    {"pmemsave", kPmemsave, save_command<true>},
};

// --- for people

std::optional<uint64_t> number_of(std::string_view text) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, hex ? 16 : 10);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

// A number, or a register of the first CPU.
std::optional<uint64_t> address_of(Context& context, std::string_view text) {
  if (!text.starts_with('$')) return number_of(text);
  static constexpr std::string_view kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  text.remove_prefix(1);
  if (context.machine.vcpu_count() == 0) return std::nullopt;
  x86::ArchState state;
  context.machine.vcpu(0).get_state(state);
  if (text == "rip" || text == "pc") return state.rip;
  const auto* const found = std::ranges::find(kNames, text);
  if (found == std::end(kNames)) return std::nullopt;
  return state.gpr[static_cast<size_t>(found - std::begin(kNames))];
}

template <bool kPhysical>
std::string save_line(Context& context, std::string_view rest) {
  const auto address = number_of(next_word(rest)), bytes = number_of(next_word(rest));
  const std::string path = next_name(rest);
  if (!address || !bytes || path.empty())
    return fmt::format("usage: {} ADDRESS BYTES FILE\n", kPhysical ? "pmemsave" : "memsave");
  const auto saved =
      save(context.machine, {.physical = kPhysical, .cpu = 0, .address = *address, .bytes = *bytes}, path);
  return saved ? std::string{} : fmt::format("Error: {}\n", saved.error().message);
}

struct Format {
  uint64_t count = 1;
  char letter = 'x';
  unsigned bytes = 4;
};
constexpr uint64_t kMostItems = 1 << 16;

// COUNT, a letter, a size: each may be missing.
std::optional<Format> format_of(std::string_view text) {
  Format format;
  if (const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size()); digits != 0) {
    const auto count = number_of(text.substr(0, digits));
    if (!count || *count > kMostItems) return std::nullopt;
    format.count = *count;
    text.remove_prefix(digits);
  }
  static constexpr std::string_view kSizes = "bhwg";
  for (const char c : text) {
    if (const size_t size = kSizes.find(c); size != kSizes.npos)
      format.bytes = 1u << size;
    else if (std::string_view("xuc").find(c) != std::string_view::npos)
      format.letter = c;
    else
      return std::nullopt;
  }
  if (format.letter == 'c') format.bytes = 1;
  return format;
}

std::string item_text(const Format& format, uint64_t value) {
  if (format.letter == 'u') return fmt::format(" {}", value);
  if (format.letter == 'x') return fmt::format(" 0x{:0{}x}", value, format.bytes * 2);
  return value >= 0x20 && value < 0x7f ? fmt::format(" '{}'", static_cast<char>(value))
                                       : fmt::format(" '\\x{:02x}'", value);
}

template <bool kPhysical>
std::string show(Context& context, std::string_view rest) {
  constexpr unsigned kPerLine = 16;
  std::string_view word = next_word(rest);
  std::optional<Format> format = Format{};
  if (word.starts_with('/')) {
    format = format_of(word.substr(1));
    word = next_word(rest);
  }
  if (!format || word.empty())
    return fmt::format(
        "usage: {} [/COUNT[x|u|c][b|h|w|g]] ADDRESS|$REGISTER; a debugger (gdbserver) shows instructions\n",
        kPhysical ? "xp" : "x");
  const Standstill standstill(context.machine);
  const auto address = address_of(context, word);
  if (!address) return fmt::format("Error: '{}' is no number and no register\n", word);
  if (context.machine.vcpu_count() == 0) return "Error: this board has no CPUs\n";
  machine::GuestView view(context.machine);
  view.set_physical(kPhysical);
  std::string text;
  for (uint64_t item = 0; item < format->count; ++item) {
    const uint64_t at = *address + item * format->bytes;
    uint8_t bytes[8] = {};
    if (view.read(0, at, std::span(bytes).first(format->bytes)) != format->bytes)
      return fmt::format("{}{}Cannot access memory at {:#x}\n", text, text.empty() ? "" : "\n", at);
    if (item * format->bytes % kPerLine == 0) text += fmt::format("{}{:016x}:", text.empty() ? "" : "\n", at);
    text += item_text(*format, load_le(bytes, format->bytes));
  }
  return text + "\n";
}

}  // namespace

std::span<const QmpCommand> inspect_commands() { return kCommands; }

std::string human_memsave(MonitorContext& context, std::string_view rest) { return save_line<false>(context, rest); }
std::string human_pmemsave(MonitorContext& context, std::string_view rest) { return save_line<true>(context, rest); }
std::string human_x(MonitorContext& context, std::string_view rest) { return show<false>(context, rest); }
std::string human_xp(MonitorContext& context, std::string_view rest) { return show<true>(context, rest); }

}  // namespace kite::monitor
