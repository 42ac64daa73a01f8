#include <algorithm>
#include <csignal>

#include "chardev/backend_options.h"
#include "chardev/mux_chardev.h"
#include "chardev/socket_chardev.h"
#include "chardev/spice_chardev.h"
#include "object/object_type.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite {

struct ChardevRegistry::Impl {
  struct Entry {
    std::unique_ptr<Chardev> chardev;
    MuxChardev* mux = nullptr;        // the same, when it is one
    SocketChardev* socket = nullptr;  // the back end, when it is one
    SpiceChardev* spice = nullptr;    // the same
    bool claimed = false;
  };

  Impl(Executor& loop, MuxHooks mux_hooks, const tls::CredentialsStore* known)
      : executor(loop), hooks(std::move(mux_hooks)), credentials(known) {
    executor.attach(clock);
  }
  ~Impl() {
    entries.clear();
    executor.detach(clock);
  }

  Entry* find(std::string_view id) {
    const auto found = std::ranges::find(entries, id, [](const Entry& entry) { return entry.chardev->id(); });
    return found == entries.end() ? nullptr : &*found;
  }

  Result<Entry*> create(std::string id, const BackendOptions& options) {
    if (find(id) != nullptr) return fail("there is a chardev '{}' already", id);
    const bool second_stdio = options.backend() == "stdio" && std::ranges::any_of(entries, [](const Entry& entry) {
                                return entry.chardev->filename() == "stdio";
                              });
    if (second_stdio) return fail("the standard input and output are in use already; share them with mux=on");
    KITE_ASSIGN(const bool mux, options.boolean("mux", false));
    KITE_ASSIGN(NewBackend backend, create_backend(std::move(id), options,
                                                   {.executor = executor, .clock = clock, .credentials = credentials}));
    Entry entry{.chardev = std::move(backend.chardev), .socket = backend.socket, .spice = backend.spice};
    if (mux) {
      auto shared = std::make_unique<MuxChardev>(std::move(entry.chardev), executor, clock, hooks);
      entry.mux = shared.get();
      entry.chardev = std::move(shared);
    }
    entries.push_back(std::move(entry));
    return &entries.back();
  }

  Executor& executor;
  MuxHooks hooks;
  const tls::CredentialsStore* credentials;
  HostClock clock{HostClock::Kind::kMonotonic};
  std::vector<Entry> entries;  // in the order in which they were made
};

ChardevRegistry::ChardevRegistry(Executor& executor, MuxHooks hooks, const tls::CredentialsStore* credentials)
    : impl_(std::make_unique<Impl>(executor, std::move(hooks), credentials)) {
  ::signal(SIGPIPE, SIG_IGN);  // a reader of our output that goes away is an error of write()
}

ChardevRegistry::~ChardevRegistry() = default;

Result<Chardev*> ChardevRegistry::add(std::string_view text) {
  KITE_ASSIGN(const OptionPairs pairs, parse_options(text, "backend"));
  const auto make = [this, &pairs]() -> Result<Chardev*> {
    KITE_ASSIGN(const BackendOptions options, BackendOptions::parse(pairs));
    const std::string id = options.text("id");
    if (id.empty()) return fail("it wants id=ID, by which others name it");
    if (!valid_id(id)) return fail("id '{}': an id is a letter followed by letters, digits, '-', '.' and '_'", id);
    KITE_ASSIGN(Impl::Entry * entry, impl_->create(id, options));
    return entry->chardev.get();
  };
  auto made = make();
  if (!made) return fail("-chardev {}: {}", text, made.error().message);
  return made;
}

Result<Chardev*> ChardevRegistry::add_legacy(std::string id, std::string_view text) {
  KITE_ASSIGN(const LegacyChardev legacy, parse_legacy_chardev(text));
  if (legacy.kind == LegacyChardev::Kind::kNone) return nullptr;
  if (legacy.kind == LegacyChardev::Kind::kReference) return claim(legacy.reference);
  const auto make = [this, &legacy, &id]() -> Result<Chardev*> {
    KITE_ASSIGN(const BackendOptions options, BackendOptions::parse(legacy.pairs));
    if (options.has("id")) return fail("id= has no place here; use -chardev and chardev:ID");
    KITE_ASSIGN(Impl::Entry * entry, impl_->create(std::move(id), options));
    entry->claimed = true;
    return entry->chardev.get();
  };
  auto made = make();
  if (!made) return fail("{}: {}", text, made.error().message);
  return made;
}

Chardev* ChardevRegistry::find(std::string_view id) const {
  const Impl::Entry* entry = impl_->find(id);
  return entry == nullptr ? nullptr : entry->chardev.get();
}

std::vector<Chardev*> ChardevRegistry::all() const {
  std::vector<Chardev*> chardevs;
  for (const Impl::Entry& entry : impl_->entries) chardevs.push_back(entry.chardev.get());
  return chardevs;
}

Result<Chardev*> ChardevRegistry::claim(std::string_view id) {
  Impl::Entry* entry = impl_->find(id);
  if (entry == nullptr) {
    std::vector<std::string_view> names;
    for (const Impl::Entry& known : impl_->entries) names.push_back(known.chardev->id());
    return fail("there is no chardev '{}'{}", id, suggestion(id, names));
  }
  if (entry->mux != nullptr) return entry->mux->add_port();
  if (entry->claimed) return fail("the chardev '{}' is in use already; add mux=on to share it", id);
  entry->claimed = true;
  return entry->chardev.get();
}

void ChardevRegistry::give_back(const Chardev& chardev) {
  for (Impl::Entry& entry : impl_->entries)
    if (entry.chardev.get() == &chardev && entry.mux == nullptr) entry.claimed = false;
}

void ChardevRegistry::remove(const Chardev& chardev) {
  std::erase_if(impl_->entries, [&chardev](const Impl::Entry& entry) { return entry.chardev.get() == &chardev; });
}

Result<> ChardevRegistry::set_spice(const SpiceCarrier* carrier) {
  for (const Impl::Entry& entry : impl_->entries) {
    if (entry.spice == nullptr) continue;
    if (carrier == nullptr)
      return fail("-chardev {},id={}: SPICE clients are at its other end, and there is no SPICE server; add -spice",
                  entry.spice->filename(), entry.chardev->id());
    KITE_TRY(entry.spice->plug_into(*carrier));
  }
  return {};
}

Result<> ChardevRegistry::wait_for_peers() {
  for (const Impl::Entry& entry : impl_->entries) {
    if (entry.socket == nullptr || !entry.socket->wants_to_wait()) continue;
    log::info("chardev '{}' waits for a connection to {}", entry.chardev->id(), entry.chardev->filename());
    entry.socket->wait_for_peer();
  }
  return {};
}

void ChardevRegistry::flush_all() {
  for (const Impl::Entry& entry : impl_->entries) entry.chardev->flush();
}

}  // namespace kite
