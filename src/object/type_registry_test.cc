#include <gtest/gtest.h>

#include "object/object_type.h"

namespace kite {
namespace {

class TypeRegistryTest : public testing::Test {
 protected:
  void SetUp() override {
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .abstract = true, .properties = {}});
    types.add({.name = "isa-device",
               .parent = "device",
               .description = "",
               .bus = "ISA",
               .abstract = true,
               .properties = {property::boolean("migratable", "can be moved", true)}});
    types.add(
        {.name = "isa-serial",
         .parent = "isa-device",
         .description = "16550A UART",
         .bus = "ISA",
         .properties = {property::unsigned_integer("iobase", "first port", 0x3f8, 0, 0xfff8),
                        property::choice("parity", "kind of parity", "none", {"none", "even", "odd"}),
                        property::size("fifo", "bytes of the FIFO", 16), property::signed_integer("bias", "drift", -2),
                        property::link("chardev", "back end", "chardev")}});
    types.add({.name = "isa-pit",
               .parent = "isa-device",
               .description = "8254",
               .bus = "ISA",
               .user_creatable = false,
               .properties = {}});
    Property needed = property::string("path", "where");
    needed.default_value.reset();
    needed.required = true;
    types.add({.name = "needy", .parent = "device", .description = "", .bus = "", .properties = {needed}});
  }

  Result<PropertyMap> resolve(std::string_view text) {
    KITE_ASSIGN(const auto options, parse_object_options(text, "driver"));
    return types.resolve(options, "-device");
  }
  std::string refusal(std::string_view text) {
    const auto map = resolve(text);
    EXPECT_FALSE(map) << text;
    return map ? "" : map.error().message;
  }

  TypeRegistry types;
};

TEST_F(TypeRegistryTest, DefaultsOfTheTypeAndItsParentsAreFilledIn) {
  const auto map = resolve("isa-serial");

  ASSERT_TRUE(map);
  EXPECT_EQ(map->integer("iobase"), 0x3f8u);
  EXPECT_EQ(map->string("parity"), "none");
  EXPECT_TRUE(map->boolean("migratable"));
  EXPECT_EQ(map->find("chardev"), nullptr);
  EXPECT_EQ(map->string("chardev"), "");
}

TEST_F(TypeRegistryTest, ValuesOverrideDefaults) {
  const auto map = resolve("isa-serial,iobase=0x2f8,parity=odd,fifo=1k,bias=-7,chardev=c0,migratable=off");

  ASSERT_TRUE(map) << map.error().message;
  EXPECT_EQ(map->integer("iobase"), 0x2f8u);
  EXPECT_EQ(map->string("parity"), "odd");
  EXPECT_EQ(map->integer("fifo"), 1024u);
  EXPECT_EQ(std::get<int64_t>(*map->find("bias")), -7);
  EXPECT_EQ(map->string("chardev"), "c0");
  EXPECT_FALSE(map->boolean("migratable"));
}

TEST_F(TypeRegistryTest, ReadsOfAnotherKindAnswerNothing) {
  const auto map = resolve("isa-serial");

  EXPECT_EQ(map->integer("parity"), 0u);
  EXPECT_EQ(map->string("iobase"), "");
  EXPECT_FALSE(map->boolean("iobase"));
}

TEST_F(TypeRegistryTest, UnknownTypeNamesTheNearestThatCanBeCreated) {
  EXPECT_EQ(refusal("isa-seral"), "-device: there is no type 'isa-seral'; did you mean 'isa-serial'?");
  EXPECT_EQ(refusal("isa-pot"), "-device: there is no type 'isa-pot'; known: isa-serial, needy");
}

TEST_F(TypeRegistryTest, AbstractTypesAndPartsOfTheBoardAreRefused) {
  EXPECT_EQ(refusal("isa-device"), "-device isa-device: it only groups other types; name one of those");
  EXPECT_EQ(refusal("isa-pit"), "-device isa-pit: it is a part of the board and cannot be added");
}

TEST_F(TypeRegistryTest, TheBoardMayCreateItsParts) {
  EXPECT_TRUE(types.resolve({.type = "isa-pit", .id = "", .values = {}}, ""));
}

TEST_F(TypeRegistryTest, UnknownPropertyNamesTheNearest) {
  EXPECT_EQ(refusal("isa-serial,chrdev=c0"), "-device: isa-serial has no property 'chrdev'; did you mean 'chardev'?");
}

TEST_F(TypeRegistryTest, WrongValuesNameWhatWouldBeRight) {
  EXPECT_EQ(refusal("isa-serial,iobase=70000"),
            "-device: isa-serial.iobase: '70000' is out of range; 0 to 65528 (0xfff8) is allowed");
  EXPECT_EQ(refusal("isa-serial,iobase=x"), "-device: isa-serial.iobase: 'x' is not a whole number");
  EXPECT_EQ(refusal("isa-serial,parity=od"), "-device: isa-serial.parity: 'od' is not a choice; did you mean 'odd'?");
  EXPECT_EQ(refusal("isa-serial,migratable=1"), "-device: isa-serial.migratable: '1' is neither on nor off");
  EXPECT_EQ(refusal("isa-serial,chardev="), "-device: isa-serial.chardev: the id of a chardev is expected");
}

TEST_F(TypeRegistryTest, RequiredPropertyMustBeGiven) {
  EXPECT_EQ(refusal("needy"), "-device: needy wants path=<str> (where)");
  EXPECT_TRUE(resolve("needy,path=x"));
}

TEST_F(TypeRegistryTest, GlobalsChangeDefaultsOfTheTypeAndItsDescendants) {
  ASSERT_TRUE(types.add_global("isa-serial.iobase=0x3e8"));
  ASSERT_TRUE(types.add_global("driver=isa-device,property=migratable,value=off"));

  const auto map = resolve("isa-serial");

  EXPECT_EQ(map->integer("iobase"), 0x3e8u);
  EXPECT_FALSE(map->boolean("migratable"));
  EXPECT_EQ(resolve("isa-serial,iobase=0x2e8")->integer("iobase"), 0x2e8u);
}

TEST_F(TypeRegistryTest, LaterGlobalsWin) {
  ASSERT_TRUE(types.add_global("isa-serial.iobase=1"));
  ASSERT_TRUE(types.add_global("isa-serial.iobase=2"));

  EXPECT_EQ(resolve("isa-serial")->integer("iobase"), 2u);
}

TEST_F(TypeRegistryTest, WrongGlobalsAreRefusedWhenTheyAreGiven) {
  EXPECT_EQ(types.add_global("isa-pot.x=1").error().message,
            "-global: there is no type 'isa-pot'; did you mean 'isa-pit'?");
  EXPECT_EQ(types.add_global("isa-serial.iobas=1").error().message,
            "-global: isa-serial has no property 'iobas'; did you mean 'iobase'?");
  EXPECT_EQ(types.add_global("isa-serial.iobase=z").error().message,
            "-global isa-serial.iobase: 'z' is not a whole number");
  for (const std::string_view text : {"", "x", "isa-serial.iobase", "isa-serial=1", ".x=1", "a.=1", "driver=x,z=1"}) {
    EXPECT_FALSE(types.add_global(text)) << text;
  }
}

TEST_F(TypeRegistryTest, RedeclaredPropertyHidesTheInheritedOne) {
  types.add({.name = "fast-serial",
             .parent = "isa-serial",
             .description = "",
             .bus = "ISA",
             .properties = {property::unsigned_integer("iobase", "first port", 0x100, 0, 0x1ff)}});
  ASSERT_TRUE(types.add_global("isa-serial.iobase=0x3e8"));

  EXPECT_EQ(types.properties_of("fast-serial").front()->maximum, 0x1ffu);
  EXPECT_EQ(refusal("fast-serial"), "-global: fast-serial.iobase: '0x3e8' is out of range; 0 to 511 is allowed");
}

TEST_F(TypeRegistryTest, KnowsDescent) {
  EXPECT_TRUE(types.is_a("isa-serial", "isa-serial"));
  EXPECT_TRUE(types.is_a("isa-serial", "device"));
  EXPECT_FALSE(types.is_a("device", "isa-serial"));
  EXPECT_FALSE(types.is_a("needy", "isa-device"));
}

TEST_F(TypeRegistryTest, CircleOfParentsEnds) {
  types.add({.name = "a", .parent = "b", .description = "", .bus = "", .properties = {}});
  types.add({.name = "b", .parent = "a", .description = "", .bus = "", .properties = {}});

  EXPECT_TRUE(types.is_a("a", "b"));
  EXPECT_FALSE(types.is_a("a", "device"));
}

TEST_F(TypeRegistryTest, ListHelpShowsWhatCanBeCreated) {
  EXPECT_EQ(types.list_help("device"), "name \"isa-serial\", bus ISA, desc \"16550A UART\"\nname \"needy\"\n");
}

TEST_F(TypeRegistryTest, TypeHelpShowsTypesAndDefaults) {
  EXPECT_EQ(types.type_help("isa-serial"),
            "isa-serial options:\n"
            "  iobase=<uint16>        - first port (default: 1016)\n"
            "  parity=<none|even|odd> - kind of parity (default: none)\n"
            "  fifo=<size>            - bytes of the FIFO (default: 16)\n"
            "  bias=<int64>           - drift (default: -2)\n"
            "  chardev=<str>          - back end\n"
            "  migratable=<bool>      - can be moved (default: on)\n");
  EXPECT_EQ(types.type_help("needy"), "needy options:\n  path=<str>             - where (required)\n");
}

TEST_F(TypeRegistryTest, TypeHelpRefusesUnknownTypes) {
  EXPECT_EQ(types.type_help("isa-seria").error().message, "there is no type 'isa-seria'; did you mean 'isa-serial'?");
}

}  // namespace
}  // namespace kite
