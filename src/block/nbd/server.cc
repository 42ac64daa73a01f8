#include "block/nbd/server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "support/log.h"

namespace kite::block::nbd {
namespace {

constexpr size_t kMostExports = 1024;  // all of them are told to a client that asks

void set_up(int socket) {
  const int on = 1;
  // Of a unix socket these are errors that nobody needs to know.
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

Fd spare_descriptor() { return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

Server::~Server() { close_listeners(); }

void Server::close_listeners() {
  for (const Fd& listener : listening_.sockets) graph_.executor().unwatch(listener.get());
  if (!listening_.path.empty()) ::unlink(listening_.path.c_str());
  listening_ = {};
}

Result<> Server::start(Listening listening, size_t max_connections) {
  if (running_) return fail("NBD server already running");
  running_ = true;
  max_connections_ = max_connections;
  listening_ = std::move(listening);
  spare_ = spare_descriptor();
  for (const Fd& listener : listening_.sockets) {
    ::listen(listener.get(), SOMAXCONN);  // clients that come by several connections do so at once
    graph_.executor().watch(listener.get(), EPOLLIN, [this, fd = listener.get()](uint32_t) { accept(fd); });
  }
  return {};
}

void Server::accept(int listener) {
  const auto next = [listener] { return Fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)); };
  Fd socket = next();
  if (socket.valid()) {
    set_up(socket.get());
    serve(std::move(socket));
  } else if (errno == EMFILE || errno == ENFILE) {
    // The client would wait, and the listener be ready, without end: it is told that it cannot be.
    log::warn("nbd: a client is turned away: {}", errno_text(errno));
    spare_.reset();
    (void)next();
    spare_ = spare_descriptor();
  }
  look_for_clients();
}

// Those that are too many wait where they are.
void Server::look_for_clients() {
  const bool room = max_connections_ == 0 || sessions_.size() < max_connections_;
  for (const Fd& listener : listening_.sockets) graph_.executor().modify(listener.get(), room ? EPOLLIN : 0u);
}

void Server::serve(Fd socket) { clients_.spawn(host(std::move(socket))); }

Task<void> Server::host(Fd socket) {
  ClientSession session(std::make_unique<Stream>(graph_.executor(), std::move(socket)), exports_);
  const auto at = sessions_.insert(sessions_.end(), &session);
  const bool served = co_await session.run();
  sessions_.erase(at);
  left_.wake_all();
  look_for_clients();
  if (hooks_.client_left) hooks_.client_left(served, sessions_.size());
}

Task<Result<>> Server::stop() {
  close_listeners();
  spare_.reset();
  running_ = false;
  const ExportList ending = exports_;
  for (const auto& disk : ending) disk->begin_end();
  for (ClientSession* session : sessions_) session->abort();
  Result<> result;
  for (const auto& disk : ending)
    if (Result<> done = co_await take_down(disk); !done && result) result = std::move(done);
  co_await clients_.join();
  co_return result;
}

// --- exports

Result<> Server::add(ExportRequest request) {
  if (find(request.id) != nullptr) return fail("Block export id '{}' is already in use", request.id);
  if (find_by_name(request.name) != nullptr) return fail("NBD server already has export named '{}'", request.name);
  if (exports_.size() >= kMostExports) return fail("the NBD server has {} exports already, the most", kMostExports);
  KITE_ASSIGN(std::shared_ptr<Export> made, Export::create(graph_, std::move(request)));
  for (unsigned i = 0; i < holds_; ++i) made->hold();
  exports_.push_back(std::move(made));
  return {};
}

std::shared_ptr<Export> Server::find(std::string_view id) const {
  const auto at = std::ranges::find_if(exports_, [id](const auto& disk) { return disk->id() == id; });
  return at == exports_.end() ? nullptr : *at;
}

std::shared_ptr<Export> Server::find_by_name(std::string_view name) const {
  const auto at = std::ranges::find_if(exports_, [name](const auto& disk) { return disk->name() == name; });
  return at == exports_.end() ? nullptr : *at;
}

size_t Server::clients_of(const Export& disk) const {
  return static_cast<size_t>(
      std::ranges::count_if(sessions_, [&disk](const ClientSession* session) { return session->uses(disk); }));
}

Task<Result<>> Server::remove(std::string id, bool hard) {
  const std::shared_ptr<Export> disk = find(id);
  if (disk == nullptr) co_return fail("Export '{}' is not found", id);
  if (disk->ending()) co_return fail("Export '{}' is already shutting down", id);
  if (const size_t clients = clients_of(*disk); clients != 0 && !hard)
    co_return fail("export '{}' still in use by {} client(s); use mode='hard' to force client disconnect", id, clients);
  disk->begin_end();
  for (ClientSession* session : sessions_)
    if (session->uses(*disk)) session->abort();
  co_return co_await take_down(disk);
}

// What is under way ends, its clients go, and then the node.
Task<Result<>> Server::take_down(std::shared_ptr<Export> disk) {
  while (clients_of(*disk) != 0) co_await left_.wait();
  Result<> done = co_await disk->end();
  if (std::erase(exports_, disk) != 0 && hooks_.export_gone) hooks_.export_gone(disk->id());
  co_return done;
}

// --- quiet

Task<void> Server::hold() {
  ++holds_;
  for (const auto& disk : exports_) disk->hold();
  const ExportList held = exports_;
  for (const auto& disk : held) co_await disk->drain();
}

void Server::release() {
  --holds_;
  for (const auto& disk : exports_) disk->release();
}

}  // namespace kite::block::nbd
