//! Whatever is done in whatever order, the store is as a simple one would be.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Images that share layers.
const IMAGES: [&[&str]; 5] = [
    &["a"],
    &["a", "b"],
    &["a", "b", "c"],
    &["a", "d"],
    &["a", "d", "e"],
];

#[derive(Clone, Debug)]
enum Step {
    Pull(usize),
    /// And whether the space is reclaimed.
    Remove(usize, bool),
    Create(u8, usize),
    Write(u8, u8),
    Checkpoint(u8),
    Restore(u8, usize),
    Forget(u8, usize),
    Delete(u8, bool),
    NothingBusy,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (image, id) = (0..IMAGES.len(), 0_u8..3);
    prop_oneof![
        3 => image.clone().prop_map(Step::Pull),
        2 => (image.clone(), any::<bool>()).prop_map(|(image, reclaim)| Step::Remove(image, reclaim)),
        3 => (id.clone(), image).prop_map(|(id, image)| Step::Create(id, image)),
        3 => (id.clone(), any::<u8>()).prop_map(|(id, byte)| Step::Write(id, byte)),
        3 => id.clone().prop_map(Step::Checkpoint),
        3 => (id.clone(), 0_usize..3).prop_map(|(id, n)| Step::Restore(id, n)),
        1 => (id.clone(), 0_usize..3).prop_map(|(id, n)| Step::Forget(id, n)),
        2 => (id, any::<bool>()).prop_map(|(id, busy)| Step::Delete(id, busy)),
        1 => Just(Step::NothingBusy),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug, Default)]
struct Container {
    image: usize,
    state: Option<String>,
    checkpoints: Vec<(String, Option<String>)>,
}

/// The store, and what it should hold.
struct Both {
    place: Place,
    store: Option<ZfsStore>,
    containers: BTreeMap<u8, Container>,
}

impl Both {
    fn store(&self) -> &ZfsStore {
        self.store.as_ref().unwrap()
    }

    /// The dataset that a container has now.
    async fn dataset(&self, name: u8) -> String {
        mount(self.store(), &name.to_string()).await.unwrap();
        let found = self.place.fake.mounts().into_iter().find(|mounted| {
            let name = format!("tank/n/containers/{name}");
            *mounted == name || mounted.starts_with(&format!("{name}:"))
        });
        self.store()
            .unmount_rootfs(&id(&name.to_string()))
            .await
            .unwrap();
        found.unwrap()["tank/n/".len()..].to_owned()
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Pull(image) => drop(stack(self.store(), &self.place, IMAGES[image]).await),
            Step::Remove(image, reclaim) => self.remove(image, reclaim).await,
            Step::Create(name, image) => self.create(name, image).await,
            Step::Delete(name, busy) => self.delete(name, busy).await,
            Step::NothingBusy => self.place.fake.nothing_busy(),
            Step::Reopen => {
                self.store = None;
                self.store = Some(self.place.open().await);
            }
            Step::Write(name, _)
            | Step::Checkpoint(name)
            | Step::Restore(name, _)
            | Step::Forget(name, _)
                if !self.containers.contains_key(&name) => {}
            Step::Write(name, byte) => {
                let dataset = self.dataset(name).await;
                self.place.write(&dataset, "state", &byte.to_string());
                self.containers.get_mut(&name).unwrap().state = Some(byte.to_string());
            }
            Step::Checkpoint(name) => {
                let made = self
                    .store()
                    .checkpoint_rootfs(&id(&name.to_string()))
                    .await
                    .unwrap();
                let container = self.containers.get_mut(&name).unwrap();
                container
                    .checkpoints
                    .push((made.name, container.state.clone()));
                let many = container.checkpoints.len().saturating_sub(3);
                container.checkpoints.drain(..many);
            }
            Step::Restore(name, n) => {
                let rootfs = id(&name.to_string());
                let Some((checkpoint, state)) = self.containers[&name].checkpoints.get(n).cloned()
                else {
                    return;
                };
                self.store()
                    .restore_rootfs(&rootfs, Some(&checkpoint))
                    .await
                    .unwrap();
                self.containers.get_mut(&name).unwrap().state = state;
            }
            Step::Forget(name, n) => {
                if n >= self.containers[&name].checkpoints.len() {
                    return;
                }
                let container = self.containers.get_mut(&name).unwrap();
                let (checkpoint, _) = container.checkpoints.remove(n);
                let rootfs = id(&name.to_string());
                self.store()
                    .remove_checkpoint(&rootfs, &checkpoint)
                    .await
                    .unwrap();
            }
        }
    }

    /// Takes away the layers of an image that nothing else stands on.
    async fn remove(&self, image: usize, reclaim: bool) {
        let mut removed = Vec::new();
        for chain in chain_of(image).iter().rev() {
            match self.store().remove_layer(chain).await {
                Ok(()) => assert_eq!(self.store().layer(chain).await.unwrap(), None),
                Err(LayerStoreError::InUse { .. }) => break,
                Err(e) => panic!("{e:?}"),
            }
            removed.push(chain.clone());
        }
        if reclaim {
            self.store().reclaim(&removed).await;
        }
    }

    async fn create(&mut self, name: u8, image: usize) {
        let top = chain_of(image).pop().unwrap();
        let there = self.store().layer(&top).await.unwrap().is_some();
        let created = create(self.store(), &name.to_string(), &top).await;
        let fits = self.containers.get(&name).is_none_or(|c| c.image == image);
        assert_eq!(created.is_ok(), there && fits, "{created:?}");
        if created.is_ok() {
            self.containers.entry(name).or_insert(Container {
                image,
                ..Default::default()
            });
        }
    }

    async fn delete(&mut self, name: u8, busy: bool) {
        if busy && self.containers.contains_key(&name) {
            let dataset = self.dataset(name).await;
            self.place.fake.set_busy(&format!("tank/n/{dataset}"), true);
        }
        self.store()
            .remove_rootfs(&id(&name.to_string()))
            .await
            .unwrap();
        self.containers.remove(&name);
    }

    async fn compare(&self) {
        for (name, container) in &self.containers {
            let dataset = self.dataset(*name).await;
            assert_eq!(
                self.place.content(&dataset, "state"),
                container.state,
                "{dataset}"
            );
            for file in ["a", "b", "c", "d", "e"] {
                let there = self.place.content(&dataset, file).is_some();
                assert_eq!(
                    there,
                    IMAGES[container.image].contains(&file),
                    "{dataset} {file}"
                );
            }
            let listed = self
                .store()
                .checkpoints(&id(&name.to_string()))
                .await
                .unwrap();
            let listed: Vec<_> = listed.into_iter().map(|c| c.name).collect();
            let expected: Vec<_> = container
                .checkpoints
                .iter()
                .map(|(n, _)| n.clone())
                .collect();
            assert_eq!(listed, expected);
        }
        assert_eq!(
            self.store().rootfses().await.unwrap().len(),
            self.containers.len()
        );
    }

    /// Nothing is left when everything is removed.
    async fn end(mut self) {
        self.place.fake.nothing_busy();
        for name in 0..3 {
            self.delete(name, false).await;
        }
        for image in (0..IMAGES.len()).rev() {
            self.remove(image, true).await;
        }
        self.place.settled(&[]).await;
    }
}

fn chain_of(image: usize) -> Vec<ChainId> {
    let digests: Vec<_> = IMAGES[image]
        .iter()
        .map(|name| Digest::of(&file(name)))
        .collect();
    ChainId::stack(&digests)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn any_steps(steps in proptest::collection::vec(step(), 1..40)) {
        if is_root() {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let place = Place::new();
                let store = Some(place.open().await);
                let mut both = Both { place, store, containers: BTreeMap::new() };
                for step in &steps {
                    both.step(step).await;
                }
                both.compare().await;
                both.end().await;
            });
        }
    }
}
