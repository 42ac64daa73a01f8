// One client of an NBD server, from the handshake until it leaves. What it asks is served side by side, up to a number
// of requests and an amount of memory; beyond that nothing more is read from it. Whatever it sends, or does not take,
// is no other client's trouble.
#pragma once

#include <memory>
#include <vector>

#include "block/file_node.h"
#include "block/nbd/server_handshake.h"
#include "block/nbd/stream.h"

namespace kite::block::nbd {

class ClientSession {
 public:
  // `exports` may change meanwhile.
  ClientSession(std::unique_ptr<Stream> stream, const ExportList& exports)
      : stream_(std::move(stream)), exports_(exports) {}

  // Until the client leaves, or breaks the protocol, or abort(). Answers whether it had come as far as an export.
  Task<bool> run();
  // Hangs up; what is under way at the disk ends first.
  void abort() { stream_->abort(); }
  [[nodiscard]] bool uses(const Export& disk) const { return agreed_.disk.get() == &disk; }

 private:
  struct Request {
    uint16_t flags;  // CommandFlag
    Command command;
    uint64_t cookie, offset;
    uint32_t bytes;
    int code = 0;  // why it is refused, as an errno
  };
  class Memory;

  Task<bool> next_request();
  [[nodiscard]] int judge(const Request& request) const;
  Task<void> serve(Request request, Memory memory);
  Task<void> read(Request request, IoSlice to);
  Task<IoResult<std::vector<Extent>>> read_pieces(Request request, IoSlice to);
  Task<void> send_pieces(Request request, std::vector<Extent> pieces, IoSlice data);
  Task<void> tell_status(Request request);
  Task<IoResult<>> act(Request request, IoSlice memory);
  Task<IoResult<>> write_zeroes(Request request);
  Task<IoResult<>> discard(Request request);
  Task<IoResult<>> cache(Request request, IoSlice memory);
  Task<void> reply(Request request, int code, IoSlice data = {});
  Task<void> reply_error(Request request, int code);
  Task<void> send(std::vector<uint8_t> head, IoSlice data);

  Memory take_memory(size_t bytes);
  void give_back(AlignedBuffer memory);

  std::unique_ptr<Stream> stream_;
  const ExportList& exports_;
  Agreement agreed_;
  CoMutex sending_;
  TaskScope requests_;
  size_t under_way_ = 0;
  uint64_t memory_ = 0;  // bytes that requests have
  CoQueue room_;         // a request has ended
  std::vector<AlignedBuffer> spare_;
  uint64_t spare_bytes_ = 0;
  unsigned in_a_row_ = 0;  // requests, since others had their turn
};

}  // namespace kite::block::nbd
