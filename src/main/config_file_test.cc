#include "main/config_file.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "devices/types.h"
#include "main/launch_plan.h"

namespace kite::main {
namespace {

// "name argument" for every option read.
std::vector<std::string> flat(const Result<std::vector<GivenOption>>& given) {
  EXPECT_TRUE(given) << given.error().message;
  std::vector<std::string> words;
  if (given)
    for (const GivenOption& option : *given)
      words.push_back(option.argument.empty() ? option.name : option.name + " " + option.argument);
  return words;
}
std::vector<std::string> toml(std::string_view text) { return flat(options_of_toml(text, "m.toml")); }
std::vector<std::string> ini(std::string_view text) { return flat(options_of_ini(text, "m.cfg")); }
std::string toml_error(std::string_view text) {
  const auto given = options_of_toml(text, "m.toml");
  EXPECT_FALSE(given);
  return given ? "" : given.error().message;
}
std::string ini_error(std::string_view text) {
  const auto given = options_of_ini(text, "m.cfg");
  EXPECT_FALSE(given);
  return given ? "" : given.error().message;
}
using Words = std::vector<std::string>;

TEST(TomlConfigTest, ScalarsAreTheOptionsText) {
  EXPECT_EQ(toml("memory = 512\ncpus = 2\nname = \"web\"\n"), (Words{"m 512", "smp 2", "name web"}));
}

TEST(TomlConfigTest, TrueGivesAnOptionThatTakesNothingAndFalseLeavesItOut) {
  EXPECT_EQ(toml("nographic = true\npaused = true\nno-reboot = false\n"), (Words{"nographic", "S"}));
}

TEST(TomlConfigTest, TablesAreSettings) {
  EXPECT_EQ(toml("[machine]\ntype = \"pc\"\nhpet = false\n"), (Words{"machine hpet=off,type=pc"}));
}

TEST(TomlConfigTest, ArraysOfTablesRepeatTheOptionInOrder) {
  EXPECT_EQ(toml("[[device]]\ndriver = \"a\"\n[[device]]\ndriver = \"b\"\naddr = 3\n"),
            (Words{"device driver=a", "device addr=3,driver=b"}));
}

TEST(TomlConfigTest, ListsRepeatTheOption) {
  EXPECT_EQ(toml("serial = [\"stdio\", \"null\"]\n"), (Words{"serial stdio", "serial null"}));
}

TEST(TomlConfigTest, OptionsComeInTheOrderOfTheFile) {
  EXPECT_EQ(toml("serial = \"null\"\naccel = \"jit\"\ncpu = \"max\"\n"),
            (Words{"serial null", "accel jit", "cpu max"}));
}

TEST(TomlConfigTest, CommasInSettingsAreDoubled) {
  EXPECT_EQ(toml("[[chardev]]\nbackend = \"file\"\npath = \"a,b\"\n"), (Words{"chardev backend=file,path=a,,b"}));
}

TEST(TomlConfigTest, NestedTablesGetDottedNames) {
  EXPECT_EQ(toml("[[device]]\ndriver = \"x\"\nfile = { driver = \"y\", list = [1, 2] }\n"),
            (Words{"device driver=x,file.driver=y,file.list.0=1,file.list.1=2"}));
}

TEST(TomlConfigTest, CpuTakesModelAndFlags) {
  EXPECT_EQ(toml("[cpu]\nmodel = \"qemu64\"\nflags = [\"+ssse3\", \"-pcid\", \"popcnt\"]\nenforce = true\n"),
            (Words{"cpu qemu64,+ssse3,-pcid,+popcnt,enforce=on"}));
}

TEST(TomlConfigTest, DatesServeTheClock) {
  EXPECT_EQ(toml("[rtc]\nbase = 2006-06-17T16:01:21\n"), (Words{"rtc base=2006-06-17T16:01:21"}));
}

TEST(TomlConfigTest, UnknownKeysAreRefusedWithTheNearestAndTheLine) {
  EXPECT_EQ(toml_error("name = \"x\"\nmemroy = 5\n"), "m.toml:2: memroy: no such key; did you mean 'memory'?");
}

TEST(TomlConfigTest, ValuesOfTheWrongKindAreRefused) {
  EXPECT_NE(toml_error("nographic = \"yes\"\n").find("give true or false"), std::string::npos);
  EXPECT_NE(toml_error("memory = 1.5\n").find("m.toml:1: memory: give a string"), std::string::npos);
  EXPECT_NE(toml_error("[cpu]\nflags = [\"+a\"]\n").find("name the model"), std::string::npos);
  EXPECT_NE(toml_error("serial = [[\"a\"]]\n").find("a list within a list"), std::string::npos);
}

TEST(TomlConfigTest, SyntaxErrorsNameTheLine) {
  EXPECT_TRUE(toml_error("name = \"x\"\nmemory = \n").starts_with("m.toml:2: "));
}

TEST(IniConfigTest, GroupsAreOptionsAndKeysTheirSettings) {
  EXPECT_EQ(ini("# a machine\n[machine]\n  type = \"pc\"\n\n[memory]\n  size = \"512\"\n"),
            (Words{"machine type=pc", "m size=512"}));
}

TEST(IniConfigTest, TheGroupsQuotedNameIsItsId) {
  EXPECT_EQ(ini("[device \"d0\"]\n  driver = \"pci-testdev\"\n"), (Words{"device id=d0,driver=pci-testdev"}));
}

TEST(IniConfigTest, WrongLinesAreRefusedWithTheirNumber) {
  EXPECT_EQ(ini_error("[device\n"), "m.cfg:1: [device: the group's ']' is missing");
  EXPECT_NE(ini_error("[devise \"x\"]\n").find("did you mean 'device'?"), std::string::npos);
  EXPECT_NE(ini_error("[m]\nsize = 5\n").find("m.cfg:2:"), std::string::npos);
  EXPECT_NE(ini_error("size = \"5\"\n").find("before any [group]"), std::string::npos);
  EXPECT_NE(ini_error("[m]\nsize\n").find("neither"), std::string::npos);
  EXPECT_NE(ini_error("[\"]\n").find("m.cfg:1:"), std::string::npos);
}

class ConfigOnCommandLineTest : public ::testing::Test {
 protected:
  ConfigOnCommandLineTest() { devices::register_device_types(types_); }
  ~ConfigOnCommandLineTest() override { std::remove(path_.c_str()); }
  std::string file(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  TypeRegistry types_;
  std::string path_ = ::testing::TempDir() + "kite_config_file_test." + std::to_string(getpid());
};

TEST_F(ConfigOnCommandLineTest, OptionsAfterTheFileHaveTheLastWord) {
  const auto plan = plan_launch({"run", file("memory = 64\ncpus = 2\n"), "-m", "96"}, types_);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->machine.ram_bytes, 96ull << 20);
  EXPECT_EQ(plan->machine.cpu_count, 2u);
}

TEST_F(ConfigOnCommandLineTest, ErrorsInAFileNameItsLine) {
  const auto plan = plan_launch({"run", file("\nmemory = \"lots\"\n")}, types_);
  ASSERT_FALSE(plan);
  EXPECT_TRUE(plan.error().message.starts_with(path_ + ":2: -m ")) << plan.error().message;
}

TEST_F(ConfigOnCommandLineTest, ReadconfigTakesItsPlaceInTheOrder) {
  const auto plan = plan_launch({"-m", "32", "-readconfig", file("[memory]\nsize = \"48\"\n")}, types_);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->machine.ram_bytes, 48ull << 20);
}

TEST_F(ConfigOnCommandLineTest, AMissingFileIsNamed) {
  EXPECT_EQ(plan_launch({"run", "/nonexistent.toml"}, types_).error().message,
            "run /nonexistent.toml: No such file or directory");
  EXPECT_NE(plan_launch({"run"}, types_).error().message.find("kite run machine.toml"), std::string::npos);
}

}  // namespace
}  // namespace kite::main
