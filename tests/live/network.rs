//! What is done to the network.

use crate::exact;

exact! {
    unix_by_hostile_abstract_names: ["unix-abstract-odd"],
    tcp_over_ipv4: ["tcp4", "--port", "47001"],
    tcp_over_ipv6: ["tcp6", "--port", "47002"],
    tcp_to_a_mapped_address: ["tcp-mapped", "--port", "47003"],
    tcp_to_nobody: ["tcp-refused", "--port", "47004"],
    tcp_fast_open: ["tcp-fast-open", "--port", "47005"],
    udp_connected: ["udp-connect", "--port", "47006"],
    udp_without_connection: ["udp-send", "--port", "47007"],
    /// Case C05.
    udp_many_in_one_call: ["udp-sendmmsg", "--port", "47010"],
    unix_stream: ["unix-stream"],
    unix_seqpacket: ["unix-seqpacket"],
    unix_datagram: ["unix-dgram"],
    unix_abstract: ["unix-abstract"],
    unix_by_a_relative_name: ["unix-relative"],
    vsock: ["vsock", "--port", "47020"],
    io_uring: ["io-uring", "--port", "47030"],
    /// Case D03.
    io_uring_by_its_workers: ["io-uring", "--workers", "--port", "47031"],
}
