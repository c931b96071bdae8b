//! The commands that docs/proxmox.md gives for a token, as it gives them.

use std::path::Path;

use nexcage_lxc::Pve as _;

use crate::house::House;

/// Lines of the first block of commands in the section `## API token`.
fn documented() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/proxmox.md");
    let text = std::fs::read_to_string(file).unwrap();
    let mut sections = text.split("\n## ");
    let section = sections.find(|section| section.starts_with("API token\n"));
    let block = section
        .expect("the section")
        .split("```")
        .nth(1)
        .expect("commands");
    block.trim().lines().map(str::to_owned).collect()
}

/// As a shell would: words, and words in double quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(number, part)| match number % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[tokio::test]
async fn the_documented_commands_are_enough_and_no_more() {
    let Some(house) = House::new() else { return };
    let lines = documented();
    assert!(lines.len() >= 4, "{lines:?}");
    for line in &lines {
        if line.contains("token add") {
            continue;
        }
        let words = words(line);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let ended = house.run_words(&words);
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains("user token add nexcage@pve node"))
    );
    // The user is there already, so only the token is added.
    let client = house.client_of_token();
    let held = client.permissions().await.unwrap();
    for (path, privilege) in [
        ("/vms/900000", "VM.Audit"),
        ("/vms/900000", "VM.PowerMgmt"),
        ("/", "Sys.Audit"),
    ] {
        assert!(held.has(path, privilege), "{path} {privilege}: {held:?}");
    }
    for (path, privilege) in [
        ("/vms/900000", "VM.Allocate"),
        ("/vms/900000", "VM.Console"),
        ("/nodes/pve1", "Sys.Modify"),
        ("/storage/local", "Datastore.Allocate"),
    ] {
        assert!(!held.has(path, privilege), "{path} {privilege}: {held:?}");
    }
    assert!(client.cluster().await.unwrap().quorate);
    house.finish();
}
