// SPDX-License-Identifier: Apache-2.0
#pragma once

// The names of the option parser, for headers: its own header takes long to compile.

// NOLINTNEXTLINE(readability-identifier-naming): the library's
namespace CLI {
class App;
class FormatterBase;
class Option;
}  // namespace CLI
