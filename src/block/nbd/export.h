// Export: one disk as the clients of an NBD server see it. It has a node, as a device or a job has one, and a length
// that stays what it was.
//
// Requests come from many clients at once; while the graph below changes they wait (hold()).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "block/co_sync.h"
#include "block/graph.h"
#include "block/nbd/handshake.h"

namespace kite::block::nbd {

struct ExportRequest {
  std::string id;  // how monitors name it
  NodePtr node;
  std::string name;  // how clients ask for it
  std::string description{};
  bool writable = false;
  bool writethrough = false;  // what is answered is durable
  bool allocation_depth = false;
  // Of that node; of none: of the first image from the exported one down that has it.
  struct Bitmap {
    std::string node, name;
  };
  std::vector<Bitmap> bitmaps{};
};

// A stretch of the disk, and what a metadata context says of it.
struct Extent {
  uint64_t bytes;
  uint32_t flags;
};

class Export {
 public:
  static Result<std::shared_ptr<Export>> create(BlockGraph& graph, ExportRequest request);
  // end() has been awaited, or no request was ever made.
  ~Export();
  Export(const Export&) = delete;
  Export& operator=(const Export&) = delete;

  [[nodiscard]] const std::string& id() const { return request_.id; }
  [[nodiscard]] const std::string& name() const { return request_.name; }
  [[nodiscard]] const std::string& description() const { return request_.description; }
  [[nodiscard]] const std::string& node_name() const { return node_name_; }  // as it was exported
  [[nodiscard]] bool writable() const { return request_.writable; }
  [[nodiscard]] bool ending() const { return ending_; }
  [[nodiscard]] const ExportFacts& facts() const { return facts_; }
  // The names of the metadata contexts; the place of one is its id. The first is base:allocation.
  [[nodiscard]] const std::vector<std::string>& contexts() const { return contexts_; }

  // Inside of the disk, as their caller has checked; ESHUTDOWN when the export ends meanwhile.
  Task<IoResult<>> read(uint64_t offset, IoSlice to);
  Task<IoResult<>> write(uint64_t offset, IoSlice from, IoHow how);
  Task<IoResult<>> write_zeroes(uint64_t offset, uint64_t bytes, IoHow how);
  Task<IoResult<>> discard(uint64_t offset, uint64_t bytes, IoHow how);
  Task<IoResult<>> flush();
  // What a context says of the disk from `offset` on: at least one extent, no more than `most`, in no more than
  // `bytes`.
  Task<IoResult<std::vector<Extent>>> extents(uint32_t context, uint64_t offset, uint64_t bytes, size_t most);

  // New requests wait from now on (nests); drain() returns when none is under way.
  void hold() { ++holds_; }
  void release();
  Task<void> drain();
  // Requests that wait fail from now on, and new ones.
  void begin_end();
  // The same, and lets the node go once nothing is under way.
  Task<Result<>> end();

 private:
  class Passage;
  explicit Export(ExportRequest request) : request_(std::move(request)) {}
  Result<> take_bitmaps(BlockGraph& graph);
  void describe();
  Task<Passage> enter();
  [[nodiscard]] IoHow how_to_write(IoHow how) const { return request_.writethrough ? how.with(IoHow::kFua) : how; }
  [[nodiscard]] std::vector<Extent> dirty(const DirtyBitmap& bitmap, uint64_t offset, uint64_t bytes,
                                          size_t most) const;

  ExportRequest request_;
  std::string node_name_;
  NodeUse use_;
  std::vector<BitmapPtr> bitmaps_;  // those of the last contexts
  std::vector<std::string> contexts_;
  ExportFacts facts_;
  unsigned holds_ = 0;
  bool ending_ = false;
  size_t under_way_ = 0, waiting_ = 0;
  CoQueue released_, quiet_;
};

}  // namespace kite::block::nbd
