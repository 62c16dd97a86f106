#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The control plane of processes that serve: commands, requests over the socket, files in the run directory."""

import glob
import json
import os
import random
import re
import resource
import signal
import socket
import stat
import subprocess
import threading
import unittest

import nbd

from oxbow_test import CommandTest, SECONDS

MIB = 1 << 20
SEED = int(os.environ.get("OXBOW_SEED", "20261120"))


def exchange(path, request, shut=False):
    """Sends bytes to a socket and returns everything that comes back."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(path)
        try:
            client.sendall(request)
            if shut:
                client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was taken; the answer is there
        answer = b""
        while True:
            try:
                part = client.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                return answer
            answer += part
        return answer


def parse(answer):
    """Status, header fields and body of a response, which must be a whole one."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, answer
    line, *fields = head.decode().split("\r\n")
    status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z ]+", line)[1])
    fields = dict(field.split(": ", 1) for field in fields)
    assert fields["Connection"] == "close" and int(fields["Content-Length"]) == len(body), answer
    return status, fields, body


def parse_metrics(text):
    """A strict reader of the text format: {family: (type, {(name, labels): value})}."""
    assert text.endswith("\n")
    families, family = {}, None
    helped = set()
    for line in text[:-1].split("\n"):
        if match := re.fullmatch(r"# HELP ([a-z_]+) (\S.*)", line):
            assert match[1] not in helped, line
            helped.add(match[1])
            continue
        if match := re.fullmatch(r"# TYPE ([a-z_]+) (counter|gauge|histogram)", line):
            family = match[1]
            assert family in helped and family not in families, line
            families[family] = (match[2], {})
            continue
        match = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)', line)
        assert match, line
        suffix = match[1].removeprefix(family)
        assert suffix in ({"_bucket", "_sum", "_count"} if families[family][0] == "histogram" else {""}), line
        labels = tuple(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        assert (match[1], labels) not in families[family][1], line
        families[family][1][match[1], labels] = float(match[3])
    return families


class ControlTest(CommandTest):
    def socket_of(self, server):
        path = self.path(f"oxbow/{server.process.pid}.control")
        self.assertTrue(os.path.exists(path))
        return path

    def ask(self, server, method, path, body=None):
        content = b"" if body is None else json.dumps(body).encode()
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        status, _, body = parse(exchange(self.socket_of(server), request))
        return status, json.loads(body)

    def listed(self):
        return json.loads(self.succeed("list", "--json"))

    def connect(self, server):
        client = nbd.NBD()
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client.connect_uri(server.uri)
        return client

    # --- commands ---

    def test_list(self):
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.succeed("list").split(), ["NAME", "STATE", "SIZE", "PID", "URI"])
        self.make("disk.img", MIB)
        first = self.serve("--ram", "3M", "--name", "a-longer_name")
        second = self.serve("--file", "disk.img", "--read-only")
        found = {each["name"]: each for each in self.listed()}
        self.assertEqual(set(found), {"a-longer_name", "disk"})
        self.assertEqual(found["a-longer_name"], {
            "name": "a-longer_name", "state": "writable", "size": 3 * MIB, "source": "--ram 3145728",
            "uris": [first.uri],
            "pid": first.process.pid, "socket": self.socket_of(first)})
        self.assertEqual((found["disk"]["state"], found["disk"]["source"]),
                         ("read-only", f"--file {self.path('disk.img')}"))
        lines = self.succeed("list").splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn(["disk", "read-only", "1.0M", str(second.process.pid), second.uri],
                      [line.split() for line in lines])
        self.assertEqual(first.stop(), (0, ""))
        self.assertEqual([each["name"] for each in self.listed()], ["disk"])
        self.assertEqual(second.stop(), (0, ""))
        self.assertEqual(os.listdir(self.path("oxbow")), [])

    def test_status_of_a_layer(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "--cluster", "16K", "work.oxb")
        server = self.serve("work.oxb")
        self.qemu_io(server.uri, "write -P 1 4k 4k", "read 0 64k", "discard 512k 64k", "flush")
        status = json.loads(self.succeed("status", "--json", "work"))
        self.assertEqual({key: status[key] for key in ("name", "state", "size", "failure")},
                         {"name": "work", "state": "writable", "size": MIB, "failure": None})
        self.assertEqual(status["process"]["pid"], server.process.pid)
        (line,) = status["table"]
        self.assertEqual((line["start"], line["length"], line["target"]), (0, 2048, "cow"))
        layer, base = line["chain"]
        self.assertEqual((layer["format"], layer["size"], layer["cluster"]), ("oxb", MIB, 16384))
        self.assertEqual((base["format"], base["size"], base["cluster"]), ("raw", MIB, None))
        self.assertEqual(layer["allocated"], os.stat(self.path("work.oxb")).st_blocks * 512)
        self.assertGreater(layer["free"], 0)
        counted = status["statistics"]
        self.assertEqual((counted["writes"], counted["written_bytes"], counted["stored_bytes"]), (1, 4096, 16384))
        self.assertEqual((counted["filled_bytes"], counted["discarded_bytes"]), (12288, 65536))
        self.assertGreaterEqual(counted["flushes"], 1)
        self.assertGreater(counted["metadata_bytes"], 0)
        self.assertEqual(counted["write_amplification"], (16384 + counted["metadata_bytes"]) / 4096)
        text = self.succeed("status", "work")
        self.assertRegex(text, r"(?m)^device +work$")
        self.assertRegex(text, r"(?m)^size +1\.0M \(1048576 bytes\)$")
        self.assertRegex(text, r"(?m)^    \S*work\.oxb  layer, 1\.0M, clusters of 16K, \S+ allocated, \S+ free$")
        self.assertRegex(text, r"(?m)^writes +1, 4\.0K$")

    def test_table(self):
        self.make("a file", MIB)
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        text = "0 64 file {0}a\\ file 512\n64 64 zero\n128 8 error\n136 1024 cow {0}work.oxb 1024\n"
        self.make("my.table", text.format("").encode())
        self.serve("--table", "my.table")
        # Wherever it is given back from, it means the same files.
        self.assertEqual(self.succeed("table", "my"), text.format(self.folder + "/"))
        allocated = os.stat(self.path("work.oxb")).st_blocks
        info = self.succeed("table", "--info", "my")
        self.assertEqual(info, f"0 64 file\n64 64 zero\n128 8 error\n136 1024 cow {allocated}/2048 8\n")

    def test_sync(self):
        self.assertEqual(self.succeed("sync"), "")
        server = self.serve("--ram", "1M", "--name", "one")
        other = self.serve("--ram", "1M", "--name", "two")
        self.assertEqual(self.succeed("sync", "one"), "")
        self.assertEqual(self.succeed("sync"), "")
        flushes = [self.ask(each, "GET", f"/v1/devices/{name}")[1]["statistics"]["flushes"]
                   for each, name in ((server, "one"), (other, "two"))]
        self.assertEqual(flushes, [2, 1])

    def test_sync_that_fails(self):
        self.make("golden.img", MIB)
        self.succeed("create", "--base", "golden.img", "work.oxb")
        server = self.serve("work.oxb")
        self.serve("--ram", "1M")
        client = self.connect(server)
        client.pwrite(b"1" * 4096, 0)
        client.shutdown()  # without a flush
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        why = "cannot sync device: work: File too large; changes are refused until it is served anew"
        self.refuse(1, why, "sync", "work")
        self.refuse(1, why, "sync")
        status, body = self.ask(server, "POST", "/v1/devices/work/sync", {})
        self.assertEqual((status, body["error"]["why"]),
                         (500, "File too large; changes are refused until it is served anew"))
        (line,) = [each for each in self.listed() if each["name"] == "work"]
        self.assertEqual(line["state"], "failed")
        self.assertRegex(self.succeed("status", "work"), r"(?m)^state +failed: File too large$")
        metrics = parse_metrics(parse(exchange(self.socket_of(server), b"GET /metrics HTTP/1.1\r\n\r\n"))[2].decode())
        self.assertEqual(metrics["oxbow_device_failed"][1], {("oxbow_device_failed", (("device", "work"),)): 1})
        self.assertEqual(server.stop()[0], 1)

    def test_clients(self):
        server = self.serve("--ram", "1M")
        status = json.loads(self.succeed("status", "--json", "ram"))
        self.assertEqual(status["clients"], [])
        haggling = socket.socket(socket.AF_UNIX)
        self.addCleanup(haggling.close)
        haggling.connect(self.path("oxbow/ram.sock"))
        client = self.connect(server)
        client.pwrite(b"1" * 4096, 512)
        client.pread(8192, 0)
        client.pread(512, 0)
        client.zero(65536, 0)
        client.flush()
        with self.assertRaises(nbd.Error):
            client.set_strict_mode(0)
            client.pread(512, MIB)
        (found,) = json.loads(self.succeed("status", "--json", "ram"))["clients"]
        self.assertEqual({key: found[key] for key in ("id", "pid", "uid", "peer", "export", "tls", "structured_replies",
                                                      "contexts")},
                         {"id": 2, "pid": os.getpid(), "uid": os.getuid(), "export": "ram", "tls": False,
                          "peer": f"process {os.getpid()} of user {os.getuid()}",
                          "structured_replies": client.get_structured_replies_negotiated(),
                          "contexts": ["base:allocation"] if client.can_meta_context("base:allocation") else []})
        self.assertEqual(found["statistics"], {
            "read": {"requests": 3, "bytes": 8704}, "write": {"requests": 1, "bytes": 4096},
            "change": {"requests": 1, "bytes": 65536}, "flush": {"requests": 1, "bytes": 0},
            "other": {"requests": 0}, "errors": 1})
        self.assertEqual(found["latency"]["read"]["count"], 3)
        self.assertGreater(found["latency"]["read"]["total_ns"], 0)
        text = self.succeed("status", "ram")
        self.assertRegex(text, rf"(?m)^client +2: process {os.getpid()} of user {os.getuid()}, since ")
        self.assertRegex(text, r"(?m)^ +3 read \(8\.5K\), 1 write \(4\.0K\), 1 change \(64K\), 1 flush; 1 errors$")
        metrics = parse_metrics(parse(exchange(self.socket_of(server), b"GET /metrics HTTP/1.1\r\n\r\n"))[2].decode())
        self.assertEqual(list(metrics["oxbow_device_clients"][1].values()), [1])
        self.assertEqual(list(metrics["oxbow_clients_haggling"][1].values()), [1])
        client.shutdown()
        haggling.close()
        for _ in range(100):
            if not json.loads(self.succeed("status", "--json", "ram"))["clients"]:
                return
        self.fail("the client stays on the list")

    def test_a_tcp_client(self):
        server = self.serve("--ram", "1M", "--nbd", "tcp:127.0.0.1:0")
        client = self.connect(server)
        (found,) = json.loads(self.succeed("status", "--json", "ram"))["clients"]
        self.assertRegex(found["peer"], r"\A127\.0\.0\.1:[1-9]\d*\Z")
        self.assertEqual((found["pid"], found["uid"]), (None, None))
        client.shutdown()

    def test_unknown_names(self):
        self.serve("--ram", "1M")
        for command in ("status", "table", "sync"):
            for name in ("other", "../ram", "ram/table", "%2e"):
                self.refuse(1, f"no such device: {name}: nobody serves it in {self.folder}/oxbow; oxbow list shows "
                               "what is there", command, name)

    # --- the run directory ---

    def test_the_socket_is_the_users_alone(self):
        server = self.serve("--ram", "1M")
        found = os.stat(self.socket_of(server))
        self.assertTrue(stat.S_ISSOCK(found.st_mode))
        self.assertEqual(stat.S_IMODE(found.st_mode), 0o600)

    def test_what_a_killed_process_left_is_cleaned_up(self):
        alive = self.serve("--ram", "1M", "--name", "alive")
        killed = self.serve("--ram", "1M", "--name", "killed")
        path = self.socket_of(killed)
        killed.stop(signal.SIGKILL)
        self.assertTrue(os.path.exists(path))
        self.assertEqual([each["name"] for each in self.listed()], ["alive"])
        self.assertEqual(sorted(glob.glob(self.path("oxbow/[0-9]*"))),
                         [self.path(f"oxbow/{alive.process.pid}.{end}") for end in ("control", "lock")])
        again = self.serve("--ram", "1M", "--name", "killed")
        self.assertEqual(len(self.listed()), 2)
        self.assertEqual(again.stop(), (0, ""))

    def test_a_name_is_served_once(self):
        server = self.serve("--ram", "1M", "--name", "disk")
        self.refuse_matching(1, rf"cannot serve device: disk: process {server.process.pid} serves a device of that "
                                rf"name in {self.folder}/oxbow \(.*oxbow serve --ram 1M --name disk\)",
                             "serve", "--ram", "2M", "--name", "disk", "--nbd", f"unix:{self.folder}/other")
        (line,) = self.listed()
        self.assertEqual(line["size"], MIB)
        server.stop(signal.SIGKILL)
        self.serve("--ram", "2M", "--name", "disk")

    def test_a_directory_that_others_can_write_to_is_refused(self):
        os.mkdir(self.path("oxbow"))
        os.chmod(self.path("oxbow"), 0o777)
        why = f"cannot use run directory: {self.folder}/oxbow: others can write to it; chmod go-w takes that away"
        self.refuse(1, why, "serve", "--ram", "1M")
        self.refuse(1, why, "list")
        self.refuse(1, why, "sync")

    def test_a_process_that_does_not_answer(self):
        server = self.serve("--ram", "1M")
        os.unlink(self.socket_of(server))
        done = self.run_oxbow("list", "--json")
        self.assertEqual((done.returncode, done.stderr),
                         (1, f"oxbow: cannot ask process: {server.process.pid}: nobody answers at its control "
                             "socket\n"))
        self.assertEqual([(each["name"], each["state"]) for each in json.loads(done.stdout)], [("ram", "no answer")])

    # --- the socket ---

    def test_garbage_disturbs_nobody(self):
        server = self.serve("--ram", "1M")
        path = self.socket_of(server)
        chance = random.Random(SEED)
        self.qemu_io(server.uri, "write -P 7 0 1M")
        bodies = [b"", b"\0" * 100, b"GET", b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"A" * 100_000, b"GET /v1 HTTP/1.1\r\n"
                  + b"A: b\r\n" * 50_000, b"POST /v1/devices/ram/sync HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n{",
                  b"POST /v1/devices/ram/sync HTTP/1.1\r\nContent-Length: 5\r\n\r\n{]"]
        bodies += [bytes(chance.randrange(256) for _ in range(chance.randrange(3000))) for _ in range(100)]
        for body in bodies:
            answer = exchange(path, body, shut=True)
            if not body:
                self.assertEqual(answer, b"")
                continue
            status, _, content = parse(answer)
            self.assertGreaterEqual(status, 400, (SEED, body))
            self.assertEqual(set(json.loads(content)["error"]), {"what", "where", "why"}, (SEED, body))
        self.qemu_io(server.uri, "read -P 7 0 1M")
        self.assertEqual(self.ask(server, "GET", "/v1/devices/ram")[1]["statistics"]["errors"], 0)
        self.assertEqual(server.stop(), (0, ""))

    def test_errors_have_one_shape(self):
        server = self.serve("--ram", "1M")
        self.assertEqual(self.ask(server, "GET", "/v1/devices/nobody"), (404, {"error": {
            "what": "no such device", "where": "nobody", "why": "GET /v1/devices lists those that there are"}}))
        self.assertEqual(self.ask(server, "PUT", "/v1/devices"), (405, {"error": {
            "what": "cannot answer", "where": "/v1/devices", "why": "PUT is no method of this path; it has GET"}}))
        self.assertEqual(self.ask(server, "POST", "/v1/devices/ram/sync", {"hard": True}), (400, {"error": {
            "what": "cannot answer", "where": "/v1/devices/ram/sync",
            "why": "the body has a member that nobody knows: hard"}}))

    def test_idle_clients_keep_nobody_out_for_long(self):
        server = self.serve("--ram", "1M")
        path = self.socket_of(server)
        idle = [socket.socket(socket.AF_UNIX) for _ in range(32)]
        for each in idle:
            each.connect(path)
            self.addCleanup(each.close)
        status, _, body = parse(exchange(path, b"GET /v1 HTTP/1.1\r\n\r\n"))
        self.assertEqual((status, json.loads(body)["error"]["why"]),
                         (503, "too many clients at a time; try again later"))
        self.qemu_io(server.uri, "write -P 7 0 1M", "read -P 7 0 1M")
        # After their time those who have said nothing are sent away.
        for each in idle:
            each.settimeout(SECONDS)
            self.assertEqual(parse(each.recv(4096))[0], 408)
            each.close()
        for _ in range(100):
            if self.run_oxbow("list").returncode == 0:
                break
        self.assertEqual(len(self.listed()), 1)
        self.assertEqual(server.stop(), (0, ""))

    def test_many_clients_at_a_time(self):
        server = self.serve("--ram", "1M")
        failures = []

        def work():
            for _ in range(20):
                for method, path in (("GET", "/v1/devices/ram"), ("POST", "/v1/devices/ram/sync")):
                    status, body = self.ask(server, method, path)
                    while status == 503:  # on a slow machine those before are still on their way out
                        status, body = self.ask(server, method, path)
                    if status != 200:
                        failures.append(body)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.ask(server, "GET", "/v1/devices/ram")[1]["statistics"]["flushes"], 160)
        self.assertEqual(server.stop(), (0, ""))

    def test_metrics(self):
        server = self.serve("--ram", "1M", "--name", "disk")
        self.qemu_io(server.uri, "write -P 1 0 4k", "read 0 4k", "read 4k 4k", "flush")
        status, fields, body = parse(exchange(self.socket_of(server), b"GET /metrics HTTP/1.1\r\n\r\n"))
        self.assertEqual((status, fields["Content-Type"]), (200, "text/plain; version=0.0.4"))
        families = parse_metrics(body.decode())
        device = ("device", "disk")
        for name, value in (("reads", 2), ("read_bytes", 8192), ("writes", 1), ("written_bytes", 4096)):
            kind, samples = families[f"oxbow_device_{name}_total"]
            self.assertEqual((kind, samples), ("counter", {(f"oxbow_device_{name}_total", (device,)): value}))
        kind, samples = families["oxbow_device_latency_seconds"]
        self.assertEqual(kind, "histogram")
        for request, count in (("read", 2), ("write", 1), ("change", 0)):
            labels = (device, ("request", request))
            buckets = [(labels_of[-1][1], value) for (name, labels_of), value in samples.items()
                       if name.endswith("_bucket") and labels_of[:-1] == labels]
            bounds = [float(bound) for bound, _ in buckets]
            self.assertEqual(bounds, [2 ** i / 1e6 for i in range(25)] + [float("inf")])
            values = [value for _, value in buckets]
            self.assertEqual(values, sorted(values))
            self.assertEqual((values[-1], samples["oxbow_device_latency_seconds_count", labels]), (count, count))
            self.assertEqual(samples["oxbow_device_latency_seconds_sum", labels] > 0, count > 0)


if __name__ == "__main__":
    unittest.main()
