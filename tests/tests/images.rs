//! Images under their many names, and images that are in use.

use anyhow::{Context as _, ensure};
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, image, spec};
use serde_json::json;

#[test]
fn an_image_has_one_id_under_all_its_names() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        let crictl = machine.crictl();
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        crictl.run(&["pull", image::BUSYBOX])?;
        crictl.run(&["pull", image::BUSYBOX_ELSEWHERE])?;

        let images = crictl.json(&["images", "-o", "json"])?;
        let images = images["images"].as_array().context("no list")?;
        ensure!(images.len() == 1, "one image has {} entries", images.len());
        let mut tags: Vec<_> = images[0]["repoTags"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        tags.sort_by_key(|tag| tag.to_string());
        ensure!(
            tags == [image::BUSYBOX_ELSEWHERE, image::BUSYBOX],
            "{tags:?}"
        );
        ensure!(
            images[0]["size"].as_str().is_some_and(|size| size != "0"),
            "no size"
        );

        let id = images[0]["id"].as_str().context("no id")?.to_owned();
        let digest = images[0]["repoDigests"][0]
            .as_str()
            .context("no digest")?
            .to_owned();
        let by_id = crictl.json(&["inspecti", &id])?["status"].take();
        for name in [image::BUSYBOX, image::BUSYBOX_ELSEWHERE, &digest] {
            ensure!(
                crictl.json(&["inspecti", name])?["status"] == by_id,
                "{name} is another image"
            );
        }
        crictl.run(&["pull", &digest])?;

        let usage = crictl.json(&["imagefsinfo"])?;
        let used = usage["status"]["imageFilesystems"][0]["usedBytes"]["value"].as_str();
        ensure!(
            used.is_some_and(|used| used != "0"),
            "no bytes are used: {usage}"
        );

        crictl.run(&["rmi", image::BUSYBOX])?;
        let images = crictl.json(&["images", "-o", "json"])?;
        ensure!(images["images"] == json!([]), "a name is left: {images}");
        baseline.check(machine)
    });
}

#[test]
fn an_image_in_use_can_be_removed_and_does_no_harm() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        machine.pull_busybox()?;
        let pod = machine.run_pod("user")?;
        let id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        machine.crictl().run(&["rmi", image::BUSYBOX])?;
        ensure!(
            machine.exec(&id, &["echo", "alive"])? == "alive",
            "the container lost its files"
        );
        machine.crictl().run(&["rmp", "--force", &pod.id])?;
        baseline.check(machine)
    });
}
