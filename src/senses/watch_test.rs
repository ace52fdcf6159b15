use super::*;
use std::fs;

/// A directory of its own that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("evpn-watch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn take(watch: &mut Watch) -> Vec<Sign> {
    watch.take().unwrap().into_iter().collect()
}

fn file(place: Place, name: &str) -> Sign {
    Sign::File(place, name.to_owned())
}

#[test]
fn files_are_told_once_without_their_ending_and_temporary_ones_not() {
    let dir = Scratch::new("files");
    fs::create_dir_all(dir.at("qemu")).unwrap();
    let mut watch = Watch::new(vec![(Place::Domains, dir.at("qemu"))]).unwrap();
    assert_eq!(take(&mut watch), []);
    for _ in 0..2 {
        fs::write(dir.at("qemu/vm1.xml.new"), "x").unwrap();
        fs::rename(dir.at("qemu/vm1.xml.new"), dir.at("qemu/vm1.xml")).unwrap();
        fs::write(dir.at("qemu/vm1.pid"), "x").unwrap();
    }
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm1")]);
    fs::write(dir.at("qemu/vm2.xml"), "x").unwrap();
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm2")]);
    fs::remove_file(dir.at("qemu/vm1.xml")).unwrap();
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm1")]);
    assert_eq!(take(&mut watch), []);
}

#[test]
fn a_directory_is_waited_for_and_found_again() {
    let dir = Scratch::new("later");
    let places = vec![(Place::Domains, dir.at("libvirt/qemu")), (Place::LibvirtNetworks, dir.at("libvirt/network"))];
    let mut watch = Watch::new(places).unwrap();
    fs::create_dir(dir.at("libvirt")).unwrap();
    assert_eq!(take(&mut watch), []);
    fs::create_dir(dir.at("libvirt/qemu")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Domains)]);
    fs::write(dir.at("libvirt/qemu/vm1.xml"), "x").unwrap();
    fs::create_dir(dir.at("libvirt/network")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::LibvirtNetworks), file(Place::Domains, "vm1")]);
    assert_eq!(watch.watches.len(), 2, "the parents are let go: {:?}", watch.watches);

    fs::remove_dir_all(dir.at("libvirt")).unwrap();
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm1")]);
    fs::create_dir_all(dir.at("libvirt/qemu")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Domains)]);
    fs::write(dir.at("libvirt/qemu/vm1.xml"), "x").unwrap();
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm1")]);

    fs::rename(dir.at("libvirt/qemu"), dir.at("libvirt/old")).unwrap();
    fs::create_dir(dir.at("libvirt/qemu")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Domains)]);
    fs::write(dir.at("libvirt/old/vm9.xml"), "x").unwrap();
    fs::write(dir.at("libvirt/qemu/vm2.xml"), "x").unwrap();
    assert_eq!(take(&mut watch), [file(Place::Domains, "vm2")]);
}

#[test]
fn a_file_in_the_way_of_a_directory_is_waited_out() {
    let dir = Scratch::new("in-the-way");
    fs::write(dir.at("frr"), "x").unwrap();
    let mut watch = Watch::new(vec![(Place::Speaker, dir.at("frr/spine1"))]).unwrap();
    fs::remove_file(dir.at("frr")).unwrap();
    fs::create_dir_all(dir.at("frr/spine1")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Speaker)]);
    fs::write(dir.at("frr/spine1/zebra.vty"), "").unwrap();
    fs::write(dir.at("frr/spine1/zebra.pid"), "").unwrap();
    assert_eq!(take(&mut watch), [file(Place::Speaker, "zebra")]);
}

#[test]
fn what_lies_beside_the_configuration_is_told_by_its_whole_name() {
    let dir = Scratch::new("config");
    let mut watch = Watch::new(vec![(Place::Config, dir.at("etc/evpn"))]).unwrap();
    fs::create_dir_all(dir.at("etc/evpn")).unwrap();
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Config)]);
    fs::write(dir.at("etc/evpn/config.toml"), "").unwrap();
    assert_eq!(take(&mut watch), [file(Place::Config, "config.toml")]);
    fs::rename(dir.at("etc/evpn/config.toml"), dir.at("etc/evpn/config.toml~")).unwrap();
    assert_eq!(take(&mut watch), [file(Place::Config, "config.toml"), file(Place::Config, "config.toml~")]);
}

#[test]
fn a_program_is_told_when_it_runs_and_found_again_when_it_is_installed_anew() {
    let dir = Scratch::new("program");
    let program = dir.at("bin/vtysh");
    let run = || {
        // Another test's fork may have the file open for writing for a moment (ETXTBSY).
        while std::process::Command::new(&program).status().is_err_and(|e| e.raw_os_error() == Some(26)) {}
    };
    let install = |name: &str| {
        fs::copy("/bin/true", dir.at("bin/new")).unwrap();
        fs::rename(dir.at("bin/new"), dir.at(name)).unwrap();
    };
    let mut watch = Watch::new(vec![(Place::Vtysh, program.clone())]).unwrap();
    fs::create_dir(dir.at("bin")).unwrap();
    assert_eq!(take(&mut watch), []);
    install("bin/vtysh");
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Vtysh)]);
    run();
    assert_eq!(take(&mut watch), [Sign::Started(Place::Vtysh), Sign::Ended(Place::Vtysh)]);
    install("bin/other");
    assert_eq!(take(&mut watch), [], "its neighbours are none of ours");
    install("bin/vtysh");
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Vtysh)]);
    run();
    assert_eq!(take(&mut watch), [Sign::Started(Place::Vtysh), Sign::Ended(Place::Vtysh)]);
    fs::remove_file(&program).unwrap();
    assert_eq!(take(&mut watch), []);
    install("bin/vtysh");
    assert_eq!(take(&mut watch), [Sign::Appeared(Place::Vtysh)]);
}
