// SPDX-License-Identifier: Apache-2.0
// oxbow-request-cost ram|file|layer COUNT: COUNT reads of 4 KiB, in batches of 32, through the transmission phase over
// a device, on a wire that takes and gives bytes without a system call. Prints how many bytes were answered.
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "exports/nbd/transmission.h"
#include "stores/open_stores.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"
#include "targets/linear/linear_target.h"

namespace oxbow::nbd {
namespace {

constexpr std::uint64_t k_size_bytes = 4U << 20;
constexpr std::uint64_t k_block_bytes = 4096;
constexpr std::uint64_t k_batch = 32;

// Hands out batches of reads at blocks spread over the device. Thread safety: none.
class CountingWire final : public Wire {
 public:
  void next_batch() {
    for (std::uint64_t i = 0; i < k_batch; ++i) {
      const std::uint64_t block = (number_++ * 7919) % (k_size_bytes / k_block_bytes);
      const auto encoded =
          encode_request({0, Command::read, number_, block * k_block_bytes, std::uint32_t{k_block_bytes}});
      std::memcpy(batch_.data() + i * k_request_bytes, encoded.data(), k_request_bytes);
    }
    left_ = batch_;
  }
  [[nodiscard]] std::ptrdiff_t receive(std::span<std::byte> into) noexcept override {
    if (left_.empty()) return -EAGAIN;
    const std::size_t count = std::min(into.size(), left_.size());
    std::memcpy(into.data(), left_.data(), count);
    left_ = left_.subspan(count);
    return static_cast<std::ptrdiff_t>(count);
  }
  [[nodiscard]] std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override {
    std::size_t count = 0;
    for (const iovec& piece : pieces) count += piece.iov_len;
    sent_ += count;
    return static_cast<std::ptrdiff_t>(count);
  }
  [[nodiscard]] std::size_t available() noexcept override { return left_.size(); }
  [[nodiscard]] std::uint64_t sent() const noexcept { return sent_; }

 private:
  std::array<std::byte, k_batch * k_request_bytes> batch_{};
  std::span<const std::byte> left_;
  std::uint64_t number_ = 0;
  std::uint64_t sent_ = 0;
};

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return std::move(*result);
}

// A folder with an image, and a layer over it. Thread safety: none.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "oxbow-cost-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder");
    path_ = name;
    std::ofstream(path("base.img"), std::ios::binary) << std::string(k_size_bytes, 'b');
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string path(const std::string& name) const { return path_ / name; }

  void create_layer(Queue& queue) const {
    LayerDescription description;
    OpenStores stores;
    OpenContext context{.queue = queue, .stores = stores};
    const auto base = must(describe_base(context, path("base.img"), native::BaseKind::raw, description.uuid));
    description.base = base.record;
    description.base_path = "base.img";
    description.size_bytes = base.record.size;
    std::ofstream(path("work.oxb")).close();
    const auto store = must(FileStore::open(path("work.oxb"), {.writable = true}));
    if (auto made = format_layer(queue, *store, description); !made)
      throw std::runtime_error(made.error().text());
  }

 private:
  std::filesystem::path path_;
};

std::shared_ptr<Target> open_target(OpenContext& context, const Folder& folder, std::string_view kind) {
  const Range all{0, k_size_bytes};
  if (kind == "ram") {
    return std::make_shared<LinearTarget>(must(RamStore::create({.size_bytes = k_size_bytes})), "ram", all,
                                          true);
  }
  if (kind == "file") {
    const std::string path = folder.path("base.img");
    return std::make_shared<LinearTarget>(must(FileStore::open(path, {.writable = true})), path, all, true);
  }
  folder.create_layer(context.queue);
  return must(open_layer(context, folder.path("work.oxb")));
}

void write(Device& device, Queue& queue, std::uint64_t at, std::span<const std::byte> data) {
  const IoStatus status =
      run_blocking(queue, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); });
  if (!status.ok()) throw std::runtime_error("cannot write");
}

std::uint64_t run(std::string_view kind, std::uint64_t count) {
  const Folder folder;
  Queue queue;
  OpenStores stores;
  OpenContext context{.queue = queue, .stores = stores, .writable = true};
  Device device(open_target(context, folder, kind), {.name = "cost"}, queue);
  // Every second cluster, so that of a layer half is its own; then all of it once, so that it is known to be cached.
  const std::vector<std::byte> data(k_block_bytes, std::byte{1});
  const std::uint64_t step = kind == "layer" ? 2 : 1;
  for (std::uint64_t at = 0; at < k_size_bytes; at += step * k_block_bytes) write(device, queue, at, data);
  std::vector<std::byte> all(k_size_bytes);
  for (int i = 0; i < 2; ++i) {
    const IoStatus status = run_blocking(queue, [&](Io& io) { return device.read(io, 0, all); });
    if (!status.ok()) throw std::runtime_error("cannot read");
  }
  const Export served{.name = "", .device = &device};
  CountingWire wire;
  {
    Negotiated negotiated;
    negotiated.served = &served;
    Transmission transmission(wire, queue, negotiated);
    for (std::uint64_t i = 0; i < count; i += k_batch) {
      wire.next_batch();
      (void)transmission.step(true);
    }
    transmission.end({});
  }
  if (!device.close(queue).ok()) throw std::runtime_error("cannot close");
  return wire.sent();
}

}  // namespace
}  // namespace oxbow::nbd

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    if (args.size() != 2 || (args[0] != "ram" && args[0] != "file" && args[0] != "layer")) {
      fmt::print(stderr, "usage: oxbow-request-cost ram|file|layer COUNT\n");
      return 2;
    }
    fmt::print("{}\n", oxbow::nbd::run(args[0], std::stoull(args[1])));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "oxbow-request-cost: {}\n", error.what());
    return 1;
  }
}
