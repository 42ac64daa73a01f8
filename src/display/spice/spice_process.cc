#include "display/spice/spice_process.h"

#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "async/executor.h"
#include "display/spice/shared_picture.h"
#include "display/spice/spice_link.h"
#include "display/spice/spice_screen.h"
#include "support/log.h"

namespace kite::display {

namespace {

using Kind = SpicePacketKind;

// What the packets of the other process ask for.
class Server {
 public:
  Server(Executor& executor, Clock& clock, Fd link)
      : executor_(executor),
        clock_(clock),
        link_(
            executor, std::move(link), [this](SpicePacket packet) { received(std::move(packet)); },
            [&executor] { executor.stop(); }) {}

 private:
  void received(SpicePacket packet);
  void start(SpicePacket& packet);
  void take_picture(SpicePacket& packet);
  void take_changes(SpicePacket& packet);
  SpiceScreen::Hooks hooks();
  void tell_of_channel(ClientEvent event, uintptr_t number, const SpiceChannel& channel);

  Executor& executor_;
  Clock& clock_;
  SharedPicture picture_;
  FrameRelay relay_;
  SpiceLink link_;
  std::unique_ptr<SpiceScreen> screen_;
};

void Server::received(SpicePacket packet) {
  if (packet.kind() == Kind::kStart) return start(packet);
  if (screen_ == nullptr) return;
  switch (packet.kind()) {
    case Kind::kClient: screen_->add_client(std::move(packet.fd()), packet.get_flag()); break;
    case Kind::kPicture: take_picture(packet); break;
    case Kind::kChanged: take_changes(packet); break;
    case Kind::kTablet: screen_->set_tablet(packet.get_flag()); break;
    case Kind::kLeds: screen_->set_leds(packet.get<uint8_t>()); break;
    case Kind::kPassword: {
      std::string password = packet.get_text();
      screen_->set_password(std::move(password), packet.get_flag());
      break;
    }
    case Kind::kDevice: {
      std::string subtype = packet.get_text();
      screen_->add_device(std::move(subtype), packet.get_text());
      break;
    }
    case Kind::kDeviceOpen: {
      const auto number = packet.get<uint32_t>();
      screen_->set_device_open(number, packet.get_flag(), std::move(packet.fd()));
      break;
    }
    case Kind::kExpiry: screen_->set_expiry(packet.get<int64_t>()); break;
    default: break;
  }
}

void Server::start(SpicePacket& packet) {
  SpiceConfig config{.name = packet.get_text(), .ticketing = packet.get_flag(), .settings = {}};
  const auto count = packet.get<uint32_t>();
  for (uint32_t index = 0; index < count && packet.good(); ++index)
    config.settings.push_back(packet.get<SpiceConfig::Setting>());
  const auto rules = packet.get<uint32_t>();
  for (uint32_t index = 0; index < rules && packet.good(); ++index) {
    std::string channel = packet.get_text();
    config.channel_rules.push_back({.channel = std::move(channel), .tls = packet.get_flag()});
  }
  if (packet.get_flag()) {
    SpiceTls& tls = config.tls.emplace();
    for (std::string* const text : texts_of(tls)) *text = packet.get_text();
  }
  screen_ = std::make_unique<SpiceScreen>(executor_, clock_, relay_, hooks());
  const Result<> done = screen_->start(config);
  link_.send(SpicePacket(Kind::kStarted).put_text(done ? "" : done.error().message));
}

void Server::take_picture(SpicePacket& packet) {
  const auto width = packet.get<uint32_t>(), height = packet.get<uint32_t>();
  auto opened = SharedPicture::open(width, height, packet.fd());
  if (opened) {
    picture_ = std::move(*opened);
    if (relay_.put_all(picture_.view())) executor_.post([this] { screen_->refresh(); });
  }
  link_.send(SpicePacket(Kind::kTaken));
}

void Server::take_changes(SpicePacket& packet) {
  std::vector<Rect> rects(std::min<size_t>(packet.get<uint32_t>(), SpicePacket::kMostBytes / sizeof(Rect)));
  for (Rect& rect : rects) rect = packet.get<Rect>();
  if (relay_.put(picture_.view(), rects)) executor_.post([this] { screen_->refresh(); });
  link_.send(SpicePacket(Kind::kTaken));
}

SpiceScreen::Hooks Server::hooks() {
  return {
      .key = [this](KeyNumber key, bool down) { link_.send(SpicePacket(Kind::kKey).put(key).put(uint8_t{down})); },
      .move = [this](int32_t dx, int32_t dy, int32_t dz,
                     uint8_t buttons) { link_.send(SpicePacket(Kind::kMove).put(dx).put(dy).put(dz).put(buttons)); },
      .place = [this](uint16_t x, uint16_t y, int32_t dz,
                      uint8_t buttons) { link_.send(SpicePacket(Kind::kPlace).put(x).put(y).put(dz).put(buttons)); },
      .mouse_mode = [this](bool tablet) { link_.send(SpicePacket(Kind::kMouseMode).put(uint8_t{tablet})); },
      .channel = [this](ClientEvent event, uintptr_t number,
                        const SpiceChannel& channel) { tell_of_channel(event, number, channel); },
      .refused = [this] { link_.send(SpicePacket(Kind::kRefused)); },
      .device_socket =
          [this](size_t number, Fd socket) {
            link_.send(SpicePacket(Kind::kDeviceSocket, std::move(socket)).put(static_cast<uint32_t>(number)));
          }};
}

void Server::tell_of_channel(ClientEvent event, uintptr_t number, const SpiceChannel& channel) {
  SpicePacket packet(Kind::kChannel);
  packet.put(event).put(uint64_t{number});
  for (const Place* const place : {&channel.server, &channel.client})
    packet.put_text(place->host).put_text(place->service).put_text(place->family);
  link_.send(std::move(packet.put(channel.connection).put(uint8_t{channel.tls}).put(channel.type).put(channel.id)));
}

}  // namespace

int run_spice_process(Fd link) {
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(link.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET) {
    log::error("{} is for Kite itself; use -spice", kSpiceProcessArgument);
    return 1;
  }
  const auto own = static_cast<unsigned>(link.get());
  if (own > STDERR_FILENO + 1) ::close_range(STDERR_FILENO + 1, own - 1, 0);
  ::close_range(own + 1, ~0u, 0);
  ::signal(SIGPIPE, SIG_IGN);                          // the library writes to clients that may be gone
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};  // a client could fill a folder with them
  ::setrlimit(RLIMIT_CORE, &no_core);
  auto executor = Executor::create("spice");
  if (!executor) return 1;
  HostClock clock(HostClock::Kind::kMonotonic);
  (*executor)->attach(clock);
  {
    Server server(**executor, clock, std::move(link));
    (*executor)->run();
  }
  (*executor)->detach(clock);
  return 0;
}

Result<pid_t> spawn_spice_process(Fd link) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  const std::unique_ptr<posix_spawn_file_actions_t, int (*)(posix_spawn_file_actions_t*)> owner(
      &actions, ::posix_spawn_file_actions_destroy);
  ::posix_spawn_file_actions_adddup2(&actions, link.get(), kSpiceProcessLink);
  std::string name = "kite", argument = kSpiceProcessArgument;
  char* const arguments[] = {name.data(), argument.data(), nullptr};
  pid_t pid = -1;
  if (const int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ); error != 0)
    return fail("cannot start the process of the SPICE server: {}", errno_text(error));
  return pid;
}

SpiceProcess::~SpiceProcess() {
  if (pid_ < 0) return;
  const Fd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  pollfd ended{.fd = handle.get(), .events = POLLIN, .revents = 0};
  if (handle.valid()) ::poll(&ended, 1, kPatienceMs);
  end();
}

std::string SpiceProcess::end() {
  int status = 0;
  ::kill(pid_, SIGKILL);  // means nothing to one that has ended
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                             : fmt::format("status {}", WEXITSTATUS(status));
}

}  // namespace kite::display
