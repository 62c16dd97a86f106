// SPDX-License-Identifier: Apache-2.0
#pragma once

// libfuse's low-level interface, in the version that everything here is written for. Not for headers that others
// include.

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
