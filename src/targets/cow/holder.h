// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/file/file_store.h"
#include "stores/store.h"

namespace oxbow {

// Writes this process into the layer's holder block, for those who are refused meanwhile. Blocking.
[[nodiscard]] Result<void> write_holder(Queue& queue, Store& layer, std::uint64_t at);

// The refusal of a layer that another process has locked, naming the holder that it recorded. Blocking.
[[nodiscard]] Error in_use_error(Queue& queue, const std::string& path);

// Opens the file of the layer at `path` with `open`. While that is refused because of a lock, and the recorded holder
// was a process of this host that is gone, it is tried again for up to two seconds: the kernel lets go of a killed
// process's files only after the last of its requests. Then it is in_use_error(). Blocking.
[[nodiscard]] Result<std::shared_ptr<FileStore>> open_when_let_go(
    Queue& queue, const std::string& path, const std::function<Result<std::shared_ptr<FileStore>>()>& open);

}  // namespace oxbow
