// SPDX-License-Identifier: Apache-2.0
#include "cli/config.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

constexpr std::string_view k_whole = R"(# everything at once
nbd = ["unix:run/vm.sock", "tcp:127.0.0.1:10809", "unix:/abs"]
tcp-plaintext = true
tls-certificates = "pki"
tls-psk = "/keys"
tls-verify-peer = true
threads = 2
poll = 100
on-full = "error"
reserve = "2G"
connections = 16
handshake-limit = 5
log = "json"
log-level = "debug"
log-file = "vm.log"
pid-file = "/run/vm.pid"

[[device]]
name = "scratch"
description = "gone at the end"
ram = "64M"
prealloc = true
budget = 1048576

[[device]]
base = "golden.img"
overlay = "/srv/my vm.oxb"
base-format = "oxb"
accept-base = true
allow-base = ["images", "/srv/images"]
default = true

[[device]]
file = "disk.img"
offset = 512
length = "1G"
read-only = true
direct = true

[[device]]
table = "-"
[[device]]
layer = "w.oxb"
)";

Config parsed(std::string_view text, const std::string& folder = "/etc/oxbow") {
  auto config = parse_config(text, "vm.toml", folder);
  if (!config) throw std::runtime_error(config.error().text());
  return std::move(*config);
}

// The error without what is the same in all of them.
std::string refused(std::string_view text) {
  const auto config = parse_config(text, "vm.toml", "");
  if (config) return "accepted";
  constexpr std::string_view k_start = "cannot use configuration: vm.toml";
  const std::string error = config.error().text();
  EXPECT_TRUE(error.starts_with(k_start)) << error;
  EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  return error.substr(k_start.size());
}

std::string refused_in_device(const std::string& lines) { return refused("[[device]]\n" + lines + "\n"); }

TEST(Config, SaysHowToServe) {
  const Config config = parsed(k_whole);
  ASSERT_EQ(config.server.nbd.size(), 3U);
  EXPECT_EQ(config.server.nbd[0].address, "unix:/etc/oxbow/run/vm.sock");
  EXPECT_EQ(config.server.nbd[0].origin, "vm.toml line 2, nbd");
  EXPECT_EQ(config.server.nbd[1].address, "tcp:127.0.0.1:10809");
  EXPECT_EQ(config.server.nbd[2].address, "unix:/abs");
  EXPECT_EQ(config.server.tcp_plaintext, true);
  EXPECT_EQ(config.server.tls_certificates, "/etc/oxbow/pki");
  EXPECT_EQ(config.server.tls_psk, "/keys");
  EXPECT_EQ(config.server.tls_verify_peer, true);
  EXPECT_EQ(config.server.threads, 2U);
  EXPECT_EQ(config.server.poll, 100U);
  EXPECT_EQ(config.server.on_full, OnFull::error);
  EXPECT_EQ(config.server.reserve, std::uint64_t{2} << 30);
  EXPECT_EQ(config.server.connections, 16U);
  EXPECT_EQ(config.server.handshake_limit, 5U);
  EXPECT_EQ(config.process.log, control::LogFormat::json);
  EXPECT_EQ(config.process.log_level, LogLevel::debug);
  EXPECT_EQ(config.process.log_file, "/etc/oxbow/vm.log");
  EXPECT_EQ(config.process.pid_file, "/run/vm.pid");
}

TEST(Config, SaysWhatToServe) {
  const Config config = parsed(k_whole);
  ASSERT_EQ(config.devices.size(), 5U);
  const ServedDeviceArguments& ram = config.devices[0];
  EXPECT_EQ(ram.name, "scratch");
  EXPECT_EQ(ram.description, "gone at the end");
  EXPECT_EQ(ram.origin, "vm.toml line 21, ram");
  EXPECT_EQ(ram.device.ram, 64U << 20U);
  EXPECT_TRUE(ram.device.preallocate);
  EXPECT_EQ(ram.device.budget, 1U << 20U);
  EXPECT_FALSE(ram.is_default || ram.read_only || ram.direct || ram.device.accept_base);
  const ServedDeviceArguments& overlay = config.devices[1];
  EXPECT_EQ(overlay.name, "my_vm");
  EXPECT_EQ(overlay.device.base, "/etc/oxbow/golden.img");
  EXPECT_EQ(overlay.device.overlay, "/srv/my vm.oxb");
  EXPECT_EQ(overlay.device.base_kind, native::BaseKind::layer);
  EXPECT_TRUE(overlay.device.accept_base && overlay.is_default);
  EXPECT_EQ(overlay.device.allow_bases, (std::vector<std::string>{"/etc/oxbow/images", "/srv/images"}));
  const ServedDeviceArguments& file = config.devices[2];
  EXPECT_EQ(file.name, "disk");
  EXPECT_EQ(file.device.file, "/etc/oxbow/disk.img");
  EXPECT_EQ(file.device.offset, 512U);
  EXPECT_EQ(file.device.length, 1U << 30U);
  EXPECT_TRUE(file.read_only && file.direct);
  EXPECT_EQ(config.devices[3].device.table, "/etc/oxbow/-");
  EXPECT_EQ(config.devices[4].device.layer, "/etc/oxbow/w.oxb");
}

TEST(Config, PathsAreMeantFromItsFolder) {
  constexpr std::string_view k_text = "nbd = \"unix:s\"\n[[device]]\ntable = \"-\"\n";
  EXPECT_EQ(parsed(k_text, "").devices[0].device.table, "./-");
  EXPECT_EQ(parsed(k_text, "").server.nbd[0].address, "unix:s");
  EXPECT_EQ(parsed(k_text, "/").server.nbd[0].address, "unix:/s");
  EXPECT_EQ(parsed(k_text, "a/b").server.nbd[0].address, "unix:a/b/s");
}

TEST(Config, LeavesUnsaidWhatIsNotSaid) {
  const Config config = parsed("[[device]]\nram = 4096\n");
  EXPECT_TRUE(config.server.nbd.empty());
  EXPECT_FALSE(config.server.tcp_plaintext || config.server.connections || config.server.handshake_limit ||
               config.server.threads || config.server.poll || config.server.on_full || config.server.reserve);
  EXPECT_FALSE(config.process.log_file || config.process.pid_file);
  EXPECT_EQ(config.devices[0].name, "ram");
}

TEST(Config, TextThatIsNoToml) {
  EXPECT_EQ(refused("nbd = \n"), " line 1: Error while parsing key-value pair: expected value, saw '\\n'");
  EXPECT_EQ(refused("\n[[device]\n"), " line 2: Error while parsing table header: expected ']', saw '\\n'");
  EXPECT_EQ(refused("a = 1\na = 2\n"),
            " line 2: Error while parsing key-value pair: cannot redefine existing integer 'a'");
  EXPECT_EQ(refused("a = \"\xff\"\n"), " line 1: Encountered invalid utf-8 sequence");
}

TEST(Config, NothingToServe) {
  for (const char* text : {"", "# nothing\n", "threads = 1\n"})
    EXPECT_EQ(refused(text), ": there is no [[device]], and nothing to serve");
}

TEST(Config, UnknownKeys) {
  EXPECT_EQ(refused("threads = 1\ncolour = \"red\"\n[[device]]\nram = 4096\n"),
            " line 2: colour: is no key; the keys are nbd, tcp-plaintext, tls-certificates, tls-psk, "
            "tls-verify-peer, threads, poll, connections, "
            "handshake-limit, on-full, reserve, log, log-level, log-file, pid-file, live, and [[device]]");
  EXPECT_EQ(
      refused_in_device("ram = 1\ncolour = \"red\""),
      " line 3: colour: is no key of a device; its keys are layer, base, overlay, base-format, "
      "accept-base, allow-base, discard-live, ram, prealloc, budget, on-demand, file, offset, length, table, "
      "cowloop, repair, cowfile-32bit, name, description, fuse, loop, ublk, read-only, direct, "
      "no-ring, default");
  EXPECT_TRUE(refused("\"a\\nb\" = 1\n").starts_with(" line 1: a?b: is no key;"));
}

TEST(Config, PairsOfCowloop) {
  const Config config =
      parsed("[[device]]\ncowloop = [\"rdo\", \"/srv/cow\"]\nrepair = true\ncowfile-32bit = true\n");
  EXPECT_EQ(config.devices[0].device.cowloop, (std::vector<std::string>{"/etc/oxbow/rdo", "/srv/cow"}));
  EXPECT_TRUE(config.devices[0].device.repair);
  EXPECT_TRUE(config.devices[0].device.layout_32);
  EXPECT_EQ(config.devices[0].name, "cow");
  EXPECT_EQ(refused_in_device("cowloop = [\"rdo\"]"),
            " line 2: cowloop: has to be an array of two: the read-only file and the cowfile");
  EXPECT_EQ(refused_in_device("ram = 1\nrepair = true"), " line 3: repair: makes no sense without cowloop");
}

TEST(Config, DirectoriesOfBases) {
  const Config config = parsed("[[device]]\nlayer = \"w.oxb\"\nallow-base = \"images\"\n");
  EXPECT_EQ(config.devices[0].device.allow_bases, std::vector<std::string>{"/etc/oxbow/images"});
  EXPECT_EQ(refused_in_device("layer = \"w\"\nallow-base = []"),
            " line 3: allow-base: is an array of nothing");
  EXPECT_EQ(refused_in_device("layer = \"w\"\nallow-base = [\"a\", 5]"),
            " line 3: allow-base: has to be a string, or an array of strings, and is a whole number");
  EXPECT_EQ(refused_in_device("layer = \"w\"\nallow-base = true"),
            " line 3: allow-base: has to be a string, and is a boolean");
}

TEST(Config, ValuesOfTheWrongType) {
  EXPECT_EQ(refused("nbd = 5\n"),
            " line 1: nbd: has to be a string, or an array of strings, and is a whole number");
  EXPECT_EQ(refused("nbd = [\"unix:a\",\n 5.5]\n"),
            " line 1: nbd: has to be a string, or an array of strings, and is a number with a fraction");
  EXPECT_EQ(refused("nbd = []\n"), " line 1: nbd: is an array of nothing");
  EXPECT_EQ(refused("nbd = \"\"\n"), " line 1: nbd: is empty");
  EXPECT_EQ(refused("tcp-plaintext = \"yes\"\n"),
            " line 1: tcp-plaintext: has to be true or false, and is a string");
  EXPECT_EQ(refused("threads = 2020-01-01\n"),
            " line 1: threads: has to be a whole number from 1 to 256, and is a date or a time");
  EXPECT_EQ(refused("pid-file = {}\n"), " line 1: pid-file: has to be a string, and is a table");
  EXPECT_EQ(refused_in_device("ram = true"),
            " line 2: ram: has to be a size like \"64M\" or a number of bytes, and is a boolean");
  EXPECT_EQ(refused_in_device("layer = [\"a\"]"), " line 2: layer: has to be a string, and is an array");
  EXPECT_EQ(refused_in_device("layer = \"a\\u0000b\""), " line 2: layer: has a zero byte");
  for (const char* text : {"device = 5\n", "device = [5]\n", "[device]\nram = 4096\n", "device = []\n"})
    EXPECT_EQ(refused(text), " line 1: device: has to be [[device]], once for each device") << text;
}

TEST(Config, ValuesOutOfRange) {
  EXPECT_EQ(refused("connections = 0\n"),
            " line 1: connections: has to be a whole number from 1 to 65536, and is 0");
  EXPECT_EQ(refused("connections = 65537\n"),
            " line 1: connections: has to be a whole number from 1 to 65536, and is 65537");
  EXPECT_EQ(refused("handshake-limit = -1\n"),
            " line 1: handshake-limit: has to be a whole number from 1 to 3600, and is -1");
  EXPECT_EQ(refused("on-full = \"stop\"\n"), " line 1: on-full: has to be \"pause\" or \"error\"");
  EXPECT_EQ(refused("reserve = -1\n"), " line 1: reserve: -1 is negative");
  EXPECT_EQ(refused("poll = 1000001\n"),
            " line 1: poll: has to be a whole number from 1 to 1000000, and is 1000001");
  EXPECT_EQ(refused_in_device("ram = -4096"), " line 2: ram: -4096 is negative");
  EXPECT_EQ(refused_in_device("ram = \"64Q\""),
            " line 2: ram: \"64Q\" has 'Q' after the number; units are K, M, G, T");
  EXPECT_EQ(refused_in_device("ram = \"\\n\""),
            " line 2: ram: \"?\" is not a size; examples: 4096, 4K, 16M, 2G, 1T");
  EXPECT_EQ(refused("log = \"xml\"\n"), " line 1: log: has to be \"human\" or \"json\"");
  EXPECT_EQ(refused("log-level = \"all\"\n"),
            " line 1: log-level: has to be \"debug\", \"info\", \"warning\" or \"error\"");
  EXPECT_EQ(refused_in_device("base = \"a\"\noverlay = \"b\"\nbase-format = \"qcow2\""),
            " line 4: base-format: has to be \"raw\" or \"oxb\"");
}

TEST(Config, ADeviceIsOneKindOfDevice) {
  constexpr auto k_one = "a device is exactly one of layer, overlay, ram, file, table, cowloop";
  EXPECT_EQ(refused("\n[[device]]\nname = \"a\"\n"),
            std::string(" line 2: device: has none of them: ") + k_one);
  EXPECT_EQ(refused_in_device("ram = 4096\nfile = \"a\""),
            std::string(" line 3: file: ram is there as well: ") + k_one);
  const std::pair<const char*, const char*> needs[] = {
      {"base = \"a\"", "base: makes no sense without overlay"},
      {"overlay = \"a\"", "overlay: makes no sense without base"},
      {"base-format = \"raw\"", "base-format: makes no sense without base"},
      {"prealloc = true", "prealloc: makes no sense without ram"},
      {"on-demand = 8", "on-demand: makes no sense without ram"},
      {"budget = 4096", "budget: makes no sense without ram"},
      {"offset = 4096", "offset: makes no sense without file"},
      {"length = 4096", "length: makes no sense without file"}};
  for (const auto& [text, why] : needs)
    EXPECT_EQ(refused_in_device(text + std::string("\nlayer = \"a\"")), std::string(" line 2: ") + why);
}

TEST(Config, NamesAndTheDefault) {
  EXPECT_EQ(refused_in_device("ram = 4096\nname = \"a/b\""),
            " line 3: name: a name has only letters, digits and ._-");
  EXPECT_EQ(refused_in_device("ram = 1\n[[device]]\nname = \"ram\"\nfile = \"a\""),
            " line 3: name: the device of line 1 is called ram already");
  EXPECT_EQ(refused_in_device("ram = 1\ndefault = true\n[[device]]\nfile = \"a\"\ndefault = true"),
            " line 4: default: the device of line 1 is it already");
}

TEST(Config, TheFirstMistakeIsTheOneThatIsTold) {
  EXPECT_EQ(refused("zebra = 1\nant = 2\n").substr(0, 14), " line 1: zebra");
}

}  // namespace
}  // namespace oxbow
