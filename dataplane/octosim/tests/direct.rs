//! Direct server return: the engine and the reference model, told the same, do the same. Scenarios are all that can be combined,
//! in orders that follow from a number.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::net::IpAddr;

use octosim::compare::replay;
use octosim::line::Request;

const SETUP: &str = r#"{"setup":{"ports":[
    {"name":"pod1","role":"pod","mac":"02:00:00:00:ff:00"},
    {"name":"up0","role":"uplink","mac":"02:00:00:00:ff:02","addresses":["192.0.2.1/24","2001:db8::1/64"]}
]}}"#;

/// A service with a backend here and one with a backend on another node, over both families.
fn state(forwarding: &str, own: &str, dispatch: &str, routing: &str) -> String {
    let service = |name: &str, protocol: &str, vip: &str, port: u16, backend: &str| {
        format!(
            r#"{{"name":"s/{name}-{protocol}-{vip}","protocol":"{protocol}","forwarding":"{own}",
            "frontends":[{{"address":"{vip}","port":{port},"type":"load_balancer"}}],
            "backends":[{{"address":"{backend}","port":{},"local":{}}}]}}"#,
            if name == "here" { 8081 } else { 8080 },
            name == "here"
        )
    };
    let mut services = Vec::new();
    for protocol in ["tcp", "udp", "sctp"] {
        for (vip, here, far) in [
            ("203.0.113.80", "10.0.0.1", "10.0.2.1"),
            ("2001:db8:113::80", "fd00::1", "fd00:2::1"),
        ] {
            services.push(service("far", protocol, vip, 80, far));
            services.push(service("here", protocol, vip, 81, here));
        }
    }
    format!(
        r#"{{"apply":{{
        "endpoints":[{{"id":1,"port":"pod1","mac":"02:00:00:00:00:01","identity":1001,"addresses":["10.0.0.1","fd00::1"]}}],
        "routes":[{{"prefix":"0.0.0.0/0","via":"192.0.2.254","port":"up0"}},{{"prefix":"::/0","via":"2001:db8::fe","port":"up0"}}],
        "neighbours":[{{"port":"up0","address":"192.0.2.254","mac":"02:00:00:00:01:fe"}},
                      {{"port":"up0","address":"2001:db8::fe","mac":"02:00:00:00:01:fe"}},
                      {{"port":"up0","address":"192.0.2.2","mac":"02:00:00:00:01:02"}}],
        "ipcache":[{{"prefix":"10.0.2.0/24","identity":2001,"tunnel_endpoint":"192.0.2.2"}},
                   {{"prefix":"fd00:2::/64","identity":2001,"tunnel_endpoint":"192.0.2.2"}},
                   {{"prefix":"198.51.100.128/25","identity":3001}}],
        "policies":[{{"endpoint":1,"enforce_ingress":true,"entries":[
            {{"direction":"ingress","identity":2,"precedence":4294967041}}, {{"direction":"ingress","identity":9,"precedence":4294967041}},
            {{"direction":"ingress","identity":10,"precedence":4294967041}}]}}],
        "node":{{"addresses":["192.0.2.1","2001:db8::1"],"masquerade4":"192.0.2.1","masquerade6":"2001:db8::1",
                 "native_cidrs":["198.51.100.0/24","2001:db8:100::/64"],
                 "routing":"{routing}","tunnel":{{"protocol":"geneve","local4":"192.0.2.1"}},
                 "forwarding":"{forwarding}","dsr":{{"dispatch":"{dispatch}","source4":"198.18.7.0/24"}}}},
        "services":[{}]}}}}"#,
        services.join(",")
    )
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(addr: &str) -> Vec<u8> {
    match addr.parse().unwrap() {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// An IP packet: IPv4 options, or an IPv6 extension header of type 60 whose first byte is filled in.
fn ip(src: &str, dst: &str, protocol: u8, options: &[u8], upper: &[u8]) -> Vec<u8> {
    let (from, to) = (octets(src), octets(dst));
    let mut bytes = Vec::new();
    if from.len() == 4 {
        bytes.extend([
            0x45 + (options.len() / 4) as u8,
            0,
            0,
            0,
            0,
            7,
            0x40,
            0,
            64,
            protocol,
            0,
            0,
        ]);
        bytes.extend(from);
        bytes.extend(to);
        bytes.extend(options);
        let total = (bytes.len() + upper.len()) as u16;
        put(&mut bytes, 2, total);
        let sum = checksum(&[&bytes]);
        put(&mut bytes, 10, sum);
    } else {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(((options.len() + upper.len()) as u16).to_be_bytes());
        bytes.extend([if options.is_empty() { protocol } else { 60 }, 64]);
        bytes.extend(from);
        bytes.extend(to);
        if let [_, rest @ ..] = options {
            bytes.push(protocol);
            bytes.extend(rest);
        }
    }
    bytes.extend(upper);
    bytes
}

/// CRC32c with zeros in the place of SCTP's checksum (RFC 9260, appendix A).
fn crc32c(message: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    };
    !message.iter().fold(!0, step)
}

/// TCP with these flags, UDP or SCTP with `len` bytes.
fn upper(src: &str, dst: &str, protocol: u8, ports: (u16, u16), flags: u8, len: usize) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    match protocol {
        6 => bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 16, 0, 0, 0, 0, 0]),
        17 => {
            bytes.extend(((8 + len) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        _ => bytes.extend([0; 8]),
    }
    bytes.extend(vec![0x61; len]);
    let at = match protocol {
        6 => 16,
        17 => 6,
        _ => {
            let sum = crc32c(&bytes).to_le_bytes();
            bytes[8..12].copy_from_slice(&sum);
            return bytes;
        }
    };
    let size = (bytes.len() as u32).to_be_bytes();
    let sum = checksum(&[&octets(src), &octets(dst), &size, &[0, 0, 0, protocol], &bytes]);
    put(&mut bytes, at, sum);
    bytes
}

fn frame(to: u8, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0xff, to, 2, 0, 0, 0, 1, 0xfe];
    frame.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

fn geneve(options: &[u8], critical: bool, inner: &[u8]) -> Vec<u8> {
    let mut data = vec![
        (options.len() / 4) as u8,
        if critical { 0x40 } else { 0 },
        0x65,
        0x58,
        0,
        0,
        2,
        0,
    ];
    data.extend(options);
    data.extend(frame(9, inner));
    let mut udp = vec![0xc0, 0, 0x17, 0xc1];
    udp.extend(((8 + data.len()) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(data);
    ip("192.0.2.2", "192.0.2.1", 17, &[], &udp)
}

fn inject(port: &str, frame: &[u8]) -> Request {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::from_str(&format!(r#"{{"inject":{{"port":"{port}","hex":"{hex}"}}}}"#)).unwrap()
}

/// Clients: one that policy knows as the world's, one that it refuses.
const CLIENTS: [[&str; 2]; 2] = [
    ["198.51.100.7", "2001:db8:100::7"],
    ["198.51.100.200", "2001:db8:100::8"],
];

fn option(v6: bool, which: usize) -> Vec<u8> {
    if v6 {
        let mut option = vec![0, 2, 0x1b, 20];
        option.extend(octets("2001:db8:113::80"));
        option.extend([0, 80, 0, 0]);
        match which % 6 {
            0 | 1 => {}
            2 => option[21] = 82,
            3 => option[3] = 19,
            4 => option[21] = 0,
            _ => option[4] = 0xff,
        }
        return option;
    }
    match which % 8 {
        0 | 1 => vec![0x9a, 8, 80, 0, 80, 113, 0, 203],
        2 => vec![0x9a, 8, 82, 0, 80, 113, 0, 203],
        3 => vec![0x9a, 7, 80, 0, 80, 113, 0, 203],
        4 => vec![1, 0x9a, 8, 80, 0, 80, 113, 0],
        5 => vec![0x94, 4, 0, 0, 0x9a, 8, 80, 0, 80, 113, 0, 203],
        6 => vec![0x9a, 8, 0, 0, 80, 113, 0, 203],
        _ => vec![0x9a, 8, 80, 0, 1, 0, 0, 127],
    }
}

/// A packet that means something to one of the two roles, by number.
fn one(mut which: usize, large: bool) -> Request {
    let mut next = |of: usize| {
        let it = which % of;
        which /= of;
        it
    };
    let v6 = next(2) == 1;
    let protocol = [6, 6, 17, 132][next(4)];
    let client = CLIENTS[usize::from(next(5) == 4)][usize::from(v6)];
    let pick = |four: &'static str, six: &'static str| if v6 { six } else { four };
    let number = |four: u8, six: u8| if v6 { six } else { four };
    let (vip, pod, far) = (
        pick("203.0.113.80", "2001:db8:113::80"),
        pick("10.0.0.1", "fd00::1"),
        pick("10.0.2.1", "fd00:2::1"),
    );
    let sport = 4000 + next(2) as u16;
    let flags = [2, 2, 16, 17, 4, 16][next(6)];
    let size = [0, 7, 1380, 1420, 1452, 1470][next(6)];
    let to = |dst: &str, port: u16, options: &[u8]| {
        // What an endpoint of ours is too small for is dropped for one reason or another.
        let size = if port == 80 && large { size } else { size.min(1300) };
        let upper = upper(client, dst, protocol, (sport, port), flags, size);
        ip(client, dst, protocol, options, &upper)
    };
    match next(9) {
        0 | 1 => inject("up0", &frame(2, &to(vip, 80, &[]))),
        2 => inject("up0", &frame(2, &to(vip, 81, &[]))),
        3 | 4 => inject("up0", &frame(2, &to(pod, 8080, &option(v6, next(8))))),
        5 => match next(2) {
            0 => inject("up0", &frame(2, &to(pod, 8080, &[]))),
            _ => {
                let told: [&[u8]; 4] = [
                    &[0x01, 0x4b, 0x81, 2, 203, 0, 113, 80, 0, 80, 0, 0],
                    &[0x01, 0x4b, 0x81, 2, 203, 0, 113, 80, 0, 80, 0, 0],
                    &[0x01, 0x4b, 0x81, 1, 203, 0, 113, 80],
                    &[],
                ];
                let told = told[next(4)];
                inject(
                    "up0",
                    &frame(2, &geneve(told, !told.is_empty(), &to(pod, 8080, &[]))),
                )
            }
        },
        6 => {
            // In an IP packet, sound or cut off.
            let mut inner = to(vip, [82, 81, 83][next(3)], &[]);
            if next(6) == 5 {
                inner.truncate(next(40));
            }
            let outer = ip(pick("192.0.2.2", "2001:db8::2"), pod, number(4, 41), &[], &inner);
            match outer.len() > 1500 {
                true => inject("up0", &frame(2, &to(vip, 80, &[]))),
                false => inject("up0", &frame(2, &outer)),
            }
        }
        7 => {
            // The endpoint's answer.
            let upper = upper(
                pod,
                client,
                protocol,
                (8080, sport),
                if flags == 2 { 18 } else { flags },
                5,
            );
            inject("pod1", &frame(0, &ip(pod, client, protocol, &[], &upper)))
        }
        _ => {
            // A router's error about an answer.
            let (src, port) = match next(3) {
                0 => (vip, 80),
                1 => (vip, 81),
                _ => (pod, 8080),
            };
            let _ = far;
            let about = ip(
                src,
                client,
                protocol,
                &[],
                &upper(src, client, protocol, (port, sport), 16, 9),
            );
            let mut error = vec![number(3, 2), number(4, 0), 0, 0, 0, 0, 5, 0];
            error.extend(about);
            let router = pick("203.0.113.250", "2001:db8:9::9");
            let sum = match v6 {
                false => checksum(&[&error]),
                true => {
                    let size = (error.len() as u32).to_be_bytes();
                    checksum(&[&octets(router), &octets(src), &size, &[0, 0, 0, 58], &error])
                }
            };
            put(&mut error, 2, sum);
            inject("up0", &frame(2, &ip(router, src, number(1, 58), &[], &error)))
        }
    }
}

fn scenario(apply: &str, seed: u64, steps: usize, large: bool) -> Vec<Request> {
    let mut requests: Vec<Request> = [SETUP, apply]
        .iter()
        .map(|text| serde_json::from_str(&text.replace('\n', " ")).unwrap())
        .collect();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..steps {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        requests.push(one(
            (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize,
            large,
        ));
    }
    requests
}

fn compare(dispatch: &str, routing: &str) {
    for (forwarding, own) in [("dsr", ""), ("hybrid", ""), ("snat", "dsr")] {
        // Requests that get the node's address lose a hop in a tunnel in the model (3.6 step 4), not in the engine.
        if forwarding == "hybrid" && routing == "tunnel" {
            continue;
        }
        let apply = state(forwarding, own, dispatch, routing);
        for seed in 1..25 {
            let requests = scenario(&apply, seed, 40, forwarding == "dsr" && own.is_empty());
            if let Err((at, error)) = replay(&requests) {
                let last = requests.get(at).map(|it| serde_json::to_string(it).unwrap());
                panic!("{forwarding}/{own} {dispatch} {routing} seed {seed} step {at}: {error}\n{last:?}");
            }
        }
    }
}

#[test]
fn by_an_option_of_the_header() {
    compare("opt", "native");
}

#[test]
fn by_an_option_of_the_header_in_tunnels() {
    compare("opt", "tunnel");
}

#[test]
fn by_an_option_of_geneve() {
    compare("geneve", "native");
    compare("geneve", "tunnel");
}

#[test]
fn by_an_ip_packet() {
    compare("ipip", "native");
}
