//! What is known to be wrong in some versions of FRR. Ranges are by FRR's source, with all tags up to 10.7.0; where only a later patch release has the
//! repair, the whole release counts as affected.

use super::Finding;
use crate::speaker::Version;

/// The oldest that it was tried with.
const OLDEST: Version = Version(8, 4);
const NEVER: Version = Version(u32::MAX, 0);

/// From the first to before the second: what is wrong, and what evpn-hook or the operator does about it.
const DEFECTS: [(Version, Version, &str, &str); 16] = [
    (
        Version(0, 0),
        Version(8, 5),
        "ignores a MAC's route whose mobility sequence fell (FRR issues 10468, 9327): a guest that stopped here and started elsewhere may stay at its old VTEP",
        "migrate instead of stop and start, or run FRR 8.5 or newer",
    ),
    (
        Version(0, 0),
        Version(9, 1),
        "gives a network that comes up beside thousands of routes of others only those that zebra's socket takes at once: frames to the rest are flooded (commit bad029e92d)",
        "run FRR 9.1 or newer; 'clear bgp l2vpn evpn PEER', which takes that session down and up, brings the rest",
    ),
    (
        Version(0, 0),
        Version(10, 8),
        "zebra keeps a pointer to an L3VNI's bridge that is deleted in the wrong order, and dies of the next route that goes (FRR PR 22858; mended behind 10.5.4, 10.6.1 and 10.7.0)",
        "take VRFs down with evpn-hook, whose order it survives, not with 'ip link del'",
    ),
    (
        Version(9, 1),
        Version(10, 4),
        "zebra dies when a VRF goes whose table had a route before zebra knew the VRF (FRR PR 16614)",
        "let evpn-hook make VRFs: it waits until zebra knows them; a script that adds routes must wait, too",
    ),
    (
        Version(9, 1),
        Version(10, 4),
        "zebra can die when a bridge goes down under guests while it holds a neighbour's address twice (commit 3060afc84d)",
        "stop a network's guests before 'virsh net-destroy', or run FRR 10.4 or newer",
    ),
    (
        Version(9, 1),
        Version(10, 5),
        "can drop the FDB entry of a port that was enslaved just before (no issue; reordered threads until commit ab823e8cea)",
        "run evpn-agent, which tells FRR again",
    ),
    (
        Version(9, 1),
        Version(10, 8),
        "bgpd can die of a VXLAN device that appears while no instance has advertise-all-vni (FRR issue 22851; mended behind 10.5.4, 10.6.1 and 10.7.0)",
        "keep advertise-all-vni in frr.conf",
    ),
    (
        Version(0, 0),
        Version(10, 6),
        "zebra dies when an L3VNI's VXLAN is deleted while VTEPs that share a router MAC have routes in it (commit 4215788810; 10.3.4 has it)",
        "take VRFs down with evpn-hook, which has FRR forget the L3VNI before",
    ),
    (
        Version(0, 0),
        Version(10, 6),
        "tells type-5 routes with VNI 0 when 'advertise ipv4 unicast' comes before the L3VNI (commit f4c61b5e7d)",
        "let evpn-hook put both into FRR, in their order",
    ),
    (
        Version(10, 3),
        Version(10, 4),
        "drops ESI and gateway address of received EVPN routes (commit a095dd659d; 10.3.1 has it)",
        "put 'soft-reconfiguration inbound' to neighbours that send them, or run another version",
    ),
    (
        Version(10, 3),
        Version(10, 5),
        "refuses 'no router bgp' for 20 ms behind 'no vni' (L3VNI is scheduled to be deleted)",
        "evpn-hook asks again; a script of yours has to, too",
    ),
    (
        Version(10, 6),
        Version(10, 8),
        "never announces a VXLAN device without a local address (\"VNI not found\")",
        "give VXLAN devices of others 'local'; evpn-hook's have it",
    ),
    (
        Version(0, 0),
        Version(10, 7),
        "loses an import route target that equals the automatic one at a restart (FRR issue 21809)",
        "leave it out of frr.conf: it is imported anyway",
    ),
    (
        Version(0, 0),
        NEVER,
        "can delete a guest's entries on the host that it migrates to (FRR issue 21472)",
        "run evpn-agent, which puts them back",
    ),
    (
        Version(0, 0),
        NEVER,
        "keeps a sticky MAC where it was, also after it was withdrawn there (FRR issue 21473)",
        "make no FDB entry sticky; evpn-hook makes none",
    ),
    (
        Version(0, 0),
        NEVER,
        "an L3VNI whose devices are made at once, or up, may stay down (FRR issue 17342)",
        "let evpn-hook make them: down, then up, one after the other",
    ),
];

/// What to know of this version.
pub fn of(version: Option<Version>) -> Vec<Finding> {
    let Some(version) = version else {
        return vec![Finding::not_checked("frr-version", "FRR", "it does not say its version")];
    };
    if version < OLDEST {
        let evidence = format!("FRR {version} is older than {OLDEST}, with which this was never tried");
        return vec![Finding::problem("frr-version", "FRR", evidence).by(format!("run FRR {OLDEST} or newer"))];
    }
    let known = DEFECTS.iter().filter(|(from, before, ..)| (*from..*before).contains(&version));
    known.map(|(_, _, what, mend)| Finding::hint("frr-version", format!("FRR {version}"), *what).by(*mend)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A defect by a word of its own; the first and the last release that has it.
    #[test]
    fn each_defect_is_told_of_the_versions_that_have_it() {
        let has = |version, word: &str| of(Some(version)).iter().any(|finding| finding.evidence.contains(word));
        let releases = [
            (8, 4),
            (8, 5),
            (9, 0),
            (9, 1),
            (10, 0),
            (10, 1),
            (10, 2),
            (10, 3),
            (10, 4),
            (10, 5),
            (10, 6),
            (10, 7),
            (10, 8),
        ];
        let ranges = [
            ("10468", (8, 4), (8, 4)),
            ("bad029e92d", (8, 4), (9, 0)),
            ("22858", (8, 4), (10, 7)),
            ("16614", (9, 1), (10, 3)),
            ("3060afc84d", (9, 1), (10, 3)),
            ("ab823e8cea", (9, 1), (10, 4)),
            ("22851", (9, 1), (10, 7)),
            ("4215788810", (8, 4), (10, 5)),
            ("f4c61b5e7d", (8, 4), (10, 5)),
            ("a095dd659d", (10, 3), (10, 3)),
            ("scheduled to be deleted", (10, 3), (10, 4)),
            ("VNI not found", (10, 6), (10, 7)),
            ("21809", (8, 4), (10, 6)),
            ("21472", (8, 4), (10, 8)),
            ("21473", (8, 4), (10, 8)),
            ("17342", (8, 4), (10, 8)),
        ];
        assert_eq!(ranges.len(), DEFECTS.len());
        for (word, first, last) in ranges {
            for release in releases {
                let is = has(Version(release.0, release.1), word);
                assert_eq!(is, (first..=last).contains(&release), "{word} in {release:?}");
            }
        }
    }
}
