#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "main/config_file.h"
#include "main/options.h"
#include "support/fd.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

// Groups whose name is not that of their option.
struct GroupName {
  std::string_view group, option;
};
constexpr GroupName kGroups[] = {{"memory", "m"}, {"smp-opts", "smp"}, {"boot-opts", "boot"}};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

Result<std::string> option_of_group(std::string_view group, const std::string& place) {
  std::string_view wanted = group;
  for (const GroupName& name : kGroups)
    if (name.group == group) wanted = name.option;
  for (const OptionSpec& option : options())
    if (option.name == wanted && !option.argument.empty() && option.name != "readconfig") return std::string(wanted);
  for (const MissingOption& missing : missing_options())
    if (missing.name == wanted) return fail("{}: [{}]: {}", place, group, missing.reason);
  std::vector<std::string_view> names;
  for (const GroupName& name : kGroups) names.push_back(name.group);
  for (const OptionSpec& option : options())
    if (!option.group.empty() && !option.argument.empty()) names.push_back(option.name);
  return fail("{}: [{}]: no such group{}", place, group, suggestion(group, names));
}

class IniReader {
 public:
  explicit IniReader(const std::string& file) : file_(file) {}
  Result<std::vector<GivenOption>> read(std::string_view text);

 private:
  [[nodiscard]] std::string place() const { return fmt::format("{}:{}", file_, line_); }
  Result<> header(std::string_view line);
  Result<> setting(std::string_view line);
  void append(std::string_view key, std::string_view value);

  const std::string& file_;
  unsigned line_ = 0;
  std::vector<GivenOption> given_;
};

void IniReader::append(std::string_view key, std::string_view value) {
  std::string& text = given_.back().argument;
  if (!text.empty()) text += ',';
  text += fmt::format("{}=", key);
  for (const char letter : value) text.append(letter == ',' ? 2 : 1, letter);
}

// [group] or [group "id"]
Result<> IniReader::header(std::string_view line) {
  if (line.back() != ']') return fail("{}: {}: the group's ']' is missing", place(), line);
  std::string_view inside = trimmed(line.substr(1, line.size() - 2));
  const size_t quote = inside.find('"');
  std::string_view id;
  if (quote != std::string_view::npos) {
    if (inside.back() != '"' || inside.size() - quote < 3)
      return fail("{}: {}: an id stands in quotes: [device \"id\"]", place(), line);
    id = inside.substr(quote + 1, inside.size() - quote - 2);
    inside = trimmed(inside.substr(0, quote));
  }
  KITE_ASSIGN(std::string option, option_of_group(inside, place()));
  given_.push_back({.name = std::move(option), .argument = {}, .origin = place()});
  if (!id.empty()) append("id", id);
  return {};
}

// key = "value"
Result<> IniReader::setting(std::string_view line) {
  const size_t equals = line.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return fail("{}: {}: neither [group] nor key = \"value\"", place(), line);
  const std::string_view key = trimmed(line.substr(0, equals));
  const std::string_view value = trimmed(line.substr(equals + 1));
  if (value.size() < 2 || value.front() != '"' || value.back() != '"')
    return fail("{}: {}: the value stands in quotes: {} = \"...\"", place(), line, key);
  if (given_.empty()) return fail("{}: {}: it stands before any [group]", place(), line);
  append(key, value.substr(1, value.size() - 2));
  return {};
}

Result<std::vector<GivenOption>> IniReader::read(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_;
    if (line.empty() || line.front() == '#') continue;
    KITE_TRY(line.front() == '[' ? header(line) : setting(line));
  }
  return std::move(given_);
}

}  // namespace

Result<std::vector<GivenOption>> options_of_ini(std::string_view text, const std::string& file) {
  return IniReader(file).read(text);
}

Result<std::string> read_config_file(const std::string& path, std::string_view option) {
  constexpr size_t kMost = 1 << 20;
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail("{} {}: {}", option, path, errno_text(errno));
  std::string text;
  std::array<char, 16384> piece{};
  for (;;) {
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("{} {}: {}", option, path, errno_text(errno));
    if (got == 0) return text;
    text.append(piece.data(), static_cast<size_t>(got));
    if (text.size() > kMost) return fail("{} {}: a configuration file has 1 MiB at most", option, path);
  }
}

}  // namespace kite::main
