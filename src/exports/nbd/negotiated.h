// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "exports/nbd/export.h"

namespace oxbow::nbd {

// What client and server agreed on before the first request. Thread safety: a value.
struct Negotiated {
  const Export* served = nullptr;  // borrowed from the server's Exports
  bool encrypted = false;
  bool structured_replies = false;
  bool allocation = false;  // the metadata context base:allocation was selected for this export
  bool depth = false;       // the same for qemu:allocation-depth
};

}  // namespace oxbow::nbd
