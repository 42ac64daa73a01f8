// The time of day registers of an MC146818: ten bytes in one of four formats, and the arithmetic of the calendar.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace kite::devices {

// The parts of register B that say how the bytes are to be read.
struct RtcFormat {
  bool binary = false;   // DM; else BCD
  bool hours24 = false;  // 24/12; else bit 7 of the hours is PM

  [[nodiscard]] uint8_t encode(unsigned value) const;
  [[nodiscard]] unsigned decode(uint8_t byte) const;
  [[nodiscard]] uint8_t encode_hour(unsigned hour) const;  // 0-23
  [[nodiscard]] unsigned decode_hour(uint8_t byte) const;
  bool operator==(const RtcFormat&) const = default;
};

// The registers of one bank of 128.
namespace rtc {
enum Reg : uint8_t {
  SECONDS = 0x00,
  SECONDS_ALARM = 0x01,
  MINUTES = 0x02,
  MINUTES_ALARM = 0x03,
  HOURS = 0x04,
  HOURS_ALARM = 0x05,
  DAY_OF_WEEK = 0x06,
  DAY_OF_MONTH = 0x07,
  MONTH = 0x08,
  YEAR = 0x09,
  A = 0x0a,  // rw  UIP r-
  B = 0x0b,  // rw
  C = 0x0c,  // r-  cleared by reading
  D = 0x0d,  // r-
  CENTURY = 0x32,
};
}  // namespace rtc

// Seconds since 1970-01-01 00:00:00 from the registers. Values that no calendar knows (second 99, month 0) carry over
// into the next larger unit or are brought into range; any 128 bytes have an answer.
[[nodiscard]] int64_t rtc_decode(std::span<const uint8_t> bytes, RtcFormat format);
// The registers' new contents but for the day of the week, which counts days by itself.
void rtc_encode(std::span<uint8_t> bytes, RtcFormat format, int64_t seconds);
// 1 is Sunday.
[[nodiscard]] unsigned rtc_day_of_week(int64_t seconds);
// How many seconds (1-86400) after the time in the registers the alarm matches next; nothing if it never does.
[[nodiscard]] std::optional<int64_t> rtc_seconds_to_alarm(std::span<const uint8_t> bytes, RtcFormat format);

}  // namespace kite::devices
