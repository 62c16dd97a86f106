// SPDX-License-Identifier: Apache-2.0
#include "cli/cowloop/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/cowloop/words.h"

namespace oxbow::cowloop_commands {
namespace {

struct Command {
  std::string_view name;
  std::string_view usage;  // {0} is the program
  int (*run)(const Call& call);
};

constexpr std::array k_commands = {
    Command{"cowctl",
            "Usage:\n"
            "\t{0} -c cowdevice\tclose cowfile related to device\n"
            "\t{0} -r cowdevice\treopen cowfile read-only\n",
            cowctl},
    Command{"cowdev",
            "Usage:\n"
            "\t{0} -l\t\t\t\t\tlist cowdevices\n"
            "\t{0} -a rdofile cowfile [cowdevice]\tactivate a cowdevice\n"
            "\t{0} -d cowdevice\t\t\tdeactivate a cowdevice\n",
            cowdev},
    Command{"cowlist", "Usage: {0} cowfile\n", cowlist},
    Command{"cowmerge",
            "Usage: {0} rdofile cowfile\n"
            "\trdofile\tread-only file to be updated\n"
            "\tcowfile\tcowfile containing the updates\n",
            cowmerge},
    Command{"cowpack",
            "Usage: {0} [-z] <-p | -u> <source> <dest>\n"
            " where: -z indicates GZipped input (with -u) or output (with -p)\n"
            "        -p indicates packing source (a cow file) to dest\n"
            "        -u indicates unpacking source to dest (a cow file)\n"
            "NOTE: -p and -u are mutually exclusive\n",
            cowpack},
    Command{"cowrepair",
            "Usage: {0} [-f] [-n] [-v[v]] cowfile\n\n"
            "   -f   forced:   repair cowfile which is not dirty\n"
            "   -n   nomodify: do not modify cowfile (fake mode)\n"
            "   -v   verbose:  provide extra info\n",
            cowrepair},
    Command{"cowsync", "Usage: {0} [cowdevice ...]\n", cowsync},
    Command{"cowwatch",
            "Usage: {0} cowdevice [threshold]\n"
            "\tWhen a threshold-value is specified, cowwatch\n"
            "\tblocks till the available space for the cowfile\n"
            "\tdrops below the threshold-value (in Kb).\n",
            cowwatch},
};

}  // namespace

std::optional<int> run(int argc, char** argv) {
  if (argc < 1) return std::nullopt;
  const std::string_view program = argv[0];
  const auto* const found =
      std::ranges::find(k_commands, program.substr(program.rfind('/') + 1), &Command::name);
  if (found == k_commands.end()) return std::nullopt;
  const Call call{std::string(program), fmt::format(fmt::runtime(found->usage), program), argc, argv};
  if (argc == 2 && argv[1] == std::string_view("--help")) return tell(call, call.usage);
  if (argc == 2 && argv[1] == std::string_view("--version"))
    return tell(call, fmt::format("{} (oxbow " OXBOW_VERSION ")\n", found->name));
  return found->run(call);
}

}  // namespace oxbow::cowloop_commands
