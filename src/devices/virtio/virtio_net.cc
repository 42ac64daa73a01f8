#include "devices/virtio/virtio_net.h"

#include <algorithm>
#include <array>

#include "devices/section.h"
#include "devices/virtio/virtio_net_regs.h"
#include "net/checksum.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace virtio_net;
using net::Delivery;

namespace {

VirtioDevice::Shape shape_of(const VirtioNet::Config& config) {
  uint64_t features = config.features | kMac;
  if (config.mtu != 0) features |= kMtu;
  return {.type = kType,
          .name = config.name,
          .queues = static_cast<uint16_t>((features & kControl) != 0 ? 3 : 2),
          .queue_size = 256,
          .config_bytes = kConfigBytes,
          .features = features};
}

}  // namespace

VirtioNet::VirtioNet(Config config, GuestMemory& memory, Executor& home, const Options& options)
    : VirtioDevice(home, memory, shape_of(config), options),
      config_(std::move(config)),
      backend_(config_.backend),
      mac_(config_.mac) {
  if (backend_ == nullptr) return;
  backend_->set_client(this);
  link_ = backend_->link_up();
}

VirtioNet::~VirtioNet() {
  if (backend_ != nullptr) backend_->set_client(nullptr);
  retire();
}

size_t VirtioNet::header_bytes() const {
  return agreed(kMergeable | virtio::kVersion1) ? size_t{kHeader} : size_t{kShortHeader};
}

// --- configuration

void VirtioNet::read_config(std::span<uint8_t> config) {
  {
    const std::lock_guard lock(filter_mutex_);
    std::ranges::copy(mac_, config.begin() + kMacAt);
  }
  store(&config[kStatusAt], static_cast<uint16_t>(link_.load() ? kLinkUp : 0));
  store(&config[kMostPairsAt], uint16_t{1});
  store(&config[kMtuAt], config_.mtu);
}

void VirtioNet::config_written(uint32_t offset, std::span<const uint8_t> bytes) {
  // 5.1.4: legacy drivers set the address here, byte by byte.
  if (agreed(virtio::kVersion1 | kControlMac) || offset + bytes.size() > kAddressBytes) return;
  const std::lock_guard lock(filter_mutex_);
  std::ranges::copy(bytes, mac_.begin() + offset);
}

void VirtioNet::device_reset() {
  driver_up_.store(false, std::memory_order_release);
  const std::lock_guard lock(filter_mutex_);
  mac_ = config_.mac;
  filter_ = ReceiveFilter{};
}

void VirtioNet::cancel_requests() {
  drop_held(receiving_);
  drop_held(sending_);
}

void VirtioNet::queue_reset(uint16_t queue) {
  if (queue == kReceiveQueue) drop_held(receiving_);
  if (queue == kTransmitQueue) drop_held(sending_);
}

// Of lives that have ended.
void VirtioNet::drop_held(std::vector<Chain>& held) {
  std::vector<Chain> kept;
  for (Chain& chain : held) {
    if (current(*chain))
      kept.push_back(std::move(chain));
    else
      finish(std::move(chain), 0);
  }
  held = std::move(kept);
}

void VirtioNet::refuse(Chain chain, std::string_view why) {
  break_device(why);
  finish(std::move(chain), 0);
}

void VirtioNet::serve(uint16_t queue) {
  if (queue == kTransmitQueue) return serve_transmit();
  if (queue == kControlQueue) return serve_control();
  serving_ = true;
  if (backend_ != nullptr) backend_->accept_input();
  serving_ = false;
}

// --- the cable

void VirtioNet::link_changed() {
  link_ = backend_ != nullptr && backend_->link_up();
  config_changed();
}

void VirtioNet::backend_gone() {
  backend_ = nullptr;
  link_changed();
  kick_transmit();
}

void VirtioNet::kick_transmit() { kick(kTransmitQueue); }

net::NetClient::Description VirtioNet::describe() const {
  const std::lock_guard lock(filter_mutex_);
  return {.name = config_.name, .model = config_.model, .mac = mac_};
}

// --- receiving

bool VirtioNet::wanted(net::Frame frame) {
  const std::lock_guard lock(filter_mutex_);
  return filter_.wants(frame, mac_, agreed(kControlVlan));
}

Delivery VirtioNet::receive(net::Frame frame) {
  if (!driver_up_.load(std::memory_order_acquire) || !wanted(frame)) return Delivery::kDropped;
  {
    const std::lock_guard guard(lock());
    if (!running()) return Delivery::kFull;  // buffers may be held
  }
  const size_t header = header_bytes();
  const Delivery room = gather(frame, header);
  return room == Delivery::kTaken ? fill(frame, header) : room;
}

// Of one frame.
size_t VirtioNet::most_buffers() {
  if (!agreed(kMergeable)) return 1;
  const std::lock_guard guard(lock());
  return queue(kReceiveQueue).size;
}

// Takes buffers until they have room for a frame and its header; without MRG_RXBUF that is one.
Delivery VirtioNet::gather(net::Frame frame, size_t header) {
  drop_held(receiving_);
  if (!receiving_.empty() && receiving_[0]->in_bytes < header) {  // it was behind another one
    Chain first = std::move(receiving_[0]);
    receiving_.erase(receiving_.begin());
    refuse(std::move(first), "a buffer has no room for a frame's header");
    return Delivery::kDropped;
  }
  uint64_t room = 0;
  for (const Chain& chain : receiving_) room += chain->in_bytes;
  while (room < header + frame.size()) {
    // A frame that does not fit into all that the driver can offer goes nowhere.
    if (!receiving_.empty() && receiving_.size() >= most_buffers()) return Delivery::kDropped;
    Chain chain = next(kReceiveQueue);
    if (chain == nullptr) {
      // The driver's kicks count again once serve() has found the queue empty, too.
      if (!serving_) kick(kReceiveQueue);
      return Delivery::kFull;
    }
    if (chain->in_bytes < (receiving_.empty() ? header : 1)) {
      refuse(std::move(chain), "a buffer has no room for a frame's header");
      return Delivery::kDropped;
    }
    room += chain->in_bytes;
    receiving_.push_back(std::move(chain));
  }
  return Delivery::kTaken;
}

Delivery VirtioNet::fill(net::Frame frame, size_t header_size) {
  std::array<uint8_t, kHeader> header{};
  // 5.1.6.4.1: what comes out of this process has been checked on its way in.
  if (agreed(kGuestChecksum) && backend_ != nullptr && backend_->verified()) header[kFlagsAt] = kDataValid;
  // A longer frame that goes nowhere by now may have taken more buffers than this one needs.
  size_t used = 0;
  for (uint64_t room = 0; room < header_size + frame.size(); ++used) room += receiving_[used]->in_bytes;
  store(&header[kBuffersAt], static_cast<uint16_t>(used));
  std::vector<Finished> done;
  bool good = receiving_[0]->write(memory(), 0, std::span(header).first(header_size)).has_value();
  uint64_t at = header_size;
  for (Chain& chain : std::span(receiving_).first(used)) {
    const auto part = frame.first(std::min<uint64_t>(frame.size(), chain->in_bytes - at));
    good = good && chain->write(memory(), at, part).has_value();
    done.push_back({.chain = std::move(chain), .written = at + part.size()});
    frame = frame.subspan(part.size());
    at = 0;
  }
  receiving_.erase(receiving_.begin(), receiving_.begin() + static_cast<ptrdiff_t>(used));
  if (!good) break_device("a buffer for frames is not in RAM");
  finish_together(std::move(done));
  return good ? Delivery::kTaken : Delivery::kDropped;
}

// --- sending

void VirtioNet::serve_transmit() {
  drop_held(sending_);
  // A driver may add others meanwhile: whoever else shares the thread has his turn.
  for (unsigned count = 0; count < shape().queue_size; ++count) {
    Chain chain = sending_.empty() ? next(kTransmitQueue) : std::move(sending_.back());
    sending_.clear();
    if (chain == nullptr) return;
    if (transmit(chain)) continue;
    sending_.push_back(std::move(chain));
    return;
  }
  kick_transmit();
}

bool VirtioNet::transmit(Chain& chain) {
  const size_t header = header_bytes();
  if (chain->out_bytes < header) return refuse(std::move(chain), "a frame has no room for its header"), true;
  const uint64_t bytes = chain->out_bytes - header;
  if (bytes <= net::kMostFrameBytes && backend_ != nullptr) {
    frame_.resize(bytes);
    std::array<uint8_t, kHeader> copy{};
    if (!chain->read(memory(), 0, std::span(copy).first(header)) || !chain->read(memory(), header, frame_))
      return refuse(std::move(chain), "a frame is not in RAM"), true;
    // 5.1.6.2: a header that asks for what was not negotiated is nonsense; its frame goes nowhere.
    if (complete_checksum(copy.data()) && backend_->send(frame_) == Delivery::kFull) return false;
  }
  finish(std::move(chain), 0);
  return true;
}

// 5.1.6.2: the sum from `start` to the end, over what the driver has put in its place already. [RFC 1071].
bool VirtioNet::complete_checksum(const uint8_t* header) {
  if (header[kGsoTypeAt] != 0) return false;
  if ((header[kFlagsAt] & kNeedsChecksum) == 0) return true;
  const size_t start = load<uint16_t>(&header[kChecksumStartAt]);
  const size_t place = start + load<uint16_t>(&header[kChecksumOffsetAt]);
  if (!agreed(kChecksum) || start > frame_.size() || place + 2 > frame_.size()) return false;
  const auto sum = static_cast<uint16_t>(~net::internet_sum(std::span(frame_).subspan(start)));
  store(&frame_[place], sum != 0 ? sum : uint16_t{0xffff});
  return true;
}

// --- state

namespace {

constexpr uint16_t kFieldMac = 1, kFieldModes = 2, kFieldUnicast = 3, kFieldMulticast = 4, kFieldVlans = 5;
constexpr uint8_t kUnicastOverflow = 64, kMulticastOverflow = 128;  // beside the modes

std::vector<uint8_t> bytes_of(const std::vector<net::MacAddress>& list) {
  std::vector<uint8_t> bytes;
  for (const net::MacAddress& mac : list) bytes.insert(bytes.end(), mac.begin(), mac.end());
  return bytes;
}

bool list_of(std::span<const uint8_t> bytes, std::vector<net::MacAddress>& list) {
  constexpr size_t kEach = sizeof(net::MacAddress);
  if (bytes.size() % kEach != 0 || bytes.size() / kEach > ReceiveFilter::kMostAddresses) return false;
  list.clear();
  for (size_t at = 0; at < bytes.size(); at += kEach) list.push_back(load<net::MacAddress>(&bytes[at]));
  return true;
}

}  // namespace

void VirtioNet::save_type(StateWriter& writer) {
  const std::lock_guard lock(filter_mutex_);
  const auto& [modes, unicast_overflow, multicast_overflow, unicast, multicast, vlans] = filter_;
  writer.field(kFieldMac, bytes_of({mac_}));
  writer.field(kFieldModes, static_cast<uint8_t>(modes | (unicast_overflow ? kUnicastOverflow : 0) |
                                                 (multicast_overflow ? kMulticastOverflow : 0)));
  writer.field(kFieldUnicast, bytes_of(unicast));
  writer.field(kFieldMulticast, bytes_of(multicast));
  writer.field(kFieldVlans, std::vector<uint8_t>(vlans.begin(), vlans.end()));
}

void VirtioNet::restore_type(StateReader& reader) {
  restored_ = {};
  std::vector<uint8_t> mac, one, many, vlans;
  uint8_t modes = 0;
  reader.field(kFieldMac, mac);
  reader.field(kFieldModes, modes);
  reader.field(kFieldUnicast, one);
  reader.field(kFieldMulticast, many);
  reader.field(kFieldVlans, vlans);
  ReceiveFilter& filter = restored_.filter;
  const bool possible = mac.size() == kAddressBytes && vlans.size() == filter.vlans.size() &&
                        list_of(one, filter.unicast) && list_of(many, filter.multicast);
  if (!require(reader, possible, "the lists of addresses have impossible lengths")) return;
  restored_.mac = load<net::MacAddress>(mac.data());
  filter.modes = modes & ReceiveFilter::kModes;
  filter.unicast_overflow = (modes & kUnicastOverflow) != 0;
  filter.multicast_overflow = (modes & kMulticastOverflow) != 0;
  std::ranges::copy(vlans, filter.vlans.begin());
}

void VirtioNet::apply_type() {
  const std::lock_guard lock(filter_mutex_);
  mac_ = restored_.mac;
  filter_ = std::move(restored_.filter);
}

}  // namespace kite::devices
