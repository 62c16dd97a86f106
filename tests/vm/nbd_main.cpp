// SPDX-License-Identifier: Apache-2.0
// vm-nbd connect|reconnect SOCKET CONNECTIONS NUMBER, vm-nbd disconnect NUMBER: /dev/nbdNUMBER, answered by the server
// at a Unix socket over so many connections. Whoever is killed may come back: the kernel holds requests for two minutes
// and sends them again, as nbd-client of Debian 12 doesn't ask it to.

#include <endian.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::uint64_t k_timeout_s = 20;  // after which a request that wasn't answered is sent again
constexpr std::uint64_t k_dead_s = 120;    // for which a server may be gone
constexpr std::size_t k_attribute_head = sizeof(nlattr);

using Bytes = std::vector<char>;

[[noreturn]] void fail(const std::string& what, int number = errno) {
  throw std::runtime_error(what + ": " + std::strerror(number));
}

template <typename T>
void append(Bytes& bytes, const T& value) {
  const char* const at = reinterpret_cast<const char*>(&value);
  bytes.insert(bytes.end(), at, at + sizeof value);
}

// --- the server ---

void send_all(int fd, const Bytes& bytes) {
  if (::send(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) fail("send");
}

Bytes receive(int fd, std::size_t length) {
  Bytes bytes(length);
  if (length > 0 && ::recv(fd, bytes.data(), length, MSG_WAITALL) != static_cast<ssize_t>(length))
    fail("receive", EPROTO);
  return bytes;
}

template <typename T>
T at(const Bytes& bytes, std::size_t place) {
  T value{};
  if (place + sizeof value > bytes.size()) fail("a short reply", EPROTO);
  std::memcpy(&value, bytes.data() + place, sizeof value);
  return value;
}

struct Connected {
  int fd = -1;
  std::uint64_t size_bytes = 0;
  std::uint16_t flags = 0;
};

Connected connect_to(const std::string& path) {
  Connected connected;
  connected.fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(connected.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fail(path);
  if (std::memcmp(receive(connected.fd, 18).data(), "NBDMAGICIHAVEOPT", 16) != 0) fail("magic", EPROTO);
  Bytes hello;
  append(hello, htobe32(3));  // fixed newstyle, no zeroes
  hello.insert(hello.end(), {'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T'});
  append(hello, htobe32(7));  // GO, of the export without a name and with no questions
  append(hello, htobe32(6));
  append(hello, std::uint32_t{0});
  append(hello, std::uint16_t{0});
  send_all(connected.fd, hello);
  for (;;) {
    const Bytes head = receive(connected.fd, 20);
    const std::uint32_t kind = be32toh(at<std::uint32_t>(head, 12));
    const Bytes reply = receive(connected.fd, be32toh(at<std::uint32_t>(head, 16)));
    if (kind == 1) return connected;  // ACK
    if (kind != 3) fail("refused", EPROTO);
    if (be16toh(at<std::uint16_t>(reply, 0)) != 0) continue;  // not INFO_EXPORT
    connected.size_bytes = be64toh(at<std::uint64_t>(reply, 2));
    connected.flags = be16toh(at<std::uint16_t>(reply, 10));
  }
}

// --- the kernel ---

void append_attribute(Bytes& bytes, std::uint16_t type, std::span<const char> content) {
  append(bytes,
         nlattr{.nla_len = static_cast<std::uint16_t>(k_attribute_head + content.size()), .nla_type = type});
  bytes.insert(bytes.end(), content.begin(), content.end());
  bytes.resize((bytes.size() + 3) / 4 * 4);
}

template <typename T>
void append_number(Bytes& bytes, std::uint16_t type, T number) {
  append_attribute(bytes, type, {reinterpret_cast<const char*>(&number), sizeof number});
}

// A socket to generic netlink. Thread safety: none.
class Netlink {
 public:
  Netlink() : fd_(::socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC)) {
    if (fd_ < 0) fail("netlink");
    Bytes name;
    append_attribute(name, CTRL_ATTR_FAMILY_NAME, std::span("nbd", 4));
    const Bytes answer = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name);
    for (std::size_t place = NLMSG_HDRLEN + GENL_HDRLEN; place + k_attribute_head <= answer.size();) {
      const auto attribute = at<nlattr>(answer, place);
      if (attribute.nla_type == CTRL_ATTR_FAMILY_ID)
        nbd_ = at<std::uint16_t>(answer, place + k_attribute_head);
      place += (attribute.nla_len + 3U) / 4U * 4U;
    }
    if (nbd_ == 0) fail("nbd", ENOENT);
  }
  ~Netlink() { ::close(fd_); }
  Netlink(const Netlink&) = delete;
  Netlink& operator=(const Netlink&) = delete;
  Netlink(Netlink&&) = delete;
  Netlink& operator=(Netlink&&) = delete;

  void tell_nbd(std::uint8_t command, const Bytes& attributes) { (void)ask(nbd_, command, attributes); }

 private:
  // What came before the acknowledgement.
  Bytes ask(std::uint16_t family, std::uint8_t command, const Bytes& attributes) {
    Bytes message;
    append(message,
           nlmsghdr{.nlmsg_len = static_cast<std::uint32_t>(NLMSG_HDRLEN + GENL_HDRLEN + attributes.size()),
                    .nlmsg_type = family,
                    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                    .nlmsg_seq = 1,
                    .nlmsg_pid = 0});
    append(message, genlmsghdr{.cmd = command, .version = 1, .reserved = 0});
    message.insert(message.end(), attributes.begin(), attributes.end());
    send_all(fd_, message);
    for (Bytes answer;;) {
      Bytes part(65536);
      const ssize_t got = ::recv(fd_, part.data(), part.size(), 0);
      if (got < NLMSG_HDRLEN) fail("netlink");
      part.resize(static_cast<std::size_t>(got));
      if (at<nlmsghdr>(part, 0).nlmsg_type != NLMSG_ERROR) {
        answer = part;
        continue;
      }
      const int error = at<int>(part, NLMSG_HDRLEN);
      if (error != 0) fail("nbd refuses", -error);
      return answer;
    }
  }

  int fd_;
  std::uint16_t nbd_ = 0;
};

int run(const std::vector<std::string>& words) {
  Netlink netlink;
  Bytes attributes;
  append_number(attributes, NBD_ATTR_INDEX, static_cast<std::uint32_t>(std::stoul(words.back())));
  if (words[0] == "disconnect") {
    netlink.tell_nbd(NBD_CMD_DISCONNECT, attributes);
    return 0;
  }
  Bytes sockets;
  Connected last;
  for (unsigned long i = 0; i < std::stoul(words[2]); ++i) {
    last = connect_to(words[1]);
    Bytes item;
    append_number(item, NBD_SOCK_FD, static_cast<std::uint32_t>(last.fd));
    append_attribute(sockets, NBD_SOCK_ITEM | NLA_F_NESTED, item);
  }
  append_attribute(attributes, NBD_ATTR_SOCKETS | NLA_F_NESTED, sockets);
  append_number(attributes, NBD_ATTR_TIMEOUT, k_timeout_s);
  append_number(attributes, NBD_ATTR_DEAD_CONN_TIMEOUT, k_dead_s);
  if (words[0] == "connect") {
    append_number(attributes, NBD_ATTR_SIZE_BYTES, last.size_bytes);
    append_number(attributes, NBD_ATTR_BLOCK_SIZE_BYTES, std::uint64_t{512});
    append_number(attributes, NBD_ATTR_SERVER_FLAGS, std::uint64_t{last.flags});
  }
  netlink.tell_nbd(words[0] == "connect" ? NBD_CMD_CONNECT : NBD_CMD_RECONFIGURE, attributes);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool connects = words.size() == 4 && (words[0] == "connect" || words[0] == "reconnect");
  if (!connects && !(words.size() == 2 && words[0] == "disconnect")) {
    std::fputs("vm-nbd connect|reconnect SOCKET CONNECTIONS NUMBER, vm-nbd disconnect NUMBER\n", stderr);
    return 2;
  }
  try {
    return run(words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vm-nbd: %s\n", error.what());
    return 1;
  }
}
