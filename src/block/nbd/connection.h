// One connection to an NBD server after its handshake: many requests under way, answers in any order.
//
// There is no task of its own that reads: among the requests that wait, one takes the turn to receive, hands the others
// what is theirs, and passes the turn on when its own answer is there. So nothing outlives the requests.
#pragma once

#include <coroutine>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "block/co_sync.h"
#include "block/nbd/handshake.h"
#include "block/nbd/stream.h"
#include "block/nbd/wire.h"

namespace kite::block::nbd {

// A request and what came back; on the frame of whoever awaits it. Zero-initialised but for the first five.
struct Call {
  Command command;
  uint16_t flags = 0;  // CommandFlag
  uint64_t offset = 0;
  uint32_t bytes = 0;
  IoSlice data{};  // kRead: to be filled; kWrite: to be sent
  // The answer.
  int code = 0;  // a positive errno, 0 when it went well
  uint64_t status_bytes = 0;
  uint32_t status_flags = 0;
  // The connection's.
  uint64_t cookie = 0;
  bool done = false;
  unsigned chunks_without_data = 0;
  std::map<uint64_t, uint64_t> covered{};  // kRead: offset -> end of what has arrived
  std::coroutine_handle<> waiter{};
};

class Connection {
 public:
  Connection(std::unique_ptr<Stream> stream, ExportFacts facts) : stream_(std::move(stream)), facts_(facts) {}

  [[nodiscard]] const ExportFacts& facts() const { return facts_; }
  // No further request gets an answer.
  [[nodiscard]] bool broken() const { return !why_.empty(); }
  [[nodiscard]] const std::string& why() const { return why_; }

  // True: the server answered, and call.code says what. False: the connection broke before.
  Task<bool> perform(Call& call);
  // Says goodbye, without waiting for an answer ([NBD] NBD_CMD_DISC has none).
  Task<void> disconnect();
  // Ends the connection; requests under way end as broken.
  void abort(std::string why);

 private:
  struct WaitFor {
    Call& call;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { call.waiter = handle; }
    void await_resume() const noexcept {}
  };
  struct Chunk {
    uint16_t flags, type;
    uint32_t bytes;
  };
  using Outcome = Result<>;  // an error: the peer does not keep to the protocol, or is gone

  Task<Outcome> receive_one();
  Task<Outcome> receive_simple(Call& call, uint32_t error);
  Task<Outcome> receive_chunk(Call& call, Chunk chunk);
  Task<Outcome> receive_data(Call& call, Chunk chunk);
  Task<Outcome> receive_hole(Call& call, Chunk chunk);
  Task<Outcome> receive_status(Call& call, Chunk chunk);
  Task<Outcome> receive_error(Call& call, Chunk chunk);
  Task<Outcome> receive_bytes(void* to, size_t bytes);
  Outcome cover(Call& call, uint64_t offset, uint64_t bytes);
  Outcome finish(Call& call);
  void pass_turn();

  std::unique_ptr<Stream> stream_;
  ExportFacts facts_;
  std::string why_;
  CoMutex sending_;
  bool receiving_ = false;
  uint64_t next_cookie_ = 1;
  std::unordered_map<uint64_t, Call*> calls_;  // by cookie
};

}  // namespace kite::block::nbd
