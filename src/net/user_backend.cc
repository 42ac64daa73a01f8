#include "net/user_backend.h"

#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstdlib>

#include "support/log.h"

namespace kite::net {

namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kStandStillNs = 100 * kMillisecond;

in_addr wire(Ipv4 address) { return {.s_addr = htonl(address)}; }
const char* text_or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

in6_addr ipv6_address(uint8_t last) {
  in6_addr address{};
  address.s6_addr[0] = 0xfe;
  address.s6_addr[1] = 0xc0;
  address.s6_addr[15] = last;
  return address;
}

struct EventPair {
  int slirp;
  uint32_t epoll;
};
constexpr EventPair kEvents[] = {{SLIRP_POLL_IN, EPOLLIN},
                                 {SLIRP_POLL_OUT, EPOLLOUT},
                                 {SLIRP_POLL_PRI, EPOLLPRI},
                                 {SLIRP_POLL_ERR, EPOLLERR},
                                 {SLIRP_POLL_HUP, EPOLLHUP}};

}  // namespace

// What libslirp calls; all on the executor's thread, from inside a call of ours.
struct UserBackend::Callbacks {
  static UserBackend& self(void* opaque) { return *static_cast<UserBackend*>(opaque); }

  static ssize_t send_packet(const void* frame, size_t bytes, void* opaque) {
    self(opaque).deliver(Frame(static_cast<const uint8_t*>(frame), bytes));
    return static_cast<ssize_t>(bytes);
  }
  static void guest_error(const char* text, void* opaque) { log::guest_error("{}: {}", self(opaque).id(), text); }
  static int64_t now(void* opaque) { return self(opaque).clock_.now(); }
  static void init_completed(Slirp* slirp, void* opaque) { self(opaque).slirp_ = slirp; }

  static void* timer_new(SlirpTimerId id, void* of_timer, void* opaque) {
    UserBackend& owner = self(opaque);
    return new Timer(owner.clock_, [&owner, id, of_timer] {
      slirp_handle_timer(owner.slirp_, id, of_timer);
      owner.due_ = true;
    });
  }
  static void timer_free(void* timer, void*) { delete static_cast<Timer*>(timer); }
  static void timer_mod(void* timer, int64_t expire_ms, void*) {
    static_cast<Timer*>(timer)->arm_at(expire_ms * kMillisecond);
  }

  static void register_fd(int, void*) {}
  static void unregister_fd(int fd, void* opaque) { self(opaque).forget(fd); }
  static void notify(void* opaque) { self(opaque).due_ = true; }

  static int add_poll(int fd, int events, void* opaque) {
    UserBackend& owner = self(opaque);
    owner.polled_.push_back({.fd = fd, .events = events});
    for (const EventPair& event : kEvents)
      if ((events & event.slirp) != 0) owner.watches_[fd].wanted |= event.epoll;
    return static_cast<int>(owner.polled_.size() - 1);
  }
  static int get_ready(int index, void* opaque) { return self(opaque).ready_events(index); }

  static constexpr SlirpCb kTable{.send_packet = send_packet,
                                  .guest_error = guest_error,
                                  .clock_get_ns = now,
                                  .timer_new = nullptr,
                                  .timer_free = timer_free,
                                  .timer_mod = timer_mod,
                                  .register_poll_fd = register_fd,
                                  .unregister_poll_fd = unregister_fd,
                                  .notify = notify,
                                  .init_completed = init_completed,
                                  .timer_new_opaque = timer_new};
};

UserBackend::UserBackend(std::string id, Executor& executor, Clock& clock, UserConfig config)
    : NetBackend(std::move(id), "user", executor), config_(std::move(config)), clock_(clock), deadline_(clock, [this] {
        accept_input();
        due_ = true;
      }) {}

Result<std::unique_ptr<UserBackend>> UserBackend::create(std::string id, Executor& executor, Clock& clock,
                                                         const UserConfig& config) {
  std::unique_ptr<UserBackend> made(new UserBackend(std::move(id), executor, clock, config));
  made->open();
  if (made->slirp_ == nullptr) return fail("libslirp does not take these settings");
  for (const Forward& forward : config.forwards) KITE_TRY(made->add_forward(forward));
  return made;
}

void UserBackend::open() {
  std::vector<const char*> search;
  search.reserve(config_.dns_search.size() + 1);
  for (const std::string& domain : config_.dns_search) search.push_back(domain.c_str());
  search.push_back(nullptr);
  SlirpConfig wanted{};
  wanted.version = 4;
  wanted.restricted = config_.restricted ? 1 : 0;
  wanted.in_enabled = config_.ipv4;
  wanted.vnetwork = wire(config_.net);
  wanted.vnetmask = wire(config_.mask);
  wanted.vhost = wire(config_.host);
  wanted.vdhcp_start = wire(config_.dhcp_start);
  wanted.vnameserver = wire(config_.dns);
  wanted.in6_enabled = config_.ipv6;
  wanted.vprefix_addr6 = ipv6_address(0);
  wanted.vprefix_len = 64;
  wanted.vhost6 = ipv6_address(2);
  wanted.vnameserver6 = ipv6_address(3);
  wanted.vhostname = text_or_null(config_.hostname);
  wanted.vdomainname = text_or_null(config_.domain);
  wanted.tftp_server_name = text_or_null(config_.tftp_server);
  wanted.tftp_path = text_or_null(config_.tftp);
  wanted.bootfile = text_or_null(config_.bootfile);
  wanted.vdnssearch = config_.dns_search.empty() ? nullptr : search.data();
  slirp_ = slirp_new(&wanted, &Callbacks::kTable, this);
  if (slirp_ != nullptr) executor().add_batch_hook(this, [this] { return before_wait(); });
}

UserBackend::~UserBackend() {
  if (slirp_ == nullptr) return;
  executor().remove_batch_hook(this);
  slirp_cleanup(slirp_);  // calls back
  while (!watches_.empty()) forget(watches_.begin()->first);
}

std::string UserBackend::info() const {
  return fmt::format("net={},restrict={}", ipv4_text(config_.net), config_.restricted ? "on" : "off");
}

std::string UserBackend::connections() const {
  char* const text = slirp_connection_info(slirp_);
  std::string answer = text == nullptr ? "" : text;
  std::free(text);
  return answer;
}

// --- forwards

Result<> UserBackend::add_forward(const Forward& forward) {
  const Ipv4 guest = forward.guest != 0 ? forward.guest : config_.dhcp_start;
  errno = 0;
  if (slirp_add_hostfwd(slirp_, forward.udp ? 1 : 0, wire(forward.host), forward.host_port, wire(guest),
                        forward.guest_port) != 0)
    return fail("hostfwd={}: the host's port cannot be listened at: {}", forward_text(forward), errno_text(errno));
  due_ = true;
  return {};
}

Result<> UserBackend::remove_forward(const Forward& forward) {
  if (slirp_remove_hostfwd(slirp_, forward.udp ? 1 : 0, wire(forward.host), forward.host_port) != 0)
    return fail("there is no forward of {}:{}:{}", forward.udp ? "udp" : "tcp",
                forward.host == 0 ? "" : ipv4_text(forward.host), forward.host_port);
  due_ = true;
  return {};
}

// --- the loop

Delivery UserBackend::do_send(Frame frame) {
  slirp_input(slirp_, frame.data(), static_cast<int>(frame.size()));
  due_ = true;
  return Delivery::kTaken;
}

bool UserBackend::before_wait() {
  if (!std::exchange(due_, false)) return false;
  if (!backed_up()) {
    slirp_pollfds_poll(slirp_, 0, &Callbacks::get_ready, this);
    for (auto& [fd, watch] : watches_) watch.ready = 0;
  }
  if (backed_up())
    stand_still();
  else
    fill();
  return false;
}

void UserBackend::fill() {
  polled_.clear();
  for (auto& [fd, watch] : watches_) watch.wanted = 0;
  uint32_t timeout_ms = UINT32_MAX;
  slirp_pollfds_fill(slirp_, &timeout_ms, &Callbacks::add_poll, this);
  for (auto& [fd, watch] : watches_) ask(fd, watch);
  if (timeout_ms == UINT32_MAX)
    deadline_.disarm();
  else
    deadline_.arm_at(clock_.now() + timeout_ms * kMillisecond);
}

// The card tells when it goes on; that its driver has gone away it does not, so it is asked now and then.
void UserBackend::stand_still() {
  for (auto& [fd, watch] : watches_) {
    watch.wanted = watch.ready = 0;
    ask(fd, watch);
  }
  deadline_.arm_at(clock_.now() + kStandStillNs);
}

void UserBackend::ask(int fd, Watch& watch) {
  if (watch.asked == watch.wanted) return;
  if (watch.asked == 0) {
    executor().watch(fd, watch.wanted, [this, fd](uint32_t events) {
      watches_[fd].ready |= events;
      due_ = true;
    });
  } else if (watch.wanted == 0) {
    executor().unwatch(fd);
  } else {
    executor().modify(fd, watch.wanted);
  }
  watch.asked = watch.wanted;
}

// libslirp closes it next.
void UserBackend::forget(int fd) {
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  if (found->second.asked != 0) executor().unwatch(fd);
  watches_.erase(found);
}

int UserBackend::ready_events(int index) const {
  if (index < 0 || static_cast<size_t>(index) >= polled_.size()) return 0;
  const Polled& polled = polled_[static_cast<size_t>(index)];
  const auto found = watches_.find(polled.fd);
  if (found == watches_.end()) return 0;
  int ready = 0;
  for (const EventPair& event : kEvents)
    if ((found->second.ready & event.epoll) != 0) ready |= event.slirp;
  return ready & (polled.events | SLIRP_POLL_ERR | SLIRP_POLL_HUP);
}

}  // namespace kite::net
