#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve in the background: --daemon, --pid-file, --log-file, and the signals that end it."""

import json
import os
import resource
import signal
import socket
import subprocess
import time
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS

MIB = 1 << 20


def alive(pid):
    """Whether there is such a process, and it is not only waiting for its parent to notice its end."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class DaemonTest(CommandTest):
    def wait_for(self, condition, what):
        deadline = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def daemon(self, *args):
        """URI and number of a process in the background, which is ended afterwards."""
        uri = self.succeed("serve", *args, "--daemon", "--pid-file", "pid").strip()
        pid = int(self.read("pid"))
        self.addCleanup(self.end, pid, signal.SIGKILL)
        return uri, pid

    def end(self, pid, number=signal.SIGTERM):
        if alive(pid):
            os.kill(pid, number)
        self.wait_for(lambda: not alive(pid), "the process does not end")

    def test_returns_when_it_can_be_used_and_leaves_nothing_at_its_end(self):
        uri, pid = self.daemon("--ram", "1M")
        self.assertEqual(uri, f"nbd+unix:///?socket={self.folder}/oxbow/ram.sock")
        self.qemu_io(uri, "write -P 3 0 4k", "read -P 3 0 4k")
        self.end(pid)
        self.assertFalse(os.path.exists(self.path("pid")))
        self.assertFalse(os.path.exists(self.path("oxbow/ram.sock")))

    def test_it_has_left_the_terminal(self):
        _, pid = self.daemon("--ram", "1M")
        self.assertEqual(os.getsid(pid), pid)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        for number in (0, 1, 2):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{number}"), "/dev/null")

    def test_relative_paths_mean_what_they_meant(self):
        self.make("golden.img", MIB)
        uri, pid = self.daemon("--base", "golden.img", "--overlay", "work.oxb", "--nbd", "unix:here", "--log-file",
                               "log")
        self.assertEqual(uri, f"nbd+unix:///?socket={self.folder}/here")
        self.qemu_io(uri, "write -P 3 0 4k")
        self.end(pid)
        self.assertFalse(os.path.exists(self.path("here")))
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "read -P 3 0 4k")

    def test_every_uri_is_printed(self):
        output = self.succeed("serve", "--ram", "1M", "--daemon", "--pid-file", "pid", "--nbd", "unix:one", "--nbd",
                              "unix:two")
        self.addCleanup(self.end, int(self.read("pid")))
        self.assertEqual(output, f"nbd+unix:///?socket={self.folder}/one\nnbd+unix:///?socket={self.folder}/two\n")

    def test_errors_at_the_start_are_those_of_the_foreground(self):
        self.refuse(1, "cannot open file: nothing: No such file or directory", "serve", "--file", "nothing", "--daemon")
        self.make("socket", 1)
        self.refuse(1, "cannot listen: unix:socket: the file exists and is not a socket", "serve", "--ram", "1M",
                    "--daemon", "--nbd", "unix:socket")
        self.refuse(1, "cannot make PID file: none/pid: No such file or directory", "serve", "--ram", "1M", "--daemon",
                    "--pid-file", "none/pid")
        self.refuse(1, "cannot open log file: none/log: No such file or directory", "serve", "--ram", "1M", "--daemon",
                    "--log-file", "none/log")
        self.assertFalse(os.path.exists(self.path("oxbow/ram.sock")))

    def test_a_uri_that_nobody_could_be_told_ends_it(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([OXBOW, "serve", "--ram", "1M", "--daemon", "--log-file", "log"], stdout=writing,
                              stderr=subprocess.PIPE, env=self.environment, cwd=self.folder, text=True,
                              timeout=SECONDS, check=False)
        os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (1, "oxbow: cannot print: standard output: Broken pipe\n"))
        self.wait_for(lambda: not os.path.exists(self.path("oxbow/ram.sock")), "it goes on serving")

    def test_one_whose_start_was_interrupted_ends(self):
        process = subprocess.Popen([OXBOW, "serve", "--table", "-", "--daemon", "--log-file", "log"], cwd=self.folder,
                                   env=self.environment, stdin=subprocess.PIPE)
        self.wait_for(lambda: os.path.exists(self.path("log")), "it does not start")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(SECONDS), -signal.SIGINT)
        self.assertFalse(os.path.exists(self.path("oxbow/table.sock")))
        process.stdin.write(b"0 8 zero\n")
        process.stdin.close()
        self.wait_for(lambda: self.read("log"), "it does not notice")
        self.assertEqual(self.read("log"),
                         "oxbow: cannot go on in the background: whoever started it: Broken pipe\n")
        self.wait_for(lambda: not os.path.exists(self.path("oxbow/table.sock")), "it goes on serving")

    def test_a_pid_file_belongs_to_one_living_process(self):
        _, pid = self.daemon("--ram", "1M")
        self.refuse(1, "cannot make PID file: pid: it belongs to another process, which is alive", "serve", "--ram",
                    "1M", "--name", "other", "--pid-file", "pid")
        self.assertEqual(self.read("pid"), f"{pid}\n")
        self.end(pid, signal.SIGKILL)
        self.assertEqual(self.read("pid"), f"{pid}\n")
        _, second = self.daemon("--ram", "1M")
        self.assertEqual(self.read("pid"), f"{second}\n")
        self.end(second)
        os.mkdir(self.path("folder"))
        self.refuse(1, "cannot make PID file: folder: Is a directory", "serve", "--ram", "1M", "--pid-file", "folder")
        os.mkfifo(self.path("pipe"))
        self.refuse(1, "cannot make PID file: pipe: it exists and is not a file", "serve", "--ram", "1M", "--pid-file",
                    "pipe")

    def test_a_failing_flush_at_the_end_is_in_the_log(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        uri, pid = self.daemon("work.oxb", "--log-file", "log")
        subprocess.run(["qemu-io", "-t", "unsafe", "-f", "raw", "-c", "write -P 1 0 4k", uri], check=True,
                       capture_output=True)
        # Room for the log, and none for the layer.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))
        self.end(pid)
        self.assertRegex(self.read("log"), r"\A\S+Z error serve: cannot close device: work: File too large\n\Z")
        self.assertEqual(os.stat(self.path("log")).st_mode & 0o777, 0o640)

    def test_a_log_for_programs(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb", "--log", "json")
        subprocess.run(["qemu-io", "-t", "unsafe", "-f", "raw", "-c", "write -P 1 0 4k", server.uri], check=True,
                       capture_output=True)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        status, errors = server.stop()
        line = json.loads(errors)
        self.assertEqual((status, line["level"], line["topic"], line["message"]),
                         (1, "error", "serve", "cannot close device: work: File too large"))

    def test_the_level_of_the_log(self):
        for level, lines in (("info", 1), ("warning", 0)):
            server = self.serve("--ram", "1M", "--log-level", level)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path("oxbow/ram.sock"))
                client.recv(18, socket.MSG_WAITALL)
                client.send(b"\xff" * 64)  # nothing that a client says
                while client.recv(100):
                    pass
            status, errors = server.stop()
            self.assertEqual((status, errors.count(" info nbd.client: a client was let go: ")), (0, lines), errors)
        for option, text, why in (("--log", "xml", "is neither human nor json"),
                                  ("--log-level", "all", "is none of debug, info, warning, error")):
            self.refuse(2, f"wrong usage: {option}: {text} {why}; see oxbow serve --help", "serve", "--ram", "1M",
                        option, text)

    def test_names_are_held_in_the_run_directory(self):
        _, pid = self.daemon("--ram", "1M", "--nbd", "unix:one")
        self.refuse_matching(1, r".*\bram\b.*", "serve", "--ram", "1M", "--nbd", "unix:two")
        self.assertFalse(os.path.exists(self.path("two")))
        # A command's server is its own, whatever it is called.
        self.assertEqual(self.succeed("serve", "--ram", "1M", "--run", 'nbdinfo --size "$uri"'), f"{MIB}\n")
        self.end(pid, signal.SIGKILL)
        self.assertEqual(self.serve("--ram", "1M", "--nbd", "unix:two").stop(), (0, ""))

    def test_without_a_run_directory(self):
        self.make("oxbow", 0)
        server = self.serve("--ram", "1M", "--nbd", "unix:here")
        self.qemu_io(server.uri, "read 0 4k")
        status, errors = server.stop()
        self.assertEqual(status, 0)
        self.assertRegex(errors, r"\A\S+Z warning serve: no control socket: cannot \w+ run directory: "
                         rf"{self.folder}/oxbow: Not a directory\n\Z")
        self.refuse_matching(1, r".*cannot \w+ run directory: \S+: Not a directory", "serve", "--ram", "1M")

    def test_sighup_opens_the_log_again(self):
        for how in (["--daemon"], []):
            with self.subTest(how):
                args = ["--ram", "1M", "--log-file", "log", "--pid-file", "pid"]
                if how:
                    _, pid = self.daemon(*args[:-2])
                else:
                    server = self.serve(*args)
                    pid = server.process.pid
                    self.wait_for(lambda: os.readlink(f"/proc/{pid}/fd/2").endswith("/log"), "it does not log")
                os.rename(self.path("log"), self.path("log.old"))
                os.kill(pid, signal.SIGHUP)
                self.wait_for(lambda: os.path.exists(self.path("log")), "it is not opened again")
                self.wait_for(lambda: os.readlink(f"/proc/{pid}/fd/2") == self.path("log"), "it is not used")
                self.assertTrue(alive(pid))
                if how:
                    self.end(pid)
                else:
                    self.assertEqual(server.stop(), (0, ""))
                os.remove(self.path("log"))

    def test_sighup_without_a_log(self):
        _, pid = self.daemon("--ram", "1M")
        os.kill(pid, signal.SIGHUP)
        server = self.serve("--ram", "1M", "--name", "foreground")
        self.assertEqual(server.stop(signal.SIGHUP), (0, ""))
        self.assertTrue(alive(pid))
        self.end(pid)

    def test_nohup(self):
        process = subprocess.Popen([OXBOW, "serve", "--ram", "1M"], env=self.environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        uri = process.stdout.readline().strip()
        process.send_signal(signal.SIGHUP)
        self.qemu_io(uri, "read 0 4k")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=SECONDS), ("", ""))
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
