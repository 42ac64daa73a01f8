// What the block layer takes from people, from servers and from clients. The first byte chooses: 0: the rest is options
// of a node, or the name of a file or a server; 1: all that a hostile NBD server ever says, from its greeting on; 2:
// all that a hostile NBD client does.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "block/bitmap_requests.h"
#include "block/graph.h"
#include "block/image.h"
#include "block/nbd/nbd_node.h"
#include "block/nbd/server.h"
#include "block/plain_nodes.h"

namespace kite::block {
namespace {

// Only nodes that touch nothing outside of the process, and do not sleep.
bool harmless(const BlockOptions& options) {
  static constexpr std::array<std::string_view, 9> kDrivers{
      "null-co", "memory", "raw", "copy-on-read", "blkdebug", "qcow2", "qed", "power-cut", "null-aio"};
  for (const auto& [name, value] : options.all()) {
    const std::string_view last = std::string_view(name).substr(name.rfind('.') + 1);
    if (last == "driver" && std::ranges::find(kDrivers, std::string_view(value)) == kDrivers.end()) return false;
    for (const std::string_view other : {"filename", "config", "latency-ns", "size", "backing", "path", "host"}) {
      if (last == other) return false;
    }
  }
  return options.has("driver");
}

void names(Executor& executor, std::string_view text) {
  const auto options = BlockOptions::parse(text);
  (void)BlockOptions::parse(text, "file");
  (void)nbd::parse_target(text);
  (void)parse_cache_mode(text);
  (void)parse_preallocation(text);
  (void)resolve_relative("/a/b", text);
  if (!options || !harmless(*options)) return;
  BlockGraph graph(executor);
  {
    const auto node = run_until_done(executor, graph.open(*options));
    if (!node && node.error().message.empty()) std::abort();
  }
  (void)run_until_done(executor, graph.close_all());
}

void server(Executor& executor, const uint8_t* data, size_t size) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
  Fd client(pair[0]);
  const Fd server(pair[1]);
  if (::send(server.get(), data, size, MSG_DONTWAIT) < 0) return;
  ::shutdown(server.get(), SHUT_WR);
  const auto opened =
      run_until_done(executor, nbd::NbdNode::open_over(executor, {.name = "nbd"}, std::move(client), "x"));
  if (!opened) {
    if (opened.error().message.empty()) std::abort();
    return;
  }
  BlockNode& node = **opened;
  std::vector<uint8_t> buffer(9000);
  const uint64_t bytes = std::min<uint64_t>(node.length(), buffer.size());
  (void)run_until_done(executor, node.read(0, IoSlice(buffer.data(), bytes)));
  if (bytes != 0) (void)run_until_done(executor, node.block_status(0, node.length()));
  (void)run_until_done(executor, node.write(0, IoSlice(buffer.data(), bytes), {.flags = IoHow::kFua}));
  (void)run_until_done(executor, node.read(bytes / 2, IoSlice(buffer.data(), bytes / 2)));
  (void)run_until_done(executor, node.write_zeroes(0, bytes));
  (void)run_until_done(executor, node.discard(0, bytes));
  (void)run_until_done(executor, node.flush());
  (void)run_until_done(executor, node.close());
}

void client(Executor& executor, const uint8_t* data, size_t size) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
  const Fd socket(pair[0]);
  Fd ours(pair[1]);
  if (::send(socket.get(), data, size, MSG_DONTWAIT) < 0) return;
  ::shutdown(socket.get(), SHUT_WR);
  constexpr uint64_t kDiskBytes = 1 << 17;
  const auto disk =
      std::make_shared<MemoryNode>(executor, NodeConfig{.name = "disk", .discard_unmap = true}, kDiskBytes);
  const auto bitmap = add_bitmap(*disk, {.name = "b", .granularity = 512});
  BlockGraph graph(executor);
  bool left = false;
  nbd::Server server(graph, {.client_left = [&left](bool, size_t) { left = true; }});
  const auto added = server.add({.id = "e",
                                 .node = disk,
                                 .name = "x",
                                 .description = "y",
                                 .writable = true,
                                 .allocation_depth = true,
                                 .bitmaps = {{.node = "", .name = "b"}}});
  if (!bitmap || !added) std::abort();
  server.serve(std::move(ours));
  std::vector<uint8_t> said(1 << 16);
  while (!left) {
    executor.run_once(0);
    while (::recv(socket.get(), said.data(), said.size(), MSG_DONTWAIT) > 0) {
    }
  }
  if (!run_until_done(executor, server.stop())) std::abort();
}

}  // namespace
}  // namespace kite::block

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<kite::Executor> executor = *kite::Executor::create("fuzz");
  if (size == 0) return 0;
  switch (data[0] % 3) {
    case 1: kite::block::server(*executor, data + 1, size - 1); break;
    case 2: kite::block::client(*executor, data + 1, size - 1); break;
    default: kite::block::names(*executor, std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1)); break;
  }
  return 0;
}
