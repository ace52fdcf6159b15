//! Hosts for the pictures, and what every picture must be.

use evpn_hook::advice::Advice;
use evpn_hook::config::{PortSecurity, Vrf};
use evpn_hook::model::{Address, Guest, GuestKind, Source};
use evpn_hook::report::status::{EndpointStatus, NetworkStatus, Remote, Status, svg};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use std::collections::BTreeSet;

const MARKS: &str = "\u{202e}\u{200b}\u{2028}\u{7}\u{fffe}";

pub fn named(name: &str) -> Status {
    match name {
        "empty" => Status { networks: vec![], endpoints: vec![] },
        "tenants" => tenants(),
        "hostile" => hostile(),
        "crowd" => crowd(),
        "large" => large(),
        other => panic!("{other} is no host"),
    }
}

fn vrf(name: &str, table: u32, vni: Option<u32>) -> Vrf {
    Vrf { name: name.parse().unwrap(), table: table.try_into().unwrap(), vni: vni.map(|vni| vni.try_into().unwrap()) }
}

fn network(name: &str, bridge: &str, vni: u32, vrf: Option<Vrf>) -> NetworkStatus {
    NetworkStatus {
        name: name.parse().unwrap(),
        bridge: bridge.parse().unwrap(),
        vni: vni.try_into().unwrap(),
        vrf,
        vtep: "10.0.0.1".parse().ok(),
        port_security: PortSecurity::Off,
        state: "up",
        problems: vec![],
        advice: vec![],
        remotes: vec![],
        foreign_ports: vec![],
    }
}

fn advice(check: &'static str) -> Advice {
    Advice { check, costs: true, evidence: "it is so".into(), mend: "do this".into() }
}

fn remote(vtep: &str, macs: usize) -> Remote {
    Remote { vtep: vtep.parse().unwrap(), macs: Some(macs) }
}

fn endpoint(guest: Guest, network: &str, device: &str, addresses: &[(&str, Source)]) -> EndpointStatus {
    let addresses: Vec<Address> =
        addresses.iter().map(|(ip, source)| Address::new(ip.parse().unwrap(), *source)).collect();
    let digits: u32 = device.bytes().map(u32::from).sum();
    EndpointStatus {
        guest,
        network: network.parse().unwrap(),
        device: device.parse().unwrap(),
        mac: format!("52:54:00:00:{:02x}:{:02x}", digits / 256, digits % 256).parse().ok(),
        ips: addresses.iter().map(|a| a.ip).collect(),
        addresses,
        state: "advertised",
        problems: vec![],
    }
}

fn guest(kind: GuestKind, name: &str) -> Guest {
    Guest::new(kind, name, &format!("{name}-id")).unwrap()
}

fn tenants() -> Status {
    let red = || Some(vrf("red", 10, Some(10)));
    let networks = vec![
        NetworkStatus {
            advice: vec![advice("dhcp-broadcast")],
            remotes: vec![remote("10.0.0.2", 1)],
            ..network("web", "web-l2", 20, red())
        },
        NetworkStatus {
            state: "degraded",
            problems: vec!["missing: ip link set vxlan21 up".into()],
            remotes: vec![remote("10.0.0.2", 12), remote("10.0.0.3", 0), remote("c0d1::7", 1)],
            ..network("db", "db-l2", 21, red())
        },
        NetworkStatus {
            state: "down",
            vtep: None,
            problems: vec!["not up: 'evpn-hook network up lab'".into()],
            ..network("lab", "lab-l2", 40, None)
        },
        NetworkStatus {
            advice: vec![advice("stp"), advice("mtu-not-told")],
            ..network("dmz", "dmz-l2", 50, Some(vrf("edge", 50, None)))
        },
    ];
    let v6 = ("fe80::5054:ff:fe03:82d8", Source::Neighbour);
    let many = [("10.1.0.60", Source::DhcpHost), v6, ("fd00:1::60", Source::Lease), ("10.1.0.61", Source::Metadata)];
    let endpoints = vec![
        endpoint(guest(GuestKind::Libvirt, "alpine-web"), "web", "vnet0", &many),
        endpoint(guest(GuestKind::Lxc, "cache"), "web", "vethHlHzq3", &[("10.1.0.38", Source::Container)]),
        EndpointStatus {
            state: "failed",
            problems: vec![
                "missing: ip neigh replace 10.1.1.5 lladdr 52:54:00:00:02:1f dev db-l2 nud permanent".into(),
                "10.1.1.5 is also 52:54:00:00:00:99's at VTEP 10.0.0.2: give one of the two another address".into(),
            ],
            ..endpoint(guest(GuestKind::Libvirt, "postgres"), "db", "vnet1", &[("10.1.1.5", Source::Nwfilter)])
        },
        EndpointStatus {
            state: "incoming",
            ..endpoint(guest(GuestKind::Libvirt, "mover"), "db", "vnet2", &[("10.1.1.6", Source::Metadata)])
        },
        EndpointStatus {
            mac: None,
            state: "registered",
            ..endpoint(guest(GuestKind::Manual, "tap0"), "db", "tap0", &[])
        },
        EndpointStatus {
            state: "failed",
            problems: vec!["bridge old-l2 is not there".into()],
            ..endpoint(guest(GuestKind::Lxc, "left"), "old", "vethX", &[("10.9.0.1", Source::Fabric)])
        },
    ];
    Status { networks, endpoints }
}

/// Names as somebody would choose them who wants to break the page or the terminal.
fn hostile() -> Status {
    let long = "W".repeat(120);
    let name = "</text><script>alert(1)</script>&amp;\"'";
    let state = |problem: &str| EndpointStatus {
        state: "registered",
        problems: vec![problem.to_owned()],
        ..endpoint(guest(GuestKind::Libvirt, name), name, "vnet0", &[("10.1.0.60", Source::Metadata)])
    };
    Status {
        networks: vec![
            network(name, "a", 20, Some(vrf("red", 10, None))),
            NetworkStatus {
                problems: vec![format!("FRR: \x1b[31m{long}\n<x>{MARKS}")],
                ..network(&long, "b", 21, None)
            },
        ],
        endpoints: vec![
            state("\x1b]0;title\x07 ]]> <!-- "),
            endpoint(
                guest(GuestKind::Lxc, "網路虛擬機器網路虛擬機器"),
                &long,
                "veth1",
                &[("10.1.0.61", Source::Lease)],
            ),
            endpoint(guest(GuestKind::Lxc, &long), &long, "veth2", &[]),
            endpoint(guest(GuestKind::Lxc, "a\u{202e}b\u{200b}c\u{2028}d"), &long, "veth3", &[]),
        ],
    }
}

fn crowd() -> Status {
    let ip = |n: usize| format!("10.1.{}.{}", n / 250, n % 250 + 1);
    let row = |n: usize| {
        let kind = if n.is_multiple_of(2) { GuestKind::Libvirt } else { GuestKind::Lxc };
        endpoint(guest(kind, &format!("guest-{n:03}")), "red", &format!("vnet{n}"), &[(&ip(n), Source::DhcpHost)])
    };
    let remotes = (2..=14).map(|n| remote(&format!("10.0.0.{n}"), n * 3)).collect();
    Status {
        networks: vec![NetworkStatus { remotes, ..network("red", "red-l2", 20, Some(vrf("red", 10, Some(10)))) }],
        endpoints: (0..70).map(row).collect(),
    }
}

/// On a fabric whose MACs are too many to be counted.
fn large() -> Status {
    let remotes = (2..=14).map(|n| Remote { vtep: [10, 0, 0, n].into(), macs: None }).collect();
    Status { networks: vec![NetworkStatus { remotes, ..network("red", "red-l2", 20, None) }], endpoints: Vec::new() }
}

/// An element's name and attributes.
type Element = (String, Vec<(String, String)>);

/// What a viewer would see of an element: its attributes, unescaped.
fn attributes(element: &BytesStart) -> Vec<(String, String)> {
    let read = |attribute: quick_xml::events::attributes::Attribute| {
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).unwrap().into_owned();
        (attribute.key.as_ref().to_owned(), value)
    };
    element.attributes().map(|attribute| read(attribute.unwrap())).collect()
}

/// Reads a picture back: every element with its attributes, and every text.
fn read_back(text: &str) -> (Vec<Element>, Vec<String>) {
    let mut reader = quick_xml::Reader::from_str(text);
    let config = reader.config_mut();
    (config.check_end_names, config.check_comments) = (true, true);
    let (mut elements, mut texts, mut open, mut words) = (Vec::new(), Vec::new(), 0, String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(element) => {
                open += 1;
                words.clear();
                elements.push((element.name().as_ref().to_owned(), attributes(&element)));
            }
            Event::Empty(element) => {
                elements.push((element.name().as_ref().to_owned(), attributes(&element)));
            }
            Event::End(element) => {
                open -= 1;
                if ["text", "title"].contains(&element.name().as_ref()) {
                    texts.push(std::mem::take(&mut words));
                }
            }
            Event::Text(part) => words.push_str(&part),
            Event::GeneralRef(name) => words.push(match &*name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "#39" => '\'',
                other => panic!("&{other};"),
            }),
            Event::Decl(_) => {}
            Event::Eof => break,
            other => panic!("a picture has no {other:?}"),
        }
    }
    assert_eq!(open, 0, "every element is ended");
    (elements, texts)
}

fn number(attributes: &[(String, String)], name: &str) -> Option<usize> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.parse().unwrap())
}

#[test]
fn every_picture_is_plain_svg_within_its_page_and_nothing_lies_on_another() {
    for host in ["empty", "tenants", "hostile", "crowd"] {
        let text = svg::draw(&named(host), "comp1");
        let (elements, _) = read_back(&text);
        let (root, page) = &elements[0];
        assert_eq!(root, "svg");
        assert!(page.contains(&("version".into(), "1.1".into())));
        let (wide, high) = (number(page, "width").unwrap(), number(page, "height").unwrap());
        let mut boxes: Vec<[usize; 4]> = Vec::new();
        for (name, attributes) in &elements {
            let plain = ["svg", "title", "desc", "style", "g", "rect", "text", "polyline", "circle"];
            assert!(plain.contains(&name.as_str()), "{host}: <{name}>");
            for (key, value) in attributes {
                let known = "xmlns version width height viewBox type class fill stroke stroke-width stroke-dasharray points x y rx cx cy r \
                    font-size font-weight font-family text-anchor text-rendering";
                assert!(known.split_whitespace().any(|k| k == key), "{host}: {key}");
                assert!(key == "xmlns" || !value.contains(':'), "{host}: {key}={value} leads elsewhere");
            }
            let points: Vec<(usize, usize)> = attributes
                .iter()
                .filter(|(key, _)| key == "points")
                .flat_map(|(_, value)| value.split(' '))
                .map(|pair| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap())
                .collect();
            let corner = (
                number(attributes, "x").or(number(attributes, "cx")).unwrap_or(0)
                    + number(attributes, "width").unwrap_or(0),
                number(attributes, "y").or(number(attributes, "cy")).unwrap_or(0)
                    + number(attributes, "height").unwrap_or(0),
            );
            for (x, y) in points.into_iter().chain([corner]) {
                assert!(x <= wide && y <= high, "{host}: <{name}> at {x},{y} is off the page of {wide},{high}");
            }
            let class = attributes.iter().find(|(key, _)| key == "class").map(|(_, value)| value.as_str());
            if name == "rect" && matches!(class, Some("box" | "chip")) {
                boxes.push(["x", "y", "width", "height"].map(|key| number(attributes, key).unwrap()));
            }
        }
        for (number, [x, y, wide, high]) in boxes.iter().enumerate() {
            for other in &boxes[number + 1..] {
                let apart = x + wide <= other[0]
                    || other[0] + other[2] <= *x
                    || y + high <= other[1]
                    || other[1] + other[3] <= *y;
                assert!(apart, "{host}: {:?} lies on {other:?}", [x, y, wide, high]);
            }
        }
    }
}

#[test]
fn a_picture_says_what_is_there_and_only_as_text() {
    let (_, texts) = read_back(&svg::draw(&tenants(), "comp1"));
    let has = |word: &str| assert!(texts.iter().any(|text| text == word), "{word} in {texts:#?}");
    ["comp1", "VRF red", "table 10, L3VNI 10", "layer 2 only", "web", "bridge web-l2", "VNI 20", "VTEP 10.0.0.1"]
        .into_iter()
        .for_each(has);
    ["vm alpine-web", "container cache", "VTEP 10.0.0.2", "12 MACs", "no MAC", "VTEP c0d1::7", "degraded", "incoming"]
        .into_iter()
        .for_each(has);
    has("! missing: ip link set vxlan21 up");

    let (_, texts) = read_back(&svg::draw(&hostile(), &format!("{MARKS}<&>")));
    let name = "</text><script>alert(1)</script>&amp;\"'";
    assert!(texts.iter().any(|text| text.contains(&format!("vm {name}: registered"))), "{texts:#?}");
    assert!(texts.contains(&"EVPN on \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}<&>".to_owned()), "{texts:#?}");
    let signs: BTreeSet<char> = texts.iter().flat_map(|text| text.chars()).collect();
    assert!(signs.iter().all(|c| !c.is_control() && !MARKS.contains(*c)), "{signs:?}");
}

#[test]
fn a_picture_is_the_same_whatever_the_order_and_bounded_whatever_the_host() {
    let status = tenants();
    let mut turned = status.clone();
    turned.networks.reverse();
    turned.endpoints.reverse();
    assert_eq!(svg::draw(&status, "comp1"), svg::draw(&turned, "comp1"));

    let mut big = crowd();
    let names = (0..3000).map(|n| format!("{n:04}{}", "x".repeat(240)));
    big.endpoints =
        names.map(|n| endpoint(guest(GuestKind::Lxc, &n), "red", "veth0", &[("10.1.0.1", Source::Lease)])).collect();
    big.networks[0].remotes = (0..200).map(|n| remote(&format!("10.0.1.{n}"), 1)).collect();
    let text = svg::draw(&big, &"h".repeat(300));
    assert!(text.len() < 200_000, "{} bytes", text.len());
    let (_, texts) = read_back(&text);
    assert!(texts.contains(&"and 2940 more endpoints".to_owned()) && texts.contains(&"192 VTEPs more".to_owned()));
}
