#include "display/spice/spice_picture.h"

#include <spice.h>

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "display/spice/spice_draw.h"

namespace kite::display {

namespace {

constexpr uint32_t kFirstWidth = 640, kFirstHeight = 480;
constexpr uint32_t kGroup = 0, kPrimary = 0;

struct Size {
  uint32_t width = 0, height = 0;
  bool operator==(const Size&) const = default;
};
Size size_of(const FrameRelay::Frame& frame) { return {frame.width, frame.height}; }

}  // namespace

struct SpicePicture::Library {
  // The library hands back a pointer to the first.
  struct Instance {
    QXLInstance qxl;
    Library* owner;
  };

  Library(FrameRelay& frames, const Clock& host_clock, std::function<void(std::function<void()>)> post)
      : relay(frames), clock(host_clock), later(std::move(post)) {
    instance.qxl.base.sif = &interface()->base;
    instance.qxl.id = 0;
    instance.owner = this;
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  static Library& of(QXLInstance* qxl) { return *reinterpret_cast<Instance*>(qxl)->owner; }
  static const QXLInterface* interface();

  // --- the executor's thread

  bool attach(SpiceServer* server) {
    if (spice_server_add_interface(server, &instance.qxl.base) != 0) return false;
    // All of the process's memory: commands are made of pointers.
    QXLDevMemSlot slot{};
    slot.slot_group_id = kGroup;
    slot.virt_end = UINTPTR_MAX;
    spice_qxl_add_memslot(&instance.qxl, &slot);
    make_surface({kFirstWidth, kFirstHeight});
    return true;
  }

  void refresh() {
    const Size wanted = relay.take([](FrameRelay::Frame& frame) {
      frame.resized = false;
      return size_of(frame);
    });
    if (wanted != shown && wanted != Size{}) {
      // From here on the library's thread finds no commands.
      relay.use([this](FrameRelay::Frame&) { shown = {}; });
      spice_qxl_destroy_primary_surface(&instance.qxl, kPrimary);
      make_surface(wanted);
    }
    spice_qxl_wakeup(&instance.qxl);
  }

  // The library draws into pixels that are ours.
  void make_surface(Size size) {
    pixels.assign(size_t{size.width} * size.height, 0);
    QXLDevSurfaceCreate surface{};
    surface.width = size.width;
    surface.height = size.height;
    surface.stride = static_cast<int32_t>(size.width * sizeof(uint32_t));
    surface.format = SPICE_SURFACE_FMT_32_xRGB;
    surface.mouse_mode = 1;  // the client's pointer may be its own, where there is a tablet
    surface.type = QXL_SURF_TYPE_PRIMARY;
    surface.mem = reinterpret_cast<uintptr_t>(pixels.data());
    surface.group_id = kGroup;
    spice_qxl_create_primary_surface(&instance.qxl, kPrimary, &surface);
    relay.use([&](FrameRelay::Frame&) { shown = size; });
  }

  // --- the library's thread

  bool next(QXLCommandExt& command) {
    if (held_back) return false;
    if (bytes >= kMostBytes) {
      held_back = true;
      later([this] { spice_qxl_oom(&instance.qxl); });
      return false;
    }
    auto piece = relay.use(
        [this](FrameRelay::Frame& frame) { return size_of(frame) == shown ? take_piece(frame) : std::nullopt; });
    if (!piece) return false;
    const uint64_t id = next_id++;
    SpiceDraw& draw =
        draws.try_emplace(id, id, std::move(*piece), static_cast<uint32_t>(clock.now() / 1'000'000)).first->second;
    bytes += draw.bytes();
    command = draw.command();
    return true;
  }
  bool waits() {
    return relay.use([this](const FrameRelay::Frame& frame) {
      return !held_back && size_of(frame) == shown && !frame.rects.empty();
    });
  }
  void release(uint64_t id) {
    const auto draw = draws.find(id);
    if (draw == draws.end()) return;
    bytes -= draw->second.bytes();
    draws.erase(draw);
    if (!held_back || bytes > kMostBytes / 2) return;
    held_back = false;
    later([this] { spice_qxl_wakeup(&instance.qxl); });
  }

  FrameRelay& relay;
  const Clock& clock;
  const std::function<void(std::function<void()>)> later;
  Instance instance{};
  std::vector<uint32_t> pixels;  // the primary surface
  Size shown;                    // its size; under the relay's lock
  // The library's thread.
  std::map<uint64_t, SpiceDraw> draws;  // that it has
  uint64_t next_id = 1;
  size_t bytes = 0;        // of `draws`
  bool held_back = false;  // until it has released enough
};

const QXLInterface* SpicePicture::Library::interface() {
  static const QXLInterface table = [] {
    QXLInterface made{};
    made.base = {.type = SPICE_INTERFACE_QXL,
                 .description = "Kite's screen",
                 .major_version = SPICE_INTERFACE_QXL_MAJOR,
                 .minor_version = SPICE_INTERFACE_QXL_MINOR};
    made.attached_worker = [](QXLInstance*) {};
    made.set_compression_level = [](QXLInstance*, int) {};
    made.get_init_info = [](QXLInstance*, QXLDevInitInfo* info) {
      // The slot's number and generation are the top bits of an address, and zero: what pointers have there.
      *info = {};
      info->num_memslots_groups = 1;
      info->num_memslots = 1;
      info->memslot_gen_bits = info->memslot_id_bits = 8;
      info->n_surfaces = 1;
    };
    made.get_command = [](QXLInstance* qxl, QXLCommandExt* command) { return of(qxl).next(*command) ? 1 : 0; };
    made.req_cmd_notification = [](QXLInstance* qxl) { return of(qxl).waits() ? 0 : 1; };
    made.release_resource = [](QXLInstance* qxl, QXLReleaseInfoExt resource) { of(qxl).release(resource.info->id); };
    // The guest has drawn its cursor where the screen shows it.
    made.get_cursor_command = [](QXLInstance*, QXLCommandExt*) { return 0; };
    made.req_cursor_notification = [](QXLInstance*) { return 1; };
    made.notify_update = [](QXLInstance*, uint32_t) {};
    made.flush_resources = [](QXLInstance*) { return 0; };
    made.async_complete = [](QXLInstance*, uint64_t) {};
    made.update_area_complete = [](QXLInstance*, uint32_t, QXLRect*, uint32_t) {};
    made.set_client_capabilities = [](QXLInstance*, uint8_t, uint8_t*) {};
    made.client_monitors_config = [](QXLInstance*, VDAgentMonitorsConfig*) { return 0; };  // one size: the guest's
    return made;
  }();
  return &table;
}

SpicePicture::SpicePicture(FrameRelay& relay, const Clock& clock, std::function<void(std::function<void()>)> later)
    : library_(std::make_unique<Library>(relay, clock, std::move(later))) {}

SpicePicture::~SpicePicture() = default;

bool SpicePicture::attach(RedsState* server) { return library_->attach(server); }
void SpicePicture::detach() { spice_server_remove_interface(&library_->instance.qxl.base); }
void SpicePicture::refresh() { library_->refresh(); }

}  // namespace kite::display
