//! The tenants' networks: by libvirt on comp1, from config.toml on comp2.

use super::{GREEN, RED, Stage, Tenant};
use std::fmt::Write;

pub fn up(stage: &mut Stage) {
    let (fabric, story) = (stage.fabric, &mut stage.story);
    let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
    story.chapter("Two tenants, red and green, stretched over two hosts");
    story.say("FRR on each host speaks l2vpn evpn with 'advertise-all-vni' and knows of no tenant:");
    story.run(comp1, "vtysh -c 'show evpn vni'");
    story.run(comp1, "vtysh -c 'show bgp l2vpn evpn summary' | grep -A1 ^Neighbor | cut -c-100");

    story.say("\nOn comp1 they are libvirt networks. All that evpn-hook wants to know stands in their metadata:");
    let file = "/usr/share/evpn-hook/libvirt-networks/red.xml";
    story.run(comp1, &format!("sed -n '/<metadata>/,/<ip /p' {file}"));
    for tenant in [&RED, &GREEN] {
        let name = tenant.name;
        story.run(comp1, &format!("virsh net-define /usr/share/evpn-hook/libvirt-networks/{name}.xml"));
        story.run(comp1, &format!("virsh net-start {name}"));
    }
    story.say("\nlibvirt called evpn-hook: VRF, VXLAN devices, L3VNI and FRR's part of each VRF are there.");
    story.run(comp1, "evpn-hook status");
    story.run(comp1, "vtysh -c 'show evpn vni'");

    story.say("\nOn comp2, which has no libvirt networks, config.toml says the same: same VNIs, same gateway address and MAC.");
    comp2.write("/etc/evpn-hook/config.toml", &config());
    story.run(comp2, "sed -n '/# red/,/^$/p' /etc/evpn-hook/config.toml");
    story.run(comp2, "evpn-hook network up --all");
    let status = story.run(comp2, "evpn-hook status");
    for tenant in [&RED, &GREEN] {
        story.check(status.contains(&format!("{}: up, bridge {}", tenant.name, tenant.bridge)), || {
            format!("comp2's status does not say that {} is up", tenant.name)
        });
    }
}

fn config() -> String {
    [(&RED, 10, "00:00:00:11:11:10"), (&GREEN, 30, "00:00:00:11:11:30")].iter().fold(
        String::new(),
        |mut text, (tenant, l3, mac)| {
            let Tenant { name, bridge, vni, gateway, .. } = tenant;
            let _ = write!(
                text,
                "# {name}\n[[vrf]]\nname = \"{name}\"\ntable = {l3}\nvni = {l3}\n[[network]]\nname = \"{name}\"\nbridge = \"{bridge}\"\n\
                 vni = {vni}\nvrf = \"{name}\"\ngateway = [\"{gateway}/24\"]\nmac = \"{mac}\"\nmtu = 1450\n\n"
            );
            text
        },
    )
}
