// Server: gives clients of the network block device protocol disks of a graph ([NBD] doc/proto.md). Exports come and go
// while it listens, or is only handed connections.
//
// Everything happens on the graph's executor.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/nbd/client_session.h"
#include "block/nbd/export.h"

namespace kite::block::nbd {

struct ServerHooks {
  std::function<void(const std::string& id)> export_gone{};
  // A client has left; how many others are there. `served`: it had come as far as an export.
  std::function<void(bool served, size_t others)> client_left{};
};

// Sockets that listen. A unix socket's file goes with them.
struct Listening {
  std::vector<Fd> sockets;
  std::string path{};
};

class Server {
 public:
  static constexpr size_t kUsualMaxConnections = 100;

  Server(BlockGraph& graph, ServerHooks hooks) : graph_(graph), hooks_(std::move(hooks)) {}
  // stop() has been awaited.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Takes connections from listening sockets, `max_connections` at once; 0: any number.
  Result<> start(Listening listening, size_t max_connections);
  [[nodiscard]] bool running() const { return running_; }
  // A connected socket.
  void serve(Fd socket);
  // No new clients, those that are there are hung up, and all exports end. The first error of an export.
  Task<Result<>> stop();

  // Ids and names are unique.
  Result<> add(ExportRequest request);
  // With clients it is refused, or, if `hard`, they are hung up.
  Task<Result<>> remove(std::string id, bool hard);
  [[nodiscard]] const ExportList& exports() const { return exports_; }
  [[nodiscard]] std::shared_ptr<Export> find(std::string_view id) const;
  [[nodiscard]] std::shared_ptr<Export> find_by_name(std::string_view name) const;

  // No request of a client is under way at a disk, until release() (nests).
  Task<void> hold();
  void release();

 private:
  Task<void> host(Fd socket);
  void accept(int listener);
  void look_for_clients();
  void close_listeners();
  [[nodiscard]] size_t clients_of(const Export& disk) const;
  Task<Result<>> take_down(std::shared_ptr<Export> disk);

  BlockGraph& graph_;
  ServerHooks hooks_;
  bool running_ = false;
  size_t max_connections_ = 0;
  unsigned holds_ = 0;
  Listening listening_;
  Fd spare_;  // for when there are no other descriptors
  ExportList exports_;
  std::list<ClientSession*> sessions_;
  CoQueue left_;  // a client has left
  TaskScope clients_;
};

}  // namespace kite::block::nbd
