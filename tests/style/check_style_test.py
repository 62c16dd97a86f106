#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of scripts/check-style: every rule finds its violation, and correct code passes."""

import os
import subprocess
import tempfile
import unittest

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/check-style")
SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
HEADER = SPDX + "#pragma once\n"


def run(files):
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        result = subprocess.run([TOOL, root], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout


class CheckStyle(unittest.TestCase):
    def finds(self, path, text, expected):
        status, output = run({path: text})
        self.assertIn(expected, output)
        self.assertEqual(status, 1)

    def passes(self, path, text):
        status, output = run({path: text})
        self.assertIn(" 0 findings", output)
        self.assertEqual(status, 0, output)

    def test_licence_line(self):
        self.finds("src/os/a.cpp", "int a;\n", "src/os/a.cpp:1: no licence line")
        self.finds("scripts/a", "#!/bin/sh\ntrue\n", "scripts/a:1: no licence line")

    def test_scripts_are_executable(self):
        self.finds("scripts/a", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n",
                   "scripts/a:1: script that can't be executed: chmod +x")

    def test_pragma_once(self):
        self.finds("src/os/a.h", SPDX, "src/os/a.h:1: header without #pragma once")

    def test_file_length(self):
        self.finds("src/os/a.cpp", SPDX + "\n" * 800, "file of 801 lines: at most 800")
        self.passes("src/os/a.cpp", SPDX + "\n" * 799)

    def test_function_length(self):
        body = "  step();\n" * 69
        self.finds("src/os/a.cpp", SPDX + "void f() {\n" + body + "}\n", "src/os/a.cpp:2: function of 71 lines")
        self.passes("src/os/a.cpp", SPDX + "void f() {\n" + body[10:] + "}\n")

    def test_function_length_of_a_member_after_braced_initialisers(self):
        text = SPDX + "namespace n {\nA::A(int x) noexcept : a_{x}, b_{x + 1} {\n" + "  step();\n" * 69 + "}\n}\n"
        self.finds("src/os/a.cpp", text, "src/os/a.cpp:3: function of 71 lines")

    def test_function_length_ignores_braces_in_literals_and_comments(self):
        text = (SPDX + "void f() {\n  g('{', \"}{\", R\"x({{)x\");  // {\n}\n" + "int i = 1'000;\n" * 80 +
                "void h() {}\n")
        self.passes("src/os/a.cpp", text)

    def test_layers(self):
        self.finds("src/os/a.cpp", SPDX + '#include "stores/store.h"\n',
                   "src/os/a.cpp:2: layer os includes stores/store.h: layer stores is not below it")
        self.finds("src/formats/a.cpp", SPDX + '#include "os/fd.h"\n', "layer os is not below it")
        self.finds("src/newest/a.cpp", SPDX + '#include "os/fd.h"\n', "unknown layer newest")
        self.finds("src/os/a.cpp", SPDX + '#include "fd.h"\n', "include of fd.h: write the path from src/")
        self.finds("include/oxbow/a.h", HEADER + '#include "os/fd.h"\n', "public header includes os/fd.h")
        self.passes("src/device/a.cpp", SPDX + '#include "targets/target.h"\n#include "oxbow/error.h"\n')

    def test_heavy_headers(self):
        self.finds("src/os/a.h", HEADER + "#include <nlohmann/json.hpp>\n", "heavy header nlohmann/json.hpp")
        self.passes("src/os/a.cpp", SPDX + "#include <nlohmann/json.hpp>\n")
        self.passes("src/os/a.h", HEADER + "#include <nlohmann/json_fwd.hpp>\n")

    def test_class_comments(self):
        self.finds("src/os/a.h", HEADER + "\nclass A {\n};\n", "src/os/a.h:4: class without an opening comment")
        self.finds("src/os/a.h", HEADER + "\ntemplate <class T>\nclass A : public B<T> {\n};\n", "class without")
        self.passes("src/os/a.h", HEADER + "\n// A. Thread-safe.\ntemplate <class T>\nclass A final : B<T> {\n};\n")
        self.passes("src/os/a.h", HEADER + "class A;\nenum class B : int { x };\nstruct C {};\n"
                    "template <class T> void f(T t) {}\n")

    def test_tests_include_their_framework(self):
        self.finds("src/os/a_test.cpp", SPDX + "TEST(A, B) {}\n", "a_test.cpp:2: test without GoogleTest's header")
        self.passes("src/os/a_test.cpp", SPDX + "#include <gmock/gmock.h>\nTEST_F(A, B) {}\n")

    def test_line_length(self):
        self.finds("src/os/a.cpp", SPDX + "//" + "é" * 119 + "\n", "src/os/a.cpp:2: line of 121 characters")
        self.passes("src/os/a.cpp", SPDX + "//" + "é" * 118 + "\n")

    def test_tests_may_use_their_support_headers(self):
        self.passes("src/os/a_test.cpp", SPDX + '#include "support/effort.h"\n')
        self.finds("src/os/a.cpp", SPDX + '#include "support/effort.h"\n', "include of support/effort.h")

    def test_unfinished_words(self):
        self.finds("docs/a.md", "TO" + "DO later\n", "docs/a.md:1: word that marks unfinished work")


if __name__ == "__main__":
    unittest.main()
