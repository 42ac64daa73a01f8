#include "devices/rtc/rtc_calendar.h"

#include <algorithm>

namespace kite::devices {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;
constexpr uint8_t kPm = 0x80;

// Calendar arithmetic starts at -0400-03-01, so that every date of the years 0 and later is a positive number of days.
constexpr int64_t kShiftYears = 400;
constexpr int64_t kShiftDays = 719'468 + 146'097;
constexpr int64_t kFirstDay = -719'528;  // 0000-01-01

// Days since 1970-01-01 of a date in the Gregorian calendar, years counted from 1 March.
int64_t days_from_date(int64_t year, unsigned month, unsigned day) {
  const int64_t y = kShiftYears + (month <= 2 ? year - 1 : year);
  const unsigned month_from_march = (month + 9) % 12;
  const unsigned day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
  return y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - kShiftDays;
}

struct Date {
  int64_t year;
  unsigned month, day;
};

Date date_from_days(int64_t days) {
  constexpr int64_t kDaysPer400Years = 146'097;
  const int64_t era = (days + kShiftDays) / kDaysPer400Years;
  const int64_t day_of_era = (days + kShiftDays) % kDaysPer400Years;
  const int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const auto day_of_year =
      static_cast<unsigned>(day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100));
  const unsigned month_from_march = (5 * day_of_year + 2) / 153;
  const unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  return {era * 400 - kShiftYears + year_of_era + (month <= 2 ? 1 : 0), month,
          day_of_year - (153 * month_from_march + 2) / 5 + 1};
}

// [MC146818] a "don't care" code is any byte from 0xc0 to 0xff.
constexpr bool matches(uint8_t alarm, uint8_t value) { return alarm >= 0xc0 || alarm == value; }

// The smallest value in [from, limit) whose byte the alarm matches.
template <class Encode>
std::optional<unsigned> next_match(uint8_t alarm, unsigned from, unsigned limit, Encode encode) {
  for (unsigned value = from; value < limit; ++value)
    if (matches(alarm, encode(value))) return value;
  return std::nullopt;
}

}  // namespace

uint8_t RtcFormat::encode(unsigned value) const {
  return static_cast<uint8_t>(binary ? value : value / 10 << 4 | value % 10);
}

unsigned RtcFormat::decode(uint8_t byte) const { return binary ? byte : (byte >> 4) * 10u + (byte & 0xfu); }

uint8_t RtcFormat::encode_hour(unsigned hour) const {
  if (hours24) return encode(hour);
  const unsigned on_dial = hour % 12 == 0 ? 12 : hour % 12;
  return static_cast<uint8_t>(encode(on_dial) | (hour >= 12 ? kPm : 0));
}

unsigned RtcFormat::decode_hour(uint8_t byte) const {
  if (hours24) return decode(byte);
  return decode(byte & 0x7f) % 12 + ((byte & kPm) != 0 ? 12 : 0);
}

int64_t rtc_decode(std::span<const uint8_t> bytes, RtcFormat format) {
  const int64_t year = int64_t{format.decode(bytes[rtc::CENTURY])} * 100 + format.decode(bytes[rtc::YEAR]);
  const unsigned month = std::clamp(format.decode(bytes[rtc::MONTH]), 1u, 12u);
  const unsigned day = std::max(format.decode(bytes[rtc::DAY_OF_MONTH]), 1u);
  return days_from_date(year, month, day) * kSecondsPerDay + format.decode_hour(bytes[rtc::HOURS]) * 3600 +
         format.decode(bytes[rtc::MINUTES]) * 60 + format.decode(bytes[rtc::SECONDS]);
}

void rtc_encode(std::span<uint8_t> bytes, RtcFormat format, int64_t seconds) {
  const int64_t days = seconds / kSecondsPerDay - (seconds % kSecondsPerDay < 0 ? 1 : 0);
  const auto in_day = static_cast<unsigned>(seconds - days * kSecondsPerDay);
  const Date date = date_from_days(std::max(days, kFirstDay));  // the registers hold the years 0 to 9999
  bytes[rtc::SECONDS] = format.encode(in_day % 60);
  bytes[rtc::MINUTES] = format.encode(in_day / 60 % 60);
  bytes[rtc::HOURS] = format.encode_hour(in_day / 3600);
  bytes[rtc::DAY_OF_MONTH] = format.encode(date.day);
  bytes[rtc::MONTH] = format.encode(date.month);
  bytes[rtc::YEAR] = format.encode(static_cast<unsigned>(date.year % 100));
  bytes[rtc::CENTURY] = format.encode(static_cast<unsigned>(date.year / 100 % 100));
}

unsigned rtc_day_of_week(int64_t seconds) {
  const int64_t days = seconds / kSecondsPerDay - (seconds % kSecondsPerDay < 0 ? 1 : 0);
  return static_cast<unsigned>(((days + 4) % 7 + 7) % 7) + 1;  // 1970-01-01 was a Thursday
}

std::optional<int64_t> rtc_seconds_to_alarm(std::span<const uint8_t> bytes, RtcFormat format) {
  const int64_t decoded = rtc_decode(bytes, format) % kSecondsPerDay;
  const auto now = static_cast<unsigned>(decoded < 0 ? decoded + kSecondsPerDay : decoded);
  const auto plain = [&](unsigned value) { return format.encode(value); };
  const uint8_t second_alarm = bytes[rtc::SECONDS_ALARM];
  const auto first_second = next_match(second_alarm, 0, 60, plain);
  if (!first_second) return std::nullopt;
  // The rest of this minute, then the rest of this hour, then the hours that follow up to this one tomorrow.
  for (unsigned ahead = 0; ahead <= 24; ++ahead) {
    const unsigned hour = (now / 3600 + ahead) % 24;
    if (!matches(bytes[rtc::HOURS_ALARM], format.encode_hour(hour))) continue;
    for (unsigned minute = ahead == 0 ? now / 60 % 60 : 0; minute < 60; ++minute) {
      if (!matches(bytes[rtc::MINUTES_ALARM], plain(minute))) continue;
      const bool this_minute = ahead == 0 && minute == now / 60 % 60;
      const auto second = this_minute ? next_match(second_alarm, now % 60 + 1, 60, plain) : first_second;
      if (second) return int64_t{now / 3600 + ahead} * 3600 + minute * 60 + *second - now;
    }
  }
  return std::nullopt;
}

}  // namespace kite::devices
