// SPDX-License-Identifier: Apache-2.0
#include "cli/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "cli/size.h"
#include "control/device_name.h"
#include "os/read_file.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot use configuration";
constexpr std::size_t k_largest = std::size_t{1} << 20U;  // bytes

using Done = Result<void>;

// What a value is, for people.
const char* name_of(toml::node_type type) {
  switch (type) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "a boolean";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    default:
      return "a date or a time";
  }
}

// A key with its value, and where the text has it. Thread safety: a value; borrows the table.
struct Entry {
  std::string key;
  const toml::node* value;
  std::uint32_t line;
};

std::uint32_t line_of(const toml::source_region& region) { return region.begin.line; }

// In the order of the text, so that the first of several mistakes is the one that is told.
std::vector<Entry> entries_of(const toml::table& table) {
  std::vector<std::pair<toml::source_position, Entry>> found;
  for (const auto& [key, value] : table) {
    const toml::source_position at = key.source().begin;
    found.push_back({at, {std::string(key.str()), &value, at.line}});
  }
  std::ranges::sort(found, [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Entry> entries;
  for (auto& each : found) entries.push_back(std::move(each.second));
  return entries;
}

// Reads values of the kinds that there are. Thread safety: a value; borrows its strings.
class Reader {
 public:
  Reader(const std::string& source, const std::string& folder) noexcept : source_(source), folder_(folder) {}

  [[nodiscard]] std::string place(std::uint32_t line) const {
    return fmt::format("{} line {}", source_, line);
  }
  [[nodiscard]] std::unexpected<Error> refuse(std::uint32_t line, std::string why) const {
    return std::unexpected(Error(k_what, place(line), std::move(why)));
  }
  [[nodiscard]] std::unexpected<Error> refuse(const Entry& entry, const std::string& why) const {
    return refuse(entry.line, entry.key + ": " + why);
  }
  [[nodiscard]] std::unexpected<Error> wrong_type(const Entry& entry, const std::string& expected,
                                                  const toml::node& value) const {
    return refuse(entry, fmt::format("has to be {}, and is {}", expected, name_of(value.type())));
  }

  [[nodiscard]] Done text(const Entry& entry, std::string& out) const {
    const auto* const value = entry.value->as_string();
    if (value == nullptr) return wrong_type(entry, "a string", *entry.value);
    if (value->get().empty()) return refuse(entry, "is empty");
    if (value->get().find('\0') != std::string::npos) return refuse(entry, "has a zero byte");
    out = value->get();
    return {};
  }
  [[nodiscard]] Done path(const Entry& entry, std::string& out) const {
    if (auto done = text(entry, out); !done) return done;
    out = from_folder(out);
    return {};
  }
  [[nodiscard]] Done flag(const Entry& entry, bool& out) const {
    const auto* const value = entry.value->as_boolean();
    if (value == nullptr) return wrong_type(entry, "true or false", *entry.value);
    out = value->get();
    return {};
  }
  [[nodiscard]] Done size(const Entry& entry, std::uint64_t& out) const {
    if (const auto* const number = entry.value->as_integer()) {
      if (number->get() < 0) return refuse(entry, fmt::format("{} is negative", number->get()));
      out = static_cast<std::uint64_t>(number->get());
      return {};
    }
    const auto* const words = entry.value->as_string();
    if (words == nullptr) return wrong_type(entry, "a size like \"64M\" or a number of bytes", *entry.value);
    const auto parsed = parse_size(words->get());
    if (!parsed) return refuse(entry, fmt::format("\"{}\" {}", printable(words->get()), parsed.error()));
    out = *parsed;
    return {};
  }
  [[nodiscard]] Done number(const Entry& entry, std::uint32_t most, std::optional<std::uint32_t>& out) const {
    const std::string expected = fmt::format("a whole number from 1 to {}", most);
    const auto* const value = entry.value->as_integer();
    if (value == nullptr) return wrong_type(entry, expected, *entry.value);
    if (value->get() < 1 || value->get() > most)
      return refuse(entry, fmt::format("has to be {}, and is {}", expected, value->get()));
    out = static_cast<std::uint32_t>(value->get());
    return {};
  }
  [[nodiscard]] Done address(const Entry& entry, std::vector<AddressArgument>& out) const {
    Entry one = entry;
    const auto add = [&](const toml::node& node) -> Done {
      constexpr std::string_view k_unix = "unix:";
      AddressArgument address;
      one.value = &node;
      if (!node.is_string()) return wrong_type(entry, "a string, or an array of strings", node);
      if (auto done = text(one, address.address); !done) return done;
      if (address.address.starts_with(k_unix) && address.address.size() > k_unix.size())
        address.address = std::string(k_unix) + from_folder(address.address.substr(k_unix.size()));
      address.origin = place(line_of(node.source())) + ", " + entry.key;
      out.push_back(std::move(address));
      return {};
    };
    const toml::array* const several = entry.value->as_array();
    if (several == nullptr) return add(*entry.value);
    if (several->empty()) return refuse(entry, "is an array of nothing");
    for (const toml::node& each : *several) {
      if (auto done = add(each); !done) return done;
    }
    return {};
  }

  // A path, or several.
  [[nodiscard]] Done paths(const Entry& entry, std::vector<std::string>& out) const {
    Entry one = entry;
    const toml::array* const several = entry.value->as_array();
    if (several == nullptr) return path(one, out.emplace_back());
    if (several->empty()) return refuse(entry, "is an array of nothing");
    for (const toml::node& each : *several) {
      one.value = &each;
      if (!each.is_string()) return wrong_type(entry, "a string, or an array of strings", each);
      if (auto done = path(one, out.emplace_back()); !done) return done;
    }
    return {};
  }

  // Text from a file, without what would break a message into lines.
  [[nodiscard]] static std::string printable(std::string_view text, std::size_t most = 64) {
    std::string out(text.substr(0, most));
    std::ranges::replace_if(
        out, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, '?');
    return out;
  }

 private:
  [[nodiscard]] std::string from_folder(const std::string& path) const {
    if (path.starts_with('/')) return path;
    if (folder_.empty()) return path == "-" ? "./-" : path;
    return folder_ + (folder_.ends_with('/') ? "" : "/") + path;
  }

  const std::string& source_;
  const std::string& folder_;
};

// A key, and what becomes of its value.
template <typename T>
struct Key {
  std::string_view name;
  Done (*read)(const Reader& reader, const Entry& entry, T& out);
};

// The function that reads a member of one kind.
template <auto Read, auto Member>
constexpr auto k_into = [](const Reader& reader, const Entry& entry, auto& out) -> Done {
  return (reader.*Read)(entry, out.*Member);
};

template <auto Read, auto Member>
constexpr auto k_into_optional = [](const Reader& reader, const Entry& entry, auto& out) -> Done {
  return (reader.*Read)(entry, (out.*Member).emplace());
};

// As above, of the DEVICE within.
template <auto Read, auto Member>
constexpr auto k_into_device =
    [](const Reader& reader, const Entry& entry, ServedDeviceArguments& out) -> Done {
  return (reader.*Read)(entry, out.device.*Member);
};

template <auto Read, auto Member>
constexpr auto k_into_device_optional =
    [](const Reader& reader, const Entry& entry, ServedDeviceArguments& out) -> Done {
  return (reader.*Read)(entry, (out.device.*Member).emplace());
};

template <auto Member, std::uint32_t Most>
constexpr auto k_into_number = [](const Reader& reader, const Entry& entry, ServerArguments& out) -> Done {
  return reader.number(entry, Most, out.*Member);
};

Done read_on_demand(const Reader& reader, const Entry& entry, ServedDeviceArguments& out) {
  return reader.number(entry, k_max_on_demand, out.on_demand);
}

Done read_base_format(const Reader& reader, const Entry& entry, ServedDeviceArguments& out) {
  std::string format;
  if (auto done = reader.text(entry, format); !done) return done;
  if (format != "raw" && format != "oxb") return reader.refuse(entry, R"(has to be "raw" or "oxb")");
  out.device.base_kind = format == "raw" ? native::BaseKind::raw : native::BaseKind::layer;
  return {};
}

Done read_cowloop(const Reader& reader, const Entry& entry, ServedDeviceArguments& out) {
  if (auto done = reader.paths(entry, out.device.cowloop); !done) return done;
  if (out.device.cowloop.size() == 2) return {};
  return reader.refuse(entry, "has to be an array of two: the read-only file and the cowfile");
}

Done read_log(const Reader& reader, const Entry& entry, ProcessArguments& out) {
  std::string format;
  if (auto done = reader.text(entry, format); !done) return done;
  out.log = parse_log_format(format);
  return out.log ? Done() : reader.refuse(entry, R"(has to be "human" or "json")");
}

Done read_log_level(const Reader& reader, const Entry& entry, ProcessArguments& out) {
  std::string level;
  if (auto done = reader.text(entry, level); !done) return done;
  out.log_level = parse_log_level(level);
  return out.log_level ? Done() : reader.refuse(entry, R"(has to be "debug", "info", "warning" or "error")");
}

Done read_on_full(const Reader& reader, const Entry& entry, ServerArguments& out) {
  std::string what;
  if (auto done = reader.text(entry, what); !done) return done;
  out.on_full = parse_on_full(what);
  return out.on_full ? Done() : reader.refuse(entry, R"(has to be "pause" or "error")");
}

// "off" is no folder's name here; ./off is.
Done read_live(const Reader& reader, const Entry& entry, ProcessArguments& out) {
  std::string text;
  if (auto done = reader.text(entry, text); !done) return done;
  if (text != "off") return reader.path(entry, out.live.emplace());
  out.live = text;
  return {};
}

using Device = ServedDeviceArguments;
using OfDevice = DeviceArguments;

constexpr std::array k_device_keys{
    Key<Device>{"layer", k_into_device<&Reader::path, &OfDevice::layer>},
    Key<Device>{"base", k_into_device<&Reader::path, &OfDevice::base>},
    Key<Device>{"overlay", k_into_device<&Reader::path, &OfDevice::overlay>},
    Key<Device>{"base-format", read_base_format},
    Key<Device>{"accept-base", k_into_device<&Reader::flag, &OfDevice::accept_base>},
    Key<Device>{"allow-base", k_into_device<&Reader::paths, &OfDevice::allow_bases>},
    Key<Device>{"discard-live", k_into_device<&Reader::flag, &OfDevice::discard_live>},
    Key<Device>{"ram", k_into_device_optional<&Reader::size, &OfDevice::ram>},
    Key<Device>{"prealloc", k_into_device<&Reader::flag, &OfDevice::preallocate>},
    Key<Device>{"budget", k_into_device_optional<&Reader::size, &OfDevice::budget>},
    Key<Device>{"on-demand", read_on_demand},
    Key<Device>{"file", k_into_device<&Reader::path, &OfDevice::file>},
    Key<Device>{"offset", k_into_device<&Reader::size, &OfDevice::offset>},
    Key<Device>{"length", k_into_device_optional<&Reader::size, &OfDevice::length>},
    Key<Device>{"table", k_into_device<&Reader::path, &OfDevice::table>},
    Key<Device>{"cowloop", read_cowloop},
    Key<Device>{"repair", k_into_device<&Reader::flag, &OfDevice::repair>},
    Key<Device>{"cowfile-32bit", k_into_device<&Reader::flag, &OfDevice::layout_32>},
    Key<Device>{"name", k_into<&Reader::text, &Device::name>},
    Key<Device>{"description", k_into<&Reader::text, &Device::description>},
    Key<Device>{"fuse", k_into<&Reader::path, &Device::fuse>},
    Key<Device>{"loop", k_into<&Reader::flag, &Device::loop>},
    Key<Device>{"ublk", k_into<&Reader::flag, &Device::ublk>},
    Key<Device>{"read-only", k_into<&Reader::flag, &Device::read_only>},
    Key<Device>{"direct", k_into<&Reader::flag, &Device::direct>},
    Key<Device>{"no-ring", k_into<&Reader::flag, &Device::no_ring>},
    Key<Device>{"default", k_into<&Reader::flag, &Device::is_default>},
};

constexpr std::array k_server_keys{
    Key<ServerArguments>{"nbd", k_into<&Reader::address, &ServerArguments::nbd>},
    Key<ServerArguments>{"tcp-plaintext", k_into_optional<&Reader::flag, &ServerArguments::tcp_plaintext>},
    Key<ServerArguments>{"tls-certificates",
                         k_into_optional<&Reader::path, &ServerArguments::tls_certificates>},
    Key<ServerArguments>{"tls-psk", k_into_optional<&Reader::path, &ServerArguments::tls_psk>},
    Key<ServerArguments>{"tls-verify-peer",
                         k_into_optional<&Reader::flag, &ServerArguments::tls_verify_peer>},
    Key<ServerArguments>{"threads", k_into_number<&ServerArguments::threads, k_max_threads>},
    Key<ServerArguments>{"poll", k_into_number<&ServerArguments::poll, k_max_poll_us>},
    Key<ServerArguments>{"connections", k_into_number<&ServerArguments::connections, k_max_connections>},
    Key<ServerArguments>{"handshake-limit",
                         k_into_number<&ServerArguments::handshake_limit, k_max_handshake_seconds>},
    Key<ServerArguments>{"on-full", read_on_full},
    Key<ServerArguments>{"reserve", k_into_optional<&Reader::size, &ServerArguments::reserve>},
};

constexpr std::array k_process_keys{
    Key<ProcessArguments>{"log", read_log},
    Key<ProcessArguments>{"log-level", read_log_level},
    Key<ProcessArguments>{"log-file", k_into_optional<&Reader::path, &ProcessArguments::log_file>},
    Key<ProcessArguments>{"pid-file", k_into_optional<&Reader::path, &ProcessArguments::pid_file>},
    Key<ProcessArguments>{"live", read_live},
};

template <typename T>
std::string names_of(std::span<const Key<T>> keys) {
  std::string names;
  for (const Key<T>& each : keys) names += (names.empty() ? "" : ", ") + std::string(each.name);
  return names;
}

// Nothing when the entry is none of the keys.
template <typename T>
std::optional<Done> read_key(const Reader& reader, const Entry& entry, std::span<const Key<T>> keys, T& out) {
  const auto key = std::ranges::find(keys, std::string_view(entry.key), &Key<T>::name);
  if (key == keys.end()) return std::nullopt;
  return key->read(reader, entry, out);
}

// What only makes sense beside something else: key, and what it needs.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> k_needs{{{"base", "overlay"},
                                                                                 {"repair", "cowloop"},
                                                                                 {"cowfile-32bit", "cowloop"},
                                                                                 {"overlay", "base"},
                                                                                 {"base-format", "base"},
                                                                                 {"prealloc", "ram"},
                                                                                 {"budget", "ram"},
                                                                                 {"on-demand", "ram"},
                                                                                 {"offset", "file"},
                                                                                 {"length", "file"}}};
constexpr std::array<std::string_view, 6> k_kinds{"layer", "overlay", "ram", "file", "table", "cowloop"};

// That a device is exactly one kind of device, with the keys that belong to it; its origin is where it says so.
Done check_kind(const Reader& reader, std::span<const Entry> entries, std::uint32_t line, Device& device) {
  std::map<std::string_view, const Entry*> given;
  for (const Entry& each : entries) given[each.key] = &each;
  std::vector<const Entry*> kinds;
  for (const Entry& each : entries) {
    if (std::ranges::find(k_kinds, each.key) != k_kinds.end()) kinds.push_back(&each);
  }
  for (const auto& [key, needed] : k_needs) {
    if (given.contains(key) && !given.contains(needed))
      return reader.refuse(*given[key], fmt::format("makes no sense without {}", needed));
  }
  for (const char* const each : {"prealloc", "read-only"}) {
    if (given.contains("on-demand") && given.contains(each))
      return reader.refuse(*given["on-demand"], fmt::format("makes no sense with {}", each));
  }
  constexpr auto k_one = "a device is exactly one of layer, overlay, ram, file, table, cowloop";
  if (kinds.empty()) return reader.refuse(line, fmt::format("device: has none of them: {}", k_one));
  if (kinds.size() > 1)
    return reader.refuse(*kinds[1], fmt::format("{} is there as well: {}", kinds[0]->key, k_one));
  device.origin = reader.place(kinds[0]->line) + ", " + kinds[0]->key;
  return {};
}

Done read_name(const Reader& reader, std::span<const Entry> entries, std::uint32_t line, Device& device) {
  if (device.name.empty()) device.name = default_name(device.device);
  const std::string why = control::wrong_device_name(device.name);
  if (why.empty()) return {};
  const auto named = std::ranges::find(entries, "name", &Entry::key);
  return reader.refuse(named == entries.end() ? line : named->line, "name: " + why);
}

Result<Device> read_device(const Reader& reader, const toml::table& table) {
  const std::vector<Entry> entries = entries_of(table);
  const std::uint32_t line = line_of(table.source());
  Device device;
  for (const Entry& each : entries) {
    auto read = read_key<Device>(reader, each, k_device_keys, device);
    if (!read) {
      return reader.refuse(
          each.line, fmt::format("{}: is no key of a device; its keys are {}", Reader::printable(each.key),
                                 names_of<Device>(k_device_keys)));
    }
    if (!*read) return std::unexpected(std::move(read->error()));
  }
  if (auto checked = check_kind(reader, entries, line, device); !checked)
    return std::unexpected(std::move(checked.error()));
  if (auto named = read_name(reader, entries, line, device); !named)
    return std::unexpected(std::move(named.error()));
  return device;
}

Done read_devices(const Reader& reader, const Entry& entry, std::vector<Device>& out) {
  const toml::array* const tables = entry.value->as_array();
  if (tables == nullptr || !tables->is_homogeneous(toml::node_type::table))
    return reader.refuse(entry, "has to be [[device]], once for each device");
  std::map<std::string, std::uint32_t> lines;
  std::optional<std::uint32_t> default_line;
  std::optional<std::uint32_t> on_demand_line;
  for (const toml::node& each : *tables) {
    auto device = read_device(reader, *each.as_table());
    if (!device) return std::unexpected(std::move(device.error()));
    const std::uint32_t line = line_of(each.source());
    if (const auto [known, is_new] = lines.emplace(device->name, line); !is_new) {
      return reader.refuse(
          line, fmt::format("name: the device of line {} is called {} already", known->second, device->name));
    }
    if (device->is_default && default_line)
      return reader.refuse(line, fmt::format("default: the device of line {} is it already", *default_line));
    if (device->is_default) default_line = line;
    if (device->on_demand && on_demand_line)
      return reader.refuse(line,
                           fmt::format("on-demand: the device of line {} has it already", *on_demand_line));
    if (device->on_demand) on_demand_line = line;
    out.push_back(std::move(*device));
  }
  return {};
}

Done read_entry(const Reader& reader, const Entry& entry, Config& config) {
  if (entry.key == "device") return read_devices(reader, entry, config.devices);
  if (auto read = read_key<ServerArguments>(reader, entry, k_server_keys, config.server)) return *read;
  if (auto read = read_key<ProcessArguments>(reader, entry, k_process_keys, config.process)) return *read;
  return reader.refuse(
      entry.line,
      fmt::format("{}: is no key; the keys are {}, {}, and [[device]]", Reader::printable(entry.key),
                  names_of<ServerArguments>(k_server_keys), names_of<ProcessArguments>(k_process_keys)));
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& source, const std::string& folder) {
  const Reader reader(source, folder);
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    return reader.refuse(line_of(error.source()), Reader::printable(error.description(), 400));
  }
  Config config;
  for (const Entry& each : entries_of(table)) {
    if (auto done = read_entry(reader, each, config); !done) return std::unexpected(std::move(done.error()));
  }
  if (config.devices.empty())
    return std::unexpected(Error(k_what, source, "there is no [[device]], and nothing to serve"));
  return config;
}

Result<Config> load_config(const std::string& path) {
  auto text = read_file(path, "cannot read configuration", k_largest);
  if (!text) return std::unexpected(std::move(text.error()));
  return parse_config(*text, path, std::filesystem::path(path).parent_path().string());
}

}  // namespace oxbow
