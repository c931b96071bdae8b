//! What a name or the beginning of an id means.

use std::collections::HashMap;

use nexcage_cri_api::v1;

use super::client::{Client, request};
use super::error::CliError;
use super::human::short_id;

/// All pods and containers there are.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) pods: Vec<v1::PodSandbox>,
    pub(super) containers: Vec<v1::Container>,
}

/// What can be deleted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Pod(&'a v1::PodSandbox),
    Container(&'a v1::Container),
}

impl Inventory {
    /// Asks the daemon.
    pub(super) async fn fetch(client: &mut Client) -> Result<Self, CliError> {
        let pods = client
            .runtime
            .list_pod_sandbox(request(v1::ListPodSandboxRequest { filter: None }))
            .await
            .map_err(CliError::rpc("cannot list pods"))?;
        let containers = client
            .runtime
            .list_containers(request(v1::ListContainersRequest { filter: None }))
            .await
            .map_err(CliError::rpc("cannot list containers"))?;
        Ok(Self {
            pods: pods.into_inner().items,
            containers: containers.into_inner().containers,
        })
    }

    /// The container of this name: its id, its name, `pod/container` or the beginning of its id, in this order.
    ///
    /// # Errors
    ///
    /// [`CliError::NotFound`], [`CliError::Ambiguous`].
    pub(super) fn container(&self, name: &str) -> Result<&v1::Container, CliError> {
        match self.one_of(&self.containers_called(name), name)? {
            Some(Target::Container(container)) => Ok(container),
            _ => Err(CliError::NotFound {
                kind: "container",
                name: name.to_owned(),
            }),
        }
    }

    /// As [`container`](Self::container); a pod stands for its only container.
    ///
    /// # Errors
    ///
    /// [`CliError::NotFound`], [`CliError::Ambiguous`], [`CliError::State`] if the pod has none.
    pub(super) fn container_of(&self, name: &str) -> Result<&v1::Container, CliError> {
        let not_found = match self.container(name) {
            Err(error) if error.is_not_found() => error,
            found => return found,
        };
        let Ok(Target::Pod(pod)) = self.target(name) else {
            return Err(not_found);
        };
        let inside = self
            .containers
            .iter()
            .filter(|c| c.pod_sandbox_id == pod.id);
        // A container that was restarted is the same container.
        let inside = latest(inside, container_name, |c| {
            c.metadata.as_ref().map(|m| m.attempt)
        });
        if inside.is_empty() {
            return Err(CliError::State(format!("pod {name} has no container")));
        }
        let found: Vec<_> = inside.into_iter().map(Target::Container).collect();
        match self.one_of(&found, name)? {
            Some(Target::Container(container)) => Ok(container),
            _ => Err(not_found),
        }
    }

    /// The pod or container of this name. Pods come first, because a pod often has a container of its own name.
    ///
    /// # Errors
    ///
    /// [`CliError::NotFound`], [`CliError::Ambiguous`].
    pub(super) fn target(&self, name: &str) -> Result<Target<'_>, CliError> {
        let pods: Vec<_> = self.pods_named(name).into_iter().map(Target::Pod).collect();
        let found = if pods.is_empty() {
            self.containers_named(name)
        } else {
            pods
        };
        let found = if found.is_empty() {
            self.ids(name)
        } else {
            found
        };
        self.one_of(&found, name)?
            .ok_or_else(|| CliError::NotFound {
                kind: "pod or container",
                name: name.to_owned(),
            })
    }

    fn one_of<'a>(
        &'a self,
        found: &[Target<'a>],
        name: &str,
    ) -> Result<Option<Target<'a>>, CliError> {
        match found {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            several => {
                let candidates = several.iter().map(|t| self.describe(*t)).collect();
                Err(CliError::Ambiguous {
                    name: name.to_owned(),
                    candidates,
                })
            }
        }
    }

    fn containers_called(&self, name: &str) -> Vec<Target<'_>> {
        let named = self.containers_named(name);
        if !named.is_empty() {
            return named;
        }
        self.ids(name)
            .into_iter()
            .filter(|t| matches!(t, Target::Container(_)))
            .collect()
    }

    /// Pods with this id or name.
    fn pods_named(&self, name: &str) -> Vec<&v1::PodSandbox> {
        if let Some(exact) = self.pods.iter().find(|p| p.id == name) {
            return vec![exact];
        }
        let named = self.pods.iter().filter(|p| pod_name(p) == name);
        // A pod that was made anew is the same pod.
        latest(
            named,
            |p| p.metadata.as_ref().map(|m| (&m.namespace, &m.uid)),
            |p| p.metadata.as_ref().map(|m| m.attempt),
        )
    }

    /// Containers with this id, name, or name within a pod.
    fn containers_named(&self, name: &str) -> Vec<Target<'_>> {
        if let Some(exact) = self.containers.iter().find(|c| c.id == name) {
            return vec![Target::Container(exact)];
        }
        let is_it = |c: &&v1::Container| match name.rsplit_once('/') {
            None => container_name(c) == name,
            Some((pod, container)) => {
                container_name(c) == container && self.is_pod(&c.pod_sandbox_id, pod)
            }
        };
        // A container that was restarted is the same container.
        latest(
            self.containers.iter().filter(is_it),
            |c| Some(&c.pod_sandbox_id),
            |c| c.metadata.as_ref().map(|m| m.attempt),
        )
        .into_iter()
        .map(Target::Container)
        .collect()
    }

    fn is_pod(&self, id: &str, called: &str) -> bool {
        let named = self
            .pods
            .iter()
            .any(|p| p.id == id && pod_name(p) == called);
        named || (!called.is_empty() && id.starts_with(called))
    }

    /// Everything whose id begins like this.
    fn ids(&self, prefix: &str) -> Vec<Target<'_>> {
        if prefix.is_empty() {
            return Vec::new();
        }
        let pods = self
            .pods
            .iter()
            .filter(|p| p.id.starts_with(prefix))
            .map(Target::Pod);
        let containers = self.containers.iter().filter(|c| c.id.starts_with(prefix));
        pods.chain(containers.map(Target::Container)).collect()
    }

    fn describe(&self, target: Target<'_>) -> String {
        match target {
            Target::Pod(pod) => format!("pod {} ({})", pod_name(pod), short_id(&pod.id)),
            Target::Container(c) => {
                let pod = self.pods.iter().find(|p| p.id == c.pod_sandbox_id);
                let pod = pod.map_or(short_id(&c.pod_sandbox_id), pod_name);
                format!(
                    "container {pod}/{} ({})",
                    container_name(c),
                    short_id(&c.id)
                )
            }
        }
    }
}

/// The name of a pod; empty if a runtime leaves it out.
pub(super) fn pod_name(pod: &v1::PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |m| &m.name)
}

/// The name of a container within its pod; empty if a runtime leaves it out.
pub(super) fn container_name(container: &v1::Container) -> &str {
    container.metadata.as_ref().map_or("", |m| &m.name)
}

/// Of those that are the same thing, the one with the highest attempt, in their first order.
fn latest<'a, T, K: std::hash::Hash + Eq>(
    all: impl Iterator<Item = &'a T>,
    same: impl Fn(&'a T) -> K,
    attempt: impl Fn(&'a T) -> Option<u32>,
) -> Vec<&'a T> {
    let mut found: Vec<&T> = Vec::new();
    let mut places: HashMap<K, usize> = HashMap::new();
    for item in all {
        let place = *places.entry(same(item)).or_insert(found.len());
        match found.get_mut(place) {
            None => found.push(item),
            Some(other) if attempt(item) > attempt(other) => *other = item,
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(id: &str, name: &str, uid: &str, attempt: u32) -> v1::PodSandbox {
        let metadata = v1::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: "default".into(),
            attempt,
        };
        v1::PodSandbox {
            id: id.into(),
            metadata: Some(metadata),
            ..Default::default()
        }
    }

    fn container(id: &str, pod: &str, name: &str, attempt: u32) -> v1::Container {
        let metadata = v1::ContainerMetadata {
            name: name.into(),
            attempt,
        };
        v1::Container {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            metadata: Some(metadata),
            ..Default::default()
        }
    }

    fn inventory() -> Inventory {
        Inventory {
            pods: vec![pod("aa11", "web", "u1", 0), pod("ab22", "db", "u2", 0)],
            containers: vec![
                container("c111", "aa11", "web", 0),
                container("c122", "aa11", "sidecar", 0),
                container("c133", "aa11", "sidecar", 1),
                container("d444", "ab22", "sidecar", 0),
            ],
        }
    }

    fn found(result: Result<Target<'_>, CliError>) -> String {
        match result {
            Ok(Target::Pod(pod)) => pod.id.clone(),
            Ok(Target::Container(container)) => container.id.clone(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn containers_are_found_by_name_pod_and_id() {
        let inventory = inventory();
        let id = |name| inventory.container(name).unwrap().id.as_str();
        assert_eq!(id("web"), "c111");
        assert_eq!(id("db/sidecar"), "d444");
        assert_eq!(id("ab/sidecar"), "d444");
        assert_eq!(id("d"), "d444");
        assert_eq!(id("c122"), "c122", "an id names one attempt");
        assert_eq!(id("web/sidecar"), "c133", "a name means the latest attempt");
    }

    #[test]
    fn what_is_ambiguous_names_the_candidates() {
        let inventory = inventory();
        assert_eq!(
            inventory.container("sidecar").unwrap_err().to_string(),
            "\"sidecar\" is ambiguous, it may be: container web/sidecar (c133), \
             container db/sidecar (d444)"
        );
        assert_eq!(
            found(inventory.target("a")),
            "\"a\" is ambiguous, it may be: pod web (aa11), pod db (ab22)"
        );
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let inventory = inventory();
        for name in [
            "",
            "nothing",
            "/",
            "web/",
            "/web",
            "db/web",
            "web/nothing",
            "aa",
        ] {
            assert!(
                inventory.container(name).unwrap_err().is_not_found(),
                "{name:?}"
            );
        }
        assert!(inventory.target("").unwrap_err().is_not_found());
    }

    #[test]
    fn a_target_is_a_pod_before_it_is_a_container() {
        let inventory = inventory();
        assert_eq!(found(inventory.target("web")), "aa11");
        assert_eq!(found(inventory.target("web/web")), "c111");
        assert_eq!(found(inventory.target("ab")), "ab22");
        assert_eq!(found(inventory.target("c12")), "c122");
    }

    #[test]
    fn a_pod_stands_for_its_only_container() {
        let mut inventory = inventory();
        let id = |inventory: &Inventory, name| inventory.container_of(name).map(|c| c.id.clone());
        assert_eq!(id(&inventory, "db").unwrap(), "d444");
        assert_eq!(
            id(&inventory, "web").unwrap(),
            "c111",
            "a container is meant first"
        );
        assert!(id(&inventory, "nothing").unwrap_err().is_not_found());
        inventory.pods.push(pod("ac33", "empty", "u3", 0));
        assert!(matches!(id(&inventory, "empty"), Err(CliError::State(_))));
        inventory
            .containers
            .push(container("e555", "ab22", "other", 0));
        assert!(matches!(
            id(&inventory, "db"),
            Err(CliError::Ambiguous { .. })
        ));
    }

    #[test]
    fn a_pod_made_anew_is_one_pod_and_its_namesake_is_another() {
        let mut inventory = inventory();
        inventory.pods.push(pod("ee55", "web", "u1", 1));
        assert_eq!(found(inventory.target("web")), "ee55");
        inventory.pods.push(pod("ff66", "web", "u9", 0));
        assert!(matches!(
            inventory.target("web"),
            Err(CliError::Ambiguous { .. })
        ));
    }
}
