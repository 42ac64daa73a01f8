#include "display/vnc/vnc_screen.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <rfb/rfb.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "support/log.h"

extern "C" {  // which this header leaves to its users
#include <rfb/rfbregion.h>
}

namespace kite::display {

namespace {

constexpr int kFirstWidth = 640, kFirstHeight = 480;
constexpr int kSampleBits = 8, kSamples = 3, kPixelBytes = 4;
constexpr int64_t kRetryNs = 20'000'000;  // for clients that have not taken the last update yet

// The library's pixels have red in the lowest byte.
uint32_t to_library(uint32_t pixel) { return __builtin_bswap32(pixel) >> 8; }

}  // namespace

struct VncScreen::Library {
  struct Client {
    int number;
    Fd socket;  // ours; the library has a duplicate, which it closes when it pleases
    rfbClientPtr client = nullptr;
    bool ready = false;
  };

  Library(Executor& loop, Clock& clock, Config given, Hooks called)
      : executor(loop),
        config(std::move(given)),
        hooks(std::move(called)),
        pixels(size_t{kFirstWidth} * kFirstHeight),
        retry(clock, [this] { update_clients(); }) {
    rfbLogEnable(FALSE);
    rfbMaxClientWait = kStallMs;
    screen = rfbGetScreen(nullptr, nullptr, kFirstWidth, kFirstHeight, kSampleBits, kSamples, kPixelBytes);
    screen->screenData = this;
    screen->frameBuffer = reinterpret_cast<char*>(pixels.data());
    screen->desktopName = config.name.c_str();
    screen->cursor = nullptr;  // the guest draws its own
    screen->deferUpdateTime = screen->deferPtrUpdateTime = 0;
    screen->maxClientWait = kStallMs;
    screen->alwaysShared = config.share != Share::kAllowExclusive;
    screen->kbdAddEvent = [](rfbBool down, rfbKeySym keysym, rfbClientPtr client) {
      of(client->screen).hooks.key(keysym, down != 0);
    };
    screen->ptrAddEvent = [](int buttons, int x, int y, rfbClientPtr client) {
      of(client->screen).hooks.pointer(x, y, buttons);
    };
    screen->setXCutText = [](char*, int, rfbClientPtr) {};
    screen->passwordCheck = [](rfbClientPtr client, const char* response, int length) -> rfbBool {
      return of(client->screen).password_fits(*client, response, length) ? TRUE : FALSE;
    };
    if (config.password) screen->authPasswdData = this;  // what the library takes for "asks for a password"
  }
  ~Library() {
    drop_clients();
    screen->frameBuffer = nullptr;
    rfbScreenCleanup(screen);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  static Library& of(rfbScreenInfoPtr screen) { return *static_cast<Library*>(screen->screenData); }

  bool password_fits(rfbClientRec& client, const char* response, int length) {
    if (password.empty() || ::time(nullptr) >= expiry || length != CHALLENGESIZE) return false;
    unsigned char wanted[CHALLENGESIZE];
    std::memcpy(wanted, client.authChallenge, sizeof wanted);
    std::string key = password;  // the library takes the first eight letters, and would write them
    rfbEncryptBytes(wanted, key.data());
    return std::memcmp(wanted, response, sizeof wanted) == 0;
  }

  void take(const FrameRelay::Frame& frame) {
    if (frame.resized) {
      pixels.resize(frame.pixels.size());
      std::ranges::transform(frame.pixels, pixels.begin(), to_library);
      rfbNewFramebuffer(screen, reinterpret_cast<char*>(pixels.data()), static_cast<int>(frame.width),
                        static_cast<int>(frame.height), kSampleBits, kSamples, kPixelBytes);
      drop_if([](rfbClientRec& client) {
        return client.state == rfbClientRec::RFB_NORMAL && !client.useNewFBSize && !client.useExtDesktopSize;
      });
    } else {
      for (const Rect& rect : frame.rects) copy(frame, rect);
    }
  }
  void copy(const FrameRelay::Frame& frame, const Rect& rect) {
    for (uint32_t y = rect.y; y < rect.y + rect.height; ++y) {
      const size_t at = size_t{y} * frame.width + rect.x;
      std::transform(&frame.pixels[at], &frame.pixels[at] + rect.width, &pixels[at], to_library);
    }
    rfbMarkRectAsModified(screen, static_cast<int>(rect.x), static_cast<int>(rect.y),
                          static_cast<int>(rect.x + rect.width), static_cast<int>(rect.y + rect.height));
  }

  void add_client(int number, Fd socket) {
    const int fd = socket.get();
    Fd theirs(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    // The library looks at descriptors with select().
    if (!theirs.valid() || theirs.get() >= FD_SETSIZE) {
      log::warn("VNC: too many open files for another client");
      hooks.gone(number);
      return;
    }
    const rfbClientPtr client = rfbNewClient(screen, theirs.release());
    if (client == nullptr) {
      hooks.gone(number);
      return;
    }
    clients.push_back({.number = number, .socket = std::move(socket), .client = client});
    if (client->wsctx != nullptr) {  // a WebSocket handshake, which is not on offer
      end(clients.size() - 1);
      return;
    }
    executor.watch(fd, EPOLLIN, [this, fd](uint32_t) { readable(fd); });
  }
  void readable(int fd) {
    const auto found = std::ranges::find(clients, fd, [](const Client& one) { return one.socket.get(); });
    if (found == clients.end()) return;
    rfbProcessClientMessage(found->client);
    if (!found->ready && found->client->state == rfbClientRec::RFB_NORMAL) {
      found->ready = true;
      hooks.ready(found->number);
    }
    drop_if([](rfbClientRec&) { return false; });
    update_clients();
  }
  // Those that say so, and those whose connection the library has closed.
  template <class Condition>
  void drop_if(Condition condition) {
    for (size_t index = clients.size(); index-- > 0;)
      if (clients[index].client->sock == RFB_INVALID_SOCKET || condition(*clients[index].client)) end(index);
  }
  void drop_clients() {
    drop_if([](rfbClientRec&) { return true; });
  }
  void end(size_t index) {
    Client gone = std::move(clients[index]);
    clients.erase(clients.begin() + static_cast<ptrdiff_t>(index));
    executor.unwatch(gone.socket.get());
    if (gone.client->sock != RFB_INVALID_SOCKET) rfbCloseClient(gone.client);
    rfbClientConnectionGone(gone.client);
    hooks.gone(gone.number);
  }

  // A client gets an update when it has taken all that it was sent before.
  void update_clients() {
    bool waits = false;
    for (const Client& one : clients) {
      if (one.client->sock == RFB_INVALID_SOCKET || one.client->state != rfbClientRec::RFB_NORMAL) continue;
      int unsent = 0;
      if (::ioctl(one.socket.get(), SIOCOUTQ, &unsent) == 0 && unsent > 0 && FB_UPDATE_PENDING(one.client))
        waits = true;
      else
        rfbUpdateClient(one.client);
    }
    drop_if([](rfbClientRec&) { return false; });
    if (waits) retry.arm_at(retry.clock().now() + kRetryNs);
  }

  Executor& executor;
  const Config config;
  const Hooks hooks;
  rfbScreenInfoPtr screen = nullptr;
  std::vector<uint32_t> pixels;
  std::vector<Client> clients;
  std::string password;
  int64_t expiry = kNeverExpires;
  Timer retry;
};

VncScreen::VncScreen(Executor& executor, Clock& clock, Config config, Hooks hooks)
    : library_(std::make_unique<Library>(executor, clock, std::move(config), std::move(hooks))) {}

VncScreen::~VncScreen() = default;

void VncScreen::take(const FrameRelay::Frame& frame) { library_->take(frame); }
void VncScreen::update_clients() { library_->update_clients(); }
void VncScreen::add_client(int number, Fd socket) { library_->add_client(number, std::move(socket)); }
void VncScreen::drop_clients() { library_->drop_clients(); }
void VncScreen::set_password(std::string password) { library_->password = std::move(password); }
void VncScreen::set_expiry(int64_t seconds) { library_->expiry = seconds; }

}  // namespace kite::display
