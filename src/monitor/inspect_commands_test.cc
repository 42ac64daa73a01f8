#include "monitor/inspect_commands.h"

#include <unistd.h>

#include <fstream>
#include <iterator>

#include "monitor/human_commands.h"
#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

class InspectCommands : public ::testing::Test {
 protected:
  InspectCommands() {
    monitor_.machine->io().mmio_write(0x1000, 8, 0x1122334455667788);
    monitor_.machine->io().mmio_write(0x1008, 8, 0x0000'0000'6b69'7465);
  }
  ~InspectCommands() override { ::unlink(path_.c_str()); }
  std::string human(std::string_view line) { return run_human_command(*monitor_.context, line); }
  std::string saved() {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const TestMonitor monitor_;
  const std::string path_ = ::testing::TempDir() + fmt::format("kite-memory-{}", ::getpid());
};

TEST_F(InspectCommands, ShowMemoryInTheSizesAndBasesThatAreAskedFor) {
  EXPECT_EQ(human("xp /2xw 0x1000"), "0000000000001000: 0x55667788 0x11223344\n");
  EXPECT_EQ(human("xp/1gx 4096"), "0000000000001000: 0x1122334455667788\n");
  EXPECT_EQ(human("xp /2uh 0x1000"), "0000000000001000: 30600 21862\n");
  EXPECT_EQ(human("xp /5c 0x1008"), "0000000000001008: 'e' 't' 'i' 'k' '\\x00'\n");
  EXPECT_EQ(human("xp /3xg 0x1000").find("\n0000000000001010:"), 55U);
}

TEST_F(InspectCommands, SayWhatIsWrong) {
  EXPECT_EQ(human("xp /4y 0").substr(0, 6), "usage:");
  EXPECT_EQ(human("xp /99999999x 0").substr(0, 6), "usage:");
  EXPECT_NE(human("xp nowhere").find("'nowhere'"), std::string::npos);
  EXPECT_NE(human("xp 0xffffffffffff0000").find("Cannot access memory at 0xffffffffffff0000"), std::string::npos);
  EXPECT_NE(human("pmemsave 0 1").find("usage:"), std::string::npos);
  EXPECT_NE(human("zz/4 0").find("unknown command: 'zz'"), std::string::npos);
}

TEST_F(InspectCommands, MemoryGoesIntoFiles) {
  EXPECT_TRUE(monitor_.ask("pmemsave", {{"val", 0x1008}, {"size", 4}, {"filename", path_}}));
  EXPECT_EQ(saved(), "etik");
  EXPECT_EQ(human("pmemsave 0x1008 2 " + path_), "");
  EXPECT_EQ(saved(), "et");
  EXPECT_TRUE(monitor_.ask("pmemsave", {{"val", 0}, {"size", 0}, {"filename", path_}}));
  EXPECT_EQ(saved(), "");
}

TEST_F(InspectCommands, FilesThatCannotBeFilledAreErrors) {
  const auto refused = [this](const char* command, const Json& arguments) {
    const QmpReply reply = monitor_.ask(command, arguments);
    return reply ? "" : reply.error().description;
  };
  const std::string beyond = refused("pmemsave", {{"val", uint64_t{1} << 51}, {"size", 8}, {"filename", path_}});
  EXPECT_NE(beyond.find("Invalid addr 0x0008000000000000/size 8"), std::string::npos) << beyond;
  EXPECT_NE(refused("pmemsave", {{"val", 0}, {"size", 8}, {"filename", "/nonexistent/x"}}).find("No such file"),
            std::string::npos);
  EXPECT_NE(refused("pmemsave", {{"val", 0}, {"size", -1}, {"filename", path_}}), "");
  EXPECT_NE(refused("memsave", {{"val", 0}, {"size", 1}, {"filename", path_}, {"cpu-index", 9}}), "");
}

}  // namespace
}  // namespace kite::monitor
