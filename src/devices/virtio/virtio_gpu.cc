#include "devices/virtio/virtio_gpu.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/section.h"
#include "devices/vga/edid.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace virtio_gpu;  // NOLINT: the protocol

namespace {

// What follows the header of a request; null when it is too short, or not in RAM.
template <class T>
std::optional<T> body_of(const VirtioChain& chain, const GuestMemory& memory) {
  T body;
  if (!chain.read(memory, sizeof(Header), {reinterpret_cast<uint8_t*>(&body), sizeof body})) return {};
  return body;
}

}  // namespace

VirtioGpu::VirtioGpu(Config config, display::Console* console, GuestMemory& memory, Executor& home,
                     const Options& options)
    : VirtioDevice(home, memory,
                   {.type = kType,
                    .name = config.name,
                    .queues = kQueues,
                    .queue_size = 64,
                    .config_bytes = kConfigBytes,
                    .features = config.edid ? kEdid : 0},
                   options),
      config_(std::move(config)),
      console_(console) {
  gpu_ = make_gpu();
  if (console_ != nullptr) console_->add_source(*this, config_.name);
}

VirtioGpu::~VirtioGpu() {
  if (console_ != nullptr) console_->remove_source(*this);
  retire();
}

// --- lives

std::unique_ptr<Gpu2d> VirtioGpu::make_gpu() {
  auto made = std::make_unique<Gpu2d>(memory(), config_.max_bytes);
  made->watched(watched_);
  return made;
}

// A vCPU's reset is not this thread's business until it looks.
void VirtioGpu::device_reset() { ++resets_; }

Gpu2d& VirtioGpu::gpu() {
  if (const uint64_t resets = resets_; std::exchange(seen_resets_, resets) != resets) gpu_ = make_gpu();
  return *gpu_;
}

// Whether a request is one of the life that gpu_ is of, which the lock alone can tell: a reset ends both at once. One
// that comes later makes a new gpu_ all the same.
bool VirtioGpu::belongs(const VirtioChain& chain) {
  const std::lock_guard guard(lock());
  gpu();
  return current(chain);
}

// --- requests

void VirtioGpu::serve(uint16_t queue) {
  for (uint64_t left = kBytesAtOnce; left != 0;) {
    Chain chain = next(queue);
    if (chain == nullptr) return;
    if (!belongs(*chain)) {
      finish(std::move(chain), 0);
      continue;
    }
    const uint64_t cost = queue == kControlQueue ? control(std::move(chain)) : cursor(std::move(chain));
    left -= std::min(left, cost);
  }
  kick(queue);
}

// Answers what it cost.
uint64_t VirtioGpu::control(Chain chain) {
  Header header{};
  std::vector<uint8_t> answer(sizeof header);
  auto response = Response::kUnspecified;
  const uint64_t moved = gpu_->moved();
  if (chain->read(memory(), 0, {reinterpret_cast<uint8_t*>(&header), sizeof header}))
    response = carry_out(*chain, header.type, answer);
  if (response >= Response::kUnspecified)
    log::guest_error("{}: command {:#x} is refused with {:#x}", config_.name, header.type,
                     static_cast<uint32_t>(response));
  // 5.7.6.7: a fence comes back with the answer, once what was asked for has been done.
  const bool fenced = (header.flags & kFence) != 0;
  const Header said{.type = static_cast<uint32_t>(response),
                    .flags = fenced ? kFence : 0,
                    .fence = fenced ? header.fence : 0,
                    .context = fenced ? header.context : 0,
                    .ring = 0,
                    .padding = {}};
  store(answer.data(), said);
  const size_t fits = std::min<uint64_t>(answer.size(), chain->in_bytes);
  if (!chain->write(memory(), 0, std::span(answer).first(fits))) break_device("an answer's buffer is not in RAM");
  finish(std::move(chain), fits);
  return kCommandCost + gpu_->moved() - moved;
}

// 5.7.6.10: there are two commands, and no answer.
uint64_t VirtioGpu::cursor(Chain chain) {
  Header header{};
  const bool there = chain->read(memory(), 0, {reinterpret_cast<uint8_t*>(&header), sizeof header}).has_value();
  const auto body = body_of<Cursor>(*chain, memory());
  if (!there || !body || (header.type != kUpdateCursor && header.type != kMoveCursor))
    log::guest_error("{}: {:#x} is no command for the cursor", config_.name, header.type);
  else if (header.type == kUpdateCursor)
    gpu_->update_cursor(*body);
  else
    gpu_->move_cursor(*body);
  finish(std::move(chain), 0);
  return kCommandCost;
}

Response VirtioGpu::carry_out(const VirtioChain& chain, uint32_t command, std::vector<uint8_t>& answer) {
  const auto with = [&]<class T>(Response (Gpu2d::*act)(const T&)) {
    const auto body = body_of<T>(chain, memory());
    return body ? (gpu_.get()->*act)(*body) : Response::kUnspecified;
  };
  const auto with_id = [&](Response (Gpu2d::*act)(uint32_t)) {
    const auto body = body_of<Unref>(chain, memory());
    return body ? (gpu_.get()->*act)(body->resource) : Response::kUnspecified;
  };
  switch (command) {
    case kGetDisplayInfo: answer = display_info(); return Response::kDisplayInfo;
    case kCreate2d: return with(&Gpu2d::create);
    case kUnref: return with_id(&Gpu2d::unref);
    case kSetScanout: return with(&Gpu2d::set_scanout);
    case kFlush: return with(&Gpu2d::flush);
    case kTransferToHost2d: return with(&Gpu2d::transfer);
    case kAttachBacking: return attach(chain);
    case kDetachBacking: return with_id(&Gpu2d::detach);
    case kGetEdid: return edid(chain, answer);
    default: return Response::kUnspecified;  // of features that are not offered, and nonsense
  }
}

Response VirtioGpu::attach(const VirtioChain& chain) {
  const auto body = body_of<AttachBacking>(chain, memory());
  if (!body || body->entries > Gpu2d::kMostEntries) return Response::kUnspecified;
  std::vector<uint8_t> bytes(body->entries * kEntryBytes);
  if (!chain.read(memory(), sizeof(Header) + sizeof *body, bytes)) return Response::kUnspecified;
  std::vector<SgEntry> entries(body->entries);
  for (size_t i = 0; i < entries.size(); ++i)
    entries[i] = {.address = load<uint64_t>(&bytes[i * kEntryBytes]),
                  .bytes = load<uint32_t>(&bytes[i * kEntryBytes + sizeof(uint64_t)])};
  return gpu_->attach(body->resource, std::move(entries));
}

std::vector<uint8_t> VirtioGpu::display_info() const {
  DisplayInfo info{};
  info.modes[0] = {.rect = {.x = 0, .y = 0, .width = config_.xres, .height = config_.yres}, .enabled = 1, .flags = 0};
  std::vector<uint8_t> answer(sizeof(Header) + sizeof info);
  store(&answer[sizeof(Header)], info);
  return answer;
}

Response VirtioGpu::edid(const VirtioChain& chain, std::vector<uint8_t>& answer) const {
  const auto body = body_of<GetEdid>(chain, memory());
  if (!body || !agreed(kEdid)) return Response::kUnspecified;
  if (body->scanout >= kScanouts) return Response::kInvalidParameter;
  Edid said{};
  const auto bytes = make_edid(config_.xres, config_.yres);
  said.size = bytes.size();
  std::ranges::copy(bytes, said.bytes);
  answer.resize(sizeof(Header) + sizeof said);
  store(&answer[sizeof(Header)], said);
  return Response::kEdid;
}

void VirtioGpu::read_config(std::span<uint8_t> config) { store(&config[kNumScanouts], kScanouts); }

// --- what people see

display::Mode VirtioGpu::draw(display::Surface& surface, bool all) { return gpu().draw(surface, all); }

void VirtioGpu::watched(bool on) {
  watched_ = on;
  gpu_->watched(on);
}

bool VirtioGpu::in_charge() { return gpu().in_charge(); }

// --- state

namespace {

constexpr uint16_t kFieldBytes = 1, kFieldFirstPart = 2;
constexpr size_t kPartBytes = kMaxStateBytes / 2;
constexpr uint64_t kScreenBytes = uint64_t{1} << 16;  // more than is saved besides the resources

}  // namespace

void VirtioGpu::save_type(StateWriter& writer) {
  const std::vector<uint8_t> bytes = gpu().save();
  writer.field(kFieldBytes, static_cast<uint64_t>(bytes.size()));
  uint16_t number = kFieldFirstPart;
  for (std::span<const uint8_t> rest(bytes); !rest.empty(); rest = rest.subspan(std::min(kPartBytes, rest.size()))) {
    const auto part = rest.first(std::min(kPartBytes, rest.size()));
    writer.field(number++, std::vector<uint8_t>(part.begin(), part.end()));
  }
}

void VirtioGpu::restore_type(StateReader& reader) {
  restored_.reset();
  uint64_t size = 0;
  reader.field(kFieldBytes, size);
  if (!reader.ok() || !require(reader, size <= config_.max_bytes + kScreenBytes,
                               "the resources take more memory than max_hostmem allows here"))
    return;
  std::vector<uint8_t> bytes, part;
  for (uint16_t number = kFieldFirstPart; bytes.size() < size; ++number) {
    reader.field(number, part);
    if (!reader.ok()) return;
    if (!require(reader, part.size() == std::min(size - bytes.size(), kPartBytes), "a part has another length")) return;
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  auto made = make_gpu();
  if (require(reader, made->restore(bytes), "the resources, the screen or the cursor are impossible"))
    restored_ = std::move(made);
}

void VirtioGpu::apply_type() {
  gpu_ = std::move(restored_);
  seen_resets_ = resets_;
}

}  // namespace kite::devices
