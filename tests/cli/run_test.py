#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve --run: the command's environment, its exit status, signals, and what is left afterwards."""

import os
import resource
import signal
import subprocess
import unittest

from oxbow_test import CommandTest, OXBOW, SECONDS

MIB = 1 << 20


class RunTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.temporary = self.path("temporary")
        os.mkdir(self.temporary)
        self.environment["TMPDIR"] = self.temporary

    def run_with(self, command, *args):
        """Exit status, standard output and error of `serve --run`; no socket may be left."""
        done = self.run_oxbow("serve", *(args or ["--ram", "1M"]), "--run", command)
        self.assertEqual(os.listdir(self.temporary), [])
        return done.returncode, done.stdout, done.stderr

    def start(self, command, *args, **more):
        """The same, going on: what it prints can be read."""
        process = subprocess.Popen([OXBOW, "serve", "--ram", "1M", *args, "--run", command], cwd=self.folder,
                                   env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   **more)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_the_command_has_the_uri_and_its_output_is_all_there_is(self):
        self.assertEqual(self.run_with('nbdinfo --size "$uri"'), (0, f"{MIB}\n", ""))
        status, output, errors = self.run_with('echo "$uri|$unixsocket|$port|$exportname"')
        uri, socket, port, name = output.strip().split("|")
        self.assertEqual((status, errors, port, name), (0, "", "", "ram"))
        self.assertTrue(socket.startswith(self.temporary + "/oxbow-"), socket)
        self.assertEqual(uri, f"nbd+unix:///?socket={socket}")

    def test_the_private_socket_is_in_a_folder_for_this_user_alone(self):
        status, output, _ = self.run_with('stat -c %a "$unixsocket" "$(dirname "$unixsocket")"')
        self.assertEqual((status, output), (0, "600\n700\n"))

    def test_a_given_address_is_the_one(self):
        show = 'echo "$uri $unixsocket $port"'
        self.assertEqual(self.run_with(show, "--ram", "1M", "--nbd", "unix:a b"),
                         (0, f"nbd+unix:///?socket={self.folder}/a%20b {self.folder}/a b \n", ""))
        self.assertFalse(os.path.exists(self.path("a b")))
        status, output, _ = self.run_with(show, "--ram", "1M", "--nbd", "tcp:127.0.0.1:0")
        self.assertEqual(status, 0)
        self.assertRegex(output, r"\Anbd://127\.0\.0\.1:(\d+)/  \1\n\Z")

    def test_the_exit_status_is_the_commands(self):
        for command, status in (("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 128 + 15),
                                ("kill -KILL $$", 128 + 9), ("/no/such/program 2>/dev/null", 127)):
            with self.subTest(command):
                self.assertEqual(self.run_with(command), (status, "", ""))

    def test_a_command_that_begins_with_a_dash(self):
        self.assertEqual(self.run_with("-no-such-command 2>/dev/null; exit 7")[0], 7)

    def test_the_command_writes_and_it_stays(self):
        self.make("golden.img", MIB)
        self.assertEqual(self.run_with('qemu-io -f raw -c "write -P 7 0 64k" "$uri" >/dev/null', "--base", "golden.img",
                                       "--overlay", "work.oxb"), (0, "", ""))
        self.assertEqual(self.run_with('qemu-io -r -f raw -c "read -P 7 0 64k" "$uri" >/dev/null', "work.oxb",
                                       "--read-only"), (0, "", ""))

    def test_a_flush_that_fails_at_the_end_is_seen_in_the_status(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        # The command takes the room for layers away from its parent, after a write without a flush.
        command = ('qemu-io -t unsafe -f raw -c "write -P 1 0 4k" "$uri" >/dev/null && '
                   'prlimit --pid $PPID --fsize=0:0 && exit {}')
        for status in (0, 3):
            self.assertEqual(self.run_with(command.format(status), "work.oxb"),
                             (1, "", "oxbow: cannot close device: work: File too large\n"))

    def test_the_command_has_no_strange_signal_handling(self):
        status, output, errors = self.run_with("grep -E 'SigBlk|SigIgn' /proc/self/status")
        self.assertEqual((status, errors), (0, ""))
        # The C library has signals 32 and 33 for itself.
        self.assertEqual([int(line.split()[1], 16) & 0x7fffffff for line in output.splitlines()], [0, 0])

    def test_the_command_has_no_descriptors_of_the_server(self):
        self.assertEqual(self.run_with("ls /proc/self/fd | wc -l"), (0, "4\n", ""))  # 0, 1, 2 and that of ls

    def test_the_server_may_open_more_files_than_the_command(self):
        command = 'ulimit -Sn; grep "open files" /proc/$PPID/limits'
        done = subprocess.run(["sh", "-c", f"ulimit -Sn 300; exec {OXBOW} serve --ram 1M --run '{command}'"],
                              cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=60,
                              check=False)
        hard = str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.split(), ["300", "Max", "open", "files", hard, hard, "files"])

    def test_signals_are_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                # The shell starts its traps when what it runs has ended.
                process = self.start("trap 'echo got; exit 9' TERM INT HUP; echo ready; while :; do sleep 0.05; done")
                self.assertEqual(process.stdout.readline(), "ready\n")
                process.send_signal(number)
                output, errors = process.communicate(timeout=SECONDS)
                self.assertEqual((process.returncode, output, errors), (9, "got\n", ""))

    def test_a_signal_that_ends_the_command(self):
        process = self.start("echo ready; exec sleep 600")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=SECONDS), ("", ""))
        self.assertEqual(process.returncode, 128 + 15)

    def test_a_parent_that_ignores_its_children(self):
        process = self.start("exit 4", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        self.assertEqual(process.communicate(timeout=SECONDS), ("", ""))
        self.assertEqual(process.returncode, 4)

    def test_a_device_that_cannot_be_opened_runs_nothing(self):
        self.refuse(1, "cannot open file: nothing: No such file or directory", "serve", "--file", "nothing", "--run",
                    "touch ran")
        self.assertFalse(os.path.exists(self.path("ran")))
        self.assertEqual(os.listdir(self.temporary), [])

    def test_what_makes_no_sense(self):
        self.refuse(2, "wrong usage: --daemon: makes no sense with --run, which ends when its command does; see oxbow "
                    "serve --help", "serve", "--ram", "1M", "--run", "true", "--daemon")
        self.refuse(2, "wrong usage: --run: is empty; see oxbow serve --help", "serve", "--ram", "1M", "--run", "")

    def test_no_folder_for_the_socket(self):
        self.environment["TMPDIR"] = self.path("none")
        self.refuse(1, f"cannot make folder: {self.folder}/none/oxbow-XXXXXX: No such file or directory", "serve",
                    "--ram", "1M", "--run", "true")


if __name__ == "__main__":
    unittest.main()
