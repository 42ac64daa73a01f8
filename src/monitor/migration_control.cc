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

MigrationControl::MigrationControl(machine::Machine& machine, Announce announce,
                                   std::function<void(const Error& error)> failed)
    : announce_(std::move(announce)),
      outgoing_(machine, {.status = [this](MigrationStatus status) { tell(status); },
                          .pass =
                              [this](uint64_t pass) {
                                if (announces_) announce_("MIGRATION_PASS", {{"pass", pass}});
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

void MigrationControl::tell(MigrationStatus status) const {
  if (announces_) announce_("MIGRATION", {{"status", machine::migration_status_name(status)}});
}

}  // namespace kite::monitor
