// Turns a tree of regions into the sorted, disjoint, merged ranges of a FlatView.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/address_space.h"

namespace kite {

class FlatViewRenderer {
 public:
  // What [0, size) shows with `root` at 0. Takes the tree's lock.
  static std::vector<FlatRange> render(const Region& root, uint64_t size);

 private:
  // Wide enough for the place of a region that is seen through an alias and begins below 0.
  __extension__ using Wide = __int128;
  // Where a subtree may show.
  struct Window {
    uint64_t start;
    uint64_t end;
    bool read_only;
  };

  void visit(const Region& region, Wide base, Window window, unsigned depth);
  void place(const Region& region, Wide base, const Window& window);
  void merge();

  std::vector<FlatRange> ranges_;  // sorted and disjoint
};

}  // namespace kite
