// Hostile disk images: whatever the file holds, opening it, reading, writing, checking, repairing and its snapshots end
// with an answer, in bounded memory and time. The first byte says how the file comes to be:
//   bit 0..1  0: the rest of the input is the file; 1, 3: an image made by our own qcow2 writer; 2: by our QED writer
//   bit 2..5  the options of that image
// and then patches of three bytes (where, what), most of them into tables, until the input ends.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "block/bitmap_requests.h"
#include "block/filter_node.h"
#include "block/image.h"
#include "block/plain_nodes.h"
#include "support/log.h"

namespace kite::block {
namespace {

constexpr uint64_t kMostFileBytes = uint64_t{8} << 20;
constexpr uint64_t kDiskBytes = uint64_t{1} << 20;

// A disk that is full at some point, so that nothing a hostile image asks for takes the machine's memory.
class SmallDisk final : public FilterNode {
 public:
  using FilterNode::FilterNode;
  Task<Result<>> truncate(uint64_t bytes, Preallocation preallocation) override {
    if (bytes > kMostFileBytes) return ready<Result<>>(fail("the disk is full"));
    return file_->truncate(bytes, preallocation);
  }

 protected:
  Task<IoResult<>> do_write(uint64_t offset, IoSlice from, IoHow how) override {
    if (offset + from.bytes() > kMostFileBytes) return ready<IoResult<>>(io_fail(ENOSPC));
    return file_->write(offset, from, how);
  }
  Task<IoResult<>> do_write_zeroes(uint64_t offset, uint64_t bytes, IoHow how) override {
    if (offset + bytes > kMostFileBytes) return ready<IoResult<>>(io_fail(ENOSPC));
    return file_->write_zeroes(offset, bytes, how);
  }
};

class Bench {
 public:
  explicit Bench(Executor& executor) : executor_(executor), graph_(executor) {
    disk_ = std::make_shared<MemoryNode>(executor_, NodeConfig{.name = "disk"}, 0, true);
    small_ = std::make_shared<SmallDisk>(executor_, "small", NodeConfig{.name = "small"});
    require(small_->attach(disk_));
    small_->set_kept(true);
    require(graph_.adopt(small_));
  }
  ~Bench() { run(graph_.close_all()); }

  void make(const std::string& format, const char* options) {
    CreateRequest request;
    request.bytes = kDiskBytes;
    request.options = *BlockOptions::parse(options);
    require(run(find_image_format(format)->create(graph_, small_, std::move(request))));
    const auto image = open(format, false, false);
    if (image == nullptr) std::abort();
    std::vector<uint8_t> data(40000, 0x5a);
    (void)run(image->write(3000, IoSlice(data)));
    if (format == "qcow2") {
      (void)add_bitmap(*image, {.name = "bitmap", .persistent = true});
      (void)run(image->snapshot_create({.name = "one"}));
      (void)run(image->write(30000, IoSlice(data)));
      (void)run(image->write_zeroes(200000, 20000));
    }
    (void)run(image->close());
  }
  // No backing file: the header's name would be one of the host's.
  std::shared_ptr<FormatNode> open(const std::string& format, bool read_only, bool for_check) {
    BlockGraph::FileRequest request;
    request.options.set("file", "small");
    request.options.set("discard", read_only ? "ignore" : "unmap");
    request.format = format;
    request.read_only = read_only;
    request.no_backing = true;
    request.for_check = for_check;
    request.allow_raw_probe = true;
    auto node = run(graph_.open_file(std::move(request)));
    return node ? std::dynamic_pointer_cast<FormatNode>(*node) : nullptr;
  }
  void work(BlockNode& image) {
    std::vector<uint8_t> data(70000, 0x33);
    const uint64_t length = image.length();
    for (const uint64_t at : {uint64_t{0}, uint64_t{2500}, length / 2, length - std::min<uint64_t>(length, 512)}) {
      const uint64_t bytes = std::min<uint64_t>(data.size(), length - std::min(length, at));
      (void)run(image.read(at, IoSlice(data.data(), bytes)));
      if (at < length) (void)run(image.block_status(at, length - at));
      if (image.read_only()) continue;
      (void)run(image.write(at, IoSlice(data.data(), bytes)));
      (void)run(image.write_zeroes(at, bytes / 2, {.flags = IoHow::kMayUnmap}));
      (void)run(image.discard(at, bytes / 3));
    }
    if (!image.read_only()) (void)run(image.flush());
  }
  void vm_state(FormatNode& image) {
    std::vector<uint8_t> data(5000, 0x44);
    for (const uint64_t at : {uint64_t{0}, uint64_t{100'000}, uint64_t{1} << 40, ~uint64_t{0} - 100}) {
      (void)run(image.read_vm_state(at, IoSlice(data)));
      (void)run(image.write_vm_state(at, IoSlice(data), {}));
    }
  }
  void snapshots(FormatNode& image) {
    vm_state(image);
    (void)run(image.snapshot_create({.name = "two"}));
    work(image);
    const std::vector<SnapshotInfo> all = image.image_info().snapshots;
    image.bitmaps().remove_all();  // nothing goes back while there are some
    for (size_t i = 0; i < std::min<size_t>(all.size(), 3); ++i) {
      (void)run(image.snapshot_apply(all[i].id));
      (void)run(image.snapshot_delete(all[i].id));
    }
    (void)run(image.truncate(image.length() + 4096));
  }
  // What was repaired without a word of failure needs no more repair.
  void repair(FormatNode& image) {
    const auto quiet = [](const std::string&) {};
    (void)run(image.check(Repair::kNone, quiet));
    const auto first = run(image.check(Repair::kAll, quiet));
    if (!first || first->check_errors != 0 || first->corruptions != 0) return;
    std::string found;
    const auto again = run(image.check(Repair::kNone, [&](const std::string& line) { found += line + "\n"; }));
    if (again && again->corruptions != 0) {
      log::error("still wrong after the repair:\n{}", found);
      std::abort();
    }
  }
  [[nodiscard]] MemoryNode& disk() { return *disk_; }
  template <class T>
  T run(Task<T> task) {
    return run_until_done(executor_, std::move(task));
  }

 private:
  static void require(const Result<>& done) {
    if (done) return;
    log::error("{}", done.error().message);
    std::abort();
  }

  Executor& executor_;
  BlockGraph graph_;
  std::shared_ptr<MemoryNode> disk_;
  std::shared_ptr<SmallDisk> small_;
};

constexpr const char* kQcow2Options[] = {
    "cluster_size=512",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=512,compat=0.10",
    "cluster_size=1k,refcount_bits=1",
    "cluster_size=64k",
    "cluster_size=2k,compression_type=zstd",
};
constexpr const char* kQedOptions[] = {"cluster_size=4k,table_size=1", "cluster_size=8k,table_size=2"};

// Where patches go: the first 16 KiB in sixteens of a table's entry, or anywhere in the file.
void patch(MemoryNode& disk, const uint8_t* input, size_t size) {
  for (size_t at = 0; at + 3 <= size; at += 3) {
    const uint64_t where = input[at] | uint64_t{input[at + 1]} << 8;
    const uint64_t offset = where % std::max<uint64_t>(std::min<uint64_t>(disk.length(), 65536), 1);
    disk.copy_in(offset, IoSlice::of_const(input + at + 2, 1));
  }
}

void fuzz(const uint8_t* data, size_t size) {
  static const std::unique_ptr<Executor> executor = *Executor::create("fuzz");
  if (size == 0) return;
  const uint8_t how = data[0];
  Bench bench(*executor);
  std::string format;
  if ((how & 3) == 0) {
    bench.disk().copy_in(0, IoSlice::of_const(data + 1, size - 1));
  } else {
    format = (how & 3) == 2 ? "qed" : "qcow2";
    bench.make(format, format == "qed" ? kQedOptions[how >> 2 & 1] : kQcow2Options[how >> 2 & 7]);
    patch(bench.disk(), data + 1, size - 1);
  }
  if (const auto image = bench.open(format, true, false)) {
    bench.work(*image);
    (void)bench.run(image->check(Repair::kNone, [](const std::string&) {}));
    (void)bench.run(image->close());
  }
  const bool repairs = (how & 0x40) != 0;
  if (const auto image = bench.open(format, false, repairs)) {
    if (repairs) bench.repair(*image);
    bench.work(*image);
    bench.snapshots(*image);
    (void)bench.run(image->close());
  }
}

}  // namespace
}  // namespace kite::block

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kite::block::fuzz(data, size);
  return 0;
}
