//! Which images there are, and under which names.
//!
//! A name is that of the repository below the registry's host, with the tag: the daemon's mirrors
//! drop the host, so `registry.k8s.io/pause:3.9` and `k8s.gcr.io/pause:3.9` are both `pause:3.9`.
//! critest's own names are in cri-tools, `pkg/validate/consts.go` and `pkg/framework/util.go`.

use std::rc::Rc;

use super::contents::{Programs, accounts, apache, nginx};
use super::layer::{Layer, Packed};
use super::{Image, RunConfig};

/// All images, each with its names.
pub(super) fn all(programs: &Programs) -> anyhow::Result<Vec<(Image, Vec<String>)>> {
    let busybox = programs.busybox_layer()?.pack()?;
    let nginx_program = programs.nginx_layer()?.pack()?;
    let on_busybox = |layers: Vec<Rc<Packed>>, run| Image {
        layers: [vec![busybox.clone()], layers].concat(),
        run,
    };
    let nginx_on = |port| -> anyhow::Result<Image> {
        let run = RunConfig {
            cmd: vec!["nginx", "-g", "daemon off;"],
            stop_signal: Some("SIGQUIT"),
            ..RunConfig::default()
        };
        Ok(on_busybox(
            vec![nginx_program.clone(), nginx(port).pack()?],
            run,
        ))
    };

    let mut images = Images::default();
    // The image of nearly all containers in critest and in our own tests.
    images.add(
        on_busybox(vec![], shell()),
        &["e2e-test-images/busybox:1.29-2", "library/busybox:latest"],
    );
    images.add(nginx_on(80)?, &["e2e-test-images/nginx:1.14-2"]);
    // For pods on the host's network, where port 80 may be taken.
    images.add(
        nginx_on(12003)?,
        &[
            "k8s-staging-cri-tools/hostnet-nginx-amd64:latest",
            "k8s-staging-cri-tools/hostnet-nginx-arm64:latest",
        ],
    );
    let httpd = RunConfig {
        // By its path: busybox may have a small httpd of its own in /bin.
        cmd: vec!["/usr/sbin/httpd", "-D", "FOREGROUND"],
        stop_signal: Some("SIGWINCH"),
        ..RunConfig::default()
    };
    images.add(
        on_busybox(
            vec![programs.apache_layer()?.pack()?, apache().pack()?],
            httpd,
        ),
        &["e2e-test-images/httpd:2.4.39-4"],
    );
    images.add(
        one_program("/nonewprivs", programs.nonewprivs_layer().pack()?),
        &["e2e-test-images/nonewprivs:1.3"],
    );
    images.add(
        one_program("/pause", programs.pause_layer().pack()?),
        &["pause:3.9"],
    );

    // A user who is in a group that only the image knows.
    let default_user = accounts(
        "default-user:x:1000:1000::/home/default-user:/bin/sh\n",
        "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
    );
    images.add(
        on_busybox(
            vec![default_user.pack()?],
            RunConfig {
                user: Some("1000"),
                ..shell()
            },
        ),
        &["k8s-staging-cri-tools/test-image-predefined-group:latest"],
    );
    for (user, name) in USERS {
        let run = RunConfig {
            user: Some(user),
            ..shell()
        };
        images.add(on_busybox(vec![], run), &[name]);
    }
    for (mark, names) in TOLD_APART {
        let mut layer = Layer::default();
        layer.file(format!("image-test-{mark}"), 0o644, format!("{mark}\n"));
        images.add(on_busybox(vec![layer.pack()?], shell()), names);
    }
    Ok(images.0)
}

/// Images whose config names a user in each of the four ways there are.
const USERS: [(&str, &str); 4] = [
    ("1002", "k8s-staging-cri-tools/test-image-user-uid:latest"),
    (
        "www-data",
        "k8s-staging-cri-tools/test-image-user-username:latest",
    ),
    (
        "1003:users",
        "k8s-staging-cri-tools/test-image-user-uid-group:latest",
    ),
    (
        "www-data:www-data",
        "k8s-staging-cri-tools/test-image-user-username-group:latest",
    ),
];

/// Images that are alike but for one file, so that their ids differ.
const TOLD_APART: [(&str, &[&str]); 7] = [
    (
        "latest",
        &["k8s-staging-cri-tools/test-image-latest:latest"],
    ),
    ("tag", &["k8s-staging-cri-tools/test-image-tag:test"]),
    ("all", &["k8s-staging-cri-tools/test-image-tag:all"]),
    ("1", &["k8s-staging-cri-tools/test-image-1:latest"]),
    ("2", &["k8s-staging-cri-tools/test-image-2:latest"]),
    ("3", &["k8s-staging-cri-tools/test-image-3:latest"]),
    (
        "tags",
        &[
            "k8s-staging-cri-tools/test-image-tags:1",
            "k8s-staging-cri-tools/test-image-tags:2",
            "k8s-staging-cri-tools/test-image-tags:3",
        ],
    ),
];

#[derive(Default)]
struct Images(Vec<(Image, Vec<String>)>);

impl Images {
    fn add(&mut self, image: Image, names: &[&str]) {
        self.0
            .push((image, names.iter().map(|&name| name.to_owned()).collect()));
    }
}

fn shell() -> RunConfig {
    RunConfig {
        cmd: vec!["sh"],
        ..RunConfig::default()
    }
}

fn one_program(path: &'static str, layer: Rc<Packed>) -> Image {
    Image {
        layers: vec![layer],
        run: RunConfig {
            entrypoint: vec![path],
            ..RunConfig::default()
        },
    }
}
