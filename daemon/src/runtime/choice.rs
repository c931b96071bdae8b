//! Which backend a pod asks for: by its runtime handler, or, where it names none, by its annotations.

use std::collections::BTreeMap;

use nexcage_config::{BACKEND_ANNOTATIONS, Backend, Config, PROXMOX_HANDLERS};

use crate::cri::InvalidField;

/// A backend, and what asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) backend: Backend,
    /// In words, for the error where there is no such backend: `the runtime handler "nexcage"`.
    pub(crate) by: String,
}

/// Decides by the runtime handler that the pod names; where it names none, by the first of [`BACKEND_ANNOTATIONS`] that it has;
/// where it has none, the backend is `default_backend`. `None` if there is no such handler.
///
/// # Errors
///
/// [`InvalidField`] names an annotation with a value that means nothing, one that the handler `""` does not allow, and two
/// that ask for different backends: whoever set one of them is wrong about what runs.
pub(crate) fn choose(
    config: &Config,
    handler: &str,
    annotations: &BTreeMap<String, String>,
) -> Option<Result<Choice, InvalidField>> {
    let handler = config.handler(handler)?;
    if !handler.name.is_empty() {
        return Some(Ok(Choice {
            backend: handler.backend,
            by: format!("the runtime handler {:?}", handler.name),
        }));
    }
    let mut asked: Option<(&str, &str, Backend)> = None;
    for name in BACKEND_ANNOTATIONS {
        let Some(value) = annotations.get(name) else {
            continue;
        };
        if !handler.allows_annotation(name) {
            let problem = "is not among the annotations that the runtime handler \"\" allows";
            return Some(Err(invalid(name, problem.to_owned())));
        }
        let Some(backend) = meaning(config, value) else {
            let problem = format!("{value:?} is no backend; it may be {}", allowed());
            return Some(Err(invalid(name, problem)));
        };
        match asked {
            None => asked = Some((name, value, backend)),
            Some((_, _, first)) if first == backend => {}
            Some((first, its, _)) => {
                let problem = format!(
                    "asks for {value:?}, and {first} for {its:?}; remove one of them, or let the pod name a runtime handler"
                );
                return Some(Err(invalid(name, problem)));
            }
        }
    }
    Some(Ok(match asked {
        Some((name, value, backend)) => Choice {
            backend,
            by: format!("the annotation {name}: {value}"),
        },
        None => Choice {
            backend: handler.backend,
            by: "default_backend".to_owned(),
        },
    }))
}

/// What a value of such an annotation means: a backend, or one of the handlers that everybody knows, for its backend
/// alone. `crun` is what the `host` backend runs containers with, and was the name of it in older programs.
fn meaning(config: &Config, value: &str) -> Option<Backend> {
    match value {
        "lxc" => Some(Backend::Lxc),
        "proxmox" => Some(Backend::Proxmox),
        "host" | "crun" => Some(Backend::Host),
        name if PROXMOX_HANDLERS.contains(&name) => config.handler(name).map(|h| h.backend),
        _ => None,
    }
}

fn allowed() -> String {
    let names = ["lxc", "proxmox", "host", "crun"];
    names
        .into_iter()
        .chain(PROXMOX_HANDLERS)
        .collect::<Vec<_>>()
        .join(", ")
}

fn invalid(annotation: &str, problem: String) -> InvalidField {
    InvalidField::invalid(format!("config.annotations[{annotation:?}]"), problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(
        config: &Config,
        handler: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Backend, String> {
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let choice = choose(config, handler, &annotations).ok_or("no such handler")?;
        choice
            .map(|choice| choice.backend)
            .map_err(|e| e.to_string())
    }

    fn config(json: &serde_json::Value) -> Config {
        Config::parse(&json.to_string(), "test").unwrap()
    }

    #[test]
    fn the_runtime_handler_comes_first() {
        let config =
            config(&serde_json::json!({"runtime_handlers": {"plain": {"backend": "lxc"}}}));
        let host = [("nexcage.runtime.backend", "host")];
        assert_eq!(chosen(&config, "plain", &host), Ok(Backend::Lxc));
        assert_eq!(chosen(&config, "nexcage", &host), Ok(Backend::Proxmox));
        assert_eq!(chosen(&config, "", &host), Ok(Backend::Host));
        assert_eq!(chosen(&config, "", &[]), Ok(Backend::Lxc));
        assert!(chosen(&config, "none", &host).is_err());
    }

    #[test]
    fn values_of_annotations() {
        let config =
            config(&serde_json::json!({"runtime_handlers": {"nexcage": {"backend": "lxc"}}}));
        for (value, backend) in [
            ("lxc", Backend::Lxc),
            ("proxmox", Backend::Proxmox),
            ("host", Backend::Host),
            ("crun", Backend::Host),
            ("nexcage", Backend::Lxc),
            ("nexcage-lxc", Backend::Proxmox),
            ("proxmox-lxc", Backend::Proxmox),
        ] {
            for name in BACKEND_ANNOTATIONS {
                assert_eq!(
                    chosen(&config, "", &[(name, value)]),
                    Ok(backend),
                    "{value}"
                );
            }
        }
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let name = "io.kubernetes.cri.runtime";
        for value in ["", "kata", "LXC", "vm"] {
            let refused = chosen(&Config::default(), "", &[(name, value)]).unwrap_err();
            assert!(
                refused.contains(name) && refused.contains("proxmox-lxc"),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_the_handler_does_not_allow_is_refused() {
        let closed = config(
            &serde_json::json!({"runtime_handlers": {"": {"annotations": ["io.kubernetes.cri.runtime"]}}}),
        );
        let allowed = [("io.kubernetes.cri.runtime", "host")];
        assert_eq!(chosen(&closed, "", &allowed), Ok(Backend::Host));
        let refused = chosen(&closed, "", &[("nexcage.runtime.backend", "host")]).unwrap_err();
        assert!(refused.contains("allows"), "{refused}");
    }

    fn value() -> impl Strategy<Value = Option<&'static str>> {
        prop::option::of(prop::sample::select(vec![
            "lxc",
            "proxmox",
            "host",
            "crun",
            "nexcage",
            "nexcage-lxc",
            "proxmox-lxc",
        ]))
    }

    proptest! {
        #[test]
        fn annotations_that_agree_choose_and_others_are_both_named(
            values in [value(), value(), value()],
        ) {
            let given: Vec<(&str, &str)> = BACKEND_ANNOTATIONS
                .into_iter()
                .zip(values)
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let config = Config::default();
            let meanings: Vec<Backend> =
                given.iter().filter_map(|(_, value)| meaning(&config, value)).collect();
            let got = chosen(&config, "", &given);
            match meanings.iter().position(|m| *m != meanings[0]) {
                None => {
                    let expected = meanings.first().copied().unwrap_or(config.default_backend());
                    prop_assert_eq!(got, Ok(expected));
                }
                Some(other) => {
                    let refused = got.unwrap_err();
                    prop_assert!(refused.contains(given[0].0) && refused.contains(given[other].0));
                }
            }
        }

        #[test]
        fn a_named_handler_hears_no_annotation(
            name in prop::sample::select(PROXMOX_HANDLERS.to_vec()),
            annotation in prop::sample::select(BACKEND_ANNOTATIONS.to_vec()),
            value in ".*",
        ) {
            prop_assert_eq!(
                chosen(&Config::default(), name, &[(annotation, &value)]),
                Ok(Backend::Proxmox)
            );
        }

        #[test]
        fn no_value_panics(value in ".*") {
            let _ = chosen(&Config::default(), "", &[(BACKEND_ANNOTATIONS[0], &value)]);
        }
    }
}
