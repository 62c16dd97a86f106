#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of scripts/test-summary: how results are added up, and that nothing missing counts as passed."""

import os
import subprocess
import tempfile
import unittest

TOOL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/test-summary")


def gtest(*outcomes):
    inner = {"passed": "", "failed": '<failure message="no"/>',
             "skipped": '<skipped message="a.cpp:5&#x0A;no ring"/>'}
    cases = ""
    for number, outcome in enumerate(outcomes):
        result = "skipped" if outcome == "skipped" else "completed"
        cases += f'<testcase classname="S" name="T{number}" result="{result}">{inner[outcome]}</testcase>'
    return f'<testsuites><testsuite name="S">{cases}</testsuite></testsuites>'


def ctest(**statuses):
    cases = ""
    for name, status in statuses.items():
        inner = '<skipped message="SKIP_RETURN_CODE=77"/>' if status == "notrun" else ""
        cases += f'<testcase name="{name}" status="{status}">{inner}<system-out>SKIP: no fuse</system-out></testcase>'
    return f"<testsuite>{cases}</testsuite>"


def summary(files, *arguments):
    with tempfile.TemporaryDirectory() as build:
        os.mkdir(os.path.join(build, "test-results"))
        for name, text in files.items():
            with open(os.path.join(build, "test-results", name), "w", encoding="utf-8") as file:
                file.write(text)
        result = subprocess.run([TOOL, *arguments, build], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout.splitlines()


class Summary(unittest.TestCase):
    def test_a_gtest_program_counts_with_each_test(self):
        status, lines = summary({"ctest.xml": ctest(a="run", b="run"), "a.xml": gtest("passed", "passed", "skipped")})
        self.assertEqual((status, lines[-1]), (0, "3 passed, 0 failed, 1 skipped"))
        self.assertIn("S.T2: a.cpp:5 no ring", lines[0])

    def test_failed_tests_are_named(self):
        status, lines = summary({"ctest.xml": ctest(a="fail"), "a.xml": gtest("passed", "failed")})
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed"))
        self.assertIn("failed: ", lines[0])
        self.assertIn("S.T1", lines[0])

    def test_a_program_that_died_is_a_failure(self):
        self.assertEqual(summary({"ctest.xml": ctest(a="fail", b="run")})[1][-1], "1 passed, 1 failed")
        status, lines = summary({"ctest.xml": ctest(a="fail"), "a.xml": gtest("passed")})
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed"))

    def test_a_skipped_script_gives_its_reason(self):
        status, lines = summary({"ctest.xml": ctest(a="notrun", b="run")})
        self.assertEqual((status, lines[-1]), (0, "1 passed, 0 failed, 1 skipped"))
        self.assertIn("a: no fuse", lines[0])

    def test_no_results_and_no_tests_are_failures(self):
        self.assertEqual(summary({})[1][-1], "0 passed, 1 failed")
        self.assertEqual(summary({"ctest.xml": ctest()})[1][-1], "0 passed, 1 failed")

    def test_failed_steps_are_added(self):
        status, lines = summary({"ctest.xml": ctest(a="run")}, "--failed-steps", "2")
        self.assertEqual((status, lines[-1]), (1, "1 passed, 2 failed"))


if __name__ == "__main__":
    unittest.main()
