//! Taking everything away that a simulator has made.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use crate::ct::{Node, unmount_all};
use crate::house::House;
use crate::lxc::active;
use crate::program::{has_systemd, run, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Notes a container, whose directory is to be removed one day.
///
/// # Errors
///
/// The note cannot be written.
pub fn note(house: &House, vmid: u32) -> std::io::Result<()> {
    let file = house.containers();
    let known = fs::read_to_string(&file).unwrap_or_default();
    if known.lines().any(|line| line == vmid.to_string()) {
        return Ok(());
    }
    let mut file = fs::File::options().append(true).create(true).open(file)?;
    writeln!(file, "{vmid}")
}

/// Ends the containers of a simulator that does not run any more, and removes all that it left. Containers that somebody else has started
/// under numbers that this one never started are not touched.
///
/// # Errors
///
/// The simulator's own directory cannot be removed.
pub fn sweep(house: &House) -> anyhow::Result<()> {
    let lxc_path = house.options().lxc_path.clone();
    let known = fs::read_to_string(house.containers()).unwrap_or_default();
    let known: Vec<u32> = known.lines().filter_map(|line| line.parse().ok()).collect();
    let listed = || active(&lxc_path).unwrap_or_default();
    for vmid in known.iter().filter(|vmid| listed().contains(vmid)) {
        let name = vmid.to_string();
        let stop = ["-P", lxc_path.as_str(), "-n", &name, "--kill"];
        if let Err(died) = run("lxc-stop", &stop, LIMIT) {
            eprintln!("{died}");
        }
        wait_for(LIMIT, || (!listed().contains(vmid)).then_some(()));
    }
    let mount = house.options().mount.clone();
    let _ = unmount(mount.as_std_path(), UnmountFlags::DETACH);
    let node = Node::new(house.clone());
    for vmid in known {
        if has_systemd() {
            let unit = house.unit(vmid);
            let _ = run("systemctl", &["stop", &unit], LIMIT);
        }
        for dir in node.cgroups(vmid) {
            let _ = fs::remove_dir(dir);
        }
        // Usually mounted where nobody sees it.
        unmount_all(&house.container(vmid));
        let _ = fs::remove_dir_all(house.container(vmid));
        for file in [house.lock(vmid), house.stderr(vmid), house.warnings(vmid)] {
            let _ = fs::remove_file(file);
        }
    }
    let _ = fs::remove_dir(&mount);
    fs::remove_dir_all(house.dir())?;
    Ok(())
}
