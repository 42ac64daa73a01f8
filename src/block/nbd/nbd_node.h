// NbdNode: a disk that a server of the network block device protocol exports ("nbd").
//
// A lost connection is made anew. Requests that were under way wait for it, and are asked again, for reconnect-delay
// seconds; with 0 they fail at once. What was written and not flushed before the loss may be gone with the server:
// the next flush says so by failing once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "block/graph.h"
#include "block/nbd/address.h"
#include "block/nbd/connection.h"
#include "block/node.h"
#include "block/write_turns.h"

namespace kite::block::nbd {

class NbdNode final : public BlockNode {
 public:
  struct Settings {
    Target target;
    int64_t reconnect_delay_ns = 0;
    int64_t open_timeout_ns = 0;
  };
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  // Over a connected socket, which is not made anew when it is lost; for tests.
  static Task<Result<NodePtr>> open_over(Executor& executor, NodeConfig config, Fd socket, std::string export_name);

  [[nodiscard]] std::string filename() const override { return target_uri(settings_.target); }
  [[nodiscard]] uint64_t length() const override { return facts_.bytes; }
  [[nodiscard]] BlockLimits limits() const override;
  // The same size is no change; a server's disk cannot be resized.
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;

 protected:
  Task<Result<>> do_close() override;
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  using Link = std::shared_ptr<Connection>;
  NbdNode(Executor& executor, NodeConfig config, Settings settings)
      : BlockNode(executor, "nbd", std::move(config)), settings_(std::move(settings)) {}

  Task<Result<>> open_first();
  Task<Result<Link>> connect_once(int64_t deadline_ns);
  Task<Result<Link>> shake_hands(Fd socket, int64_t deadline_ns);
  Result<> check_rights(const ExportFacts& facts);
  Task<Link> link();  // null: there is none in time
  void lost(const Connection& connection);
  Task<IoResult<>> perform(Call& call);
  Task<IoResult<>> transfer(Command command, uint16_t flags, uint64_t offset, IoSlice slice);
  Task<IoResult<>> write_bounced(uint64_t offset, IoSlice from, uint16_t flags);
  // Commands without payload, in pieces that fit their 32-bit length.
  Task<IoResult<>> without_payload(Command command, uint16_t flags, uint64_t offset, uint64_t bytes);
  [[nodiscard]] bool serves(ExportFlag flag) const { return (facts_.flags & flag) != 0; }

  Settings settings_;
  ExportFacts facts_;
  Link link_;
  bool can_reconnect_ = true;
  CoMutex connecting_;
  int64_t lost_at_ns_ = 0;
  int64_t next_attempt_ns_ = 0;
  int64_t backoff_ns_ = 0;
  bool unflushed_ = false;  // writes were answered since the last flush
  bool lost_data_ = false;  // the connection went while there were such
  WriteTurns turns_;
};

}  // namespace kite::block::nbd
