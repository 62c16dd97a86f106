// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/block_status.h"

namespace oxbow::nbd {
namespace {

// One context's descriptors, neighbours that are alike joined, as the protocol wants their bytes. Thread
// safety: none.
class Descriptors {
 public:
  static constexpr std::size_t k_bytes = 8;

  Descriptors(std::uint32_t context, std::span<std::byte> room) noexcept : context_(context), room_(room) {}

  // Takes the next `length` bytes of the device. False when there is no room for a descriptor more.
  [[nodiscard]] bool add(std::uint64_t length, std::uint32_t status) noexcept {
    if (full_) return false;
    if (used_ == 0 || status != status_) {
      full_ = used_ == room_.size();
      if (full_) return false;
      used_ += k_bytes;
      length_ = 0;
      status_ = status;
    }
    // The sum is at most the length of the request.
    length_ += static_cast<std::uint32_t>(length);
    set(room_, used_ - k_bytes, length_);
    set(room_, used_ - sizeof(status_), status_);
    return true;
  }

  void put_into(Reply& reply, std::uint64_t cookie, Last last) const noexcept {
    reply.data.pieces.push_back({room_.data(), used_});
    put_block_status(reply, cookie, context_, static_cast<std::uint32_t>(used_), 1, last);
  }

 private:
  std::uint32_t context_;
  std::span<std::byte> room_;
  std::size_t used_ = 0;
  std::uint32_t length_ = 0;  // of the last descriptor
  std::uint32_t status_ = 0;
  bool full_ = false;
};

// Whether any list takes more.
bool add(const Extents& extents, Descriptors* allocation, Descriptors* depth) noexcept {
  bool more = true;
  for (const Extent& extent : extents) {
    const bool first = allocation != nullptr && allocation->add(extent.length, allocation_status(extent));
    const bool second = depth != nullptr && depth->add(extent.length, depth_status(extent));
    more = first || second;
    if (!more) break;
  }
  return more;
}

std::uint64_t covered(const Extents& extents) noexcept {
  std::uint64_t bytes = 0;
  for (const Extent& extent : extents) bytes += extent.length;
  return bytes;
}

}  // namespace

std::uint32_t allocation_status(const Extent& extent) noexcept {
  return extent.kind == Kind::zero ? status_flag::k_hole | status_flag::k_zero : 0;
}

std::uint32_t depth_status(const Extent& extent) noexcept {
  return extent.nowhere ? 0 : std::uint32_t{extent.layer} + 1;
}

Task answer_block_status(Queue& queue, Device& device, const Negotiated& negotiated, Request& request) {
  const bool only_one = (request.header.flags & command_flag::k_req_one) != 0;
  const std::size_t list_bytes = (only_one ? 1 : k_max_descriptors) * Descriptors::k_bytes;
  request.buffer = queue.buffers().take(2 * list_bytes);
  if (!request.buffer.valid()) co_return IoStatus::error(ENOMEM);
  Descriptors allocation(k_allocation_context.id, request.buffer.bytes().first(list_bytes));
  Descriptors depth(k_depth_context.id, request.buffer.bytes().subspan(list_bytes));
  Descriptors* const into_allocation = negotiated.allocation ? &allocation : nullptr;
  Descriptors* const into_depth = negotiated.depth ? &depth : nullptr;

  Range left{request.header.offset, request.header.length};
  WaitIo io(queue);
  bool more = true;
  for (std::size_t looks = 0; more && !left.empty() && looks < k_max_looks; ++looks) {
    Extents extents;
    const Progress progress = device.extents(io, left, extents);
    const IoStatus status = co_await io(progress);
    // What is known is an answer; whoever asks for the rest is told.
    if (!status.ok() && looks > 0) break;
    if (!status.ok()) co_return status;
    more = add(extents, into_allocation, into_depth);
    left = left.without_prefix(covered(extents));
  }
  const std::uint64_t cookie = request.header.cookie;
  if (into_allocation != nullptr) {
    const Last last = into_depth == nullptr ? Last::yes : Last::no;
    allocation.put_into(request.reply, cookie, last);
  }
  if (into_depth != nullptr) depth.put_into(request.reply, cookie, Last::yes);
  co_return IoStatus{};
}

}  // namespace oxbow::nbd
