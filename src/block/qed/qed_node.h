// QedNode: an image in the QED format ([qed] QEMU's docs/interop/qed_spec.txt). Numbers in the file are little-endian.
//
// There are no refcounts: clusters are taken at the end of the file, and are never given back. The header's bit "need
// check" is durable before tables change and is cleared on close; an image that has it set is checked when it is opened
// for writing. Tables are written at once, data before the L2 entry that names it, L2 tables before the L1 entry.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "block/co_sync.h"
#include "block/image.h"

namespace kite::block::qed {

inline constexpr uint32_t kMagic = 0x00444551;  // "QED\0"
inline constexpr uint64_t kHasBacking = 1u << 0;
inline constexpr uint64_t kNeedCheck = 1u << 1;
inline constexpr uint64_t kRawBacking = 1u << 2;
inline constexpr size_t kHeaderBytes = 64;
inline constexpr uint32_t kMinCluster = 4096;
inline constexpr uint32_t kMaxCluster = 64u << 20;
inline constexpr uint32_t kMaxTableClusters = 16;
inline constexpr uint32_t kMaxBackingName = 1023;

struct Header {
  uint32_t cluster = 65536;     // bytes
  uint32_t table_clusters = 4;  // of each L1 and L2 table
  uint32_t header_clusters = 1;
  uint64_t features = 0, compatible = 0, autoclear = 0;
  uint64_t l1_offset = 0;
  uint64_t size = 0;
  std::string backing;

  [[nodiscard]] uint64_t table_bytes() const { return uint64_t{cluster} * table_clusters; }
  [[nodiscard]] uint64_t entries() const { return table_bytes() / 8; }
  [[nodiscard]] uint64_t bytes_an_l2() const { return entries() * cluster; }
  // What the two levels can reach, as far as 64 bits can say it.
  [[nodiscard]] uint64_t max_size() const {
    uint64_t bytes = 0;
    return __builtin_mul_overflow(bytes_an_l2(), entries(), &bytes) ? ~uint64_t{0} : bytes;
  }
};
Result<Header> parse_header(std::span<const uint8_t> raw);
std::vector<uint8_t> render_header(const Header& header);

class QedNode final : public FormatNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static int probe(std::span<const uint8_t> head);

  [[nodiscard]] std::string filename() const override { return file_->filename(); }
  [[nodiscard]] uint64_t length() const override { return header_.size; }
  [[nodiscard]] uint64_t allocated_bytes() const override { return file_->allocated_bytes(); }
  [[nodiscard]] BlockLimits limits() const override;
  [[nodiscard]] std::vector<NodeEdge> children() const override;
  [[nodiscard]] BlockNode* file() const override { return file_.node().get(); }
  [[nodiscard]] BlockNode* backing() const override { return backing_.node().get(); }
  [[nodiscard]] ImageInfo image_info() const override;
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;
  Task<Result<CheckResult>> check(Repair repair, CheckMessage message) override;
  Task<Result<>> change_backing_name(std::string filename, std::string format) override;
  Result<> set_backing(NodePtr backing) override;
  void invalidate() override { file_->invalidate(); }
  IoResult<> debug_event(std::string_view event) override { return file_->debug_event(event); }

 protected:
  Task<Result<>> do_close() override;
  Task<Result<>> do_deactivate() override;
  Task<Result<>> do_activate() override;
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  enum class Kind : uint8_t { kUnallocated, kZero, kData };
  struct Extent {
    Kind kind = Kind::kUnallocated;
    uint64_t bytes = 0;
    uint64_t host = 0;
  };
  using Table = std::shared_ptr<std::vector<uint64_t>>;

  QedNode(Executor& executor, NodeConfig config) : FormatNode(executor, "qed", std::move(config)) {}
  Task<Result<>> load();
  Task<Result<>> repair_after_crash();
  Task<Result<>> make_clean();
  Task<Result<>> open_backing(BlockGraph& graph, BlockOptions options, bool given);
  Task<IoResult<Extent>> find_extent(uint64_t offset, uint64_t bytes);
  Task<IoResult<Table>> load_table(uint64_t offset);
  void make_room();  // for one more table in memory
  [[nodiscard]] bool valid_table(uint64_t offset) const;
  [[nodiscard]] bool valid_cluster(uint64_t offset) const;
  Task<IoResult<>> write_header();
  Task<IoResult<>> set_need_check(bool needed);
  Task<IoResult<>> write_entries(uint64_t table_at, const std::vector<uint64_t>& table, uint64_t from, uint64_t to);
  // With allocating_ held.
  Task<IoResult<>> write_new(uint64_t offset, IoSlice from, IoHow how);
  Task<IoResult<>> link(uint64_t offset, uint64_t clusters, uint64_t first_entry, uint64_t step);
  Task<IoResult<>> read_old(uint64_t offset, IoSlice to, IoHow how);
  Task<IoResult<>> check_table(uint64_t table_at, Repair repair, const CheckMessage& message, CheckResult& result,
                               std::vector<bool>& used);

  NodeUse file_;
  NodeUse backing_;
  Header header_;
  std::vector<uint64_t> l1_;
  std::unordered_map<uint64_t, Table> tables_;  // L2 tables in memory, by offset
  uint64_t file_end_ = 0;                       // the next cluster that is taken
  uint64_t links_ = 0;                          // changes of L2 tables so far
  CoMutex allocating_;
  bool loaded_ = false;
};

std::span<const CreateOption> create_options();
Task<Result<>> create(BlockGraph& graph, NodePtr file, CreateRequest request);
Result<Measure> measure(uint64_t bytes, uint64_t data_bytes, BlockOptions options);
Result<uint64_t> cluster_bytes_of(BlockOptions options);

}  // namespace kite::block::qed
