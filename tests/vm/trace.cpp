// SPDX-License-Identifier: Apache-2.0
#include "trace.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace oxbow::vm {
namespace {

std::uint64_t mix(std::uint64_t value) noexcept {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// Functions of the C library throughout: under emulation the tests' time goes by here.
bool all_zeros(std::span<const std::byte> content) noexcept {
  static constexpr std::array<std::byte, k_sector> zeros{};
  return std::memcmp(content.data(), zeros.data(), zeros.size()) == 0;
}

std::uint64_t id_in(std::span<const std::byte> content) noexcept {
  std::uint64_t id = 0;
  std::memcpy(&id, content.data(), sizeof id);
  return id;
}

bool is_value(std::span<const std::byte> content, std::uint64_t sector, std::uint64_t id) noexcept {
  if (id_in(content) != id) return false;
  std::array<std::byte, k_sector> expected{};
  fill(expected, sector, id);
  return std::memcmp(content.data(), expected.data(), expected.size()) == 0;
}

std::string describe(std::span<const std::byte> content, std::uint64_t sector) {
  if (all_zeros(content)) return "zeros";
  const std::uint64_t id = id_in(content);
  return is_value(content, sector, id) ? "request " + std::to_string(id) : "garbage";
}

}  // namespace

void fill(std::span<std::byte> into, std::uint64_t sector, std::uint64_t id) noexcept {
  std::array<std::uint64_t, k_sector / sizeof(std::uint64_t)> words{};
  words[0] = id;
  words[1] = sector;
  for (std::size_t i = 2; i < words.size(); ++i) words[i] = mix(id * 0x9e3779b97f4a7c15 + sector * 64 + i);
  std::memcpy(into.data(), words.data(), k_sector);
}

TraceWriter::TraceWriter(const std::string& path, std::uint64_t sectors)
    : file_(std::fopen(path.c_str(), "we"), &std::fclose) {
  if (!file_) throw std::runtime_error("cannot write " + path + ": " + std::strerror(errno));
  std::fprintf(file_.get(), "size %llu\n", static_cast<unsigned long long>(sectors));
}

void TraceWriter::sent(const Request& request) {
  std::fprintf(file_.get(), "+ %llu %c %llu %llu %d\n", static_cast<unsigned long long>(request.id),
               request.kind, static_cast<unsigned long long>(request.first),
               static_cast<unsigned long long>(request.count), request.fua ? 1 : 0);
}

void TraceWriter::answered(std::uint64_t id, int error) {
  std::fprintf(file_.get(), "- %llu %d\n", static_cast<unsigned long long>(id), error);
}

void TraceWriter::mark(std::uint64_t number) {
  std::fprintf(file_.get(), "mark %llu\n", static_cast<unsigned long long>(number));
}

void TraceWriter::marked(std::uint64_t number) {
  std::fprintf(file_.get(), "marked %llu\n", static_cast<unsigned long long>(number));
  std::fflush(file_.get());
}

Trace::Trace(const std::string& path, std::uint64_t durable, std::uint64_t possible) {
  std::ifstream file(path);
  bool promise = durable != 0;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string word;
    Request request;
    std::uint64_t number = 0;
    int error = 0;
    words >> word;
    if (word == "size" && words >> number) {
      resize(number);
    } else if (word == "+" &&
               words >> request.id >> request.kind >> request.first >> request.count >> request.fua) {
      sent(request);
    } else if (word == "-" && words >> number >> error) {
      answered(number, error, promise);
    } else if (word == "mark" && words >> number) {
      if (number == durable) promise = false;
    } else if (word == "marked" && words >> number) {
      if (number == possible) break;
    } else {
      throw std::runtime_error(path + ": bad line: " + line);
    }
  }
  if (sectors_.empty() || promise)
    throw std::runtime_error(path + ": ends before mark " + std::to_string(durable));
}

void Trace::resize(std::uint64_t sectors) {
  sectors_.resize(sectors);
  for (std::uint64_t i = 0; i < sectors; ++i) {
    sectors_[i].values = {base_is_hole(i) ? k_zeros : 0};
    sectors_[i].writers = {0};
  }
}

void Trace::sent(const Request& request) {
  newest_ = request.id;
  in_flight_[request.id] = request;
  if (request.kind == 'f') {
    covers_[request.id] = complete_;
    return;
  }
  for (std::uint64_t i = request.first; i < request.first + request.count; ++i) {
    sectors_.at(i).values.push_back(request.kind == 'w' ? request.id : k_zeros);
    sectors_.at(i).writers.push_back(request.id);
  }
}

void Trace::answered(std::uint64_t id, int error, bool promise) {
  const Request request = in_flight_.at(id);
  in_flight_.erase(id);
  if (error != 0) {
    if (request.kind == 'f' && failed_before_ == 0) failed_before_ = newest_;
    covers_.erase(id);
    return;
  }
  if (failed_before_ != 0 && id > failed_before_) {
    throw std::runtime_error("request " + std::to_string(id) + " succeeded after a flush had failed");
  }
  if (request.kind != 'f') {
    complete_.push_back(request);
    if (request.fua && promise) make_durable(request);
    return;
  }
  const std::vector<Request> covered = std::move(covers_[id]);
  covers_.erase(id);
  if (!promise) return;
  for (const Request& each : covered) make_durable(each);
  std::erase_if(complete_, [&](const Request& each) {
    return std::ranges::any_of(covered, [&](const Request& other) { return other.id == each.id; });
  });
}

void Trace::make_durable(const Request& request) {
  for (std::uint64_t i = request.first; i < request.first + request.count; ++i) {
    Sector& sector = sectors_[i];
    const auto found = std::ranges::find(sector.writers, request.id);
    sector.floor = std::max(sector.floor, static_cast<std::size_t>(found - sector.writers.begin()));
  }
}

std::uint64_t Trace::promised() const noexcept {
  return static_cast<std::uint64_t>(
      std::ranges::count_if(sectors_, [](const Sector& each) { return each.floor > 0; }));
}

std::vector<std::string> Trace::judge(std::span<const std::byte> content, std::uint64_t first) const {
  std::vector<std::string> wrong;
  for (std::uint64_t i = 0; i * k_sector < content.size(); ++i) {
    const Sector& sector = sectors_.at(first + i);
    const auto found = content.subspan(i * k_sector, k_sector);
    const auto may_be = std::span(sector.values).subspan(sector.floor);
    const bool zeros = all_zeros(found);
    const auto holds = [&](std::uint64_t value) {
      return value == k_zeros ? zeros : !zeros && is_value(found, first + i, value);
    };
    if (std::any_of(may_be.begin(), may_be.end(), holds)) continue;
    wrong.push_back("sector " + std::to_string(first + i) + " holds " + describe(found, first + i) +
                    ", which is not as new as request " + std::to_string(sector.writers[sector.floor]) +
                    " of those that wrote there");
  }
  return wrong;
}

}  // namespace oxbow::vm
