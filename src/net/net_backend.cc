#include "net/net_backend.h"

#include <charconv>

namespace kite::net {

Result<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac{};
  std::string_view rest = text;
  for (size_t i = 0; i < mac.size(); ++i) {
    const std::string_view byte = rest.substr(0, rest.find_first_of(":-"));
    const auto [stop, error] = std::from_chars(byte.data(), byte.data() + byte.size(), mac[i], 16);
    const bool last = i + 1 == mac.size();
    if (error != std::errc{} || stop != byte.data() + byte.size() || byte.size() > 2 ||
        last != (byte.size() == rest.size()))
      return fail("'{}' is no MAC address; write six bytes in hexadecimal, as 52:54:00:12:34:56", text);
    rest.remove_prefix(last ? byte.size() : byte.size() + 1);
  }
  return mac;
}

std::string mac_text(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

NetBackend::NetBackend(std::string id, std::string_view type, Executor& executor)
    : id_(std::move(id)), type_(type), executor_(executor), metrics_("net." + id_) {
  constexpr auto kBytes = metrics::Unit::kBytes;
  metrics_.add("rx-packets", rx_packets_, {.help = "frames that the guest was given"});
  metrics_.add("rx-bytes", rx_bytes_, {.help = "bytes of those", .unit = kBytes});
  metrics_.add("rx-dropped", rx_dropped_, {.help = "frames for the guest that it did not want or had no room for"});
  metrics_.add("tx-packets", tx_packets_, {.help = "frames that the guest sent"});
  metrics_.add("tx-bytes", tx_bytes_, {.help = "bytes of those", .unit = kBytes});
  metrics_.add("tx-dropped", tx_dropped_, {.help = "frames of the guest's that went nowhere"});
}

NetBackend::~NetBackend() {
  if (client_ != nullptr) client_->backend_gone();
}

void NetBackend::set_client(NetClient* client) {
  client_ = client;
  card_end_up_ = true;
  waiting_.clear();
  room_again();
}

Delivery NetBackend::send(Frame frame) {
  const bool sound = frame.size() >= kHeaderBytes && frame.size() <= kMostFrameBytes;
  const Delivery delivery = sound && link_up() ? do_send(frame) : Delivery::kDropped;
  if (delivery == Delivery::kTaken) {
    tx_packets_.add();
    tx_bytes_.add(frame.size());
  } else if (delivery == Delivery::kDropped) {
    tx_dropped_.add();
  }
  return delivery;
}

void NetBackend::count_received(Delivery delivery, size_t bytes) {
  if (delivery == Delivery::kTaken) {
    rx_packets_.add();
    rx_bytes_.add(bytes);
  } else {
    rx_dropped_.add();
  }
}

void NetBackend::deliver(Frame frame) {
  Delivery delivery = Delivery::kDropped;
  if (client_ != nullptr && link_up()) delivery = backed_up() ? Delivery::kFull : client_->receive(frame);
  if (delivery == Delivery::kFull && waiting_.size() < kMostWaiting) {
    waiting_.emplace_back(frame.begin(), frame.end());
    return;
  }
  count_received(delivery, frame.size());
}

void NetBackend::accept_input() {
  if (!backed_up()) return;
  while (backed_up()) {
    const std::vector<uint8_t>& frame = waiting_.front();
    const Delivery delivery = client_ != nullptr && link_up() ? client_->receive(frame) : Delivery::kDropped;
    if (delivery == Delivery::kFull) return;
    count_received(delivery, frame.size());
    waiting_.pop_front();
  }
  room_again();
}

void NetBackend::set_link(End end, bool up) {
  const bool before = link_up();
  (end == End::kHost ? host_end_up_ : card_end_up_) = up;
  if (link_up() == before) return;
  accept_input();
  if (client_ != nullptr) client_->link_changed();
}

}  // namespace kite::net
