#include "net/program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "net/net_registry.h"
#include "net/test_guest.h"

namespace kite::net {
namespace {

struct ProgramTest : ::testing::Test {
  ProgramTest() {
    std::string name = ::testing::TempDir() + "kite_program_XXXXXX";
    directory = ::mkdtemp(name.data());
  }
  ~ProgramTest() override { std::filesystem::remove_all(directory); }

  std::string write(const std::string& name, const std::string& text) {
    const std::string path = directory + "/" + name;
    std::ofstream(path) << text;
    ::chmod(path.c_str(), 0700);
    return path;
  }
  static std::string refusal(const auto& result) { return result ? "taken" : result.error().message; }

  std::string directory;
};

TEST_F(ProgramTest, ItGetsItsArgumentsAndSaysSomething) {
  const std::string script = write("up", "#!/bin/sh\necho got $1\nread line || echo no input\n");
  EXPECT_EQ(run_program({script, "tap0"}), "got tap0 no input");
}

TEST_F(ProgramTest, HowItFailedIsTold) {
  const std::string script = write("up", "#!/bin/sh\necho the bridge is away >&2\nexit 3\n");
  const std::string said = refusal(run_program({script}));
  EXPECT_NE(said.find("status 3: the bridge is away"), std::string::npos) << said;
  EXPECT_NE(refusal(run_program({write("killed", "#!/bin/sh\nkill -9 $$\n")})).find("signal 9"), std::string::npos);
  EXPECT_NE(refusal(run_program({directory + "/none"})).find("No such file"), std::string::npos);
}

// What it leaves running may hold its output open for as long as it likes.
TEST_F(ProgramTest, WhatItLeavesBehindIsNotWaitedFor) {
  const std::string script = write("up", "#!/bin/sh\nsleep 1000 &\necho $!\n");
  const auto said = run_program({script});
  ASSERT_TRUE(said) << said.error().message;
  ::kill(std::stoi(*said), SIGKILL);
}

TEST_F(ProgramTest, MuchThatItSaysIsCutOff) {
  const auto said = run_program({write("up", "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x\n")});
  ASSERT_TRUE(said) << said.error().message;
  EXPECT_EQ(said->size(), 1024U);
}

TEST_F(ProgramTest, AHelperThatSendsNothingOrFailsIsRefused) {
  const std::string args = directory + "/args";
  const std::string silent = write("silent", "#!/bin/sh\necho \"$@\" >" + args + "\n");
  EXPECT_NE(refusal(run_bridge_helper(silent, "br7")).find("sent no descriptor"), std::string::npos);
  std::string line;
  std::getline(std::ifstream(args) >> std::ws, line);
  EXPECT_EQ(line, "--use-vnet --fd=3 --br=br7");
  EXPECT_NE(refusal(run_bridge_helper(silent + " --quiet", "br7")).find("sent no descriptor"), std::string::npos);
  std::getline(std::ifstream(args) >> std::ws, line);
  EXPECT_EQ(line, "--quiet --use-vnet --fd=3 --br=br7");
  const std::string failing = write("failing", "#!/bin/sh\necho access denied by acl file >&2\nexit 1\n");
  const std::string said = refusal(run_bridge_helper(failing, "br7"));
  EXPECT_NE(said.find("access denied by acl file"), std::string::npos) << said;
}

TEST_F(ProgramTest, AHelpersDescriptorArrivesAndIsLookedAt) {
  if (::access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "there is no python3";
  const std::string helper = write("helper",
                                   "#!/usr/bin/python3\nimport os, socket, sys\n"
                                   "file = os.open('/dev/null', os.O_RDWR)\n"
                                   "socket.send_fds(socket.socket(fileno=3), [b'\\0'], [file])\n");
  const auto sent = run_bridge_helper(helper, "br7");
  ASSERT_TRUE(sent) << sent.error().message;
  EXPECT_NE(::fcntl(sent->get(), F_GETFD) & FD_CLOEXEC, 0);
  const auto executor = testing::make_executor();
  NetRegistry nets(*executor);
  EXPECT_NE(refusal(nets.add({{"type", "bridge"}, {"id", "n0"}, {"helper", helper}})).find("is no tap"),
            std::string::npos);
}

}  // namespace
}  // namespace kite::net
