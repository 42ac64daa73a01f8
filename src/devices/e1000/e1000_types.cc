#include "devices/e1000/e1000_types.h"

namespace kite::devices {

void register_e1000_types(TypeRegistry& registry) {
  registry.add(
      {.name = "e1000",
       .parent = "pci-device",
       .description = "Intel 82540EM gigabit network card",
       .bus = "PCI",
       .properties = {
           property::string("mac", "the card's address; the next one of 52:54:00:12:34:56 and up"),
           property::link("netdev", "the -netdev that its cable goes to", "netdev"),
           property::signed_integer("bootindex", "place in the order of what firmware boots; -1: none", -1),
           property::string("romfile", "firmware of the card's own, a file or a name that is searched; empty: none",
                            std::string(kE1000Rom)),
           property::unsigned_integer("rombar", "0: the guest does not see that firmware", 1, 0, 1),
       }});
  registry.add({.name = "e1000-82540em",
                .parent = "e1000",
                .description = "e1000 by the name of its chip",
                .bus = "PCI",
                .properties = {}});
}

bool is_e1000(std::string_view type) { return type == "e1000" || type == "e1000-82540em"; }

}  // namespace kite::devices
