// A pseudo-terminal whose other side any terminal program can open.
#pragma once

#include "async/clock.h"
#include "chardev/stream_chardev.h"

namespace kite {

// Open while somebody has the other side open; until then output is dropped, as with a cable that is not plugged in.
// Linux tells a master that its last user left, but not that a new one came, so `clock` has a look now and then.
class PtyChardev final : public StreamChardev {
 public:
  static constexpr int64_t kLookAgainNs = 250'000'000;

  static Result<std::unique_ptr<PtyChardev>> create(std::string id, Executor& executor, Fd log, Clock& clock);
  ~PtyChardev() override;

  [[nodiscard]] std::string filename() const override { return "pty:" + path_; }
  [[nodiscard]] const std::string& path() const { return path_; }  // "/dev/pts/3"

 private:
  PtyChardev(std::string id, Executor& executor, Fd log, Clock& clock, Fd master, std::string path);
  void input_ended(int error) override;
  void output_failed(int error) override;
  uint32_t extra_input_events() const override;
  void extra_input_event() override;
  [[nodiscard]] bool has_user() const;
  void look_for_user();
  void lost_user();

  Fd master_;
  std::string path_;
  Timer look_;
};

}  // namespace kite
