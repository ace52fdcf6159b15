//! What libvirt would put on a hook's stdin, in its own words.

/// A domain; its UUID ends in this number.
pub fn domain(number: u32, metadata: &str, interfaces: &str) -> String {
    format!(
        "<domain type='kvm' id='{number}'>
  <name>vm{number}</name>
  <uuid>11111111-2222-3333-4444-{number:012}</uuid>
  <metadata>{metadata}</metadata>
  <devices>{interfaces}</devices>
</domain>
"
    )
}

/// `<interface type='bridge'>` as libvirt gives it at `start`, of whatever network.
pub fn interface(mac: &str, dev: &str, bridge: &str) -> String {
    format!(
        "<interface type='bridge'><mac address='{mac}'/><source network='x' portid='a675cc40-b1e9-40b4-895b-a6790239f68e' \
         bridge='{bridge}'/><target dev='{dev}'/><model type='virtio'/></interface>"
    )
}

/// Our metadata for one MAC.
pub fn guest(mac: &str, network: Option<&str>, ips: &[&str]) -> String {
    let network = network.map_or(String::new(), |name| format!(" network='{name}'"));
    let ips: String = ips.iter().map(|ip| format!("<evpn:ip address='{ip}'/>")).collect();
    format!(
        "<evpn:guest xmlns:evpn='urn:evpn-hook:1'><evpn:interface mac='{mac}'{network}>{ips}</evpn:interface></evpn:guest>"
    )
}

/// A network's hook data: `inner` is our metadata's element, `rest` what follows libvirt's `<metadata>`.
pub fn network(name: &str, inner: &str, rest: &str) -> String {
    format!(
        "<hookData>
  <network>
    <name>{name}</name>
    <uuid>0042c036-a8f5-49ca-befe-1317a489deb6</uuid>
    <metadata>{}</metadata>
    {rest}
  </network>
</hookData>
",
        inner.replacen("<evpn:network", "<evpn:network xmlns:evpn='urn:evpn-hook:1'", 1)
    )
}

/// What a layer-2 tenant `lab` on bridge `lab-l2` has; there is nothing to advise.
pub const LAB: &str = "<forward mode='open'/><bridge name='lab-l2' stp='off' delay='0'/><mtu size='1450'/>
    <mac address='00:00:00:11:11:10'/><ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><host mac='52:54:00:03:82:d8' ip='10.1.0.60'/></dhcp></ip>
    <dnsmasq:options xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'><dnsmasq:option value='dhcp-broadcast'/></dnsmasq:options>";

/// Its bridge, as libvirt makes it.
pub const LIBVIRTS_BRIDGE: &str =
    "ip link add lab-l2 address 00:00:00:11:11:10 type bridge && ip address add 10.1.0.1/24 dev lab-l2 &&
    sysctl -qw net.ipv6.conf.lab-l2.disable_ipv6=1 && ip link set lab-l2 up";
