// What `-chardev BACKEND,...` can say, and the back end that comes of it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "async/clock.h"
#include "chardev/chardev.h"

namespace kite {

class SocketChardev;
class SpiceChardev;
namespace tls {
class CredentialsStore;
}

using OptionPairs = std::vector<std::pair<std::string, std::string>>;

// One back end's options, checked and read by name.
class BackendOptions {
 public:
  // Splits "stdio,id=c0,mux=on" and checks the names. With `id`, the text is a legacy one's and may not have its own.
  static Result<BackendOptions> parse(const OptionPairs& pairs);

  [[nodiscard]] const std::string& backend() const { return backend_; }
  [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
  [[nodiscard]] std::string text(std::string_view name) const;  // "" when it was not given
  Result<bool> boolean(std::string_view name, bool otherwise) const;
  Result<uint64_t> number(std::string_view name, uint64_t otherwise, uint64_t most) const;

 private:
  [[nodiscard]] const std::string* find(std::string_view name) const;

  std::string backend_;
  OptionPairs values_;
};

// "tcp:HOST:PORT,server=on" and the like as the pairs of a -chardev.
struct LegacyChardev {
  enum class Kind : uint8_t { kNone, kReference, kBackend } kind = Kind::kNone;
  std::string reference;  // chardev:ID
  OptionPairs pairs;      // "backend" first
};
Result<LegacyChardev> parse_legacy_chardev(std::string_view text);

// The back end alone, without a mux.
struct NewBackend {
  std::unique_ptr<Chardev> chardev;
  SocketChardev* socket = nullptr;  // the same, when it is one
  SpiceChardev* spice = nullptr;
};
struct BackendWiring {
  Executor& executor;
  Clock& clock;
  const tls::CredentialsStore* credentials;  // that tls-creds= can name; may be null
};
Result<NewBackend> create_backend(std::string id, const BackendOptions& options, const BackendWiring& wiring);

}  // namespace kite
