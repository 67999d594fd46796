use proptest::prelude::*;

use super::*;

const STRICT: Policy = Policy { allow_private: false, allow_loopback: false };
const OPEN: Policy = Policy { allow_private: true, allow_loopback: false };
const NEAR: Policy = Policy { allow_private: false, allow_loopback: true };

#[test]
fn every_way_to_write_an_inner_address_is_seen() {
    for (host, kind) in [
        ("127.0.0.1", Kind::Loopback),
        ("127.1", Kind::Loopback),
        ("0x7f.0.0.1", Kind::Loopback),
        ("0177.0.0.1", Kind::Loopback),
        ("2130706433", Kind::Loopback),
        ("127.0.0.1.", Kind::Loopback),
        ("１２７.０.０.１", Kind::Loopback),
        ("localhost", Kind::Loopback),
        ("LOCALHOST.", Kind::Loopback),
        ("a.localhost", Kind::Loopback),
        ("[::1]", Kind::Loopback),
        ("[::ffff:127.0.0.1]", Kind::Loopback),
        ("[::ffff:7f00:1]", Kind::Loopback),
        ("[64:ff9b::7f00:1]", Kind::Loopback),
        ("10.0.0.1", Kind::Private),
        ("172.31.255.255", Kind::Private),
        ("192.168.1.1", Kind::Private),
        ("100.64.0.1", Kind::Private),
        ("[fd12::1]", Kind::Private),
        ("[::ffff:10.0.0.1]", Kind::Private),
        ("[64:ff9b::a00:1]", Kind::Private),
        ("169.254.169.254", Kind::Metadata),
        ("[::ffff:169.254.169.254]", Kind::Metadata),
        ("[64:ff9b::a9fe:a9fe]", Kind::Metadata),
        ("0xa9fea9fe", Kind::Metadata),
        ("[fd00:ec2::254]", Kind::Metadata),
        ("100.100.100.200", Kind::Metadata),
        ("168.63.129.16", Kind::Metadata),
        ("169.254.0.1", Kind::LinkLocal),
        ("[fe80::1]", Kind::LinkLocal),
        ("224.0.0.1", Kind::Multicast),
        ("[ff02::1]", Kind::Multicast),
        ("0.0.0.0", Kind::Reserved),
        ("0", Kind::Reserved),
        ("255.255.255.255", Kind::Reserved),
        ("192.0.0.192", Kind::Reserved),
        ("198.18.0.1", Kind::Reserved),
        ("203.0.113.9", Kind::Reserved),
        ("[::]", Kind::Reserved),
        ("[::7f00:1]", Kind::Reserved),
        ("[64:ff9b:1::1]", Kind::Reserved),
        ("[2002:7f00:1::]", Kind::Reserved),
        ("[2001::1]", Kind::Reserved),
        ("[2001:db8::1]", Kind::Reserved),
        ("[fec0::1]", Kind::Reserved),
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:8500/v1/x?y#z");
            match STRICT.check(&url) {
                Err(Refused::Address { kind: found, .. }) => assert_eq!(found, kind, "{url}"),
                other => panic!("{url}: {other:?}"),
            }
            assert_eq!(OPEN.check(&url).is_ok(), matches!(kind, Kind::Private | Kind::Loopback), "{url}");
            assert_eq!(NEAR.check(&url).is_ok(), kind == Kind::Loopback, "{url}");
        }
    }
}

#[test]
fn public_receivers_and_names_pass_and_no_other_scheme() {
    for url in [
        "https://chat.example/hooks/deploys",
        "http://1.1.1.1/",
        "https://user:password@8.8.8.8:8443/",
        "https://[2606:4700::1111]/",
        "http://[64:ff9b::808:808]/",
        "http://172.32.0.1/",
        "http://100.128.0.1/",
    ] {
        assert_eq!(STRICT.check(url), Ok(()), "{url}");
    }
    for url in
        ["", "/hook", "file:///etc/passwd", "ftp://1.1.1.1/", "gopher://127.0.0.1/", "http://", "http://[::1"]
    {
        assert_eq!(OPEN.check(url), Err(Refused::NoUrl), "{url}");
    }
    assert!(STRICT.check("http://user@127.0.0.1:80@127.0.0.1/").is_err());
}

#[test]
fn one_forbidden_address_of_many_refuses_the_name_and_says_which() {
    let addresses = ["1.1.1.1", "10.0.0.7"].map(|text| text.parse().unwrap());
    let refused = STRICT.check_addresses("inner.example", &addresses).unwrap_err().to_string();
    for word in ["inner.example", "10.0.0.7", "private", "allow_private"] {
        assert!(refused.contains(word), "{refused}");
    }
    assert_eq!(OPEN.check_addresses("inner.example", &addresses), Ok(()));
    let metadata = STRICT.check("http://169.254.169.254/latest").unwrap_err().to_string();
    assert!(metadata.contains("metadata") && !metadata.contains("allow_private"), "{metadata}");
}

/// What Rust's own predicates say; they know fewer ranges, none that is public here.
fn surely_inner(address: Ipv4Addr) -> bool {
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_unspecified()
}

fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
    // Half of them next to a border of some range.
    let border = prop::sample::select(vec![
        0x0a00_0000_u32,
        0x6440_0000,
        0x6480_0000,
        0x7f00_0000,
        0x8000_0000,
        0xa9fe_0000,
        0xa9ff_0000,
        0xac10_0000,
        0xac20_0000,
        0xc0a8_0000,
        0xc0a9_0000,
        0xe000_0000,
        0xf000_0000,
        0xffff_ffff,
    ]);
    prop_oneof![
        any::<u32>(),
        (border, 0_u32..4).prop_map(|(border, by)| border.wrapping_sub(2).wrapping_add(by))
    ]
    .prop_map(Ipv4Addr::from)
}

proptest! {
    #[test]
    fn an_inner_address_is_never_public_in_whatever_form(address in any_v4()) {
        let kind = Kind::of(address.into());
        prop_assert!(!surely_inner(address) || kind != Kind::Public, "{address} is {kind:?}");
        let bits = u128::from(u32::from(address));
        let forms = [
            IpAddr::V6(address.to_ipv6_mapped()),
            IpAddr::V6(Ipv6Addr::from((0x0064_ff9b_u128 << 96) | bits)),
        ];
        for form in forms {
            prop_assert_eq!(Kind::of(form), kind, "{}", form);
        }
        for form in [(0x2002_u128 << 112) | (bits << 80), bits & 0xffff_ffff] {
            let form = Ipv6Addr::from(form);
            prop_assert!(Kind::of(form.into()) != Kind::Public, "{}", form);
        }
        for url in [
            format!("http://{address}/"),
            format!("http://{}/", u32::from(address)),
            format!("http://0x{:x}/", u32::from(address)),
            format!("http://[{}]/", address.to_ipv6_mapped()),
        ] {
            for policy in [STRICT, OPEN, NEAR] {
                prop_assert_eq!(policy.check(&url).is_ok(), policy.allows(address.into()), "{}", url);
            }
        }
    }

    #[test]
    fn an_ipv6_address_is_public_only_in_global_unicast(bits in any::<u128>()) {
        let address = Ipv6Addr::from(bits);
        let kind = Kind::of(address.into());
        let inner = address.is_loopback()
            || address.is_unspecified()
            || address.is_multicast()
            || address.is_unique_local()
            || address.is_unicast_link_local();
        prop_assert!(!inner || kind != Kind::Public, "{address} is {kind:?}");
        let carries_v4 = address.to_ipv4_mapped().is_some() || address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
        prop_assert!(carries_v4 || kind != Kind::Public || address.segments()[0] >> 13 == 1, "{address}");
    }

    #[test]
    fn no_text_makes_it_fail(text in ".*") {
        drop(STRICT.check(&text));
        drop(OPEN.check(&format!("http://{text}")));
    }
}
