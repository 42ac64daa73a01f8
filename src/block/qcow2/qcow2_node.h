// Qcow2Node: an image in the qcow2 format, versions 2 and 3 ([qcow2] docs/interop/qcow2.txt).
//
// layout.cc       the header's form            refcount.cc    which host clusters are taken
// open.cc         options, open, close         mapping.cc     guest offset -> host cluster
// table_cache.cc  tables in memory             io.cc          read, write, zeroes, discard
// write_back.cc   the order of metadata on     compress.cc    compressed clusters
//                 its way to the file          snapshot.cc    internal snapshots
// check.cc        consistency and repair       create.cc      new images; resize.cc: other sizes
//                                              vm_state.cc    a machine's state behind the disk
// bitmaps.cc      dirty bitmaps in the image
//
// What makes it safe against a crash at any moment (docs/block.md): the file always holds a consistent image, but for
// clusters with a refcount and no user (leaks). In memory everything is changed at once; write_back.cc takes it to the
// file in the order refcounts, then L2 tables, then L1 entries, with a flush of the file between, so nothing
// durable ever points at what is not. A cluster that lost its user is taken again only when that loss is durable.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "block/co_sync.h"
#include "block/image.h"
#include "block/qcow2/bitmap_directory.h"
#include "block/qcow2/layout.h"
#include "block/qcow2/table_cache.h"

namespace kite::block::qcow2 {

// A snapshot as the table in the file has it.
struct Snapshot {
  SnapshotInfo info;
  uint64_t l1_offset = 0;
  uint32_t l1_entries = 0;
  std::vector<uint8_t> unknown_extra;
};

enum class ClusterKind : uint8_t { kUnallocated, kZero, kZeroAllocated, kData, kCompressed, kInvalid };

// A run of guest bytes of one kind, contiguous in the file where it has a place there.
struct Extent {
  ClusterKind kind = ClusterKind::kUnallocated;
  uint64_t bytes = 0;
  uint64_t host = 0;    // kData, kZeroAllocated: of the first byte; kCompressed: of the compressed data
  bool copied = false;  // the cluster is only ours: may be written in place
  uint64_t entry = 0;   // of the first cluster
};

class Qcow2Node final : public FormatNode {
 public:
  static Task<Result<NodePtr>> open(BlockGraph& graph, NodeConfig config, BlockOptions options);
  static int probe(std::span<const uint8_t> head);
  ~Qcow2Node() override;

  [[nodiscard]] std::string filename() const override { return file_->filename(); }
  [[nodiscard]] uint64_t length() const override { return header_.size; }
  [[nodiscard]] uint64_t allocated_bytes() const override { return file_->allocated_bytes(); }
  [[nodiscard]] BlockLimits limits() const override;
  [[nodiscard]] std::vector<NodeEdge> children() const override;
  [[nodiscard]] BlockNode* file() const override { return file_.node().get(); }
  [[nodiscard]] BlockNode* backing() const override { return backing_.node().get(); }
  [[nodiscard]] ImageInfo image_info() const override;
  [[nodiscard]] const Header& header() const { return header_; }
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override;
  Task<Result<CheckResult>> check(Repair repair, CheckMessage message) override;
  Task<Result<>> change_backing_name(std::string filename, std::string format) override;
  [[nodiscard]] bool can_be_emptied() const override { return true; }
  Task<Result<>> make_empty() override;
  Result<> set_backing(NodePtr backing) override;
  [[nodiscard]] bool holds_snapshots() const override { return true; }
  Task<Result<>> snapshot_create(SnapshotInfo snapshot) override;
  Task<Result<>> snapshot_apply(std::string id_or_name) override;
  Task<Result<>> snapshot_delete(std::string id_or_name) override;
  Task<Result<>> snapshot_load(std::string id_or_name) override;
  Task<Result<>> amend(BlockOptions options) override;
  Task<IoResult<>> read_vm_state(uint64_t offset, IoSlice to) override;
  Task<IoResult<>> write_vm_state(uint64_t offset, IoSlice from, IoHow how) override;
  Result<> may_keep_bitmap(std::string_view bitmap, uint64_t granularity) const override;
  void invalidate() override;
  IoResult<> debug_event(std::string_view event) override { return file_->debug_event(event); }

 protected:
  Result<> set_permissions(uint32_t need, uint32_t shared) override;
  [[nodiscard]] Permissions backing_permissions(uint32_t shared) const;
  Task<Result<>> do_close() override;
  Task<Result<>> do_deactivate() override;
  Task<Result<>> do_activate() override;
  Task<Result<>> do_set_read_only(bool read_only) override;
  Task<IoResult<>> do_read(uint64_t offset, IoSlice to, IoHow how) override;
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override;
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_discard(uint64_t offset, uint64_t bytes, IoHow how) override;
  Task<IoResult<>> do_flush(IoHow how) override;
  Task<IoResult<BlockStatus>> do_block_status(uint64_t offset, uint64_t bytes, bool precise) override;

 private:
  friend class Checker;
  // Guest clusters whose place in the file is about to change; other changes of the same clusters wait.
  struct Change {
    uint64_t from, to;
  };
  class ChangeGuard;
  class SharedAccess;
  class ExclusiveAccess;
  struct EnterShared;
  // Clusters for an allocating write.
  struct Allocation {
    uint64_t host = 0;
    uint64_t clusters = 0;
    bool fresh = false;   // behind the end of the file: reads as zeroes already
    bool reused = false;  // the clusters were the guest clusters' own already
  };
  // Clusters that lost a user, and who may still be reading them.
  struct FreedCluster {
    uint64_t index;
    bool pass_discard;
  };
  struct FreedBatch {
    std::vector<FreedCluster> clusters;
    std::weak_ptr<void> readers;  // requests that began before the batch was closed
  };

  Qcow2Node(Executor& executor, NodeConfig config);

  // open.cc
  Result<> take_options(BlockOptions& options);
  Task<Result<>> load();
  Task<Result<>> load_tables();
  Task<Result<>> begin_writing(bool bitmaps_known);
  Task<Result<>> open_backing(BlockGraph& graph, BlockOptions options, bool given);
  Task<Result<>> recover_dirty();
  Task<IoResult<>> settle();
  [[nodiscard]] bool untouched() const;
  Task<Result<>> make_clean();
  Task<Result<>> make_clean_if_used();
  Task<Result<>> write_header();
  // Some of the header's bytes 24..71 (size, places of the tables), durably. When that fails, which of both the file
  // has is unknown: ship() writes them anew before anything else, and what either names is not given back.
  Task<IoResult<>> write_pointers(uint64_t at, const uint8_t* fields, size_t bytes);
  Task<IoResult<>> restore_pointers();
  // A big-endian number in the header, in the file for good when this is done.
  Task<IoResult<>> write_header_field(uint64_t at, uint64_t value);
  Task<IoResult<>> set_incompatible(uint64_t set, uint64_t clear);
  void mark_corrupt(const std::string& why);

  // refcount.cc; `index` counts host clusters
  [[nodiscard]] uint64_t refcounts_a_block() const { return header_.cluster_bytes() * 8 >> header_.refcount_order; }
  [[nodiscard]] uint64_t max_refcount() const;
  [[nodiscard]] uint64_t block_refcount(const Table& block, uint64_t index) const;
  void set_block_refcount(Table& block, uint64_t index, uint64_t value) const;
  Task<IoResult<TablePtr>> refcount_block(uint64_t index);  // null: there is none, all its refcounts are 0
  Task<IoResult<uint64_t>> refcount(uint64_t index);
  Task<IoResult<>> add_refcount(uint64_t index, int64_t delta);
  // `count` contiguous clusters with refcount 1 from now on; with meta_ held.
  Task<IoResult<Allocation>> allocate(uint64_t count);
  Task<IoResult<>> claim_run(uint64_t index, uint64_t count);
  Task<IoResult<uint64_t>> find_free(uint64_t from, uint64_t count);
  [[nodiscard]] bool has_block(uint64_t slot) const;
  Task<IoResult<>> cover(uint64_t index, uint64_t count);
  Task<IoResult<>> place_blocks(std::set<uint64_t> slots, uint64_t place, uint64_t table_clusters);
  Task<IoResult<uint64_t>> allocate_bytes(uint64_t bytes);
  void free_cluster(uint64_t index, bool pass_discard);
  void free_entry(uint64_t l2_entry);  // what an L2 entry pointed at
  Task<IoResult<>> apply_freed();
  IoResult<> check_overlap(uint64_t offset, uint64_t bytes);

  Task<IoResult<>> adopt_reftable(std::vector<uint64_t> table, uint64_t place, uint64_t clusters);  // check.cc

  // mapping.cc
  [[nodiscard]] Extent extent_in(const Table& table, uint64_t offset, uint64_t bytes) const;
  [[nodiscard]] ClusterKind subcluster_kind(uint64_t entry, uint64_t bitmap, unsigned index) const;
  [[nodiscard]] ClusterKind entry_kind(uint64_t entry) const;
  [[nodiscard]] uint64_t l1_index(uint64_t offset) const { return offset / header_.bytes_an_l2(); }
  [[nodiscard]] uint64_t l2_index(uint64_t offset) const {
    return (offset >> header_.cluster_bits) & (header_.l2_entries() - 1);
  }
  [[nodiscard]] uint64_t l2_entry(const Table& table, uint64_t index) const;
  [[nodiscard]] uint64_t l2_bitmap(const Table& table, uint64_t index) const;
  void set_l2_entry(Table& table, uint64_t index, uint64_t entry, uint64_t bitmap);
  // What is at the offset, if its table is in memory (or there is none).
  [[nodiscard]] std::optional<IoResult<Extent>> peek_extent(uint64_t offset, uint64_t bytes);
  Task<IoResult<Extent>> find_extent(uint64_t offset, uint64_t bytes);
  // The L2 table of the offset for changing: made, or copied when a snapshot shares it. With meta_ held.
  Task<IoResult<TablePtr>> l2_for_write(uint64_t offset);
  void mark_l1(size_t index);
  // Lets guest clusters point at new host clusters: the bytes [data_from, data_to) are there now. With meta_ held.
  Task<IoResult<>> link(uint64_t data_from, uint64_t data_to, Allocation allocation);
  void parse_compressed(uint64_t entry, uint64_t& host, uint64_t& bytes) const;

  // io.cc
  [[nodiscard]] uint64_t unit_bytes() const {
    return header_.extended_l2() ? header_.cluster_bytes() / kSubclusters : header_.cluster_bytes();
  }
  Task<IoResult<>> read_backing(uint64_t offset, IoSlice to, IoHow how);
  Task<IoResult<>> write_extents(uint64_t offset, IoSlice from, IoHow how);
  Task<IoResult<uint64_t>> reusable(uint64_t offset, uint64_t bytes);
  Task<IoResult<uint64_t>> write_allocating(uint64_t offset, IoSlice from, IoHow how);
  Task<IoResult<>> fill_allocation(uint64_t offset, IoSlice from, uint64_t cow_from, uint64_t cow_to,
                                   Allocation allocation, IoHow how);
  Task<IoResult<>> write_compressed(uint64_t offset, IoSlice from, IoHow how);
  Task<IoResult<>> zero_clusters(uint64_t from, uint64_t to, bool unmap);
  bool zero_entry(Table& table, uint64_t cluster_at, uint64_t from, uint64_t to, bool unmap);
  Task<IoResult<>> zero_part(uint64_t offset, uint64_t bytes, IoHow how);
  Task<IoResult<bool>> reads_zero(uint64_t offset, uint64_t bytes);
  Task<IoResult<>> discard_clusters(uint64_t from, uint64_t to, bool full);
  Task<IoResult<>> prepare_change();
  Task<IoResult<>> count_new_table(uint64_t offset);

  // compress.cc
  Task<IoResult<>> read_compressed(uint64_t entry, uint64_t within, IoSlice to);
  Task<IoResult<>> store_compressed(uint64_t offset, const std::vector<uint8_t>& packed);
  Task<std::vector<uint8_t>> compress(const uint8_t* cluster);  // empty: does not get smaller

  // write_back.cc
  // Takes what is dirty to the file, in order. `durable`: and the file's cache to the disk.
  Task<IoResult<>> write_back(bool durable, bool lazy_too = false);
  struct Shipment;
  Shipment collect(bool refcounts_too);
  Task<IoResult<>> ship(Shipment& shipment, bool durable);
  Task<IoResult<>> ship_tables(const Shipment& shipment, bool refcounts);
  Task<IoResult<>> ship_reftable(const Shipment& shipment);
  void take_back(Shipment& shipment);

  // snapshot.cc
  Task<Result<>> load_snapshots();
  // Writes a table to new clusters and waits until these are counted, durably; answers its offset.
  // `event` is that of its writing.
  Task<IoResult<uint64_t>> write_new_table(std::vector<uint8_t> raw, std::string_view event = {});
  Task<IoResult<>> write_snapshots(std::vector<Snapshot> snapshots);
  Task<IoResult<std::vector<uint64_t>>> read_l1(uint64_t offset, uint64_t entries);
  Task<IoResult<>> switch_l1(std::vector<uint64_t> l1, uint64_t disk_bytes);
  template <class Visit>
  Task<IoResult<>> for_uses(const std::vector<uint64_t>& l1, Visit visit);
  Task<IoResult<>> count_uses(const std::vector<uint64_t>& l1);  // all or nothing
  Task<IoResult<>> uncount_uses(const std::vector<uint64_t>& l1, uint64_t most = UINT64_MAX);
  Task<IoResult<>> release_uses(const std::vector<uint64_t>& l1);
  Task<IoResult<>> refresh_copied(bool none);
  Task<IoResult<>> take_snapshot(SnapshotInfo info);
  Task<IoResult<>> apply_snapshot(Snapshot snapshot);
  Task<IoResult<>> drop_snapshot(size_t index);
  void free_range(uint64_t offset, uint64_t bytes);
  [[nodiscard]] std::optional<size_t> find_snapshot(std::string_view id_or_name) const;

  // bitmaps.cc
  struct HostRange {
    uint64_t offset, bytes;
  };
  [[nodiscard]] const UnknownExtension* bitmap_extension() const;
  Task<Result<>> read_bitmap_directory();
  Task<Result<>> load_bitmaps();
  Task<Result<DirtyChunks>> load_bits(StoredBitmap stored);
  Task<Result<>> claim_bitmaps();
  Task<Result<>> store_bitmaps();
  Task<IoResult<>> store_all_bitmaps(std::vector<StoredBitmap>& fresh, std::vector<HostRange>& made);
  Task<IoResult<StoredBitmap>> store_bits(const DirtyBitmap& bitmap, std::vector<HostRange>& made);
  Task<void> free_bitmap(StoredBitmap stored);
  Task<IoResult<>> write_autoclear(uint64_t bits);
  Task<IoResult<>> switch_bitmaps(BitmapDirectory directory);
  Task<IoResult<>> make_room(size_t end);

  Task<Result<>> to_version_2();  // amend.cc

  // vm_state.cc
  [[nodiscard]] uint64_t vm_state_offset() const;  // the guest offset behind all that the disk can use
  [[nodiscard]] uint64_t l1_end() const { return l1_.size() * header_.bytes_an_l2(); }
  Task<IoResult<>> reach(uint64_t end);

  // resize.cc
  Task<IoResult<>> grow(uint64_t bytes);
  Task<IoResult<>> shrink(uint64_t bytes);
  Task<IoResult<>> write_size(uint64_t bytes);
  Task<IoResult<>> trim_file();
  Task<Result<>> preallocate(uint64_t from, uint64_t to, Preallocation mode);

  NodeUse file_;
  NodeUse backing_;
  bool backing_is_known_ = false;             // it was not opened for this node
  uint32_t user_shared_ = Permissions::kAll;  // what all users of this node bear
  Header header_;
  bool pass_discard_request_ = true;
  bool pass_discard_snapshot_ = true;
  bool pass_discard_other_ = false;
  bool lazy_refcounts_ = false;
  std::optional<bool> lazy_option_;
  uint64_t cache_bytes_ = uint64_t{32} << 20;
  uint64_t refcount_cache_bytes_ = uint64_t{16} << 20;
  uint64_t l2_entry_size_ = 0;  // as asked for; checked and else without effect
  bool corrupt_ = false;
  bool loaded_ = false;
  bool pointers_unknown_ = false;
  bool copied_stale_ = false;  // "copied" is missing where it could be: a snapshot's work was broken off

  std::vector<uint64_t> l1_;
  size_t l1_dirty_from_ = 0, l1_dirty_to_ = 0;  // entries that differ from the file's
  std::vector<uint64_t> reftable_;
  size_t reftable_dirty_from_ = 0, reftable_dirty_to_ = 0;
  bool reftable_moved_ = false;  // the table in the header is an older, smaller one
  uint64_t new_reftable_offset_ = 0;
  uint64_t new_reftable_clusters_ = 0;
  uint64_t snapshot_table_bytes_ = 0;
  std::vector<StoredBitmap> stored_bitmaps_;  // as the file has them
  BitmapDirectory bitmap_directory_;
  bool bitmap_switch_unknown_ = false;
  std::unique_ptr<TableCache> l2_cache_;
  std::unique_ptr<TableCache> refcount_cache_;
  std::vector<Snapshot> snapshots_;
  uint64_t free_from_ = 0;               // no free cluster before this one
  uint64_t compressed_next_ = 0;         // host byte behind the last compressed cluster; 0: none open
  std::unordered_set<uint64_t> tables_;  // offsets of L2 tables and refcount blocks that are in use

  CoMutex meta_;        // changes of metadata that may suspend
  CoMutex write_back_;  // one write-back at a time
  std::list<Change> changes_;
  CoQueue changed_;
  // Requests that change data share; a snapshot, a resize or a check is alone.
  size_t sharing_ = 0;
  bool exclusive_ = false;
  CoMutex exclusive_turn_;
  std::vector<std::coroutine_handle<>> shared_waiters_;
  CoQueue shared_gone_;
  uint64_t flushes_asked_ = 0;  // a flush that began after the asking answers it
  uint64_t flushes_done_ = 0;
  std::vector<FreedCluster> freed_;        // since the last collect()
  std::vector<FreedBatch> freed_batches_;  // durable losses, waiting for their readers
  std::shared_ptr<void> epoch_;
};

}  // namespace kite::block::qcow2
