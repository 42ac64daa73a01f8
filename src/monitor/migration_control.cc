#include "monitor/migration_control.h"

#include <fcntl.h>

#include <charconv>

#include "snapshot/channel.h"

namespace kite::monitor {

namespace {

// "fd:7" is one that the process has inherited.
Fd descriptor_of(const snapshot::ChannelAddress& address) {
  const std::string& text = address.text;
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool good = error == std::errc{} && end == text.data() + text.size() && ::fcntl(number, F_GETFD) >= 0;
  return good ? Fd(number) : Fd{};
}

}  // namespace

using machine::MigrationStatus;
using Kind = machine::MachineEvent::Kind;

MigrationControl::MigrationControl(machine::Machine& machine, Announce announce,
                                   std::function<void(const Error& error)> failed)
    : announce_(std::move(announce)),
      outgoing_(machine, {.status = [this](MigrationStatus status) { tell(status); },
                          .pass =
                              [this](uint64_t pass) {
                                if (announces_) announce_({.kind = Kind::kMigrationPass, .pass = pass});
                              }}),
      incoming_(machine, {.status = [this](MigrationStatus status) { tell(status); },
                          .ended =
                              [failed = std::move(failed)](const Result<>& result) {
                                if (!result) failed(result.error());
                              }}) {}

Result<> MigrationControl::send(std::string_view uri, Fd fd) {
  KITE_ASSIGN(auto address, snapshot::parse_channel(uri));
  if (address.kind == snapshot::ChannelAddress::Kind::kFd && !fd.valid()) fd = descriptor_of(address);
  return outgoing_.start(std::move(address), std::move(fd));
}

Result<> MigrationControl::receive(std::string_view uri, Fd fd) {
  KITE_ASSIGN(auto address, snapshot::parse_channel(uri));
  if (address.kind == snapshot::ChannelAddress::Kind::kFd && !fd.valid()) fd = descriptor_of(address);
  return incoming_.start(std::move(address), std::move(fd));
}

// [QAPI] BitmapMigrationNodeAlias
void MigrationControl::set_bitmap_mapping(const Json& mapping) {
  machine::BitmapMapping parsed;
  for (const Json& node : mapping) {
    machine::BitmapMapping::Node& entry = parsed.nodes.emplace_back();
    entry.name = node.at("node-name");
    entry.alias = node.at("alias");
    for (const Json& bitmap : node.at("bitmaps")) {
      auto& each = entry.bitmaps.emplace_back();
      each.name = bitmap.at("name");
      each.alias = bitmap.at("alias");
      const Json transform = bitmap.value("transform", Json::object());
      if (transform.contains("persistent")) each.persistent = transform.at("persistent").get<bool>();
    }
  }
  bitmap_mapping_ = mapping;
  incoming_.set_bitmap_mapping(parsed);
  machine::MigrationParameters parameters = outgoing_.parameters();
  parameters.bitmap_mapping = std::move(parsed);
  outgoing_.set_parameters(parameters);
}

void MigrationControl::tell(MigrationStatus status) const {
  if (announces_) announce_({.kind = Kind::kMigration, .action = std::string(machine::migration_status_name(status))});
}

}  // namespace kite::monitor
