//! XML as libvirt prints it, read by its lines: an element a line, two spaces a level, values in single quotes.

use evpn_hook::input::inspect::Interface;

#[derive(Debug, Default)]
pub struct Printed {
    pub name: Option<String>,
    pub uuid: Option<String>,
    pub forward: Option<String>,
    pub bridge: Option<String>,
    pub mac: Option<String>,
    pub interfaces: Vec<Interface>,
}

impl Printed {
    pub fn domain(text: &str) -> Printed {
        let mut printed = Printed::default();
        let (mut devices, mut inside, mut actual) = (false, false, false);
        for line in text.lines() {
            let (depth, element) = (line.len() - line.trim_start().len(), line.trim_start());
            match depth {
                2 => devices = element == "<devices>",
                4 if devices => {
                    inside = element.starts_with("<interface ");
                    if inside {
                        let kind = value(element, "type").expect("an interface has a type");
                        printed.interfaces.push(Interface { kind, ..Interface::default() });
                    }
                }
                6 => actual = element.starts_with("<actual "),
                _ => {}
            }
            if depth == 2 {
                printed.name = printed.name.take().or(content(element, "name"));
                printed.uuid = printed.uuid.take().or(content(element, "uuid"));
            }
            let Some(interface) = printed.interfaces.last_mut().filter(|_| devices && inside) else { continue };
            if depth == 6 && element.starts_with("<mac ") {
                interface.mac = value(element, "address");
            } else if depth == 6 && element.starts_with("<target ") {
                interface.target = value(element, "dev");
            } else if depth == 6 && element.starts_with("<source ") {
                interface.network = value(element, "network");
                interface.portgroup = value(element, "portgroup");
                interface.bridge = value(element, "bridge");
            } else if depth == 8 && actual && element.starts_with("<source ") {
                // In status files: what the network made of it.
                interface.bridge = value(element, "bridge").or(interface.bridge.take());
            }
        }
        printed
    }

    pub fn network(text: &str) -> Printed {
        let mut printed = Printed::default();
        let (mut forward, mut dev) = (false, None);
        for line in text.lines() {
            let (depth, element) = (line.len() - line.trim_start().len(), line.trim_start());
            if depth == 2 {
                printed.name = printed.name.take().or(content(element, "name"));
                printed.uuid = printed.uuid.take().or(content(element, "uuid"));
                forward = element.starts_with("<forward ");
            }
            match (depth, element.split(' ').next().unwrap_or_default()) {
                (2, "<forward") => {
                    printed.forward = value(element, "mode");
                    dev = value(element, "dev");
                }
                (2, "<bridge") => printed.bridge = value(element, "name"),
                (2, "<mac") => printed.mac = value(element, "address"),
                (4, "<interface") if forward => {
                    printed.interfaces.extend(uplink(&printed.forward, value(element, "dev")))
                }
                _ => {}
            }
        }
        if printed.interfaces.is_empty() {
            printed.interfaces.extend(uplink(&printed.forward, dev));
        }
        printed
    }

    /// Target, type and MAC, as `virsh domiflist` has them.
    pub fn listed(interface: &Interface) -> (String, String, String) {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        (shown(&interface.target), interface.kind.clone(), shown(&interface.mac))
    }
}

fn uplink(mode: &Option<String>, dev: Option<String>) -> Option<Interface> {
    Some(Interface { kind: mode.clone()?, target: Some(dev?), ..Interface::default() })
}

fn value(element: &str, key: &str) -> Option<String> {
    let (_, rest) = element.split_once(&format!(" {key}='"))?;
    Some(unescaped(rest.split_once('\'')?.0))
}

fn content(element: &str, name: &str) -> Option<String> {
    Some(unescaped(element.strip_prefix(&format!("<{name}>"))?.strip_suffix(&format!("</{name}>"))?))
}

fn unescaped(text: &str) -> String {
    let known = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    known.iter().fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}
