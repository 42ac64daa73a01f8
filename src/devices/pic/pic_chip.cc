#include "devices/pic/pic_chip.h"

namespace kite::devices {
namespace {

constexpr uint8_t input_bit(unsigned input) { return static_cast<uint8_t>(1u << input); }

}  // namespace

void PicChip::set_line(unsigned input, bool level) {
  const uint8_t bit = input_bit(input);
  const bool rises = level && (lines & bit) == 0;
  if (level) {
    lines |= bit;
  } else {
    lines &= static_cast<uint8_t>(~bit);
  }
  if ((elcr & bit) != 0) {
    irr = static_cast<uint8_t>((irr & ~bit) | (lines & bit));
  } else if (rises) {
    irr |= bit;
  }
}

void PicChip::set_elcr(uint8_t value) {
  // An input that becomes level-triggered shows its level, one that becomes edge-triggered waits for the next edge.
  const auto changed = static_cast<uint8_t>(elcr ^ value);
  irr = static_cast<uint8_t>((irr & ~changed) | (lines & changed & value));
  elcr = value;
}

uint8_t PicChip::read(unsigned port, uint8_t cascade_mask) {
  if (poll) {
    // [8259A] Poll command: the next read is the acknowledge; bit 7 says whether there was a request.
    poll = false;
    const auto input = requested(cascade_mask);
    if (!input) return 0;
    acknowledge(*input);
    return static_cast<uint8_t>(0x80 | *input);
  }
  if (port == 1) return imr;
  return read_isr ? isr : irr;
}

void PicChip::write(unsigned port, uint8_t value) {
  if (port == 0) {
    if ((value & 0x10) != 0) return write_icw1(value);
    return (value & 0x08) != 0 ? write_ocw3(value) : write_ocw2(value);
  }
  switch (init_step) {
    case InitStep::kReady:
      imr = value;  // OCW1
      break;
    case InitStep::kIcw2:
      vector_base = value & 0xf8;
      init_step = !single ? InitStep::kIcw3 : needs_icw4 ? InitStep::kIcw4 : InitStep::kReady;
      break;
    case InitStep::kIcw3:  // the wiring of a PC is fixed: nothing to learn
      init_step = needs_icw4 ? InitStep::kIcw4 : InitStep::kReady;
      break;
    case InitStep::kIcw4:
      auto_eoi = (value & 0x02) != 0;
      fully_nested = (value & 0x10) != 0;
      init_step = InitStep::kReady;
      break;
  }
}

void PicChip::write_icw1(uint8_t value) {
  // [8259A] ICW1: edge sense is reset, IMR is cleared, input 7 has the lowest priority, special mask mode is off, reads
  // answer IRR; without ICW4 all its functions are zero. What wires and chip set decide (levels, ELCR) stays.
  PicChip fresh;
  fresh.imr = 0;
  fresh.lines = lines;
  fresh.elcr = elcr;
  fresh.irr = static_cast<uint8_t>(lines & elcr);
  fresh.vector_base = vector_base;
  fresh.init_step = InitStep::kIcw2;
  fresh.single = (value & 0x02) != 0;
  fresh.needs_icw4 = (value & 0x01) != 0;
  *this = fresh;
}

void PicChip::write_ocw2(uint8_t value) {
  const unsigned input = value & 7u;
  const bool rotate = (value & 0x80) != 0;
  const bool specific = (value & 0x40) != 0;
  const bool end = (value & 0x20) != 0;
  if (end) {
    if (!specific) return end_non_specific(rotate);
    isr &= static_cast<uint8_t>(~input_bit(input));
    if (rotate) lowest_priority = static_cast<uint8_t>(input);
    return;
  }
  if (!specific) {
    rotate_on_aeoi = rotate;
  } else if (rotate) {
    lowest_priority = static_cast<uint8_t>(input);  // set priority; without R it is a no-operation
  }
}

void PicChip::end_non_specific(bool rotate) {
  // [8259A] special mask mode: a masked level is not reset by a non-specific EOI.
  const auto input = highest(special_mask ? static_cast<uint8_t>(isr & ~imr) : isr);
  if (!input) return;
  isr &= static_cast<uint8_t>(~input_bit(*input));
  if (rotate) lowest_priority = static_cast<uint8_t>(*input);
}

void PicChip::write_ocw3(uint8_t value) {
  poll = (value & 0x04) != 0;
  if ((value & 0x02) != 0) read_isr = (value & 0x01) != 0;
  if ((value & 0x40) != 0) special_mask = (value & 0x20) != 0;
}

std::optional<unsigned> PicChip::highest(uint8_t set) const {
  for (unsigned step = 1; step <= 8; ++step) {
    const unsigned input = (lowest_priority + step) & 7u;
    if ((set & input_bit(input)) != 0) return input;
  }
  return std::nullopt;
}

std::optional<unsigned> PicChip::requested(uint8_t cascade_mask) const {
  const auto best = highest(static_cast<uint8_t>(irr & ~imr));
  if (!best) return std::nullopt;
  uint8_t blocking = isr;
  if (special_mask) blocking &= static_cast<uint8_t>(~imr);
  // [8259A] special fully nested mode: a chip in service may interrupt again through its input.
  if (fully_nested) blocking &= static_cast<uint8_t>(~cascade_mask);
  const auto in_service = highest(blocking);
  if (in_service && rank(*in_service) <= rank(*best)) return std::nullopt;
  return best;
}

void PicChip::acknowledge(unsigned input) {
  const uint8_t bit = input_bit(input);
  if ((elcr & bit) == 0) irr &= static_cast<uint8_t>(~bit);
  if (!auto_eoi) {
    isr |= bit;
  } else if (rotate_on_aeoi) {
    lowest_priority = static_cast<uint8_t>(input);
  }
}

}  // namespace kite::devices
