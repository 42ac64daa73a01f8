#include "support/suggest.h"

#include <gtest/gtest.h>

#include <array>

namespace kite {
namespace {

constexpr std::array<std::string_view, 4> kNames{"virtio-blk-pci", "virtio-net-pci", "isa-serial", "e1000"};

TEST(Nearest, FindsNameWithOneEdit) { EXPECT_EQ(nearest("isa-seria", kNames), "isa-serial"); }

TEST(Nearest, CountsSwappedNeighboursOnce) { EXPECT_EQ(nearest("e0100", kNames), "e1000"); }

TEST(Nearest, IgnoresCaseAndUnderscores) { EXPECT_EQ(nearest("VIRTIO_NET_PCI", kNames), "virtio-net-pci"); }

TEST(Nearest, PrefersTheNearer) { EXPECT_EQ(nearest("virtio-bln-pci", kNames), "virtio-blk-pci"); }

TEST(Nearest, AnswersEmptyWhenNothingIsNear) { EXPECT_EQ(nearest("zzz", kNames), ""); }

TEST(Nearest, AnswersEmptyForHugeWord) { EXPECT_EQ(nearest(std::string(1 << 20, 'e'), kNames), ""); }

TEST(Nearest, AnswersEmptyForEmptyWord) { EXPECT_EQ(nearest("", kNames), ""); }

TEST(Suggestion, NamesTheNearest) { EXPECT_EQ(suggestion("e100", kNames), "; did you mean 'e1000'?"); }

TEST(Suggestion, ListsKnownNamesWhenNothingIsNear) {
  EXPECT_EQ(suggestion("x", kNames), "; known: virtio-blk-pci, virtio-net-pci, isa-serial, e1000");
}

TEST(Suggestion, ClipsLongLists) {
  const std::vector<std::string_view> many(13, "name");

  EXPECT_EQ(suggestion("x", many),
            "; known: name, name, name, name, name, name, name, name, name, name, name, name, ...");
}

TEST(Suggestion, IsEmptyWithoutCandidates) { EXPECT_EQ(suggestion("x", {}), ""); }

}  // namespace
}  // namespace kite
