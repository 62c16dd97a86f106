#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that are cut short under a server in the middle of replies: clients get data that was there, zeros that are
declared wrong, or errors; never a signal for the server, and never wrong data that are called right."""

import os

import nbd_client as nbd
from clients import ClientTest, KIB, MIB, main


class TruncatedTest(ClientTest):
    SIZE = 48 * MIB
    LEFT = MIB + 777
    PIECE = 2 * MIB

    def devices(self):
        """Each kind of device over base.img."""
        for device in (["work.oxb"], ["--file", "base.img"], ["--file", "base.img", "--read-only"],
                       ["--file", "base.img", "--direct"]):
            self.make("base.img", self.content("golden.img"))
            if os.path.exists(self.path("work.oxb")):
                os.unlink(self.path("work.oxb"))
            self.succeed("create", "--base", "base.img", "work.oxb")
            yield device

    def cut_within_replies(self, server, **how):
        """The answers to reads of all of the device that were asked for before the file was cut."""
        client = self.connect(server, **how)
        places = range(0, self.SIZE, self.PIECE)
        cookies = {client.submit(nbd.READ, at, self.PIECE): at for at in places}
        os.truncate(self.path("base.img"), self.LEFT)
        answers = {}
        while cookies:
            try:
                cookie, error, data = client.wait()
            except ConnectionError:
                return client, answers, False
            answers[cookies.pop(cookie)] = (error, data)
        return client, answers, True

    def judge(self, server, answers):
        golden = self.content("golden.img")
        for at, (error, data) in answers.items():
            if error:
                self.assertEqual(error, nbd.EIO)
            else:
                self.assertTrue(data == golden[at:at + self.PIECE], f"wrong data at {at}")
        # whoever comes now is served with what is left
        client = self.connect(server)
        self.assertTrue(client.read(0, 512 * KIB) == golden[:512 * KIB])
        with self.assertRaises(nbd.NbdError) as caught:
            client.read(self.SIZE - MIB, 4096)
        self.assertEqual(caught.exception.number, nbd.EIO)
        self.assertTrue(client.read(0, 512 * KIB) == golden[:512 * KIB])

    def test_with_structured_replies_the_connection_lives(self):
        for device in self.devices():
            with self.subTest(device):
                server = self.serve(*device)
                client, answers, alive = self.cut_within_replies(server, structured=True)
                self.assertTrue(alive)
                self.assertTrue(any(error for error, _ in answers.values()))
                self.judge(server, answers)
                self.assertTrue(client.read(0, 4096) == self.content("golden.img")[:4096])
                self.stop(server)

    def test_with_simple_replies_an_error_or_the_end_of_the_connection(self):
        for device in self.devices():
            with self.subTest(device):
                server = self.serve(*device)
                _, answers, alive = self.cut_within_replies(server)
                self.assertTrue(not alive or any(error for error, _ in answers.values()))
                self.judge(server, answers)
                self.stop(server)


if __name__ == "__main__":
    main()
