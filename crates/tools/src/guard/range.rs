//! Which IP addresses belong to the public Internet, after the registries of special-purpose addresses of IANA.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public Internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    range_of(address).is_none()
}

/// What an address is part of, when it is not one of the public Internet.
#[must_use]
pub fn range_of(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => range_of_v4(address),
        IpAddr::V6(address) => range_of_v6(address),
    }
}

fn range_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        // Reached from within machines of Azure only, although the address looks public.
        [168, 63, 129, 16] => Some("the metadata of a cloud"),
        [0, ..] => Some("this host"),
        [127, ..] => Some("this host"),
        [10, ..] | [192, 168, ..] => Some("a private network"),
        [172, second, ..] if (16..=31).contains(&second) => Some("a private network"),
        [100, second, ..] if (64..=127).contains(&second) => Some("a provider's own network"),
        [169, 254, ..] => Some("link-local addresses and the metadata of clouds"),
        [192, 0, 0, _] => Some("addresses for protocols"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("addresses for documentation"),
        [192, 88, 99, _] => Some("relays of 6to4"),
        [198, 18 | 19, ..] => Some("addresses for benchmarks"),
        [first, ..] if first >= 240 => Some("reserved addresses"),
        [first, ..] if first >= 224 => Some("multicast"),
        _ => None,
    }
}

fn range_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let low = |a: u16, b: u16| Ipv4Addr::from((u32::from(a) << 16) | u32::from(b));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some("this host"),
        // An IPv4 address in another dress is what it is underneath.
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => range_of_v4(low(a, b)),
        [0, 0, 0, 0, 0, 0, ..] => Some("IPv4 addresses in an old form"),
        [0x64, 0xff9b, 1, ..] => Some("a translator's own network"),
        [0x2001, second, ..] if second < 0x200 => Some("addresses for protocols, Teredo among them"),
        [0x2001, 0xdb8, ..] => Some("addresses for documentation"),
        [0x2002, ..] => Some("6to4, which hides an IPv4 address"),
        [0x3fff, second, ..] if second < 0x1000 => Some("addresses for documentation"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local addresses"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("site-local addresses"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("a private network"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast"),
        // ISATAP: an IPv4 address in the last half.
        [.., 0 | 0x200, 0x5efe, a, b] => range_of_v4(low(a, b)),
        [first, ..] if first & 0xe000 == 0x2000 => None,
        _ => Some("reserved addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_public_internet_are_told_from_all_others() {
        let public = |text: &str| is_public(text.parse().expect("an address"));
        for yes in
            ["1.1.1.1", "93.184.215.14", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "223.255.255.1"]
        {
            assert!(public(yes), "{yes}");
        }
        for yes in ["2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(public(yes), "{yes}");
        }
        for no in
            ["0.1.2.3", "127.9.9.9", "172.16.0.1", "172.31.255.255", "100.64.0.1", "169.254.169.254", "255.255.255.255"]
        {
            assert!(!public(no), "{no}");
        }
        for no in
            ["::", "::1", "::7f00:1", "fe80::1", "fec0::1", "fd00:ec2::254", "ff02::1", "2002:7f00:1::", "2001:0:1::1"]
        {
            assert!(!public(no), "{no}");
        }
        for no in ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2001:db8::1", "2a00::5efe:7f00:1", "4000::1"]
        {
            assert!(!public(no), "{no}");
        }
    }
}
